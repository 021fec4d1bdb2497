"""Selections of equal count: the arms against each other, differences by hand, what the page says of committed rows."""

import pandas as pd
import pytest
from linfair_book import selection
from linfair_book.reading import readable
from linfair_book.selection import NAMES
from linfair_book.tables import committed
from scipy import stats

from linfair.study import ResultStore, cell, grid
from linfair.study.cell import Worker
from linfair.study.plan import find, plan

PANEL = {"budgets": (0.5, 0.2), "seeds": (0, 1), "profile": "smoke"}
SPLIT = "test_balanced"


@pytest.fixture(scope="module")
def store(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def table(light: None, store: ResultStore) -> pd.DataFrame:
    """The smoke panel: two seeds, two budgets, six selections."""
    return selection.run_selections("digits", "mlp", store=store, progress=False, **PANEL)


def cells_of(name: str) -> list[cell.Cell]:
    return selection.cells_of(name, "digits", "mlp", **PANEL)


# The arms


def test_the_grid_is_six_selections_on_one_network_two_with_a_control_of_their_own() -> None:
    """Cells and arms written out: SNL meets its budgets to the unit, and its mask alone goes back to the original."""
    stepwise = {"check_every": 1, "exact": True}
    panels = {"snl": ("snl", stepwise), "snl mask": ("snl", stepwise | {"rewind": True})}
    panels |= {name: (name, {}) for name in NAMES[2:]}
    expected = {}
    for name, (method, options) in panels.items():
        [one] = grid("digits", "mlp", method=method, options=options, budgets=(0.4, 0.2, 0.1), seeds=range(10))
        expected[one] = ("original", "plain", "control") if name in ("snl", "random") else ("original", "plain")
    assert {job.cell: job.arms for job in plan(find("selection"), "small")} == expected
    assert tuple(selection.panels()) == NAMES == tuple(panels)


def test_every_selection_keeps_exactly_the_budget_and_starts_from_the_same_teacher(table: pd.DataFrame) -> None:
    plain = table[table["arm"] == "plain"]
    assert set(plain["selection"]) == set(NAMES)
    assert set(zip(plain["budget"], plain["kept"], strict=True)) == {(0.5, 64), (0.2, 26)}
    assert table["teacher"].nunique() == 1


def test_only_snl_trains_before_fine_tuning_and_its_control_as_long(table: pd.DataFrame) -> None:
    epochs = table[table["arm"] != "original"].groupby(["selection", "arm"])["mask_epochs"].agg(["min", "max"])
    for name in NAMES:
        if name == "snl":
            assert (epochs.loc[name, "min"] > 0).all()
            assert epochs.loc[(name, "control")].tolist() == epochs.loc[(name, "plain")].tolist()
        else:
            assert (epochs.loc[name] == 0).all(axis=None)


def test_the_shared_control_is_the_one_the_snl_mask_would_have_of_its_own(
    table: pd.DataFrame, store: ResultStore
) -> None:
    """Why one control serves all that train nothing before fine-tuning: number for number the same."""
    own = cell.run(cells_of("snl mask"), arms=["control"], store=store, progress=False)
    shared = table[(table["selection"] == "snl mask") & (table["arm"] == "control")]
    keys = ["budget", "seed", "split", "group", "kept", "mask_epochs", "accuracy"]
    assert own[keys].to_numpy().tolist() == shared[keys].to_numpy().tolist()


def test_snl_and_the_snl_mask_hold_the_same_units_and_uniform_is_even(store: ResultStore) -> None:
    paths = {
        name: Worker(cells_of(name)[0], store, progress=False).path.records for name in ("snl", "snl mask", "uniform")
    }
    for ours, theirs, even in zip(*paths.values(), strict=True):
        for a, b, c in zip(ours.masks, theirs.masks, even.masks, strict=True):
            assert a.jaccard(b) == 1
            assert len(set(c.per_site.values())) == 1
    assert paths["snl"][0].epochs > (0, 0) == paths["snl mask"][0].epochs


def test_a_second_call_computes_nothing(
    table: pd.DataFrame, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "rows", None)
    again = selection.run_selections("digits", "mlp", store=store, progress=False, **PANEL)
    pd.testing.assert_frame_equal(again, table)


def test_unequal_counts_are_refused(store: ResultStore, monkeypatch: pytest.MonkeyPatch, table: pd.DataFrame) -> None:
    original = selection.tables.ran

    def undershoot(*arguments: object, **options: object) -> pd.DataFrame:
        found = original(*arguments, **options)
        return found.assign(kept=found["kept"].where(found["method"] != "snip", found["kept"] - 1))

    monkeypatch.setattr(selection.tables, "ran", undershoot)
    with pytest.raises(ValueError, match=r"\['snip'\] do not keep exactly the budget"):
        selection.run_selections("digits", "mlp", store=store, progress=False, **PANEL)


# Differences, by hand


def by_hand() -> pd.DataFrame:
    """Two seeds, two budgets, `snl mask` and `random`; accuracy from the table below, original 0.8 and 0.5."""
    accuracy = {
        # selection, budget: (majority, minority) of seed 0, of seed 1
        ("snl mask", 0.4): ((0.80, 0.40), (0.76, 0.45)),
        ("snl mask", 0.1): ((0.72, 0.30), (0.64, 0.25)),
        ("random", 0.4): ((0.76, 0.30), (0.72, 0.40)),
        ("random", 0.1): ((0.64, 0.20), (0.64, 0.10)),
        ("original", 1.0): ((0.80, 0.50), (0.80, 0.50)),
    }
    lines = [
        {"selection": name, "budget": budget, "seed": seed, "role": role, "group_name": role, "accuracy": value}
        for (name, budget), seeds in accuracy.items()
        for seed, pair in enumerate(seeds)
        for role, value in zip(("majority", "minority"), pair, strict=True)
    ]
    rows = pd.DataFrame(lines).assign(split=SPLIT, n=10, n_train=10)
    return rows.assign(arm=rows["selection"].where(rows["selection"] == "original", "plain"))


def t_interval(a: float, b: float) -> tuple[float, float, float]:
    mean, half = (a + b) / 2, stats.t.ppf(0.975, 1) * abs(a - b) / 2
    return mean, mean - half, mean + half


def test_paired_differences_of_two_seeds_by_hand() -> None:
    found = selection.differences(by_hand(), "random", split=SPLIT).set_index(["quantity", "budget"])
    assert set(found["selection"]) == {"snl mask"}
    expected = {
        ("minority accuracy", 0.4): t_interval(10, 5),
        ("minority accuracy", 0.1): t_interval(10, 15),
        ("majority accuracy", 0.4): t_interval(4, 4),
        ("majority accuracy", 0.1): t_interval(8, 0),
        # minority minus majority relative drop: (20 - 0) - (40 - 5), (10 - 5) - (20 - 10)
        ("disparity", 0.4): t_interval(-15, -5),
        ("disparity", 0.1): t_interval((40 - 10) - (60 - 20), (50 - 20) - (80 - 20)),
    }
    for where, numbers in expected.items():
        assert tuple(found.loc[where, ["mean", "low", "high"]]) == pytest.approx(numbers), where


def test_levels_of_two_seeds_by_hand_in_the_order_of_the_page() -> None:
    found = selection.levels(by_hand(), split=SPLIT)
    order = [(q, n, b) for q in selection.QUANTITIES for n in ("snl mask", "random") for b in (0.4, 0.1)]
    assert list(found[["quantity", "selection", "budget"]].itertuples(index=False, name=None)) == order
    rows = found.set_index(["quantity", "selection", "budget"])[["mean", "low", "high"]]
    assert tuple(rows.loc["minority accuracy", "snl mask", 0.4]) == pytest.approx(t_interval(40, 45))
    assert tuple(rows.loc["majority accuracy", "random", 0.4]) == pytest.approx(t_interval(76, 72))
    assert tuple(rows.loc["disparity", "random", 0.1]) == pytest.approx(t_interval(60 - 20, 80 - 20))


def test_count_effect_by_hand() -> None:
    """Disparity from 40 to 10 %, averaged over the two selections: seed 0 from 27.5 to 35, seed 1 from 7.5 to 45."""
    [found] = selection.count_effect(by_hand(), split=SPLIT).itertuples()
    assert (found.mean, found.low, found.high) == pytest.approx(t_interval(35 - 27.5, 45 - 7.5))


def test_disparities_are_those_of_the_tables_module_for_each_selection(table: pd.DataFrame) -> None:
    """Against the means of `per_seed`; and plain minus control is the difference of the two means."""
    found = selection.disparities(table, split=SPLIT).set_index(["selection", "of", "budget"])["mean"]
    means = selection.per_seed(table, split=SPLIT).query("quantity == 'disparity'")
    means = means.groupby(["selection", "budget"])["value"].mean()
    for name in NAMES:
        for budget in PANEL["budgets"]:
            plain, control = found[name, "plain", budget], found[name, "control", budget]
            assert plain == pytest.approx(means[name, budget])
            assert found[name, "plain minus control", budget] == pytest.approx(plain - control)


def test_what_the_page_says_of_deepreduce_holds_in_the_committed_rows() -> None:
    beside = committed(selection.DEEPREDUCE_TABLE)
    assert set(beside["selection"]) == {"original", "deepreduce", "snl mask", "random"}
    found = selection.differences(beside, "random", split=SPLIT).query("selection == 'deepreduce'")
    found = readable(found).set_index(["quantity", "budget"])["side"]
    same = "no measurable change"
    assert found["minority accuracy"].to_dict() == {"40 %": same, "20 %": "up", "10 %": "up"}
    assert found["disparity"].to_dict() == {"40 %": same, "20 %": "down", "10 %": "down"}


def test_beside_deepreduce_the_others_keep_what_it_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 units it keeps 100 for 40 % and for 20 %: one count is asked for, and it stands under both budgets."""
    asked = []

    def run(
        cells: list[cell.Cell], *, arms: list[str] = ("original", "plain", "control"), **how: object
    ) -> pd.DataFrame:
        [one] = cells
        asked.append((one.method, one.budgets))
        budgets = {"deepreduce": (0.4, 0.2)}.get(one.method, (0.5,))
        lines = [("original", 1.0, 200)] * ("original" in arms)
        lines += [(arm, budget, 100) for arm in arms if arm != "original" for budget in budgets]
        options = "exact=True, rewind=True" if dict(one.options) else ""
        about = {"method": one.method, "options": options, "seed": 0, "split": SPLIT, "group": 0, "budget_units": 100}
        return pd.DataFrame(lines, columns=["arm", "budget", "kept"]).assign(**about)

    monkeypatch.setattr("linfair.study.run", run)
    table = selection.beside_deepreduce([0], budgets=(0.4, 0.2))
    assert asked == [("deepreduce", (0.4, 0.2)), ("snl", (0.5,)), ("random", (0.5,))]
    found = table[table["arm"] != "original"].groupby(["selection", "arm"])["budget"].agg(sorted)
    names = ("deepreduce", "snl mask", "random")
    assert found.to_dict() == {(name, arm): [0.2, 0.4] for name in names for arm in ("plain", "control")}


def test_the_committed_rows_are_those_that_the_page_computes() -> None:
    """The cells and arms of the study figure, every seed and budget once: a control for each selection."""
    rows = selection.committed()
    assert set(rows["seed"]) == set(range(10)) and rows["teacher"].nunique() == 1
    assert {"train", SPLIT} <= set(rows["split"]) and set(rows["profile"]) == {"small"}
    for name in NAMES:
        own = rows[rows["selection"] == name]
        assert not own.duplicated(["arm", "budget", "seed", "split", "group"]).any()
        for arm in ("plain", "control"):
            one = own[(own["arm"] == arm) & (own["split"] == SPLIT) & (own["group"] == 0)]
            assert sorted(zip(one["budget"], one["seed"], strict=True)) == [
                (b, s) for b in (0.1, 0.2, 0.4) for s in range(10)
            ]
    plain = rows[rows["arm"] == "plain"]
    assert (plain["kept"] == plain["budget_units"]).all()
