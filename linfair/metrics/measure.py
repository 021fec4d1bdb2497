"""Measure a network, or every member of an ensemble, on every split and group: the rows of a result table.

Beside a group's accuracy stand the quantities by which the paper explains who loses it (Das et al., ICML 2024).
"""

from collections.abc import Collection, Sequence
from functools import cache

import pandas as pd
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData, Split
from linfair.device import full_precision
from linfair.ensemble import Ensemble
from linfair.metrics.accuracy import group_accuracy
from linfair.metrics.curvature import top_eigenvalue_pairs
from linfair.metrics.distance import group_churn, parameter_distance
from linfair.metrics.gradients import group_gradient_norm_pairs, group_gradient_norms
from linfair.metrics.margin import margin
from linfair.metrics.risk import GroupMean, excessive_loss, group_risk, mean_by_group
from linfair.training import Data, answers

MEANS = ("risk", "excess", "margin", "churn")  #: Means over a group's inputs, with an interval in `*_low` and `*_high`
GRADIENTS = ("gradient_norm", "gradient_norm_alpha")  #: Without the gates' alphas, with them
EIGENVALUES = ("top_eigenvalue", "absolute_eigenvalue")  #: Algebraically largest, largest in absolute value
DIAGNOSTICS = (
    *(name + end for name in MEANS for end in ("", "_low", "_high")),
    *GRADIENTS,
    *(name + end for name in EIGENVALUES for end in ("", "_residual", "_converged")),
)
"""The columns that hold one number for each group beside its accuracy."""


class Original:
    """The original network (or ensemble) that others are compared with; its logits on a split are computed once."""

    def __init__(self, model: nn.Module, data: Data) -> None:
        self.model, self.members = model, networks_of(model)
        self.logits = cache(lambda split: answers(model, data, split)[1])  #: Of each member: (members, n, classes)


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The members of an ensemble; a plain network is one member."""
    return model.networks() if isinstance(model, Ensemble) else [model]


@full_precision()
def measure(
    model: nn.Module,
    data: Data,
    seeds: Sequence[int] | None = None,
    budget: float | None = None,
    units: int | None = None,
    kept: Sequence[int] | None = None,
    epochs: Sequence[int] | None = None,
    *,
    original: Original | None = None,
    split: str | Sequence[str] | None = None,
    gradients: Collection[str] = ("train", "test"),
    curvature: Collection[str] = (),
    estimator: str = "exact",
    batch_size: int = 512,
) -> pd.DataFrame:
    """A row per (seed, split, group) with n, accuracy and its Wilson interval, and the group's diagnostics.

    Columns beside the accuracy's: `risk` (nats), `excess` (R(a), paired over inputs), `margin`, `churn`, each with
    `_low` and `_high`, the 95 % interval over the group's inputs (nan for a mean of one input); `gradient_norm` and
    `gradient_norm_alpha` (with the gates' alphas); `top_eigenvalue` (algebraically largest) and `absolute_eigenvalue`
    (largest in absolute value, with its sign), each with `_residual` and `_converged`; `distance` and
    `relative_distance`, the network's. Excess, churn and distance are those to the `original` of the same seed (None
    leaves them out), and 0 for the original itself. What was not computed is nan.

    An ensemble has a data set for each member; `seeds` (0, 1, ... by default), `kept` ReLUs (counted by default) and
    `epochs` (0) that a member had trained when its mask was taken are one for each. `budget`, a fraction, and `units`,
    a count, are by default what the first member keeps; a network without ReLUs keeps all of none. `split` is one or
    several, None all; `gradients` and `curvature` name those on which gradient norms and eigenvalues are computed,
    `estimator` and `batch_size` how, see `linfair.metrics.gradients`. A group without inputs in a split, and outputs
    that are not finite, raise a ValueError.
    """
    sets = [data] if isinstance(data, GroupedData) else list(data)
    alone, original = original is None, original or Original(model, data)
    itself = model is original.model
    members = original.members if itself else networks_of(model)
    pairs = zip(members, original.members, strict=True)
    moved = [parameter_distance(one, two) for one, two in pairs]  # before gates: both have the same names
    gated = [_gated(one, sets[0].input_shape) for one in members]
    kept = [int(gates.kept_units(one)) if gates.sites(one) else 0 for one in gated] if kept is None else kept
    seeds, epochs = range(len(members)) if seeds is None else seeds, epochs or [0] * len(members)
    if budget is None:
        budget = kept[0] / gates.total_units(gated[0]) if gates.sites(gated[0]) else 1.0
    units = kept[0] if units is None else units
    options = {"estimator": estimator, "batch_size": batch_size}
    rows = []
    splits = [split] if isinstance(split, str) else split
    for split in splits or sets[0].splits:
        right, logits = answers(model, data, split)
        reference = logits if itself else original.logits(split)
        for member, (seed, one) in enumerate(zip(seeds, sets, strict=True)):
            part, n_groups = one.splits[split], len(one.group_names)
            columns = _means(logits[member], reference[member], part, n_groups, itself=itself)
            columns |= dict.fromkeys(DIAGNOSTICS[len(columns) :], [None] * n_groups)
            columns |= _gradients(gated[member], one, split, **options) if split in gradients else {}
            columns |= _eigenvalues(gated[member], one, split, **options) if split in curvature else {}
            known = {"budget": budget, "budget_units": units, "kept": kept[member], "mask_epochs": epochs[member]}
            distance = {"distance": moved[member].distance, "relative_distance": moved[member].relative}
            accuracies = group_accuracy(right[member], part.a, n_groups)
            for group, role, trained in zip(accuracies, one.roles, one.counts, strict=True):
                named = {"group": group.group, "group_name": one.group_names[group.group], "role": role}
                values = {name: column[group.group] for name, column in columns.items()}
                of_group = named | {"n_train": trained} | vars(group) | values
                rows.append(known | {"seed": seed, "split": split} | of_group | distance)
    table = pd.DataFrame(rows)
    if alone:
        table[table.filter(regex="^(excess|churn|distance|relative)").columns] = float("nan")
    return table.astype({name: "boolean" if name.endswith("_converged") else float for name in DIAGNOSTICS})


def _gated(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """A network with gates at its ReLUs, if it has any."""
    try:
        return model if gates.sites(model) else gates.install(model, input_shape)
    except gates.NoReLU:
        return model


def _means(logits: Tensor, reference: Tensor, part: Split, n_groups: int, *, itself: bool) -> dict[str, list[float]]:
    """The columns of `MEANS` and their ends, a number for each group; of the original itself excess and churn are 0."""
    found = {
        "risk": group_risk(logits, part.y, part.a, n_groups),
        "excess": excessive_loss(logits, reference, part.y, part.a, n_groups),
        "margin": mean_by_group(margin(logits), part.a, n_groups),
        "churn": group_churn(logits, reference, part.a, n_groups),
    }
    for name in ("excess", "churn") if itself else ():
        found[name] = [GroupMean(row.group, row.n, 0.0, 0.0, 0.0) for row in found[name]]
    ends = (("", "mean"), ("_low", "low"), ("_high", "high"))
    return {name + end: [getattr(row, field) for row in rows] for name, rows in found.items() for end, field in ends}


def _gradients(model: nn.Module, data: GroupedData, split: str, **options: object) -> dict[str, list[float]]:
    """The columns of `GRADIENTS`, a value for each group."""
    if not gates.sites(model):
        return {GRADIENTS[0]: [row.norm for row in group_gradient_norms(model, data, split, **options)]}
    kinds = zip(*group_gradient_norm_pairs(model, data, split, **options), strict=True)
    return {name: [row.norm for row in rows] for name, rows in zip(GRADIENTS, kinds, strict=True)}


def _eigenvalues(model: nn.Module, data: GroupedData, split: str, **options: object) -> dict[str, list[object]]:
    """The columns of `EIGENVALUES` and their evidence, a value for each group."""
    pairs, columns = top_eigenvalue_pairs(model, data, split, **options), {}
    for name, rows in zip(EIGENVALUES, zip(*pairs, strict=True), strict=True):
        for end in ("value", "residual", "converged"):
            columns[name if end == "value" else f"{name}_{end}"] = [getattr(row, end) for row in rows]
    return columns
