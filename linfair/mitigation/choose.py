"""Which mitigation to take, on validation data alone: the best worst group within a stated loss of overall accuracy.

With A_g(m) the validation accuracy of arm m on judged group g, and A(m) over all validation images, the best repair is

    argmax_m min_g A_g(m)    over arms with A(m) >= A(plain) - max_accuracy_loss,    ties by A(m), then by order.

Whether a gain is more than noise is asked of a paired randomisation test, its p-value multiplied by the number of arms
compared (Bonferroni). The best repair is chosen if its worst group gains and the p-value is at most `significance`;
else `plain` is, the simplest arm. With few validation images even a real gain may not pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from linfair.data import GroupedData, ensure
from linfair.metrics import GroupAccuracy, group_accuracy
from linfair.mitigation import PLAIN
from linfair.names import some

DRAWS = 9999  #: Random swaps of the test for noise: p-values are multiples of 1 / 10,000
FEW = 10  #: Groups with fewer validation images are judged together: the worst of several such is the unluckiest
ROUNDING = 1e-6  #: Accuracies closer than this are equal: shares of views are float32
NOISE = 0.05
"""A gain with a p-value above this is called noise, and a repair is chosen only below it unless asked otherwise."""

REASONS = {
    "alone": "there is no repair to choose from",
    "costly": "every repair loses more overall accuracy than is allowed",
    "worse": "no repair within the allowed loss has a better worst group than plain",
    "noise": "the best repair's gain is within noise, so the simplest arm stays",
    "limit": "the best repair's p is above the significance asked for, so the simplest arm stays",
    "asked": "it has the best worst group; its gain is within noise, which the significance asked for allows",
    "gain": "it has the best worst group, and its gain is more than noise",
}
"""Why an arm is chosen; the table of arms has the numbers."""


@dataclass(frozen=True)
class Judged:
    """One group, or several small ones of a role, judged by one accuracy."""

    name: str  # the group's, or `minority (1, 3, 4)`
    groups: tuple[int, ...]
    n: int  # validation images


@dataclass(frozen=True)
class Candidate:
    """One arm on validation data."""

    arm: str
    overall: GroupAccuracy  # over all validation images
    worst: GroupAccuracy  # the lowest of the judged groups
    allowed: bool  # the overall loss against `plain` is within what was allowed
    p: float  # of its gain in worst-group accuracy, times the number of arms compared; nan if not tested


@dataclass(frozen=True)
class Choice:
    """What was chosen, among what, and why."""

    chosen: str
    best: str  # the arm with the best worst group; `chosen` unless its p-value is above `significance`
    reason: str  # one of `REASONS`
    candidates: tuple[Candidate, ...]  # the arms that did not diverge, `plain` first

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


def check_groups(data: GroupedData) -> None:
    """Refuse data with a split in which a group has no image, before anything is trained."""
    for name, part in data.splits.items():
        if empty := [group for number, group in enumerate(data.group_names) if not (part.a == number).any()]:
            text = f"groups {empty} of {data.name} have no image in the split {name}, so nothing can be said of them "
            raise ValueError(f"{text}there: merge them with others, leave them out, or split the data otherwise")


def judged_groups(data: GroupedData, *, min_images: int = FEW) -> list[Judged]:
    """The groups that arms are judged by: those of one role with fewer than `min_images` validation images are one.

    A ValueError says that there is no validation split, or that a group has no image in a split.
    """
    ensure("val" in data.splits, f"{data.name} has no split 'val' to choose on; there are {', '.join(data.splits)}")
    check_groups(data)
    counts, names = torch.bincount(data.splits["val"].a.cpu()).tolist(), data.group_names
    found = [Judged(names[g], (g,), n) for g, n in enumerate(counts) if n >= min_images]
    for role in ("majority", "minority"):
        if small := tuple(g for g, n in enumerate(counts) if n < min_images and data.roles[g] == role):
            listed = some(names[g] for g in small)
            found.append(Judged(f"{role} ({listed})" if small[1:] else listed, small, sum(counts[g] for g in small)))
    return sorted(found, key=lambda one: one.groups)


def gain_p_value(first: Tensor, second: Tensor, groups: Tensor, n_groups: int) -> float:
    """How often random swaps of paired answers raise the worst-group accuracy as much as `second` does over `first`.

    One-sided paired randomisation test (Edgington and Onghena, Randomization Tests, 2007) of min_g mean_g(second) -
    min_g mean_g(first); (1 + swaps at least as large) / (1 + swaps). Answers are 1 where right, else 0 (or the share of
    views), (n,), `groups` those of the same images, (n,), each of `n_groups` with an image.

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
    generator, at_least = np.random.default_rng(0), 0
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

    `correct` has for each arm, `plain` among them, 1 where it is right, else 0 (or the share of views), (n,); `groups`
    is the judged group of each image, (n,), `names` what these are called. At `significance` 1 every gain is taken,
    noise or not. A ValueError refuses answers without `plain`, and limits out of range.
    """
    if PLAIN not in correct:
        raise ValueError(f"arms are compared with {PLAIN!r}, which is missing from {', '.join(correct)}")
    check_limits(max_accuracy_loss, significance)
    correct = {PLAIN: correct[PLAIN], **correct}
    overall = {arm: group_accuracy(right, torch.zeros_like(groups), 1)[0] for arm, right in correct.items()}
    least = overall[PLAIN].accuracy - max_accuracy_loss / 100 - ROUNDING
    rivals = [arm for arm in correct if arm != PLAIN and overall[arm].accuracy >= least]
    candidates = []
    for arm, right in correct.items():
        worst = min(group_accuracy(right, groups, len(names)), key=lambda one: one.accuracy)
        p = gain_p_value(correct[PLAIN], right, groups, len(names)) * len(rivals) if arm in rivals else np.nan
        candidates.append(Candidate(arm, overall[arm], worst, arm in (PLAIN, *rivals), min(p, 1.0)))
    plain, *others = candidates
    merit = {one.arm: [round(two.accuracy / ROUNDING) for two in (one.worst, one.overall)] for one in candidates}
    gained = [one for one in others if one.allowed and merit[one.arm][0] > merit[PLAIN][0]]
    best = max(gained, key=lambda one: merit[one.arm], default=plain)  # the first of equals
    chosen = best if best is plain or best.p <= significance else plain
    noise = best.p > NOISE
    if best is plain:
        why = "worse" if rivals else "costly" if others else "alone"
    else:
        why = ("noise" if noise else "limit") if chosen is plain else "asked" if noise else "gain"
    return Choice(chosen.arm, best.arm, REASONS[why], tuple(candidates))
