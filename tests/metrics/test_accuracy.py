"""Accuracies and intervals against scipy and fairlearn."""

import math

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame, count
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score

from linfair.metrics import MeanInterval, group_accuracy, mean_interval, wilson


@given(n=st.integers(1, 2000), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, share: float, level: float) -> None:
    k = round(share * n)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k / n, n, level=level) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_stays_in_the_unit_interval_and_holds_the_accuracy(n: int, share: float) -> None:
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1  # without a tolerance: figures draw the share minus its end
    assert high - low > 0


@given(n=st.integers(1, 500))
def test_wilson_ends_at_0_and_1_where_none_or_all_are_right(n: int) -> None:
    assert wilson(0.0, n)[0] == 0 and wilson(1.0, n)[1] == 1


@given(seed=st.integers(0, 1000), n=st.integers(4, 300), n_groups=st.integers(1, 4))
def test_group_accuracy_equals_fairlearns_metric_frame(seed: int, n: int, n_groups: int) -> None:
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(3, size=(2, n))
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=n - n_groups)])
    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "n": count}, y_true=y, y_pred=predicted, sensitive_features=groups
    ).by_group
    rows = group_accuracy(torch.from_numpy(y == predicted), torch.from_numpy(groups), n_groups)
    assert [row.group for row in rows] == frame.index.tolist()
    assert [row.n for row in rows] == frame["n"].astype(int).tolist()
    assert [row.accuracy for row in rows] == pytest.approx(frame["accuracy"].tolist(), abs=1e-12)
    for row in rows:
        assert (row.low, row.high) == wilson(row.accuracy, row.n)


def test_group_accuracy_of_shares_over_views_is_their_mean() -> None:
    correct = torch.tensor([1, 2 / 9, 5 / 9, 0.0], dtype=torch.float32)
    (row,) = group_accuracy(correct, torch.zeros(4, dtype=torch.int64), 1)
    assert (row.n, row.accuracy) == (4, pytest.approx((1 + 2 / 9 + 5 / 9) / 4))


def test_group_accuracy_adds_in_float64() -> None:
    """30 million float32 ones no longer add up in float32 (2^24 + 1 = 2^24); a group of 17 million must read 1."""
    n = 2**24 + 10
    (row,) = group_accuracy(torch.ones(n), torch.zeros(n, dtype=torch.int64), 1)
    assert (row.n, row.accuracy) == (n, 1.0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_mean_interval_equals_scipys_t_test(values: list[float], level: float) -> None:
    assume(np.std(values) > 1e-6)
    found = mean_interval(values, level=level)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    assert found.n == len(values)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (np.mean(values), expected.low, expected.high), abs=1e-7
    )


def test_mean_interval_of_one_seed_has_no_ends_and_of_equal_seeds_no_width() -> None:
    one = mean_interval([0.25])
    assert (one.n, one.mean) == (1, 0.25)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert mean_interval([2.0, 2.0, 2.0]) == MeanInterval(3, 2.0, 2.0, 2.0)


def test_a_mean_interval_formats_itself_with_its_evidence() -> None:
    interval = MeanInterval(10, 3.14159, 2.5, 3.75)
    assert f"{interval}" == "3.1 [2.5, 3.8], n = 10"
    assert f"{interval:.3f}" == "3.142 [2.500, 3.750], n = 10"


GROUPS = torch.tensor([0, 0, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(0.5, 0), "n=0"),
        (lambda: wilson(1.5, 10), "accuracy=1.5"),
        (lambda: wilson(float("nan"), 10), "accuracy=nan"),
        (lambda: group_accuracy(torch.ones(3), GROUPS, 4), r"groups \[1, 3\] have no inputs"),
        (lambda: group_accuracy(torch.tensor([1, float("nan"), 0]), GROUPS, 3), "not finite"),
        (lambda: group_accuracy(torch.ones(2), GROUPS, 3), r"values \(2,\) and groups \(3,\)"),
        (lambda: group_accuracy(torch.ones(3, 1), GROUPS[:, None], 3), r"values \(3, 1\)"),
        (lambda: wilson(0.5, 10, level=95), "such as 0.95, got 95"),  # was [0, 1]
        (lambda: mean_interval([1.0, 2.0], level=0.0), "got 0.0"),
        (lambda: mean_interval([]), r"at least one, got \[\]"),
        (lambda: mean_interval([1.0, float("nan")]), r"got \[1.0, nan\]"),
        (lambda: mean_interval([1.0, float("inf")]), r"got \[1.0, inf\]"),
    ],
)
def test_undefined_numbers_are_errors_that_quote_them(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
