"""The statements on pruning: masks, both sides, and counterexamples; `linfair_book.verdicts` counts violations.

Tran, Fioretto, Kim, Naidu, *Pruning has a disparate impact on model accuracy* (NeurIPS 2022), Sec. 3 to 5 and App. A.
With theta the original network, theta_bar the pruned one (0 where a weight is removed) and d = theta_bar - theta:

    Theorem 1      R(a) <= |g_a| |d| + 1/2 lambda(H_a) |d|^2 + O(|d|^3), here without the last term, which could hide
                   anything (`bound`). It takes two derivatives; a ReLU network has none where a unit switches.
    Corollary 1    who prunes more has the larger bound: true where |d| grows and lambda(H_a) >= 0, so along nested
                   masks, not from one criterion to another; it says nothing about R(a) itself.
    Proposition 1  |D_a| >= |D_b| gives |g_a| <= |g_b|: for two groups and no weight decay (`stationarity`).
    Proposition 2  |g_a| <= 1/|D_a| sum |f(x) - y| |grad f(x)|, f the softmax output. The loss is printed without its
                   logarithm, -sum y f; f - y is the derivative of -sum y log f, and by the logits.
    Theorem 2      Prop. 4.5 of Das et al., word for word (`hessian`); more classes are "directly attainable".
    Proposition 3  f (1 - f), called closeness in Eq. 6 and distance in Eq. 10, is largest at 1/2 and smallest at 0, 1.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from linfair import weights
from linfair.data import GroupedData
from linfair.metrics.gradients import ParameterRisk, flat, unflat
from linfair.theory.hessian import random_networks


def pruned(model: nn.Module, share: float, *, seed: int | None = None) -> nn.Module:
    """A copy with switches and without a share of its weights, the smallest in absolute value or drawn by a seed."""
    network = weights.install(model)
    order = flat([weight for _, weight in weights.switches(network).values()]).abs().cpu()
    if seed is not None:
        order = torch.rand(len(order), generator=torch.Generator().manual_seed(seed))
    (mask,) = weights.masks_of(network)
    kept = torch.ones(len(order), dtype=torch.bool)
    kept[order.argsort(stable=True)[: round(share * len(order))]] = False
    return weights.apply_mask(network, replace(mask, units=unflat(kept, mask.units)))


@torch.no_grad()
def switched(model: nn.Module, original: nn.Module, x: Tensor) -> Tensor:
    """How many `nn.ReLU` inputs have another sign in a pruned network, for each input x, (n, ...) -> (n,).

    The loss meets at least as many kinks on the straight way from the original network.
    """
    signs = [x.new_zeros(len(x), 0)]
    for network in map(weights.plain, (original, model)):
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(lambda _, inputs: signs.append((inputs[0] > 0).flatten(1)))
        network(x)
    before, after = torch.cat(signs, 1).view(len(x), 2, -1).unbind(1)
    return (before != after).sum(1)


def quadratic_groups(sizes: Sequence[int], centres: Sequence[int]) -> tuple[Fraction, list[Fraction]]:
    """Minimiser t* of the risk of groups J_a(t) = (t - c_a)^2 / 2 and their gradient norms |t* - c_a|, exactly.

    The smallest of three groups can have the smallest gradient:

    >>> quadratic_groups((3, 2, 1), (0, 3, 1))
    (Fraction(7, 6), [Fraction(7, 6), Fraction(11, 6), Fraction(1, 6)])
    """
    best = Fraction(sum(n * c for n, c in zip(sizes, centres, strict=True)), sum(sizes))
    return best, [abs(best - c) for c in centres]


def gradient_bound(model: nn.Module, data: GroupedData, split: str = "train") -> pd.DataFrame:
    """Both sides of Proposition 2, a row for each group, in float64; it forms every input's Jacobian.

        |g_a| = |1/|D_a| sum J_h(x)' (f(x) - y)| <= 1/|D_a| sum |f(x) - y| |J_h(x)|,    J_h = grad h, (classes, size).

    It holds for the spectral norm and so for Frobenius', which is not smaller. For J_f = (diag f - f f') J_h, as
    printed, no constant repairs it: for two classes and one input left / right is 1 / (2 f_1 f_2), unbounded. Columns
    `group`, `n`, `norm` (|g_a|), the right sides `softmax` (J_f) and `logits` (J_h), and both `_frobenius`.

    >>> from linfair.data import Split
    >>> one = Split(torch.ones(3, 1), torch.ones(3).long(), torch.zeros(3).long())
    >>> linear = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(linear.weight)
    >>> found = gradient_bound(linear, GroupedData("ones", {"train": one}, ("no", "yes"), ("all",)))
    >>> (found[["norm", "softmax", "logits", "logits_frobenius"]] ** 2).round(6).values.tolist()
    [[0.5, 0.125, 0.5, 1.0]]
    """
    risk, part, rows = ParameterRisk(model, data, split, dtype=torch.float64), data.splits[split], []
    free = {name: value.detach() for name, value in risk.named.items()}

    def logits(free: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(risk.model, free, (x.unsqueeze(0),))[0]

    for group in risk.check_groups(None):
        (index,) = risk.positions(group, "exact")
        x = data.normalise(part.x[index]).to(risk.parameters[0])
        f = vmap(logits, (None, 0))(free, x).softmax(1)
        of_h = torch.cat([one.flatten(2) for one in vmap(jacrev(logits), (None, 0))(free, x).values()], 2)
        of_f = (torch.diag_embed(f) - f.unsqueeze(2) * f.unsqueeze(1)) @ of_h
        error = (f - F.one_hot(part.y[index].to(f.device), f.shape[1])).norm(dim=1)
        norms = [torch.linalg.matrix_norm(one, 2) for one in (of_f, of_h)]
        norms += [one.norm(dim=(1, 2)) for one in (of_f, of_h)]
        sides = [(error * one).mean().item() for one in norms]
        rows.append((group, len(x), risk.gradient(index).norm().item(), *sides))
    names = ["group", "n", "norm", "softmax", "logits", "softmax_frobenius", "logits_frobenius"]
    return pd.DataFrame(rows, columns=names)


def softmax_sides(count: int, inputs: int, *, classes: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    """Both sides of Theorem 2 for more classes, for each input of random ReLU networks 2-3-3-classes, in float64.

    With logits h, p = softmax(h) and J = grad h, the Hessian of one input's loss is

        H_x = J' (diag p - p p') J + sum_z (p_z - y_z) grad^2 h_z.

    The right side is sum_z |p_z - y_z| |grad^2 h_z|, with spectral norms, and one of

        class by class   sum_z p_z (1 - p_z) |grad h_z|^2, which ignores what two classes share;
        trace            tr(diag p - p p') |J|^2 = sum_z p_z (1 - p_z) |J|^2: proved.

    For each reading it returns H_x, shape (count, inputs, size, size), and the right side, (count, inputs).
    """
    logits, theta, x, y = random_networks(count, inputs, outputs=classes)

    def loss(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return -logits(vector, x).log_softmax(0).gather(0, y[None])[0]

    functions = logits, jacrev(logits), jacrev(jacrev(logits))
    h, slope, bend = (vmap(vmap(one, (None, 0)))(theta, x) for one in functions)
    hessian, p = vmap(vmap(jacrev(grad(loss)), (None, 0, 0)))(theta, x, y), h.softmax(2)
    spread, off = p * (1 - p), (p - F.one_hot(y, classes)).abs()
    error = (off * torch.linalg.matrix_norm(bend, 2)).sum(2)
    near = (spread * slope.square().sum(3)).sum(2), spread.sum(2) * torch.linalg.matrix_norm(slope, 2).square()
    return {name: (hessian, one + error) for name, one in zip(("class by class", "trace"), near, strict=True)}
