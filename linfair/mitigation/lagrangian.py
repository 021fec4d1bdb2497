"""Algorithm 1 of the paper: fine-tuning under one Lagrangian multiplier per group (Das et al., ICML 2024, Sec. 6).

Per batch B the student minimises, and once an epoch, over the whole training set S in evaluation mode, multipliers
grow,

    L^KD(B) + sum_a lambda_a |L_a^KD(B) - L^KD(B)|,
    lambda_a <- lambda_a + mu |L_a^KD(S) - L^KD(S)|,    lambda_a = 0 at first.

The penalty has a gradient. In the code released with the paper it has none (it is copied out of the graph): what is
left is its KD, which is averaged over the classes too. These and its other differences are options here. A two-sided
violation also pulls *down* groups that are better than the average; `one_sided` does not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linfair.ledger import STEPS
from linfair.mitigation.objective import MitigationOptions, Multiplied
from linfair.training import Batch


class LagrangianObjective(Multiplied):
    """L^KD + the penalty."""

    repeats = True

    def __init__(self, *args: object, **stage: object) -> None:
        super().__init__(*args, **stage)
        groups = range(self.n_groups) if self.options.groups is None else self.options.groups
        if max(groups) >= self.n_groups:
            raise ValueError(f"groups {groups} were asked for, the data has groups 0 to {self.n_groups - 1}")
        self.summed, self.constrained = self.zeros(), self.zeros(dtype=torch.bool)
        self.constrained[:, list(groups)] = True
        self.constrained &= self.trained_on
        self.by_batches = self.options.accumulate == "batches"

    def _violated(self, mean: Tensor, means: Tensor) -> Tensor:
        """Violation of each constraint, (members, groups), from the mean loss (members,) and the groups'."""
        gap = means - mean.unsqueeze(1)
        return (gap.clamp(min=0) if self.options.one_sided else gap.abs()) * self.constrained

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of a batch and its penalty, one number for each member."""
        mean, means, counts = self.batch_losses(model(batch.x), batch)
        present = counts > (1 if self.by_batches else 0)
        violations = self._violated(mean, means) * present
        self.note_absent(present, batch)
        if not batch.again:
            self.summed += violations.detach()
        penalty = self.penalty(violations)
        return mean + (penalty.detach() if self.options.detached else penalty)

    def violations(self) -> Tensor:
        """Violations over the training split, or the sum of the epoch's batches, (members, groups)."""
        batches, self.summed = self.summed, self.zeros()
        return batches if self.by_batches else self._violated(*self.training_losses())


@dataclass(frozen=True)
class Lagrangian(MitigationOptions):
    """Options of Algorithm 1.

    Attributes:
        mu: Step of the multipliers: 0.001 is the released default, the paper's ablation has 0.0005, 0.005 and 0.01.
        groups: Numbers of the constrained groups; None is all. The released code takes the first five.
        one_sided: Constrain only groups that are worse than the average, max(0, L_a - L).
        clip: Largest gradient norm; None, the paper's, is unbounded.
        detached: Compute the penalty without a gradient, as the released code does.
        accumulate: `epoch`, the violation over the training set; or `batches`, the sum of the batches' violations,
            groups with one image in a batch skipped, as released: the step then grows with the number of batches.
        kd_over_classes: Weigh KD by 1 / classes, as released.
        limit: A multiplier above this counts as diverged.
    """

    name = "lagrangian"
    summary = "adds a multiplier per group times the distance of the group's loss from the mean loss"
    source = "Das et al., ICML 2024, Algorithm 1"
    privacy = STEPS["group multipliers"]
    objective = LagrangianObjective
    mu: float = 0.001
    groups: tuple[int, ...] | None = None
    one_sided: bool = False
    clip: float | None = None
    detached: bool = False
    accumulate: str = "epoch"
    kd_over_classes: bool = False
    limit: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate not in ("epoch", "batches"):
            raise ValueError(f"accumulate is 'epoch' (the paper's) or 'batches' (released), got {self.accumulate!r}")
        if self.groups is not None and (not self.groups or min(self.groups) < 0):
            raise ValueError(f"groups are numbers from 0, at least one, or None for all; got {self.groups}")


RELEASED = Lagrangian(groups=(0, 1, 2, 3, 4), detached=True, accumulate="batches", kd_over_classes=True)
"""The mitigation as the released code runs it on ten classes; its weights are those of `kd_over_c`."""
