"""Splits without leaks: one seed decides them, identical images stay together, every stratum is in every part.

A *stratum* is what is kept in proportion (label and group together). A *set* is a number in `same`: its images never
straddle parts. A set whose images fall into several strata (copies with conflicting labels) counts where its first
image does.
"""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray as Array


def part(strata: Array, same: Array, share: float, rng: np.random.Generator, *, among: Array | None = None) -> Array:
    """Draw a share of every stratum, whole sets only: True for the images that were drawn, shape (n,).

    Of each stratum with n images, sets are drawn in random order until the next one would carry the part past
    round(share * n); of two or more sets at least one is drawn and one left. `among` limits the draw to some images.
    """
    return joint_part(strata, strata, same, share, rng, among=among)[0]  # a group of one label is never thin


def joint_part(
    labels: Array, groups: Array, same: Array, share: float, rng: np.random.Generator, *, among: Array | None = None
) -> tuple[Array, tuple[int, ...]]:
    """Draw a share of every group, in proportion to its labels, whole sets only; and say which groups are thin.

    As `part` with a stratum for each label and group, but for thin groups. Of a group with n images the strata together
    would give t; the group is thin if t is above round(share * n) and takes more than 4 % of the (1 - share) * n images
    that should stay, or if t is less than half of share * n. A thin group gives round(share * n) images (at least one
    set, and at least one stays), in the order of Webster's apportionment among its labels: the k-th image, k = 0, 1,
    ..., of a label with m images comes at (k + 1/2) / m, ties in random order. A label's last set is never drawn.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share must lie between 0 and 1, got {share}")
    pool = np.arange(len(same)) if among is None else np.flatnonzero(among)
    _, first, member = np.unique(same[pool], return_index=True, return_inverse=True)
    sizes, label, group = np.bincount(member), labels[pool[first]], groups[pool[first]]
    strata: dict[int, list[Array]] = {number: [] for number in np.unique(group).tolist()}
    width = int(group.max(initial=0)) + 1
    home = label * width + group
    for stratum in np.unique(home).tolist():
        strata[stratum % width].append(rng.permutation(np.flatnonzero(home == stratum)))
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
    drawn = np.zeros(len(same), dtype=bool)
    drawn[pool] = chosen[member]
    return drawn, tuple(thin_groups)


def _drawn(order: Array, sizes: Array, share: float) -> Array:
    """The first sets of a stratum, as many as its share takes."""
    fits = int((np.cumsum(sizes[order]) <= round(share * sizes[order].sum())).sum())
    return order[: min(max(fits, 1), len(order) - 1)]


def _is_thin(drawn: int, share: float, images: int, labels: int) -> bool:
    """Whether drawing label by label misses a group's share by too much; see `joint_part`."""
    fair = share * images
    many = drawn > max(1, round(fair)) and drawn - fair > 0.04 * (images - fair)
    return labels > 1 and (many or drawn < fair / 2)


def thin(labels: Array, fractions: Sequence[float], rng: np.random.Generator, *, among: Array | None = None) -> Array:
    """Keep exactly round(fraction * n) images of a class with n: True for those that stay, shape (n,)."""
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must lie in (0, 1], got {list(fractions)}")
    kept = np.zeros(len(labels), dtype=bool)
    for label, fraction in enumerate(fractions):
        mine = rng.permutation(np.flatnonzero((labels == label) & (True if among is None else among)))
        kept[mine[: round(fraction * len(mine))]] = True
    return kept
