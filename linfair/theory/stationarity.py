"""Appendix A.1: at a stationary point the smaller of two groups has the larger gradient.

Das et al., ICML 2024: if |S^a| >= |S^b| then |g_a| <= |g_b|, because at a stationary point of J(theta; S)

    0 = grad J = |S^a|/|S| g_a + |S^b|/|S| g_b,    so    |g_b| = (|S^a| / |S^b|) |g_a|.

That takes two groups and an exact stationary point of the *unregularised* risk. Where one of them is missing:

    weight decay     the gradient of J is -decay theta, not 0: a part of g_a and g_b need not cancel;
    early stopping   the gradient of J is what is left of it;
    ReLU network     its minima lie on kinks, where the gradient jumps and is never 0;
    three groups     only the sum of three vectors is 0, which says nothing about the lengths of two. One group against
                     all others is two groups again: |g_a| = (|S| - |S^a|) / |S^a| |g_rest|;
    a mixture        a third, smallest group made of the other two in their proportions has gradient exactly 0.
"""

from dataclasses import dataclass

import torch
from torch import nn

from linfair.data import GroupedData, ensure
from linfair.metrics.gradients import ParameterRisk
from linfair.theory.hessian import within


@dataclass(frozen=True)
class GradientRatio:
    """Gradient norms of a small and a large group."""

    small: int  #: Number of the smaller group
    large: int
    n_small: int  #: Its inputs
    n_large: int
    norm_small: float  #: Gradient norm |g_b| of the smaller group's risk
    norm_large: float
    total: float  #: Gradient norm of the risk of the whole split, 0 at a stationary point
    n: int  #: Inputs of the whole split

    @property
    def ratio(self) -> float:
        """|g_b| / |g_a|, measured; nan where both are 0."""
        if self.norm_large == 0:
            return torch.inf if self.norm_small else torch.nan
        return self.norm_small / self.norm_large

    @property
    def predicted(self) -> float:
        """|S^a| / |S^b|, of Appendix A.1."""
        return self.n_large / self.n_small

    @property
    def holds(self) -> bool:
        """Whether the smaller group has the larger gradient, the statement itself, to `hessian.TOLERANCE`.

        Of groups of one size both are equally long.
        """
        return within(self.norm_large, self.norm_small)


def gradient_ratio(model: nn.Module, data: GroupedData, split: str = "train") -> GradientRatio:
    """Gradient norms of the smallest and the largest group of any network, in float64, and how stationary it is.

    The statement is about the split that it was trained on. One group alone raises a ValueError, as what
    `ParameterRisk` refuses.
    """
    risk = ParameterRisk(model, data, split, dtype=torch.float64)
    ensure(len(risk.n) > 1, f"App. A.1 compares two groups, {data.name} has {len(risk.n)}")
    small, *_, large = sorted(risk.check_groups(None), key=lambda group: risk.n[group])
    norms = [risk.gradient(risk.positions(group, "exact")[0]).norm().item() for group in (small, large)]
    total = risk.gradient(torch.arange(sum(risk.n))).norm().item()
    return GradientRatio(small, large, risk.n[small], risk.n[large], *norms, total, sum(risk.n))
