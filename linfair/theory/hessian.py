"""Proposition 4.5 and Appendix A.3: a bound on the top Hessian eigenvalue of a group, for binary tasks.

Statement (Das et al., ICML 2024), f a classifier trained with binary cross entropy, S the inputs of group a:

    lambda(H_a) <= Z_1 + Z_2,    Z_1 = 1/|S| sum f(x) (1 - f(x)) |grad f(x)|^2        closeness to the boundary,
                                 Z_2 = 1/|S| sum |f(x) - y| lambda(grad^2 f(x))       error.

The main text prints the sums without 1/|S|, the appendix with it; without it the right side is |S| times as large.

Proof (A.3) and what it takes. With the logit h and p = sigmoid(h) the loss of one input has, by the chain rule,

    H_x = p (1 - p) grad h grad h' + (p - y) grad^2 h,

and Weyl's inequality bounds the top eigenvalue of a sum by the sum of the top eigenvalues. So f is the *probability* p
in f (1 - f) and f - y, but the *logit* h in the gradient and in the Hessian; the statement has one letter for both. And
(p - y) grad^2 h has top eigenvalue |p - y| lambda_max(grad^2 h) only for y = 0; for y = 1 it is
|p - y| lambda_max(-grad^2 h). The largest *absolute* eigenvalue is right for both signs. (With one hidden ReLU layer
the spectrum is symmetric about 0 and it makes no difference.)

Check, three readings of the right side against the group's top eigenvalue:

    printed     p everywhere, lambda algebraically largest;
    logit       h inside gradient and Hessian, lambda algebraically largest;
    corrected   h inside, lambda largest in absolute value: proved above, a violation would be an error in the code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from linfair.data import GroupedData
from linfair.metrics.accuracy import wilson
from linfair.metrics.curvature import top_eigenvalues
from linfair.metrics.gradients import ParameterRisk
from linfair.precision import full_precision
from linfair.theory.logit_curvature import LogitCurvature, dense_curvature, logit_curvature

READINGS = ("printed", "logit", "corrected")
TOLERANCE = 1e-6
"""A bound fails when it is below the eigenvalue by more than this share of it: more than Lanczos and rounding move."""


@dataclass(frozen=True)
class Terms:
    """Both terms of the right side, means over the group's inputs."""

    z1: float
    z2: float

    @property
    def total(self) -> float:
        """The right side, Z_1 + Z_2."""
        return self.z1 + self.z2


@dataclass(frozen=True)
class HessianRow:
    """Both sides of Prop. 4.5 for one group."""

    group: int  #: Number of the group
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
        return bool(_holds(self.eigenvalue, getattr(self, reading).total))


class SingleLogit(nn.Module):
    """A binary classifier as one logit h, shape (n,): z_1 - z_0 of a network with two, the output of one with one.

    Softmax over two logits is the sigmoid of their difference, so probabilities and cross entropy stay as they are.

    >>> SingleLogit(nn.Identity())(torch.tensor([[1.0, 4.0]])).tolist()
    [3.0]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The logit of each input."""
        z = self.network(x)
        if z.ndim == 1:
            return z
        if z.ndim != 2 or z.shape[1] > 2:
            raise ValueError(
                f"Prop. 4.5 is about binary classifiers, whose output is (n,), (n, 1) or (n, 2); got {tuple(z.shape)}: "
                "take data with two labels"
            )
        return z[:, 0] if z.shape[1] == 1 else z[:, 1] - z[:, 0]


class _TwoLogits(nn.Module):
    """The same classifier for the metrics, which take two logits: (0, h)."""

    def __init__(self, single: SingleLogit) -> None:
        super().__init__()
        self.single = single

    def forward(self, x: Tensor) -> Tensor:
        h = self.single(x)
        return torch.stack([torch.zeros_like(h), h], dim=1)


def hessian_bound(
    model: nn.Module,
    data: GroupedData,
    split: str = "train",
    *,
    steps: int = 80,
    tol: float = 1e-3,
    batch_size: int = 512,
) -> list[HessianRow]:
    """Both sides of Prop. 4.5 for each group, in float64.

    The gates' alphas are no parameters here. Eigenvalues of one input's logit are found by Lanczos on many inputs at a
    time, or from the dense Hessian of a network with up to 64 parameters; the cost grows with inputs times parameters,
    about half a minute on one CPU thread for 500 inputs and 14,000 parameters.

    Args:
        model: A binary classifier with one logit or two.
        data: Its data set, two labels.
        split: One of `data.splits`.
        steps: Lanczos steps at most for each input.
        tol: The eigenvalues of an input have converged once their residuals are at most tol times the largest.
        batch_size: Inputs of one pass for the group's eigenvalue.

    Returns:
        One row for each group.

    Raises:
        ValueError: If the task is not binary, or as `linfair.metrics.gradients.ParameterRisk`.

    A logistic regression at weight 0, x = 1: grad^2 h = 0, p (1 - p) |grad h|^2 = 1/4, the eigenvalue itself.

    >>> from linfair.data import Split
    >>> one = Split(torch.ones(3, 1), torch.ones(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    >>> data = GroupedData("ones", {"train": one}, ("no", "yes"), ("all",))
    >>> linear = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(linear.weight)
    >>> [row] = hessian_bound(linear, data)
    >>> round(row.eigenvalue, 6), row.corrected, row.holds("corrected"), row.printed, row.holds("printed")
    (0.25, Terms(z1=0.25, z2=0.0), True, Terms(z1=0.015625, z2=0.0), False)
    """
    if data.classes != 2:
        raise ValueError(f"Prop. 4.5 is about binary tasks, {data.name} has {data.classes} labels")
    two = _TwoLogits(SingleLogit(model))
    options = {"batch_size": batch_size, "dtype": torch.float64}
    risk = ParameterRisk(two, data, split, **options)
    tops = top_eigenvalues(two, data, split, tol=1e-6, max_iterations=600, **options)
    single = risk.model.single
    names = {id(value): name for name, value in single.named_parameters()}
    free = {names[id(value)]: value.detach() for value in risk.parameters}
    sizes = [value.numel() for value in free.values()]
    theta = torch.cat([value.flatten() for value in free.values()])
    part = data.splits[split]

    def logit(vector: Tensor, x: Tensor) -> Tensor:
        pieces = vector.split(sizes)
        values = {name: piece.view_as(free[name]) for name, piece in zip(free, pieces, strict=True)}
        return functional_call(single, values, (x.unsqueeze(0),))[0]

    rows = []
    for top in tops:
        (index,) = risk.positions(top.group, "exact")
        x, y = data.normalise(part.x[index]).to(theta), part.y[index].to(theta)
        with full_precision():
            found = logit_curvature(logit, theta, x, steps=steps, tol=tol)
        printed, inside, corrected = (Terms(*(value.mean().item() for value in terms)) for terms in _terms(found, y))
        residual = found.residual.max().item()
        converged = top.converged and bool(found.converged.all())
        rows.append(HessianRow(top.group, len(index), top.value, converged, residual, printed, inside, corrected))
    return rows


def violations(networks: int = 400, *, inputs: int = 20, seed: int = 0) -> pd.DataFrame:
    """How many random networks 2-3-3-1 break each reading of Prop. 4.5, by dense Hessians in float64.

    Weights, biases and inputs are standard normal, labels fair coins: one group for each network.

    Args:
        networks: Number of networks.
        inputs: Inputs of each.
        seed: Of everything random.

    Returns:
        A row for each of `READINGS`, and for `printed sum` (main text, without 1/|S|): `reading`, `n` networks,
        `violations`, `share` with its Wilson interval `low`, `high`, and `worst`, the largest eigenvalue / right side
        (inf where a right side is not positive).

    >>> violations(20)[["reading", "n"]].values.tolist()[0]
    ['printed', 20]
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 2), (3,), (3, 3), (3,), (1, 3), (1,)]
    sizes = [math.prod(shape) for shape in shapes]
    options = {"generator": generator, "dtype": torch.float64}
    theta = torch.randn(networks, sum(sizes), **options)
    x = torch.randn(networks, inputs, 2, **options)
    y = torch.randint(0, 2, (networks, inputs), generator=generator).double()

    def logit(vector: Tensor, x: Tensor) -> Tensor:
        pieces = [piece.view(shape) for piece, shape in zip(vector.split(sizes), shapes, strict=True)]
        for weight, bias in zip(pieces[:-2:2], pieces[1:-2:2], strict=True):
            x = F.relu(x @ weight.T + bias)
        return (x @ pieces[-2].T + pieces[-1])[..., 0]

    def risk(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logit(vector, x), y)

    top = torch.linalg.eigvalsh(vmap(_hessian(risk))(theta, x, y))[:, -1]
    sample = [vmap(vmap(function(logit), (None, 0)))(theta, x) for function in (lambda f: f, grad, _hessian)]
    found = dense_curvature(*(value.flatten(0, 1) for value in sample))
    terms = _terms(found, y.flatten())
    totals = {
        reading: (z1 + z2).view(networks, inputs).mean(1) for reading, (z1, z2) in zip(READINGS, terms, strict=True)
    }
    totals["printed sum"] = inputs * totals["printed"]
    rows = []
    for reading, total in totals.items():
        broken = int((~_holds(top, total)).sum())
        worst = torch.where(total > 0, top / total, torch.inf).max().item()
        rows.append((reading, networks, broken, broken / networks, *wilson(broken / networks, networks), worst))
    return pd.DataFrame(rows, columns=["reading", "n", "violations", "share", "low", "high", "worst"])


def _hessian(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return jacrev(grad(function))  # torch.func.hessian goes forward, through jit code that warns


def _terms(found: LogitCurvature, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both terms of each input, (n,), in the order of `READINGS`."""
    p = found.h.sigmoid()
    spread, error = p * (1 - p), (p - y).abs()
    near = spread * found.squared
    largest = torch.maximum(found.top, -found.bottom)
    return [(spread**2 * near, error * found.probability_top), (near, error * found.top), (near, error * largest)]


def _holds(eigenvalue: float | Tensor, total: float | Tensor) -> bool | Tensor:
    return eigenvalue - total <= TOLERANCE * abs(eigenvalue)
