"""What notebooks 16 to 18 compute: means of made-up rows by hand, and small runs of every function that trains."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
from linfair_book import membership, private_training, three_prices

from linfair.engine.store import ResultStore

GROUPS = ("majority", "majority", "minority", "minority")


def rows(rule: str, right: tuple[float, float], *, seed: int = 0, few: bool = True, **about: object) -> list[dict]:
    """A row for each of four groups, of 100 test images each; in a set with as many images all are the majority."""
    epsilon = about.pop("epsilon", math.inf)
    shared = {"data": f"digits ({'' if few else 'minority_fraction=0.9, '}shift=0)", "network": "mlp", "profile": "p"}
    shared |= {"split": "test", "seed": seed, "rule": rule, "epsilon": epsilon, "arm": "original", "base": rule}
    shared |= {"delta": 1e-5 * math.isfinite(epsilon), "guarantee": "holds" if math.isfinite(epsilon) else ""} | about
    values = [right[role == "minority"] for role in GROUPS]
    sizes = [90 if role == "majority" or not few else 10 for role in GROUPS]
    each = enumerate(zip(GROUPS, values, sizes, strict=True))
    return [
        shared
        | {"group": g, "group_name": str(g), "role": role if few else "majority", "n": 100, "n_train": size}
        | {"accuracy": value}
        for g, (role, value, size) in each
    ]


def every_rule() -> pd.DataFrame:
    made = []
    for seed, less in ((0, 0.0), (1, 0.1)):
        made += rows("dp_sgd", (0.9 - less, 0.1), seed=seed, epsilon=8.0)
        made += rows("dp_sat", (0.9 - less, 0.2), seed=seed, epsilon=8.0)
        made += rows("dp_sgd", (0.9, 0.0), seed=seed)
        made += rows("sgd", (1.0 - less, 0.8), seed=seed)
        made += rows("sgd", (1.0, 0.9), seed=seed, few=False)
    return pd.DataFrame(made)


def test_every_rule_stands_beside_its_guarantee_in_the_order_of_the_page() -> None:
    table = private_training.accuracies(every_rule(), split="test")
    assert table.drop_duplicates(["images", "trained"])[["images", "trained"]].to_numpy().tolist() == [
        [10, "SGD, no guarantee"],
        [10, "DP-SGD, no noise, no guarantee"],
        [10, "DP-SGD, (8, 1e-5)"],
        [10, "DP-SAT, (8, 1e-5)"],
        [90, "SGD, no guarantee"],
    ]


def test_a_guarantee_that_ended_is_not_printed() -> None:
    made = pd.DataFrame(rows("dp_sgd", (1.0, 1.0), epsilon=8.0, guarantee="retraining"))
    assert set(private_training.spoken(made)["trained"]) == {"DP-SGD, no guarantee"}


def test_the_minority_are_the_same_classes_where_they_have_as_many_images() -> None:
    means = private_training.means(private_training.accuracies(every_rule(), split="test"))
    even = means[means["images"] == 90].set_index("group_name")["mean"]
    assert even.to_dict() == pytest.approx({"majority": 100, "minority": 90, "all": 95})


def test_gains_are_paired_over_seeds_with_sgd_or_with_the_same_guarantee() -> None:
    table = private_training.accuracies(every_rule(), split="test")
    found = private_training.gains(table).set_index(["trained", "group_name"])
    lost = found.loc[("DP-SGD, (8, 1e-5)", "majority"), ["mean", "low", "high"]]
    assert lost.tolist() == pytest.approx([-10, -10, -10])
    assert found.loc[("DP-SGD, (8, 1e-5)", "minority"), "mean"] == pytest.approx(-70)
    assert private_training.PLAIN not in found.index
    noisy = table[table["guarantee"] != private_training.NOTHING]
    gained = private_training.gains(noisy, over="DP-SGD")
    assert set(gained["trained"]) == {"DP-SAT, (8, 1e-5)"}
    assert gained.set_index("group_name")["mean"].to_dict() == pytest.approx({"majority": 0, "minority": 10, "all": 5})


def test_the_rows_of_notebook_16_can_be_computed(tmp_path, one_thread) -> None:
    """Two seeds: both data sets, a rule without and one with a guarantee."""
    how = {"profile": "smoke", "store": ResultStore(tmp_path), "progress": False}
    table = private_training.compute([0, 1], ("sgd", "dp_sgd(epsilon=8.0)"), **how)
    means = private_training.means(private_training.accuracies(table, split="test_balanced"))
    assert len(means) == 2 * 2 * 3 and set(means["trained"]) == {private_training.PLAIN, "DP-SGD, (8, 1e-5)"}


@pytest.fixture(scope="module")
def shadows(tmp_path_factory: pytest.TempPathFactory) -> membership.Shadows:
    """Four networks on skewed digits, two epochs."""
    pool, store = membership.pooled("digits_s", 0), ResultStore(tmp_path_factory.mktemp("store"))
    return membership.train(pool, count=4, profile="smoke", store=store, progress=False)


def test_a_pool_has_nothing_of_the_test_and_each_network_half_of_it(shadows: membership.Shadows) -> None:
    pool = shadows.pool.splits
    assert len(pool["train"]) == 1200 and (shadows.inside.sum(1) == 600).all()
    seen = {one.numpy().tobytes() for one in pool["train"].x}
    assert not seen & {one.numpy().tobytes() for one in pool["test"].x}


def test_conflicting_images_are_those_in_the_other_domain_than_their_class(shadows: membership.Shadows) -> None:
    side, _, names = membership.sides(shadows.pool)
    assert names == ("aligned", "conflicting") and side.mean() == pytest.approx(0.05)
    assert membership.sides(shadows.pool, "test")[0].mean() == 0.5


def test_rows_of_attacks_say_their_rule_and_accuracy_of_all_is_that_of_both_sides(shadows: membership.Shadows) -> None:
    table = membership.exposed(shadows, ["loss"], draws=2)
    assert set(table["who"]) == {"all", "all, within cells", "aligned", "conflicting"}
    assert (table["rule"] == "sgd").all() and (table["shadows"] == 4).all() and (table["n"] > 0).all()
    found = membership.of_sides(shadows, membership.correct(shadows))
    assert found["all"] == pytest.approx((found["aligned"] + found["conflicting"]) / 2)


def test_non_members_of_another_distribution_are_told_apart_by_it(shadows: membership.Shadows) -> None:
    """A made-up network that is surer of aligned images and knows no member."""
    side, _, _ = membership.sides(shadows.pool)
    sure = {"train": 1.0 - side, "test": 1.0 - membership.sides(shadows.pool, "test")[0]}
    knows_colour = copy.copy(shadows)
    object.__setattr__(knows_colour, "confidences", lambda model=None, split="train": np.tile(sure[split], (4, 1)))
    found = membership.confounded(knows_colour).set_index("who")["auc"]
    assert found["test of both domains"] == pytest.approx(0.725, abs=0.02)  # 0.95 aligned against 0.5
    assert found["drawn like members"] == pytest.approx(0.5, abs=0.02) and found["all, within cells"] == 0.5


def test_the_look_before_is_one_epoch_before_the_least_test_loss() -> None:
    losses = {1: 3.0, 2: 1.0, 3: 2.0}
    epochs = pd.DataFrame([{"epoch": e, "test_loss": loss, "seed": 0, "auc": e / 10} for e, loss in losses.items()])
    found = membership.looks(pd.concat([epochs, epochs[:1].assign(seed=1)])).set_index(["seed", "at"])["epoch"]
    assert found[0].to_dict() == {"before": 1, "least": 2, "last": 3}
    assert found[1].to_dict() == {"before": 1, "least": 1, "last": 1}


def test_every_epoch_is_looked_at(one_thread) -> None:
    epochs = membership.memorization(membership.pooled("digits", 0), count=4, profile="smoke")
    assert epochs.groupby("attack")["epoch"].apply(list).to_dict() == {"loss": [1, 2], "lira_online": [1, 2]}


def made_smaller(losses: dict[str, float], *, share: float = 0.9) -> pd.DataFrame:
    """Networks of two rules and two seeds, whole and pruned: a rule's loss in the majority, twice that in the other."""
    made = []
    for seed in (0, 1):
        for rule, loss in losses.items():
            private = rule == "dp_sgd"
            about = {"seed": seed, "rule": rule, "epsilon": 8.0 if private else math.inf, "delta": 1e-5 * private}
            for change, times in (("whole", 0), ("30 % of weights", 1)):
                right = {"majority": share - times * loss, "minority": share - 2 * times * loss}
                right["all"] = sum(right.values()) / 2
                about |= {"change": change, "worst": 0.5, "auc": 0.6 - 0.1 * private, "kb": 2.0}
                about["guarantee"] = "holds" if private else ""
                made += [about | {"who": who, "accuracy": one} for who, one in right.items()]
    return pd.DataFrame(made)


def test_what_a_change_takes_is_paired_with_what_it_takes_from_sgd() -> None:
    found = three_prices.lost(made_smaller({"sgd": 0.1, "dp_sgd": 0.3}), "30 % of weights")
    means = found.set_index(["of", "trained", "who"])["mean"].sort_index()
    taken = {"all": 15, "majority": 10, "minority": 20, "minority less majority": 10}
    assert means["points lost", private_training.PLAIN].to_dict() == pytest.approx(taken)
    more = means["more than SGD", "DP-SGD, (8, 1e-5)"]
    assert more.to_dict() == pytest.approx({name: 2 * value for name, value in taken.items()})


def test_prices_are_named_by_rule_guarantee_and_change_and_scores_by_ours() -> None:
    table = made_smaller({"sgd": 0.1, "dp_sgd": 0.3})
    found = three_prices.prices(table).set_index(["network", "of"])["mean"]
    assert found["DP-SGD, (8, 1e-5): 30 % of weights", "accuracy (%)"] == pytest.approx(45)
    assert found["SGD, no guarantee: whole", "exposure (AUC)"] == pytest.approx(0.6)
    scores = three_prices.scores(table).set_index("network")
    assert scores.loc["DP-SGD, (8, 1e-5): whole", "score"] == pytest.approx(3 / (1 / 0.9 + 1 + 1))
    plain = scores.loc["SGD, no guarantee: 30 % of weights", "score"]
    assert plain == pytest.approx(3 / (1 / 0.75 + 1 / 0.8 + 1 / 0.9))
    assert (scores["best"] <= scores["worst"]).all()


def test_masks_that_read_no_image_keep_a_guarantee_and_retraining_ends_it(tmp_path, one_thread) -> None:
    how = {"count": 4, "profile": "smoke", "store": ResultStore(tmp_path), "progress": False}
    table = three_prices.rows([0], ["dp_sgd"], **how)
    ended = table.drop_duplicates("change").set_index("change")["guarantee"]
    assert (ended[["whole", "30 % of weights", "20 % of ReLUs", "both"]] == "holds").all()
    assert ended["30 % of weights, retrained"] == "fine-tuning" and ended["20 % of ReLUs by SNL, retrained"] == "SNL"
    kept = table.drop_duplicates("change").set_index("change")["relus"]
    assert kept["whole"] == kept["30 % of weights"] == 128 and kept["20 % of ReLUs"] == kept["both"] == 26
