"""Speed of training step by step, every ratio from runs that took turns in this process, as shares of the floors.

Whatever else the machine does hits all alike. A gain is the median over turns of (seconds of the step it builds on) /
(its own seconds): teacher's logits kept against asked for at every step, the others against logits kept. Then ten small
networks as an ensemble against one by one. With `--device cuda` the same on a GPU.

`--page` measures a whole cell too, stage by stage, and puts all of it into the book's table and page on speed.

Run: python tests/benchmarks/bench_training.py [--device cuda] [--width 64] [--images 4096] [--batch 128] [--turns 5]
     python tests/benchmarks/bench_training.py --page
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from floors import SHAPE, Machine, Number, cell_floors, image_cost, keep, training_work
from linfair_book.build import repository
from torch import Tensor

from linfair import gates
from linfair.data import GroupedData, Split, load_data
from linfair.device import device_name
from linfair.engine.store import ResultStore
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.study.cell import grid, run
from linfair.study.recipes import recipe
from linfair.training import Batch, Distill, Schedule, fit, supervised, threads

ASKED, KEPT = "teacher asked at every step", "teacher's logits kept"
STEPS = {
    ASKED: {},
    KEPT: {},
    "channels last": {"channels_last": True},
    "fused optimizer": {"fused": True},
    "bf16": {"precision": "bf16"},
    "torch.compile": {"compile": True},
    "as the profile fast": {"channels_last": True, "fused": True, "precision": "bf16"},
}
"""The ladder: each step and its options of `Schedule`. A CPU leaves out channels last, which its float32 never is."""


class Asking(Distill):
    """Distillation that asks its teacher at every step, as it has to where images move."""

    def teacher_logits(self, batch: Batch) -> Tensor:
        """The teacher's logits on a batch, computed anew."""
        with torch.no_grad():
            return self.teacher(batch.x)


def generated(images: int, seed: int = 0) -> GroupedData:
    """Random 3x32x32 images in ten classes that stay where they are."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (images, *SHAPE), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (images,), generator=generator)
    names = tuple("0123456789")
    return GroupedData("generated", {"train": Split(x, y, y)}, names, names, mean=(0.5,) * 3, std=(0.25,) * 3)


def in_turns(runs: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of each run in each turn; one turn before them warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, one in runs.items():
            start = time.perf_counter()
            one()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ceilings(
    device: str = "cpu", *, precision: str = "float32", size: int = 1024, megabytes: int = 128, turns: int = 5
) -> Machine:
    """A machine's ceilings in this process: the best of some products and copies, which the caches cannot hold."""
    kind = {"float32": torch.float32, "bf16": torch.bfloat16}[precision]
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(device, kind)
    source = torch.zeros(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    took = in_turns({"product": lambda: matrix @ matrix, "copy": lambda: target.copy_(source)}, turns)
    operations, moved = 2 * size**3 / min(took["product"]), 2 * source.nbytes / min(took["copy"])
    return Machine(device_name(device), operations, moved, f"{precision} product and copy, measured in this process")


def ladder(
    *,
    width: int = 16,
    images: int = 256,
    batch_size: int = 64,
    turns: int = 5,
    device: str = "cpu",
    steps: Sequence[str] = tuple(STEPS),
) -> list[Number]:
    """Seconds of an epoch of fine-tuning a ResNet18 with gates on 32x32 images, step by step, gains and floors."""
    steps = [name for name in steps if device != "cpu" or name != "channels last"]
    data = generated(images).to(device)
    teacher = build("resnet18", SHAPE, 10, width=width).to(device)
    student = gates.freeze(gates.install(teacher, SHAPE))
    plain = Schedule(epochs=1, batch_size=batch_size, lr=1e-3, weight_decay=5e-4)
    schedules = {name: replace(plain, **STEPS[name]) for name in steps}

    def epoch(name: str) -> Callable[[], object]:
        model, objective = copy.deepcopy(student), (Asking if name == ASKED else Distill)(teacher, data)
        return lambda: fit(model, data, objective, schedules[name], seeds=[0], stage="finetune", progress=False)

    seconds, cost = in_turns({name: epoch(name) for name in steps}, turns), image_cost(student, SHAPE)
    numbers, machines = [], {kind: ceilings(device, precision=kind) for kind in ("float32", "bf16")}
    for kind, machine in machines.items():
        rest = {"n": 1, "of": "best of five", "settings": machine.source, "device": machine.name}
        numbers.append(Number(f"ceiling/{kind}/operations", machine.operations / 1e9, "GFLOP/s", **rest))
        numbers.append(Number(f"ceiling/{kind}/bytes", machine.bytes / 1e9, "GB/s", **rest))
    about = f"ResNet18 of width {width}, {images} images of 32x32, batch {batch_size}, distillation, mask frozen"
    rest = {"n": turns, "of": "turns", "settings": about, "device": device_name(device)}
    for name, took in seconds.items():
        asked = "every step" if name == ASKED else "never"
        work = training_work(cost, schedules[name], images, teacher=asked)
        floor = max(work.seconds(machines[schedules[name].precision]))
        numbers.append(Number(f"ladder/{name}/seconds", median(took), "s", **rest))
        numbers.append(Number(f"ladder/{name}/floor", floor, "s", **rest))
        if name != ASKED:
            gains = [before / own for before, own in zip(seconds[ASKED if name == KEPT else KEPT], took, strict=True)]
            numbers.append(Number(f"ladder/{name}/gain", median(gains), "times", **rest))
    return numbers


def side_by_side(*, members: int = 10, epochs: int = 10, turns: int = 3) -> list[Number]:
    """Seconds of training so many MLPs on digits as an ensemble, and one after the other."""
    data = [load_data("digits", seed=seed) for seed in range(members)]
    networks = [build("mlp", data[0].input_shape, data[0].classes, seed=seed) for seed in range(members)]
    schedule = Schedule(epochs=epochs, optimizer="adamw", lr=3e-3)
    options = {"stage": "base", "progress": False}

    def together() -> None:
        fit(Ensemble(networks), data, supervised, schedule, seeds=range(members), **options)

    def alone() -> None:
        for seed, (network, one) in enumerate(zip(networks, data, strict=True)):
            fit(copy.deepcopy(network), one, supervised, schedule, seeds=[seed], **options)

    seconds = in_turns({"one by one": alone, "ensemble": together}, turns)
    gain = median(a / b for a, b in zip(seconds["one by one"], seconds["ensemble"], strict=True))
    about = f"{members} MLPs 64-64 on digits, {epochs} epochs of base training"
    rest = {"n": turns, "of": "turns", "settings": about, "device": device_name("cpu")}
    took = [Number(f"ensemble/{name}/seconds", median(values), "s", **rest) for name, values in seconds.items()]
    return [*took, Number("ensemble/gain", gain, "times", **rest)]


def stages(
    *, profile: str = "small", seeds: int = 10, budgets: Sequence[float] = (0.8, 0.6, 0.4, 0.2, 0.02)
) -> list[Number]:
    """Seconds of each stage of a cell of MLPs on digits under SNL, computed from nothing, and its floors here."""
    (cell,) = grid("digits", "mlp", budgets=budgets, seeds=range(seeds), profile=profile)
    machine = ceilings()
    with tempfile.TemporaryDirectory() as folder:
        table = run([cell], store=ResultStore(Path(folder)), progress=False)
    arms, data = table.drop_duplicates("arm").set_index("arm"), load_data(cell.data, seed=cell.seeds[0])
    took = {
        "base": arms.loc["original", "seconds_base"],
        "path": arms.loc["plain", "seconds_path"],
        "control": arms.loc["control", "seconds_path"],
        "finetune": arms["seconds_finetune"].sum(),
        "measure": arms["seconds_measure"].sum(),
    }
    floors = cell_floors(
        image_cost(build(cell.network, data.input_shape, data.classes), data.input_shape),
        recipe(cell.network, cell.profile),
        images=len(data.splits["train"]),
        budgets=len(budgets),
        arms=tuple(arms.index),
        teacher="every step",
        epochs=int(table["mask_epochs"].max()),
    )
    about = f"cell: {seeds} seeds of MLP 64-64 on digits side by side, SNL, {len(budgets)} budgets, profile {profile}"
    rest = {"n": len(arms), "of": "arms", "settings": about, "device": arms["device"].iloc[0]}
    numbers = [Number(f"stage/{name}/seconds", float(value), "s", **rest) for name, value in took.items()]
    for name, work in floors.items():
        numbers.append(Number(f"stage/{name}/floor", max(work.times(seeds).seconds(machine)), "s", **rest))
    return numbers


def show(numbers: Sequence[Number]) -> None:
    """Print numbers as lines, what they were measured on first."""
    print(f"{numbers[-1].settings}; {numbers[-1].n} {numbers[-1].of}; {numbers[-1].device}")
    for one in numbers:
        print(f"  {one.key:48s} {one.value:10.3f} {one.unit}")


def main() -> None:
    """Print seconds, gains and floors; with `--page` keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--page", action="store_true", help="put the numbers into the book's table and page")
    options = parser.parse_args()
    steps = [name for name in STEPS if options.compile or name != "torch.compile"]
    sizes = {"width": options.width, "images": options.images, "batch_size": options.batch, "turns": options.turns}
    with threads(1):
        show(climbed := ladder(device=options.device, steps=steps, **sizes))
        show(beside := side_by_side(turns=options.turns))
        if options.page:
            keep(repository(), [*climbed, *beside, *stages()])


if __name__ == "__main__":
    main()
