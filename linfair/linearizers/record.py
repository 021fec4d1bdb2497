"""What every linearizer returns: one record per budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from linfair.ensemble import Ensemble
from linfair.ledger import Guarantee
from linfair.masks import RELUS, WORDS, Mask, Reduction

TOLERANCE = 0.05  #: Share of a budget by which a count may differ from it before tables say that it was missed


class BudgetOutOfReach(RuntimeError):
    """A method cannot meet a ReLU budget with its present options."""


@dataclass(frozen=True)
class LinearizedModel:
    """One ReLU budget of one method, for one network or for every member of an ensemble."""

    method: str
    budget: float  #: What was asked, a fraction of the units
    budget_units: int  #: The same as a count
    model: nn.Module  #: The network (or ensemble), its gates binary and frozen
    masks: list[Mask]  #: One for each member
    epochs: tuple[int, ...]  #: Epochs each member had trained, the last one perhaps in part, when its mask was taken
    history: list[dict[str, object]] = field(default_factory=list, repr=False)  #: Rows of the mask phase
    accuracy_before: tuple[float, ...] | None = None  #: Of each member on validation images, before fine-tuning
    accuracy_after: tuple[float, ...] | None = None  #: The same after it
    mitigation: object | None = None  #: Options of the mitigation it was fine-tuned with
    finetuning: list[dict[str, object]] = field(default_factory=list, repr=False)  #: Rows of the fine-tuning
    diverged: tuple[int | None, ...] | None = None  #: Epoch in which a member diverged; it is as it was before that one
    steps: tuple[int, ...] | None = None  #: `epochs` as a count of steps; None where masks are taken at an epoch's end
    configurations: tuple[str, ...] | None = None  #: Which layers each member keeps, where whole layers are removed
    reduction: Reduction = RELUS  #: What was removed
    guarantee: Guarantee | None = None  #: Of privacy, with what ended it; None if the original never had one

    @property
    def kept(self) -> tuple[int, ...]:
        """Kept ReLUs of each member: at most the budget, fewer where a method undershoots."""
        return tuple(mask.kept for mask in self.masks)

    @property
    def mask(self) -> Mask:
        """The mask of a single network."""
        if len(self.masks) != 1:
            raise ValueError(f"this record holds {len(self.masks)} networks: use .masks")
        return self.masks[0]


def record(
    method: str,
    budget: float,
    budget_units: int,
    networks: Sequence[nn.Module],
    epochs: Sequence[int],
    history: list[dict[str, object]],
    *,
    single: bool,
    steps: Sequence[int] | None = None,
    reduction: Reduction = RELUS,
) -> LinearizedModel:
    """Put one budget's networks, their switches set, into a record."""
    model = networks[0] if single else Ensemble(networks)
    steps = epochs if steps is None and not any(epochs) else steps
    about = {"steps": None if steps is None else tuple(steps), "reduction": reduction}
    return LinearizedModel(method, budget, budget_units, model, reduction.masks(model), tuple(epochs), history, **about)


def missed(kept: int, units: int) -> bool:
    """Whether a count misses its budget by more than `TOLERANCE` of it."""
    return abs(kept - units) > TOLERANCE * units


def budget_units(budget: float, total: int) -> int:
    """A ReLU budget, a fraction in [0, 1], as a count: round(budget * total)."""
    if not 0 <= budget <= 1:
        raise ValueError(f"a ReLU budget is a fraction in [0, 1], got {budget}; divide a count by {total} units")
    return round(budget * total)


def check_budgets(
    budgets: Sequence[float], *, ends: bool = True, total: Callable[[], int] = lambda: 491_520
) -> tuple[float, ...]:
    """Budgets as a tuple, if they are fractions in strictly descending order, 0 and 1 themselves only with `ends`.

    The `total` of units, by default ResNet18's at 32x32, is asked for to say which fraction a count is.
    """
    values = tuple(float(budget) for budget in budgets)
    inside = all(0 <= b <= 1 if ends else 0 < b < 1 for b in values)
    if not values or not inside or any(a <= b for a, b in zip(values, values[1:], strict=False)):
        allowed, most = "in [0, 1]" if ends else "above 0 and below 1", max(values, default=0)
        hint = f"; {most:g} % is written {most / 100:g}" if 1 < most <= 100 else ""
        if most > 100:
            hint = f"; {most:g} of the {(units := total()):,} ReLUs of the network are the share {most / units:.4g}"
        raise ValueError(f"budgets must be fractions {allowed} in strictly descending order, got {list(budgets)}{hint}")
    return values


def share(budget: float) -> str:
    """A budget in words: `5 %`."""
    return f"{100 * budget:g} %"


def kept_share(kept: int, total: int, budget: float, units: str = WORDS["relu"]) -> str:
    """What is left of the ReLUs or weights, and whether that misses the budget, see `missed`."""
    off = missed(kept, budget_units(budget, total))
    left = share(budget) if not off and 0 < abs(kept - budget * total) <= 1 else f"{100 * kept / total:.3g} %"
    word = f"; the budget of {share(budget)} was missed" if off else ""
    return f"{left} of the {units} left ({kept:,} of {total:,}{word})"
