"""`linfair study`: what it prints, what it refuses, its exit codes."""

from pathlib import Path

import pandas as pd
import pytest

from linfair.cli import main, study
from linfair.engine.store import code_hash
from linfair.study import ResultStore, cell
from linfair.study.jobs import compute
from linfair.study.plan import PROFILE_NAMES, figures, find, plan
from linfair.study.results import collect, summary, values


@pytest.fixture(scope="module")
def out(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke cells of Figs. 1 and 15, without their `control`, and one note of a failure."""
    folder = tmp_path_factory.mktemp("study")
    store = ResultStore(folder / "cache", folder / "out")
    for job in plan(find("fig15"), "smoke"):
        compute(job, store, lambda event: None)
    return folder / "out"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))


def said(capsys: pytest.CaptureFixture, *words: str, code: int = 0) -> str:
    assert main.main(["study", *words]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_list_names_every_figure_its_panels_and_how_many_cells_each_profile_has(capsys: pytest.CaptureFixture) -> None:
    text = said(capsys, "list")
    for figure in figures().values():
        assert f"{figure.name}  {figure.figure}: {figure.title}" in text
        for profile in PROFILE_NAMES:
            jobs = plan([figure], profile)
            assert f"{profile} {len(jobs)} cells, {sum(len(job.arms) for job in jobs)} arms" in text
    assert "utkface_age, group race, resnet18, snl" in text


def test_show_prints_the_names_under_which_results_are_stored(capsys: pytest.CaptureFixture, out: Path) -> None:
    text = said(capsys, "show", "fig15", "--out", str(out))
    for path in out.glob("*.parquet"):
        arm = pd.read_parquet(path, columns=["arm"])["arm"].iloc[0]
        assert f"    {path.stem}  {arm}\n" in text
    assert "1 cells, 5 arms" in text and "a stand-in for the paper's data" in text
    assert f"Cost, from the results in {out}:" in text
    assert "not measured for 1 of 1 cells" in said(capsys, "show", "fig15")


def test_show_of_data_that_are_not_here_says_so(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINFAIR_DATA", str(tmp_path))
    text = said(capsys, "show", "fig03", "--profile", "paper", "--seeds", "1")
    assert "(its data are not here)  original" in text
    assert "serves the claims fig-3, s4-gradients" in text


def test_status_counts_arms_of_seeds_done_missing_and_failed(
    capsys: pytest.CaptureFixture, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fig. 15's five arms of two seeds are there; of Fig. 1 the control is missing, or failed once a note says so."""
    monkeypatch.setattr(study, "BOOK", out / "nowhere")  # the book's rows take longer to count
    text = said(capsys, "status", "--out", str(out))
    assert "CPU (" in text and "paper" not in {line.split()[1] for line in text.splitlines()[2:] if line}
    lines = {tuple(line.split()[:6]) for line in text.splitlines()}
    assert {("fig15", "smoke", "10", "0", "0", "2"), ("fig01", "smoke", "4", "2", "0", "0")} <= lines
    (out / "FAILED-x.txt").write_text(
        '{"data": "digits", "network": "mlp", "method": "snl", "arms": ["control"], "profile": "smoke", '
        '"seeds": [0], "device": "cpu"}\n\nTraceback'
    )
    try:
        failed = said(capsys, "status", "--out", str(out), "--profile", "smoke")
    finally:
        (out / "FAILED-x.txt").unlink()
    assert ("fig01", "smoke", "4", "1", "1", "0") in {tuple(line.split()[:6]) for line in failed.splitlines()}
    panels = said(capsys, "status", "fig01", "--out", str(out), "--profile", "smoke")
    [line] = [line for line in panels.splitlines() if line.endswith(": original, plain, control")]
    assert line.split()[:5] == ["smoke", "4", "2", "0", "0"] and " MB)" in panels
    text = said(capsys, "status", "--out", str(out), "--profile", "paper")
    assert ("fig07", "paper", "0", "120", "0", "0") in {tuple(line.split()[:6]) for line in text.splitlines()}


def test_table_prints_means_over_seeds_or_writes_the_rows(
    capsys: pytest.CaptureFixture, out: Path, tmp_path: Path
) -> None:
    """Oracle: pandas on the rows, for one group of one arm."""
    text = said(capsys, "table", "fig15", "--out", str(out))
    assert "digits, mlp, snl (stand-in for utkface_race, resnet18)" in text
    target = tmp_path / "fig15.parquet"
    assert said(capsys, "table", "fig15", "--out", str(out), "--to", str(target)).strip() == str(target)
    rows = pd.read_parquet(target)
    assert rows.columns[:2].tolist() == ["figure", "panel"]
    arm = "lagrangian(mu=0.005)"
    chosen = rows[(rows["split"] == "test") & (rows["group"] == 0) & (rows["budget"] == 0.5)].set_index("seed")
    plain, other = (chosen.loc[chosen["arm"] == name, "accuracy"] for name in ("plain", arm))
    [means] = summary(rows, figures()["fig15"]).values()
    row = means[(means["arm"] == arm) & (means["budget"] == 0.5) & (means["group_name"] == "0")].iloc[0]
    assert row["mean"] == pytest.approx((100 * (plain - other) / plain).mean())
    assert row["n_seeds"] == 2
    said(capsys, "table", "fig15", "--out", str(out), "--to", str(tmp_path / "fig15.csv"))
    assert len(pd.read_csv(tmp_path / "fig15.csv")) == len(rows)


@pytest.mark.parametrize("quantity", ["accuracy", "drop", "relative_drop", "gradient_norm", "margin", "distance"])
def test_values_of_every_quantity_are_those_of_the_rows(out: Path, quantity: str) -> None:
    rows = collect([str(out)]).rows
    rows = rows[(rows["split"] == "test") & rows["arm"].isin(("original", "plain"))]
    found = values(rows, quantity)
    assert len(found) == len(rows)
    one = found[(found["arm"] == "plain") & (found["seed"] == 1) & (found["budget"] == 0.2) & (found["group"] == 3)]
    before = rows[(rows["arm"] == "original") & (rows["seed"] == 1) & (rows["group"] == 3)]["accuracy"].iloc[0]
    after = one["accuracy"].iloc[0]
    expected = {
        "accuracy": 100 * after,
        "drop": 100 * (before - after),
        "relative_drop": 100 * (before - after) / before,
    }.get(quantity) or one[quantity].iloc[0]
    assert one["value"].tolist() == [pytest.approx(expected)]


def test_accuracy_figures_have_all_groups_together_too(out: Path) -> None:
    rows = collect([str(out)]).rows.assign(panel="p")
    [means] = summary(rows, figures()["fig01"]).values()
    part = rows[(rows["split"] == "test") & (rows["arm"] == "original")]
    expected = part.groupby("seed").apply(lambda one: (one["accuracy"] * one["n"]).sum() / one["n"].sum())
    row = means[(means["arm"] == "original") & (means["group_name"] == "all")].iloc[0]
    assert row["mean"] == pytest.approx(100 * expected.mean())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "fig6", "--out", "x"], "no figure 'fig6'; did you mean 'fig0"),
        (
            ["run", "fig06", "--out", "x", "--jobs", "0"],
            "--jobs: give a whole number from 1 to 1,024, in plain digits; got 0",
        ),
        (
            ["run", "fig06", "--out", "x", "--seeds", "0"],
            "--seeds: give a whole number from 1 to 1,000, in plain digits; got 0",
        ),
        (["run", "fig06", "--out", "x", "--device", "cuda"], "torch sees no GPU here; use --device cpu"),
        (["table", "fig06", "--out", "."], "nothing of fig06 in profile smoke is there; compute it with"),
        (["table", "all", "--out", "."], "this is said of one figure: name it"),
    ],
)
def test_a_wrong_request_exits_2_and_leaves_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert message in said(capsys, *words, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("forked")
def test_a_failed_cell_exits_1_and_the_failure_is_named(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paper's data are not here: everything fails, is named, and the command says so."""
    monkeypatch.setenv("LINFAIR_DATA", str(tmp_path))
    words = ["run", "fig04", "--profile", "paper", "--seeds", "1", "--out", str(tmp_path / "out"), "--no-progress"]
    text = said(capsys, *words, code=1)
    assert (
        "1 arms failed (tracebacks in" in text and "utkface not found" in text and "linfair data fetch utkface" in text
    )


@pytest.mark.usefixtures("forked")
def test_run_prints_cells_arms_and_digests_and_goes_on_where_it_was(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """With the bar on stderr; the results of another folder were copied in."""
    here = tmp_path / "here"
    here.mkdir()
    for path in out.glob("*.parquet"):
        (here / path.name).write_bytes(path.read_bytes())
    assert main.main(["study", "run", "fig15", "--profile", "smoke", "--out", str(here)]) == 0
    text, bar = capsys.readouterr()
    assert f"1 cells, 5 arms -> {here}" in text
    for path in out.glob("*.parquet"):
        row = pd.read_parquet(path, columns=["arm", "teacher", "code"]).iloc[0]
        assert f"{path.stem}: {row['arm']} of snl, mlp on digits, seeds 0-1: read" in text
        assert f"teacher {row['teacher']}" in text and row["code"] == code_hash()
    assert "5/5" in bar and "5 arms: 0 computed, 5 were there, 0 failed, 0 left" in text
    assert set(cell.TIMING) <= set(pd.read_parquet(path).columns)
