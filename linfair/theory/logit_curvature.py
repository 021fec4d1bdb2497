"""Gradient and Hessian of one input's logit h by the parameters, for many inputs at a time.

For the probability p = sigmoid(h) the chain rule gives

    grad p = p (1 - p) grad h,    grad^2 p = p (1 - p) (grad^2 h + (1 - 2p) grad h grad h').

Networks of up to `DENSE` parameters have their Hessians formed; for others Lanczos finds both ends of the spectrum from
products H v, one Krylov space for each input, which a ReLU network's Hessian of low rank exhausts early.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

Logit = Callable[[Tensor, Tensor], Tensor]  #: Parameters (size,) and one input -> its logit, a scalar
DENSE = 64  #: Parameters up to which Hessians are formed
MEMORY = 40_000_000  #: Numbers that the Krylov spaces of one chunk of inputs may hold, in float64 320 MB


class LogitCurvature(NamedTuple):
    """One number for each input, float64, shape (n,)."""

    h: Tensor
    squared: Tensor  # |grad h|^2
    top: Tensor  # largest eigenvalue of grad^2 h
    bottom: Tensor  # smallest eigenvalue of grad^2 h
    probability_top: Tensor  # largest eigenvalue of grad^2 p
    residual: Tensor  # the largest of the three eigenvalues' residuals; 0 for dense Hessians
    converged: Tensor  # whether each residual is within tolerance


def logit_curvature(logit: Logit, theta: Tensor, x: Tensor, *, steps: int = 80, tol: float = 1e-3) -> LogitCurvature:
    """Curvature of the logit of every input x, shape (n, ...), at float64 parameters theta, shape (size,).

    An eigenvalue has converged once its residual is at most tol times the largest of its search.
    """
    each, unit = (None, 0), partial(F.normalize, dim=1, eps=1e-300)
    if len(theta) <= DENSE:
        times = _products(logit, theta, x)
        # one vmap deep: torch 2.13 gets the shapes of a PReLU's second derivative wrong in two
        columns = [times(column.expand(len(x), -1)) for column in torch.eye(len(theta)).to(theta)]
        return dense_curvature(*(vmap(part, each)(theta, x) for part in (logit, grad(logit))), torch.stack(columns, 2))
    found = []
    for part in x.split(max(1, MEMORY // (steps * len(theta)))):
        h, gradient = vmap(logit, each)(theta, part), vmap(grad(logit), each)(theta, part)
        times = _products(logit, theta, part)
        p = h.sigmoid()[:, None]

        def of_probability(v: Tensor, times: Callable = times, gradient: Tensor = gradient, p: Tensor = p) -> Tensor:
            along = (gradient * v).sum(1, keepdim=True)
            return p * (1 - p) * (times(v) + (1 - 2 * p) * along * gradient)

        generator = torch.Generator().manual_seed(0)
        random = torch.randn(len(part), len(theta), generator=generator, dtype=torch.float64).to(theta)
        # products lean to the large eigenvalues, the random part has all directions
        starts = [unit(image) + 0.1 * unit(random) for image in (times(random), of_probability(random))]
        bottom, top, residual, good = extremes(times, starts[0], steps=steps, tol=tol)
        _, probability, other, fine = extremes(of_probability, starts[1], steps=steps, tol=tol)
        evidence = torch.maximum(residual, other), good & fine
        found.append(LogitCurvature(h, gradient.square().sum(1), top, bottom, probability, *evidence))
    return LogitCurvature(*map(torch.cat, zip(*found, strict=True)))


def dense_curvature(h: Tensor, gradient: Tensor, matrix: Tensor) -> LogitCurvature:
    """The same from logits (n,), gradients (n, size) and Hessians (n, size, size) of h."""
    p = h.sigmoid()[:, None, None]
    outer = gradient[:, :, None] * gradient[:, None, :]
    values = torch.linalg.eigvalsh(matrix)
    probability = torch.linalg.eigvalsh(p * (1 - p) * (matrix + (1 - 2 * p) * outer))[:, -1]
    ends = values[:, -1], values[:, 0], probability
    return LogitCurvature(h, gradient.square().sum(1), *ends, torch.zeros_like(h), torch.ones_like(h).bool())


def _products(logit: Logit, theta: Tensor, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The function v -> H v for each input, (n, size) -> (n, size)."""

    def one(x: Tensor, v: Tensor) -> Tensor:
        return grad(lambda vector: (grad(logit)(vector, x) * v).sum())(theta)

    return lambda v: vmap(one)(x, v)


def extremes(
    times: Callable[[Tensor], Tensor], start: Tensor, *, steps: int, tol: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both ends of the spectra of many symmetric matrices, by Lanczos with full reorthogonalisation.

    `times` takes the product of each matrix with its vector, (n, size) -> (n, size); starts are not 0. It returns, each
    of shape (n,), the smallest and the largest eigenvalues (inside the spectrum where not converged), the larger of
    their residuals, and whether it is at most tol times the largest eigenvalue in absolute value.
    """
    steps = min(steps, start.shape[1])
    basis = start.new_zeros(start.shape[0], steps, start.shape[1])
    diagonal, off = [], []
    vector = start / start.norm(dim=1, keepdim=True)
    for step in range(steps):
        basis[:, step] = vector
        image = times(vector)
        entry = (image * vector).sum(1)
        scale = torch.maximum(image.norm(dim=1), torch.stack([*diagonal, entry]).abs().amax(0))
        # a space exhausted before (vector 0) gets an entry from inside the spectrum, which changes no end of it
        exhausted = vector.square().sum(1) == 0
        diagonal.append(torch.where(exhausted, diagonal[0], entry) if diagonal else entry)
        known = basis[:, : step + 1]
        for _ in range(2):
            before = image.norm(dim=1)
            along = torch.bmm(known, image.unsqueeze(2))
            image = image - torch.bmm(along.transpose(1, 2), known).squeeze(1)
            length = image.norm(dim=1)
            if (length > 0.1 * before).all():  # else rounding is a part of the little that is left: once more
                break
        length = torch.where((length <= 1e-12 * scale) | exhausted, 0.0, length)
        off.append(length)
        if step == steps - 1 or step % 5 == 4 or not length.any():
            low, high, residual, large = _ends(diagonal, off)
            if (residual <= tol * large).all():
                break
        vector = torch.where(length[:, None] > 0, image / length.clamp(min=1e-300)[:, None], 0.0)
    return low, high, residual, residual <= tol * large


def _ends(diagonal: list[Tensor], off: list[Tensor]) -> tuple[Tensor, ...]:
    """Smallest and largest eigenvalue of tridiagonal matrices, their residuals' maximum, the largest absolute one."""
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if len(diagonal) > 1:
        beside = torch.stack(off[:-1], 1)
        matrix = matrix + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    values, vectors = torch.linalg.eigh(matrix)
    ends = off[-1][:, None] * vectors[:, -1, [0, -1]].abs()
    return values[:, 0], values[:, -1], ends.amax(1), values[:, [0, -1]].abs().amax(1)
