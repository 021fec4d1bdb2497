"""The equivalence rule on constructed tables: what is shown, what is not, and the words for it."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from linfair.study.compare import SEEDS, STATUS, equivalent


def table(differences: dict[str, list[float]], *, arms: tuple[str, ...] = ("plain",)) -> pd.DataFrame:
    """Rows of `fast` and `paper` whose accuracies differ by so many points, a list over seeds for each group."""
    rows = []
    for (group, points), arm in product(differences.items(), arms):
        for seed, difference in enumerate(points):
            base = 0.7 + 0.03 * seed  # seeds differ by more than the margin: only the pairs say anything
            for profile, accuracy in (("paper", base), ("fast", base + difference / 100)):
                rows.append(("utkface_race", "resnet18", "snl", arm, 0.2, "test", group, seed, profile, accuracy))
    names = ["data", "network", "method", "arm", "budget", "split", "group_name", "seed", "profile", "accuracy"]
    return pd.DataFrame(rows, columns=names)


SMALL = [0.1, -0.2, 0.0, 0.3, -0.1]


def test_small_differences_of_five_seeds_are_shown_equivalent_with_the_paired_t_interval() -> None:
    """Oracle: scipy's t interval of the differences."""
    found = equivalent(table({"Asian": SMALL, "White": [0.5, 0.4, 0.6, 0.5, 0.5]}), "fast", "paper")
    assert found.shown
    assert found.status == STATUS[3] and found.margin == 2
    row = found.rows[found.rows["group_name"] == "Asian"].iloc[0]
    low, high = stats.t.interval(0.95, 4, np.mean(SMALL), stats.sem(SMALL))
    assert (row["n"], row["mean"]) == (5, pytest.approx(np.mean(SMALL)))
    assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))


def test_four_seeds_show_nothing_however_equal() -> None:
    found = equivalent(table({"Asian": [0.0] * 4}), "fast", "paper")
    assert not found.shown
    assert found.status == STATUS[1] and str(SEEDS) in STATUS[1]


@pytest.mark.parametrize("sign", [-1, 1])
def test_one_group_whose_interval_sticks_out_is_enough_and_is_named(sign: int) -> None:
    """Its mean, 1.5, is within the margin; its interval, 1.5 +- t s / sqrt(5) = 1.5 +- 2.78 * 0.5 / 2.24, is not."""
    bad = [sign * one for one in (1.0, 2.0, 1.5, 1.0, 2.0)]
    found = equivalent(table({"Asian": SMALL, "Others": bad}), "fast", "paper")
    assert not found.shown
    assert list(found.rows["lies_within"]) == [True, False]
    assert found.status == STATUS[2] and list(found.farthest["group_name"]) == ["Others"]


def test_wide_noise_around_zero_is_not_shown() -> None:
    """The mean difference is exactly 0: the absence of evidence is no equivalence."""
    found = equivalent(table({"Asian": [-6.0, 6.0, -6.0, 6.0, 0.0]}), "fast", "paper")
    assert found.rows["mean"].iloc[0] == pytest.approx(0.0)
    assert not found.shown


def test_the_margin_is_two_points() -> None:
    """Equal differences have an interval of no width: just below 2 is within, just above is not."""
    rows = table({"Asian": [0.0] * 5})
    for points, shown in ((1.9999, True), (2.0001, False)):
        constant = rows.assign(accuracy=rows["profile"].map({"fast": 0.5 + points / 100, "paper": 0.5}))
        assert equivalent(constant, "fast", "paper").shown is shown


def test_an_arm_that_only_one_of_them_has_is_a_row_without_pairs() -> None:
    rows = table({"Asian": SMALL}, arms=("plain", "control"))
    rows = rows[(rows["arm"] == "plain") | (rows["profile"] == "paper")]
    found = equivalent(rows, "fast", "paper")
    assert dict(zip(found.rows["arm"], found.rows["n"], strict=True)) == {"plain": 5, "control": 0}
    assert not found.shown


def test_diverged_seeds_make_no_pairs() -> None:
    rows = table({"Asian": [*SMALL, 0.0]})
    lost = (rows["seed"] == 0) & (rows["profile"] == "fast")
    rows = rows.assign(diverged=lost, accuracy=rows["accuracy"].where(~lost))
    found = equivalent(rows, "fast", "paper")
    assert list(found.rows["n"]) == [5] and found.shown


def test_without_rows_nothing_is_shown() -> None:
    found = equivalent(table({"Asian": SMALL}), "bf16", "float32")
    assert not found.shown
    assert found.status == STATUS[0] and found.farthest.empty


def test_mixed_devices_and_a_comparison_with_itself_are_refused() -> None:
    rows = table({"Asian": SMALL})
    with pytest.raises(ValueError, match="several rows of one seed, group and arm for 'fast'"):
        equivalent(pd.concat([rows, rows[rows["profile"] == "fast"]]), "fast", "paper")
    with pytest.raises(ValueError, match="compared with itself"):
        equivalent(rows, "fast", "fast")
