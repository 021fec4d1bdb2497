"""The first page: its figure against the committed rows, its length, and what it names."""

import importlib
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from linfair_book.tables import committed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made():
    """`book/_ext/front_page.py`, imported as Sphinx does."""
    sys.path.insert(0, str(ROOT / "book/_ext"))
    try:
        return importlib.import_module("front_page")
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("group", ["White", "Others"])
def test_the_figure_shows_the_means_of_the_committed_rows(made, group: str) -> None:
    """Oracle: plain means over seeds, computed here from the table."""
    rows = committed("utkface_race_cpu").query("width == 16 and split == 'test' and group_name == @group")
    shown = made.numbers(made.SHOWN[0])
    found = next(one for one in shown["groups"] if one["name"] == group)
    for budget, accuracy, control in zip(shown["budgets"], found["accuracy"], found["control"], strict=True):
        at = rows[rows["budget"] == budget].groupby("arm")["accuracy"].mean() * 100
        assert accuracy == pytest.approx(at["original" if budget == 1 else "plain"], abs=0.051)
        assert control == pytest.approx(at["original" if budget == 1 else "control"], abs=0.051)


def test_without_a_script_the_picture_and_the_numbers_of_the_lowest_budget_stand_there(made) -> None:
    soup = BeautifulSoup(made.figure(), "html.parser")
    data = made.numbers(made.SHOWN[0])
    assert ["hidden" in one.attrs for one in soup.select("svg")] == [False, True, True]
    assert soup.select_one(".controls").has_attr("hidden")
    lines = [[cell.text for cell in row.select("th, td")] for row in soup.select("tbody tr")]
    assert [line[0] for line in lines] == [one["name"] for one in data["groups"]]
    assert [line[2] for line in lines] == [f"{one['accuracy'][-1]:.1f}" for one in data["groups"]]


def test_no_group_gets_an_accuracy_above_100_per_cent(made) -> None:
    for shown in made.SHOWN:
        assert max(value for one in made.numbers(shown)["groups"] for value in one["high"] if value == value) <= 100


def test_the_link_to_the_repository_is_there_once_its_address_is(made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "repository" not in made.paper()
    text = (ROOT / "_config.yml").read_text().replace('repository_url: ""', "repository_url: https://example.org/a/b")
    monkeypatch.setattr(made.yaml, "safe_load", lambda _, load=made.yaml.safe_load: load(text))
    assert 'href="https://example.org/a/b"' in made.paper()
