"""Margin: how far an input sits from the decision boundary, measured in probability.

With p = softmax(h(x)) and p_(1) >= p_(2) >= ... its entries in order, the *distance to the decision boundary* that the
paper's experiments report (Das et al., ICML 2024, Sec. 5) is, in the released code,

    m(x) = p_(1)(x) - p_(2)(x),

0 on the boundary, 1 where the network is certain, whether or not it is right. The theory for two classes speaks of the
*closeness* f (1 - f), with f the probability of class 1: 1/4 on the boundary, 0 where the network is certain. The two
say the same thing: with two classes m = |2 f - 1|, so f (1 - f) = (1 - m^2) / 4.

Fig. 14 is normalised without saying how; here every group's mean is divided by that of the largest group.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.metrics.risk import GroupMean, checked_logits, logits_on, mean_by_group, values_by_group

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Where `GroupMargin.quantiles` are taken."""


@dataclass(frozen=True)
class GroupMargin(GroupMean):
    """Mean margin of one group, in [0, 1], and how the margins are distributed."""

    normalised: float  #: The mean divided by that of the group with most training inputs; nan where that is 0
    quantiles: tuple[float, ...]  #: Of the group's margins, at `QUANTILES` (linear interpolation)


def margin(logits: Tensor) -> Tensor:
    """Gap between the two largest class probabilities of each input.

    Args:
        logits: Class scores, shape (n, classes), classes >= 2.

    Returns:
        Margins in [0, 1], float64, shape (n,).

    Raises:
        ValueError: For fewer than two classes, or logits that are not finite.

    >>> margin(torch.tensor([[0.0, 0.0, -9.0], [100.0, 0.0, 0.0]])).tolist()
    [0.0, 1.0]
    """
    top = torch.topk(checked_logits(logits).softmax(dim=1), 2, dim=1).values
    return top[:, 0] - top[:, 1]


def closeness(logits: Tensor) -> Tensor:
    """Closeness to the boundary between two classes, f (1 - f) with f the softmax probability of class 1.

    It is computed as sigmoid(z) sigmoid(-z), z = h_1 - h_0, which stays exact where f rounds to 1.

    Args:
        logits: Class scores, shape (n, 2).

    Returns:
        Values in [0, 1/4], float64, shape (n,).

    Raises:
        ValueError: For another number of classes, or logits that are not finite.

    >>> closeness(torch.tensor([[3.0, 3.0]])).tolist()
    [0.25]
    """
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(
            f"closeness f(1 - f) is defined for logits of shape (n, 2), got {tuple(logits.shape)}; "
            "use margin for more classes"
        )
    logits = checked_logits(logits)
    z = logits[:, 1] - logits[:, 0]
    return z.sigmoid() * (-z).sigmoid()


def normalised(means: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Each group's mean divided by that of the group with most training inputs, as in Fig. 14; nan where that is 0.

    Where several groups are the largest, the divisor is the mean of theirs, so that it does not depend on how groups
    are numbered.

    >>> normalised([0.8, 0.2], [900, 100])
    [1.0, 0.25]
    """
    if len(means) != len(counts) or not len(means):
        raise ValueError(f"need one training count for each group, got {len(means)} means and {len(counts)} counts")
    largest = [group for group, count in enumerate(counts) if count == max(counts)]
    reference = sum(means[group] for group in largest) / len(largest)
    return [mean / reference if reference else math.nan for mean in means]


def group_margin(logits: Tensor, groups: Tensor, counts: Sequence[int], *, level: float = 0.95) -> list[GroupMargin]:
    """Margins of each group, from logits.

    Args:
        logits: Class scores, shape (n, classes), classes >= 2.
        groups: Group of each input, int64, shape (n,).
        counts: Training inputs of each group (`GroupedData.counts`); a row for each.
        level: Of the t interval over inputs.

    Raises:
        ValueError: For logits or groups for which a mean margin is not defined.

    >>> z = torch.tensor([[9.0, 0.0], [0.0, 9.0], [1.0, 0.0]])
    >>> rows = group_margin(z, torch.tensor([0, 0, 1]), [90, 10])
    >>> [(row.n, round(row.mean, 3), round(row.normalised, 3)) for row in rows]  # tanh(9 / 2), tanh(1 / 2)
    [(2, 1.0, 1.0), (1, 0.462, 0.462)]
    """
    values = margin(logits)
    parts = values_by_group(values, groups, len(counts))
    rows = mean_by_group(values, groups, len(counts), level=level)
    shares = normalised([row.mean for row in rows], counts)
    return [
        GroupMargin(row.group, row.n, row.mean, row.low, row.high, share, tuple(np.quantile(part, QUANTILES).tolist()))
        for row, share, part in zip(rows, shares, parts, strict=True)
    ]


def group_closeness(logits: Tensor, groups: Tensor, n_groups: int, *, level: float = 0.95) -> list[GroupMean]:
    """Mean closeness f (1 - f) of each group with a t interval over its inputs, from logits of two classes.

    Args:
        logits: Class scores, shape (n, 2).
        groups: Group of each input, int64, shape (n,).
        n_groups: Number of groups; a row for each.
        level: Of the t interval over inputs.

    Raises:
        ValueError: For another number of classes, or groups for which a mean is not defined.

    >>> group_closeness(torch.zeros(2, 2), torch.tensor([0, 0]), 1)[0].mean
    0.25
    """
    return mean_by_group(closeness(logits), groups, n_groups, level=level)


def margin_of(model: nn.Module, data: GroupedData, split: str, *, level: float = 0.95) -> list[GroupMargin]:
    """`group_margin` of a network on a split.

    Inputs are taken at their stored position. Where the data set has several `views`, accuracies are averaged over them
    but margins are not: the margin of a mean and the mean of margins differ, and one input has one distance.

    Raises:
        ValueError: As `linfair.metrics.risk.logits_on` and `group_margin`.
    """
    logits = logits_on(model, data, split)
    return group_margin(logits, data.splits[split].a, data.counts, level=level)


def closeness_of(model: nn.Module, data: GroupedData, split: str, *, level: float = 0.95) -> list[GroupMean]:
    """`group_closeness` of a network on a split of a data set with two labels, inputs at their stored position.

    Raises:
        ValueError: As `linfair.metrics.risk.logits_on` and `group_closeness`.
    """
    logits = logits_on(model, data, split)
    return group_closeness(logits, data.splits[split].a, len(data.group_names), level=level)
