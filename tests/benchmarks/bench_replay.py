"""Training steps on a GPU, replayed and launched one operation at a time: the same losses, and milliseconds a step.

Each stage trains a ResNet18 on random images through `fit`, twice from the same start, with and without
`linfair.replay`. In an epoch the first step and each size of batch are computed as usual, so a long epoch gains more.

Run: python tests/benchmarks/bench_replay.py [--width 16] [--images 4096] [--batch 128] [--epochs 3]
"""

import argparse
import copy
import os
import time
from dataclasses import replace

import torch
from bench_stages import CLASSES, SHAPE, images
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData
from linfair.device import device_name
from linfair.mitigation import resolve
from linfair.models import build
from linfair.training import Batch, Distill, Schedule, fit, supervised

STAGES = ("base", "masks", "plain", "lagrangian")


def trained(stage: str, data: GroupedData, teacher: nn.Module, half: nn.Module, how: Schedule) -> list[float]:
    """The loss of each epoch of one stage."""
    distill, hooks = Distill(teacher, data), {}

    def masks(model: nn.Module, batch: Batch) -> Tensor:
        return distill(model, batch) + 1e-5 * sum(a.abs().flatten(1).sum(1) for a in gates.alphas(model).values())

    masks.repeats = True
    if stage == "base":
        model, objective = copy.deepcopy(teacher).train(), supervised
    elif stage == "masks":
        model, objective, how = gates.install(teacher, SHAPE), masks, replace(how, optimizer="adam")
    else:
        model = gates.freeze(copy.deepcopy(half))
        objective = resolve(stage).start(model, teacher, data, distill=distill)
        hooks = {"check": objective.after_epoch}
    rows = fit(model, data, objective, how, seeds=[0], stage="bench", progress=False, **hooks)
    return [row["loss"][0] for row in rows]


def main() -> None:
    """Print both losses and both times of every stage in float32 and in bf16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 16), ("images", 4096), ("batch", 128), ("epochs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here, and only on a GPU are steps replayed")
    data = images(options.images).to("cuda")
    teacher = build("resnet18", SHAPE, CLASSES, width=options.width, seed=0).to("cuda")
    half, draw = gates.install(teacher, SHAPE), torch.Generator().manual_seed(0)
    gates.set_alphas(half, lambda site, alpha: (torch.rand(alpha.shape, generator=draw) < 0.5).to(alpha))
    how = Schedule(epochs=options.epochs, batch_size=options.batch, lr=1e-3, channels_last=True, fused=True)
    print(f"{device_name('cuda')}, torch {torch.__version__}, {options}")
    for precision in ("float32", "bf16"):
        for stage in STAGES:
            losses, seconds = {}, {}
            for on in ("0", "1"):
                os.environ["LINFAIR_REPLAY"] = on
                for _ in range(2):  # the first run warms up
                    start = time.perf_counter()
                    losses[on] = trained(stage, data, teacher, half, replace(how, precision=precision))
                    seconds[on] = time.perf_counter() - start
            apart = max(abs(one / two - 1) for one, two in zip(losses["0"], losses["1"], strict=True))
            steps = options.epochs * how.steps(options.images) / 1e3
            times = f"{seconds['0'] / steps:6.1f} ms launched, {seconds['1'] / steps:6.1f} ms replayed"
            print(f"  {precision:8s} {stage:11s} {times}, losses apart by {apart:.1e}")


if __name__ == "__main__":
    main()
