"""The first page: its figure against the committed rows, its length, and what it names."""

from pathlib import Path

import front_page as made
import pytest
from bs4 import BeautifulSoup
from linfair_book.tables import FIGURES, committed, pictures

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("group", ["White", "Others"])
def test_the_figure_shows_the_means_of_the_committed_rows(group: str) -> None:
    """Oracle: plain means over the seeds, of each the original network with most arms, computed here from the table."""
    rows = committed("utkface_race_cpu").query("width == 16 and split == 'test' and group_name == @group")
    arms = rows.groupby(["seed", "teacher"])["arm"].nunique()
    rows = rows[rows["teacher"].isin([teacher for _, teacher in arms.groupby("seed").idxmax()])]
    shown = made.numbers(made.SHOWN[1])
    found = next(one for one in shown["groups"] if one["name"] == group)
    for budget, accuracy, control in zip(shown["budgets"], found["accuracy"], found["control"], strict=True):
        at = rows[rows["budget"] == budget].groupby("arm")["accuracy"].mean() * 100
        assert accuracy == pytest.approx(at["original" if budget == 1 else "plain"], abs=0.051)
        assert control == pytest.approx(at["original" if budget == 1 else "control"], abs=0.051)


COUNTS = [(0, 10, "10,000"), (1, 10, "4,741"), (2, 5, "4,516"), (3, 10, "540")]


@pytest.mark.parametrize(("at", "seeds", "images"), COUNTS)
def test_seeds_and_images_are_counted_in_the_rows(at: int, seeds: int, images: str) -> None:
    """Oracle: the data sheets' test images, the files' seeds, and tests that have every class alike."""
    assert made.numbers(made.SHOWN[at])["says"].endswith(f"; {seeds} seeds, {images} test images a seed.")


def test_without_a_script_the_picture_and_the_numbers_of_the_lowest_budget_stand_there() -> None:
    soup = BeautifulSoup(made.figure(), "html.parser")
    data = made.numbers(made.SHOWN[0])
    assert ["hidden" in one.attrs for one in soup.select("svg")] == [False, True, True, True]
    assert soup.select_one(".controls").has_attr("hidden")
    lines = [[cell.text for cell in row.select("th, td")] for row in soup.select("tbody tr")]
    assert [line[0] for line in lines] == [one["name"] for one in data["groups"]]
    assert [line[2] for line in lines] == [f"{one['accuracy'][-1]:.1f}" for one in data["groups"]]


def test_no_group_gets_an_accuracy_above_100_per_cent() -> None:
    for shown in made.SHOWN:
        assert max(value for one in made.numbers(shown)["groups"] for value in one["high"] if value == value) <= 100


def test_every_picture_without_the_toy_is_drawn_from_committed_rows(house_style: None) -> None:
    assert set(pictures()) == {path.name for path in (ROOT / FIGURES).glob("*.svg")}


def test_the_link_to_the_repository_is_there_once_its_address_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "repository" not in made.paper()
    text = (ROOT / "_config.yml").read_text().replace('repository_url: ""', "repository_url: https://example.org/a/b")
    monkeypatch.setattr(made.yaml, "safe_load", lambda _, load=made.yaml.safe_load: load(text))
    assert 'href="https://example.org/a/b"' in made.paper()
