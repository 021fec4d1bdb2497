"""Group risk, excessive loss and differences between groups against closed forms, loops, scipy and fairlearn."""

import math

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame, count
from hypothesis import given
from hypothesis import strategies as st
from of_networks import excess_of, risk_of
from scipy import stats
from sklearn.metrics import log_loss
from torch import nn

from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.metrics.accuracy import GroupAccuracy, group_accuracy, wilson
from linfair.metrics.risk import (
    GroupMean,
    disparity,
    excessive_loss,
    group_risk,
    logits_on,
    mean_by_group,
)
from linfair.models import build

GROUPS = torch.tensor([0, 0, 1])
Y = torch.tensor([0, 1, 1])


def sample(seed: int, n: int = 60, classes: int = 3, n_groups: int = 3) -> tuple[torch.Tensor, ...]:
    """Logits, labels and groups (each with at least four inputs)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    groups = torch.randint(n_groups, (n,), generator=generator)
    groups[: 4 * n_groups] = torch.arange(n_groups).repeat(4)
    return logits, y, groups


@given(seed=st.integers(0, 1000), n=st.integers(12, 80))
def test_group_risk_equals_sklearns_log_loss_in_fairlearns_metric_frame(seed: int, n: int) -> None:
    logits, y, groups = sample(seed, n)
    frame = MetricFrame(
        metrics={"risk": lambda y_true, y_pred: log_loss(y_true, y_pred, labels=[0, 1, 2]), "n": count},
        y_true=y.numpy(),
        y_pred=np.asarray(logits.double().softmax(dim=1)),
        sensitive_features=groups.numpy(),
    ).by_group
    rows = group_risk(logits, y, groups, 3)
    assert [row.group for row in rows] == frame.index.tolist()
    assert [row.n for row in rows] == frame["n"].astype(int).tolist()
    assert [row.mean for row in rows] == pytest.approx(frame["risk"].tolist(), abs=1e-9)


def test_group_risk_of_a_confident_binary_classifier_is_the_closed_form() -> None:
    """Cross entropy of two classes is log(1 + exp(-z)), z the right logit minus the wrong one."""
    z = torch.tensor([-30.0, -2.0, 0.5, 40.0])
    rows = group_risk(torch.stack([torch.zeros(4), z], dim=1), torch.ones(4).long(), torch.arange(4), 4)
    assert [row.mean for row in rows] == pytest.approx([math.log1p(math.exp(-value)) for value in z.tolist()], rel=1e-9)


@given(seed=st.integers(0, 1000))
def test_the_interval_of_an_excessive_loss_is_scipys_paired_t_interval(seed: int) -> None:
    logits, y, groups = sample(seed)
    moved = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed + 1))
    for row in excessive_loss(moved, logits, y, groups, 3):
        of_group = groups == row.group
        one = nn.functional.cross_entropy(moved[of_group].double(), y[of_group], reduction="none").numpy()
        two = nn.functional.cross_entropy(logits[of_group].double(), y[of_group], reduction="none").numpy()
        expected = stats.ttest_rel(one, two).confidence_interval(0.95)
        assert row.n == len(one)
        assert (row.mean, row.low, row.high) == pytest.approx(
            (one.mean() - two.mean(), expected.low, expected.high), abs=1e-9
        )


def test_excessive_loss_is_the_difference_of_the_two_risks_and_changes_sign_with_their_order() -> None:
    logits, y, groups = sample(1)
    other = logits.flip(1)
    forth, back = excessive_loss(logits, other, y, groups, 3), excessive_loss(other, logits, y, groups, 3)
    risks = zip(group_risk(logits, y, groups, 3), group_risk(other, y, groups, 3), strict=True)
    for row, opposite, (one, two) in zip(forth, back, risks, strict=True):
        assert row.mean == pytest.approx(one.mean - two.mean, abs=1e-12)
        assert row.mean != 0
        assert (row.mean, row.low, row.high) == pytest.approx((-opposite.mean, -opposite.high, -opposite.low))


def test_risk_of_a_network_equals_a_loop_over_single_inputs(digits: GroupedData, teacher: nn.Module) -> None:
    part = digits.splits["val"]
    total, n = [0.0] * 10, [0] * 10
    for x, y, a in zip(part.x, part.y, part.a, strict=True):
        p = teacher(digits.normalise(x[None])).double().softmax(dim=1)[0, y]
        total[int(a)] -= math.log(p.item())
        n[int(a)] += 1
    rows = risk_of(teacher, digits, "val")
    assert [row.n for row in rows] == n
    assert [row.mean for row in rows] == pytest.approx([t / c for t, c in zip(total, n, strict=True)], rel=1e-4)


def test_excess_of_a_network_over_itself_is_zero_and_over_an_untrained_one_a_gain(
    digits: GroupedData, teacher: nn.Module
) -> None:
    untrained = build("mlp", digits.input_shape, digits.classes, width=16, seed=0)
    for row in excess_of(teacher, teacher, digits, "train"):
        assert (row.mean, row.low, row.high) == (0, 0, 0)
    assert all(row.mean < 0 for row in excess_of(teacher, untrained, digits, "train") if digits.counts[row.group] == 90)


def test_measuring_leaves_the_network_in_the_mode_it_was(digits: GroupedData) -> None:
    network = build("mlp", digits.input_shape, digits.classes, width=4, seed=0).train()
    risk_of(network, digits, "val")
    assert network.training


@given(seed=st.integers(0, 1000))
def test_disparity_equals_fairlearns_difference_between_groups(seed: int) -> None:
    logits, y, groups = sample(seed)
    right = logits.argmax(dim=1) == y
    frame = MetricFrame(
        metrics=lambda y_true, y_pred: float(np.mean(y_true == y_pred)),
        y_true=y.numpy(),
        y_pred=logits.argmax(dim=1).numpy(),
        sensitive_features=groups.numpy(),
    )
    rows = group_accuracy(right, groups, 3)
    found = disparity(rows, worst="low")
    assert found.gap == pytest.approx(frame.difference(method="between_groups"), abs=1e-12)
    assert rows[found.worst].accuracy == pytest.approx(frame.group_min(), abs=1e-12)
    assert rows[found.best].accuracy == pytest.approx(frame.group_max(), abs=1e-12)
    assert found.low <= found.gap <= found.high
    assert (found.n_worst, found.n_best) == (rows[found.worst].n, rows[found.best].n)


def test_the_interval_of_an_accuracy_gap_is_newcombes_published_one() -> None:
    """56/70 against 48/80: 0.0524 to 0.3339 (Newcombe, Statistics in Medicine 17, 1998, Table II, method 10)."""
    rows = [GroupAccuracy(0, 70, 56 / 70, *wilson(56 / 70, 70)), GroupAccuracy(1, 80, 48 / 80, *wilson(48 / 80, 80))]
    found = disparity(rows, worst="low")
    assert (found.worst, found.best) == (1, 0)
    assert (found.gap, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_fairness_violation_is_the_largest_pairwise_difference_by_brute_force() -> None:
    rows = [GroupMean(a, 9, mean, mean - 0.3, mean + 0.4) for a, mean in enumerate([0.5, -0.25, 2.0, 1.0])]
    found = disparity(rows, worst="high")
    assert found.gap == max(abs(one.mean - two.mean) for one in rows for two in rows)
    assert (found.worst, found.best) == (2, 1)
    assert (found.low, found.high) == pytest.approx((2.25 - math.hypot(0.3, 0.4), 2.25 + math.hypot(0.4, 0.3)))


def test_equal_groups_have_no_gap_but_an_interval() -> None:
    rows = [GroupMean(0, 5, 1.0, 0.0, 2.0), GroupMean(1, 5, 1.0, 0.0, 2.0)]
    found = disparity(rows, worst="high")
    assert (found.gap, {found.worst, found.best}) == (0, {0, 1})
    assert (found.low, found.high) == pytest.approx((-math.sqrt(2), math.sqrt(2)))


def test_a_group_of_one_has_a_mean_and_no_interval() -> None:
    row = mean_by_group(torch.tensor([1.0, 2.0, 7.0]), GROUPS, 2)[1]
    assert (row.n, row.mean) == (1, 7.0)
    assert math.isnan(row.low)
    assert math.isnan(row.high)


def test_means_do_not_depend_on_the_order_of_inputs() -> None:
    logits, y, groups = sample(5)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    for one, two in zip(
        group_risk(logits, y, groups, 3), group_risk(logits[order], y[order], groups[order], 3), strict=True
    ):
        assert (one.mean, one.low, one.high) == pytest.approx((two.mean, two.low, two.high), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_risk(torch.zeros(3, 1), Y, GROUPS, 2), r"classes >= 2\), got \(3, 1\)"),
        (lambda: group_risk(torch.full((3, 2), math.nan), Y, GROUPS, 2), "3 of 3 inputs are not finite"),
        (lambda: group_risk(torch.zeros(3, 2), Y[:2], GROUPS, 2), r"shape \(3,\), got \(2,\)"),
        (lambda: group_risk(torch.zeros(3, 2), Y + 1, GROUPS, 2), r"0 to 1, got \[1, 2\]"),
        (lambda: group_risk(torch.zeros(3, 2), Y, GROUPS, 3), r"groups \[2\] have no inputs"),
        (lambda: group_risk(torch.zeros(3, 2), Y, GROUPS, 1), r"0 to 0, got \[0, 1\]"),
        (lambda: excessive_loss(torch.zeros(3, 2), torch.zeros(3, 4), Y, GROUPS, 2), r"\(3, 2\), \(3, 4\)"),
        (lambda: mean_by_group(torch.zeros(2), GROUPS, 2), r"values \(2,\) and groups \(3,\)"),
        (lambda: mean_by_group(torch.tensor([0, math.inf, 1]), GROUPS, 2), "1 of 3 inputs are not finite"),
        (lambda: disparity([GroupMean(0, 1, 0.0, 0.0, 0.0)], worst="high"), "two of them, got 1"),
        (lambda: disparity([], worst="largest"), "got 'largest'"),
        (lambda: disparity([GroupMean(0, 1, math.nan, 0.0, 0.0)] * 2, worst="low"), "nan, nan"),
    ],
)
def test_undefined_numbers_are_errors_that_quote_them(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_split_and_an_ensemble_are_refused(digits: GroupedData, teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match="no split 'tset'; there are train, val, test"):
        logits_on(teacher, digits, "tset")
    with pytest.raises(ValueError, match=r"ensemble of 2: use member\(index\)"):
        logits_on(Ensemble([teacher, teacher]), digits, "val")
