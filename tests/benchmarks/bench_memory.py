"""Seconds with glibc's defaults and with freed memory kept, as the `linfair` command keeps it; both in this process.

Run: python tests/benchmarks/bench_memory.py [--width 16] [--batch 512] [--runs 5]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from linfair.memory import keep_freed_memory
from linfair.models import build


def seconds(run: Callable[[], object], runs: int) -> float:
    """The median of several runs, after one that is not counted."""
    taken = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


def main() -> None:
    """Measure a gradient, a product with the Hessian, and a forward pass of ResNet18; print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = build("resnet18", classes=5, width=args.width, input_shape=(3, 32, 32)).eval()
    weights = list(model.parameters())
    x, y = torch.randn(args.batch, 3, 32, 32), torch.randint(0, 5, (args.batch,))
    direction = [torch.randn_like(weight) for weight in weights]

    def gradient(graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.cross_entropy(model(x), y), weights, create_graph=graph)

    def product() -> tuple[Tensor, ...]:
        along = sum((one * other).sum() for one, other in zip(gradient(True), direction, strict=True))
        return torch.autograd.grad(along, weights)

    runs = {"forward pass": torch.no_grad()(lambda: model(x)), "gradient": gradient, "product with Hessian": product}
    before = {name: seconds(run, args.runs) for name, run in runs.items()}
    print("kept" if keep_freed_memory() else "this C library keeps nothing")
    for name, run in runs.items():
        after = seconds(run, args.runs)
        print(f"{name:20}  {before[name]:7.3f} s by default  {after:7.3f} s kept  ratio {after / before[name]:.2f}")


if __name__ == "__main__":
    main()
