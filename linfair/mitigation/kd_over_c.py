"""KD / C: what the mitigation of the released code trains.

There the penalty has no gradient, and KD is averaged over batch *and classes*. What is left is fine-tuning on
CE + KD / C, with C the number of classes, without any term about groups: a control that every mitigation has to beat.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from linfair.mitigation.objective import MitigatedObjective, MitigationOptions
from linfair.training import Distill


def over_classes(distill: Distill, classes: int) -> Distill:
    """The same distillation loss with KD weighing 1 / classes of what it did."""
    return replace(distill, kd=distill.kd / classes)


class OverClasses(MitigatedObjective):
    """CE + KD / C of a batch."""

    def __init__(self, *args: object, **stage: object) -> None:
        super().__init__(*args, **stage)
        self.distill = over_classes(self.distill, self.classes)


@dataclass(frozen=True)
class KDOverC(MitigationOptions):
    """Fine-tuning on CE + KD / C, no penalty; without options."""

    name: ClassVar[str] = "kd_over_c"
    objective: ClassVar = OverClasses
