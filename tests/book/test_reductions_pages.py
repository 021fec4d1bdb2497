"""What notebooks 14 and 15 compute from rows: means of made-up rows by hand, and the printed tables."""

import pandas as pd
import pytest
from linfair_book import fair_pruning, pruning, two_reductions

from linfair.engine.store import ResultStore

GROUPS = ("majority", "majority", "minority", "minority")


def rows(arm: str, right: list[float], *, budget: float = 0.5, seed: int = 0, **about: object) -> list[dict]:
    """A row for each group, of 100 test images each, in one network."""
    shared = {"data": "d", "network": "n", "profile": "p", "teacher": f"t{seed}", "split": "test", "n_train": 10}
    shared |= {"arm": arm, "budget": budget, "seed": seed, "n": 100, "seconds_finetune": 1.0} | about
    each = enumerate(zip(GROUPS, right, strict=True))
    return [
        shared | {"group": g, "group_name": str(g), "role": role, "accuracy": share, "excess": 1 - share}
        for g, (role, share) in each
    ]


def both_reductions(seeds: int = 2) -> pd.DataFrame:
    """ReLUs cost groups 0, 1, 2, 3 points 0, 10, 20, 30; weights twice that."""
    made = []
    for seed in range(seeds):
        for removed, times in (("ReLUs", 1), ("weights", 2)):
            lost = [0.9 - 0.1 * times * g for g in range(4)]
            about = {"seed": seed, "removed": removed}
            made += rows("original", [0.9] * 4, **about | {"budget": 1.0}) + rows("control", [0.9] * 4, **about)
            made += rows("plain", lost, **about) + rows("repair", [one + 0.05 for one in lost], **about)
    return pd.DataFrame(made)


def test_losses_are_against_the_control_by_role_and_groups_are_ranked_alike() -> None:
    table = both_reductions()
    lost = two_reductions.gained(table, arms=["control"]).set_index(["removed", "group_name"])["mean"]
    assert lost.to_dict() == pytest.approx(
        {
            ("ReLUs", "majority"): 5,
            ("ReLUs", "minority"): 25,
            ("weights", "majority"): 10,
            ("weights", "minority"): 50,
        }
    )
    assert two_reductions.same_groups(table)["mean"].tolist() == pytest.approx([1.0])
    gains = two_reductions.gained(table)
    assert set(gains["arm"]) == {"repair"} and gains["mean"].tolist() == pytest.approx([5.0] * 4)


def test_groups_in_the_opposite_order_are_ranked_opposite() -> None:
    table = both_reductions()
    swapped = (table["removed"] == "weights") & (table["arm"] == "plain")
    table.loc[swapped, "accuracy"] = table.loc[swapped, "group"].map(lambda g: 0.3 + 0.1 * g)
    assert two_reductions.same_groups(table)["mean"].tolist() == pytest.approx([-1.0])


def test_groups_are_ranked_across_studies_with_other_shares_and_the_same_seeds() -> None:
    table = both_reductions(3)
    relus, weights = (table[table["removed"] == removed].drop(columns="removed") for removed in ("ReLUs", "weights"))
    lower = relus["arm"].eq("plain")
    relus = pd.concat([relus, relus[~lower].assign(budget=0.1), relus[lower].assign(budget=0.1, accuracy=0.5)])
    turned = weights.assign(accuracy=weights["accuracy"].where(weights["arm"] != "plain", weights["group"] / 10))
    found = two_reductions.at_other_shares(relus[relus["seed"] > 0], weights)
    assert found.loc[found["shares"] == "50 % of ReLUs, 50 % of weights", "mean"].item() == pytest.approx(1.0)
    assert set(found["shares"]) == {"50 % of ReLUs, 50 % of weights", "10 % of ReLUs, 50 % of weights"}
    assert found["n_seeds"].max() == 2, "seeds of both"
    found = two_reductions.at_other_shares(relus[relus["budget"] > 0.1], turned)
    assert found["mean"].tolist() == pytest.approx([-1.0])


def test_the_effect_of_the_order_is_weights_first_minus_relus_first() -> None:
    made = []
    for seed in (0, 1):
        for removed, right in (("weights, then ReLUs", 0.7), ("ReLUs, then weights", 0.6)):
            made += rows("plain", [right] * 4, seed=seed, removed=removed)
    found = two_reductions.order_effect(pd.DataFrame(made)).set_index("role")["mean"]
    assert found.to_dict() == pytest.approx({"majority": 10, "minority": 10})


def test_changes_are_paired_with_no_mitigation_and_seconds_with_plain() -> None:
    made = []
    for seed in (0, 1):
        made += rows("No mitigation", [0.8, 0.8, 0.4, 0.4], seed=seed)
        for arm in ("Fair Bf", "Fair Aft", "Fair Both"):
            made += rows(arm, [0.7, 0.7, 0.5, 0.6], seed=seed)
    found = fair_pruning.changes(pd.DataFrame(made), split="test").set_index(["of", "arm"])["mean"]
    for arm in ("Fair Bf", "Fair Aft", "Fair Both"):
        assert found["overall", arm] == pytest.approx(2.5)
        assert found["max - min accuracy", arm] == found["max - min R(a)", arm] == pytest.approx(-20)
    levels = fair_pruning.levels(pd.DataFrame(made), split="test")
    assert list(dict.fromkeys(levels["arm"])) == ["No mitigation", "Fair Bf", "Fair Aft", "Fair Both"]
    groups = fair_pruning.by_group(pd.DataFrame(made), split="test").set_index(["group_name", "arm"])["mean"]
    assert groups.xs("Fair Aft", level="arm").to_dict() == pytest.approx({"0": -10, "1": -10, "2": 10, "3": 20})
    spent = rows(fair_pruning.PLAIN, [0.5] * 4) + rows(fair_pruning.FULL, [0.5] * 4, seconds_finetune=12.0)
    assert fair_pruning.seconds(pd.DataFrame(spent))["times plain"].tolist() == [1, 12]


def test_of_multipliers_the_largest_of_a_seed_counts() -> None:
    made = []
    for seed, most in ((0, 0.2), (1, 0.4)):
        made += rows("lagrangian", [0.5] * 4, seed=seed, base="") + rows("plain", [0.5] * 4, seed=seed, base="")
        made[-8]["multiplier"], made[-7]["multiplier"] = most, most / 2
    found = fair_pruning.multipliers(pd.DataFrame(made))
    assert found[["original trained on", "n_seeds"]].values.tolist() == [["cross entropy", 2]]
    assert found["mean"].item() == pytest.approx(0.3)


def test_rows_of_faces_are_pruned_on_cross_entropy_and_have_a_control() -> None:
    found = pruning.on_faces()
    for name, table in found.items():
        assert set(table.loc[table["base"] == "", "arm"]) == {"original", "plain", "control", "lagrangian"}, name
        assert set(table["method"]) == {"original", "prune_magnitude"} and set(table["split"]) == {"train", "test"}
    for table in pruning.usual(found).values():
        assert set(table["arm"]) == {"original", "plain", "control"} and set(table["base"]) == {""}


def test_the_committed_rows_have_every_arm_of_the_page() -> None:
    arms = set(fair_pruning.committed(0.005).query("base == ''")["arm"])
    assert arms == {"original", fair_pruning.PLAIN, fair_pruning.relaxed(0.005), fair_pruning.FULL} | {
        "balanced_sampling(kd=0.0)"
    }


def test_the_rows_of_the_page_can_be_computed(tmp_path, one_thread) -> None:
    """Two seeds, short: every arm of both original networks, paired by seed; the committed rows have the same arms."""
    how = {"profile": "smoke", "store": ResultStore(tmp_path), "progress": False}
    found = fair_pruning.compute([0, 1], budgets=[0.5], step=0.005, **how)
    assert set(found.query("base == ''")["arm"]) == set(fair_pruning.committed(0.005).query("base == ''")["arm"])
    assert set(found["base"]) == {"", "lagrangian(kd=0.0)"} == set(fair_pruning.committed(0.005)["base"])
    times = fair_pruning.before_and_after(
        found, fair_pruning.relaxed(0.005), base=fair_pruning.BASE, plain=fair_pruning.PLAIN
    )
    assert (times.groupby("arm")["seed"].nunique() == 2).all() and set(times["arm"]) == set(fair_pruning.TIMES)
    assert len(fair_pruning.balance(found)) == 6


def test_the_rows_of_both_reductions_can_be_computed_and_the_committed_ones_have_the_same_arms(
    tmp_path, one_thread
) -> None:
    """Oracle: the arms of the page, written out; each reduction removes from the same original networks."""
    arms = {"original", "plain", "control", "lagrangian(mu=0.005, clip=5.0)", "balanced_sampling"}
    how = {"profile": "smoke", "store": ResultStore(tmp_path), "progress": False}
    computed, committed = two_reductions.compute([0, 1], budgets=[0.5], **how), two_reductions.committed()
    for rows in (computed, committed):
        assert {what: set(part["arm"]) for what, part in rows.groupby("removed")} == {"ReLUs": arms, "weights": arms}
        assert rows["teacher"].nunique() == 1
    assert set(committed["seed"]) == set(range(10)) and set(committed["budget"]) == {1.0, 0.5, 0.3, 0.1}
