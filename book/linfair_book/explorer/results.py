"""The explorer of committed results: from rows to small JSON, each group's accuracy original, linearized, repaired."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from linfair import plots
from linfair.engine.store import Tables
from linfair.mitigation import PLAIN
from linfair.names import called
from linfair.study.tables import by_role, drops, one_teacher, over_seeds
from linfair_book.averages import inside

AXES = ("data", "budget", "arm")
UNREPAIRED = "not repaired"
_NEEDED = ["data", "network", "method", "arm", "budget", "split", "seed", "group", "group_name", "role"]
_NEEDED += ["n", "n_train", "accuracy", "teacher", "profile"]
_LINE = ["role", "group_name"]
_SCHEDULES = {"small": (), "thin": ("short training",), "cpu": ("a laptop's schedule",)}


def result_tables(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The tables of a folder that can be explored, by file name: a study's columns, one original network a seed."""
    tables = {}
    for name, table in Tables(folder).results(said=False):
        by = [one for one in ("data", "network", "width", "profile", "seed", "device") if one in table]
        originals = table[table["arm"] == "original"].groupby(by)["teacher"]
        if len(originals) and originals.nunique().max() == 1:  # several on one machine are of an intervention on them
            tables[name] = one_teacher(table)[0]
    return tables


def results_state(tables: Mapping[str, pd.DataFrame], *, splits: Sequence[str] = ("test_balanced", "test")) -> dict:
    """What `results.js` reads: `cells`, each a choice with its lines and the number of its `evidence`, and `colors`."""
    found: dict[tuple, dict] = {}
    for name, table in tables.items():
        for cell in _cells(table, splits):
            key = tuple(cell[axis] for axis in AXES)
            if key in found and found[key]["lines"] != cell["lines"]:
                cell["data"] = f"{cell['data']} (table {name.replace('_', ' ')})"
                key = tuple(cell[axis] for axis in AXES)
            found.setdefault(key, cell)
    if not found:
        raise ValueError(f"no linearized network's rows in the splits {', '.join(splits)}: nothing to explore")
    repaired = {cell["data"] for cell in found.values() if cell["arm"] != UNREPAIRED}
    cells = sorted(found.values(), key=lambda cell: (cell["data"] not in repaired, cell["data"], -cell["budget"]))
    lines = list(dict.fromkeys(cell["evidence"] for cell in cells))
    cells = [{**cell, "evidence": lines.index(cell["evidence"])} for cell in cells]
    return {
        "cells": cells,
        "evidence": lines,
        "colors": {role: plots.COLORS[role] for role in ("majority", "minority")},
    }


def first_choice(state: dict) -> dict:
    """Where to start: the first data set that has a repair, at its smallest budget above 10 %."""
    first = [cell for cell in state["cells"] if cell["data"] == state["cells"][0]["data"]]
    start = min(first, key=lambda cell: (cell["budget"] < 0.1, cell["budget"]))
    return {axis: start[axis] for axis in AXES}


def _cells(table: pd.DataFrame, splits: Sequence[str]) -> Iterator[dict]:
    if missing := [name for name in _NEEDED if name not in table]:
        raise ValueError(f"these rows lack {', '.join(missing)}; pass what linfair.study.run returned")
    table = table if "width" in table else table.assign(width=0)
    for (data, network, width, profile), part in table.groupby(["data", "network", "width", "profile"], sort=False):
        split = next((one for one in splits if (part["split"] == one).any()), None)
        part = part[part["split"] == split]
        part = part.assign(method=_method(part), budget=part["budget"].astype(float))
        swap = part.groupby("group_name")["role"].nunique().max() > 1  # then a group has no role of its own
        compared = drops(by_role(part) if swap else part)
        for (method, budget), own in compared[compared["arm"] != "original"].groupby(["method", "budget"], sort=False):
            plain = {arm for arm in own["arm"] if arm.partition("(")[0] == PLAIN}
            repairs = [one for one in own["arm"].unique() if one not in plain and not one.startswith("control")]
            repairs = sorted(repairs, key=lambda arm: (not arm.startswith("lagrangian"), arm))
            for arm in (*repairs, UNREPAIRED) if plain else ():
                beside = min(plain, key=lambda one: (("kd=0.0" in one) != ("kd=0.0" in arm), one))
                both = own[own["arm"].isin([beside, arm])]
                both = both[both.groupby("seed")["arm"].transform("nunique") == both["arm"].nunique()]
                if both.empty:
                    continue
                used = part[(part["method"] == method) & part["arm"].isin([beside, arm])]
                used = used[used["seed"].isin(both["seed"])]
                size = f"{called(network)} of width {width}" if width else called(network)
                label = [called(data), size, *_SCHEDULES.get(profile, (profile,)), method]
                about = {"data": ", ".join(label), "budget": budget, "arm": called(arm), "split": called(split)}
                evidence = plots.evidence_of(used, split=split)
                yield about | {"lines": _lines(_means(both), beside, arm), "evidence": evidence}


def _method(part: pd.DataFrame) -> pd.Series:
    """The method in a reader's words; a selection says what its options do."""
    chosen = part["method"].astype(str)
    more = part["options"].fillna("").map(_said) if "options" in part else ""
    if "selection" in part:
        other = part["selection"].notna() & (part["selection"] != chosen)
        return part["selection"].where(other, chosen).map(called) + pd.Series(more, part.index).mask(other, "")
    return chosen.map(called) + more


def _said(options: str) -> str:
    """The options of a method, each in words."""
    pairs = (option.split("=", 1) for option in re.split(r", (?![^(]*\))", options) if option)
    known = {"mitigation": "selected under {}", "start": "from {} weights", "epochs": "{} epochs"}
    return "".join(f", {known.get(key, f'{key} {{}}').format(called(value))}" for key, value in pairs)


def _means(compared: pd.DataFrame) -> pd.DataFrame:
    """Accuracy and drop over seeds, in per cent and points, of each group, or of each role."""
    by = ["method", "arm", "budget", *_LINE]
    compared = compared.assign(percent=100 * compared["accuracy"], before=100 * compared["original"])
    level, lost = (over_seeds(compared[[*by, "seed", column]], column, by) for column in ("percent", "drop"))
    before = compared.groupby(by, sort=False, dropna=False)["before"].mean().to_numpy()
    level = inside(level, 0, 100)
    return level.assign(before=before, drop=lost["mean"], drop_low=lost["low"], drop_high=lost["high"])


def _lines(own: pd.DataFrame, plain: str, arm: str) -> list[list]:
    """Of each group: name, role, seeds, original, and of both networks mean, ends, drop, its ends."""
    numbers = ["mean", "low", "high", "drop", "drop_low", "drop_high"]
    repaired = {tuple(row[_LINE]): row for _, row in own[own["arm"] == arm].iterrows()}
    lines = []
    for _, row in own[own["arm"] == plain].iterrows():
        other = repaired.get(tuple(row[_LINE]))
        networks = [None if one is None else [_number(one[name]) for name in numbers] for one in (row, other)]
        lines.append([row["group_name"], row["role"], int(row["n_seeds"]), _number(row["before"]), *networks])
    return sorted(lines, key=lambda line: (line[1], line[0]))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 2)
