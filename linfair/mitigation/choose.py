"""Which mitigation to take, on validation data alone: the best worst group within a stated loss of overall accuracy.

With A_g(m) the validation accuracy of arm m on judged group g, and A(m) over all validation images, the best repair is

    argmax_m min_g A_g(m)    over arms with A(m) >= A(plain) - max_accuracy_loss,    ties by A(m), then by order.

`plain` is plain fine-tuning. Whether a gain in min_g A_g is more than noise is asked of a paired randomisation test: if
the repair and `plain` answered alike, each image's two answers could be swapped, so the gain is compared with that of
random swaps, and the p-value is multiplied by the number of arms compared (Bonferroni), as the best of several gains by
luck alone. The best repair is chosen if its worst group gains and the p-value is at most `significance`; else `plain`
is, the simplest arm. With few validation images even a real gain may not pass; `significance=1` then takes the best
repair all the same, and `helped` says whether its gain was more than noise.

A group with few validation images has no accuracy to speak of, and the worst of several such is the unluckiest: groups
with fewer than `min_images` are judged together with the others of their role.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from linfair.data import GroupedData
from linfair.metrics import GroupAccuracy, group_accuracy, wilson
from linfair.mitigation import PLAIN

DRAWS = 9999
"""Random swaps of the test for noise: p-values are multiples of 1 / 10,000."""

FEW = 10
"""Groups with fewer validation images are judged together."""

ROUNDING = 1e-6
"""Accuracies closer than this are equal: shares of views are float32."""

NOISE = 0.05
"""A gain with a p-value above this is called noise, and a repair is chosen only below it unless asked otherwise."""


@dataclass(frozen=True)
class Judged:
    """One group, or several small ones of a role, judged by one accuracy."""

    name: str  # the group's, or `minority (1, 3, 4)`
    groups: tuple[int, ...]
    n: int  # validation images

    @property
    def width(self) -> tuple[float, float]:
        """The Wilson interval of an accuracy of one half on so many images: how little they say."""
        return wilson(0.5, self.n)


@dataclass(frozen=True)
class Candidate:
    """One arm on validation data."""

    arm: str
    overall: GroupAccuracy  # over all validation images; group -1
    judged: tuple[GroupAccuracy, ...]  # of each judged group
    worst: GroupAccuracy  # the lowest of those
    allowed: bool  # the overall loss against `plain` is within what was allowed
    p: float = math.nan  # of its gain in worst-group accuracy, times the number of arms compared; nan if not tested


@dataclass(frozen=True)
class Choice:
    """What was chosen, among what, and why.

    `best` is the arm with the best worst group, `plain` where no repair's worst group gains; other than `chosen` only
    where its p-value is above `significance`. `candidates` are the arms that did not diverge, `plain` first.
    """

    chosen: str
    best: str
    reason: str
    candidates: tuple[Candidate, ...]

    @property
    def helped(self) -> bool:
        """Whether a repair was chosen whose gain on validation is more than noise."""
        return self.chosen != PLAIN and self[self.chosen].p <= NOISE

    @property
    def gain(self) -> float:
        """Points that the worst group gains on validation with `best`; 0 where that is `plain`."""
        return 100 * (self[self.best].worst.accuracy - self[PLAIN].worst.accuracy)

    def mark(self, arm: str) -> str:
        """What a table says beside an arm: whether it was chosen, and why not."""
        one = self[arm]
        noise = "gain within noise" if one.p > NOISE else "p above the limit"
        if arm == self.chosen:
            return "chosen" if arm == PLAIN or self.helped else f"chosen, {noise}"
        return "loses too much" if not one.allowed else noise if arm == self.best else ""

    def __getitem__(self, arm: str) -> Candidate:
        return next(one for one in self.candidates if one.arm == arm)


def judged_groups(data: GroupedData, *, min_images: int = FEW) -> list[Judged]:
    """The groups that arms are judged by: those of one role with fewer than `min_images` validation images are one.

    Raises:
        ValueError: If there is no validation split, or a group has no image in it.
    """
    if "val" not in data.splits:
        raise ValueError(f"{data.name} has no split 'val' to choose on; there are {', '.join(data.splits)}")
    counts = torch.bincount(data.splits["val"].a.cpu(), minlength=len(data.group_names)).tolist()
    empty = [name for name, n in zip(data.group_names, counts, strict=True) if not n]
    if empty:
        raise ValueError(f"groups {empty} of {data.name} have no validation image: nothing can be chosen for them")
    found = [Judged(data.group_names[g], (g,), n) for g, n in enumerate(counts) if n >= min_images]
    for role in ("majority", "minority"):
        small = tuple(g for g, n in enumerate(counts) if n < min_images and data.roles[g] == role)
        names = [data.group_names[g] for g in small]
        if small:
            name = names[0] if len(small) == 1 else f"{role} ({', '.join(names)})"
            found.append(Judged(name, small, sum(counts[g] for g in small)))
    return sorted(found, key=lambda one: one.groups)


def gain_p_value(first: Tensor, second: Tensor, groups: Tensor, n_groups: int, *, seed: int = 0) -> float:
    """How often random swaps of paired answers raise the worst-group accuracy as much as `second` does over `first`.

    One-sided paired randomisation test (Edgington and Onghena, Randomization Tests, 2007) of
    min_g mean_g(second) - min_g mean_g(first); (1 + swaps at least as large) / (1 + swaps).

    Args:
        first: 1 where it is right, else 0 (or the share of views), (n,).
        second: The other's answers on the same images, (n,).
        groups: Group of each image, (n,), every group with an image.
        n_groups: Number of groups.
        seed: Of the swaps.

    >>> right, wrong, one = torch.ones(8), torch.zeros(8), torch.zeros(8).long()
    >>> gain_p_value(right, right, one, 1), abs(gain_p_value(wrong, right, one, 1) - 2**-8) < 0.002
    (1.0, True)
    """
    a, b = (values.detach().cpu().double().numpy() for values in (first, second))
    belongs = np.eye(n_groups)[groups.cpu().numpy()]
    n, differ = belongs.sum(axis=0), a != b
    moved = (b - a)[differ, None] * belongs[differ] / n  # what swapping one image adds to first, takes from second
    means = (a @ belongs / n, b @ belongs / n)
    observed = means[1].min() - means[0].min()
    generator, at_least = np.random.default_rng(seed), 0
    for start in range(0, DRAWS, 1000):
        swaps = generator.integers(0, 2, size=(min(1000, DRAWS - start), len(moved))) @ moved
        gains = (means[1] - swaps).min(axis=1) - (means[0] + swaps).min(axis=1)
        at_least += int((gains >= observed - ROUNDING).sum())
    return (1 + at_least) / (1 + DRAWS)


def check_limits(max_accuracy_loss: float, significance: float) -> None:
    """Refuse limits outside their range: points from 0 to 100, a significance in (0, 1]."""
    if not 0 <= max_accuracy_loss <= 100:
        raise ValueError(f"the largest loss of overall accuracy is 0 to 100 points, got {max_accuracy_loss}")
    if not 0 < significance <= 1:
        raise ValueError(f"significance is above 0 and at most 1 (take the best, noise or not), got {significance}")


def choose(
    correct: Mapping[str, Tensor],
    groups: Tensor,
    names: Sequence[str],
    *,
    max_accuracy_loss: float = 1.0,
    significance: float = NOISE,
) -> Choice:
    """Choose an arm from its answers on validation images; the rule is the module's.

    Args:
        correct: For each arm, `plain` among them, 1 where it is right, else 0 (or the share of views), (n,).
        groups: Judged group of each image, (n,).
        names: Name of each judged group.
        max_accuracy_loss: Points of overall accuracy that an arm may lose against `plain`.
        significance: Keep `plain` unless the gain's p-value is at most this; 1 takes every gain, noise or not.

    Raises:
        ValueError: If `plain` is missing, the loss is negative or the significance outside (0, 1].
    """
    if PLAIN not in correct:
        raise ValueError(f"arms are compared with {PLAIN!r}, which is missing from {', '.join(correct)}")
    check_limits(max_accuracy_loss, significance)
    everything = torch.zeros_like(groups)
    candidates = []
    for arm in sorted(correct, key=lambda arm: arm != PLAIN):
        [overall] = group_accuracy(correct[arm], everything, 1)
        judged = tuple(group_accuracy(correct[arm], groups, len(names)))
        worst = min(judged, key=lambda one: one.accuracy)
        least = (candidates[0].overall if candidates else overall).accuracy - max_accuracy_loss / 100
        allowed = overall.accuracy >= least - ROUNDING
        candidates.append(Candidate(arm, replace(overall, group=-1), judged, worst, allowed))
    plain, rivals = candidates[0], sum(one.allowed for one in candidates[1:])
    for number, one in enumerate(candidates[1:], 1):
        if one.allowed:
            p = gain_p_value(correct[PLAIN], correct[one.arm], groups, len(names))
            candidates[number] = replace(one, p=min(1.0, p * rivals))
    gained = [one for one in candidates if one.allowed and _merit(one)[0] > _merit(plain)[0]]
    best = max(gained, key=_merit, default=plain)  # the first of equals
    chosen = best if best is plain or best.p <= significance else plain
    reason = _reason(candidates, best, chosen, names, max_accuracy_loss, significance)
    return Choice(chosen.arm, best.arm, reason, tuple(candidates))


def _merit(one: Candidate) -> tuple[int, int]:
    return round(one.worst.accuracy / ROUNDING), round(one.overall.accuracy / ROUNDING)


def _reason(
    candidates: Sequence[Candidate], best: Candidate, chosen: Candidate, names: Sequence[str], loss: float, limit: float
) -> str:
    plain, rivals = candidates[0], sum(one.allowed for one in candidates[1:])
    if len(candidates) == 1:
        return "There is no repair to choose from."
    if not rivals:
        return f"Every repair loses more than {loss:g} points of overall validation accuracy against plain."
    worst = f"{100 * best.worst.accuracy:.1f} % ({names[best.worst.group]})"
    if best is plain:
        return (
            f"No repair within {loss:g} points of plain's overall accuracy has a better worst group than its {worst}."
        )
    gain, overall = (100 * (getattr(best, one).accuracy - getattr(plain, one).accuracy) for one in ("worst", "overall"))
    found = f"{best.arm} has the best worst group, {worst}, {gain:+.1f} points against plain, overall {overall:+.1f}"
    noise = "more than noise" if best.p <= NOISE else "within noise"
    compared = f"the gain is {noise} (p = {best.p:.2g} for the best of {rivals} arm{'s' * (rivals > 1)})"
    if chosen is plain:
        return f"{found}, but {compared}, above the limit {limit:g}, so the simplest arm stays."
    return f"{found}; {compared}" + ("." if best.p <= NOISE else f", taken because significance is {limit:g}.")
