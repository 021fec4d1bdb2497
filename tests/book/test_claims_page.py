"""The page "Reproduced vs paper": every claim and number of the committed tables is on it, once, with both axes."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from linfair_book import claims
from linfair_book.judging.judge import AGREEMENT, Verdict

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


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    return claims.read(ROOT)[2]


def found(soup: BeautifulSoup, claim: str):
    return soup.select_one(f"#claim-{claim.replace('.', chr(92) + '.')}")


def test_every_claim_is_a_card_with_its_words_and_both_axes(soup, table, verdicts, made):
    """Oracle: the CSV, in its order within a part of the paper, and what the rules say."""
    cards = {card["id"].removeprefix("claim-"): card for card in soup.select("li.claim")}
    assert len(soup.select("li.claim")) == len(cards) == len(table)
    for claim in table:
        card, verdict = cards[claim.id], verdicts[claim.id]
        assert card.blockquote.text == claim.claim
        assert card["data-verdict"] == verdict.agreement
        assert card.select_one(".verdict").text == f"{made.SIGNS[verdict.agreement]} {verdict.agreement}"
        settings = [made.SETTING[verdict.setting]] if verdict.setting else []
        assert [one.text for one in card.select(".setting")] == settings
        assert claim.where in card.text and claim.note in card.text
        assert [link["href"] for link in card.select("p a")] == [f"../notebooks/{page}.html" for page in claim.pages]
    for paper, parts in made.PARTS.items():
        order = [made.part_of(claim.where) for claim in table if claim.paper == paper]
        assert set(order) == set(parts) and order == sorted(order, key=list(parts).index)


def test_every_set_of_rows_stands_with_its_checks_and_where_it_comes_from(soup, verdicts):
    """A line for each group and budget; file, seeds, device, versions and hours are the rows' own."""
    for claim, verdict in verdicts.items():
        judged = [*verdict.deciding, *verdict.beside]
        tables = found(soup, claim).select("table")
        assert len(tables) == len(judged)
        for one, lines in zip(judged, tables, strict=True):
            assert [row.select("td")[-1].text for row in lines.select("tbody tr")] == one.cells["outcome"].tolist()
            if one.names:
                box = lines.find_parent("details")
                for fact in (one.names["data"], one.names["network"], one.names["profile"], one.agreement):
                    assert fact in box.summary.text
                for fact in (one.source["files"], one.source["seeds"], one.source["device"], one.source["torch"]):
                    assert str(fact) in box.dl.text
                assert ("before the rule" in box.dl.text) == one.seen


def test_every_number_of_a_notebook_stands_with_interval_n_and_provenance(soup, table, verdicts):
    """Oracle: `claims.shown` of the committed evidence."""
    evidence = claims.all_evidence(ROOT)
    for claim in table:
        verdict = verdicts[claim.id]
        if not verdict.deciding or verdict.deciding[0].names:
            continue
        keys = list(dict.fromkeys([*verdict.deciding[0].source["keys"], *claim.evidence]))
        numbers = found(soup, claim.id).select("details")
        assert len(numbers) == len(keys)
        for key, number in zip(keys, numbers, strict=True):
            row = evidence.loc[key]
            assert number.summary.b.text == claims.shown(row)
            for fact in (key, row["settings"], row["device"], row["torch"], row["linfair"], f"{row['seconds']:.0f} s"):
                assert str(fact) in number.dl.text
            address, _, anchor = number.a["href"].partition("#")
            text = (ROOT / "book" / address).with_suffix(".ipynb").read_text()
            assert f"## {anchor.replace('-', ' ')}" in text.lower()


def test_numbers_against_a_claim_are_said(soup, verdicts):
    """Wherever a deciding line speaks against a claim that is not refuted, its group stands in the text of the card."""
    for claim, verdict in verdicts.items():
        for judged in verdict.deciding:
            for line in judged.cells[judged.cells["adverse"]].itertuples():
                if verdict.agreement != "no":
                    text = found(soup, claim).text.partition("Against it: ")[2]
                    assert f"{line.says}: " in text and line.group in text


def test_counts_are_those_of_the_rules(soup: BeautifulSoup, table, verdicts, made):
    """Oracle: `claims.counts` of the claims of each paper in the CSV."""
    filters = soup.select("fieldset.verdicts")
    assert len(filters) == len(claims.PAPERS)
    for (paper, words), filter in zip(claims.PAPERS.items(), filters, strict=True):
        counts = claims.counts({claim.id: verdicts[claim.id] for claim in table if claim.paper == paper})
        chips = {chip["data-verdict"]: int(chip.text.split()[-1]) for chip in filter.select(".verdict")}
        assert chips == counts["all"].to_dict()
        assert filter.label.text.strip() == f"all {counts['all'].sum()}"
        line = next(line for line in made.summary().splitlines() if line.startswith(f"| {words}"))
        assert line.split(" | ")[1:] == [*map(str, counts["all"][:-1]), f"{counts['all'].iloc[-1]} |"]


def test_every_figure_of_data_has_a_sentence_and_its_claims_a_line(made, table, verdicts) -> None:
    """Oracle: the paper's figures without that in the plane and that of pieces; the verdicts."""
    wanted = [1, *range(3, 10), *range(11, 16)]
    text = (ROOT / "book/claims.md").read_text()
    assert [int(number) for number in re.findall(r"^- \*\*Fig\. (\d+)\*\*", text, re.MULTILINE)] == wanted
    lines = {line.split("|")[1].strip(): line for line in made.figures().splitlines()[2:]}
    ours = [one for one in table if one.paper == "linearization" and re.search(r"Fig\. (?!2\b|10\b)", one.where)]
    assert len(lines) == len(ours)
    for claim, line in zip(ours, lines.values(), strict=True):
        assert f"#claim-{claim.id}'" in line and f"| {verdicts[claim.id].agreement} |" in line


def test_check_counts_every_claim_on_both_axes(table, verdicts, capsys):
    claims.main(["check"])
    said = capsys.readouterr().out.splitlines()
    for paper, words in claims.PAPERS.items():
        n = sum(claim.paper == paper for claim in table)
        at = said.index(f"{words}, {paper}: {n} claims") + 1
        found = dict(line.strip().split(": ") for line in said[at : at + len(AGREEMENT)])
        assert list(found) == list(AGREEMENT) and sum(int(text.split()[0]) for text in found.values()) == n
    with capsys.disabled():
        print("\nclaims: " + "; ".join(said))


def test_style_sheet_hides_by_every_agreement(made):
    sheet = (ROOT / "book/_static/claims.css").read_text()
    for word in AGREEMENT:
        assert f'id="pruning-{word.replace(" ", "-")}" value="{word}"' in made.filters("pruning", {word: 1})
        assert f':has(.verdicts [value="{word}"]:checked) .claim:not([data-verdict="{word}"])' in sheet
        assert f'.verdict[data-verdict="{word}"]' in sheet


def test_a_place_that_names_no_part_of_the_paper_is_refused(made):
    with pytest.raises(ValueError, match="'Fig. 99' names no part of the paper"):
        made.part_of("Fig. 99")
