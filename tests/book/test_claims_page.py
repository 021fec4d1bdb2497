"""The page "Reproduced vs paper": every claim and number of the committed tables is on it, once, with a verdict."""

import importlib
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from linfair import claims

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made():
    """`book/_ext/claims_page.py`, imported as Sphinx does."""
    sys.path.insert(0, str(ROOT / "book/_ext"))
    try:
        return importlib.import_module("claims_page")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def soup(made) -> BeautifulSoup:
    return BeautifulSoup(made.page(), "html.parser")


@pytest.fixture(scope="module")
def table() -> list[claims.Claim]:
    return claims.load(ROOT / claims.CLAIMS)


def test_every_claim_is_a_card_with_its_words_and_its_verdict(soup: BeautifulSoup, table: list[claims.Claim], made):
    """Oracle: the CSV, in its order within a part of the paper."""
    cards = {card["id"].removeprefix("claim-"): card for card in soup.select("li.claim")}
    assert len(soup.select("li.claim")) == len(cards) == len(table)
    for claim in table:
        card = cards[claim.id]
        assert card.blockquote.text == claim.claim
        assert card["data-verdict"] == claim.verdict
        assert (
            card.select_one(".verdict").text
            == f"{made.SIGNS[claim.verdict]} {made.LABELS.get(claim.verdict, claim.verdict)}"
        )
        assert claim.where in card.text and claim.note in card.text and claim.on in card.text
    order = [made.part_of(claim.where) for claim in table]
    assert set(order) == set(made.PARTS) and order == sorted(order, key=list(made.PARTS).index)


def test_every_number_stands_with_interval_n_and_provenance(soup: BeautifulSoup, table: list[claims.Claim]):
    """Oracle: `claims.shown` of the committed evidence."""
    evidence = claims.load_evidence(ROOT / claims.EVIDENCE)
    for claim in table:
        numbers = soup.select(f"#claim-{claim.id.replace('.', chr(92) + '.')} details")
        assert len(numbers) == len(claim.evidence)
        for key, number in zip(claim.evidence, numbers, strict=True):
            row = evidence.loc[key]
            assert number.summary.b.text == claims.shown(row)
            for fact in (key, row["settings"], row["device"], row["torch"], row["linfair"], f"{row['seconds']:.0f} s"):
                assert str(fact) in number.dl.text
            address, _, anchor = number.a["href"].partition("#")
            text = (ROOT / "book" / address).with_suffix(".ipynb").read_text()
            assert f"## {anchor.replace('-', ' ')}" in text.lower()


def test_counts_are_those_of_the_table(soup: BeautifulSoup, table: list[claims.Claim], made, capsys):
    counts = {verdict: sum(claim.verdict == verdict for claim in table) for verdict in claims.VERDICTS}
    chips = soup.select("fieldset.verdicts .verdict")
    assert {chip["data-verdict"]: int(chip.text.split()[-1]) for chip in chips} == counts
    assert soup.select_one("fieldset.verdicts label").text.strip() == f"all {len(table)}"
    assert all(str(count) in made.summary() for count in counts.values())
    with capsys.disabled():
        print(f"\n{made.summary()}")


def test_what_stands_in_for_the_papers_data_is_at_most_partly(table: list[claims.Claim]):
    """The page's first rule."""
    assert [claim.id for claim in table if "stand-in" in claim.on and claim.verdict == "reproduced"] == []


def test_style_sheet_hides_by_every_verdict(made):
    sheet = (ROOT / "book/_static/claims.css").read_text()
    for verdict in claims.VERDICTS:
        name = verdict.replace(" ", "-")
        assert f'#verdict-{name}"' in made.filters({verdict: 1}).replace('id="', '"#')
        assert f':has(#verdict-{name}:checked) .claim:not([data-verdict="{verdict}"])' in sheet
        assert f'.verdict[data-verdict="{verdict}"]' in sheet


def test_a_place_that_names_no_part_of_the_paper_is_refused(made):
    with pytest.raises(ValueError, match="'Fig. 99' names no part of the paper"):
        made.part_of("Fig. 99")
