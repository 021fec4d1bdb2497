"""Two results side by side: the same to the last bit, equivalent, or neither. Oracle: a known change of the rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from linfair.cli import main
from linfair.engine.store import Tables
from linfair.study.cell import TIMING
from linfair.study.compare import STATUS, compare
from linfair.study.plan import figures
from linfair.study.results import collect, gather


@pytest.fixture
def rows(fig01: Path) -> pd.DataFrame:
    return gather(figures()["fig01"], "smoke", collect([str(fig01)]))


def five_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of seed 0 under the names of five seeds."""
    one = rows[rows["seed"] == 0]
    return pd.concat([one.assign(seed=seed, base_loss=0.0) for seed in range(5)], ignore_index=True)


def test_rows_that_differ_in_timing_and_place_alone_are_the_same(rows: pd.DataFrame) -> None:
    other = rows.assign(**{name: rows[name] + 1 for name in TIMING}, device="another", code="0" * 12)
    found = compare(rows, other.sample(frac=1, random_state=0))
    assert found.same and found.only == (0, 0) and found.rows == len(rows) and found.columns.empty
    assert found.networks == (2, 2)
    assert list(found.counts) == [len(rows), 0, 0, 2, 2, 0]


def test_a_last_bit_is_seen_and_measured(rows: pd.DataFrame) -> None:
    other = rows.copy()
    place = other.index[(other["arm"] == "plain") & other["gradient_norm"].notna()][0]
    before = other.loc[place, "gradient_norm"]
    other.loc[place, "gradient_norm"] = np.nextafter(before, np.inf)
    other["teacher"] = other["teacher"].where(other["seed"] == 0, "other")
    found = compare(rows, other)
    assert not found.same and set(found.columns["column"]) == {"gradient_norm", "teacher"}
    line = found.columns.set_index("column").loc["gradient_norm"]
    assert line["rows"] == 1 and line["largest"] == np.spacing(before)
    assert line["relative"] == pytest.approx(np.spacing(before) / before)
    assert found.networks == (2, 1) and list(found.counts[3:]) == [2, 1, 2]


def test_a_column_that_one_side_has_alone_differs_where_it_has_values(rows: pd.DataFrame) -> None:
    first = rows["arm"] == "original"
    curved = rows.assign(top_eigenvalue=np.where(first, 2.0, np.nan))
    found = compare(curved, rows.drop(columns="top_eigenvalue", errors="ignore"))
    assert not found.same and list(found.columns["column"]) == ["top_eigenvalue"]
    assert found.columns["rows"].item() == first.sum() and np.isnan(found.columns["largest"].item())
    assert compare(curved.assign(top_eigenvalue=np.nan), rows.drop(columns="top_eigenvalue", errors="ignore")).same


@pytest.mark.parametrize(("points", "shown"), [(1.0, True), (3.0, False)])
def test_accuracies_decide_what_is_equivalent(rows: pd.DataFrame, points: float, shown: bool) -> None:
    """A constant difference has an interval of width 0: within 2 points at 1, not at 3."""
    first = five_seeds(rows)
    found = compare(first, first.assign(accuracy=first["accuracy"] - points / 100), names=("mine", "other"))
    assert not found.same and found.equivalence.shown is shown
    assert found.equivalence.status == STATUS[3 if shown else 2]


def test_rows_of_one_side_alone_are_counted_and_a_double_is_refused(rows: pd.DataFrame) -> None:
    found = compare(rows[rows["seed"] == 0], rows)
    assert found.only == (0, int((rows["seed"] == 1).sum())) and not found.same
    assert found.counts["rows in second only"] == found.only[1]
    assert compare(rows, rows.assign(seed=rows["seed"] + 7)).counts["rows in both"] == 0
    with pytest.raises(ValueError, match="first has a row twice"):
        compare(pd.concat([rows, rows.assign(teacher="another")]), rows)


def test_originals_that_panels_share_are_one_row(rows: pd.DataFrame) -> None:
    """Fig. 6 has SNL and DeepReDuce on the same original networks."""
    twice = pd.concat([rows, rows[rows["arm"] == "original"].assign(panel="another")])
    assert compare(twice, rows).same


@pytest.mark.parametrize("column", ["width", "options"])
def test_networks_of_one_figure_that_differ_in_width_or_options_are_each_compared(
    rows: pd.DataFrame, column: str
) -> None:
    """Oracle: rows that are the same, and the column alone changed on one side."""
    arms = rows if column == "width" else rows[rows["arm"] != "original"]
    both = pd.concat([rows, arms.assign(**{column: 8 if column == "width" else "exact=True"})], ignore_index=True)
    found = compare(both, both)
    assert found.same and found.rows == len(both)
    assert found.networks == ((4, 4) if column == "width" else (2, 2))
    one = compare(rows, both)
    assert one.only == (0, len(arms)) and one.columns.empty


def test_what_was_never_computed_in_both_ways_says_so(rows: pd.DataFrame) -> None:
    assert compare(rows, rows.assign(seed=rows["seed"] + 7)).equivalence.status == STATUS[0]


def test_the_command_says_so_and_its_status_too(fig01: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["study", "compare", "fig01", "--out", str(fig01)]
    assert main.main([*words, "--other", str(fig01)]) == 0
    assert "the same to the last bit" in capsys.readouterr().out
    for path in fig01.glob("*.parquet"):
        table = pd.read_parquet(path)
        Tables(tmp_path).write(path.stem, table.assign(margin=table["margin"] * 1.01))
    assert main.main([*words, "--other", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "margin" in said.out and "0.0099" in said.out and "not shown to be the same" in said.err
    assert STATUS[1] in said.out
    assert main.main(["study", "compare", "all", "--out", str(fig01)]) == 2
    assert "name it" in capsys.readouterr().err
