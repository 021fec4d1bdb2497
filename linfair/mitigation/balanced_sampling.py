"""Balanced sampling: every group as often as any other, the simplest repair, and one that others have to beat.

Images are drawn with replacement, as many as the training split has, image i of group a(i) with probability

    p_i = 1 / (G n_a(i)),    G groups with images, n_a images of group a,

and the objective stays L^KD. What is drawn depends on seed, stage and epoch alone, as every epoch's order does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linfair.ledger import STEPS
from linfair.mitigation.objective import MitigatedObjective, MitigationOptions
from linfair.training import evenly


def balanced(groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
    """Batches of as many positions as there are images, every group equally likely; None is one batch of all.

    `groups` is the group of each image, int64 (n,), on the CPU; the generator decides what is drawn.

    >>> groups = torch.tensor([0] * 999 + [1])
    >>> [drawn] = balanced(groups, None, torch.Generator().manual_seed(0))
    >>> len(drawn), bool(450 < groups[drawn].sum() < 550)
    (1000, True)
    """
    counts = torch.bincount(groups)
    drawn = torch.multinomial(1 / counts[groups].double(), len(groups), replacement=True, generator=generator)
    return evenly(drawn, batch_size)


class Balanced(MitigatedObjective):
    """L^KD on balanced batches."""

    batches = staticmethod(balanced)


@dataclass(frozen=True)
class BalancedSampling(MitigationOptions):
    """Fine-tuning on L^KD, batches drawn with equal probability per group."""

    name = "balanced_sampling"
    summary = "draws every group equally often"
    source = "a standard baseline (resampling)"
    privacy = STEPS["balanced sampling"]
    objective = Balanced
