"""`linfair.claims`: the table holds together, its numbers resolve, and nothing the paper measures is left out."""

import re
from pathlib import Path

import pandas as pd
import pytest

from linfair import claims
from linfair.claims import Claim, ClaimsError, Page

ROOT = Path(__file__).resolve().parents[1]
HEAD = "id,where,claim,verdict,on,evidence,note\n"


@pytest.fixture(scope="module")
def table() -> list[Claim]:
    return claims.load(ROOT / claims.CLAIMS)


def write(path: Path, *lines: str) -> Path:
    path.write_text(HEAD + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_every_figure_proposition_and_section_of_the_paper_has_a_row(table: list[Claim]) -> None:
    """The paper's own numbering: Figs. 1 to 15, its five numbered statements, App. A.1 to A.3, and each section."""
    places = " ".join(claim.where for claim in table)
    figures = {int(number) for number in re.findall(r"Fig\. (\d+)", places)}
    assert figures == set(range(1, 16))
    for name in ("Prop. 4.1", "Prop. 4.2", "Prop. 4.3", "Theorem 4.4", "Prop. 4.5", "App. A.1", "App. A.2", "App. A.3"):
        assert name in places
    for section in ("Sec. 1", "Sec. 4", "Sec. 5", "Sec. 6", "Sec. 7", "Sec. 8", "App. B", "App. C", "App. D"):
        assert section in places


def test_every_verdict_rests_on_a_committed_number(table: list[Claim], capsys: pytest.CaptureFixture[str]) -> None:
    counts = claims.resolve(table, claims.load_evidence(ROOT / claims.EVIDENCE))
    assert sum(counts.values()) == len(table)
    with capsys.disabled():
        print("\nclaims: " + ", ".join(f"{verdict} {count}" for verdict, count in counts.items()))


def test_every_number_names_its_provenance() -> None:
    evidence = claims.load_evidence(ROOT / claims.EVIDENCE)
    for column in ("settings", "device", "torch", "linfair"):
        assert evidence[column].str.len().min() > 0
    assert (evidence["n"] >= 1).all() and (evidence["seconds"] >= 0).all()
    bounded = evidence.dropna(subset=["low", "high"])
    rounding = 1e-9 * bounded["value"].abs().max()
    assert (bounded["low"] - rounding <= bounded["value"]).all()
    assert (bounded["value"] <= bounded["high"] + rounding).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,Sec. 1,It helps,maybe,,,", "line 2: verdict 'maybe'; allowed: reproduced, partly, not, not run"),
        ("a,Sec. 1,,not run,,,", "line 2: id, where and claim must be filled"),
        ("a,Sec. 1,It helps,partly,digits,,", "line 2: verdict 'partly' needs evidence"),
        ("a,Sec. 1,It helps,not run,,", "line 2: id, where and claim must be filled, and there are 7 columns"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ClaimsError, match=re.escape(said)):
        claims.load(write(tmp_path / "claims.csv", line))


def test_an_id_is_used_once(tmp_path: Path) -> None:
    path = write(tmp_path / "claims.csv", "a,Sec. 1,One,not run,,,", "a,Sec. 1,Two,not run,,,")
    with pytest.raises(ClaimsError, match="line 3: the id 'a' is taken"):
        claims.load(path)


def test_a_key_that_no_notebook_noted_is_named(tmp_path: Path) -> None:
    (claim,) = claims.load(write(tmp_path / "claims.csv", "a,Sec. 1,One,partly,digits,04_why#nothing,"))
    evidence = pd.DataFrame({"key": ["04_why#something"]}).set_index("key")
    with pytest.raises(ClaimsError, match="a: 04_why#nothing"):
        claims.resolve([claim], evidence)


def test_a_page_writes_what_it_notes_and_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(claims.FOLDER, raising=False)
    said = Page("04_why", {"seed": 0}).note("gap", 1.5, 1.0, 2.0, n=10, unit="points")
    assert said == "1.50 [1.00, 2.00] points (n = 10)"
    assert not list(tmp_path.iterdir())

    monkeypatch.setenv(claims.FOLDER, str(tmp_path))
    page = Page("04_why", {"seed": 0})
    page.note("gap", 1.5, 1.0, 2.0, n=10, unit="points")
    evidence = claims.load_evidence(tmp_path / "04_why.parquet")
    assert evidence.loc["04_why#gap", "value"] == 1.5
    assert evidence.loc["04_why#gap", "settings"] == "seed=0"

    claim = Claim("a", "Sec. 5", "It grows.", "partly", "digits", ("04_why#gap",), "")
    (row,) = claims.rows([claim], evidence).to_dict("records")
    assert row["ours"] == "gap: 1.50 [1.00, 2.00] points (seeds: 10)"
    with pytest.raises(ClaimsError, match="notes 'gap' twice"):
        page.note("gap", 1.0, n=1)


def test_numbers_of_another_profile_are_not_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINFAIR_PROFILE", "smoke")
    with pytest.raises(ClaimsError, match="LINFAIR_PROFILE is set"):
        claims.collect(tmp_path, ["01_toy_boundary"])
