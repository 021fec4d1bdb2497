"""Selections of equal count: the arms against each other, differences and words by hand."""

import pandas as pd
import pytest
import torch
from linfair_book import selection
from linfair_book.selection import NAMES, SELECTIONS
from scipy import stats

from linfair.study import ResultStore, cell
from linfair.study.cell import Worker
from linfair.study.tables import by_role, drops

PANEL = {"budgets": (0.5, 0.2), "seeds": (0, 1), "profile": "smoke"}
SPLIT = "test_balanced"


@pytest.fixture(scope="module")
def store(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def table(store: ResultStore) -> pd.DataFrame:
    """The smoke panel: two seeds, two budgets, six selections."""
    return selection.run_selections("digits", "mlp", store=store, progress=False, **PANEL)


@pytest.fixture(scope="module")
def rows(table: pd.DataFrame) -> pd.DataFrame:
    return drops(by_role(table))


def cells_of(name: str) -> list[cell.Cell]:
    one = next(one for one in SELECTIONS if one.name == name)
    return selection.selection_cells(one, "digits", "mlp", **PANEL)


# The arms


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
    original = selection.run

    def undershoot(*arguments: object, **options: object) -> pd.DataFrame:
        found = original(*arguments, **options)
        return found.assign(kept=found["kept"].where(found["method"] != "snip", found["kept"] - 1))

    monkeypatch.setattr(selection, "run", undershoot)
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
    }
    original = {"majority": 0.8, "minority": 0.5}
    return pd.DataFrame(
        [
            {
                "selection": name,
                "arm": "plain",
                "split": SPLIT,
                "budget": budget,
                "seed": seed,
                "group_name": role,
                "accuracy": value,
                "relative_drop": 100 * (original[role] - value) / original[role],
            }
            for (name, budget), seeds in accuracy.items()
            for seed, pair in enumerate(seeds)
            for role, value in zip(original, pair, strict=True)
        ]
    )


def t_interval(a: float, b: float) -> tuple[float, float, float]:
    mean, half = (a + b) / 2, stats.t.ppf(0.975, 1) * abs(a - b) / 2
    return mean, mean - half, mean + half


def test_paired_differences_of_two_seeds_by_hand() -> None:
    found = selection.paired(by_hand(), "random", split=SPLIT).set_index(["quantity", "budget"])
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
    found = selection.count_effect(by_hand(), split=SPLIT)
    assert (found.mean, found.low, found.high) == pytest.approx(t_interval(35 - 27.5, 45 - 7.5))


def test_disparities_are_those_of_the_tables_module_for_each_selection(rows: pd.DataFrame) -> None:
    """Against the means of `per_seed`; and plain minus control is the difference of the two means."""
    found = selection.disparities(rows, split=SPLIT).set_index(["selection", "of", "budget"])["mean"]
    means = selection.per_seed(rows, split=SPLIT)["disparity"].groupby(["selection", "budget"]).mean()
    for name in NAMES:
        for budget in PANEL["budgets"]:
            plain, control = found[name, "plain", budget], found[name, "control", budget]
            assert plain == pytest.approx(means[name, budget])
            assert found[name, "plain minus control", budget] == pytest.approx(plain - control)


@pytest.mark.parametrize(
    ("shift", "words"),
    [(-20.0, "smaller at 40, 10 %"), (60.0, "larger at 40, 10 %"), (0.0, "no difference shown at 40, 10 %")],
)
def test_the_verdict_names_a_side_only_where_the_interval_excludes_zero(shift: float, words: str) -> None:
    """Twenty seeds; `snl mask` has `random`'s relative drops plus a shift for the minority, plus a little noise."""
    noise = torch.randn(20, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean()).tolist()
    base = by_hand().query("selection == 'random' and seed == 0")
    parts = []
    for seed in range(20):
        parts.append(base.assign(seed=seed))
        other = base.assign(seed=seed, selection="snl mask")
        moved = shift * (other["group_name"] == "minority") + noise[seed]
        parts.append(other.assign(relative_drop=other["relative_drop"] + moved * (other["group_name"] == "minority")))
        parts.append(parts[-1].assign(selection="snl"))
    text = selection.verdict(pd.concat(parts), split=SPLIT)
    assert f"snl mask: {words}" in text
    headline = "which ReLUs are kept and how many" if shift else "The disparity depends on how many"
    assert headline in text.splitlines()[0]
    assert f"{shift:+.1f} [" in text or shift == 0


def test_reached_says_counts_and_shares() -> None:
    table = pd.DataFrame(
        [("original", "original", 1.0, 200), ("deepreduce", "plain", 0.4, 100), ("deepreduce", "plain", 0.4, 60)],
        columns=["selection", "arm", "budget", "kept"],
    )
    assert selection.reached(table, "deepreduce") == "30 % or 50 % (60 or 100 of 200) for 40 %"
