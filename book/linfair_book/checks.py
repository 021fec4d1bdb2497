"""Named checks: a table of what a page measured and whether it is as said; a person writes beside it what it means."""

from collections.abc import Iterable
from math import isnan, nan

import pandas as pd

from linfair_book.claims import Page, shown

OUTCOMES = ("holds", "does not hold", "cannot tell")


def outcome(value: float, low: float, high: float, within: tuple[float, float]) -> str:
    """One of `OUTCOMES`: the whole interval (or an exact value) lies within two bounds, outside of them, or on one."""
    low, high = (value, value) if isnan(low) or isnan(high) else (low, high)
    if within[0] <= low and high <= within[1]:
        return "holds"
    return "does not hold" if high < within[0] or low > within[1] else "cannot tell"


def check(
    name: str,
    value: float,
    low: float = nan,
    high: float = nan,
    *,
    n: int,
    key: str = "",
    of: str = "seeds",
    unit: str = "",
    digits: int = 2,
    within: tuple[float, float] | None = None,
) -> dict[str, object]:
    """A row of a table of checks; without bounds it is a number beside them, without a key no claim rests on it."""
    found = outcome(value, low, high, within) if within else ""
    number = {"value": value, "low": low, "high": high, "n": n, "of": of, "unit": unit, "digits": digits}
    return {"check": name, **number, "outcome": found, "key": key}


def keep(page: Page, rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    """Note the rows that have a key on the page, and return the checks for reading: number with evidence, outcome."""
    rows = list(rows)
    for row in rows:
        if row["key"]:
            page.note(**{name: row[name] for name in ("key", "value", "low", "high", "n", "of", "unit", "digits")})
    return pd.DataFrame({"check": row["check"], "found": shown(row), "outcome": row["outcome"]} for row in rows)
