"""The explorers' Python side: what is exported is what was trained, and what is shown is what the tables say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linfair_book import explorer
from linfair_book.build import repository
from linfair_book.explorer.results import AXES, UNREPAIRED, first_choice


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_parquet(repository() / "book/results/digits_mlp_snl.parquet")


def test_the_form_follows_the_session_unless_it_is_asked_for(table, monkeypatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert isinstance(explorer.show_boundary(), explorer.StaticExplorer)
    assert isinstance(explorer.show_results({"digits": table}), explorer.StaticExplorer)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    assert isinstance(explorer.show_boundary(), explorer.BoundaryExplorer)
    assert isinstance(explorer.show_results({"digits": table}), explorer.ResultsExplorer)


def test_static_forms_are_the_same_in_every_build_and_load_nothing() -> None:
    one, other = (explorer.show_boundary(live=False).html() for _ in range(2))
    assert one == other and 'id="linfair-boundary"' in one
    code = one.replace("http://www.w3.org/2000/svg", "")  # a name, not an address that is loaded
    assert not [word for word in ("http://", "https://", "require", "src=") if word in code]


def test_a_state_with_nan_is_refused_before_it_reaches_a_page() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        explorer.StaticExplorer("results", {"mean": float("nan")}, {}).html()


def test_a_line_is_the_tables_means_and_paired_drops(table) -> None:
    """Oracle: the same numbers from the rows by hand."""
    state = explorer.results_state({"digits": table})
    (cell,) = (one for one in state["cells"] if (one["budget"], one["arm"]) == (0.2, UNREPAIRED))
    part = table[(table["split"] == "test_balanced") & (table["role"] == "minority")]

    def pooled(rows: pd.DataFrame) -> pd.Series:
        return rows.groupby("seed").apply(lambda one: 100 * np.average(one["accuracy"], weights=one["n"]))

    now, before = pooled(part.query("arm == 'plain' and budget == 0.2")), pooled(part.query("arm == 'original'"))
    name, role, seeds, original, (mean, low, high, drop, drop_low, drop_high), repaired = cell["lines"][1]
    assert (name, role, seeds, repaired) == ("minority", "minority", 10, None)
    assert mean == pytest.approx(now.mean(), abs=0.006)
    assert original == pytest.approx(before.mean(), abs=0.006)
    assert drop == pytest.approx((before - now).mean(), abs=0.006)
    half = 2.2622 * (before - now).std() / 10**0.5  # t of 9 degrees of freedom
    assert (drop_low, drop_high) == pytest.approx((drop - half, drop + half), abs=0.02)
    assert (low + high) / 2 == pytest.approx(mean, abs=0.02)


def test_a_repair_stands_beside_the_linearized_network_of_the_same_budget() -> None:
    """Oracle: the means of the faces' rows, whose groups keep their roles."""
    table = pd.read_parquet(repository() / "book/results/utkface_race_thin.parquet")
    state = explorer.results_state({"faces": table})
    (cell,) = (one for one in state["cells"] if (one["budget"], one["arm"]) == (0.02, "Algorithm 1 (mu 0.02)"))
    rows = table[(table["split"] == "test") & (table["budget"].astype(float) == 0.02)]
    for name, role, _, _, plain, repaired in cell["lines"]:
        own = rows[rows["group_name"] == name]
        assert set(own["role"]) == {role}
        for arm, numbers in (("plain", plain), ("lagrangian(mu=0.02)", repaired)):
            assert numbers[0] == pytest.approx(100 * own.loc[own["arm"] == arm, "accuracy"].mean(), abs=0.006)
    assert len(cell["lines"]) == table["group_name"].nunique()


def test_a_repair_without_distillation_stands_beside_plain_without_it(table) -> None:
    """Oracle: the same rows with one of both alone."""
    without = table[table["arm"] == "plain"].assign(arm="plain(kd=0.0)", accuracy=0.25)
    repairs = [without.assign(arm=name, accuracy=0.5) for name in ("lagrangian", "lagrangian(kd=0.0)")]
    cells = explorer.results_state({"both": pd.concat([table, without, *repairs])})["cells"]
    only = explorer.results_state({"one": pd.concat([table[table["arm"] != "plain"], without, repairs[1]])})["cells"]
    alone = explorer.results_state({"one": pd.concat([table, repairs[0]])})["cells"]
    for cell in cells:
        beside = only if "kd" in cell["arm"] else alone
        [one] = [other for other in beside if (other["budget"], other["arm"]) == (cell["budget"], cell["arm"])]
        assert one["lines"] == cell["lines"]


def test_a_repair_is_compared_over_the_seeds_that_have_it(table) -> None:
    """Oracle: the table of these seeds alone; the network without a repair keeps all of its seeds."""
    repair = table[(table["arm"] == "plain") & (table["seed"] < 4)].assign(arm="lagrangian", accuracy=0.5)
    both, few = pd.concat([table, repair]), pd.concat([table[table["seed"] < 4], repair])
    cells, fewer = (explorer.results_state({"digits": one})["cells"] for one in (both, few))
    whole = explorer.results_state({"digits": table})["cells"]
    for cell in cells:
        beside = whole if cell["arm"] == UNREPAIRED else fewer
        [one] = [other for other in beside if (other["budget"], other["arm"]) == (cell["budget"], cell["arm"])]
        assert one["lines"] == cell["lines"]
    assert {line[2] for cell in cells if cell["arm"] != UNREPAIRED for line in cell["lines"]} == {4}


def test_a_seed_of_two_machines_and_networks_of_two_widths_are_explored(table, tmp_path: Path) -> None:
    """Oracle: the original with more networks; before, one seed of two machines hid the whole table."""
    other = table[(table["seed"] == 0) & table["arm"].isin(["original", "plain"])]
    other = other.assign(teacher="another", device="another", accuracy=0.0)
    wide = table[table["seed"] < 3].assign(network="resnet18", width=16, teacher=lambda rows: rows["teacher"] + "w")
    both = pd.concat([table, other, wide, wide.assign(width=8, teacher=lambda rows: rows["teacher"] + "8")])
    both.to_parquet(tmp_path / "both.parquet")
    tables = explorer.result_tables(tmp_path)
    cells = explorer.results_state(tables)["cells"]
    assert {cell["data"] for cell in cells} == {
        "digits, MLP, SNL",
        "digits, ResNet18 of width 8, SNL",
        "digits, ResNet18 of width 16, SNL",
    }
    alone = explorer.results_state({"digits": table})["cells"]
    assert [cell["lines"] for cell in cells if "MLP" in cell["data"]] == [cell["lines"] for cell in alone]


def test_one_seed_gives_no_interval(table) -> None:
    state = explorer.results_state({"digits": table[table["seed"] == 0]})
    assert all(line[4][1] is line[4][2] is None for cell in state["cells"] for line in cell["lines"])


def test_every_choice_leads_to_one_cell_and_the_start_is_one_of_them_with_a_repair() -> None:
    state = explorer.results_state(explorer.result_tables(repository() / "book/results"))
    keys = [tuple(cell[axis] for axis in AXES) for cell in state["cells"]]
    start = tuple(first_choice(state).values())
    assert len(set(keys)) == len(keys) and start in keys and start[-1].startswith("Algorithm 1")


def test_two_tables_that_disagree_are_kept_apart_by_name(table) -> None:
    worse = table.assign(accuracy=table["accuracy"] * 0.9)
    state = explorer.results_state({"one": table, "same": table, "worse": worse})
    assert {cell["data"].rpartition(", ")[2] for cell in state["cells"]} == {"SNL", "SNL (table worse)"}


def test_tables_of_interventions_and_counts_are_left_out(table, tmp_path: Path) -> None:
    table.to_parquet(tmp_path / "plain.parquet")
    pd.concat([table, table.assign(teacher="another")]).to_parquet(tmp_path / "intervention.parquet")
    pd.DataFrame({"n": [1]}).to_parquet(tmp_path / "counts.parquet")
    assert list(explorer.result_tables(tmp_path)) == ["plain"]


def test_rows_without_a_studys_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="these rows lack data, network"):
        explorer.results_state({"x": pd.DataFrame({"n": [1]})})
    with pytest.raises(ValueError, match="nothing to explore"):
        explorer.results_state({})
