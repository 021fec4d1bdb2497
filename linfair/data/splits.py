"""Splits without leaks: one seed decides them, identical images stay together, every stratum is in every part.

A *stratum* is what is kept in proportion (label and group together). A *set* is a number in `same`: its images never
straddle parts. A set whose images fall into several strata (copies with conflicting labels) counts where its first
image does.

Where a group has too few images of each label, rounding in every stratum would take far more (or less) than the group's
share. Such a group is drawn as a whole, its labels in turn: `joint_part`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def part(
    strata: np.ndarray, same: np.ndarray, share: float, rng: np.random.Generator, *, among: np.ndarray | None = None
) -> np.ndarray:
    """Draw a share of every stratum, whole sets only: True for the images that were drawn, shape (n,).

    Of each stratum with n images, sets are drawn in random order until the next one would carry the part past
    round(share * n); of a stratum with two or more sets at least one is drawn and at least one left. `strata` and
    `same` give the stratum and the set of each image; `among` limits the draw to some images.

    >>> drawn = part(np.repeat([0, 1], 10), np.arange(20), 0.3, np.random.default_rng(0))
    >>> [int(drawn[:10].sum()), int(drawn[10:].sum())]
    [3, 3]
    """
    sets = _sets(same, share, among)
    orders = _orders(strata[sets.first], rng)
    chosen = np.zeros(len(sets.sizes), dtype=bool)
    for mine in orders.values():
        chosen[_drawn(mine, sets.sizes, share)] = True
    return sets.images(chosen)


def joint_part(
    labels: np.ndarray,
    groups: np.ndarray,
    same: np.ndarray,
    share: float,
    rng: np.random.Generator,
    *,
    among: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Draw a share of every group, in proportion to its labels; whole sets only.

    As `part` with a stratum for each label and group, but for thin groups. Of a group with n images the strata together
    would give t; the group is thin if t is above round(share * n) and takes more than 4 % of the (1 - share) * n images
    that should stay, or if t is less than half of share * n. A thin group gives round(share * n) images (at least
    one set, and at least one stays). Its sets are taken in the order of Webster's apportionment among its labels: the
    k-th image, k = 0, 1, ..., of a label with m images comes at (k + 1/2) / m, ties in random order. A label's last set
    is never drawn. The draw of the other groups is the same as that of `part`.

    Returns:
        True for the images that were drawn, shape (n,); the groups that are thin.

    >>> labels = np.repeat(np.arange(26), 3)  # 26 labels with 3 images each, of one group
    >>> drawn, thin_groups = joint_part(labels, labels * 0, np.arange(78), 0.2, np.random.default_rng(0))
    >>> int(drawn.sum()), thin_groups
    (16, (0,))
    """
    sets = _sets(same, share, among)
    label, group = labels[sets.first], groups[sets.first]
    width = int(group.max(initial=0)) + 1
    orders = _orders(label * width + group, rng)
    chosen = np.zeros(len(sets.sizes), dtype=bool)
    thin_groups = []
    for number in np.unique(group).tolist():
        mine = [order for stratum, order in orders.items() if stratum % width == number]
        drawn = np.concatenate([_drawn(order, sets.sizes, share) for order in mine])
        if _is_thin(int(sets.sizes[drawn].sum()), share, int(sets.sizes[group == number].sum()), len(mine)):
            thin_groups.append(number)
        else:
            chosen[drawn] = True
    left = np.bincount(label[~chosen], minlength=int(label.max(initial=0)) + 1)
    (ties,) = rng.spawn(1)  # leaves the numbers that `rng` draws next as they are
    for number in thin_groups:
        mine = [order for stratum, order in orders.items() if stratum % width == number]
        _take_in_turn(mine, sets.sizes, label, left, share, ties, chosen)
    return sets.images(chosen), tuple(thin_groups)


@dataclass(frozen=True)
class _Sets:
    """The sets among the images that may be drawn: position of the first image, and images, of each."""

    first: np.ndarray
    sizes: np.ndarray
    member: np.ndarray
    pool: np.ndarray
    n: int

    def images(self, chosen: np.ndarray) -> np.ndarray:
        drawn = np.zeros(self.n, dtype=bool)
        drawn[self.pool] = chosen[self.member]
        return drawn


def _sets(same: np.ndarray, share: float, among: np.ndarray | None) -> _Sets:
    if not 0 < share < 1:
        raise ValueError(f"a share must lie between 0 and 1, got {share}")
    pool = np.arange(len(same)) if among is None else np.flatnonzero(among)
    _, first, member = np.unique(same[pool], return_index=True, return_inverse=True)
    return _Sets(pool[first], np.bincount(member), member, pool, len(same))


def _orders(home: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """The sets of each stratum in random order."""
    return {int(stratum): rng.permutation(np.flatnonzero(home == stratum)) for stratum in np.unique(home)}


def _drawn(order: np.ndarray, sizes: np.ndarray, share: float) -> np.ndarray:
    """The first sets of a stratum, as many as its share takes."""
    wanted = round(share * sizes[order].sum())
    fits = np.cumsum(sizes[order]) <= wanted
    return order[: int(np.clip(fits.sum(), 1, len(order) - 1)) if len(order) > 1 else 0]


def _is_thin(drawn: int, share: float, images: int, labels: int) -> bool:
    """Whether drawing label by label misses a group's share by too much; see `joint_part`."""
    fair = share * images
    if labels < 2:  # there is nothing to apportion
        return False
    if drawn > max(1, round(fair)):
        return drawn - fair > 0.04 * (images - fair)
    return drawn == 0 or drawn < fair / 2


def _take_in_turn(
    orders: list[np.ndarray],
    sizes: np.ndarray,
    label: np.ndarray,
    left: np.ndarray,
    share: float,
    rng: np.random.Generator,
    chosen: np.ndarray,
) -> None:
    """Draw from a thin group, its labels in turn; `left` counts the sets of each label that are not drawn."""
    sets = np.concatenate(orders)
    turn = [(np.cumsum(sizes[order]) - sizes[order] / 2) / sizes[order].sum() for order in orders]
    sets = sets[np.lexsort((rng.permutation(len(sets)), np.concatenate(turn).round(9)))]
    wanted = round(share * int(sizes[sets].sum()))
    taken = count = 0
    for one in sets.tolist():
        full = count == len(sets) - 1 or (count > 0 and taken + sizes[one] > wanted)
        if full:
            break
        if left[label[one]] > 1:
            chosen[one] = True
            left[label[one]] -= 1
            taken, count = taken + sizes[one], count + 1


def thin(
    labels: np.ndarray, fractions: Sequence[float], rng: np.random.Generator, *, among: np.ndarray | None = None
) -> np.ndarray:
    """Keep exactly round(fraction * n) images of a class with n: True for those that stay, shape (n,).

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
