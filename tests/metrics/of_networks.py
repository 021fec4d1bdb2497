"""Metrics of a network on a split, inputs at their stored position, from those of logits."""

from torch import nn

from linfair.data import GroupedData
from linfair.metrics import GroupMean, excessive_loss, group_churn, group_risk, margin, mean_by_group
from linfair.metrics.risk import logits_on


def risk_of(model: nn.Module, data: GroupedData, split: str) -> list[GroupMean]:
    """`group_risk` of a network on a split, inputs at their stored position."""
    logits, part = logits_on(model, data, split), data.splits[split]
    return group_risk(logits, part.y, part.a, len(data.group_names))


def excess_of(model: nn.Module, original: nn.Module, data: GroupedData, split: str) -> list[GroupMean]:
    """`excessive_loss` of a linearized network over the original on a split, inputs at their stored position.

    The 100 % control in the original's place isolates linearization from training.
    """
    one, two, part = logits_on(model, data, split), logits_on(original, data, split), data.splits[split]
    return excessive_loss(one, two, part.y, part.a, len(data.group_names))


def margin_of(model: nn.Module, data: GroupedData, split: str) -> list[GroupMean]:
    """Mean `margin` by group of a network on a split, inputs at their stored position.

    Accuracies are averaged over a data set's `views`, margins are not: one input has one distance.
    """
    return mean_by_group(margin(logits_on(model, data, split)), data.splits[split].a, len(data.group_names))


def churn_of(model: nn.Module, other: nn.Module, data: GroupedData, split: str) -> list[GroupMean]:
    """`group_churn` between two networks on a split, inputs at their stored position."""
    one, two = logits_on(model, data, split), logits_on(other, data, split)
    return group_churn(one, two, data.splits[split].a, len(data.group_names))
