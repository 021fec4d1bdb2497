"""How far linearization moved a network: in its parameters (the paper's Fig. 8), and in its predictions (churn).

Training alone moves parameters too, so the distance of the 100 % control belongs beside that of a linearized network.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linfair import weights
from linfair.gates import sites
from linfair.metrics.accuracy import group_accuracy
from linfair.metrics.risk import GroupMean, check_shapes, checked_logits
from linfair.names import some


@dataclass(frozen=True)
class ParameterDistance:
    """Euclidean distance between the parameters of two networks."""

    n: int  #: Scalars compared
    distance: float  #: |theta~ - theta*|
    original: float  #: |theta*|
    relative: float  #: distance / original; nan where every parameter of the original is 0


def parameter_distance(model: nn.Module, original: nn.Module) -> ParameterDistance:
    """Distance |theta~ - theta*|_2 of a linearized network, with gates or without, from the original.

    theta are all parameters but the gates' alphas; the running statistics of batch norm are no parameters. A ValueError
    says where the networks differ in structure, that they have no parameters, are ensembles, or hold one that is not
    finite.

    >>> one, two = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    >>> one.weight.data, two.weight.data = torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    >>> parameter_distance(one, two)
    ParameterDistance(n=2, distance=4.0, original=5.0, relative=0.8)
    """
    old, new = _weights(original, "original"), _weights(model, "linearized")
    shapes = {key: [tuple(one[key].shape) if key in one else "missing" for one in (new, old)] for key in new | old}
    where = "{} is {} in the linearized network, {} in the original"
    if differences := [where.format(key, *pair) for key, pair in shapes.items() if pair[0] != pair[1]]:
        raise ValueError(f"the networks differ in structure: {some(differences, 4, '; ')}")
    if not old:
        raise ValueError("the networks have no parameters to compare")
    moved = math.hypot(*(float((new[name] - old[name]).norm()) for name in old))
    norm = math.hypot(*(float(value.norm()) for value in old.values()))
    n = sum(value.numel() for value in old.values())
    return ParameterDistance(n, moved, norm, moved / norm if norm else math.nan)


def _weights(model: nn.Module, role: str) -> dict[str, Tensor]:
    """Parameters by name, float64 on the CPU, without the gates' alphas."""
    if getattr(model, "members", None) is not None:
        raise ValueError(f"the {role} network is an ensemble of {model.members}: compare one member(index) at a time")
    gated = {f"{site}.alpha" for site in sites(model)}
    found = {name: value.detach().cpu().double() for name, value in weights.named(model) if name not in gated}
    if bad := [name for name, value in found.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"parameters of the {role} network are not finite: {some(bad, 4)}; it diverged")
    return found


def group_churn(logits: Tensor, other: Tensor, groups: Tensor, n_groups: int) -> list[GroupMean]:
    """Churn, the share of each group's inputs whose label two networks predict differently, with Wilson's interval.

    >>> one, two = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    >>> group_churn(one, two, torch.tensor([0, 0]), 1)[0].mean
    0.5
    """
    check_shapes(logits, other)
    changed = checked_logits(logits).argmax(dim=1) != checked_logits(other).argmax(dim=1)
    return [GroupMean(*vars(row).values()) for row in group_accuracy(changed, groups.cpu(), n_groups)]
