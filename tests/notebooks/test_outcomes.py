"""Notebook 05 with every outcome forced into its rows, 12 with the other data: each cell runs, no number is made up."""

import ast
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linfair_book import mitigation
from linfair_book.tables import committed

from linfair import study

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks/05_mitigation.ipynb"
ROWS = {name: committed(name).query("seed < 3") for name in (mitigation.TABLE, mitigation.DEEPREDUCE_TABLE)}
MEASURED = ["accuracy", "margin", "gradient_norm", "multiplier"]

Force = Callable[[pd.DataFrame], pd.DataFrame]


def mitigated(rows: pd.DataFrame) -> pd.Series:
    return ~rows["arm"].isin(("original", "plain", "control"))


def lost(rows: pd.DataFrame, which: pd.Series) -> pd.DataFrame:
    """The rows, some of them of seeds that diverged."""
    rows = rows.copy()
    rows["diverged"] |= which
    rows.loc[rows["diverged"], [name for name in MEASURED if name in rows]] = np.nan
    return rows


def accuracy(value: float, which: Callable[[pd.DataFrame], pd.Series]) -> Force:
    return lambda rows: rows.assign(accuracy=rows["accuracy"].mask(which(rows), value))


OUTCOMES: dict[str, Force] = {
    "every repair diverged": lambda rows: lost(rows, mitigated(rows)),
    "algorithm 1 diverged at the smallest budget": lambda rows: lost(
        rows, (rows["arm"] == "lagrangian") & (rows["budget"] == rows["budget"].min())
    ),
    "one seed of algorithm 1 is left": lambda rows: lost(rows, (rows["arm"] == "lagrangian") & (rows["seed"] > 0)),
    "one seed": lambda rows: rows[rows["seed"] == 0],
    "no repair changes anything": accuracy(0.5, lambda rows: rows["arm"] != "original"),
    "the minority is at 0 % everywhere": accuracy(0.0, lambda rows: rows["role"] == "minority"),
    "every repair helps": accuracy(0.99, mitigated),
    "every repair harms": accuracy(0.01, mitigated),
}


def shown(source: str, space: dict[str, object]) -> str:
    """Run a cell and return what its last line shows, as text."""
    *rest, last = ast.parse(source).body
    exec(compile(ast.Module(rest, []), "cell", "exec"), space)
    if not isinstance(last, ast.Expr):
        exec(compile(ast.Module([last], []), "cell", "exec"), space)
        return ""
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
    data = getattr(value, "data", "")
    return data if isinstance(data, str) else data.to_string()


@pytest.mark.parametrize("force", OUTCOMES.values(), ids=OUTCOMES)
def test_notebook_05_shows_every_outcome(force: Force, monkeypatch: pytest.MonkeyPatch, house_style: None) -> None:
    def read(name: str) -> pd.DataFrame:
        return force(ROWS[name]).reset_index(drop=True)

    def run(*given: object, arms: tuple[str, ...], **options: object) -> pd.DataFrame:
        rows = read(mitigation.TABLE)
        here = rows["arm"].isin([*arms, "lagrangian"]) & (rows["options"] == "") & rows["budget"].isin((0.2, 1.0))
        return rows[here].reset_index(drop=True)

    monkeypatch.setattr(study, "run", run)
    monkeypatch.setattr("linfair_book.tables.committed", read)
    monkeypatch.setitem(os.environ, "LINFAIR_PROFILE", "smoke")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    space: dict[str, object] = {}
    texts = [shown("".join(cell["source"]), space) for cell in cells]
    assert not [text for text in texts if re.search(r"\bnan\b", text)]
    first = next(text for text in texts if "side" in text or "no seed is left" in text)
    if force is OUTCOMES["every repair diverged"]:
        assert "no seed is left to compare" in first and any("3 with Alg. 1, mu 0.001" in text for text in texts)
    elif force in (OUTCOMES["every repair helps"], OUTCOMES["every repair harms"]):
        told, other = ("up", "down")[:: 1 if force is OUTCOMES["every repair helps"] else -1]
        assert re.search(rf"\b{told}\b", first) and not re.search(rf"\b{other}\b", first)


def test_notebook_12_shows_faces_by_age(house_style: None) -> None:
    notebook = NOTEBOOK.with_name("12_faces.ipynb")
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    sources = [
        "".join(cell["source"]).replace('data: str = "utkface_race"', 'data: str = "utkface_age"') for cell in cells
    ]
    space: dict[str, object] = {"In": sources}
    texts = [shown(source, space) for source in sources]
    assert space["settings"]["data"] == "utkface_age"
    assert not [text for text in texts if re.search(r"\bnan\b", text)]
