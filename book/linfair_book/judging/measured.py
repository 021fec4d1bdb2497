"""Committed tables with a number a line, as the third system has them: from a check to lines, tested as others are.

A table says for each seed what a network of one rule reached: `KEYS` tell the lines of a seed apart, other columns are
quantities. Tables of one data set, network and profile are one set, which a claim is judged by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from linfair.engine.store import Tables
from linfair.study.tables import by_role, overall
from linfair_book.averages import SCALES
from linfair_book.judging import cells
from linfair_book.judging import rows as tidy
from linfair_book.judging.rules import Check, Measure
from linfair_book.judging.statistics import mean

NAMES = ["data", "network", "width", "profile"]  # what tells one set of tables from another
KEYS = ["rule", "epsilon", "skew", "technique", "removed", "shadows", "attack", "at", "who"]
"""What tells the lines of a table apart beside the seed; a table has those of them that it needs."""


@dataclass(frozen=True)
class Context:
    """The tables of one set, by name."""

    names: Mapping[str, object]
    tables: Mapping[str, pd.DataFrame]
    judging: Mapping[str, object]


def contexts(folder: str | Path, names: set[str], judging: Mapping[str, object]) -> list[Context]:
    """The sets of the tables of those names that are there."""
    store, found = Tables(folder), {}
    for name in sorted(names & set(store.names())):
        table = store.read(name)
        for key, part in _by_who(table).groupby(NAMES, sort=False):
            found.setdefault(key, {})[name] = part.assign(file=f"{name}.parquet")
    alike = {"init": tidy.INIT, "method": "original", "options": ""}
    return [Context(dict(zip(NAMES, key, strict=True)) | alike, one, judging) for key, one in found.items()]


def _by_who(table: pd.DataFrame) -> pd.DataFrame:
    """A study's original networks as such a table: `all` on the natural test, roles on the balanced one."""
    if "who" in table:
        return table
    test = table[(table["split"] == "test") & (table["arm"] == "original")]
    whole = overall(test)
    balanced = table[(table["split"] == "test_balanced") & (table["arm"] == "original")]
    roles = by_role(balanced if len(balanced) else test)
    both = pd.concat([whole, roles], ignore_index=True).rename(columns={"group_name": "who"})
    return both.assign(shared=float((whole["n"] / whole["n_train"]).mean()))


def evaluate(check: Check, context: Context) -> list[dict[str, object]]:
    """The lines of a check: one for each table of its measure and each combination of keys that nothing fixes."""
    value, judging, lines = check.value, context.judging, []
    for name in value.tables:
        if (table := context.tables.get(name)) is None or value.quantity not in table:
            continue
        found, free = differences(value, table)
        several = {key for key in free if found[key].nunique() > 1} | {"rule", "epsilon", "skew"}
        for at, part in found.groupby(free, sort=False, dropna=False) if free else [((), found)]:
            told = {key: one for key, one in zip(free, at, strict=True) if key in several}
            who = str(told.pop("who", dict(value.where | value.arm).get("who", "all")))
            line = {"arm": told.pop("rule", _words(value.arm)), "against": _words(value.against)}
            line |= {"group": who, "budget": _words(told)}
            estimate = mean(part["value"], shared=float(part["shared"].mean()))
            lines.append(line | cells.tested(check, estimate, judging, value.scale == "ratio"))
    return lines


def differences(value: Measure, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A value for each seed and each combination of free keys, which neither a side nor `where` fixes; and these."""
    keys = [key for key in KEYS if key in table]
    if (twice := table.duplicated(["seed", *keys])).any():
        raise tidy.RowsError(f"{value.tables}: several lines of {table.loc[twice, ['seed', *keys]].iloc[0].to_dict()}")
    rows = _where(table.dropna(subset=[value.quantity]), value.where)
    mine = _where(rows, value.arm)
    fixed = {key for key, one in (value.where | value.arm).items() if not isinstance(one, list)}
    free = [key for key in keys if key not in fixed]
    if value.against:
        on = ["seed", *(key for key in keys if key not in value.against)]
        other = _where(rows, value.against)[[*on, value.quantity]].rename(columns={value.quantity: "reference"})
        mine = mine.merge(other, on=on, validate="many_to_one")
    else:
        mine = mine.assign(reference=1.0 if value.scale == "ratio" else 0.0)
    mine = mine.assign(value=SCALES[value.scale](mine[value.quantity], mine["reference"]))
    return mine.dropna(subset=["value"]), free


def provenance(context: Context, checks: tuple[Check, ...]) -> dict[str, object]:
    """Where the tables of some checks come from, as `rows.provenance`."""
    used = {name for check in checks for name in check.value.tables} & set(context.tables)
    rows = pd.concat([context.tables[name] for name in sorted(used)], ignore_index=True)
    return tidy.provenance(rows.assign(arm=rows["rule"] + rows["file"]))


def _where(rows: pd.DataFrame, wanted: Mapping[str, object]) -> pd.DataFrame:
    for key, value in wanted.items():
        if key != "skew" or key in rows:  # faces have the imbalance that they come with, and no skew
            rows = rows[rows[key].isin(value if isinstance(value, list) else [value])]
    return rows


def _words(told: Mapping[str, object]) -> str:
    """Keys and what they are in words, the rule without its key.

    >>> _words({"rule": "dp_sat", "epsilon": 8.0, "skew": 0.95})
    'dp_sat, epsilon 8, skew 0.95'
    """
    said = []
    for key, value in told.items():
        text = f"{value:g}" if isinstance(value, float | int | np.number) else " / ".join(np.atleast_1d(value).tolist())
        said.append(text if key in ("rule", "who") else f"{key} {text}")
    return ", ".join(said)
