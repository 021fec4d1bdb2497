"""The page "Reproduced vs paper": every claim and number of the committed tables is on it, once, with both axes."""

import re
import tomllib
from pathlib import Path

import claims_page as made
import pytest
from bs4 import BeautifulSoup
from linfair_book import claims
from linfair_book.judging.judge import AGREEMENT, Verdict

from linfair.audit.shown import minus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def soup() -> BeautifulSoup:
    return BeautifulSoup(made.page(), "html.parser")


@pytest.fixture(scope="module")
def table() -> list[claims.Claim]:
    return claims.load(ROOT / claims.CLAIMS)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    return claims.read(ROOT)[2]


def found(soup: BeautifulSoup, claim: str):
    return soup.select_one(f"#claim-{claim.replace('.', chr(92) + '.')}")


def test_every_claim_is_a_card_with_its_words_and_both_axes(soup, table, verdicts):
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
        assert [link["href"] for link in card.select(".said > p a")] == [
            f"../notebooks/{page}.html" for page in claim.pages
        ]
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
            at = [head.text for head in lines.select("thead th")].index("outcome")
            shown = [row.select("td")[at].text for row in lines.select("tbody tr:has(td)")]
            order = one.cells.groupby(["says", "threshold", "scale"], sort=False)["outcome"].agg(list)
            assert shown == order.sum()
            for head, (says, *_) in zip(lines.select("tbody th"), order.index, strict=True):
                assert head.text.startswith(f"{says}: ")
            if one.names:
                box = lines.find_parent("details")
                for fact in (made.in_words(one.names[of]) for of in ("data", "network", "profile")):
                    assert fact in box.summary.text
                assert one.agreement in box.summary.text
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
            assert number.summary.b.text == minus(claims.shown(row))
            for fact in (
                made.chapter(key.partition("#")[0]),
                row["settings"],
                row["device"],
                row["torch"],
                row["linfair"],
                f"{row['seconds']:.0f} s",
            ):
                assert str(fact) in number.dl.text
            assert (ROOT / "book" / number.a["href"]).with_suffix(".ipynb").is_file()


def test_numbers_against_a_claim_are_said(soup, verdicts):
    """Wherever a deciding line speaks against a claim that is not refuted, its group stands in the text of the card."""
    for claim, verdict in verdicts.items():
        for judged in verdict.deciding:
            for line in judged.cells[judged.cells["adverse"]].itertuples():
                if verdict.agreement != "no":
                    text = found(soup, claim).text.partition("Against it: ")[2]
                    assert f"{line.says}: " in text and made.in_words(line.group) in text


def test_counts_are_those_of_the_rules(soup: BeautifulSoup, table, verdicts):
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


def test_every_figure_table_and_statement_is_a_row_with_our_answer(table, verdicts) -> None:
    """Oracle: the CSV, the verdicts, and the sentences that a person wrote: no row without one, and no more."""
    soup = BeautifulSoup(made.matrix(), "html.parser")
    rows = [row for lines in soup.select("table.matrix") for row in lines.select("tbody tr")]
    linked = [link["href"].removeprefix("#claim-") for row in rows for link in row.select("td p a[href^='#claim-']")]
    assert len(linked) == len(set(linked))
    assert set(linked) == {one.id for one in table if made.SHOWS.search(one.where) or one.paper == "privacy"}
    for row in rows:
        answers = [
            verdicts[link["href"].removeprefix("#claim-")].agreement for link in row.select("a[href^='#claim-']")
        ]
        assert row["data-verdicts"].split() == [word.replace(" ", "-") for word in dict.fromkeys(answers)]
        assert [chip["data-verdict"] for chip in row.select(".verdict")] == list(dict.fromkeys(answers))
        assert row.select_one("td a[href^='../notebooks/']")
    written = tomllib.loads((ROOT / "book/matrix.toml").read_text(encoding="utf-8"))
    assert list(written) == list(claims.PAPERS)
    for paper, sentences in written.items():
        assert list(sentences) == list(made.figures(table, paper))
    ours = [" ".join(words.split()) for sentences in written.values() for words in sentences.values()]
    assert [" ".join(row.select("td")[1].p.text.split()) for row in rows] == ours
    assert [words for words in ours if not words.endswith(".") or len(words.split()) < 6] == []


def test_the_page_shows_no_internal_keys_where_it_is_read(soup) -> None:
    """Names of rows and keys of notebooks stand in words; files are named only where a reader asks for them."""
    keys = r"(?<![/\w])\w*[a-z0-9]_[a-z]{3}\w*|\w+=\S+|resnet18|\bsgd\b|epsilon inf|[1-9]\.\d{4,} %"
    keys += r"|\b[ab][- ][cfkmpst]\d+\w*|\bfig-\d+"
    seen = [BeautifulSoup(made.matrix(), "html.parser").select_one("table.matrix")]
    seen += soup.select("summary, .checks :is(td, th), .said > p")
    assert [key for one in seen for key in re.findall(keys, one.text)] == []


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


def test_style_sheet_hides_by_every_agreement():
    sheet = (ROOT / "book/_static/claims.css").read_text()
    for word in AGREEMENT:
        assert f'id="pruning-{word.replace(" ", "-")}" value="{word}"' in made.filters("pruning", {word: 1})
        assert f':has(.verdicts [value="{word}"]:checked) .claim:not([data-verdict="{word}"])' in sheet
        assert f'.verdict[data-verdict="{word}"]' in sheet


def test_a_place_that_names_no_part_of_the_paper_is_refused():
    with pytest.raises(ValueError, match="'Fig. 99' names no part of the paper"):
        made.part_of("Fig. 99")
