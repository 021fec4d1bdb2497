"""App. A.1 against closed forms, scikit-learn and finite differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from linfair_book.propositions import (
    SETTLED,
    STATIONARY,
    against_rest,
    descend,
    overlapping,
    settle,
    stationarity_table,
    with_mixture,
)
from sklearn.linear_model import LogisticRegression
from torch import nn

from linfair.data import GroupedData, Split
from linfair.metrics import group_gradient_norms
from linfair.theory.stationarity import GradientRatio, gradient_ratio


def linear() -> nn.Module:
    model = nn.Linear(2, 2).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def constant(ones: tuple[int, int], sizes: tuple[int, int]) -> GroupedData:
    """Inputs 0 only, so that a linear classifier is its bias; so many labels 1 in each of two groups."""
    y = torch.cat([torch.arange(size) < one for one, size in zip(ones, sizes, strict=True)]).long()
    a = torch.repeat_interleave(torch.arange(2), torch.tensor(sizes))
    part = Split(torch.zeros(sum(sizes), 2, dtype=torch.float64), y, a)
    return GroupedData("constant", {"train": part}, ("no", "yes"), ("large", "small"))


def test_bias_only_has_its_closed_form_at_the_optimum() -> None:
    """Oracle: p = share of label 1, so g_a = (p - mean_a y) (-1, 1), of norm sqrt(2) |p - mean_a y|."""
    data = constant((30, 8), (80, 10))
    found = gradient_ratio(settle(linear(), data), data)
    p = 38 / 90
    assert found.norm_large == pytest.approx(math.sqrt(2) * abs(p - 30 / 80), rel=1e-9)
    assert found.norm_small == pytest.approx(math.sqrt(2) * abs(p - 8 / 10), rel=1e-9)
    assert (found.small, found.large, found.n_small, found.n_large, found.n) == (1, 0, 10, 80, 90)
    assert found.ratio == pytest.approx(8, rel=1e-9)
    assert found.predicted == 8
    assert found.total < 1e-10
    assert found.holds


@pytest.mark.parametrize("decay", [0.01, 0.3])
def test_decayed_optimum_equals_scikit_learn(decay: float) -> None:
    """Oracle: LogisticRegression without intercept; two logits +-w/2 cost half of one logit w: C = 2 / (n decay)."""
    data = overlapping((60, 20), seed=1)
    part = data.splits["train"]
    model = settle(nn.Linear(2, 2, bias=False).double(), data, decay=decay)
    sklearn = LogisticRegression(C=2 / (80 * decay), fit_intercept=False, tol=1e-12, max_iter=10_000)
    sklearn.fit(part.x.numpy(), part.y.numpy())
    weight = model.weight.detach()
    assert (weight[1] - weight[0]).numpy() == pytest.approx(sklearn.coef_[0], rel=1e-5)
    # the rows of the gradient on data cancel: decay times the sum of rows is what is left of the gradient, summed
    assert decay * weight.sum(0).norm() <= math.sqrt(2) * SETTLED


def test_decayed_total_gradient_is_the_decay_times_the_weights() -> None:
    """Oracle: the stationarity condition grad J = -decay theta."""
    data = overlapping((60, 20), seed=1)
    model = settle(linear(), data, decay=0.05)
    norm = math.hypot(*(value.norm().item() for value in model.parameters()))
    assert gradient_ratio(model, data).total == pytest.approx(0.05 * norm, rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_two_groups_at_a_stationary_point_have_the_printed_ratio(seed: int) -> None:
    """Oracle: A.1, |g_b| / |g_a| = |S_a| / |S_b|, at a total gradient below 1e-9."""
    data = overlapping((90, 30), seed=seed)
    found = gradient_ratio(settle(linear(), data), data)
    assert found.total < 1e-9
    assert found.ratio == pytest.approx(3, rel=1e-6)


def test_norms_equal_finite_differences() -> None:
    """Oracle: central differences of each group's cross entropy by each weight."""
    data = overlapping((30, 10), seed=2)
    model = descend(linear(), data, 3)
    part = data.splits["train"]
    found = gradient_ratio(model, data)
    vector = torch.cat([value.detach().flatten() for value in model.parameters()])

    def risk(point: torch.Tensor, group: int) -> float:
        pick = part.a == group
        logits = part.x[pick] @ point[:4].view(2, 2).T + point[4:]
        return F.cross_entropy(logits, part.y[pick]).item()

    for group, norm in ((0, found.norm_large), (1, found.norm_small)):
        steps = 1e-5 * torch.eye(6, dtype=torch.float64)
        slopes = [(risk(vector + step, group) - risk(vector - step, group)) / 2e-5 for step in steps]
        assert norm == pytest.approx(float(np.linalg.norm(slopes)), rel=1e-7)


def test_descent_is_the_recursion_written_out() -> None:
    """Oracle: two steps of the bias by hand, b += 1/2 (mean y - p) (-1, 1)."""
    model = descend(linear(), constant((30, 8), (80, 10)), 2)
    first = 0.5 * (38 / 90 - 0.5)
    p = 1 / (1 + math.exp(-2 * first))
    second = first + 0.5 * (38 / 90 - p)
    assert model.bias.tolist() == pytest.approx([-second, second], rel=1e-12)


def test_a_mixture_has_no_gradient_though_it_is_the_smallest_group() -> None:
    """Oracle: its distribution is that of the whole sample, whose gradient is 0."""
    two = overlapping((40, 20), seed=3)
    data = with_mixture(two, 4)
    assert data.counts == [160, 80, 60]
    model = settle(linear(), data)
    norms = [row.norm for row in group_gradient_norms(model, data)]
    assert norms[2] < 1e-9 < norms[0] < norms[1]
    found = gradient_ratio(model, data)
    assert (found.small, found.large, found.holds) == (2, 0, False)


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_one_size_have_gradients_of_one_length(seed: int) -> None:
    """Oracle: g_a = -g_b at a stationary point, so the statement holds whichever of the two is called the smaller."""
    data = overlapping((20, 20), seed=seed)
    found = gradient_ratio(settle(linear(), data), data)
    assert found.ratio == pytest.approx(1, rel=1e-6)
    assert found.holds and replace(found, norm_small=found.norm_large, norm_large=found.norm_small).holds
    assert not replace(found, norm_small=0.99 * found.norm_large).holds


def test_one_group_against_the_rest_is_two_groups() -> None:
    data = overlapping((50, 30, 20), seed=4)
    found = gradient_ratio(settle(linear(), data), against_rest(data, 2))
    assert found.ratio == pytest.approx(4, rel=1e-6)
    assert (found.n_small, found.n_large) == (20, 80)


def test_table_keeps_the_ratio_exactly_where_the_assumptions_hold() -> None:
    """Oracle: A.1 itself, and that each broken assumption moves the ratio."""
    table = stationarity_table(seed=3).set_index("variant")
    exact = table[table["applies"]]
    assert {"logistic regression", "smallest against the rest", "tanh network"} <= set(exact.index)
    assert exact["ratio"].to_numpy() == pytest.approx(exact["predicted"].to_numpy(), rel=1e-4)
    assert (exact["total"] <= STATIONARY * exact["norm_small"]).all()
    assert not table.loc["ReLU network", "applies"]  # its minimum lies on a kink
    decayed = table.loc["weight decay"]
    off = (decayed["ratio"] / decayed["predicted"] - 1).abs()
    assert off.is_monotonic_increasing
    assert off.iloc[-1] > 0.05
    assert abs(table.loc["three groups", "ratio"] / table.loc["three groups", "predicted"] - 1) > 0.05
    mixture = table.loc["smallest is a mixture"]
    assert mixture["ratio"] < 1e-6
    assert not mixture["holds"]
    stopped = table.loc["early stopping"]
    assert abs(stopped["ratio"].iloc[0] / stopped["predicted"].iloc[0] - 1) > 0.05


def test_ratio_of_two_zero_gradients_is_not_a_number() -> None:
    assert math.isnan(GradientRatio(1, 0, 1, 2, 0.0, 0.0, 0.0, 3).ratio)
    assert GradientRatio(1, 0, 1, 2, 1.0, 0.0, 0.0, 3).ratio == math.inf


def test_one_group_is_refused() -> None:
    data = overlapping((30,))
    with pytest.raises(ValueError, match="two groups, overlapping has 1"):
        gradient_ratio(linear(), data)
