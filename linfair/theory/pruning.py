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

import copy

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from linfair.data import GroupedData
from linfair.metrics.gradients import ParameterRisk


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
    network = copy.deepcopy(risk.model)  # a call leaves other tensors in a module that has two names

    def logits(free: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(network, free, (x.unsqueeze(0),))[0]

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
