"""Mitigations compared: changes, divergence and trade-offs against sums by hand; the grid; what the page says."""

import math

import numpy as np
import pandas as pd
import pytest
from linfair_book import mitigation, tables
from linfair_book.averages import SIDES
from linfair_book.explorer.results import _said
from linfair_book.mitigation import of_mu
from linfair_book.reading import NOTHING, readable

from linfair.study import grid
from linfair.study.plan import find, plan

ROLE = {0: "majority", 1: "majority", 2: "minority"}
TRAINED = {0: 90, 1: 90, 2: 10}
SEEDS = (0, 1, 2)


def table(ways: dict[tuple[str, str], dict[int, float]], *, budgets=(0.2,), lost=()) -> pd.DataFrame:
    """Rows of three groups and seeds: `ways` (arm, options) -> accuracy by group at seed 0; seed s adds 0.01 s.

    On the training split all accuracies are 0.1 higher. `lost` are (arm, seed) that diverged.
    """
    lines = []
    for (arm, options), by_group in ways.items():
        for budget in (1.0,) if arm == "original" else budgets:
            for seed in SEEDS:
                for split in ("train", "test", "test_balanced"):
                    for group, accuracy in by_group.items():
                        gone = (arm, seed) in lost
                        value = accuracy + 0.01 * seed + 0.1 * (split == "train")
                        lines.append(
                            {
                                **{"arm": arm, "options": options, "budget": budget, "seed": seed, "split": split},
                                **{"group": group, "group_name": f"group {group}", "role": ROLE[group]},
                                **{"n_train": TRAINED[group], "n": 10 * (group + 1), "diverged": gone},
                                **{"accuracy": math.nan if gone else value, "data": "d", "network": "m"},
                                **{
                                    "margin": 0.5 * accuracy,
                                    "gradient_norm": (seed + 1) / accuracy,
                                    "profile": "small",
                                },
                                **{"teacher": f"t{seed}", "seconds": 1.0, "multiplier": math.nan, "method": "snl"},
                            }
                        )
    return pd.DataFrame(lines)


def test_a_mitigation_of_the_mask_phase_keeps_all_of_its_options() -> None:
    """Two that differ in their second option alone are two ways."""
    before = [f"mitigation=lagrangian(mu=0.005, clip={clip}), start=fresh" for clip in (5.0, 2.0)]
    rows = table({("plain", options): {0: 0.8} for options in before})
    ways = mitigation.mitigated(rows)
    assert ways == [f"lagrangian(mu=0.005, clip={clip}), before" for clip in (5.0, 2.0)]
    assert [mitigation.label(way) for way in ways] == [f"Alg. 1, mu 0.005, clip {clip}, before" for clip in (5, 2)]
    assert _said(before[0]) == ", selected under Algorithm 1 (mu 0.005, clip 5), from fresh weights"


ORIGINAL, PLAIN, ALG = ("original", ""), ("plain", ""), ("lagrangian", "")
BASE = {ORIGINAL: {0: 0.9, 1: 0.9, 2: 0.7}, PLAIN: {0: 0.8, 1: 0.8, 2: 0.4}}


def change(rows: pd.DataFrame, **how: str) -> pd.Series:
    found = mitigation.changes(rows, split="test", **how)
    return found[found["seed"] == 0].set_index("group_name")["value"]


def test_a_change_is_in_points_of_gain_and_in_per_cent_of_plain_negative_for_a_gain_closed_form() -> None:
    rows = table(BASE | {ALG: {0: 0.8, 1: 0.74, 2: 0.5}})
    majority = (10 * 0.8 + 20 * 0.74) / 30  # every image counts once
    points, relative = change(rows), change(rows, scale="relative")
    assert points.to_dict() == pytest.approx({"minority": 10, "majority": 100 * (majority - 0.8)})
    assert relative.to_dict() == pytest.approx({"minority": -25, "majority": 100 * (0.8 - majority) / 0.8})
    assert set(mitigation.changes(rows)["way"]) == {"lagrangian"}


def test_means_are_paired_so_that_what_seeds_share_cancels() -> None:
    [row] = mitigation.compared(table(BASE | {ALG: {2: 0.5}})).itertuples()
    assert (row.n_seeds, row.group_name) == (3, "minority")
    assert [row.mean, row.low, row.high] == pytest.approx([10, 10, 10])


def test_a_diverged_seed_is_counted_and_leaves_with_its_plain_partner() -> None:
    rows = table(BASE | {ALG: {0: 0.8, 1: 0.8, 2: 0.5}}, lost=[("lagrangian", 2)])
    shift = (rows["arm"] == "plain") & (rows["seed"] == 2)
    rows.loc[shift, "accuracy"] -= 0.3
    found = mitigation.compared(rows).set_index("group_name")
    assert found.loc["minority", ["n_seeds", "mean"]].tolist() == pytest.approx([2, 10])
    lost = mitigation.lost_seeds(rows).set_index("way")
    assert lost.loc["lagrangian", ["diverged", "n_seeds"]].tolist() == [1, 3] and lost.loc["plain", "diverged"] == 0


def test_ways_before_and_both_are_told_from_after_though_they_share_the_arm() -> None:
    rows = table(
        BASE
        | {
            ALG: {2: 0.5},
            ("plain", "mitigation=lagrangian"): {2: 0.6},
            ("lagrangian", "mitigation=lagrangian"): {2: 0.7},
        }
    )
    means = mitigation.compared(rows).set_index("way")["mean"].to_dict()
    assert means == pytest.approx({"lagrangian": 10, "lagrangian, before": 20, "lagrangian, both": 30})


def test_without_plain_there_is_nothing_to_compare_with_and_the_error_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="'plain'.*lagrangian, original"):
        mitigation.changes(table({ORIGINAL: BASE[ORIGINAL], ALG: {2: 0.5}}))
    with pytest.raises(ValueError, match="'roles'.*role"):
        mitigation.changes(table(BASE | {ALG: {2: 0.5}}), pooled="roles")
    with pytest.raises(ValueError, match="'risk'"):
        mitigation.diagnosed(table(BASE), "risk", split="test", ways=["plain"])


def test_where_every_seed_diverged_there_are_no_means_and_tables_say_so() -> None:
    rows = table(BASE | {ALG: {2: 0.5}}, lost=[("lagrangian", seed) for seed in SEEDS])
    for found in (mitigation.compared(rows), mitigation.compared(rows, against="lagrangian")):
        assert found.empty and readable(found) is NOTHING
    assert mitigation.ratios(rows, "margin", split="test").empty and mitigation.in_and_out(rows).empty
    assert set(mitigation.trade(rows)["way"]) == {"original", "plain"}


@pytest.mark.parametrize("noise", [0.0, 3e-8])
def test_single_groups_are_counted_once_a_seed(noise: float) -> None:
    """Also where accuracies are means of shares of views, in float32: what is off by that is the same."""
    rows = table(BASE | {ALG: {0: 0.85, 1: 0.7, 2: 0.4}})
    rows["accuracy"] += noise * np.cos(7 * np.arange(len(rows)))
    found = mitigation.shares_of_groups(rows).set_index("role")
    counted = ["n", "gain", "same", "lose"]
    assert found.loc["majority", counted].tolist() == [6, 3, 0, 3]
    assert found.loc["minority", counted].tolist() == [3, 0, 3, 0]


def test_gain_lost_out_of_sample_is_the_difference_within_a_seed() -> None:
    rows = table(BASE | {ALG: {2: 0.5}})
    rows.loc[(rows["arm"] == "lagrangian") & (rows["split"] == "train"), "accuracy"] += 0.03
    found = mitigation.in_and_out(rows).set_index("of")["mean"]
    assert found.to_dict() == pytest.approx({"train": 13, "test_balanced": 10, "train minus test": 3})


def test_trade_has_the_violation_by_hand_and_its_change() -> None:
    ways = {
        ALG: {0: 0.7, 1: 0.8, 2: 0.6},
        ("kd_over_c", ""): {0: 0.95, 1: 0.95, 2: 0.45},
        ("group_dro", ""): {0: 0.7, 1: 0.8, 2: 0.5},
    }
    rows = table(BASE | ways)
    means = mitigation.trade(rows).pivot(index="way", columns="of", values="mean")
    expected = [20, 100 * (23 / 30 - 0.6), 61]
    assert means.loc["lagrangian", ["violation", "gap", "worst"]].tolist() == pytest.approx(expected)
    assert means.loc["plain", "accuracy"] == pytest.approx(100 * (0.8 * 30 + 0.4 * 30) / 60 + 1)
    changed = mitigation.trade(rows, against="plain").set_index(["way", "of"])
    assert changed.loc[("lagrangian", "violation"), ["mean", "low", "high"]].tolist() == pytest.approx([20 - 40] * 3)


def test_ratios_of_diagnostics_are_geometric_and_the_original_stands_for_all_ways_at_100() -> None:
    rows = table(BASE | {ALG: {0: 0.8, 1: 0.8, 2: 0.5}})
    found = mitigation.ratios(rows, "gradient_norm", split="train").set_index("role")
    assert found.loc["minority", ["mean", "low", "high"]].tolist() == pytest.approx([0.8] * 3)
    assert found.loc["majority", "mean"] == pytest.approx(1)
    assert mitigation.ratios(rows, "margin", split="test").set_index("role").loc["minority", "mean"] == pytest.approx(
        1.25
    )


def test_agreement_counts_rows_in_common_and_finds_the_largest_difference() -> None:
    one, other = table(BASE), table(BASE | {ALG: {2: 0.5}})
    assert mitigation.agreement(one, other) == (len(one), 0.0)
    other.loc[(other["arm"] == "plain") & (other["seed"] == 1) & (other["group"] == 0), "accuracy"] += 0.02
    assert mitigation.agreement(other[other["seed"] > 0], one) == (len(one) * 2 // 3, pytest.approx(2.0))
    none, difference = mitigation.agreement(one, other.assign(budget=0.5))
    assert none == 0 and math.isnan(difference)


def test_the_grid_is_every_way_while_fine_tuning_two_in_the_mask_phase_and_deepreduce_on_a_thin_resnet() -> None:
    """The cells and arms that the committed tables were computed with, written out."""
    shared = {"profile": "small", "curvature": "none"}
    snl = shared | {"method": "snl", "budgets": (0.4, 0.2, 0.02), "seeds": range(10)}
    [cell] = grid("digits", "mlp", **snl)
    steps = [f"lagrangian(mu={mu})" for mu in (0.0005, 0.005, 0.01, 1.0)]
    other = ["lagrangian(mu=0.005, clip=5.0)", "lagrangian(one_sided=True)", "lagrangian(kd_over_classes=True)"]
    after = {"lagrangian", *steps, *other, "kd_over_c", "excess_drop", "group_dro", "balanced_sampling"}
    expected = {cell: {"original", "plain", "control", *after}}
    for name in mitigation.SELECTED:
        [cell] = grid("digits", "mlp", options={"mitigation": name}, **snl)
        expected[cell] = {"original", "plain", name}
    for cell in grid("digits", "resnet18", method="deepreduce", budgets=(0.4, 0.2, 0.1), seeds=range(5), **shared):
        expected[cell] = {"original", "plain", "control", "lagrangian", "kd_over_c", "balanced_sampling"}
    assert {job.cell: set(job.arms) for job in plan(find("repair"), "small")} == expected


@pytest.fixture(scope="module")
def committed() -> dict[str, pd.DataFrame]:
    return {name: tables.committed(name) for name in (mitigation.TABLE, mitigation.DEEPREDUCE_TABLE)}


def test_the_committed_rows_are_whole(committed: dict) -> None:
    for name, (network, panels, seeds) in {
        mitigation.TABLE: ("mlp", slice(0, 3), 10),
        mitigation.DEEPREDUCE_TABLE: ("resnet18", slice(3, 4), 5),
    }.items():
        rows, arms = committed[name], {arm for panel in find("repair")[0].panels[panels] for arm in panel.arms}
        assert set(rows["arm"]) == arms and set(rows["network"]) == {network}
        assert rows["seed"].nunique() == seeds and rows.groupby("seed")["teacher"].nunique().eq(1).all()


def sides_of(means: pd.DataFrame, way: str, by: str = "group_name") -> dict[tuple[str, float], str]:
    found = readable(means[means["way"] == way].rename(columns={by: "group_name"}))
    return {(row.group, row.budget): row.side for row in found.itertuples()}


def test_what_the_page_says_of_algorithm_1_and_its_rivals_holds_in_the_committed_rows(committed: dict) -> None:
    rows, deep = committed.values()
    means = mitigation.compared(rows)
    majority = readable(means[means["group_name"] == "majority"]).set_index(["way", "budget"])["side"]
    assert majority["Alg. 1, mu 0.001"].to_dict() == {"40 %": SIDES[2], "20 %": "down", "2 %": "down"}
    assert "down" not in set(majority["KD / C"])
    at = majority.xs("20 %", level="budget")
    assert set(at.index[at != "down"]) == {"KD / C", "Alg. 1, before"}
    minority = means[(means["group_name"] == "minority") & (means["budget"] == mitigation.HEADLINE)]
    assert set(readable(minority)["side"]) == {"up"}
    deep = readable(mitigation.compared(deep)).set_index(["group", "way", "budget"])["side"].sort_index()
    for way in ("Alg. 1, mu 0.001", "balanced sampling"):
        assert set(deep["minority", way]) == {"up"}
        assert deep["majority", way].to_dict() == {"40 %": SIDES[2], "20 %": "down", "10 %": "down"}
    assert set(deep["minority", "KD / C"]) == {SIDES[2]} and set(deep["majority", "KD / C"]) == {"down"}
    rival = {
        way: sides_of(mitigation.compared(rows, against="lagrangian", ways=[way]), way) for way in mitigation.RIVALS
    }
    same = "no measurable change"
    for way, sides in zip(mitigation.RIVALS, ((same, same), ("up", "down"), ("up", same)), strict=True):
        assert (rival[way]["minority", "20 %"], rival[way]["majority", "20 %"]) == sides, way


def test_what_the_page_says_of_groups_norms_margins_and_steps_holds_in_the_committed_rows(committed: dict) -> None:
    rows, _ = committed.values()
    shares = mitigation.shares_of_groups(rows).query("way == 'lagrangian' and budget < 0.4").set_index("role")
    assert (shares.loc["minority", "gain"] > 45).all() and (shares.loc["majority", "lose"] >= 40).all()
    out = mitigation.in_and_out(rows).query("of == 'train minus test' and group_name == 'minority'")
    assert (readable(out)["side"] == "up").sum() >= len(out) - 2

    def ratio(column: str, split: str) -> dict[tuple[str, str], str]:
        found = readable(mitigation.ratios(rows, column, split=split), at=1)
        return {(row.role, row.budget): row.side for row in found.itertuples()}

    norms, tested, margins = (
        ratio("gradient_norm", "train"),
        ratio("gradient_norm", "test"),
        ratio("margin", "test_balanced"),
    )
    budgets = ("40 %", "20 %", "2 %")
    assert all(norms["minority", one] == "down" and norms["majority", one] == "up" for one in budgets)
    assert [one for one in budgets if tested["minority", one] == "down"] == ["20 %"]
    assert [margins["minority", one] for one in budgets] == ["up", "up", "down"] and margins[
        "majority", "2 %"
    ] == "down"
    lost = mitigation.lost_seeds(rows).set_index(["way", "budget"])["diverged"]
    assert all(lost[of_mu(mu)].sum() == 0 for mu in mitigation.MUS) and lost[of_mu(mitigation.BEYOND), 0.02] > 5
    steps = mitigation.compared(rows, against=of_mu(0.0005), ways=[of_mu(mu) for mu in mitigation.MUS])
    for mu in mitigation.MUS[1:]:
        sides = sides_of(steps, of_mu(mu))
        assert sides["majority", "20 %"] == sides["majority", "2 %"] == "down", mu


def test_what_the_page_says_of_selection_and_trade_off_holds_in_the_committed_rows(committed: dict) -> None:
    rows, _ = committed.values()
    for name in mitigation.SELECTED:
        sides = sides_of(mitigation.compared(rows, against=name, ways=[f"{name}, both"]), f"{name}, both")
        assert sides["minority", "20 %"] == "up", name
    trade = readable(mitigation.trade(rows, against="plain").query("way == 'lagrangian'")).set_index("of")["side"]
    assert trade["violation"] == "down" and trade["accuracy"] == "up"
    overall = mitigation.compared(rows, split="test", pooled="all", ways=["lagrangian"])
    assert sides_of(overall, "lagrangian")["all", "20 %"] == "down"
