"""May one way of computing a study stand for another? `fast` for `paper`, bf16 for float32.

Both are run from the same seeds. In each group, arm and budget of each split the accuracies of a seed are paired,
d_i = 100 (first_i - second_i) points, and

    equivalent  <=>  n >= 5 and the 95 % t interval of mean(d) lies within -2 and +2 points, for every group.

This is the two one-sided tests procedure (Schuirmann, 1987) with a stricter interval, 95 % where 90 % would keep its
error rate at 5 %. An interval that sticks out is no proof of a difference: it is *not shown equivalent*.
"""

from dataclasses import dataclass

import pandas as pd

from linfair.metrics import mean_interval
from linfair.study.tables import finished

MARGIN = 2.0
"""Points of accuracy within which a group's difference must lie."""
SEEDS = 5
"""Pairs of seeds that are needed."""

_WHAT = ["data", "network", "method", "arm", "budget", "split", "group_name"]


@dataclass(frozen=True)
class Equivalence:
    """Whether one way of computing may stand for another.

    Attributes:
        first: What should stand.
        second: For what.
        rows: A row for each group of each data set, network, method, arm, budget and split: `n` pairs of seeds, `mean`,
            `low` and `high` of first - second in points, and whether that `lies_within` the margin.
        margin: The margin, in points.
        seeds: Pairs of seeds needed.
    """

    first: str
    second: str
    rows: pd.DataFrame
    margin: float = MARGIN
    seeds: int = SEEDS

    @property
    def shown(self) -> bool:
        """Whether every row lies within the margin; without rows nothing is shown."""
        return len(self.rows) > 0 and bool(self.rows["lies_within"].all())

    @property
    def verdict(self) -> str:
        """One sentence for a page."""
        if self.rows.empty:
            return f"`{self.first}` is not shown equivalent to `{self.second}`: no seed was computed in both ways."
        fewest = int(self.rows["n"].min())
        if self.shown:
            return (
                f"`{self.first}` is equivalent to `{self.second}` within {self.margin:g} points: so says the 95 % "
                f"interval of every group's difference in accuracy ({len(self.rows)} of them, {fewest} or more seeds)."
            )
        if fewest < self.seeds:
            why = f"some groups have {fewest} pairs of seeds, and {self.seeds} are needed"
        else:
            left = self.rows[~self.rows["lies_within"]]
            worst = left.assign(reach=left[["low", "high"]].abs().max(axis=1)).nlargest(1, "reach").iloc[0]
            why = (
                f"{len(left)} of {len(self.rows)} intervals reach beyond {self.margin:g} points, the farthest that of "
                f"{worst['group_name']}, {worst['arm']} at {100 * worst['budget']:g} % on {worst['data']}: "
                f"{worst['mean']:.1f} [{worst['low']:.1f}, {worst['high']:.1f}]"
            )
        return f"`{self.first}` is not shown equivalent to `{self.second}`: {why}."


def equivalent(table: pd.DataFrame, first: str, second: str, *, column: str = "profile") -> Equivalence:
    """Compare the accuracies of every group, paired over seeds.

    Args:
        table: Rows of `linfair.study.run` or `gather`, of both ways.
        first: What should stand for the other: a value of the column, such as `fast`.
        second: The other, such as `paper`; for bf16 against float32 `fast` and `fast_float32`.
        column: The column that tells them apart.

    Returns:
        The intervals and the verdict. A group, arm or budget that only one of the two has is a row with n = 0: nothing
        is shown about it. A seed that diverged in one of them makes no pair.

    Raises:
        ValueError: If the table has several rows of one seed, or `first` is `second`.
    """
    if first == second:
        raise ValueError(f"{first!r} is to be compared with itself; name two values of the column {column!r}")
    rows = finished(table)
    both = [rows.loc[rows[column] == name, [*_WHAT, "seed", "accuracy"]] for name in (first, second)]
    for name, part in zip((first, second), both, strict=True):
        if part.duplicated([*_WHAT, "seed"]).any():
            raise ValueError(
                f"several rows of one seed, group and arm for {name!r}: select one device and teacher each"
            )
    paired = both[0].merge(both[1], on=[*_WHAT, "seed"], how="outer", suffixes=("_first", "_second"))
    paired["difference"] = 100 * (paired["accuracy_first"] - paired["accuracy_second"])
    found = []
    for names, part in paired.groupby(_WHAT, sort=True, dropna=False):
        values = part["difference"].dropna().to_numpy()
        interval = mean_interval(values) if len(values) else None
        mean, low, high = (interval.mean, interval.low, interval.high) if interval else (float("nan"),) * 3
        within = len(values) >= SEEDS and low >= -MARGIN and high <= MARGIN
        found.append([*names, len(values), mean, low, high, within])
    columns = [*_WHAT, "n", "mean", "low", "high", "lies_within"]
    return Equivalence(first, second, pd.DataFrame(found, columns=columns))
