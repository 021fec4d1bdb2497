"""KD / C: what the mitigation of the released code trains.

There the penalty has no gradient, and KD is averaged over batch *and classes* where the baseline averages over the
batch alone. What is left is fine-tuning on

    CE + KD / C,    C the number of classes,

without any term about groups: a control that every mitigation has to beat.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from linfair.mitigation.objective import MitigatedObjective
from linfair.training import Data, Distill


def over_classes(distill: Distill, classes: int) -> Distill:
    """The same distillation loss with KD weighing 1 / classes of what it did."""
    return Distill(
        distill.teacher, distill.data, temperature=distill.temperature, ce=distill.ce, kd=distill.kd / classes
    )


@dataclass(frozen=True)
class KDOverC:
    """Fine-tuning on CE + KD / C, no penalty; without options."""

    name: ClassVar[str] = "kd_over_c"

    def start(
        self, model: nn.Module, teacher: nn.Module, data: Data, *, distill: Distill | None = None
    ) -> MitigatedObjective:
        """The objective of one stage."""
        objective = MitigatedObjective(model, teacher, data, distill=distill)
        objective.distill = over_classes(objective.distill, objective.classes)
        return objective
