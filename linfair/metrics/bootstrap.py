"""Bootstrap paired over seeds: the interval of a mean difference between two arms.

Two arms trained from the same seeds share teacher, data split and order, so what a seed does to both cancels in the
difference d_i = first_i - second_i. Seeds are drawn with replacement; each draw gives a mean d* of as many differences,
and the interval runs from the (1 - level) / 2 to the (1 + level) / 2 quantile of the d* (percentile interval; Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).

With few seeds it is too narrow: for normal differences by sqrt((n - 1) / n) z / t, at level 0.95 0.82 for ten seeds and
0.91 for twenty. `linfair.metrics.mean_interval` of the differences has no such bias where they are close to normal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linfair.metrics.accuracy import MeanInterval

BLOCK = 2_000_000
"""Differences drawn at once: bounds the memory."""


@dataclass(frozen=True)
class PairedDifference(MeanInterval):
    """Mean of first - second over n seeds with its percentile interval; both ends are nan for n = 1."""

    draws: int  #: Bootstrap draws behind the interval
    level: float  #: Its level


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Percentile interval of the mean of first - second, both a value for each seed in the same order, shape (n,).

    The same `seed`, `draws` and n draw the same seeds, whatever the values: intervals of several groups rest on the
    same resampled seeds.

    Raises:
        ValueError: If the arms differ in length, have no values or one that is not finite, for draws < 1 or a level
            outside (0, 1).

    >>> f"{paired_bootstrap([3.0, 5.0, 7.0], [1.0, 3.0, 5.0])}"  # every seed differs by 2
    '2.0 [2.0, 2.0], n = 3'
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.shape != two.shape or one.ndim != 1 or not one.size:
        raise ValueError(f"both arms need one value for each seed, at least one, got shapes {one.shape}, {two.shape}")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        bad = np.flatnonzero(~(np.isfinite(one) & np.isfinite(two))).tolist()
        raise ValueError(f"need finite values, got others at positions {bad}: leave those seeds out of both arms")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"need draws >= 1 and a level in (0, 1), got draws={draws}, level={level}")
    difference = one - two
    n, mean = len(difference), float(difference.mean())
    if n == 1:
        return PairedDifference(1, mean, math.nan, math.nan, draws, level)
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, BLOCK // n)
    for start in range(0, draws, step):
        block = means[start : start + step]
        block[:] = difference[generator.integers(n, size=(len(block), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return PairedDifference(n, mean, float(low), float(high), draws, level)
