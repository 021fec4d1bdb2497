"""Mitigations: ways of training a linearized network that let no group pay more than others.

Start with `linearizers.finetune(..., mitigation="lagrangian")`, or options instead of a name: `Lagrangian(mu=0.005)`;
`MITIGATIONS` lists them. `SNL(mitigation=...)` uses the same objectives while the mask is selected.
"""

from linfair.mitigation.balanced_sampling import BalancedSampling
from linfair.mitigation.equal_gradients import EqualGradients
from linfair.mitigation.excess_drop import ExcessDrop
from linfair.mitigation.group_dro import GroupDRO
from linfair.mitigation.lagrangian import RELEASED, Lagrangian
from linfair.mitigation.objective import PLAIN, KDOverC, MitigatedObjective, MitigationOptions, Plain, means_by_group
from linfair.mitigation.registry import MITIGATIONS, Mitigation, check_name, resolve
