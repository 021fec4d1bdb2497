"""Numbers as commands, report and notebook show them: a value and its 95 % interval, two networks' difference."""

import re

import numpy as np
import pandas as pd

from linfair.metrics import Disparity, GroupMean, disparity, wilson


def number(value: float, digits: int = 1) -> str:
    """A number to so many digits, never -0.0."""
    return f"{value:z.{digits}f}"


def interval(value: float, low: float, high: float, digits: int = 1, ends: int | None = None) -> str:
    """A value and its interval, whose ends may have other digits; one image has no interval."""
    first, *rest = number(value, digits), *(number(end, digits if ends is None else ends) for end in (low, high))
    return f"{first} [{'no interval' if np.isnan([low, high]).any() else ', '.join(rest)}]"


def minus(text: str) -> str:
    """Text whose negative numbers have a minus sign, and whose zeros have none.

    >>> minus("-1.5 [-0.0, 2-12]")
    '\u22121.5 [0.0, 2-12]'
    """
    text = re.sub(r"(?<![\w.)])-(?=0(?:\.0+)?(?![\d.e]))", "", text)
    return re.sub(r"(?<![\w.)])-(?=\.?\d)", "\u2212", text)


def intervals(
    rows: pd.DataFrame, name: str, *, scale: float = 1, digits: int = 1, ends: int | None = None
) -> list[str]:
    """`interval` of each row; the ends are `NAME_low` and `NAME_high`, of an accuracy `low` and `high`."""
    return [interval(*values, digits, ends) for values in (scale * rows[_and_ends(name)]).itertuples(index=False)]


def records(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as plain values, for JSON; what was not computed is None."""
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def _and_ends(name: str) -> list[str]:
    return [name, "low", "high"] if name == "accuracy" else [name, f"{name}_low", f"{name}_high"]


def gap_of(rows: pd.DataFrame, name: str = "drop", worst: str = "high") -> Disparity:
    """The largest difference of a quantity between two groups of one network, with its interval."""
    values = rows[["group", "n", *_and_ends(name)]].itertuples(index=False)
    return disparity([GroupMean(*row) for row in values], worst=worst)


def accuracies(rows: pd.DataFrame) -> list[str]:
    """Accuracy in per cent with its Wilson interval, `80.0 [71, 87]`."""
    return intervals(rows, "accuracy", scale=100, ends=0)


def pooled(rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy of all groups' images together, with its Wilson interval and n."""
    n = int(rows["n"].sum())
    accuracy = float((rows["accuracy"] * rows["n"]).sum() / n)
    low, high = wilson(min(accuracy, 1.0), n)
    return {"n": n, "accuracy": accuracy, "low": low, "high": high}


def drop_between(before: pd.DataFrame | dict, after: pd.DataFrame | dict) -> dict[str, pd.Series | float]:
    """`drop` in points from one network's accuracies to another's, `drop_low` and `drop_high`.

    The ends are put together from both Wilson intervals (MOVER). The networks see the same inputs, so the interval is
    rather too wide; a paired t interval would have no width where all of a handful of inputs change alike.
    """
    drop = before["accuracy"] - after["accuracy"]
    low = drop - np.hypot(before["accuracy"] - before["low"], after["high"] - after["accuracy"])
    high = drop + np.hypot(before["high"] - before["accuracy"], after["accuracy"] - after["low"])
    return {"drop": 100 * drop, "drop_low": 100 * low, "drop_high": 100 * high}


def change_of_worst(before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, float]:
    """Points by which the accuracy of the worst group, of each network its own, changes, with its 95 % interval."""
    drop = drop_between(*(rows.loc[rows["accuracy"].idxmin()] for rows in (before, after)))
    return -drop["drop"], -drop["drop_high"], -drop["drop_low"]


def change_text(change: float, low: float, high: float) -> str:
    """A change in points and whether it is more than test noise."""
    found = "a gain" if low > 0 else "a loss" if high < 0 else "within test noise"
    return f"{change:+z.1f} points [{low:+z.1f}, {high:+z.1f}], {found}"
