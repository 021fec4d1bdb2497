"""Prop. 4.3: the counterexample against a numerical optimiser, the shares against counting by hand."""

import math

import numpy as np
import pytest
import torch
from of_networks import excess_of
from scipy.optimize import minimize

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
