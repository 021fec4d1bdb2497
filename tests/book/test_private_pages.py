"""What notebooks 16 to 18 compute: means of made-up rows by hand, and small runs of every function that trains."""

import math

import pandas as pd
import pytest
from linfair_book import private_training

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
    table = private_training.named(every_rule())
    found = table.drop_duplicates(["images", "trained", "guarantee"])[["images", "trained", "guarantee"]]
    assert found.to_numpy().tolist() == [
        [10, "SGD", "no guarantee"],
        [10, "DP-SGD, no noise", "no guarantee"],
        [10, "DP-SGD", "(8, 1e-5)"],
        [10, "DP-SAT", "(8, 1e-5)"],
        [90, "SGD", "no guarantee"],
    ]


def test_a_guarantee_that_ended_is_not_printed() -> None:
    made = rows("sgd", (1.0, 1.0)) + rows("dp_sgd", (1.0, 1.0), epsilon=8.0, guarantee="retraining")
    assert set(private_training.named(pd.DataFrame(made))["guarantee"]) == {"no guarantee"}


def test_the_minority_are_the_same_classes_where_they_have_as_many_images() -> None:
    levels = private_training.levels(private_training.named(every_rule()), split="test")
    even = levels[levels["images"] == 90].set_index("group_name")["mean"]
    assert even.to_dict() == pytest.approx({"majority": 100, "minority": 90, "all": 95})


def test_changes_are_paired_over_seeds_with_sgd_or_with_the_same_guarantee() -> None:
    table = private_training.named(every_rule())
    lost = private_training.changes(table, split="test").set_index(["trained", "group_name"])
    assert lost.loc[("DP-SGD", "majority"), ["mean", "low", "high"]].tolist() == pytest.approx([-10, -10, -10])
    assert lost.loc[("DP-SGD", "minority"), "mean"] == pytest.approx(-70)
    noisy = table[table["guarantee"] != private_training.NOTHING]
    gained = private_training.changes(noisy, split="test", against="DP-SGD").set_index("group_name")["mean"]
    assert gained.to_dict() == pytest.approx({"majority": 0, "minority": 10, "all": 5})
    shown = private_training.wide(private_training.levels(noisy, split="test"))
    assert shown["trained"].tolist() == ["DP-SGD", "DP-SAT"] and (shown["guarantee"] == "(8, 1e-5)").all()


def test_the_rows_of_notebook_16_can_be_computed(tmp_path, one_thread) -> None:
    """Two seeds, two epochs: both data sets, a rule without and one with a guarantee."""
    how = {"epsilons": [8.0], "profile": "smoke", "rules": ("sgd", "dp_sgd(epsilon=8.0)")}
    table = private_training.compute([0, 1], store=ResultStore(tmp_path), progress=False, **how)
    levels = private_training.levels(private_training.named(table), split="test_balanced")
    assert len(levels) == 2 * 2 * 3 and set(levels["guarantee"]) == {"no guarantee", "(8, 1e-5)"}
