"""Intervals and tests for means over seeds that share data, signs and spreads.

Seeds of one data set draw their splits from the same images, so s / sqrt(n) is too small. Nadeau and Bengio (Inference
for the generalization error, Machine Learning 52, 2003) put s sqrt(1 / n + n_test / n_train) in its place, with n - 1
degrees of freedom. Signs have the exact binomial test, two standard deviations over the same seeds that of Pitman and
Morgan (Biometrika 31, 1939), many tests S. Holm's correction (Scandinavian Journal of Statistics 6, 1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ROUNDING = 1e-12
"""Numbers that differ by this share of their size are equal."""


def _equal(values: np.ndarray, beside: np.ndarray) -> bool:
    """Whether values are one number but for the rounding of numbers as large as those beside them."""
    return bool(np.ptp(values) <= ROUNDING * np.abs(beside).max())


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds (of logarithms for a ratio), its standard errors, degrees of freedom of its t distribution.

    `error` takes seeds as independent, `corrected` as sharing data.
    """

    n: int
    value: float
    error: float
    corrected: float
    df: int

    def interval(self, level: float = 0.95, *, corrected: bool = True) -> tuple[float, float]:
        """The t interval, nan for fewer than two seeds."""
        if self.df < 1:
            return math.nan, math.nan
        half = stats.t.ppf((1 + level) / 2, self.df) * (self.corrected if corrected else self.error)
        return self.value - half, self.value + half

    def p(self, threshold: float, side: int) -> float:
        """Twice the one-sided p of the claim that the number lies above (side 1) or below (side -1) a threshold.

        It is below 1 - level exactly where `interval(level)` lies on that side.
        """
        gap = side * (self.value - threshold)
        if self.df < 1:
            return math.nan
        if self.corrected == 0:
            return 0.0 if gap > ROUNDING * max(abs(self.value), abs(threshold)) else 1.0
        return min(1.0, 2 * float(stats.t.sf(gap / self.corrected, self.df)))


def mean(values: Sequence[float], *, shared: float = 0.0) -> Estimate:
    """Mean over seeds that share data; `shared` is n_test / n_train, 0 for seeds that draw their own data."""
    found = np.asarray(values, dtype=float)
    if not found.size or shared < 0:
        raise ValueError(f"a mean needs values and shared >= 0, got {found.size} values and shared={shared}")
    n = found.size
    spread = math.nan if n < 2 else 0.0 if _equal(found, found) else float(found.std(ddof=1))
    return Estimate(n, float(found.mean()), spread / math.sqrt(n), spread * math.sqrt(1 / n + shared), n - 1)


def spreads(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float, float]:
    """Ratio of two standard deviations over the same seeds: s1 / s2, ends of its 95 % interval, p of equal spreads.

    By the exact test of Pitman and Morgan: sum and difference are uncorrelated exactly if both spread alike. With r the
    correlation of first and second and t the quantile with n - 2 degrees of freedom, the squared ratio's interval is

        (s1 / s2)^2 (k -+ sqrt(k^2 - 1)),    k = 1 + 2 (1 - r^2) t^2 / (n - 2).

    All four are nan for fewer than three seeds, and where one side does not vary.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n = one.size
    if n < 3 or _equal(one, one) or _equal(two, two):
        return (math.nan,) * 4
    ratio = float(one.std(ddof=1) / two.std(ddof=1))
    rest = max(0.0, 1 - float(np.corrcoef(one, two)[0, 1]) ** 2)
    k = 1 + 2 * rest * stats.t.ppf(0.975, n - 2) ** 2 / (n - 2)
    ends = [ratio * math.sqrt(max(0.0, k + sign * math.sqrt(k**2 - 1))) for sign in (-1, 1)]
    total, gap = one + two, one - two
    if _equal(gap, total) or _equal(total, gap):  # alike but for a shift, or each other's mirror image
        return ratio, *ends, 1.0
    r = float(np.corrcoef(total, gap)[0, 1])
    p = 0.0 if abs(r) >= 1 else 2 * float(stats.t.sf(abs(r) * math.sqrt((n - 2) / (1 - r**2)), n - 2))
    return ratio, *ends, p


def signs(hits: int, n: int) -> float:
    """Twice the exact probability that at least so many of n fair coins show heads, at most 1."""
    return min(1.0, 2 * float(stats.binom.sf(hits - 1, n, 0.5))) if n else math.nan


def holm(ps: Sequence[float]) -> list[float]:
    """P values corrected for their number as Holm proposed; nan stay and do not count."""
    found = np.asarray(ps, dtype=float)
    order = np.argsort(found, kind="stable")[: np.isfinite(found).sum()]
    corrected = np.full(found.shape, math.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(found[order] * np.arange(order.size, 0, -1)))
    return corrected.tolist()
