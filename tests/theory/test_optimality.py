"""Prop. 4.3: the counterexample against a numerical optimiser, the shares against counting by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from linfair_book.propositions import optimality_shares
from of_networks import excess_of
from scipy.optimize import minimize

from linfair.metrics import wilson
from linfair.metrics.gradients import ParameterRisk
from linfair.metrics.risk import logits_on
from linfair.theory.optimality import counterexample


def test_counterexample_has_its_closed_form_excess() -> None:
    """Oracle: R(minority) = log(4/9), and `excessive_loss` on the networks themselves."""
    found = counterexample()
    rows = excess_of(found.linearized, found.original, found.data, "train")
    assert [row.mean for row in rows] == pytest.approx(list(found.excess), rel=1e-12)
    assert found.excess[1] == pytest.approx(math.log(4 / 9), rel=1e-12)
    assert [row.n for row in rows] == [14, 2]
    assert found.excess[1] < 0 < found.overall


def risk(logits: np.ndarray, y: np.ndarray) -> float:
    """Mean binary cross entropy of logits."""
    return float(np.mean(np.logaddexp(0, logits) - y * logits))


def test_both_networks_are_at_the_best_of_their_class() -> None:
    """Oracle: scipy's optimiser over every function on three points, and over every linear logit."""
    found = counterexample()
    part = found.data.splits["train"]
    x, y = part.x[:, 0].numpy(), part.y.numpy()
    free = minimize(lambda value: risk(value[x.astype(int) + 1], y), np.zeros(3), tol=1e-12)
    linear = minimize(lambda value: risk(value[0] + value[1] * x, y), np.ones(2), tol=1e-12)
    for network, best in ((found.original, free.fun), (found.linearized, linear.fun)):
        logits = logits_on(network, found.data, "train").numpy()
        assert risk(logits[:, 1] - logits[:, 0], y) == pytest.approx(best, abs=1e-10)
    assert linear.fun - free.fun == pytest.approx(found.overall, abs=1e-10)
    assert linear.x[1] == pytest.approx(0, abs=1e-5)


def test_original_is_at_a_stationary_point() -> None:
    """Oracle: the gradient of the whole risk by autograd."""
    found = counterexample()
    for network in (found.original, found.linearized):
        assert ParameterRisk(network, found.data, "train").gradient(torch.arange(16)).norm() < 1e-12


def test_minority_is_predicted_right_only_after_linearization() -> None:
    found = counterexample()
    part = found.data.splits["train"]
    right = [
        logits_on(network, found.data, "train").argmax(1) == part.y for network in (found.original, found.linearized)
    ]
    assert [hits[part.a == 1].double().mean().item() for hits in right] == [0, 1]
    assert [hits.double().mean().item() for hits in right] == [13 / 16, 9 / 16]


def test_shares_equal_counting_by_hand() -> None:
    train = [(0.5, -0.1), (0.0, 0.2), (0.25, -0.3), (-0.25, -0.4)]
    rows = [("train", seed, a, excess) for seed, both in enumerate(train) for a, excess in enumerate(both)]
    rows += [("test", 0, 0, 0.5), ("test", 0, 1, -0.1)]
    table = pd.DataFrame(rows, columns=["split", "seed", "group", "excess"])
    found = optimality_shares(table)
    assert found[["split", "group", "n", "count", "share"]].values.tolist() == [
        ["train", 0, 4, 3, 0.75],
        ["train", 1, 4, 1, 0.25],
        ["test", 0, 1, 1, 1.0],
        ["test", 1, 1, 0, 0.0],
    ]
    assert tuple(found.loc[0, ["low", "high"]]) == wilson(0.75, 4)
    assert found["mean"].tolist() == pytest.approx([0.125, -0.15, 0.5, -0.1])


def test_rows_without_an_excess_do_not_count() -> None:
    table = pd.DataFrame({"seed": [0, 1], "split": "test", "group": 0, "excess": [0.5, math.nan]})
    assert optimality_shares(table)["n"].tolist() == [1]
    with pytest.raises(ValueError, match="nothing to count"):
        optimality_shares(table[1:])


def test_a_seed_twice_in_a_group_is_refused() -> None:
    table = pd.DataFrame({"seed": [0, 0], "split": "test", "group": 0, "budget": [0.5, 0.2], "excess": [0.5, 0.1]})
    with pytest.raises(ValueError, match="repeat a seed"):
        optimality_shares(table)
    assert optimality_shares(table, by=("split", "group", "budget"))["n"].tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"no columns \['arm'\]"):
        optimality_shares(table, by=("arm",))
