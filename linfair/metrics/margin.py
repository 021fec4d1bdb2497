"""Margin: how far an input sits from the decision boundary, measured in probability.

With p = softmax(h(x)) and p_(1) >= p_(2) >= ... its entries in order, the *distance to the decision boundary* that the
paper's experiments report (Das et al., ICML 2024, Sec. 5) is, in the released code,

    m(x) = p_(1)(x) - p_(2)(x),

0 on the boundary, 1 where the network is certain, whether or not it is right. The theory for two classes speaks of the
*closeness* f (1 - f) = (1 - m^2) / 4, with f the probability of class 1: 1/4 on the boundary, 0 where it is certain.
Fig. 14 is normalised without saying how; here every group's mean is divided by that of the largest group.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.metrics.risk import GroupMean, checked_logits, logits_on, mean_by_group


def margin(logits: Tensor) -> Tensor:
    """Gap between the two largest class probabilities of each input: in [0, 1], float64 (n,), from (n, classes).

    >>> margin(torch.tensor([[0.0, 0.0, -9.0], [100.0, 0.0, 0.0]])).tolist()
    [0.0, 1.0]
    """
    top = torch.topk(checked_logits(logits).softmax(dim=1), 2, dim=1).values
    return top[:, 0] - top[:, 1]


def closeness(logits: Tensor) -> Tensor:
    """Closeness to the boundary between two classes, f (1 - f): in [0, 1/4], float64 (n,), from logits (n, 2).

    As sigmoid(z) sigmoid(-z), z = h_1 - h_0, it stays exact where f rounds to 1.

    >>> closeness(torch.tensor([[3.0, 3.0]])).tolist()
    [0.25]
    """
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(f"closeness needs logits (n, 2), got {tuple(logits.shape)}; use margin for more classes")
    zero, one = checked_logits(logits).unbind(dim=1)
    z = one - zero
    return z.sigmoid() * (-z).sigmoid()


def normalised(means: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Each group's mean over that of the group (or groups) with most training inputs, as in Fig. 14; nan where 0.

    >>> normalised([0.8, 0.2], [900, 100])
    [1.0, 0.25]
    """
    largest = [mean for mean, count in zip(means, counts, strict=True) if count == max(counts)]
    reference = sum(largest) / len(largest)
    return [mean / reference if reference else torch.nan for mean in means]


def closeness_of(model: nn.Module, data: GroupedData, split: str) -> list[GroupMean]:
    """Mean `closeness` of each group of a split with two labels, with a t interval over its inputs."""
    return mean_by_group(closeness(logits_on(model, data, split)), data.splits[split].a, len(data.group_names))
