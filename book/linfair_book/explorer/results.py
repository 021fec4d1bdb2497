"""The explorer of committed results: from rows to small JSON, a cell per choice with a bar for each role or group."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from linfair import plots
from linfair.engine.store import Tables
from linfair.study.tables import by_role, drops, over_seeds

ARMS = {"plain": "plain", "control": "100 % control"}
SPLITS = {"test_balanced": "balanced test", "test": "test", "val": "validation", "train": "training"}
BARS = {"roles": "both roles", "groups": "every group"}
_PANEL = ["data", "network", "method", "arm", "budget", "split"]
_NEEDED = [*_PANEL, "seed", "group", "group_name", "role", "n", "n_train", "accuracy", "teacher", "profile"]


def result_tables(folder: str | Path) -> dict[str, pd.DataFrame]:
    """The tables of a folder that can be explored, by file name: a study's columns, one original network a seed."""
    tables = {}
    for name, table in Tables(folder).results(said=False):
        originals = table[table["arm"] == "original"].groupby(["data", "network", "profile", "seed"])["teacher"]
        if len(originals) and originals.nunique().max() == 1:
            tables[name] = table
    return tables


def results_state(tables: Mapping[str, pd.DataFrame], *, splits: Sequence[str] = ("test_balanced", "test")) -> dict:
    """What `results.js` reads: `cells`, a choice with its bars and the number of its `evidence`, `names`, `colors`."""
    found: dict[tuple, dict] = {}
    for name, table in tables.items():
        for cell in _cells(table, splits):
            key = tuple(cell[axis] for axis in (*_PANEL, "bars"))
            if key in found and found[key]["rows"] != cell["rows"]:
                cell["method"] = f"{cell['method']} ({name})"
                key = tuple(cell[axis] for axis in (*_PANEL, "bars"))
            found.setdefault(key, cell)
    if not found:
        raise ValueError(f"no linearized network's rows in the splits {', '.join(splits)}: nothing to explore")
    order = {split: place for place, split in enumerate(splits)}
    cells = sorted(found.values(), key=lambda cell: (order[cell["split"]], cell["bars"] == "groups", -cell["budget"]))
    lines = list(dict.fromkeys(cell["evidence"] for cell in cells))
    cells = [{**cell, "evidence": lines.index(cell["evidence"])} for cell in cells]
    names = {"arm": ARMS, "split": SPLITS, "bars": BARS}
    names["budget"] = {f"{budget:g}": f"{100 * budget:g} %" for budget in {cell["budget"] for cell in cells}}
    colors = {role: plots.COLORS[role] for role in ("majority", "minority")}
    return {"cells": cells, "evidence": lines, "names": names, "colors": colors}


def first_choice(state: dict) -> dict:
    """Where to start: the first table's plain fine-tuning at its smallest budget above 10 %, both roles."""
    plain = [cell for cell in state["cells"] if cell["arm"] == "plain"] or state["cells"]
    same = [cell for cell in plain if all(cell[axis] == plain[0][axis] for axis in ("data", "network", "method"))]
    start = min(same, key=lambda cell: (cell["budget"] < 0.1, cell["budget"]))
    return {axis: start[axis] for axis in (*_PANEL, "bars")}


def _cells(table: pd.DataFrame, splits: Sequence[str]) -> list[dict]:
    if missing := [name for name in _NEEDED if name not in table]:
        raise ValueError(f"these rows lack {', '.join(missing)}; pass what linfair.study.run returned")
    table = table[table["split"].isin(splits)]
    cells = []
    for (data, _, profile), part in table.groupby(["data", "network", "profile"], sort=False):
        part = part.assign(method=_method(part))
        lines = {}
        for (method, arm), own in part.groupby(["method", "arm"], sort=False):
            lines |= {(method, arm, split): plots.evidence_of(own, split=split) for split in own["split"].unique()}
        for bars, rows in (("roles", by_role(part)), ("groups", part)):
            compared = drops(rows)
            compared = compared[compared["arm"] != "original"]
            compared = compared.assign(percent=100 * compared["accuracy"], before=100 * compared["original"])
            compared["budget"] = compared["budget"].astype(float)
            for key, found in _bars(compared).items():
                cell = dict(zip(_PANEL, key, strict=True)) | {"bars": bars, "rows": found}
                cell["evidence"] = lines[cell["method"], cell["arm"], cell["split"]]
                cells.append({**cell, "data": f"{data}, {profile}"})
    return cells


def _method(part: pd.DataFrame) -> pd.Series:
    """The method's name, with what else distinguishes its rows."""
    name = part["method"].astype(str)
    for column in ("selection", "options"):
        if column in part:
            more = part[column].fillna("").astype(str)
            name = name.where((more == "") | (more == part["method"]), name + " · " + more)
    return name


def _bars(compared: pd.DataFrame) -> dict[tuple, list[list]]:
    """The bars of each choice, majority first, from rows with `percent`, `before` and `drop`."""
    by = [*_PANEL, "role", "group_name"]
    level, lost = (over_seeds(compared[[*by, "seed", column]], column, by) for column in ("percent", "drop"))
    seeds = compared.groupby(by, sort=False)
    few, many, before = (seeds[of].agg(how).to_numpy() for of, how in (("n", "min"), ("n", "max"), ("before", "mean")))
    roles = level.groupby([*_PANEL, "group_name"])["role"].transform("nunique")
    ends = ["mean", "low", "high"]
    numbers = zip(*level[ends].to_numpy().T, before, *lost[ends].to_numpy().T, strict=True)
    bars: dict[tuple, list[list]] = {}
    lines = level.itertuples(index=False)
    for row, least, most, several, found in zip(lines, few, many, roles > 1, numbers, strict=True):
        name = f"{row.group_name} as {row.role}" if several else str(row.group_name)
        size = f"{least}" if least == most else f"{least} to {most}"
        bars.setdefault(tuple(row[: len(_PANEL)]), []).append([name, row.role, row.n_seeds, size, *map(_number, found)])
    return {panel: sorted(rows, key=lambda row: (row[1], row[0])) for panel, rows in bars.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 2)
