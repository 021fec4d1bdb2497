"""How fast training is on this machine, what each optimisation gains, and which share of the floors that is.

`linfair_book.speedpage` keeps the numbers and puts them into the book. What is compared runs in one process, in turns,
so that whatever else the machine does hits all alike. A gain is the median over turns of (seconds of the step it builds
on) / (its own seconds).
"""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import Tensor

import linfair
from linfair import gates
from linfair.data import GroupedData, Split, load_data
from linfair.device import device_name
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.study.cell import Cell, grid, run
from linfair.study.recipes import recipe
from linfair.study.store import ResultStore
from linfair.training import Batch, Distill, Schedule, fit, supervised, threads
from linfair_book.floors import (
    H200,
    SHAPE,
    Machine,
    Work,
    ceilings,
    cell_floors,
    grid_floors,
    image_cost,
    paper_cost,
    stage_table,
    training_work,
)

COUNTS = Path("book/results/data_counts.parquet")
BUDGETS = (0.8, 0.6, 0.4, 0.2, 0.02)

STEPS = {
    "teacher asked at every step": ("", {}),
    "teacher's logits kept": ("teacher asked at every step", {}),
    "channels last": ("teacher's logits kept", {"channels_last": True}),
    "fused optimizer": ("teacher's logits kept", {"fused": True}),
    "bf16": ("teacher's logits kept", {"precision": "bf16"}),
    "torch.compile": ("teacher's logits kept", {"compile": True}),
    "as the profile fast": ("teacher's logits kept", {"channels_last": True, "fused": True, "precision": "bf16"}),
}
"""The ladder: what each step builds on, and its options of `Schedule`."""


@dataclass(frozen=True)
class Number:
    """One number of the page.

    Attributes:
        key: What it is, parts separated by slashes.
        value: The number.
        unit: Its unit.
        n: Turns, cells or arms that it rests on; 1 for arithmetic.
        of: What n counts.
        settings: What it was measured on.
        device: Where, or whose ceilings it divides by.
    """

    key: str
    value: float
    unit: str
    n: int
    of: str
    settings: str
    device: str


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
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ladder(
    *,
    width: int = 16,
    images: int = 256,
    batch_size: int = 64,
    turns: int = 5,
    device: str = "cpu",
    steps: Sequence[str] = tuple(STEPS),
) -> list[Number]:
    """Seconds of an epoch of fine-tuning a ResNet18 with gates on 32x32 images, step by step, and shares of the floors.

    Args:
        width: Channels of its first stage.
        images: Images of the epoch.
        batch_size: Of each batch.
        turns: How often each step is timed.
        device: Where.
        steps: Which of `STEPS`; those they build on must be among them.
    """
    data = generated(images).to(device)
    teacher = build("resnet18", SHAPE, 10, width=width).to(device)
    student = gates.freeze(gates.install(teacher, SHAPE))
    plain = Schedule(epochs=1, batch_size=batch_size, lr=1e-3, weight_decay=5e-4)
    schedules = {name: replace(plain, **STEPS[name][1]) for name in steps}

    def epoch(name: str) -> Callable[[], object]:
        model = copy.deepcopy(student)
        objective = (Asking if name == steps[0] else Distill)(teacher, data)
        return lambda: fit(model, data, objective, schedules[name], seeds=[0], stage="finetune", progress=False)

    seconds = in_turns({name: epoch(name) for name in steps}, turns)
    kinds, cost = ("float32", "bf16"), image_cost(student, SHAPE)
    machines = {kind: ceilings(device, precision=kind) for kind in kinds}
    about = f"ResNet18 of width {width}, {images} images of 32x32, batch {batch_size}, distillation, mask frozen"
    rest = {"n": turns, "of": "turns", "settings": about, "device": device_name(device)}
    numbers = [number for kind in kinds for number in _machine(kind, machines[kind])]
    for name, took in seconds.items():
        on = STEPS[name][0]
        asked = "every step" if name == steps[0] else "none"
        schedule = schedules[name]
        floor = max(training_work(cost, schedule, images, teacher=asked).seconds(machines[schedule.precision]))
        numbers.append(Number(f"ladder/{name}/seconds", median(took), "s", **rest))
        numbers.append(Number(f"ladder/{name}/floor", floor, "s", **rest))
        if on:
            gains = [before / own for before, own in zip(seconds[on], took, strict=True)]
            numbers.append(Number(f"ladder/{name}/gain", median(gains), "times", **rest))
    return numbers


def _machine(kind: str, machine: Machine) -> list[Number]:
    rest = {"n": 1, "of": "best of five", "settings": machine.source, "device": machine.name}
    return [
        Number(f"ceiling/{kind}/operations", machine.operations / 1e9, "GFLOP/s", **rest),
        Number(f"ceiling/{kind}/bytes", machine.bytes / 1e9, "GB/s", **rest),
    ]


def side_by_side(*, members: int = 10, epochs: int = 10, turns: int = 3) -> list[Number]:
    """Seconds of training so many MLPs on digits as an ensemble, and one after the other.

    Args:
        members: How many.
        epochs: Of each.
        turns: How often.
    """
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


def stages(*, profile: str = "small", seeds: int = 10) -> list[Number]:
    """Seconds of each stage of one cell computed from nothing, from its rows, and its floors on this machine.

    Args:
        profile: Of MLPs on digits under SNL, with control.
        seeds: Trained side by side.
    """
    (cell,) = grid("digits", "mlp", budgets=BUDGETS, seeds=range(seeds), profile=profile)
    with threads(1):
        machine = ceilings()
        with tempfile.TemporaryDirectory() as folder:
            table = run([cell], store=ResultStore(Path(folder)), progress=False)
    arms = table.drop_duplicates("arm").set_index("arm")
    took = {
        "base": arms.loc["original", "seconds_base"],
        "path": arms.loc["plain", "seconds_path"],
        "control": arms.loc["control", "seconds_path"],
        "finetune": arms["seconds_finetune"].sum(),
        "measure": arms["seconds_measure"].sum(),
    }
    floors = _floors_of(cell, epochs=int(table["mask_epochs"].max()))
    about = f"cell: {seeds} seeds of MLP 64-64 on digits side by side, SNL, {len(BUDGETS)} budgets, profile {profile}"
    rest = {"n": len(arms), "of": "arms", "settings": about, "device": arms["device"].iloc[0]}
    numbers = [Number(f"stage/{name}/seconds", float(value), "s", **rest) for name, value in took.items()]
    return numbers + [
        Number(f"stage/{name}/floor", max(work.seconds(machine)), "s", **rest) for name, work in floors.items()
    ]


def _floors_of(cell: Cell, *, epochs: int) -> dict[str, Work]:
    data = load_data(cell.data, seed=cell.seeds[0])
    network = build(cell.network, data.input_shape, data.classes)
    one = cell_floors(
        image_cost(network, data.input_shape),
        recipe(cell.network, cell.profile),
        images=len(data.splits["train"]),
        budgets=len(cell.budgets),
        arms=("original", "plain", "control"),
        teacher="every step",
        epochs=epochs,
    )
    return {stage: work.times(len(cell.seeds)) for stage, work in one.items()}


def training_images(root: Path) -> dict[str, int]:
    """Training images of each data set, from the committed counts."""
    counts = pd.read_parquet(root / COUNTS)
    train = counts[counts["split"] == "train"].groupby(["data", "group"])["n"].sum()
    return {name: int(part.iloc[0]) for name, part in train.groupby("data")}


def parts_of_data(root: Path) -> set[str]:
    """Data sets of which the committed counts hold a part only: `svhn`, a tenth of SVHN."""
    counts = pd.read_parquet(root / COUNTS)
    return set(counts.loc[counts["source"].str.contains("subset"), "data"])


def arithmetic(root: Path) -> list[Number]:
    """The floors of the paper's cell and of the whole grid, by a fast GPU's ceilings; nothing is measured."""
    images, parts = training_images(root), parts_of_data(root)
    rest = {"n": 1, "of": "arithmetic", "device": f"{H200.name}'s ceilings, not run"}
    numbers = []
    for profile in ("fast", "paper"):
        plan = recipe("resnet18", profile)
        cell = stage_table(cell_floors(paper_cost("resnet18"), plan, images=images["utkface_race"]), H200)
        about = "UTKFace race, ResNet18, SNL: original, plain, control, lagrangian, kd_over_c at 5 budgets"
        for row in cell.itertuples():
            numbers += [
                Number(
                    f"cell/{profile}/{row.stage}/operations", row.operations / 1e15, "PFLOP", settings=about, **rest
                ),
                Number(f"cell/{profile}/{row.stage}/bytes", row.bytes / 1e12, "TB", settings=about, **rest),
                Number(f"cell/{profile}/{row.stage}/by operations", row.by_operations, "s", settings=about, **rest),
                Number(f"cell/{profile}/{row.stage}/by bytes", row.by_bytes, "s", settings=about, **rest),
            ]
        for row in grid_floors(profile, images).itertuples():
            data = f"{row.data} subset" if row.data in parts else row.data
            name = "/".join(part for part in (data, row.network, row.method) if part)
            about = f"{row.cells} cells, {row.arms} arms beside the original networks, 10 seeds"
            numbers.append(Number(f"grid/{profile}/{name}/hours", row.hours, "GPU-hours", settings=about, **rest))
    return numbers


def table_of(numbers: Sequence[Number]) -> pd.DataFrame:
    """The numbers as rows, with versions."""
    return pd.DataFrame(map(vars, numbers)).assign(torch=torch.__version__, linfair=linfair.__version__)
