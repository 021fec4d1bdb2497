"""The explorers' Python side: what is exported is what was trained, and what is shown is what the tables say."""

import base64
import json
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from IPython.display import Markdown
from linfair_book import explorer, toy
from linfair_book.build import repository
from linfair_book.explorer import host
from linfair_book.explorer.grid import AXES, check_setting
from linfair_book.explorer.results import first_choice

from linfair import gates

SETTING = {"width": 8, "share": 0.1, "frequency": 2.5, "seed": 1, "budget": 0.5}


@pytest.fixture(scope="module")
def grid() -> explorer.BoundaryGrid:
    return explorer.train_grid(explorer.GRIDS["smoke"], seeds=[0, 1], steps=20, progress=False)


@pytest.fixture(scope="module")
def state(grid: explorer.BoundaryGrid) -> dict:
    """What the browser gets: through JSON."""
    return json.loads(json.dumps(grid.state(), allow_nan=False))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_parquet(repository() / "book/results/digits_mlp_snl.parquet")


def test_a_network_of_the_grid_is_the_toy_studys_at_the_same_setting() -> None:
    """Oracle: linfair_book.toy.train, after few enough steps that rounding has not grown."""
    few = {"seeds": [0, 1], "steps": 5, "progress": False}
    study = toy.train(**few, budgets=[0.5, 0.0], frequency=2.5, majority=900, minority=100, width=8)
    grid = explorer.train_grid(explorer.GRIDS["smoke"], **few)
    for (seed, budget), network in study.networks.items():
        found = grid.networks[8, 0.1, 2.5, seed, budget]
        for one, other in zip(network.parameters(), found.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def restored(state: dict, key: tuple) -> torch.nn.Module:
    """One network out of the exported state, as the module's docstring says that it is laid out."""
    index = 0
    for axis, value in list(zip(AXES, key, strict=True))[1:]:
        index = index * len(state["axes"][axis]) + state["axes"][axis].index(value)
    network = gates.install(toy.network(0, width=key[0]), (2,))
    layers = [one for one in network.modules() if isinstance(one, torch.nn.Linear)]
    targets = {"weights": ("<f4", [part for layer in layers for part in (layer.weight, layer.bias)])}
    targets["masks"] = "u1", [gate.alpha for gate in gates.sites(network).values()]
    for kept, (kind, tensors) in targets.items():
        sizes = [one.numel() for one in tensors]
        values = np.frombuffer(base64.b64decode(state[kept][str(key[0])]), dtype=kind).reshape(-1, sum(sizes))[index]
        for one, value in zip(tensors, torch.from_numpy(values.astype(np.float32)).split(sizes), strict=True):
            one.data.copy_(value.view_as(one))
    return network.eval()


def test_every_network_comes_back_from_the_exported_state_bit_by_bit(grid, state) -> None:
    points = torch.rand(200, 2) * 2 - 1
    for key, network in grid.networks.items():
        found = restored(state, key)
        assert torch.equal(found(points), network(points))
        assert gates.kept_units(found).item() == round(key[-1] * 8) * 2


def test_rows_of_one_setting_hold_the_networks_own_accuracies(grid) -> None:
    rows = grid.rows(width=8, share=0.1, frequency=2.5)
    assert len(rows) == 2 * 3 * 2
    chosen = rows.query("seed == 1 and budget == 0.5").set_index("group")["accuracy"]
    assert (chosen * 1000).round().astype(int).to_dict() == grid.correct(**SETTING)


def test_the_state_of_the_books_grid_stays_below_one_and_a_half_megabytes() -> None:
    """Size depends on the number of networks and points, not on training; three seeds take three times that of one."""
    untrained = explorer.train_grid(explorer.GRIDS["small"], seeds=[0], steps=1, progress=False)
    assert 1_000_000 < 3 * len(json.dumps(untrained.state())) < 1_500_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": 0.3}, "no network with budget = 0.3; there are 1, 0.5, 0"),
        ({"seed": 7}, "no network with seed = 7; there are 0, 1"),
        ({"depth": 2}, "a setting names each of width, share, frequency, seed, budget once"),
    ],
)
def test_unknown_settings_are_refused_with_what_there_is(grid, state, change, words) -> None:
    for ask in (grid.correct, lambda **setting: check_setting(state["axes"], setting)):
        with pytest.raises(ValueError, match=words):
            ask(**{**SETTING, **change})


@pytest.mark.parametrize("budget", [(0.5, 0.1), (1.0, 0.1, 0.5), (1.0, 1.0)])
def test_a_grid_needs_all_relus_first_and_descending_budgets(budget) -> None:
    with pytest.raises(ValueError, match="descend from 1.0"):
        explorer.Grid((8,), (0.1,), (2.5,), budget)


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_must_be_distinct(seeds) -> None:
    with pytest.raises(ValueError, match="distinct seeds"):
        explorer.train_grid(explorer.GRIDS["smoke"], seeds=seeds)


def test_the_widget_runs_the_same_module_and_refuses_unknown_settings(grid) -> None:
    widget = explorer.BoundaryExplorer(grid)
    assert widget._esm == host.module("boundary") and widget._esm.rstrip().endswith(host.EXPORT)
    assert widget.static() == explorer.show_boundary(grid, live=False)
    with pytest.raises((ValueError, traitlets.TraitError), match="no network with budget"):
        widget.choice = {**widget.choice, "budget": 0.3}
    assert widget.choice["budget"] == 0.5


def test_the_form_follows_the_session_unless_it_is_asked_for(grid, table, monkeypatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert isinstance(explorer.show_boundary(grid), explorer.StaticExplorer)
    assert isinstance(explorer.show_results({"digits": table}), explorer.StaticExplorer)
    assert isinstance(explorer.controls(), Markdown)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    assert isinstance(explorer.show_boundary(grid), explorer.BoundaryExplorer)
    assert isinstance(explorer.show_results({"digits": table}), explorer.ResultsExplorer)
    assert isinstance(explorer.controls(), ipywidgets.VBox)


def test_the_controls_train_what_they_show(monkeypatch) -> None:
    """Clicks the button without a browser: the study is asked for the sliders' settings, then drawn."""
    asked = []
    train = toy.train

    def few_steps(**options: object) -> toy.ToyStudy:
        asked.append(options)
        return train(**options, steps=2)

    monkeypatch.setattr(toy, "train", few_steps)
    box = explorer.controls(live=True)
    minority = next(child for child in box.children if child.description.startswith("minority"))
    button = next(child for child in box.children if child.description == "Train")
    minority.value = 500
    button.click()
    assert (asked[0]["majority"], asked[0]["minority"], asked[0]["budgets"]) == (500, 500, [1.0, 0.5])
    assert not button.disabled


def test_static_forms_are_the_same_in_every_build_and_load_nothing(grid) -> None:
    one, other = (explorer.show_boundary(grid, live=False).html() for _ in range(2))
    assert one == other and 'id="linfair-boundary"' in one
    code = one.replace("http://www.w3.org/2000/svg", "")  # a name, not an address that is loaded
    assert not [word for word in ("http://", "https://", "require", "import ", "src=") if word in code]


def test_a_state_with_nan_is_refused_before_it_reaches_a_page() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        explorer.StaticExplorer("results", {"mean": float("nan")}, {}).html()


def test_a_bar_is_the_tables_mean_and_paired_drop(table) -> None:
    """Oracle: the same numbers from the rows by hand."""
    state = explorer.results_state({"digits": table})
    (cell,) = (
        one
        for one in state["cells"]
        if (one["arm"], one["budget"], one["split"], one["bars"]) == ("plain", 0.2, "test_balanced", "roles")
    )
    part = table[(table["split"] == "test_balanced") & (table["role"] == "minority")]

    def pooled(rows: pd.DataFrame) -> pd.Series:
        return rows.groupby("seed").apply(lambda one: 100 * np.average(one["accuracy"], weights=one["n"]))

    now, before = pooled(part.query("arm == 'plain' and budget == 0.2")), pooled(part.query("arm == 'original'"))
    name, role, seeds, n, mean, low, high, original, drop, drop_low, drop_high = cell["rows"][1]
    assert (name, role, seeds, n) == ("minority", "minority", 10, "270")
    assert mean == pytest.approx(now.mean(), abs=0.006)
    assert original == pytest.approx(before.mean(), abs=0.006)
    assert drop == pytest.approx((before - now).mean(), abs=0.006)
    half = 2.2622 * (before - now).std() / 10**0.5  # t of 9 degrees of freedom
    assert (drop_low, drop_high) == pytest.approx((drop - half, drop + half), abs=0.02)
    assert (low + high) / 2 == pytest.approx(mean, abs=0.02)


def test_one_seed_gives_no_interval(table) -> None:
    state = explorer.results_state({"digits": table[table["seed"] == 0]})
    assert all(bar[5] is bar[6] is None for cell in state["cells"] for bar in cell["rows"])


def test_every_choice_leads_to_one_cell_and_the_start_is_one_of_them(table) -> None:
    state = explorer.results_state(explorer.result_tables(repository() / "book/results"))
    axes = list(first_choice(state))
    keys = [tuple(cell[axis] for axis in axes) for cell in state["cells"]]
    assert len(set(keys)) == len(keys)
    assert tuple(first_choice(state).values()) in keys


def test_two_tables_that_disagree_are_kept_apart_by_name(table) -> None:
    worse = table.assign(accuracy=table["accuracy"] * 0.9)
    state = explorer.results_state({"one": table, "same": table, "worse": worse})
    assert {cell["method"] for cell in state["cells"]} == {"snl", "snl (worse)"}


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
