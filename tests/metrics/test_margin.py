"""Margins and closeness against closed forms, sorting, loops and fairlearn."""

import math

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame, count
from hypothesis import given
from hypothesis import strategies as st
from of_networks import margin_of
from scipy import stats
from torch import nn

from linfair.data import GroupedData, load_data
from linfair.metrics.margin import closeness, closeness_of, margin, normalised
from linfair.metrics.risk import mean_by_group
from linfair.training import predict

SCORES = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=20)


def sample(seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(50, classes, generator=generator)
    return logits, torch.cat([torch.arange(3).repeat(4), torch.randint(3, (38,), generator=generator)])


@given(SCORES)
def test_margin_of_two_classes_is_the_hyperbolic_tangent_of_half_the_logit(scores: list[tuple[float, float]]) -> None:
    logits = torch.tensor(scores, dtype=torch.float64)
    expected = [math.tanh(abs(one - zero) / 2) for zero, one in scores]
    assert margin(logits).tolist() == pytest.approx(expected, abs=1e-12)


@given(SCORES)
def test_closeness_is_a_quarter_of_one_minus_the_squared_margin(scores: list[tuple[float, float]]) -> None:
    """With two classes m = |2 f - 1|, so f (1 - f) = (1 - m^2) / 4."""
    logits = torch.tensor(scores, dtype=torch.float64)
    assert torch.allclose(closeness(logits), (1 - margin(logits) ** 2) / 4, atol=1e-14, rtol=0)


def test_closeness_stays_exact_where_the_probability_rounds_to_one() -> None:
    """The closeness is exp(-z) to relative exp(-z), for z = 60, where 1 - f is 0 in float64."""
    assert closeness(torch.tensor([[0.0, 60.0], [60.0, 0.0]])).tolist() == pytest.approx(
        [math.exp(-60)] * 2, rel=1e-12, abs=0
    )


@given(seed=st.integers(0, 1000), classes=st.integers(2, 12))
def test_margin_equals_sorted_probabilities_of_numpy(seed: int, classes: int) -> None:
    logits, _ = sample(seed, classes)
    scores = np.exp(logits.double().numpy())
    p = np.sort(scores / scores.sum(axis=1, keepdims=True), axis=1)
    assert margin(logits).numpy() == pytest.approx(p[:, -1] - p[:, -2], abs=1e-12)


@given(seed=st.integers(0, 1000), shift=st.floats(-100, 100))
def test_margin_does_not_change_when_all_logits_move_or_classes_are_renamed(seed: int, shift: float) -> None:
    logits = sample(seed)[0].double()
    assert torch.allclose(margin(logits + shift), margin(logits), atol=1e-12, rtol=0)
    assert torch.allclose(margin(logits.flip(1)), margin(logits), atol=1e-15, rtol=0)


def test_margins_of_a_linear_classifier_are_the_closed_form_on_the_toy_data() -> None:
    """h(x) = W x + b: m(x) = tanh(|(w_1 - w_0) x + b_1 - b_0| / 2), averaged over each group by numpy."""
    toy = load_data("toy", seed=1)
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.5, -1.0], [-0.25, 2.0]]))
        linear.bias.copy_(torch.tensor([0.1, -0.3]))
    part = toy.splits["test"]
    z = part.x.double().numpy() @ np.array([-0.75, 3.0]) - 0.4
    margins, near, a = np.tanh(np.abs(z) / 2), 1 / (4 * np.cosh(z / 2) ** 2), part.a.numpy()
    for row, close in zip(margin_of(linear, toy, "test"), closeness_of(linear, toy, "test"), strict=True):
        assert row.n == close.n == (a == row.group).sum()
        assert row.mean == pytest.approx(margins[a == row.group].mean(), abs=1e-6)
        assert close.mean == pytest.approx(near[a == row.group].mean(), abs=1e-6)


@given(seed=st.integers(0, 1000))
def test_group_margins_equal_fairlearns_metric_frame_and_scipys_interval(seed: int) -> None:
    logits, groups = sample(seed)
    values = margin(logits).numpy()
    frame = MetricFrame(
        metrics={"mean": lambda y_true, y_pred: float(np.mean(y_pred)), "n": count},
        y_true=np.zeros(50),
        y_pred=values,
        sensitive_features=groups.numpy(),
    ).by_group
    rows = mean_by_group(margin(logits), groups, 3)
    assert [row.group for row in rows] == frame.index.tolist()
    assert [row.n for row in rows] == frame["n"].astype(int).tolist()
    assert [row.mean for row in rows] == pytest.approx(frame["mean"].tolist(), abs=1e-12)
    for row in rows:
        expected = stats.ttest_1samp(values[groups.numpy() == row.group], 0).confidence_interval(0.95)
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_group_margins_of_a_network_equal_a_loop_at_the_stored_position(
    digits: GroupedData, teacher: nn.Module
) -> None:
    """The bundled digits have nine views; the loop takes every image as it is stored, one at a time."""
    part = digits.splits["test"]
    found: dict[int, list[float]] = {group: [] for group in range(10)}
    for x, a in zip(part.x, part.a, strict=True):
        top = sorted(teacher(digits.normalise(x[None])).double().softmax(dim=1)[0].tolist())[-2:]
        found[int(a)].append(top[1] - top[0])
    rows = margin_of(teacher, digits, "test")
    assert [row.n for row in rows] == [len(values) for values in found.values()]
    assert [row.mean for row in rows] == pytest.approx([np.mean(values) for values in found.values()], abs=1e-5)
    moved = margin(predict(teacher, digits, "test", view=(2, 2)))
    assert abs(moved.mean().item() - np.mean([value for values in found.values() for value in values])) > 0.01


def test_the_divisor_of_equally_large_groups_does_not_depend_on_their_order() -> None:
    assert normalised([0.6, 0.2, 1.0], [90, 10, 90]) == pytest.approx([0.75, 0.25, 1.25])
    assert normalised([1.0, 0.2, 0.6], [90, 10, 90]) == pytest.approx([1.25, 0.25, 0.75])


def test_a_network_that_cannot_decide_has_margin_zero_and_nothing_to_be_normalised_by() -> None:
    means = margin(torch.zeros(2, 3)).tolist()
    assert means == [0, 0] and all(math.isnan(one) for one in normalised(means, [2, 1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: margin(torch.zeros(3)), r"classes >= 2\), got \(3,\)"),
        (lambda: margin(torch.zeros(3, 1)), r"classes >= 2\), got \(3, 1\)"),
        (
            lambda: margin(torch.tensor([[0.0, 1.0], [math.nan, 0.0]])),
            r"1 of 2 inputs are not finite \(first: input 1\)",
        ),
        (lambda: margin(torch.tensor([[0.0, math.inf]])), "not finite"),
        (lambda: closeness(torch.zeros(3, 4)), r"\(n, 2\), got \(3, 4\); use margin"),
    ],
)
def test_undefined_numbers_are_errors_that_quote_them(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
