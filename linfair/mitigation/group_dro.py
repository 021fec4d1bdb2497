"""Group DRO: the loss of the worst group, by exponentiated gradients (Sagawa, Koh, Hashimoto, Liang; ICLR 2020).

Each of G groups with training images has a weight q_a, 1/G at first. Per batch B (Algorithm 1, all groups at once)

    q_a <- q_a exp(step L_a(B)) / sum_b q_b exp(step L_b(B)),    loss = sum_a q_a L_a(B),

with the group means of L^KD, 0 for an absent group; the weights have no gradient. After batches 1..t they are
therefore the softmax of step * (L_a(B_1) + ... + L_a(B_t)).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linfair.ledger import STEPS
from linfair.mitigation.objective import MitigatedObjective, MitigationOptions
from linfair.training import Batch, Failure


class GroupDROObjective(MitigatedObjective):
    """The weighted sum of group losses; rows hold `weights` (at the end of the epoch) and `absent`."""

    carried = ("exponents",)
    repeats = True

    def __init__(self, *args: object, **stage: object) -> None:
        super().__init__(*args, **stage)
        self.exponents.masked_fill_(~self.trained_on, -torch.inf)

    @property
    def weights(self) -> Tensor:
        """Weight of each group, (members, groups), adding up to 1."""
        return self.exponents.softmax(dim=1)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Step of the weights, then the weighted loss of the batch, one number for each member."""
        _, means, counts = self.batch_losses(model(batch.x), batch)
        self.note_absent(counts > 0, batch)
        if not batch.again:
            self.exponents += self.options.step * means.detach()
        return (self.weights.to(means.dtype) * means).sum(dim=1)

    def after_epoch(self, epoch: int) -> dict[int, Failure]:
        """Log the weights."""
        self.log(weights=self.weights)
        return {}


@dataclass(frozen=True)
class GroupDRO(MitigationOptions):
    """Options of group DRO.

    Attributes:
        step: Step of the exponentiated gradient, per batch; 0.01 is the authors'.
        clip: Largest gradient norm; None is unbounded.
    """

    name = "group_dro"
    summary = "weighs groups by exponentiated gradients on their losses"
    source = "Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020"
    privacy = STEPS["group multipliers"]
    objective = GroupDROObjective
    step: float = 0.01
    clip: float | None = None
