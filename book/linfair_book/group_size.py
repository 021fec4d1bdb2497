"""Does a larger group suffer less? One minority group's training images repeated, everything else the same.

Correlations over groups cannot tell size from difficulty. The pruning paper (Tran et al., NeurIPS 2022, App. C.3)
repeats the images of one group 1, 5, 10 and 20 times, trains again and watches the group's gradient norm. Carried over:
the original network is trained on the upsampled data, linearized and fine-tuned on them, and the group's accuracy drop
is watched too. Repeated images add weight, not information: the group is fitted better, not seen from more sides.

Each epoch has as many batches as at x1 (they grow instead), so that no network is trained for more steps. A group's
risk is a mean over its images, so its gradient norm on the repeated images is that on its own, each once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from linfair.data import GroupedData, Split
from linfair.data.core import provenance_of
from linfair.metrics import mean_interval
from linfair.study.cell import Cell, Setting, Worker, grid, setting_of
from linfair.study.store import ResultStore
from linfair.study.tables import drops
from linfair.training import Schedule

TIMES = (1, 5, 10, 20)
"""How often the group's images are repeated: the pruning paper's."""

TABLE = Path("book/results/digits_mlp_upsampling.parquet")
"""What the book reads: `python -m linfair_book.group_size` computes it (digits, MLP, ten seeds)."""

QUANTITIES = {
    "gradient_norm": "gradient norm of the original",
    "margin": "margin of the original",
    "accuracy": "accuracy (points)",
    "drop": "accuracy drop (points)",
    "relative_drop": "relative accuracy drop (%)",
    "excess": "excessive loss R(a)",
}


def upsample(data: GroupedData, group: int, times: int) -> GroupedData:
    """The data set with each training image of one group `times` times; the other splits stay as they are.

    The scale of the images stays too, so that the networks see each image as they did. Counts and roles follow the
    repeated split; the provenance says what was repeated and has counts and content of its own.

    Args:
        data: A data set.
        group: Number of the group.
        times: At least 1; 1 returns the data set itself.

    Raises:
        ValueError: For times < 1, or a group without training images.

    >>> from linfair.data import load_data
    >>> load_data("digits").counts[1], upsample(load_data("digits"), 1, 5).counts[1]
    (10, 50)
    """
    counts = data.counts
    if times < 1 or not 0 <= group < len(counts) or not counts[group]:
        raise ValueError(
            f"need times >= 1 and a group with training images, got times={times}, group={group}; groups are numbered "
            f"0 to {len(counts) - 1} and have {counts} images"
        )
    if times == 1:
        return data
    part = data.splits["train"]
    again = torch.where(part.a == group, times, 1)
    splits = data.splits | {"train": Split(*(field.repeat_interleave(again, 0) for field in (part.x, part.y, part.a)))}
    old = data.provenance
    on_cpu = {name: Split(one.x.cpu(), one.y.cpu(), one.a.cpu()) for name, one in splits.items()}
    options = dict(old.get("options", {})) | {"upsampled_group": group, "times": times}
    new = provenance_of(old.get("source", data.name), old.get("seed", 0), options, on_cpu)
    return replace(data, splits=splits, provenance=old | new | {"upsampled_from": old.get("sha256")})


def chosen_group(data: GroupedData, seed: int) -> int:
    """A minority group of a data set, drawn by the seed.

    Raises:
        ValueError: If all groups are equally large.
    """
    minority = [group for group, role in enumerate(data.roles) if role == "minority"]
    if not minority:
        raise ValueError(f"{data.name} has no minority: all groups have {data.counts[0]} training images")
    return int(np.random.default_rng([seed, 53]).choice(minority))


def upsampled(cell: Cell, times: int, group: int | None = None) -> tuple[Setting, list[int]]:
    """How a cell is trained whose training data hold one group several times, and that group in each seed.

    Args:
        cell: The cell.
        times: How often the group is repeated.
        group: Number of the group; None draws a minority group for each seed.

    Raises:
        ValueError: If the group is not equally large in all seeds, which an ensemble needs.
    """
    own = setting_of(cell)
    groups = [
        chosen_group(one, seed) if group is None else group for one, seed in zip(own.sets, cell.seeds, strict=True)
    ]
    larger = [upsample(one, number, times) for one, number in zip(own.sets, groups, strict=True)]
    before, sizes = len(own.sets[0].splits["train"]), sorted({len(one.splits["train"]) for one in larger})
    if len(sizes) > 1:
        raise ValueError(
            f"group {group} is not equally large in all seeds (training splits of {sizes}), and an ensemble needs "
            "that: leave group=None, which takes a minority group of each seed"
        )
    plan, options = own.recipe, own.options
    changed = {"base": _as_many_steps(plan.base, before, sizes[0])}
    changed["finetune"] = _as_many_steps(plan.finetune, before, sizes[0])
    if isinstance(schedule := getattr(options, "schedule", None), Schedule):
        options = replace(options, schedule=_as_many_steps(schedule, before, sizes[0]))
    named = (("upsampled", tuple(groups)), ("times", times)) if times > 1 else ()  # else the plain study's arms
    return Setting(replace(plan, **changed), options, larger, larger, named), groups


def _as_many_steps(schedule: Schedule, before: int, after: int) -> Schedule:
    """The schedule with larger batches, so that an epoch over `after` inputs has as many as one over `before`."""
    if schedule.batch_size is None or before == after:
        return schedule
    return replace(schedule, batch_size=ceil(after / ceil(before / schedule.batch_size)))


def run_upsampling(
    cells: Sequence[Cell],
    *,
    times: Sequence[int] = TIMES,
    group: int | None = None,
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Originals and linearized networks trained with one group upsampled; stored arms are read, missing ones computed.

    Args:
        cells: From `linfair.study.grid`.
        times: How often the group's images are repeated; 1 must be among them, it is what others are compared with.
        group: Number of the group; None draws a minority group for each seed, the same at all `times`.
        store: Where; the user's cache by default.
        progress: Show progress bars.

    Returns:
        Rows as of `study.run`, arms `original` and `plain`, with `times` and `what`: `upsampled` for that group,
        `other minority` for groups that are as rare and stay so, `majority`. `n_train` counts repeated images.

    Raises:
        ValueError: If 1 is not among the times, or as `upsampled`.
    """
    if 1 not in times:
        raise ValueError(f"times = {list(times)} has no 1, and there is nothing to compare with; add it")
    store = store or ResultStore.default()
    tables = []
    for cell in cells:
        for count in sorted(times):
            setting, groups = upsampled(cell, count, group)
            found = Worker(cell, store, progress, setting=setting).tables(("original", "plain"))
            target = found["seed"].map(dict(zip(cell.seeds, groups, strict=True)))
            tables.append(found.assign(times=count, upsampled_group=target))
    table = pd.concat(tables, ignore_index=True)
    rare = table[(table["times"] == 1) & (table["role"] == "minority")]
    rare = pd.MultiIndex.from_frame(table[["seed", "group"]]).isin(pd.MultiIndex.from_frame(rare[["seed", "group"]]))
    what = np.where(rare, "other minority", "majority")
    return table.assign(what=np.where(table["group"] == table["upsampled_group"], "upsampled", what))


def per_seed(table: pd.DataFrame, *, split: str = "test_balanced", measured_on: str = "train") -> pd.DataFrame:
    """What is watched, one number a seed: means over the groups of a kind.

    Args:
        table: From `run_upsampling`.
        split: Where accuracies and losses are measured.
        measured_on: Where gradient norm and margin of the original are measured: `train` or `test`.

    Returns:
        A row per (seed, times, what, quantity, budget) with `value`; `QUANTITIES` names the quantities, and those of
        the original network have budget 1.
    """
    parts = []
    original = table[table["arm"] == "original"]
    for column, where in (("gradient_norm", measured_on), ("margin", measured_on), ("accuracy", split)):
        rows = original[original["split"] == where]
        scale = 100 if column == "accuracy" else 1
        parts.append(rows.assign(quantity=column, value=scale * rows[column]))
    for times, part in table[table["split"] == split].groupby("times"):
        lost = drops(part)
        lost = lost[lost["arm"] == "plain"].assign(times=times)
        parts += [lost.assign(quantity=column, value=lost[column]) for column in ("drop", "relative_drop", "excess")]
    by = ["seed", "times", "what", "quantity", "budget"]
    return pd.concat(parts).groupby(by, sort=False, as_index=False)["value"].mean()


def effects(table: pd.DataFrame, *, split: str = "test_balanced", measured_on: str = "train") -> pd.DataFrame:
    """Levels at each number of repetitions, and differences to x1 within a seed, over seeds.

    Args:
        table: From `run_upsampling`.
        split: Where accuracies and losses are measured.
        measured_on: Where gradient norm and margin are measured.

    Returns:
        A row per (quantity, what, budget, times, of) with `of` = `level` or `minus x1`, and n_seeds, mean, low, high.
    """
    values = per_seed(table, split=split, measured_on=measured_on)
    wide = values.pivot(index=["quantity", "what", "budget", "seed"], columns="times", values="value")
    lines = []
    for (quantity, what, budget), part in wide.groupby(["quantity", "what", "budget"], sort=False):
        for times in wide.columns:
            for of, numbers in (("level", part[times]), ("minus x1", part[times] - part[1])):
                got = mean_interval(numbers.to_numpy())
                lines.append([quantity, what, budget, times, of, got.n, got.mean, got.low, got.high])
    names = ["quantity", "what", "budget", "times", "of", "n_seeds", "mean", "low", "high"]
    return pd.DataFrame(lines, columns=names)


def verdict(table: pd.DataFrame, *, split: str = "test_balanced", measured_on: str = "train") -> str:
    """What upsampling did to the group, at the most repetitions against x1, in words.

    An effect is *shown* when its whole 95 % interval, of differences within a seed, lies on one side of 0.

    Args:
        table: From `run_upsampling`.
        split: Where accuracies and losses are measured.
        measured_on: Where the gradient norm is measured.

    Returns:
        One paragraph of markdown.
    """
    found = effects(table, split=split, measured_on=measured_on)
    most = found["times"].max()
    rows = found[(found["times"] == most) & (found["of"] == "minus x1")]
    first = found[(found["times"] == 1) & (found["of"] == "level")]

    def change(quantity: str, what: str, budget: float) -> str:
        chosen = (rows["quantity"] == quantity) & (rows["what"] == what) & (rows["budget"] == budget)
        level = first[(first["quantity"] == quantity) & (first["what"] == what) & (first["budget"] == budget)]
        [row], [start] = rows[chosen].itertuples(), level.itertuples()
        said = "falls" if row.high < 0 else "rises" if row.low > 0 else "shows no measurable change"
        return f"{said} ({start.mean:.2f} at x1, {row.mean:+.2f} [{row.low:.2f}, {row.high:.2f}])"

    budgets = sorted(rows.loc[rows["quantity"] == "drop", "budget"].unique(), reverse=True)
    lost = {
        what: "; ".join(f"at {100 * budget:g} % it {change('drop', what, budget)}" for budget in budgets)
        for what in ("upsampled", "other minority")
    }
    return (
        f"**Verdict** ({rows['n_seeds'].min()} seeds, x{most} against x1, within a seed). The upsampled group's "
        f"gradient norm in the original {change('gradient_norm', 'upsampled', 1.0)}, its accuracy in points "
        f"{change('accuracy', 'upsampled', 1.0)}. Its accuracy drop in points: {lost['upsampled']}. For comparison, "
        f"the other minority groups, not repeated: {lost['other minority']}."
    )


def main(arguments: list[str] | None = None) -> None:
    """Compute the book's table: digits, MLP, SNL at 20 and 2 %."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.group_size", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds (default: 10)")
    parser.add_argument("--to", type=Path, default=TABLE, help=f"file to write (default: {TABLE})")
    given = parser.parse_args(arguments)
    given.to.parent.mkdir(parents=True, exist_ok=True)
    table = run_upsampling(grid("digits", "mlp", budgets=(0.2, 0.02), seeds=range(given.seeds)))
    table.to_parquet(given.to, index=False)
    print(given.to)


if __name__ == "__main__":
    main()
