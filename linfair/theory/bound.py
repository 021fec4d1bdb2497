"""Theorem 4.4 and Appendix A.2: the excessive loss of a group, bounded by its gradient norm and its Hessian.

Das et al., ICML 2024, after Theorem 1 of Tran et al., NeurIPS 2022: with theta the original network, theta~ the
linearized or pruned one, d = theta~ - theta, and g_a, H_a the gradient and Hessian of J(theta; S_a),

    R(a) = d . g_a + 1/2 d . H_a d + remainder <= |g_a| |d| + 1/2 lambda(H_a) |d|^2 + O(|d|^3).

It takes a J that is twice differentiable all the way (a ReLU network's gradient jumps wherever a unit switches), and an
R(a) that depends on the parameters alone. A ReLU that becomes the identity changes no weight: `alpha=True` counts the
gates' alphas among the parameters, with alpha = 1 the original. A pruned weight is a parameter that becomes 0.
O(|d|^3) can hide anything, so the right side is evaluated *without* it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.gates import install, sites
from linfair.metrics.curvature import hessian_product, top_eigenvalue_pairs
from linfair.metrics.gradients import ParameterRisk, flat
from linfair.names import some
from linfair.theory.folding import fold_batch_norm
from linfair.weights import plain


@dataclass(frozen=True)
class Expansion:
    """Second-order Taylor expansion of an excess, excess = linear + quadratic + remainder."""

    excess: float  #: J(theta + d) - J(theta)
    linear: float  #: d . g
    quadratic: float  #: 1/2 d . H d
    remainder: float  #: What the two leave


@dataclass(frozen=True, kw_only=True)
class BoundRow(Expansion):
    """Both sides of Theorem 4.4 for one group, and the expansion of its R(a) that they come from."""

    group: int
    n: int  #: Inputs of the group
    alpha: bool  #: Whether the gates' alphas count among the parameters; if not, the remainder holds the mask's effect
    gradient_norm: float  #: |g_a|
    distance: float  #: |d|
    eigenvalue: float  #: Algebraically largest eigenvalue of H_a, the one printed
    absolute_eigenvalue: float  #: Eigenvalue of H_a largest in absolute value, with its sign
    residual: float  #: The larger of the two eigenvalues' residuals
    converged: bool  #: Whether both searches converged

    @property
    def first(self) -> float:
        """First-order term |g_a| |d|."""
        return self.gradient_norm * self.distance

    @property
    def second(self) -> float:
        """Second-order term as printed, 1/2 lambda_max(H_a) |d|^2."""
        return 0.5 * self.eigenvalue * self.distance**2

    @property
    def bound(self) -> float:
        """Right side as printed, without the remainder."""
        return self.first + self.second

    @property
    def holds(self) -> bool:
        """Whether R(a) <= bound."""
        return self.excess <= self.bound

    @property
    def looseness(self) -> float:
        """The bound over R(a), 1 where it is tight; nan where the group does not lose (R(a) <= 0)."""
        return self.bound / self.excess if self.excess > 0 else torch.nan


def expand(excess: float, gradient: Tensor, product: Callable[[Tensor], Tensor], step: Tensor) -> Expansion:
    """Taylor's expansion of a measured excess to second order, from g, v -> H v (both at theta) and the step d."""
    linear = float(step @ gradient)
    quadratic = 0.5 * float(step @ product(step))
    return Expansion(excess, linear, quadratic, excess - linear - quadratic)


def excess_bound(
    model: nn.Module, original: nn.Module, data: GroupedData, split: str = "train", **options: object
) -> list[BoundRow]:
    """Both sides of Theorem 4.4 for one network, a row for each group; arguments and errors are `excess_bounds`'."""
    return excess_bounds([model], original, data, split, **options)[0]


def excess_bounds(
    models: Sequence[nn.Module],
    original: nn.Module,
    data: GroupedData,
    split: str = "train",
    *,
    alpha: bool = False,
    tol: float = 1e-4,
    batch_size: int = 512,
) -> list[list[BoundRow]]:
    """Both sides of Theorem 4.4, for each network a row for each group, in float64; batch norm is folded first.

    `models` are linearized networks or pruned ones, `original` what they were made from. With `alpha` the gates' alphas
    count among the parameters. An eigenvalue has converged once its residual is at most `tol` times its size;
    `batch_size` bounds the memory. A ValueError refuses networks that, folded, do not have the same parameters, alphas
    of a network without gates, and what `linfair.metrics.gradients.ParameterRisk` does.
    """
    options = {"alpha": alpha, "batch_size": batch_size, "dtype": torch.float64}
    before, *after = common_risks([original, *models], data, split, **options)
    steps = [flat(one.parameters) - flat(before.parameters) for one in after]
    rows = [[] for _ in after]
    for top, far in top_eigenvalue_pairs(before.model, data, split, tol=tol, **options):
        (index,) = before.positions(top.group, "exact")
        gradient, product, risk = before.gradient(index), hessian_product(before, index), before.value(index)
        known = {"group": top.group, "n": len(index), "alpha": alpha, "gradient_norm": gradient.norm().item()}
        known |= {"eigenvalue": top.value, "absolute_eigenvalue": far.value}
        known |= {"residual": max(top.residual, far.residual), "converged": top.converged and far.converged}
        for found, one, step in zip(rows, after, steps, strict=True):
            terms = expand(one.value(index) - risk, gradient, product, step)
            found.append(BoundRow(**vars(terms), **known, distance=step.norm().item()))
    return rows


def common_risks(networks: list[nn.Module], data: GroupedData, split: str, **options: object) -> list[ParameterRisk]:
    """Risks of the original and of networks made from it, batch norm folded, as functions of the same parameters."""
    original, *models = map(plain, networks)
    if any(map(sites, models)) and not sites(original):
        original = install(original, data.input_shape)
    risks = [ParameterRisk(fold_batch_norm(one), data, split, **options) for one in (original, *models)]
    one, *others = ([f"{name} {tuple(value.shape)}" for name, value in risk.named.items()] for risk in risks)
    for two in others:
        if one != two:
            differ = sorted(set(one) ^ set(two)) or one[:1]
            text = "the two networks, batch norm folded, have no common parameter space, so no distance: they differ "
            raise ValueError(f"{text}at {some(differ, 4)}; compare a network with the one that it was made from")
    return risks
