"""Metrics per group, a row each with its evidence: n, an interval, or a residual.

Start with `group_accuracy` (one network, Wilson intervals) and `mean_interval` (over seeds, t interval).
"""

from linfair.metrics.accuracy import (
    GroupAccuracy,
    MeanInterval,
    group_accuracy,
    mean_interval,
    relative_drop,
    wilson,
)

__all__ = ["GroupAccuracy", "MeanInterval", "group_accuracy", "mean_interval", "relative_drop", "wilson"]
