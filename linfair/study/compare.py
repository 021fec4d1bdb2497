"""Are two sets of results the same? One's own against the book's, a GPU's against a CPU's, `fast` against `paper`.

Recomputed on the same CPU with the same versions and threads, a cell gives the same rows to the last bit in every
column but `LEFT_OUT`. Computed elsewhere, it may stand for them where it is *equivalent*: in each group, arm and budget
of each split the accuracies of a seed are paired, d_i = 100 (first_i - second_i) points, and

    equivalent  <=>  n >= 5 and the 95 % t interval of mean(d) lies within -2 and +2 points, for every group.

This is the two one-sided tests procedure (Schuirmann, 1987) with a stricter interval, 95 % where 90 % would keep its
error rate at 5 %. An interval that sticks out is no proof of a difference: it is *not shown equivalent*.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from linfair.study.cell import TIMING
from linfair.study.tables import complete, finished, over_seeds

LEFT_OUT = (*TIMING, "figure", "panel", "device", "torch", "linfair", "code", "profile")
"""Columns that say when, where and by what rows were computed, not what came out."""

MARGIN = 2.0  #: Points of accuracy within which a group's difference must lie
SEEDS = 5  #: Pairs of seeds that are needed

STATUS = (
    "cannot tell: no seed was computed in both ways",
    "cannot tell: some groups have fewer than 5 pairs of seeds",
    "not shown equivalent: some intervals reach beyond the margin",
    "equivalent: the 95 % interval of every group's difference in accuracy is within the margin",
)

_SAME = ["data", "network", "width", "base"]  # what two original networks of a seed have in common
_WHAT = [*_SAME, "method", "options", "arm", "budget", "split", "group_name"]
_ROW = [*_WHAT[:-2], "seed", "split", "group"]


@dataclass(frozen=True)
class Equivalence:
    """Whether the `first` way of computing may stand for the `second`, within a `margin` in points."""

    first: str
    second: str
    #: For each group and arm `n` pairs of seeds, first - second, whether it `lies_within` the margin
    rows: pd.DataFrame
    margin: float = MARGIN

    @property
    def shown(self) -> bool:
        """Whether every row lies within the margin; without rows nothing is shown."""
        return len(self.rows) > 0 and bool(self.rows["lies_within"].all())

    @property
    def status(self) -> str:
        """One of `STATUS`."""
        if not self.rows["n"].any():
            return STATUS[0]
        return STATUS[1] if self.rows["n"].min() < SEEDS else STATUS[3 if self.shown else 2]

    @property
    def farthest(self) -> pd.DataFrame:
        """The row whose interval reaches farthest from 0."""
        return self.rows.loc[self.rows[["low", "high"]].astype(float).abs().max(axis=1).nlargest(1).index]


def equivalent(
    table: pd.DataFrame, first: str, second: str, *, column: str = "profile", margin: float = MARGIN
) -> Equivalence:
    """Compare the accuracies of every group, paired over seeds; what only one has is a row with n = 0."""
    if first == second:
        raise ValueError(f"{first!r} is to be compared with itself; name two values of the column {column!r}")
    rows, on = complete(finished(table)), [*_WHAT, "seed"]
    both = [rows.loc[rows[column] == name, [*on, "accuracy"]] for name in (first, second)]
    for name, part in zip((first, second), both, strict=True):
        if part.duplicated(on).any():
            raise ValueError(f"several rows of one seed, group and arm for {name!r}: select one device and teacher")
    pairs = both[0].merge(both[1], on=on, how="outer", suffixes=("_first", "_second")).sort_values(_WHAT, kind="stable")
    pairs["difference"] = 100 * (pairs["accuracy_first"] - pairs["accuracy_second"])
    found = over_seeds(pairs, "difference", _WHAT).rename(columns={"n_seeds": "n"})
    within = (found["n"] >= SEEDS) & (found["low"] >= -margin) & (found["high"] <= margin)
    return Equivalence(first, second, found.assign(lies_within=within), margin)


@dataclass(frozen=True)
class Comparison:
    """Two sets of rows of the same figure, side by side."""

    rows: int  #: How many rows both have
    only: tuple[int, int]  #: How many the first and the second have alone
    networks: tuple[int, int]  #: Original networks that both have, and how many of them have the same digest
    columns: pd.DataFrame  #: What differs: in how many `rows`, by how much at most, and `relative` to the larger value
    equivalence: Equivalence  #: What the accuracies say

    @property
    def same(self) -> bool:
        """Whether both have the same rows, to the last bit."""
        return self.rows > 0 and self.only == (0, 0) and self.columns.empty

    @property
    def counts(self) -> pd.Series:
        """How many rows and original networks both have, and which are the same."""
        (first, second), (shared, alike) = self.only, self.networks
        found = {"rows in both": self.rows, f"rows in {self.equivalence.first} only": first}
        found |= {f"rows in {self.equivalence.second} only": second, "original networks in both": shared}
        found |= {"of these the same to the last bit": alike, "columns that differ": len(self.columns)}
        return pd.Series(found)


def compare(first: pd.DataFrame, second: pd.DataFrame, *, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Compare rows, matched by data, network, width, method, options, arm, budget, seed, split and group."""
    tables = []
    for name, table in zip(names, (first, second), strict=True):
        table = complete(table.drop(columns=["figure", "panel"], errors="ignore")).drop_duplicates()  # shared originals
        if table.duplicated(_ROW).any():
            raise ValueError(f"{name} has a row twice: take one teacher for each seed")
        tables.append(table.set_index(_ROW).sort_index())
    sides = pd.concat([side.reset_index().assign(side=name) for name, side in zip(names, tables, strict=True)])
    both = tables[0].index.intersection(tables[1].index)
    only = tuple(len(table) - len(both) for table in tables)
    columns = tables[0].columns.union(tables[1].columns, sort=False).difference(LEFT_OUT, sort=False)
    one, two = (table.loc[both].reindex(columns=columns) for table in tables)
    differing = filter(None, (_differ(name, one[name], two[name]) for name in columns))
    found = pd.DataFrame(differing, columns=["column", "rows", "largest", "relative"])
    found = found.sort_values("relative", ascending=False, na_position="first", ignore_index=True)
    alike = (one["teacher"] == two["teacher"]).groupby([*_SAME, "seed"]).first()
    networks = len(alike), int(alike.sum())
    return Comparison(len(both), only, networks, found, equivalent(sides, *names, column="side"))


def _differ(name: str, one: pd.Series, two: pd.Series) -> tuple[str, int, float, float] | None:
    """Where a column's values are not the same; missing ones, or a missing column, are the same as missing ones."""
    if not (unlike := ~((one == two) | (one.isna() & two.isna())).astype(bool)).any():
        return None
    if not all(pd.api.types.is_numeric_dtype(side) and not pd.api.types.is_bool_dtype(side) for side in (one, two)):
        return name, int(unlike.sum()), np.nan, np.nan
    a, b = (side[unlike].astype(float) for side in (one, two))
    gap, size = (a - b).abs(), np.maximum(a.abs(), b.abs())
    return name, int(unlike.sum()), gap.max(), (gap / size).max()
