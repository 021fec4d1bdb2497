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
from numpy import ndarray as Array


def part(strata: Array, same: Array, share: float, rng: np.random.Generator, *, among: Array | None = None) -> Array:
    """Draw a share of every stratum, whole sets only: True for the images that were drawn, shape (n,).

    Of each stratum with n images, sets are drawn in random order until the next one would carry the part past
    round(share * n); of a stratum with two or more sets at least one is drawn and at least one left. `strata` and
    `same` give the stratum and the set of each image; `among` limits the draw to some images.
    """
    sets = _sets(same, share, among)
    chosen = np.zeros(len(sets.sizes), dtype=bool)
    for order in _orders(strata[sets.first], rng).values():
        chosen[_drawn(order, sets.sizes, share)] = True
    return sets.images(chosen)


def joint_part(
    labels: Array, groups: Array, same: Array, share: float, rng: np.random.Generator, *, among: Array | None = None
) -> tuple[Array, tuple[int, ...]]:
    """Draw a share of every group, in proportion to its labels, whole sets only; and say which groups are thin.

    As `part` with a stratum for each label and group, but for thin groups. Of a group with n images the strata together
    would give t; the group is thin if t is above round(share * n) and takes more than 4 % of the (1 - share) * n images
    that should stay, or if t is less than half of share * n. A thin group gives round(share * n) images (at least
    one set, and at least one stays). Its sets are taken in the order of Webster's apportionment among its labels: the
    k-th image, k = 0, 1, ..., of a label with m images comes at (k + 1/2) / m, ties in random order. A label's last set
    is never drawn. The draw of the other groups is the same as that of `part`.

    >>> labels = np.repeat(np.arange(26), 3)  # 26 labels with 3 images each, of one group
    >>> drawn, thin_groups = joint_part(labels, labels * 0, np.arange(78), 0.2, np.random.default_rng(0))
    >>> int(drawn.sum()), thin_groups
    (16, (0,))
    """
    sets = _sets(same, share, among)
    sizes, label, group = sets.sizes, labels[sets.first], groups[sets.first]
    strata: dict[int, list[Array]] = {number: [] for number in np.unique(group).tolist()}
    width = int(group.max(initial=0)) + 1
    for stratum, order in _orders(label * width + group, rng).items():
        strata[stratum % width].append(order)
    chosen, thin_groups = np.zeros(len(sizes), dtype=bool), []
    for number, mine in strata.items():
        drawn = np.concatenate([_drawn(order, sizes, share) for order in mine])
        if _is_thin(int(sizes[drawn].sum()), share, int(sizes[group == number].sum()), len(mine)):
            thin_groups.append(number)
        else:
            chosen[drawn] = True
    left = np.bincount(label[~chosen], minlength=int(label.max(initial=0)) + 1)  # sets of each label that stay
    (ties,) = rng.spawn(1)  # leaves the numbers that `rng` draws next as they are
    for number in thin_groups:
        turn = [(np.cumsum(sizes[one]) - sizes[one] / 2) / sizes[one].sum() for one in strata[number]]
        order = np.concatenate(strata[number])
        order = order[np.lexsort((ties.permutation(len(order)), np.concatenate(turn).round(9)))]
        wanted, taken, count = round(share * int(sizes[order].sum())), 0, 0
        for one in order.tolist():
            if count == len(order) - 1 or (count > 0 and taken + sizes[one] > wanted):
                break
            if left[label[one]] > 1:
                chosen[one] = True
                left[label[one]] -= 1
                taken, count = taken + sizes[one], count + 1
    return sets.images(chosen), tuple(thin_groups)


@dataclass(frozen=True)
class _Sets:
    """The sets among the images that may be drawn."""

    first: Array  # position of each set's first image
    sizes: Array  # images of each set
    member: Array  # set of each image of the pool
    pool: Array  # positions of the images that may be drawn
    n: int

    def images(self, chosen: Array) -> Array:
        drawn = np.zeros(self.n, dtype=bool)
        drawn[self.pool] = chosen[self.member]
        return drawn


def _sets(same: Array, share: float, among: Array | None) -> _Sets:
    if not 0 < share < 1:
        raise ValueError(f"a share must lie between 0 and 1, got {share}")
    pool = np.arange(len(same)) if among is None else np.flatnonzero(among)
    _, first, member = np.unique(same[pool], return_index=True, return_inverse=True)
    return _Sets(pool[first], np.bincount(member), member, pool, len(same))


def _orders(home: Array, rng: np.random.Generator) -> dict[int, Array]:
    """The sets of each stratum in random order."""
    return {int(stratum): rng.permutation(np.flatnonzero(home == stratum)) for stratum in np.unique(home)}


def _drawn(order: Array, sizes: Array, share: float) -> Array:
    """The first sets of a stratum, as many as its share takes."""
    fits = int((np.cumsum(sizes[order]) <= round(share * sizes[order].sum())).sum())
    return order[: min(max(fits, 1), len(order) - 1)]


def _is_thin(drawn: int, share: float, images: int, labels: int) -> bool:
    """Whether drawing label by label misses a group's share by too much; see `joint_part`."""
    fair = share * images
    if labels < 2:  # there is nothing to apportion
        return False
    if drawn > max(1, round(fair)):
        return drawn - fair > 0.04 * (images - fair)
    return drawn == 0 or drawn < fair / 2


def thin(labels: Array, fractions: Sequence[float], rng: np.random.Generator, *, among: Array | None = None) -> Array:
    """Keep exactly round(fraction * n) images of a class with n: True for those that stay, shape (n,)."""
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must lie in (0, 1], got {list(fractions)}")
    allowed = np.ones(len(labels), dtype=bool) if among is None else among
    kept = np.zeros(len(labels), dtype=bool)
    for label, fraction in enumerate(fractions):
        mine = rng.permutation(np.flatnonzero(allowed & (labels == label)))
        kept[mine[: round(fraction * len(mine))]] = True
    return kept
