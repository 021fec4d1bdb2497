"""KD / C: what the mitigation of the released code trains.

There the penalty has no gradient, and KD is averaged over batch *and classes*. What is left is fine-tuning on
CE + KD / C, with C the number of classes, without any term about groups: a control that every mitigation has to beat.
"""

from dataclasses import dataclass

from linfair.ledger import STEPS
from linfair.mitigation.objective import MitigationOptions


@dataclass(frozen=True)
class KDOverC(MitigationOptions):
    """Fine-tuning on CE + KD / C, no penalty."""

    name = "kd_over_c"
    summary = "weighs KD by 1 / classes and knows no groups: what the released mitigation trains"
    source = "code released with Das et al., ICML 2024; a control"
    privacy = STEPS["fine-tuning"]
    kd_over_classes = True
