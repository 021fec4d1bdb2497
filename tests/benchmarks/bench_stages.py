"""Time of a training step in each stage of a study, as a ratio to a plain float32 step; all from turns in this process.

A stage trains one epoch through `fit`, as a study does: batches are drawn and normalised, and Algorithm 1 looks at the
whole training set once. The teacher's logits are there from before, as in all epochs of a stage but its first. Ratio 1
is base training in float32, networks with plain ReLUs. With `--width 2 --batch 4` computing is next to nothing: ratios
are those of calling operations, which is what a GPU waits for.

Run: python tests/benchmarks/bench_stages.py [--width 16] [--batch 128] [--images 4096] [--turns 5] [--threads 2]
     [--page]
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date

import torch
from floors import Number, keep
from linfair_book.build import repository
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData
from linfair.data.core import Split
from linfair.device import bf16_is_fast, device_name
from linfair.memory import keep_freed_memory
from linfair.mitigation import resolve
from linfair.models import build
from linfair.training import Batch, Distill, Schedule, fit, supervised, threads

SHAPE, CLASSES = (3, 32, 32), 5


def images(n: int) -> GroupedData:
    """Random images with five labels that are groups."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=draw)
    y = torch.arange(n) % CLASSES
    names = tuple("abcde")
    return GroupedData("noise", {"train": Split(x, y, y)}, names, names, mean=(0.5,) * 3, std=(0.25,) * 3)


def stages(data: GroupedData, width: int) -> dict[str, Callable[[Schedule], None]]:
    """One epoch of each stage, as a function of its schedule."""
    plain = build("resnet18", SHAPE, CLASSES, width=width)
    half = gates.install(plain, SHAPE)
    draw = torch.Generator().manual_seed(0)
    gates.set_alphas(half, lambda site, alpha: (torch.rand(alpha.shape, generator=draw) < 0.5).float())

    def epoch(
        model: nn.Module, objective: Callable[[nn.Module, Batch], Tensor], how: Schedule, **hooks: object
    ) -> None:
        fit(model, data, objective, how, seeds=[0], stage="bench", progress=False, **hooks)

    distill = Distill(plain, data)
    distill.teacher_logits(Batch(*[torch.arange(1)] * 4, augmented=False))

    def masks(how: Schedule) -> None:
        def objective(model: nn.Module, batch: Batch) -> Tensor:
            return distill(model, batch) + 1e-5 * sum(a.abs().flatten(1).sum(1) for a in gates.alphas(model).values())

        epoch(gates.install(plain, SHAPE), objective, replace(how, optimizer="adam", lr=1e-3))

    def tuned(arm: str) -> Callable[[Schedule], None]:
        def run(how: Schedule) -> None:
            student = gates.freeze(copy.deepcopy(half))
            objective = resolve(arm).start(student, plain, data, distill=distill)
            epoch(student, objective, how, check=objective.after_epoch)

        return run

    return {
        "base": lambda how: epoch(copy.deepcopy(plain), supervised, how),
        "masks": masks,
        "distillation": tuned("plain"),
        "Algorithm 1": tuned("lagrangian"),
    }


def main() -> None:
    """Print seconds a step and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--page", action="store_true", help="put the numbers into the book's table and page")
    options = parser.parse_args()
    keep_freed_memory()  # as the processes of a study do
    ways = {"float32": Schedule(epochs=1, batch_size=options.batch, lr=1e-3, channels_last=True)}
    ways["bf16"] = replace(ways["float32"], precision="bf16", fused=True)
    with threads(options.threads):
        device = device_name("cpu")
        run = stages(images(options.images), options.width)
        best = {(stage, way): float("inf") for stage in run for way in ways}
        for turn in range(options.turns + 1):
            for stage, way in best:
                start = time.perf_counter()
                run[stage](ways[way])
                if turn:
                    best[stage, way] = min(best[stage, way], time.perf_counter() - start)
    steps = options.images / options.batch
    about = f"ResNet18 of width {options.width}, {options.images} images of 32x32, batch {options.batch}"
    about = f"{about}, best turn, {date.today()}"
    print(f"{about}; {device}, bf16 in hardware: {bf16_is_fast('cpu')}, torch {torch.__version__}")
    rest = {"n": options.turns, "of": "turns", "settings": about, "device": device}
    numbers = []
    for (stage, way), seconds in best.items():
        ratio = seconds / best["base", "float32"]
        print(f"  {stage:14s} {way:8s} {seconds / steps:7.3f} s a step   {ratio:.2f}")
        numbers.append(Number(f"step/{stage}/{way}/seconds", seconds / steps, "s", **rest))
        numbers.append(Number(f"step/{stage}/{way}/ratio", ratio, "times", **rest))
    if options.page:
        keep(repository(), numbers)


if __name__ == "__main__":
    main()
