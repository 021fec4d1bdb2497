"""Seconds of a step: DP-SGD and DP-SAT by this package, Opacus' hooks and its ghost clipping, and a plain step.

All in one process, on the same batches; the fastest of several interleaved turns counts. A step takes the gradients of
one batch, clipped image by image where it is private, with noise; the optimizer's part is left out.

Run: python tests/benchmarks/bench_private.py [--batch 64] [--turns 10] [--members 10] [--networks mlp cnn resnet18]
"""

import argparse
import copy
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn

from linfair.data import load_data
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.rules import DPSAT, DPSGD, SAM
from linfair.schedule import plain
from linfair.training import Batch, Schedule, supervised

SIZES = {"mlp": (64, (1, 12, 12)), "cnn": (6, (1, 12, 12)), "resnet18": (8, (3, 32, 32))}
"""Width and input of each network."""


def fastest(runs: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Fastest of several interleaved turns of each, in seconds; the first turn warms up."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(turns + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def of_opacus(model: nn.Module, batch: Batch, ghost: bool) -> Callable[[], None]:
    """One step of Opacus on a copy of the network."""
    kind = GradSampleModuleFastGradientClipping if ghost else GradSampleModule
    module = kind(copy.deepcopy(model), **({"max_grad_norm": 1.0, "use_ghost_clipping": True} if ghost else {}))
    inner = torch.optim.SGD(module.parameters(), lr=0.0)
    how = {"noise_multiplier": 1.0, "max_grad_norm": 1.0, "expected_batch_size": len(batch.y)}
    optimizer = (DPOptimizerFastGradientClipping if ghost else DPOptimizer)(inner, **how)
    criterion = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss()) if ghost else F.cross_entropy

    def step() -> None:
        optimizer.zero_grad()
        criterion(module(batch.x), batch.y).backward()
        optimizer.pre_step()

    return step


def of_rule(options: object, model: nn.Module, batch: Batch) -> Callable[[], None]:
    """One step of a rule of this package, or a plain one."""
    data, members = load_data("digits", scale="fixed"), getattr(model, "members", 1)
    schedule = Schedule(epochs=1, batch_size=batch.y.shape[-1])
    sets = data if members == 1 else [data] * members
    rule = plain if options is None else options.start(model, sets, schedule).gradient
    return lambda: rule(model, lambda some, network=model: supervised(network, some), batch)


def main() -> None:
    """Print milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--members", type=int, default=10, help="networks of the MLP's ensemble")
    parser.add_argument("--networks", nargs="+", default=list(SIZES), choices=SIZES)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"batches of {options.batch} images, {torch.get_num_threads()} threads, fastest of {options.turns} turns")
    for name in options.networks:
        width, shape = SIZES[name]
        model = build(name, shape, 10, width=width, norm="group", seed=0).train()
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(options.batch, *shape, generator=generator)
        y = torch.randint(10, (options.batch,), generator=generator)
        batch = Batch(x, y, y, torch.arange(options.batch), augmented=False)
        rules = {"plain": None, "SAM": SAM(), "DP-SGD": DPSGD(noise=1.0), "DP-SAT": DPSAT(noise=1.0)}
        runs = {label: of_rule(one, model, batch) for label, one in rules.items()}
        runs |= {"Opacus, hooks": of_opacus(model, batch, False), "Opacus, ghost": of_opacus(model, batch, True)}
        report(
            f"{name} of width {width}, {sum(one.numel() for one in model.parameters())} weights", runs, options.turns
        )
        if name == "mlp" and options.members > 1:
            together = Ensemble([model] * options.members)
            many = Batch(*(one.expand(options.members, *one.shape) for one in (x, y, y, batch.index)), augmented=False)
            runs = {label: of_rule(rules[label], together, many) for label in ("plain", "DP-SGD")}
            report(f"an ensemble of {options.members}", runs, options.turns)


def report(title: str, runs: dict[str, Callable[[], object]], turns: int) -> None:
    """Print one network's part."""
    print(f"\n{title}")
    best = fastest(runs, turns)
    for label, seconds in best.items():
        print(f"  {label:<14} {1000 * seconds:8.2f} ms  {seconds / best['plain']:6.2f} times plain")


if __name__ == "__main__":
    main()
