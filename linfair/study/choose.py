"""Which mitigation to take, on validation data alone: the best worst group within a stated loss of overall accuracy.

With A_g(m) the validation accuracy of arm m on judged group g, and A(m) over all validation images, the candidate is

    argmax_m min_g A_g(m)    over arms with A(m) >= A(none) - max_accuracy_loss,    ties by A(m), then by order.

`none` is plain fine-tuning (the `plain` of studies). Whether the candidate's gain in min_g A_g is more than noise is
asked of a paired randomisation test: if candidate and `none` answered alike, each image's two answers could be swapped,
so the gain is compared with that of random swaps, and the p-value is multiplied by the number of arms compared
(Bonferroni), as the best of several gains by luck alone. The candidate is taken either way, and noise is called noise:
the loss allowed bounds what a useless mitigation can cost, and with few validation images no gain, however real, would
pass. `significance` below 1 asks for more and keeps `none`, the simplest arm, unless the p-value is at most that.

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

DRAWS = 9999
"""Random swaps of the test for noise: p-values are multiples of 1 / 10,000."""

FEW = 10
"""Groups with fewer validation images are judged together."""

ROUNDING = 1e-6
"""Accuracies closer than this are equal: shares of views are float32."""

NOISE = 0.05
"""A gain with a p-value above this is called noise."""


@dataclass(frozen=True)
class Judged:
    """One group, or several small ones of a role, judged by one accuracy.

    Attributes:
        name: The group's name, or `minority (1, 3, 4)`.
        groups: Numbers of the groups.
        n: Validation images.
    """

    name: str
    groups: tuple[int, ...]
    n: int

    @property
    def width(self) -> tuple[float, float]:
        """The Wilson interval of an accuracy of one half on so many images: how little they say."""
        return wilson(0.5, self.n)


@dataclass(frozen=True)
class Candidate:
    """One arm on validation data.

    Attributes:
        arm: Its name.
        overall: Accuracy over all validation images; group -1.
        judged: Accuracy of each judged group.
        worst: The lowest of those.
        allowed: Whether the overall loss against `none` is within what was allowed.
        p: P-value of its gain in worst-group accuracy, times the number of arms compared; nan if it was not tested.
    """

    arm: str
    overall: GroupAccuracy
    judged: tuple[GroupAccuracy, ...]
    worst: GroupAccuracy
    allowed: bool
    p: float = math.nan


@dataclass(frozen=True)
class Choice:
    """What was chosen, among what, and why.

    Attributes:
        chosen: Name of the arm.
        best: The candidate; other than `chosen` only where its p-value is above `significance`.
        reason: One sentence.
        candidates: Every arm that did not diverge, `none` first.
    """

    chosen: str
    best: str
    reason: str
    candidates: tuple[Candidate, ...]

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
    """Refuse limits that are none.

    Raises:
        ValueError: If the loss is no number of points from 0 to 100, or the significance not in (0, 1].
    """
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
    significance: float = 1.0,
) -> Choice:
    """Choose an arm from its answers on validation images; the rule is the module's.

    Args:
        correct: For each arm, `none` among them, 1 where it is right, else 0 (or the share of views), (n,).
        groups: Judged group of each image, (n,).
        names: Name of each judged group.
        max_accuracy_loss: Points of overall accuracy that an arm may lose against `none`.
        significance: Keep `none` unless the gain's p-value is at most this; 1 takes the best arm, noise or not.

    Raises:
        ValueError: If `none` is missing, the loss is negative or the significance outside (0, 1].
    """
    if "none" not in correct:
        raise ValueError(f"arms are compared with 'none', which is missing from {', '.join(correct)}")
    check_limits(max_accuracy_loss, significance)
    everything = torch.zeros_like(groups)
    candidates = []
    for arm in sorted(correct, key=lambda arm: arm != "none"):
        [overall] = group_accuracy(correct[arm], everything, 1)
        judged = tuple(group_accuracy(correct[arm], groups, len(names)))
        worst = min(judged, key=lambda one: one.accuracy)
        least = (candidates[0].overall if candidates else overall).accuracy - max_accuracy_loss / 100
        allowed = overall.accuracy >= least - ROUNDING
        candidates.append(Candidate(arm, replace(overall, group=-1), judged, worst, allowed))
    rivals = [one for one in candidates if one.allowed and one.arm != "none"]
    for number, one in enumerate(candidates):
        if one in rivals:
            p = gain_p_value(correct["none"], correct[one.arm], groups, len(names))
            candidates[number] = replace(one, p=min(1.0, p * len(rivals)))
    allowed = [one for one in candidates if one.allowed]
    best = max(allowed, key=_merit)  # the first of equals
    chosen = best if best.arm == "none" or best.p <= significance else candidates[0]
    reason = _reason(candidates, best, chosen, names, max_accuracy_loss, significance)
    return Choice(chosen.arm, best.arm, reason, tuple(candidates))


def _merit(one: Candidate) -> tuple[int, int]:
    return round(one.worst.accuracy / ROUNDING), round(one.overall.accuracy / ROUNDING)


def _reason(
    candidates: Sequence[Candidate],
    best: Candidate,
    chosen: Candidate,
    names: Sequence[str],
    loss: float,
    significance: float,
) -> str:
    none, rivals = candidates[0], [one for one in candidates if one.allowed and one.arm != "none"]
    if len(candidates) == 1:
        return "none: no other arm is left to choose."
    if not rivals:
        return f"none: every mitigation loses more than {loss:g} points of overall validation accuracy against it."
    if best is none:
        return (
            f"none: no mitigation within {loss:g} points of its overall validation accuracy has a better worst group "
            f"than its {100 * none.worst.accuracy:.1f} % ({names[none.worst.group]})."
        )
    gain = 100 * (best.worst.accuracy - none.worst.accuracy)
    found = (
        f"{best.arm} has the best worst group, {100 * best.worst.accuracy:.1f} % ({names[best.worst.group]}), "
        f"{gain:+.1f} points against none, overall {100 * (best.overall.accuracy - none.overall.accuracy):+.1f}"
    )
    compared = f"p = {best.p:.2g} for the best of {len(rivals)} arm{'s' * (len(rivals) > 1)}"
    if chosen is none:
        return f"none: {found}, but with {compared}, above {significance:g}, the simplest arm stays."
    if best.p <= NOISE:
        return f"{found}: more than noise ({compared})."
    return f"{found}: within noise ({compared}), so on new data the gain may not be there."
