"""Proposition 4.5 and Appendix A.3: a bound on the top Hessian eigenvalue of a group, for binary tasks.

Das et al., ICML 2024: with f a classifier trained with binary cross entropy and S the inputs of group a,

    lambda(H_a) <= Z_1 + Z_2,    Z_1 = 1/|S| sum f(x) (1 - f(x)) |grad f(x)|^2        closeness to the boundary,
                                 Z_2 = 1/|S| sum |f(x) - y| lambda(grad^2 f(x))       error.

The main text prints the sums without 1/|S|; with it this is Theorem 2 (Eq. 6 and 10, for one input Eq. 13) of Tran et
al., NeurIPS 2022, word for word. With the logit h and p = sigmoid(h) the loss of one input has, by the chain rule,

    H_x = p (1 - p) grad h grad h' + (p - y) grad^2 h,

and lambda of a sum is at most the sum of the lambdas (Weyl). So f is p in f (1 - f) and f - y, but h in the gradient
and the Hessian; and as p - y has either sign, lambda(grad^2 h) must be the largest *absolute* eigenvalue:

    printed     p everywhere, lambda algebraically largest;
    logit       h inside gradient and Hessian, lambda algebraically largest;
    corrected   h inside, lambda largest in absolute value: proved, a violation would be an error in the code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from linfair.data import GroupedData, ensure
from linfair.device import full_precision
from linfair.metrics.curvature import top_eigenvalues
from linfair.metrics.gradients import ParameterRisk, flat, unflat
from linfair.theory.logit_curvature import LogitCurvature, logit_curvature

READINGS = ("printed", "logit", "corrected")
TOLERANCE = 1e-6  #: A bound fails when below the eigenvalue by more than this share of it, more than rounding moves


@dataclass(frozen=True)
class Terms:
    """Both terms of the right side, Z_1 and Z_2, means over the group's inputs."""

    z1: float
    z2: float

    @property
    def total(self) -> float:
        """The right side."""
        return self.z1 + self.z2


@dataclass(frozen=True)
class HessianRow:
    """Both sides of Prop. 4.5 for one group."""

    group: int
    n: int  #: Inputs of the group
    eigenvalue: float  #: lambda_max(H_a), algebraically largest, from products with the Hessian of the loss itself
    converged: bool  #: Whether Lanczos converged for the group and for every input
    residual: float  #: The largest residual of an input's eigenvalue
    printed: Terms  #: Terms as printed, with 1/|S| (module docstring)
    logit: Terms  #: Terms with the logit inside
    corrected: Terms  #: Terms with the logit inside and the largest absolute eigenvalue

    def holds(self, reading: str = "corrected") -> bool:
        """Whether the eigenvalue is within the right side of a reading, one of `READINGS`, to `TOLERANCE`."""
        if reading not in READINGS:
            raise ValueError(f"no reading {reading!r}; there are {', '.join(READINGS)}")
        return bool(within(self.eigenvalue, getattr(self, reading).total))


class TwoLogits(nn.Module):
    """A binary classifier as logits (0, h), h the output of a network with one and z_1 - z_0 of one with two."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Both logits of each input, shape (n, 2)."""
        z = self.network(x)
        if z.ndim != 1 and z.shape[1:] not in ((1,), (2,)):
            raise ValueError(f"Prop. 4.5 needs outputs (n,), (n, 1) or (n, 2), got {tuple(z.shape)}: take two labels")
        h = z[:, 1] - z[:, 0] if z.shape[1:] == (2,) else z.flatten()
        return torch.stack([torch.zeros_like(h), h], dim=1)


def hessian_bound(model: nn.Module, data: GroupedData, split: str = "train", *, tol: float = 1e-3) -> list[HessianRow]:
    """Both sides of Prop. 4.5, a row for each group, in float64; the gates' alphas are no parameters here.

    The model has one logit or two, the data set two labels. An input's eigenvalues have converged once their residuals
    are at most `tol` times the largest. A ValueError refuses a task that is not binary, and what
    `linfair.metrics.gradients.ParameterRisk` does.

    A logistic regression at weight 0, x = 1: grad^2 h = 0, p (1 - p) |grad h|^2 = 1/4, the eigenvalue itself.

    >>> from linfair.data import Split
    >>> one = Split(torch.ones(3, 1), torch.ones(3).long(), torch.zeros(3).long())
    >>> linear = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(linear.weight)
    >>> [row] = hessian_bound(linear, GroupedData("ones", {"train": one}, ("no", "yes"), ("all",)))
    >>> round(row.eigenvalue, 6), row.corrected, row.holds("corrected"), row.printed, row.holds("printed")
    (0.25, Terms(z1=0.25, z2=0.0), True, Terms(z1=0.015625, z2=0.0), False)
    """
    ensure(data.classes == 2, f"Prop. 4.5 is about binary tasks, {data.name} has {data.classes} labels")
    two = TwoLogits(model)
    risk = ParameterRisk(two, data, split, dtype=torch.float64)
    free = {name: value.detach() for name, value in risk.named.items()}
    theta, part = flat(risk.parameters), data.splits[split]

    def logit(vector: Tensor, x: Tensor) -> Tensor:
        return functional_call(risk.model, unflat(vector, free), (x.unsqueeze(0),))[0, 1]

    rows = []
    for top in top_eigenvalues(two, data, split, tol=1e-6, max_iterations=600, dtype=torch.float64):
        (index,) = risk.positions(top.group, "exact")
        x, y = data.normalise(part.x[index]).to(theta), part.y[index].to(theta)
        with full_precision():
            found = logit_curvature(logit, theta, x, tol=tol)
        printed, inside, corrected = (Terms(*(value.mean().item() for value in terms)) for terms in terms_of(found, y))
        evidence = top.converged and bool(found.converged.all()), found.residual.max().item()
        rows.append(HessianRow(top.group, len(index), top.value, *evidence, printed, inside, corrected))
    return rows


def terms_of(found: LogitCurvature, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both terms of each input, (n,), in the order of `READINGS`."""
    p = found.h.sigmoid()
    spread, error = p * (1 - p), (p - y).abs()
    near = spread * found.squared
    largest = torch.maximum(found.top, -found.bottom)
    return [(spread**2 * near, error * found.probability_top), (near, error * found.top), (near, error * largest)]


def within(eigenvalue: float | Tensor, total: float | Tensor) -> bool | Tensor:
    """Whether an eigenvalue is at most a right side, to `TOLERANCE`."""
    return eigenvalue - total <= TOLERANCE * abs(eigenvalue)
