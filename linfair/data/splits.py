"""Splits without leaks: one seed decides them, identical images stay together, every stratum is in every part.

A *stratum* is what is kept in proportion (label and group together). A *set* is a number in `same`: its images never
straddle parts. A set whose images fall into several strata (copies with conflicting labels) counts where its first
image does.
"""

from collections.abc import Sequence

import numpy as np


def part(
    strata: np.ndarray, same: np.ndarray, share: float, rng: np.random.Generator, *, among: np.ndarray | None = None
) -> np.ndarray:
    """Draw a share of every stratum, whole sets only.

    Of each stratum with n images, sets are drawn in random order until the next one would carry the part past
    round(share * n); at least one set of a stratum with two or more is drawn and at least one left.

    Args:
        strata: Stratum of each image, int64, shape (n,).
        same: Set of each image, shape (n,).
        share: In (0, 1).
        rng: Random numbers.
        among: Draw among these images only, boolean, shape (n,).

    Returns:
        True for the images that were drawn, shape (n,).

    >>> drawn = part(np.repeat([0, 1], 10), np.arange(20), 0.3, np.random.default_rng(0))
    >>> [int(drawn[:10].sum()), int(drawn[10:].sum())]
    [3, 3]
    """
    if not 0 < share < 1:
        raise ValueError(f"a share must lie between 0 and 1, got {share}")
    pool = np.arange(len(strata)) if among is None else np.flatnonzero(among)
    drawn = np.zeros(len(strata), dtype=bool)
    sets, first, member = np.unique(same[pool], return_index=True, return_inverse=True)
    sizes = np.bincount(member)
    home = strata[pool[first]]
    chosen = np.zeros(len(sets), dtype=bool)
    for stratum in np.unique(home):
        mine = rng.permutation(np.flatnonzero(home == stratum))
        wanted = round(share * sizes[mine].sum())
        fits = np.cumsum(sizes[mine]) <= wanted
        count = int(np.clip(fits.sum(), 1, len(mine) - 1)) if len(mine) > 1 else 0
        chosen[mine[:count]] = True
    drawn[pool] = chosen[member]
    return drawn


def thin(
    labels: np.ndarray, fractions: Sequence[float], rng: np.random.Generator, *, among: np.ndarray | None = None
) -> np.ndarray:
    """Keep a fraction of each class: exactly round(fraction * n) images of a class with n.

    Args:
        labels: Class of each image, int64, shape (n,).
        fractions: Fraction to keep for each class, in (0, 1].
        rng: Random numbers.
        among: Keep among these images only, boolean, shape (n,).

    Returns:
        True for the images that stay, shape (n,).

    >>> kept = thin(np.repeat([0, 1], 10), [0.9, 0.1], np.random.default_rng(0))
    >>> [int(kept[:10].sum()), int(kept[10:].sum())]
    [9, 1]
    """
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must lie in (0, 1], got {list(fractions)}")
    allowed = np.ones(len(labels), dtype=bool) if among is None else among
    kept = np.zeros(len(labels), dtype=bool)
    for label, fraction in enumerate(fractions):
        mine = rng.permutation(np.flatnonzero(allowed & (labels == label)))
        kept[mine[: round(fraction * len(mine))]] = True
    return kept
