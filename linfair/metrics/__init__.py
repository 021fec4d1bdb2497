"""Metrics per group, a row each with its evidence: n, an interval, or a residual.

Start with `group_accuracy`, `mean_interval` (over seeds), or `measure`, which gives all of them for a network. They
take `logits` (n, classes >= 2), labels `y` and `groups`, both int64 (n,), and return a row for each of `n_groups`. What
is not defined (a group without inputs, shapes that do not fit, logits that are not finite) raises a ValueError.
"""

from linfair.metrics.accuracy import GroupAccuracy, MeanInterval, group_accuracy, mean_interval, wilson
from linfair.metrics.bias import MeanBias, aligned_accuracy, mean_bias
from linfair.metrics.curvature import TopEigenvalue, top_eigenvalue_pairs, top_eigenvalues
from linfair.metrics.distance import ParameterDistance, group_churn, parameter_distance
from linfair.metrics.gradients import GroupGradient, group_gradient_norm_pairs, group_gradient_norms
from linfair.metrics.margin import closeness, closeness_of, margin
from linfair.metrics.membership import ATTACKS, attack, by_point, confidence, exposure, halves, leave_one_out, shadows
from linfair.metrics.risk import Disparity, GroupMean, disparity, excessive_loss, group_risk, mean_by_group
