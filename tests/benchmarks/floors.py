"""The least that training can take, by arithmetic, as rows of the book's page on speed; nothing is measured here.

A layer moves in + out forward and out (gradient) + 2 in (saved, gradient) backward. A step moves the weights 8 times in
float32: forward, backward, gradient, and the optimizer's three reads and two writes (Adam two more).

Run: python tests/benchmarks/floors.py
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from linfair_book.build import repository
from linfair_book.speed import ARITHMETIC, TABLE
from linfair_book.tables import RESULTS, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import linfair
from linfair.cost import count_macs
from linfair.linearizers import registry
from linfair.models import build
from linfair.study.arms import ARMS
from linfair.study.jobs import teacher_id
from linfair.study.plan import find, plan
from linfair.study.recipes import Recipe, recipe
from linfair.training import Schedule

SHAPE, CLASSES = (3, 32, 32), 10  # one image of every data set of the paper; the number of classes hardly matters


@dataclass(frozen=True)
class Machine:
    """What a machine reaches at best: operations a second in a large matrix product, bytes a second in a large copy."""

    name: str
    operations: float
    bytes: float
    source: str = ""


H200 = Machine("H200", 790e12, 4.3e12)
"""A fast GPU's ceilings, measured once in a large bf16 product and a copy."""


@dataclass(frozen=True)
class ImageCost:
    """What one image costs one network: multiply-accumulates, elements that layers read and write, and parameters."""

    forward_macs: int
    training_macs: int
    forward_elements: int
    training_elements: int
    weights: int


def image_cost(model: nn.Module, input_shape: tuple[int, ...]) -> ImageCost:
    """Count one image's operations and elements by running it, forward and backward; the network stays as it is."""
    inputs = outputs = 0

    def count(_module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal inputs, outputs
        inputs += sum(one.numel() for one in given)
        outputs += result.numel()

    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, nn.Identity | nn.Flatten)]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    training, like = model.training, next(model.parameters())
    x = torch.zeros(1, *input_shape, device=like.device, dtype=like.dtype)
    y = torch.zeros(1, dtype=torch.int64, device=like.device)
    try:
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(model.eval()(x), y).backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
        model.train(training)
    weights = sum(parameter.numel() for parameter in model.parameters())
    macs = count_macs(model, input_shape), counter.get_total_flops() // 2
    return ImageCost(*macs, inputs + outputs, 3 * inputs + 2 * outputs, weights)


@cache
def paper_cost(network: str) -> ImageCost:
    """The cost of one 32x32 image in a network at full width; counted without memory or computing (meta tensors)."""
    with torch.device("meta"):
        return image_cost(build(network, SHAPE, CLASSES), SHAPE)


@dataclass(frozen=True)
class Work:
    """Images that a piece of training visits, its floating-point operations, and the bytes it reads and writes."""

    images: int = 0
    operations: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.images + other.images, self.operations + other.operations, self.bytes + other.bytes)

    def times(self, count: int) -> "Work":
        """The same so many times."""
        return Work(count * self.images, count * self.operations, count * self.bytes)

    def seconds(self, machine: Machine) -> tuple[float, float]:
        """The floors by operations and by bytes."""
        return self.operations / machine.operations, self.bytes / machine.bytes


def training_work(cost: ImageCost, schedule: Schedule, images: int, *, epochs: int | None = None, teacher: str) -> Work:
    """What one stage of training one network takes; the teacher is asked `never`, `once` (kept), or at `every step`."""
    epochs = schedule.epochs if epochs is None else epochs
    visits, steps = epochs * images, epochs * math.ceil(images / (schedule.batch_size or images))
    asked = {"never": 0, "once": images, "every step": visits}
    if teacher not in asked:
        raise ValueError(f"teacher must be one of {', '.join(asked)}; got {teacher!r}")
    width = 2 if schedule.precision == "bf16" else 4
    passes = 8 if schedule.optimizer == "sgd" else 10
    elements = visits * cost.training_elements + asked[teacher] * cost.forward_elements
    macs = visits * cost.training_macs + asked[teacher] * cost.forward_macs
    return Work(visits, 2.0 * macs, float(width * elements + steps * passes * 4 * cost.weights))


def cell_floors(
    cost: ImageCost,
    plan: Recipe,
    *,
    images: int,
    method: str = "snl",
    budgets: int = 5,
    arms: Sequence[str] = ("original", "plain", "control", "lagrangian", "kd_over_c"),
    teacher: str = "once",
    epochs: int | None = None,
    stages: int = 4,
    options: Mapping[str, object] | None = None,
) -> dict[str, Work]:
    """What the stages of one cell take: base training, the method's own, its control, fine-tuning of every arm."""
    options = replace(plan.method(method), **(options or {}))
    networks, expected = options.own_training(budgets, stages) if hasattr(options, "own_training") else (0, 0)
    control = Work()
    if networks:
        long = expected if epochs is None else epochs
        control = training_work(cost, options.schedule, images, epochs=long, teacher=teacher)
    mitigated, finetunes = [arm for arm in arms if arm not in ARMS], registry.find(method).finetunes(options)
    tuned = training_work(cost, plan.finetune, images, teacher=teacher)
    return {
        "base": training_work(cost, plan.base, images, teacher="never"),
        "path": control.times(networks).times(1 if finetunes else 1 + len(mitigated)),
        "control": control if "control" in arms else Work(),
        "finetune": tuned.times(budgets * sum(arm != "original" for arm in arms)) if finetunes else Work(),
    }


@cache
def _stages(
    network: str, profile: str, images: int, budgets: int, options: tuple[tuple[str, object], ...], **rest: object
) -> dict[str, Work]:
    own = recipe(network, profile)
    return cell_floors(paper_cost(network), own, images=images, budgets=budgets, options=dict(options), **rest)


def grid_floors(
    profile: str, images: Mapping[str, int], machine: Machine = H200, *, seeds: int | None = None
) -> pd.DataFrame:
    """The least all figures of a study take, on training images of each data set, by data set, network and method."""
    lines, taught = [], set()
    figures = [one for one in find("all") if not one.name.startswith(("pruning", "private"))]  # the first paper's
    for job in plan(figures, profile, seeds=seeds):
        cell, teacher = job.cell, teacher_id(job.cell)
        how = {"method": cell.method, "arms": tuple(job.arms)}
        work = dict(_stages(cell.network, cell.profile, images[cell.data], len(cell.budgets), cell.options, **how))
        if teacher in taught:
            del work["base"]
        if set(job.arms) == {"original"}:
            del work["path"]
        taught.add(teacher)
        total, arms = sum(work.values(), Work()), sum(arm != "original" for arm in job.arms)
        lines.append((cell.data, cell.network, cell.method, 1, arms, total.operations, total.bytes))
    by, counts = ["data", "network", "method"], ["cells", "arms", "operations", "bytes"]
    table = pd.DataFrame(lines, columns=[*by, *counts])
    everything = table.assign(data="all", network="", method="")
    table = pd.concat([table, everything]).groupby(by, sort=False, as_index=False)[counts].sum()
    seconds = [table["operations"] / machine.operations, table["bytes"] / machine.bytes]
    return table.assign(hours=pd.concat(seconds, axis=1).max(axis=1) / 3600)


@dataclass(frozen=True)
class Number:
    """One number of the page: its key in parts, value and unit, what n counts, what it was measured on and where."""

    key: str
    value: float
    unit: str
    n: int
    of: str
    settings: str
    device: str


def arithmetic(root: Path) -> list[Number]:
    """The floors of the paper's cell and of the whole grid, by a fast GPU's ceilings; nothing is measured."""
    counts = pd.read_parquet(root / RESULTS / "data_counts.parquet")
    train = counts[counts["split"] == "train"].groupby(["data", "group"])["n"].sum()
    images = {name: int(part.iloc[0]) for name, part in train.groupby("data")}
    subsets = set(counts.loc[counts["source"].str.contains("subset"), "data"])
    rest = {"n": 1, "of": ARITHMETIC, "device": f"{H200.name}'s ceilings, not run"}
    numbers = []
    for profile in ("fast", "paper"):
        cell = cell_floors(paper_cost("resnet18"), recipe("resnet18", profile), images=images["utkface_race"])
        about = "UTKFace race, ResNet18, SNL: original, plain, control, lagrangian, kd_over_c at 5 budgets"
        for stage, work in {**cell, "all": sum(cell.values(), Work())}.items():
            found = [("operations", work.operations / 1e15, "PFLOP"), ("bytes", work.bytes / 1e12, "TB")]
            found += zip(("by operations", "by bytes"), work.seconds(H200), ("s", "s"), strict=True)
            for what, value, unit in found:
                numbers.append(Number(f"cell/{profile}/{stage}/{what}", value, unit, settings=about, **rest))
        for row in grid_floors(profile, images).itertuples():
            data = f"{row.data} subset" if row.data in subsets else row.data
            name = "/".join(part for part in (data, row.network, row.method) if part)
            about = f"{row.cells} cells, {row.arms} arms beside the original networks, 10 seeds"
            numbers.append(Number(f"grid/{profile}/{name}/hours", row.hours, "GPU-hours", settings=about, **rest))
    return numbers


def table_of(numbers: Sequence[Number]) -> pd.DataFrame:
    """The numbers as rows, with versions."""
    return pd.DataFrame(map(vars, numbers)).assign(torch=torch.__version__, linfair=linfair.__version__)


def keep(root: Path, numbers: Sequence[Number] = ()) -> None:
    """Replace the rows of parts that were measured again, and do the arithmetic anew."""
    fresh = pd.concat([table_of(part) for part in (numbers, arithmetic(root)) if part], ignore_index=True)
    old = pd.read_parquet(root / TABLE)
    again = {key.partition("/")[0] for key in fresh["key"]}
    save(pd.concat([old[~old["key"].str.partition("/")[0].isin(again)], fresh], ignore_index=True), root / TABLE)


if __name__ == "__main__":
    keep(repository())
