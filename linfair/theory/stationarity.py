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

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from linfair.data import GroupedData, Split
from linfair.metrics.curvature import hessian_product
from linfair.metrics.gradients import ParameterRisk, flat

STATIONARY = 1e-6  #: Up to this share of the smaller group's gradient norm, that of the whole risk counts as 0
SETTLED = 1e-10  #: Gradient norm at which `settle` stops


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
            return math.inf if self.norm_small else math.nan
        return self.norm_small / self.norm_large

    @property
    def predicted(self) -> float:
        """|S^a| / |S^b|, of Appendix A.1."""
        return self.n_large / self.n_small

    @property
    def holds(self) -> bool:
        """Whether the smaller group has the larger gradient, the statement itself."""
        return self.norm_small >= self.norm_large


def gradient_ratio(model: nn.Module, data: GroupedData, split: str = "train") -> GradientRatio:
    """Gradient norms of the smallest and the largest group of any network, in float64, and how stationary it is.

    The statement is about the split that the network was trained on.

    Raises:
        ValueError: If there is one group only, or as `linfair.metrics.gradients.ParameterRisk`.
    """
    risk = ParameterRisk(model, data, split, dtype=torch.float64)
    if len(risk.n) < 2:
        raise ValueError(f"App. A.1 compares two groups, {data.name} has {len(risk.n)}")
    small, *_, large = sorted(risk.check_groups(None), key=lambda group: risk.n[group])
    norms = [risk.gradient(risk.positions(group, "exact")[0]).norm().item() for group in (small, large)]
    total = risk.gradient(torch.arange(sum(risk.n))).norm().item()
    return GradientRatio(small, large, risk.n[small], risk.n[large], *norms, total, sum(risk.n))


def overlapping(sizes: Sequence[int], *, seed: int = 0) -> GroupedData:
    """Groups of normal points of the plane whose two labels overlap, so that the risk has a minimum.

    Centre, w_a and c_a of P(y = 1) = sigmoid(w_a . x + c_a) are each group's own.
    """
    rng, x, y = np.random.default_rng([seed, 41]), [], []
    for size in sizes:
        points = rng.normal(rng.normal(0, 0.7, 2), 1.0, (size, 2))
        logit = points @ rng.normal(0, 1, 2) + rng.normal(0, 0.7)
        x.append(points)
        y.append(rng.random(size) < 1 / (1 + np.exp(-logit)))
    a = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    split = Split(torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y)).long(), a)
    return GroupedData("overlapping", {"train": split}, ("no", "yes"), tuple(map(str, range(len(sizes)))))


def settle(model: nn.Module, data: GroupedData, *, decay: float = 0.0, iterations: int = 500) -> nn.Module:
    """A copy of a small network at a stationary point of J(theta; train) + decay / 2 |theta|^2, in float64.

    L-BFGS, then Newton's method (pseudo-inverse: the two logits may move together) until the gradient's norm is at most
    `SETTLED` or falls no more. A ReLU network can end on a kink, where no gradient is 0: see `GradientRatio.total`.
    """
    index = torch.arange(len(data.splits["train"]))
    risk = ParameterRisk(model, data, "train", batch_size=len(index), dtype=torch.float64)

    def at(vector: Tensor) -> tuple[float, Tensor]:
        with torch.no_grad():
            vector_to_parameters(vector, risk.parameters)
        loss = risk.mean_loss(index, len(index))
        return loss.item() + decay / 2 * float(vector @ vector), flat(risk.derivative(loss)) + decay * vector

    def for_scipy(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = at(torch.from_numpy(vector.copy()))
        return value, gradient.numpy()

    start = parameters_to_vector(risk.parameters).detach().numpy()
    options = {"maxiter": iterations, "maxfun": 2 * iterations, "gtol": SETTLED / 10, "ftol": 0.0}
    point = torch.from_numpy(minimize(for_scipy, start, jac=True, method="L-BFGS-B", options=options).x)
    gradient = at(point)[1]
    for _ in range(20):
        if gradient.norm() <= SETTLED:
            break
        columns = map(hessian_product(risk, index), torch.eye(risk.size, dtype=torch.float64))
        hessian = torch.stack(list(columns)) + decay * torch.eye(risk.size)
        move = torch.linalg.pinv(hessian, hermitian=True, rtol=1e-10) @ gradient
        tries = [(point - move / 2**halving, at(point - move / 2**halving)[1]) for halving in range(8)]
        best, found = min(tries, key=lambda one: float(one[1].norm()))
        if found.norm() >= gradient.norm():
            break
        point, gradient = best, found
        at(point)
    at(point)
    return risk.model.requires_grad_(True)


def descend(model: nn.Module, data: GroupedData, steps: int) -> nn.Module:
    """A copy of a network after so many steps of gradient descent on J(theta; train), of rate 1/2, in float64."""
    index = torch.arange(len(data.splits["train"]))
    risk = ParameterRisk(model, data, "train", batch_size=len(index), dtype=torch.float64)
    for _ in range(steps):
        gradient = risk.gradient(index)
        with torch.no_grad():
            vector_to_parameters(parameters_to_vector(risk.parameters) - 0.5 * gradient, risk.parameters)
    return risk.model.requires_grad_(True)


def with_mixture(data: GroupedData, copies: int) -> GroupedData:
    """Two groups, each taken `copies` times, and a third group of one copy of both: the same distribution as all."""
    part = data.splits["train"]
    x, y = (value.repeat(copies + 1, *[1] * (value.ndim - 1)) for value in (part.x, part.y))
    a = torch.cat([part.a.repeat(copies), torch.full_like(part.a, len(data.group_names))])
    return replace(data, splits={"train": Split(x, y, a)}, group_names=(*data.group_names, "mixture"))


def against_rest(data: GroupedData, group: int) -> GroupedData:
    """The same data in two groups: 0 all others, 1 the group."""
    splits = {name: Split(part.x, part.y, (part.a == group).long()) for name, part in data.splits.items()}
    return replace(data, splits=splits, group_names=("rest", data.group_names[group]))


def stationarity_table(*, seed: int = 0, sizes: tuple[int, int, int] = (400, 100, 50)) -> pd.DataFrame:
    """Gradient ratios where A.1 applies and where one of its assumptions does not.

    Two groups are the first two of the descending `sizes`, three are all; the classifier is a logistic regression but
    for the last two rows, networks with two hidden units (with many of them a minimum may lie at infinity).

    Returns:
        A row each: `variant`, `setting` (decay or steps, else nan), `applies` (whether A.1's assumptions hold, a total
        gradient within `STATIONARY` among them), the fields of `GradientRatio`, `ratio`, `predicted`, `holds`.
    """
    if len(sizes) != 3 or not sizes[0] > sizes[1] > sizes[2] > 0:
        raise ValueError(f"sizes are three numbers of inputs in descending order, got {sizes}")
    two, three = overlapping(sizes[:2], seed=seed), overlapping(sizes, seed=seed)
    mixed = with_mixture(two, sum(sizes[:2]) // sizes[1] + 1)
    linear = nn.Sequential(nn.Linear(2, 2)).double()
    vector_to_parameters(torch.zeros(6, dtype=torch.float64), linear.parameters())
    settled = settle(linear, three)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(2, 2), nn.Linear(2, 2)
    relu, tanh = (nn.Sequential(layers[0], bend, layers[1]) for bend in (nn.ReLU(), nn.Tanh()))
    cases = [("logistic regression", math.nan, True, settle(linear, two), two)]
    cases += [("weight decay", decay, False, settle(linear, two, decay=decay), two) for decay in (1e-3, 1e-2, 1e-1)]
    cases += [("early stopping", stop, False, descend(linear, two, stop), two) for stop in (3, 30, 300)]
    cases += [("three groups", math.nan, False, settled, three)]
    cases += [("smallest against the rest", math.nan, True, settled, against_rest(three, 2))]
    cases += [("smallest is a mixture", math.nan, False, settle(linear, mixed), mixed)]
    cases += [("tanh network", math.nan, True, settle(tanh, two), two)]
    cases += [("ReLU network", math.nan, True, settle(relu, two), two)]
    rows = []
    for variant, setting, applies, model, data in cases:
        found = gradient_ratio(model, data)
        applies = applies and found.total <= STATIONARY * found.norm_small
        derived = {name: getattr(found, name) for name in ("ratio", "predicted", "holds")}
        rows.append({"variant": variant, "setting": setting, "applies": applies} | vars(found) | derived)
    return pd.DataFrame(rows)
