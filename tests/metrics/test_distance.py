"""Parameter distance against the flattened norm, churn against loops and fairlearn."""

import copy
import math

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame
from hypothesis import given
from hypothesis import strategies as st
from of_networks import churn_of
from torch import nn
from torch.nn.utils import parameters_to_vector

from linfair import gates
from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.metrics.accuracy import wilson
from linfair.metrics.distance import group_churn, parameter_distance
from linfair.models import build

IMAGE = (1, 8, 8)


def network(seed: int, name: str = "resnet18", width: int = 2) -> nn.Module:
    return build(name, IMAGE, 3, width=width, seed=seed)


@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_distance_equals_the_norm_of_the_flattened_difference(name: str) -> None:
    one, two = network(0, name), network(1, name)
    theta, reference = (parameters_to_vector(model.parameters()).detach().double() for model in (one, two))
    found = parameter_distance(one, two)
    assert found.n == len(theta)
    assert found.distance == pytest.approx(float((theta - reference).norm()), rel=1e-12)
    assert found.original == pytest.approx(float(reference.norm()), rel=1e-12)
    assert found.relative == pytest.approx(found.distance / found.original, rel=1e-12)
    assert found.distance == pytest.approx(parameter_distance(two, one).distance, rel=1e-12)


def test_distance_of_a_copy_is_zero_and_of_one_moved_weight_its_step() -> None:
    one = network(0)
    two = copy.deepcopy(one)
    assert parameter_distance(two, one).distance == 0
    with torch.no_grad():
        two.head.weight[0, 0] = one.head.weight[0, 0] - 0.5
    assert parameter_distance(two, one).distance == pytest.approx(0.5, rel=1e-6)


def test_gates_and_running_statistics_are_no_part_of_the_distance() -> None:
    """A linearized copy with the original's weights is at distance 0, whatever its alphas and batch-norm statistics."""
    original = network(0)
    linearized = gates.binarise(gates.set_alphas(gates.install(original, IMAGE), lambda _, alpha: alpha * 0))
    linearized.stem[1].running_mean += 1
    found = parameter_distance(linearized, original)
    assert found.distance == 0
    assert found.n == sum(value.numel() for value in original.parameters())
    assert parameter_distance(linearized, linearized).n == found.n


def test_relative_distance_from_an_all_zero_network_is_not_a_number() -> None:
    zero = nn.Linear(2, 2)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    assert math.isnan(parameter_distance(nn.Linear(2, 2), zero).relative)


def with_nan() -> nn.Module:
    bad = network(0)
    with torch.no_grad():
        bad.head.bias[0] = math.nan
    return bad


@pytest.mark.parametrize(
    ("model", "original", "message"),
    [
        (network(0, width=4), network(0), r"stem.0.weight is \(4, 1, 3, 3\) in the linearized network, \(2, 1, 3, 3\)"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, bias=False)),
            nn.Sequential(nn.Linear(2, 2)),
            r"1.weight is \(2, 2\) in the linearized network, missing in the original$",
        ),
        (
            nn.Linear(2, 2, bias=False),
            nn.Linear(2, 2),
            r"bias is missing in the linearized network, \(2,\) in the original$",
        ),
        (network(0, "mlp"), network(0), r"\.\.\. \d+ more"),
        (nn.ReLU(), nn.ReLU(), "no parameters"),
        (with_nan(), network(0), "linearized network are not finite: head.bias"),
        (network(0), with_nan(), "original network are not finite: head.bias"),
        (Ensemble([network(0), network(1)]), network(0), "linearized network is an ensemble of 2"),
    ],
)
def test_networks_that_cannot_be_compared_are_errors_that_say_what_differs(
    model: nn.Module, original: nn.Module, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_distance(model, original)


@given(seed=st.integers(0, 1000))
def test_churn_is_symmetric_equals_fairlearns_metric_frame_and_has_wilsons_interval(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, two = torch.randn(2, 40, 3, generator=generator)
    groups = torch.arange(40) % 3
    frame = MetricFrame(
        metrics=lambda y_true, y_pred: float(np.mean(y_true != y_pred)),
        y_true=one.argmax(dim=1).numpy(),
        y_pred=two.argmax(dim=1).numpy(),
        sensitive_features=groups.numpy(),
    ).by_group
    rows = group_churn(one, two, groups, 3)
    assert rows == group_churn(two, one, groups, 3)
    assert [row.mean for row in rows] == pytest.approx(frame.tolist(), abs=1e-12)
    for row in rows:
        assert (row.low, row.high) == wilson(row.mean, row.n)


def test_churn_of_networks_equals_a_loop_over_single_inputs(digits: GroupedData, teacher: nn.Module) -> None:
    linearized = gates.install(teacher, digits.input_shape)
    gates.binarise(gates.set_alphas(linearized, lambda _, alpha: alpha * (torch.arange(alpha.shape[-1]) % 2)))
    part = digits.splits["test"]
    changed, n = [0] * 10, [0] * 10
    for x, a in zip(part.x, part.a, strict=True):
        x = digits.normalise(x[None])
        changed[int(a)] += int(teacher(x).argmax()) != int(linearized(x).argmax())
        n[int(a)] += 1
    rows = churn_of(linearized, teacher, digits, "test")
    assert sum(changed) > 0
    assert [(row.n, round(row.mean * row.n)) for row in rows] == list(zip(n, changed, strict=True))


def test_churn_of_a_network_with_itself_is_zero(digits: GroupedData, teacher: nn.Module) -> None:
    same = gates.install(teacher, digits.input_shape)
    assert [row.mean for row in churn_of(same, teacher, digits, "test")] == [0.0] * 10
    assert all(row.high > 0 for row in churn_of(teacher, teacher, digits, "test"))


ONE = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_churn(ONE, torch.zeros(2, 4), torch.tensor([0, 1]), 2), r"\(2, 3\), \(2, 4\)"),
        (lambda: group_churn(ONE, ONE / 0, torch.tensor([0, 1]), 2), "not finite"),
        (lambda: group_churn(ONE, ONE, torch.tensor([0, 0]), 2), r"groups \[1\] have no inputs"),
        (lambda: group_churn(ONE[:, :1], ONE[:, :1], torch.tensor([0, 1]), 2), "classes >= 2"),
    ],
)
def test_undefined_churn_is_an_error_that_quotes_what_was_given(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
