"""Intervals and tests against closed forms and other programs' results."""

import math

import numpy as np
import pytest
from linfair_book.judging.statistics import holm, mean, signs, spreads
from scipy import stats


def test_corrected_interval_is_nadeau_and_bengios() -> None:
    """Oracle: their formula, t s sqrt(1/n + n_test/n_train), by hand for the values 1, 2, 3."""
    found = mean([1.0, 2.0, 3.0], shared=0.25)
    half = stats.t.ppf(0.975, 2) * math.sqrt(1 / 3 + 0.25)
    assert found.interval() == pytest.approx((2 - half, 2 + half))
    plain = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert found.interval(corrected=False) == pytest.approx((2 - plain, 2 + plain))


def test_independent_seeds_give_the_t_test() -> None:
    """Oracle: scipy's one-sample t test."""
    values = [0.3, -0.1, 0.9, 0.4, 0.2]
    assert mean(values).p(0.0, 1) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)


def test_p_and_interval_say_the_same() -> None:
    """The p of a side is 0.05 exactly where the interval's end lies on the threshold."""
    found = mean([1.0, 2.0, 4.0, 5.0], shared=0.3)
    low, high = found.interval()
    assert found.p(low, 1) == pytest.approx(0.05)
    assert found.p(high, -1) == pytest.approx(0.05)


def test_one_seed_has_no_interval_and_seeds_that_agree_are_exact() -> None:
    assert all(math.isnan(end) for end in mean([1.0]).interval())
    assert mean([1.0, 1.0]).p(0.0, 1) == 0.0
    assert mean([1.0, 1.0]).p(0.0, -1) == 1.0
    with pytest.raises(ValueError, match="0 values"):
        mean([])


def test_seeds_that_agree_vary_by_nothing_however_their_sum_rounds() -> None:
    """0.1 three times has a mean of 0.10000000000000002 and a standard deviation of 1.7e-17."""
    found = mean([0.1] * 3)
    assert found.error == 0.0 and found.p(0.1, 1) == found.p(0.1, -1) == 1.0 and found.p(0.09, 1) == 0.0
    varied = [0.2, 0.3, 0.5]
    assert all(math.isnan(one) for pair in (([0.1] * 3, varied), (varied, [0.1] * 3)) for one in spreads(*pair))
    assert spreads(varied, [one + 0.1 for one in varied])[3] == 1.0  # shifted by one number
    assert spreads(varied, [0.1 - one for one in varied])[3] == 1.0  # the mirror image spreads alike, too


def test_pitman_morgan_is_the_correlation_of_sum_and_difference() -> None:
    """Oracle: scipy's pearsonr; and the interval's end is where scaled spreads are just told apart."""
    one, two = [1.0, 5.0, 2.0, 8.0, 3.0], [2.0, 3.0, 2.5, 4.0, 1.0]
    ratio, low, high, p = spreads(one, two)
    assert ratio == pytest.approx(np.std(one, ddof=1) / np.std(two, ddof=1))
    assert p == pytest.approx(stats.pearsonr(np.add(one, two), np.subtract(one, two)).pvalue)
    for end in (low, high):
        assert spreads(one, [end * value for value in two])[3] == pytest.approx(0.05)
    assert math.isnan(spreads(one[:2], two[:2])[0])


def test_signs_have_the_exact_binomial_test() -> None:
    """Oracle: scipy's binomtest, one-sided and doubled."""
    for hits, n in [(4, 5), (9, 10), (3, 6)]:
        one_sided = stats.binomtest(hits, n, alternative="greater").pvalue
        assert signs(hits, n) == pytest.approx(min(1, 2 * one_sided))


def test_holm_leaves_out_what_is_not_a_number() -> None:
    """By hand: 2 (0.01), then max(0.02, 1 (0.04)); nan neither counts nor changes. 2 (0.03) is above 1 (0.04)."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    found = holm([0.04, math.nan, 0.01])
    assert found[0] == pytest.approx(0.04) and found[2] == pytest.approx(0.02) and math.isnan(found[1])
