"""Rank correlations against scipy, closed formulas and all permutations; rows and tables by hand."""

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from linfair_book import predictors
from linfair_book.averages import alike, paired
from linfair_book.predictors import PREDICTORS, Predictor, partial_spearman
from scipy import stats

SIZES = (900, 700, 500, 90, 70, 50)


def study_table(*, seeds: int = 6, noise: float = 0.0, budgets: tuple[float, ...] = (0.2, 0.02)) -> pd.DataFrame:
    """A made-up study of six groups: the drop at each budget follows the original's margin, plus noise.

    Gradient norm and eigenvalue are drawn at random, the original accuracy is one for all but group 0.
    """
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(seeds):
        margin, norm, top = rng.permutation(6) / 10 + 0.3, rng.uniform(1, 2, 6), rng.uniform(1, 9, 6)
        for arm, budget in [("original", 1.0), *(("plain", b) for b in budgets), ("control", budgets[0])]:
            lost = 0.0 if arm != "plain" else (1 - margin) / 3 + noise * rng.standard_normal(6)
            accuracy = 0.9 - lost - 0.01 * (np.arange(6) == 0)
            for split in ("train", "test", "test_balanced"):
                for group in range(6):
                    measured = split != "test_balanced"
                    lines.append(
                        {
                            "data": "made up",
                            "network": "none",
                            "profile": "small",
                            "teacher": f"t{seed}",
                            "seed": seed,
                            "arm": arm,
                            "budget": budget,
                            "split": split,
                            "group": group,
                            "group_name": f"g{group}",
                            "role": "majority" if group < 3 else "minority",
                            "n_train": SIZES[group],
                            "accuracy": accuracy[group],
                            "excess": 0.0 if arm == "original" else 2.0 * (0.9 - accuracy[group]),
                            "margin": margin[group] * (1 if arm == "original" else 0.5),
                            "gradient_norm": norm[group] * (2 if split == "test" else 1) if measured else math.nan,
                            "top_eigenvalue": top[group] if arm == "original" and split == "train" else math.nan,
                            "top_eigenvalue_converged": True if arm == "original" and split == "train" else None,
                            "distance": 3.0,
                            "relative_distance": 0.5,
                        }
                    )
    return pd.DataFrame(lines)


# Coefficients


@pytest.mark.parametrize("seed", range(5))
def test_alone_it_is_scipys_spearman_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 12), rng.standard_normal(12)
    assert partial_spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_given_one_other_it_is_the_closed_formula_for_three_variables(seed: int) -> None:
    x, y, z = np.random.default_rng(seed).standard_normal((3, 10)) + np.arange(10) / 4
    xy, xz, yz = (stats.spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    assert partial_spearman(x, y, [z]) == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))


def test_given_several_it_is_read_off_the_inverse_of_the_rank_correlation_matrix() -> None:
    data = np.random.default_rng(3).standard_normal((12, 5))
    inverse = np.linalg.inv(stats.spearmanr(data).statistic)
    expected = -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])
    assert partial_spearman(data[:, 0], data[:, 1], data[:, 2:].T) == pytest.approx(expected)


def test_over_all_permutations_mean_and_variance_are_those_of_pure_chance() -> None:
    """Exact null distribution for n = 6: E rho = 0, Var rho = 1 / (n - 1)."""
    columns = [[1, 2, 3, 4, 5, 6], [2, 6, 1, 5, 4, 3]]
    every = list(permutations(range(6)))
    rho = [partial_spearman(columns[0], y) for y in every]
    assert np.mean(rho) == pytest.approx(0, abs=1e-12)
    assert np.var(rho) == pytest.approx(1 / 5)


def test_what_is_not_defined_is_nan() -> None:
    x = [1.0, 2.0, 3.0, 4.0]
    assert math.isnan(partial_spearman(x, [5.0] * 4))
    assert math.isnan(partial_spearman(x, [4.0, 1.0, 3.0, 2.0], [[10.0, 20.0, 30.0, 40.0]]))  # x is known given z


def test_too_few_groups_are_refused() -> None:
    table = study_table(seeds=2)
    rows = predictors.group_rows(table[table["group"] < 2])
    with pytest.raises(ValueError, match="ranks of 2 groups say nothing"):
        predictors.correlations(rows)


# Rows


def test_rows_hold_the_drop_and_what_the_group_was_in_the_original() -> None:
    table = study_table(seeds=2)
    rows = predictors.group_rows(table)
    assert len(rows) == 2 * 2 * 6
    one = rows[(rows["seed"] == 1) & (rows["group"] == 4) & (rows["budget"] == 0.02)].iloc[0]
    before = table[(table["seed"] == 1) & (table["group"] == 4) & (table["arm"] == "original")].set_index("split")
    assert one["drop"] == pytest.approx(100 * (1 - before.loc["train", "margin"]) / 3)
    assert one["relative_drop"] == pytest.approx(one["drop"] / 0.9)
    assert one["gradient_norm"] == before.loc["train", "gradient_norm"]
    assert one["own_margin"] == pytest.approx(before.loc["train", "margin"] / 2)
    assert one["log_size"] == pytest.approx(math.log(70))


def test_groups_that_lose_equally_many_images_tie() -> None:
    """Oracle: ranks of whole numbers. As shares 0.9 - 0.8 is not 0.8 - 0.7, and float32 views are off by up to 3e-8."""
    table = study_table(seeds=1, budgets=(0.2,)).assign(n=10)
    right = {"original": [9, 8, 6, 4, 3, 9], "plain": [8, 7, 5, 2, 2, 7], "control": [9, 8, 6, 4, 3, 9]}
    counts = np.array([right[arm][group] for arm, group in zip(table["arm"], table["group"], strict=True)])
    table = table.assign(accuracy=counts / 10 + 1e-8 * np.cos(7 * np.arange(len(table))))
    lost = np.subtract(right["original"], right["plain"])
    rows = predictors.group_rows(table)
    assert rows["drop"].nunique() == 2
    found = predictors.per_seed(rows).query("statistic == 'alone'").set_index("predictor")["value"]
    for name, known in {"margin": rows["margin"], "original accuracy": right["original"]}.items():
        assert found[name] == pytest.approx(stats.spearmanr(lost, known).statistic), name
    each = paired(table, arm="plain", against="control", split="test").assign(accuracy=table["accuracy"][:6].to_numpy())
    assert alike(each, "value", "accuracy")["mean"].tolist() == pytest.approx([-found["original accuracy"]])


def test_the_control_arm_lost_nothing_here() -> None:
    rows = predictors.group_rows(study_table(seeds=2), arm="control")
    assert rows["drop"].abs().max() == pytest.approx(0)
    assert predictors.correlations(rows)["n_seeds"].eq(0).all(), "a constant drop has no rank correlation"


def test_net_of_the_control_the_drop_is_what_linearization_costs() -> None:
    table = study_table(seeds=2, budgets=(0.2,))
    worse = (table["arm"] == "control") & (table["group"] == 3)
    table.loc[worse, "accuracy"] -= 0.05
    plain, net = (predictors.group_rows(table, net=net).set_index(["seed", "group"])["drop"] for net in (False, True))
    assert (plain - net).groupby("group").mean().tolist() == pytest.approx([0, 0, 0, 5, 0, 0])
    without = table[(table["arm"] != "control") | (table["seed"] != 1)]  # nothing can be taken from that seed's drop
    pd.testing.assert_series_equal(
        predictors.group_rows(without, net=True).set_index(["seed", "group"])["drop"], net[0:6]
    )


def test_an_eigenvalue_that_did_not_converge_counts_as_missing() -> None:
    table = study_table(seeds=3)
    hit = (table["seed"] == 0) & (table["group"] == 0) & (table["top_eigenvalue_converged"].eq(True))
    table.loc[hit, "top_eigenvalue_converged"] = False
    found = predictors.correlations(predictors.group_rows(table)).set_index(["budget", "predictor", "statistic"])
    assert found.loc[(0.02, "top eigenvalue", "alone"), "n_seeds"] == 2
    assert found.loc[(0.02, "margin", "alone"), "n_seeds"] == 3
    without = study_table(seeds=3).drop(columns=["top_eigenvalue", "top_eigenvalue_converged"])
    assert predictors.group_rows(without)["top_eigenvalue"].isna().all(), "none computed is all missing"


def test_a_mix_of_methods_is_refused() -> None:
    table = study_table(seeds=2)
    with pytest.raises(ValueError, match="several methods"):
        predictors.group_rows(pd.concat([table, table.assign(method="other")]))


# Summaries


def test_the_interval_is_scipys_one_sample_t_interval_over_seeds() -> None:
    rows = predictors.group_rows(study_table(noise=0.03))
    at = predictors.correlations(rows).set_index(["budget", "predictor", "statistic"]).loc[(0.2, "margin", "alone")]
    each = [stats.spearmanr(p["margin"], p["drop"]).statistic for _, p in rows[rows["budget"] == 0.2].groupby("seed")]
    expected = stats.ttest_1samp(each, 0).confidence_interval()
    assert [at["mean"], at["low"], at["high"]] == pytest.approx([np.mean(each), expected.low, expected.high])
    assert (at["n_seeds"], at["n_groups"]) == (6, 6)


def test_the_predictor_that_makes_the_drop_wins() -> None:
    rows = predictors.group_rows(study_table())
    best, lead = predictors.ranking(rows, budget=0.02)
    assert best == "margin" and (lead["mean"] > 0).all() and len(lead) == 4


def test_two_predictors_that_say_the_same_are_not_told_apart() -> None:
    rows = predictors.group_rows(study_table(noise=0.02))
    twin = (*PREDICTORS[:2], Predictor("twin", "own_margin", -1))
    _, lead = predictors.ranking(rows, budget=0.02, predictors=twin)
    assert lead.set_index("predictor").loc["twin", ["mean", "low", "high"]].tolist() == [0, 0, 0]
    pairs = predictors.collinearity(rows, twin).set_index(["predictor", "with"])["mean"]
    assert pairs[("margin", "twin")] == pytest.approx(1)


def test_with_six_groups_five_predictors_leave_nothing_to_hold_fixed() -> None:
    rows = predictors.group_rows(study_table())
    by = predictors.correlations(rows).set_index(["statistic"])["n_seeds"]
    assert by["given all others"].eq(0).all() and by["alone"].max() == 6


def test_what_no_seed_has_is_left_out_of_the_ranking() -> None:
    rows = predictors.group_rows(study_table()).assign(top_eigenvalue=math.nan)
    best, lead = predictors.ranking(rows, budget=0.02)
    assert best == "margin" and set(lead["predictor"]) == {"gradient norm", "group size", "original accuracy"}
    with pytest.raises(ValueError, match="empty"):
        predictors.ranking(rows.assign(drop=1.0), budget=0.02)
