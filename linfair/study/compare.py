"""Are two sets of results the same? One's own against the book's, a GPU's against a CPU's, this version's against that.

Recomputed on the same CPU with the same versions and threads, a cell gives the same rows to the last bit in every
column but `LEFT_OUT`. Anywhere else sums are taken in another order, a network's training takes a slightly different
path, and the documented tolerance is that of `linfair.study.equivalence`: five seeds or more, and the paired 95 %
interval of every group's difference in accuracy within 2 points.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from linfair.study.cell import TIMING
from linfair.study.equivalence import Equivalence, equivalent

LEFT_OUT = (*TIMING, "figure", "panel", "device", "torch", "linfair", "code", "profile")
"""Columns that say when, where and by what rows were computed, not what came out."""

_ROW = ["data", "network", "method", "arm", "budget", "seed", "split", "group"]


@dataclass(frozen=True)
class Comparison:
    """Two sets of rows of the same figure, side by side.

    Attributes:
        rows: How many rows both have.
        only: How many rows the first and the second have alone.
        networks: Original networks (one for each seed of a data set and network) that both have, and how many of them
            have the same digest.
        columns: Columns that differ: in how many `rows`, by how much at most (`largest`), and at most relative to the
            larger of the two (`relative`); nan for what is no number.
        equivalence: What the accuracies say.
    """

    rows: int
    only: tuple[int, int]
    networks: tuple[int, int]
    columns: pd.DataFrame
    equivalence: Equivalence

    @property
    def same(self) -> bool:
        """Whether both have the same rows, to the last bit."""
        return self.rows > 0 and self.only == (0, 0) and self.columns.empty

    @property
    def verdict(self) -> str:
        """One paragraph."""
        first, second = self.equivalence.first, self.equivalence.second
        if not self.rows:
            return f"`{first}` and `{second}` have no row in common: other data, networks, arms, budgets or seeds."
        alone = [
            f"{count} rows are in `{name}` only"
            for name, count in zip((first, second), self.only, strict=True)
            if count
        ]
        head = [f"{self.rows} rows are in both", *alone]
        shared, alike = self.networks
        if self.columns.empty:
            return f"{'; '.join(head)}. Those in both are the same to the last bit."
        head.append(f"{alike} of {shared} original networks are the same, {len(self.columns)} columns differ")
        return f"{'; '.join(head)}. {self.equivalence.verdict}"


def compare(first: pd.DataFrame, second: pd.DataFrame, *, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Compare rows, matched by data, network, method, arm, budget, seed, split and group.

    Args:
        first: Rows of `linfair.study.run` or `gather`, one teacher for each seed.
        second: Others, likewise.
        names: What they are called.

    Raises:
        ValueError: If one of them has a row twice.

    >>> row = {"data": "d", "network": "n", "method": "snl", "arm": "plain", "budget": 0.5, "seed": 0, "split": "test"}
    >>> row |= {"group": 0, "group_name": "a", "accuracy": 0.5, "teacher": "x", "seconds": 1.0}
    >>> compare(pd.DataFrame([row]), pd.DataFrame([row | {"seconds": 2.0}])).verdict
    '1 rows are in both. Those in both are the same to the last bit.'
    """
    tables = []
    for name, table in zip(names, (first, second), strict=True):
        table = table.drop(columns=["figure", "panel"], errors="ignore").drop_duplicates()  # panels share originals
        if table.duplicated(_ROW).any():
            raise ValueError(f"{name} has a row twice: take one teacher for each seed")
        tables.append(table.set_index(_ROW).sort_index())
    one, two = tables
    both = one.index.intersection(two.index)
    only = len(one) - len(both), len(two) - len(both)
    columns = [name for name in one.columns if name in two.columns and name not in LEFT_OUT]
    differing = [found for name in columns if (found := _differ(name, one.loc[both, name], two.loc[both, name]))]
    found = pd.DataFrame(differing, columns=["column", "rows", "largest", "relative"])
    pairs = pd.DataFrame({"one": one.loc[both, "teacher"], "two": two.loc[both, "teacher"]})
    pairs = pairs.groupby(["data", "network", "seed"]).first()
    sides = pd.concat([side.reset_index().assign(side=name) for name, side in zip(names, tables, strict=True)])
    return Comparison(
        len(both),
        only,
        (len(pairs), int((pairs["one"] == pairs["two"]).sum())),
        found.sort_values("relative", ascending=False, na_position="first", ignore_index=True),
        equivalent(sides, *names, column="side"),
    )


def _differ(name: str, one: pd.Series, two: pd.Series) -> tuple[str, int, float, float] | None:
    """Where a column's values are not the same; missing ones are the same as missing ones."""
    unlike = ~((one == two) | (one.isna() & two.isna())).astype(bool)
    if not unlike.any():
        return None
    if not all(pd.api.types.is_numeric_dtype(side) and not pd.api.types.is_bool_dtype(side) for side in (one, two)):
        return name, int(unlike.sum()), np.nan, np.nan
    a, b = (side[unlike].to_numpy(dtype=float) for side in (one, two))
    gap, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
    return name, int(unlike.sum()), float(np.max(gap)), float(np.max(gap / size))
