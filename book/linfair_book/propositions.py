"""The experiments of the theory page: random networks, fitted rates and closed cases, as tables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from linfair.data import GroupedData, Split
from linfair.gates import sites
from linfair.metrics.accuracy import wilson
from linfair.metrics.curvature import hessian_product
from linfair.metrics.gradients import ParameterRisk, flat, unflat
from linfair.theory.approximation import FUNCTIONS, ConvexFunction, approximate, line_error
from linfair.theory.bound import common_risks, expand
from linfair.theory.hessian import READINGS, terms_of, within
from linfair.theory.logit_curvature import dense_curvature
from linfair.theory.stationarity import gradient_ratio

STEPS = (1.0, 0.3, 0.1, 0.03, 0.01)  #: Parts of the way from the original to the linearized or pruned network
STATIONARY = 1e-6  #: Up to this share of the smaller group's gradient norm, that of the whole risk counts as 0
Bend = Callable[[Tensor], Tensor]  #: An activation
SETTLED = 1e-10  #: Gradient norm at which `settle` stops


def even_error(function: ConvexFunction, n: int) -> float:
    """Sup-norm error with n pieces of equal length; it falls as n^-2 where f'' is bounded, for `root` as n^(-1/2)."""
    knots = np.linspace(function.low, function.high, n + 1).tolist()
    return max(line_error(function, u, v) for u, v in pairwise(knots))


def fit_rate(n: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """The order of a power law error ~ n^order fitted to the logarithms, and the largest residual of log(error)."""
    x, y = np.log(n), np.log(errors)
    order, offset = np.polyfit(x, y, 1)
    return float(order), float(np.abs(y - offset - order * x).max())


def rate_table(n: Sequence[int], *, functions: Sequence[str] = tuple(FUNCTIONS)) -> pd.DataFrame:
    """Error by function and n segments, `scaled` by n^2 beside its `limit`, and `even`, with equally spaced knots."""
    rows = []
    for key, count in product(functions, n):
        function, best = FUNCTIONS[key], approximate(FUNCTIONS[key], count)
        found = (best.error, count**2 * best.error, function.limit, even_error(function, count), best.spread)
        rows.append((key, function.name, count, *found))
    return pd.DataFrame(rows, columns=["function", "name", "n", "error", "scaled", "limit", "even", "spread"])


def rates(table: pd.DataFrame) -> pd.DataFrame:
    """Fitted exponents of `rate_table` by function: of all n, of the two largest alone, of equally spaced knots."""
    rows = []
    for key, part in table.sort_values("n", kind="stable").groupby("function", sort=False):
        (order, residual), last = fit_rate(part["n"], part["error"]), part.iloc[-1]
        last_order, even_order = fit_rate(part["n"][-2:], part["error"][-2:])[0], fit_rate(part["n"], part["even"])[0]
        found = {"order": order, "residual": residual, "last_order": last_order, "even_order": even_order}
        rows.append({"function": key, "points": len(part)} | found | last[["scaled", "limit"]].to_dict())
    return pd.DataFrame(rows)


def violations(
    networks: int = 400, *, inputs: int = 20, seed: int = 0, bend: Bend = F.relu, steps: int = 0
) -> pd.DataFrame:
    """How many random networks 2-3-3-1 break each reading of Prop. 4.5, and inputs Eq. 13, by dense Hessians."""
    outputs, theta, x, y = random_networks(networks, inputs, seed=seed, bend=bend)
    y = y.double()

    def logit(vector: Tensor, x: Tensor) -> Tensor:
        return outputs(vector, x)[..., 0]

    def risk(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logit(vector, x), y)

    for _ in range(steps):
        theta = theta - 0.5 * vmap(grad(risk))(theta, x, y)
    top = torch.linalg.eigvalsh(vmap(hessian_of(risk))(theta, x, y))[:, -1]
    alone = torch.linalg.eigvalsh(vmap(vmap(hessian_of(risk), (None, 0, 0)))(theta, x, y))[..., -1]
    sample = [vmap(vmap(function(logit), (None, 0)))(theta, x) for function in (lambda f: f, grad, hessian_of)]
    found = dense_curvature(*(value.flatten(0, 1) for value in sample))
    sides = [(z1 + z2).view(networks, inputs) for z1, z2 in terms_of(found, y.flatten())]
    totals, rows = [side.mean(1) for side in sides], []
    pairs = zip((*totals, inputs * totals[0]), (*sides, sides[0]), strict=True)
    for reading, (total, side) in zip((*READINGS, "printed sum"), pairs, strict=True):
        broken, single = int((~within(top, total)).sum()), int((~within(alone, side)).sum())
        share = broken / networks, *wilson(broken / networks, networks)
        worst = torch.where(total > 0, top / total, torch.inf).max().item()
        rows.append((reading, networks, broken, *share, worst, (total / top).nanquantile(0.5).item(), single))
    columns = ["reading", "n", "violations", "share", "low", "high", "worst", "looseness", "input_violations"]
    return pd.DataFrame(rows, columns=columns)


def random_networks(
    count: int, inputs: int, *, outputs: int = 1, seed: int = 0, bend: Bend = F.relu
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, Tensor]:
    """Networks 2-3-3-outputs as a function of flat parameters and x, normal parameters (count, size), x and y."""
    generator = torch.Generator().manual_seed(seed)
    like = dict(enumerate(map(torch.empty, [(3, 2), (3,), (3, 3), (3,), (outputs, 3), (outputs,)])))
    options = {"generator": generator, "dtype": torch.float64}
    theta = torch.randn(count, sum(one.numel() for one in like.values()), **options)
    x = torch.randn(count, inputs, 2, **options)

    def function(vector: Tensor, x: Tensor) -> Tensor:
        w1, b1, w2, b2, w3, b3 = unflat(vector, like).values()
        return bend(bend(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3

    return function, theta, x, torch.randint(max(2, outputs), (count, inputs), generator=generator)


def hessian_of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The Hessian by the first argument."""
    return jacrev(grad(function))  # torch.func.hessian goes forward, through jit code that warns


def overlapping(sizes: Sequence[int], *, seed: int = 0) -> GroupedData:
    """Groups of normal points of the plane whose two labels overlap, so that the risk has a minimum."""
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


def stationarity_table(*, seed: int = 0) -> pd.DataFrame:
    """Gradient ratios where A.1 applies and where an assumption does not; `setting` is the decay or the steps."""
    two, three = overlapping((400, 100), seed=seed), overlapping((400, 100, 50), seed=seed)
    mixed = with_mixture(two, 6)  # the mixture is the smallest: 500 points beside 600 and 2,400
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


def remainders(
    model: nn.Module, original: nn.Module, data: GroupedData, *, steps: Sequence[float] = STEPS
) -> pd.DataFrame:
    """Each group's expansion at parts t of the way to the reduced network: O(|d|^3) falls with t^3 if none switches."""
    before, after = common_risks([original, model], data, "train", alpha=bool(sites(model)), dtype=torch.float64)
    start, end = flat(before.parameters), flat(after.parameters)
    rows = []
    for group in before.check_groups(None):
        (index,) = before.positions(group, "exact")
        gradient, product, risk = before.gradient(index), hessian_product(before, index), before.value(index)
        for t in steps:
            with torch.no_grad():  # `after` becomes the network on the way; its buffers are all folded
                vector_to_parameters(start + t * (end - start), after.parameters)
            found = expand(after.value(index) - risk, gradient, product, t * (end - start))
            rows.append(vars(found) | {"group": group, "n": len(index), "t": t})
    return pd.DataFrame(rows)
