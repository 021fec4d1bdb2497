"""The study of both starts: its differences against numbers worked out by hand, its rows against its cells."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from linfair_book import starts
from linfair_book.tables import committed

from linfair.study import ResultStore, grid

SEEDS = 3


def rows() -> pd.DataFrame:
    """Accuracies in a pattern: 90 and 80 % from the teacher's weights, 5 points less from fresh ones, 1 more a seed."""
    arms = {"original": ("", 1.0), "plain": ("1,4", 0.38), "control": ("", 0.38)}
    found = []
    for seed in range(SEEDS):
        for arm, (configuration, budget) in arms.items():
            runs = [("", 0)] if arm == "original" else [(start, 20) for start in ("teacher", "fresh")]
            for start, epochs in runs:
                for group, role in enumerate(("majority", "minority")):
                    accuracy = 0.9 - 0.1 * group - 0.05 * (start == "fresh") + 0.01 * seed
                    one = {"seed": seed, "arm": arm, "configuration": configuration, "budget": budget, "start": start}
                    one |= {"student_epochs": epochs, "group": group, "group_name": str(group), "role": role, "n": 100}
                    found.append(one | {"accuracy": accuracy, "n_train": 10, "teacher": str(seed)})
    shared = {"split": "test_balanced", "budget_units": 1, "kept": 1, "low": 0.0, "high": 1.0, "diverged": False}
    return pd.DataFrame(found).assign(**shared)


def test_no_interval_leaves_what_an_accuracy_can_be_but_differences_are_not_cut() -> None:
    """Accuracies of 2 and 98, 80 and 100 %, ...: t(2) intervals leave [0, 100]; those of the differences may."""
    table = rows()
    high = table["start"].eq("fresh") & table["seed"].gt(0)
    found = starts.differences(table.assign(accuracy=(0.02 + 0.96 * high)))
    levels, less = (found[found["of"].isin(("teacher", "fresh")) == own] for own in (True, False))
    assert levels["low"].min() == 0 and levels["high"].max() == 100 and levels["mean"].between(2, 66.1).all()
    assert less["high"].max() > 100


def test_differences_are_paired_within_seeds() -> None:
    """Fresh minus teacher is -5 in every seed: no width; a level varies by a point a seed, t(2) = 4.303."""
    found = starts.differences(rows()).set_index(["arm", "role", "of"])
    assert len(found) == 2 * 2 * 3 and set(found["n_seeds"]) == {SEEDS}
    for arm in ("plain", "control"):
        one = found.loc[(arm, "minority", "fresh minus teacher")]
        assert [one["mean"], one["low"], one["high"]] == pytest.approx([-5, -5, -5])
        one = found.loc[(arm, "majority", "fresh")]
        half = 4.302653 / 3**0.5
        assert [one["mean"], one["low"], one["high"]] == pytest.approx([86, 86 - half, 86 + half])


def test_the_table_of_the_page_has_a_line_a_network_and_length_of_training() -> None:
    shown = starts.shown(rows())
    assert shown["network"].tolist() == ["culled 1,4, 20 epochs", "every ReLU kept, 20 epochs"]
    assert shown["minority, fresh minus teacher"].str.startswith("-5.0 ").all()


def test_both_starts_are_computed_from_one_original_network(
    one_thread: None, light: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network of width 2, which is quick to measure."""
    monkeypatch.setattr("linfair.study.grid", partial(grid, width=2))
    table = starts.compute([0], epochs=[1], profile="smoke", store=ResultStore(tmp_path), progress=False)
    assert table["teacher"].nunique() == 1 and set(table["split"]) == {"test", "test_balanced"}
    runs = set(table.loc[table["arm"] != "original", ["arm", "start"]].itertuples(index=False, name=None))
    assert runs == {(arm, start) for arm in ("plain", "control") for start in ("teacher", "fresh")}
    assert set(table.loc[table["arm"] == "plain", "configuration"]) == {"1,4"}


def test_the_committed_rows_are_three_seeds_of_both_starts() -> None:
    table = committed(starts.TABLE)
    assert set(table["seed"]) == {0, 1, 2} and {"device", "torch", "linfair", "seconds"} <= set(table)
    trained = table[table["arm"] != "original"]
    assert set(trained["start"]) == {"teacher", "fresh"} and set(trained["student_epochs"]) == set(starts.EPOCHS)
    assert set(starts.differences(table)["n_seeds"]) == {3}
