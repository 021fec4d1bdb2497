"""Group accuracy with its evidence: counts, Wilson intervals for one network, t intervals over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy of one network on one group."""

    group: int  #: Number of the group
    n: int  #: Distinct inputs of the group
    accuracy: float  #: Share predicted right, in [0, 1]
    low: float  #: Lower end of the Wilson interval
    high: float  #: Upper end


@dataclass(frozen=True)
class MeanInterval:
    """A mean over n seeds with its interval; both ends are nan for n = 1."""

    n: int
    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        spec = spec or ".1f"
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}], n = {self.n}"


def wilson(accuracy: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (E. B. Wilson, JASA 22, 1927).

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z the normal quantile. For an accuracy
    averaged over views of each input, whose variance is at most p (1 - p), it is too wide, never too narrow. A
    ValueError refuses n < 1 and an accuracy outside [0, 1].

    >>> [round(end, 4) for end in wilson(0.5, 10)]
    [0.2366, 0.7634]
    """
    if n < 1 or not 0 <= accuracy <= 1:
        raise ValueError(f"need n >= 1 and an accuracy in [0, 1], got n={n}, accuracy={accuracy}")
    z = _quantile(level, math.inf)
    centre = accuracy + z**2 / (2 * n)
    half = z * math.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    low, high = float((centre - half) / scale), float((centre + half) / scale)
    return max(0.0, min(low, accuracy)), min(1.0, max(high, accuracy))  # rounding leaves 0 and 1 by a unit


def check_groups(values: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    """Inputs of each group, int64, after checking that finite values of shape (n,) have a mean in every group."""
    if values.shape != groups.shape or values.ndim != 1:
        raise ValueError(f"values {tuple(values.shape)} and groups {tuple(groups.shape)} must both have shape (n,)")
    if bad := int((~torch.isfinite(values)).sum()):
        raise ValueError(f"values of {bad} of {len(values)} inputs are not finite")
    if groups.numel() and not 0 <= int(groups.min()) <= int(groups.max()) < n_groups:
        raise ValueError(f"groups must be numbered 0 to {n_groups - 1}, got {groups.unique().tolist()}")
    n = torch.bincount(groups, minlength=n_groups)
    if empty := (n == 0).nonzero().flatten().tolist():
        raise ValueError(f"groups {empty} have no inputs here; a mean over an empty group is not defined")
    return n


def group_accuracy(correct: Tensor, groups: Tensor, n_groups: int) -> list[GroupAccuracy]:
    """Accuracy of each group from `correct` (n,), 1 where the prediction is right, else 0, or the share of views.

    >>> group_accuracy(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]), 2)[0].accuracy
    0.5
    """
    n = check_groups(correct, groups, n_groups)
    total = torch.zeros(len(n), dtype=torch.float64, device=correct.device).index_add_(0, groups, correct.double())
    shares = [(min(1.0, right / count), count) for right, count in zip(total.tolist(), n.tolist(), strict=True)]
    return [GroupAccuracy(group, count, share, *wilson(share, count)) for group, (share, count) in enumerate(shares)]


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> MeanInterval:
    """Mean over seeds (of differences, for a paired comparison) with a Student t interval, mean +- t s / sqrt(n).

    No values, or one that is not finite, raise a ValueError.

    >>> f"{mean_interval([1.0, 2.0, 3.0]):.2f}"
    '2.00 [-0.48, 4.48], n = 3'
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"need finite values, at least one, got {array.tolist()}")
    mean = float(array.mean())
    if array.size == 1:
        return MeanInterval(1, mean, math.nan, math.nan)
    half = float(_quantile(level, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return MeanInterval(array.size, mean, mean - half, mean + half)


@cache  # the search for a quantile takes longer than all the rest of an interval
def _quantile(level: float, freedom: float) -> np.float64:
    """Half width of an interval in standard errors: of Student's t, normal for infinite degrees of freedom."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval is above 0 and below 1, such as 0.95, got {level}")
    return (stats.t(freedom) if math.isfinite(freedom) else stats.norm).ppf((1 + level) / 2)
