"""Group risk, excessive loss and the differences between groups.

With l the cross entropy, S^a the inputs of group a, theta* the original and theta~ the linearized network,

    J(theta; S^a) = 1/|S^a| sum_{(x, y) in S^a} l(h_theta(x), y)        group risk,
    R(a) = J(theta~; S^a) - J(theta*; S^a)                              excessive loss,
    max_{a, a'} |R(a) - R(a')|                                          fairness violation

(Das et al., ICML 2024). R(a) < 0 is possible, since the original need not be at its best on each group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from linfair.data import GroupedData, ensure
from linfair.metrics.accuracy import GroupAccuracy, check_groups, mean_interval
from linfair.training import cross_entropy, predict


@dataclass(frozen=True)
class GroupMean:
    """Mean of a quantity over the n inputs of one group."""

    group: int
    n: int
    mean: float
    low: float  #: Lower end of its interval (Student t over inputs unless the function says otherwise); nan for n = 1
    high: float  #: Upper end


@dataclass(frozen=True)
class Disparity:
    """How far apart the groups are: the worst one, the best one, the inputs of both, the gap."""

    worst: int
    best: int
    n_worst: int
    n_best: int
    gap: float  #: Difference between the two, >= 0, the largest over all pairs of groups
    #: Lower end of the interval of the difference between these two groups, not corrected for that the largest of
    #: several noisy gaps is on average too large; nan where one of the two groups has no interval (n = 1)
    low: float
    high: float


def check_one(model: nn.Module, data: GroupedData, split: str) -> None:
    """Refuse an ensemble, of which one member is measured at a time, and a split that the data set does not have."""
    if getattr(model, "members", None) is not None:
        raise ValueError(f"one network is measured at a time, got an ensemble of {model.members}: use member(index)")
    ensure(split in data.splits, f"{data.name} has no split {split!r}; there are {', '.join(data.splits)}")


def logits_on(model: nn.Module, data: GroupedData, split: str) -> Tensor:
    """Finite logits (n, classes) of one network on a split, float64 on the CPU, inputs at their stored position."""
    check_one(model, data, split)
    return checked_logits(predict(model, data, split))


def checked_logits(logits: Tensor) -> Tensor:
    """The logits as float64 on the CPU, after checking that they are (n, classes >= 2) and finite."""
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must have shape (n, classes >= 2), got {tuple(logits.shape)}")
    logits = logits.detach().cpu().double()
    if bad := (~torch.isfinite(logits)).any(dim=1).nonzero().flatten().tolist():
        text = f"logits of {len(bad)} of {len(logits)} inputs are not finite (first: input {bad[0]}); the network "
        raise ValueError(f"{text}diverged: train it at a lower rate")
    return logits


def check_shapes(one: Tensor, two: Tensor) -> None:
    """Refuse logits of two networks that do not belong to the same inputs and classes."""
    if one.shape != two.shape:
        raise ValueError(f"logits of two networks must have one shape, got {tuple(one.shape)}, {tuple(two.shape)}")


def mean_by_group(values: Tensor, groups: Tensor, n_groups: int) -> list[GroupMean]:
    """Mean of a quantity over each group, with a 95 % t interval over the inputs: mean +- t s / sqrt(n).

    The network is held fixed: the interval says what other inputs of the group would give, not another training.
    """
    check_groups(values, groups, n_groups)
    numbers, a = values.detach().cpu().double().numpy(), groups.cpu().numpy()
    found = [mean_interval(numbers[a == group]) for group in range(n_groups)]
    return [GroupMean(group, one.n, one.mean, one.low, one.high) for group, one in enumerate(found)]


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of each input in nats, float64, (n,), from logits (n, classes) and labels (n,) that fit them."""
    logits, y = checked_logits(logits), y.cpu()
    if y.shape != logits.shape[:1]:
        raise ValueError(f"{len(logits)} inputs need labels of shape ({len(logits)},), got {tuple(y.shape)}")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < logits.shape[1]:
        raise ValueError(f"labels must be 0 to {logits.shape[1] - 1}, got {y.unique().tolist()}")
    return cross_entropy(logits, y)


def group_risk(logits: Tensor, y: Tensor, groups: Tensor, n_groups: int) -> list[GroupMean]:
    """Group risk J(theta; S^a), the mean cross entropy of each group in nats, from logits (n, classes).

    >>> round(group_risk(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([0, 0]), 1)[0].mean, 6)  # log 4
    1.386294
    """
    return mean_by_group(losses(logits, y), groups, n_groups)


def excessive_loss(logits: Tensor, original: Tensor, y: Tensor, groups: Tensor, n_groups: int) -> list[GroupMean]:
    """Excessive loss R(a) = J(theta~; S^a) - J(theta*; S^a) of each group, from both networks' logits (n, classes).

    Both networks see the same inputs, so the interval is that of the mean difference of the two losses of an input.
    """
    check_shapes(logits, original)
    return mean_by_group(losses(logits, y) - losses(original, y), groups, n_groups)


def disparity(rows: Sequence[GroupMean | GroupAccuracy], *, worst: str) -> Disparity:
    """The worst group, the best group and the gap between them, max_{a, a'} |q(a) - q(a')|.

    Groups share no inputs, so the gap's interval is put together from the two groups' own (MOVER; Zou and Donner,
    Statistics in Medicine 27, 2008): for q_1 in [l_1, u_1] and q_2 in [l_2, u_2], q_1 > q_2,

        low  = q_1 - q_2 - sqrt((q_1 - l_1)^2 + (u_2 - q_2)^2),
        high = q_1 - q_2 + sqrt((u_1 - q_1)^2 + (q_2 - l_2)^2).

    `worst` is `low` where small values are bad (accuracy, margin), `high` where large ones are (risk, churn). A
    ValueError refuses fewer than two groups, and a value that is not finite.
    """
    if worst not in ("low", "high"):
        raise ValueError(f"worst is 'low' or 'high', got {worst!r}")
    if len(rows) < 2:
        raise ValueError(f"a difference between groups needs two of them, got {len(rows)}")
    values = [row.accuracy if isinstance(row, GroupAccuracy) else row.mean for row in rows]
    if not np.isfinite(values).all():
        raise ValueError(f"need finite values, got {values}")
    top, bottom = int(np.argmax(values)), int(np.argmin(values)) if len(set(values)) > 1 else 1
    gap = values[top] - values[bottom]
    low = gap - float(np.hypot(values[top] - rows[top].low, rows[bottom].high - values[bottom]))
    high = gap + float(np.hypot(rows[top].high - values[top], values[bottom] - rows[bottom].low))
    bad, good = (rows[bottom], rows[top]) if worst == "low" else (rows[top], rows[bottom])
    return Disparity(bad.group, good.group, bad.n, good.n, gap, low, high)
