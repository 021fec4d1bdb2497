"""Does a larger group suffer less? One minority group's training images repeated, everything else the same.

Tran et al. (NeurIPS 2022, App. C.3) watched the gradient norm; here the accuracy drop is watched too. An epoch has as
many batches as at x1 (they grow), so that no network takes more steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import ceil

import numpy as np
import pandas as pd

from linfair.data import GroupedData
from linfair.data.core import upsample
from linfair.study.cell import Cell, Setting, Worker, grid, setting_of
from linfair.study.tables import drops, over_seeds
from linfair.training import Schedule
from linfair_book.averages import less, mean_of_every
from linfair_book.tables import place, save

TIMES = (1, 5, 10, 20)  # how often the group's images are repeated: the pruning paper's
TABLE = "digits_mlp_upsampling"  # what the book reads (`linfair_book.tables`): digits, MLP, ten seeds
SPLIT = "test_balanced"


def chosen_group(data: GroupedData, seed: int) -> int:
    """A minority group of a data set, drawn by the seed."""
    minority = [group for group, role in enumerate(data.roles) if role == "minority"]
    return int(np.random.default_rng([seed, 53]).choice(minority))


def upsampled(cell: Cell, times: int) -> tuple[Setting, list[int]]:
    """How a cell is trained whose training data hold one minority group several times, and that group in each seed."""
    own = setting_of(cell)
    groups = [chosen_group(one, seed) for one, seed in zip(own.sets, cell.seeds, strict=True)]
    larger = [upsample(one, number, times) for one, number in zip(own.sets, groups, strict=True)]
    before, after = (len(one.splits["train"]) for one in (own.sets[0], larger[0]))
    plan, options = own.recipe, own.options
    changed = {name: _as_many_steps(getattr(plan, name), before, after) for name in ("base", "finetune")}
    if isinstance(schedule := getattr(options, "schedule", None), Schedule):
        options = replace(options, schedule=_as_many_steps(schedule, before, after))
    named = (("upsampled", tuple(groups)), ("times", times)) if times > 1 else ()  # else the plain study's arms
    return Setting(replace(plan, **changed), options, larger, larger, named), groups


def _as_many_steps(schedule: Schedule, before: int, after: int) -> Schedule:
    """The schedule with larger batches, so that an epoch over `after` inputs has as many as one over `before`."""
    if schedule.batch_size is None or before == after:
        return schedule
    return replace(schedule, batch_size=ceil(after / ceil(before / schedule.batch_size)))


def run_upsampling(cells: Sequence[Cell], *, times: Sequence[int] = TIMES, **how: object) -> pd.DataFrame:
    """Rows as of `study.run`, originals and plain, trained with one minority group of each seed repeated."""
    tables = []
    for cell, count in product(cells, sorted(times)):
        setting, groups = upsampled(cell, count)
        found = Worker(cell, setting=setting, **how).tables(("original", "plain"))
        target = found["seed"].map(dict(zip(cell.seeds, groups, strict=True)))
        tables.append(found.assign(times=count, upsampled_group=target))
    table = pd.concat(tables, ignore_index=True)
    rare = table["role"].where(table["times"] == 1).eq("minority").groupby([table["seed"], table["group"]])
    what = np.where(rare.transform("any"), "other minority", "majority")
    return table.assign(what=np.where(table["group"] == table["upsampled_group"], "upsampled", what))


def per_seed(table: pd.DataFrame, *, measured_on: str = "train") -> pd.DataFrame:
    """What is watched, one number a seed: means over the groups of a kind. Those of the original have budget 1."""

    def of(rows: pd.DataFrame, *columns: str) -> list[pd.DataFrame]:
        return [rows.assign(quantity=name, value=rows[name]) for name in columns]

    original = table[table["arm"] == "original"]
    accuracy = original[original["split"] == SPLIT].assign(accuracy=lambda rows: 100 * rows["accuracy"])
    lost = pd.concat([drops(part) for _, part in table[table["split"] == SPLIT].groupby("times")])
    lost = lost[lost["arm"] == "plain"]
    parts = of(original[original["split"] == measured_on], "gradient_norm", "margin") + of(accuracy, "accuracy")
    parts += of(lost, "drop", "relative_drop", "excess")
    by = ["seed", "times", "what", "quantity", "budget"]
    return mean_of_every(pd.concat(parts).groupby(by, sort=False)["value"]).reset_index()


def effects(table: pd.DataFrame, *, measured_on: str = "train") -> pd.DataFrame:
    """Levels at each number of repetitions, and differences to x1 within a seed (`of`), over seeds; as `per_seed`."""
    by = ["quantity", "what", "budget", "seed"]
    values = per_seed(table, measured_on=measured_on)
    changes = less(values, values[values["times"] == 1], by).assign(of="minus x1")
    return over_seeds(pd.concat([values.assign(of="level"), changes]), "value", [*by[:3], "times", "of"])


if __name__ == "__main__":
    save(run_upsampling(grid("digits", "mlp", budgets=(0.2, 0.02), seeds=range(10))), place(TABLE))
