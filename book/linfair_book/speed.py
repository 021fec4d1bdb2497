"""The page on speed: the least that training can take, and what was measured; `book/performance.md` says how.

A layer moves in + out forward and out (gradient) + 2 in (saved, gradient) backward. A step moves the weights 8 times in
float32: forward, backward, gradient, and the optimizer's three reads and two writes (Adam two more). `--page` measures.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import linfair
from linfair.cost import count_macs
from linfair.linearizers import registry
from linfair.models import build
from linfair.plots.style import evidence
from linfair.study.arms import ARMS
from linfair.study.compare import equivalent
from linfair.study.jobs import teacher_id
from linfair.study.plan import find, plan
from linfair.study.recipes import Recipe, recipe
from linfair.training import Schedule
from linfair_book.build import repository
from linfair_book.tables import RESULTS, save

COUNTS = RESULTS / "data_counts.parquet"
TABLE = RESULTS / "performance.parquet"
PRECISION = RESULTS / "digits_resnet18_precision.parquet"
MARGIN = 1.0  # points within which bf16 must lie, stated before the cells of `PRECISION` were computed
PARTS = (
    "cell",
    "ceilings",
    "stages",
    "steps",
    "logits",
    "precision",
    "ladder",
    "ensemble",
    "gpu",
    "replay",
    "gpu errors",
    "grid",
)

SHAPE, CLASSES = (3, 32, 32), 10  # one image of every data set of the paper; the number of classes hardly matters
ARITHMETIC = "arithmetic"
WAYS = ("float32", "bf16")


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
    counts = pd.read_parquet(root / COUNTS)
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


def blocks(table: pd.DataFrame) -> dict[str, str]:
    """The generated parts of the page, by name: every number and all evidence is from the rows of `table_of`."""
    rows = table.set_index("key")
    parts = rows.index.to_series().str.extract(r"^(?P<part>[^/]+)/(?:(?P<name>.+)/)?(?P<what>[^/]+)$").fillna("")

    def wide(part: str) -> pd.DataFrame:
        """The numbers of a part: a line for each name, a column for each kind of number."""
        at = parts[parts["part"] == part]
        values = rows.loc[at.index, "value"].set_axis(pd.MultiIndex.from_frame(at[["name", "what"]]))
        return values.unstack(sort=False)

    def shown(values: pd.Series, digits: int = 2) -> pd.Series:
        return values.map(f"{{:.{digits}f}}".format).where(values.notna(), "")

    def timed(found: pd.DataFrame, digits: int) -> dict[str, pd.Series]:
        shares = shown(100 * found["floor"] / found["seconds"], 0).replace(r"(.+)", r"\1 %", regex=True)
        floors = found["floor"].map("{:#.2g}".format).where(found["floor"].notna(), "")
        return {"seconds": shown(found["seconds"], digits), "floor (s)": floors, "floor, of the seconds": shares}

    def said(key: str) -> str:
        row = rows.loc[key]
        counted = {ARITHMETIC: "by arithmetic", "best of five": "best of five"}.get(
            row["of"], f"{row['n']} {row['of']}"
        )
        return f"{row['settings']} · {counted} · {row['device']} · torch {row['torch']} · linfair {row['linfair']}"

    def markdown(first: str, columns: Mapping[str, pd.Series], key: str) -> str:
        return f"{_markdown(first, columns)}\n\n*{said(key)}*"

    def of_profiles(found: pd.DataFrame, kinds: Mapping[str, tuple[int, str]]) -> dict[str, pd.Series]:
        columns = {}
        for profile in ("fast", "paper"):
            own = found[found.index.str.startswith(f"{profile}/")]
            own = own.set_axis(own.index.str.removeprefix(f"{profile}/").str.replace("/", ", "))
            columns |= {f"`{profile}`, {unit}": shown(own[kind], digits) for kind, (digits, unit) in kinds.items()}
        return columns

    kinds = {"operations": (1, "PFLOP")}
    kinds |= {f"by {what}": (0, f"seconds by {what}") for what in ("operations", "bytes")}
    hours = {"hours": (2, "GPU-hours at least")}
    ceiling, step, ladder, beside = map(wide, ("ceiling", "step", "ladder", "ensemble"))
    logits, gpu, replay = map(wide, ("logits", "gpu", "replay"))
    gained = {f"{way} (ms)": shown(replay[way], 1) for way in ("launched", "replayed")}
    rates = {"GFLOP/s in a product": ceiling["operations"], "GB/s in a copy": ceiling["bytes"]}
    moved = {"largest logit": "range", "moves by": "moved", "moves at most by": "largest"}
    differ = {"decisions that differ": shown(logits["decisions"], 0)}
    error = gpu["error"].dropna()
    errors = {
        "relative error of logits": error.map("{:.1g}".format),
        "decisions that differ": shown(gpu.loc[error.index, "decisions"], 0),
    }
    ways = {way: step["ratio"].filter(regex=f"/{way}$").rename(lambda name: name.partition("/")[0]) for way in WAYS}
    base = {way: pd.Series({"base, in seconds": f"{step.loc[f'base/{way}', 'seconds']:.3f}"}) for way in WAYS}
    both = beside["seconds"].dropna()
    gain = pd.Series({"one by one": "", "ensemble": f"{beside.loc['', 'gain']:.1f}"})
    return {
        "cell": markdown("stage", of_profiles(wide("cell"), kinds), "cell/paper/all/by bytes"),
        "ceilings": markdown("", {name: shown(rate, 0) for name, rate in rates.items()}, "ceiling/bf16/bytes"),
        "stages": markdown("stage", timed(wide("stage"), 1), "stage/base/seconds"),
        "steps": markdown(
            "step",
            {way: pd.concat([base[way], shown(ratios)]) for way, ratios in ways.items()},
            "step/base/float32/seconds",
        ),
        "logits": markdown(
            "trained in",
            {name: logits[kind].map("{:.2g}".format) for name, kind in moved.items()} | differ,
            "logits/bf16/moved",
        ),
        "ladder": markdown("step", {"gain": shown(ladder["gain"]), **timed(ladder, 2)}, "ladder/bf16/seconds"),
        "ensemble": markdown("ten networks", {"seconds": shown(both), "times as fast": gain}, "ensemble/gain"),
        "gpu": markdown("step", timed(gpu[gpu["seconds"].notna()], 3), "gpu/full width/seconds"),
        "replay": markdown("a step of", gained, "replay/distillation/replayed"),
        "gpu errors": markdown("precision", errors, f"gpu/{error.index[0]}/error"),
        "grid": markdown("data, network, method", of_profiles(wide("grid"), hours), "grid/paper/all/hours"),
    }


def precision_part(rows: pd.DataFrame) -> str:
    """bf16 beside float32, seeds paired, from `PRECISION`: all images, the groups, and what they show."""
    found, columns = equivalent(rows, "bf16", "float32", column="precision", margin=MARGIN), {}
    whole = found.rows["group_name"] == "all"
    for row in found.rows[whole].itertuples():
        groups = found.rows[~whole & (found.rows["arm"] == row.arm) & (found.rows["budget"] == row.budget)]
        columns[row.arm if row.budget == 1 else f"{row.arm} at {100 * row.budget:g} %"] = {
            "all images": f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]",
            "groups within the margin": f"{groups['lies_within'].sum()} of {len(groups)}",
            "farthest end of a group's interval": f"{groups[['low', 'high']].abs().max(axis=None):.1f}",
            "equivalent": "yes" if replace(found, rows=groups).shown else "not shown",
        }
    arms = rows.drop_duplicates(["precision", "teacher", "arm"])
    about = {name: ", ".join(rows[name].unique()) for name in ("device", "torch", "linfair")}
    n = f"{rows.loc[rows['group_name'] == 'all', 'n'].max()} test images a seed"
    line = evidence(seeds=rows["seed"].nunique(), n=n, seconds=arms["seconds"].sum(), **about)
    table = _markdown("bf16 minus float32 (points)", pd.DataFrame(columns).T.to_dict("series"))
    return f"{table}\n\n*{line}*"


def _markdown(first: str, columns: Mapping[str, pd.Series]) -> str:
    found = pd.DataFrame(columns)
    lines = [[first, *found.columns], ["---", *["--:"] * len(columns)], *found.reset_index().to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def made(root: Path) -> dict[str, str]:
    """The parts of the page from the committed tables."""
    return blocks(pd.read_parquet(root / TABLE)) | {"precision": precision_part(pd.read_parquet(root / PRECISION))}


def keep(root: Path, numbers: Sequence[Number] = ()) -> None:
    """Replace the rows of parts that were measured again, and do the arithmetic anew."""
    fresh = pd.concat([table_of(part) for part in (numbers, arithmetic(root)) if part], ignore_index=True)
    old = pd.read_parquet(root / TABLE)
    again = {key.partition("/")[0] for key in fresh["key"]}
    save(pd.concat([old[~old["key"].str.partition("/")[0].isin(again)], fresh], ignore_index=True), root / TABLE)


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m linfair_book.speed", description=__doc__.splitlines()[0]).parse_args()
    keep(repository())
