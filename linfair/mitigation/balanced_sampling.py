"""Balanced sampling: every group as often as any other, whatever its share of the data.

Images are drawn with replacement, as many as the training split has, image i of group a(i) with probability

    p_i = 1 / (G n_a(i)),    G groups with images, n_a images of group a,

and the objective stays L^KD. The simplest repair there is, and one that others have to beat. What is drawn depends on
seed, stage and epoch alone, as every epoch's order does.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from linfair.mitigation.objective import MitigatedObjective
from linfair.training import Data, Distill


def draw_balanced(groups: Tensor, generator: torch.Generator) -> Tensor:
    """As many positions as there are images, every group equally likely.

    Args:
        groups: Group of each image, int64 (n,), on the CPU.
        generator: Decides what is drawn.

    >>> groups = torch.tensor([0] * 999 + [1])
    >>> drawn = draw_balanced(groups, torch.Generator().manual_seed(0))
    >>> len(drawn), bool(450 < groups[drawn].sum() < 550)
    (1000, True)
    """
    counts = torch.bincount(groups)
    return torch.multinomial(1 / counts[groups].double(), len(groups), replacement=True, generator=generator)


@dataclass(frozen=True)
class BalancedSampling:
    """Fine-tuning on L^KD, batches drawn with equal probability per group; without options."""

    name: ClassVar[str] = "balanced_sampling"

    def start(
        self, model: nn.Module, teacher: nn.Module, data: Data, *, distill: Distill | None = None
    ) -> MitigatedObjective:
        """The objective of one stage, its sampler set."""
        objective = MitigatedObjective(model, teacher, data, distill=distill)
        objective.sampler = draw_balanced
        return objective
