"""The page "Add your own linearizer or mitigation": its blocks run in order, and what it shows is what they print."""

import re
from pathlib import Path

import pandas as pd
import pytest

from linfair.linearizers import LINEARIZERS
from linfair.mitigation import MITIGATIONS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book/add-your-own-method.md"
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def registries():
    """What the page registers is gone after it: other tests run every registered method."""
    before = [(known, dict(known)) for known in (LINEARIZERS, MITIGATIONS)]
    yield
    for known, entries in before:
        known.clear()
        known.update(entries)


def test_the_pages_blocks_run_in_order_and_print_what_it_shows(registries, tmp_path, monkeypatch, capsys):
    """Oracle for the printed line: the page. For the numbers: the page's own tests, which are its last block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    assert [kind for kind, _ in BLOCKS] == ["python"] * 3 + ["text"] + ["python"] * 3
    names, printed = {"__name__": "page"}, []
    for kind, text in BLOCKS:
        if kind == "text":
            assert printed[-1].rstrip() == text.rstrip()
        else:
            line = PAGE.read_text().split(text)[0].count("\n")
            exec(compile("\n" * line + text, str(PAGE), "exec"), names)
            printed.append(capsys.readouterr().out)
    found = names["found"]
    assert set(found["arm"]) == {"plain", "control", "tilted", "tilted(t=5.0)", "balanced_sampling"}
    assert (found["n_seeds"] == 3).all() and "minority" in printed[3]
    table = names["table"]
    by = ["seed", "split", "group"]
    accuracy = {arm: part.set_index(by)["accuracy"] for arm, part in table.groupby("arm")}
    assert not accuracy["tilted"].equals(accuracy["plain"]) and not accuracy["tilted"].equals(accuracy["tilted(t=5.0)"])
    assert "Chosen: " in printed[4] and "tilted" in printed[4]
    assert list((tmp_path / "my-results" / "results").glob("*.parquet"))
    assert pd.read_parquet(tmp_path / "my-run" / "groups.parquet")["method"].isin(["group_snip", "original"]).all()
    assert sum(name.startswith("test_") for name in names) == 4
    assert "test_" in BLOCKS[-1][1] and BLOCKS[-1][1].rstrip().endswith("test()")


def test_files_that_the_page_names_exist():
    named = re.findall(r"`((?:linfair|tests)/[\w/.]+)`", PAGE.read_text())
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["group_dro", "lagrangian", "balanced_sampling", "kd_over_c"])
def test_mitigations_that_the_page_points_to_exist(name):
    assert f"`{name}`" in PAGE.read_text() and name in MITIGATIONS
