"""The paired bootstrap against scipy, exhaustive enumeration, normal theory and its known coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from linfair.metrics import PairedDifference, accuracy, paired_bootstrap


def arms(seed: int, n: int, effect: float = 0.5, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two arms that share a large effect of each seed."""
    rng = np.random.default_rng(seed)
    shared = 20 * rng.normal(size=n)
    return shared + effect + noise * rng.normal(size=n), shared


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_equals_scipys_paired_percentile_bootstrap(level: float) -> None:
    """Both draw 40,000 times: ends agree within five standard errors of an end, sqrt(p (1 - p) / draws) / density."""
    first, second = arms(0, 15)
    draws = 40_000
    found = paired_bootstrap(first, second, draws=draws, level=level, seed=1)
    expected = stats.bootstrap(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=draws,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    p, z = (1 - level) / 2, stats.norm.ppf((1 + level) / 2)
    error = (first - second).std() / math.sqrt(15) * math.sqrt(2 * p * (1 - p) / draws) / stats.norm.pdf(z)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=5 * error)


def test_interval_equals_the_enumeration_of_all_draws() -> None:
    """Four seeds can be drawn in 4^4 = 256 ways; ends lie between the exact quantiles half a per cent away."""
    difference = np.array([0.0, 1.0, 3.7, 9.2])
    every = [np.mean(draw) for draw in itertools.product(difference, repeat=4)]
    found = paired_bootstrap(difference, np.zeros(4), draws=100_000, level=0.8)
    for end, share in ((found.low, 0.1), (found.high, 0.9)):
        assert np.quantile(every, share - 0.005) <= end <= np.quantile(every, share + 0.005)


def test_interval_of_many_seeds_is_the_normal_one() -> None:
    """By the central limit theorem the ends are mean +- z sd / sqrt(n), sd with divisor n."""
    first, second = arms(3, 400)
    found = paired_bootstrap(first, second, draws=20_000)
    half = stats.norm.ppf(0.975) * (first - second).std() / math.sqrt(400)
    assert found.mean == pytest.approx((first - second).mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.05 * half)


def test_what_a_seed_does_to_both_arms_cancels() -> None:
    """Adding any number to both arms of a seed changes nothing; an unpaired interval would be 20 times as wide."""
    first, second = arms(4, 30)
    paired = paired_bootstrap(first, second)
    bare = paired_bootstrap(first - second, np.zeros(30))
    assert (paired.low, paired.high) == pytest.approx((bare.low, bare.high), abs=1e-9)
    unpaired = stats.ttest_ind(first, second).confidence_interval(0.95)
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)


def test_coverage_at_ten_seeds_is_the_one_that_the_docstring_admits() -> None:
    """Coverage of mean +- z sd / sqrt(n), sd with divisor n, is P(|t_9| < z sqrt(9 / 10)) = 0.904, not 0.95."""
    trials, n = 1000, 10
    hits = 0
    for trial in range(trials):
        first, second = arms(1000 + trial, n)
        found = paired_bootstrap(first, second, draws=1000, seed=trial)
        hits += found.low <= 0.5 <= found.high
    expected = 1 - 2 * stats.t.sf(stats.norm.ppf(0.975) * math.sqrt((n - 1) / n), n - 1)
    assert hits / trials == pytest.approx(expected, abs=3.5 * math.sqrt(expected * (1 - expected) / trials))
    assert hits / trials < 0.95


@pytest.mark.parametrize(("n", "said"), [(10, 0.82), (20, 0.91)])
def test_the_factor_that_the_docstring_says_it_is_too_narrow_by(n: int, said: float) -> None:
    factor = math.sqrt((n - 1) / n) * stats.norm.ppf(0.975) / stats.t.ppf(0.975, n - 1)
    assert round(factor, 2) == said
    assert f"{said}" in paired_bootstrap.__doc__


def test_the_same_seed_draws_the_same_seeds_for_every_group() -> None:
    """Means of two groups' draws then add up: the interval of 3 d is 3 times, of -d the mirrored one."""
    first, second = arms(5, 12)
    one, again = paired_bootstrap(first, second, seed=7), paired_bootstrap(first, second, seed=7)
    assert one == again
    triple = paired_bootstrap(3 * first, 3 * second, seed=7)
    assert (triple.low, triple.high) == pytest.approx((3 * one.low, 3 * one.high), abs=1e-9)
    mirrored = paired_bootstrap(second, first, seed=7)
    assert (mirrored.low, mirrored.high) == pytest.approx((-one.high, -one.low), abs=1e-9)
    assert one.low != paired_bootstrap(first, second, seed=8).low


def test_draws_in_blocks_are_all_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three draws instead of one block: the normal theory still holds, so no draw is left unset."""
    first, second = arms(6, 50)
    monkeypatch.setattr(accuracy, "BLOCK", 150)
    found = paired_bootstrap(first, second, draws=4000)
    half = stats.norm.ppf(0.975) * (first - second).std() / math.sqrt(50)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.15 * half)


def test_one_seed_has_no_interval_and_formats_itself_with_its_evidence() -> None:
    one = paired_bootstrap([3.0], [1.0])
    assert (one.n, one.mean) == (1, 2.0)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert f"{PairedDifference(10, 3.14159, 2.5, 3.75, 100, 0.95):.3f}" == "3.142 [2.500, 3.750], n = 10"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap([1.0, 2.0], [1.0]), r"shapes \(2,\), \(1,\)"),
        (lambda: paired_bootstrap([], []), r"at least one, got shapes \(0,\)"),
        (lambda: paired_bootstrap([[1.0]], [[1.0]]), r"shapes \(1, 1\)"),
        (lambda: paired_bootstrap([1.0, math.nan], [math.inf, 1.0]), r"positions \[0, 1\]"),
        (lambda: paired_bootstrap([1.0], [1.0], draws=0), "draws=0"),
        (lambda: paired_bootstrap([1.0], [1.0], level=95), "level=95"),
    ],
)
def test_undefined_intervals_are_errors_that_quote_what_was_given(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
