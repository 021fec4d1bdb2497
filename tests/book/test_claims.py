"""`linfair_book.claims`: the table holds together, its numbers resolve, and nothing the paper measures is left out."""

import re
from pathlib import Path

import pandas as pd
import pytest
from linfair_book import build, claims, fair_pruning
from linfair_book.claims import Claim, ClaimsError, Page
from linfair_book.judging.judge import Verdict
from linfair_book.judging.rules import RULES, load

ROOT = Path(__file__).resolve().parents[2]
HEAD = "id,paper,where,claim,pages,evidence,note\n"


@pytest.fixture(scope="module")
def table() -> list[Claim]:
    return claims.load(ROOT / claims.CLAIMS)


def write(path: Path, *lines: str) -> Path:
    path.write_text(HEAD + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_every_figure_proposition_and_section_of_the_paper_has_a_row(table: list[Claim]) -> None:
    """The paper's own numbering: Figs. 1 to 15, its five numbered statements, App. A.1 to A.3, and each section."""
    places = " ".join(claim.where for claim in table if claim.paper == "linearization")
    figures = {int(number) for number in re.findall(r"Fig\. (\d+)", places)}
    assert figures == set(range(1, 16))
    for name in ("Prop. 4.1", "Prop. 4.2", "Prop. 4.3", "Theorem 4.4", "Prop. 4.5", "App. A.1", "App. A.2", "App. A.3"):
        assert name in places
    for section in ("Sec. 1", "Sec. 4", "Sec. 5", "Sec. 6", "Sec. 7", "Sec. 8", "App. B", "App. C", "App. D"):
        assert section in places


def test_the_pruning_paper_has_its_statements_figures_and_tables(table: list[Claim]) -> None:
    """Oracle: its own numbering, and the 52 claims that were listed before any was measured."""
    ours = [claim for claim in table if claim.paper == "pruning"]
    places = " ".join(claim.where for claim in ours)
    assert len(ours) == 52 and {int(number) for number in re.findall(r"Fig\. (\d+)", places)} == set(range(1, 16))
    for name in ("Theorem 1", "Corollary 1", "Prop. 1", "Prop. 2", "Theorem 2", "Prop. 3", "Table 1", "Table 2"):
        assert name in places
    assert all(claim.note for claim in ours)


def test_the_third_paper_has_the_claims_of_its_abstract_and_of_a_summary_of_it(table: list[Claim]) -> None:
    """Oracle: the 18 claims that were listed before any was measured; two published figures stand beside 81.11 %."""
    ours = [claim for claim in table if claim.paper == "privacy"]
    assert [claim.where for claim in ours] == ["Abstract"] * 14 + ["Summary"] * 4 and all(claim.note for claim in ours)
    [figure] = [claim for claim in ours if "81.11" in claim.claim]
    assert "81.4 %" in figure.note and "82.5 %" in figure.note and "not run" in figure.note


def test_counts_have_a_row_for_each_agreement_and_a_column_for_each_setting() -> None:
    verdicts = {"a": ("yes", "thin"), "b": ("yes", "stand-in"), "c": ("yes", "thin"), "d": ("not run", "")}
    found = claims.counts({name: Verdict(name, *said) for name, said in verdicts.items()})
    assert found.loc["yes"].to_dict() == {"thin": 2, "stand-in": 1, "all": 3}
    assert found.loc["not run", "all"] == 1 and found["all"].sum() == 4


def test_numbers_that_a_claim_or_its_rule_names_are_noted(table: list[Claim]) -> None:
    claims.resolve(table, load(ROOT / RULES), claims.all_evidence(ROOT))


def test_numbers_of_the_printed_tables_are_those_that_the_rules_read() -> None:
    """Oracle: the tables as printed, by hand: UTKFace age in Table 1, Fair Bf in Table 2."""
    found = fair_pruning.printed()
    keys = {key for key in load(ROOT / RULES).numbers() if key.startswith("14_fair_pruning#")}
    assert keys == {f"14_fair_pruning#{name}" for name in found}
    assert found["table-1-full-less-relaxed-on-utkface-age"] == pytest.approx((0.856 - 0.128) - (0.810 - 0.096))
    assert found["table-2-fair-bf-fairer-than-no-mitigation"] == 0
    assert found["table-2-fair-aft-fairer-than-fair-bf"] == 4
    assert found["table-2-lead-of-aft-at-90-less-at-30"] == pytest.approx((0.238 - 0.05) - (0.189 - 0.172))


def test_every_number_names_its_provenance() -> None:
    evidence = claims.all_evidence(ROOT)
    for column in ("settings", "device", "torch", "linfair"):
        assert evidence[column].str.len().min() > 0
    assert (evidence["n"] >= 1).all() and (evidence["seconds"] >= 0).all()
    bounded = evidence.dropna(subset=["low", "high"])
    rounding = 1e-9 * bounded["value"].abs().max()
    assert (bounded["low"] - rounding <= bounded["value"]).all()
    assert (bounded["value"] <= bounded["high"] + rounding).all()


FROM_ROWS = ("06_released_code", "14_fair_pruning", "16_private_training", "18_three_prices")
"""Pages whose numbers all come from committed rows; the others train networks, which differ by the processor."""


@pytest.mark.parametrize("page", FROM_ROWS)
def test_evidence_of_rows_is_what_the_built_page_notes(page: str) -> None:
    """The oracle is the page: rows may have changed since the evidence was collected."""
    file = ROOT / build.NOTED / f"{page}.parquet"
    if not file.is_file():
        pytest.skip("no built book: run 'make book'")
    evidence, numbers = claims.load_evidence(ROOT / claims.EVIDENCE), ["value", "low", "high", "n"]
    kept = evidence[evidence.index.str.startswith(f"{page}#")].sort_index()
    pd.testing.assert_frame_equal(kept[numbers], claims.load_evidence(file).sort_index()[numbers], rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,pruning,Sec. 1,,,,", "line 2: id, paper, where, claim must be filled"),
        ("a,pruning,Sec. 1,It helps,04_why", "line 2: id, paper, where, claim must be filled, and there are 7 columns"),
        (
            "a,quantization,Sec. 1,It helps,,,",
            "line 2: there is no paper 'quantization'; there are linearization, pruning, privacy",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ClaimsError, match=re.escape(said)):
        claims.load(write(tmp_path / "claims.csv", line))


def test_an_id_is_used_once(tmp_path: Path) -> None:
    path = write(tmp_path / "claims.csv", "a,pruning,Sec. 1,One,,,", "a,pruning,Sec. 1,Two,,,")
    with pytest.raises(ClaimsError, match="line 3: the id 'a' is taken"):
        claims.load(path)


def test_a_key_that_no_notebook_noted_and_a_claim_without_a_rule_are_named(table: list[Claim]) -> None:
    evidence = pd.DataFrame({"key": ["04_why#something"]}).set_index("key")
    rules = load(ROOT / RULES)
    with pytest.raises(ClaimsError, match="prop-4.1: 03_theory#exponent-root-even"):
        claims.resolve(table, rules, evidence)
    with pytest.raises(ClaimsError, match="claims and rules differ in fig-1:"):
        claims.resolve([claim for claim in table if claim.id != "fig-1"], rules, evidence)


def test_a_page_writes_what_it_notes_and_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(claims.FOLDER, raising=False)
    Page("04_why", {"seed": 0}).note("gap", 1.5, 1.0, 2.0, n=10, unit="points")
    assert not list(tmp_path.iterdir())

    monkeypatch.setenv(claims.FOLDER, str(tmp_path))
    page = Page("04_why", {"seed": 0})
    page.note("gap", 1.5, 1.0, 2.0, n=10, unit="points")
    evidence = claims.load_evidence(tmp_path / "04_why.parquet")
    assert evidence.loc["04_why#gap", "value"] == 1.5
    assert evidence.loc["04_why#gap", "settings"] == "seed=0"

    assert claims.shown(evidence.loc["04_why#gap"]) == "1.50 [1.00, 2.00] points (seeds: 10)"
    with pytest.raises(ClaimsError, match="notes 'gap' twice"):
        page.note("gap", 1.0, n=1)


def test_numbers_of_another_profile_are_not_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINFAIR_PROFILE", "smoke")
    with pytest.raises(ClaimsError, match="LINFAIR_PROFILE is set"):
        claims.collect(tmp_path, ["01_toy_boundary"])


def test_shares_of_groups_are_counted_from_the_committed_rows() -> None:
    """Oracle: plain pandas on the counts; where they come from is the pack, not a page."""
    rows = pd.read_parquet(ROOT / "book/results/data_counts.parquet")
    part = rows[(rows["data"] == "utkface_race") & (rows["group"] == "race")]
    row = claims.all_evidence(ROOT).loc["06_released_code#share-of-Others-in-utkface_race"]
    assert row["value"] == pytest.approx(100 * part[part["group_name"] == "Others"]["n"].sum() / part["n"].sum())
    assert row["n"] == part["n"].sum() == 23705 and "utkface32.npz" in row["settings"]


def test_a_builds_numbers_agree_with_the_reference_where_intervals_meet() -> None:
    def numbers(**values: tuple[float, float, float]) -> pd.DataFrame:
        rows = [{"key": f"p#{key}", "value": v, "low": a, "high": b} for key, (v, a, b) in values.items()]
        return pd.DataFrame(rows).assign(n=3, of="seeds", unit="", digits=1).set_index("key")

    nan = float("nan")
    old = numbers(near=(1, 0.5, 1.5), far=(1, 0.9, 1.1), exact=(2, nan, nan), other=(2, nan, nan), gone=(0, nan, nan))
    new = numbers(near=(2, 1.4, 2.6), far=(2, 1.9, 2.1), exact=(2.01, nan, nan), other=(3, nan, nan))
    found = claims.beside(old, new).set_index("number")["outcome"].to_dict()
    assert found == {"near": "agrees", "far": "differs", "exact": "agrees", "other": "differs"}
