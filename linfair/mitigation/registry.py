"""The mitigations by name."""

from typing import NamedTuple

from linfair.ledger import UNDESCRIBED, Step
from linfair.mitigation.balanced_sampling import BalancedSampling
from linfair.mitigation.equal_gradients import EqualGradients
from linfair.mitigation.excess_drop import ExcessDrop
from linfair.mitigation.group_dro import GroupDRO
from linfair.mitigation.lagrangian import Lagrangian
from linfair.mitigation.objective import PLAIN, KDOverC, Plain
from linfair.names import unknown


class Mitigation(NamedTuple):
    """One way of training a student: `options(...).start(model, teacher, data)` is its objective."""

    name: str
    summary: str
    source: str
    options: type
    privacy: Step = UNDESCRIBED  # what it does to a privacy guarantee; one that does not say ends it


_OWN = (Plain, Lagrangian, KDOverC, ExcessDrop, BalancedSampling, GroupDRO, EqualGradients)
MITIGATIONS = {one.name: Mitigation(one.name, one.summary, one.source, one, one.privacy) for one in _OWN}


def check_name(name: str) -> None:
    """Refuse a name that is no mitigation, with the closest one; `plain` is one of the names."""
    if name.strip().lower() == "none":
        raise ValueError(f"no arm {name!r}: the arm of plain fine-tuning is called {PLAIN!r}")
    if name not in MITIGATIONS:
        raise ValueError(unknown("no mitigation", name, MITIGATIONS))


def resolve(mitigation: str | object | None) -> object:
    """The options meant by a name (its defaults), by options themselves, or by None (no mitigation)."""
    if mitigation is None:
        return Plain()
    if isinstance(mitigation, str):
        check_name(mitigation)
        return MITIGATIONS[mitigation].options()
    if isinstance(mitigation, type) or not callable(getattr(mitigation, "start", None)):
        known = f"a name ({', '.join(MITIGATIONS)}) or its options, for example Lagrangian(mu=0.005)"
        raise ValueError(f"a mitigation is {known}; got {mitigation!r}")
    return mitigation
