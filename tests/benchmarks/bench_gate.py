"""Time of a ResNet18 training step: our gate, plain ReLU, the arithmetic form; ratios of runs in this process.

Run: python tests/benchmarks/bench_gate.py [--width 64] [--batch 128] [--steps 3] [--compile]
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair import gates
from linfair.models import build


class ArithmeticGate(nn.Module):
    """The textbook form, alpha * relu(x) + (1 - alpha) * x: five passes over the activations."""

    def __init__(self, gate: gates.ReLUGate) -> None:
        super().__init__()
        self.alpha = nn.Parameter(gate.alpha.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the gate."""
        return self.alpha * F.relu(x) + (1 - self.alpha) * x


def arithmetic(model: nn.Module) -> nn.Module:
    """Replace every gate by the arithmetic form, in place."""
    for name, gate in gates.sites(model).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, ArithmeticGate(gate))
    return model


def step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """One forward and backward pass as a function."""

    def run() -> None:
        F.cross_entropy(model(x), y).backward()
        model.zero_grad(set_to_none=True)

    return run


def measure(runs: dict[str, Callable[[], None]], steps: int, synchronise: Callable[[], None]) -> dict[str, float]:
    """Fastest of several interleaved runs of each, in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(steps + 1):
        for name, run in runs.items():
            synchronise()
            start = time.perf_counter()
            run()
            synchronise()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    """Print the ratios for every device there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also our gate under torch.compile")
    options = parser.parse_args()
    shape = (3, 32, 32)
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        plain = build("resnet18", shape, 10, width=options.width).to(device)
        gated = gates.install(plain, shape)
        models = {
            "plain ReLU": plain,
            "gate, alpha frozen": gates.freeze(gates.install(plain, shape)),
            "gate, alpha trained": gated,
            "arithmetic, alpha trained": arithmetic(gates.install(plain, shape)),
        }
        if options.compile:
            models["gate, alpha trained, compiled"] = torch.compile(gates.install(plain, shape))
        x = torch.randn(options.batch, *shape, device=device)
        y = torch.randint(10, (options.batch,), device=device)
        synchronise = torch.cuda.synchronize if device == "cuda" else lambda: None
        seconds = measure({name: step(model, x, y) for name, model in models.items()}, options.steps, synchronise)
        size = f"ResNet18 width {options.width}, batch {options.batch}"
        print(f"{device}, {torch.get_num_threads()} threads, {size}, torch {torch.__version__}")
        for name, took in seconds.items():
            print(f"  {name:32s} {took:8.3f} s a step   {took / seconds['plain ReLU']:.2f} x plain")


if __name__ == "__main__":
    main()
