"""Rank correlation of two quantities over groups, others held fixed: what `linfair_book.predictors` rests on."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def partial_spearman(x: Sequence[float], y: Sequence[float], others: Sequence[Sequence[float]] = ()) -> float:
    """Spearman's rank correlation of x and y, given others: see the module's text. Ties get their mean rank.

    Args:
        x: A value for each group, shape (n,).
        y: Another value for each group, shape (n,).
        others: Columns to hold fixed, each of shape (n,).

    Returns:
        The coefficient in [-1, 1]; nan where one side is constant, or the others determine its ranks.

    >>> round(partial_spearman([1, 2, 3, 4], [10, 20, 30, 25]), 6)
    0.8
    """
    ranks = [stats.rankdata(values) for values in (x, y)]
    fixed = np.column_stack([np.ones(len(ranks[0])), *(stats.rankdata(column) for column in others)])
    left = [_residual(rank, fixed) for rank in ranks]
    norms = [np.linalg.norm(part) for part in left]
    if any(norm < 1e-8 * np.linalg.norm(rank) for norm, rank in zip(norms, ranks, strict=True)):
        return math.nan
    return float(left[0] @ left[1] / (norms[0] * norms[1]))


def explained(y: Sequence[float], columns: Sequence[Sequence[float]]) -> float:
    """Share of the variance of rank y that a least-squares fit on the ranks of the columns explains (R2).

    Returns:
        A share in [0, 1]; nan for constant y. Pure chance explains k / (n - 1) of it on average, with k columns.

    >>> round(explained([1, 2, 3], [[2, 4, 9]]), 6)
    1.0
    """
    rank = stats.rankdata(y)
    total = float(((rank - rank.mean()) ** 2).sum())
    if total == 0:
        return math.nan
    fixed = np.column_stack([np.ones(len(rank)), *(stats.rankdata(column) for column in columns)])
    return 1 - float((_residual(rank, fixed) ** 2).sum()) / total


def _residual(rank: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    return rank - fixed @ np.linalg.lstsq(fixed, rank, rcond=None)[0]


def weakest(n_groups: int, *, given: int = 0, level: float = 0.95) -> float:
    """The smallest |rho| that a single seed can tell from 0.

    By the t approximation, rho = t / sqrt(t^2 + df) with df = n_groups - 2 - given.

    Args:
        n_groups: Groups that are ranked.
        given: Predictors held fixed.
        level: Of the two-sided test.

    Raises:
        ValueError: If fewer than one degree of freedom is left.

    >>> round(weakest(10), 2), round(weakest(10, given=4), 2)
    (0.63, 0.81)
    """
    df = n_groups - 2 - given
    if df < 1:
        raise ValueError(f"{n_groups} groups leave no degree of freedom given {given} predictors; need {given + 3}")
    t = stats.t.ppf((1 + level) / 2, df)
    return float(t / math.sqrt(t**2 + df))
