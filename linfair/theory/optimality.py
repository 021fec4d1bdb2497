"""Proposition 4.3: whether every group loses, R(a) >= 0.

Das et al., ICML 2024: with theta implementing the optimal decision boundary,

    R(a) = J(theta~; S^a) - J(theta; S^a) >= 0    for any group a,

all models being "trained to achieve their best possible performance". Optimality over all networks gives it for the
*whole* sample; for every group it takes a theta that minimises each J(.; S^a).
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from linfair.data import GroupedData, Split
from linfair.gates import binarise, install, set_alphas


@dataclass(frozen=True)
class Counterexample:
    """Two networks at their exact optimum, and a group that gains from linearization."""

    data: GroupedData  #: The sample, one split `train`, groups majority and minority
    original: nn.Module  #: Two ReLUs, the best of all functions on the sample
    linearized: nn.Module  #: Both units identity and the output bias fine-tuned, the best of all logits linear in x
    overall: float  #: R of the whole sample in closed form, > 0
    excess: tuple[float, float]  #: R(a) of each group in closed form; the minority's is log(4/9) < 0


def counterexample() -> Counterexample:
    """Networks at their exact best, each within its class, whose minority gains; in float64.

    At x = -1 and at 1 there are 3 majority points with label 0 and 1 minority point with label 1; at 0 there are 7
    majority points with label 1 and one with label 0. The original's logit difference, b + c relu(x) + c relu(-x) with
    b = logit(7/8) and b + c = logit(1/4), gives every x its share of label 1. Without ReLUs it is linear in x; the
    sample is symmetric and the risk convex, so the best is b alone, logit(9/16), and though the whole sample loses,

        R(minority) = log(1/4) - log(9/16) = log(4/9) = -0.81 < 0.

    >>> [round(value, 4) for value in counterexample().excess]
    [0.3624, -0.8109]
    """
    middle, outer, overall = 7 / 8, 1 / 4, 9 / 16
    points = [(x, y, a) for x in (-1, 1) for y, a, n in ((0, 0, 3), (1, 1, 1)) for _ in range(n)]
    points += [(0, 1, 0)] * 7 + [(0, 0, 0)]
    x, y, a = (torch.tensor(column) for column in zip(*points, strict=True))
    part = Split(x.double().view(-1, 1), y, a)
    data = GroupedData("counterexample", {"train": part}, ("no", "yes"), ("majority", "minority"))
    peak, slope = _logit(middle), _logit(outer) - _logit(middle)
    original = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)).double()
    weights = [[1.0], [-1.0]], [[0.0, 0.0], [slope, slope]], [0.0, peak]
    for parameter, values in zip(original.parameters(), weights, strict=True):
        parameter.data.copy_(parameter.new_tensor(values))
    linearized = binarise(set_alphas(install(original, (1,)).double(), lambda _, alpha: torch.zeros_like(alpha)))
    linearized[2].bias.data[1] = _logit(overall)
    majority = (6 * _loss(outer, 0) + 7 * _loss(middle, 1) + _loss(middle, 0)) / 14
    after = (7 * _loss(overall, 0) + 7 * _loss(overall, 1)) / 14
    excess = after - majority, _loss(overall, 1) - _loss(outer, 1)
    return Counterexample(data, original, linearized, (14 * excess[0] + 2 * excess[1]) / 16, excess)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _loss(p: float, y: int) -> float:
    """Cross entropy of a label under the probability p of label 1."""
    return -math.log(p if y else 1 - p)
