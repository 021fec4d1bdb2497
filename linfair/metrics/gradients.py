"""Gradient norm of each group's risk.

With J(theta; S_a) the mean cross entropy of the inputs of group a, the paper (Das et al., ICML 2024, Sec. 4) ties the
excessive loss of a group to

    |g_a|,    g_a = grad_theta J(theta; S_a) = 1/|S_a| sum_{i in S_a} grad_theta l(f_theta(x_i), y_i).

`exact` is that norm. `per_batch` is what the code released with the paper computes: the mean over batches of the norm
of the group's mean gradient in a batch. It is biased upward, mean_b |g_a,b| >= |g_a| with equally many of the group in
every batch (Jensen), and most for the group with the fewest inputs in a batch, the minority.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.device import full_precision
from linfair.functional import by_products
from linfair.gates import sites
from linfair.metrics.risk import check_one
from linfair.training import cross_entropy

ESTIMATORS = ("exact", "per_batch")


@dataclass(frozen=True)
class GroupGradient:
    """Norm of the gradient of one group's risk."""

    group: int  #: Number of the group
    n: int  #: Inputs of the group
    norm: float  #: Euclidean norm; for `per_batch` the mean of the batches' norms
    batches: int  #: Norms that `norm` averages; 1 for `exact`, the batches that hold the group for `per_batch`


class ParameterRisk:
    """Mean cross entropy of any inputs of a split, as a function of a network's parameters.

    It works on a copy in evaluation mode. All parameters count, frozen or not; with alpha=True the gates' alphas too,
    after the others: `named` has them by name in that order, `size` is how many numbers they hold, of which the first
    `weights` belong to no alphas; `n` counts the inputs of each group. `dtype` is the precision of the network's own
    arithmetic, None that of its most precise parameter; sums run in float64. `batch_size` bounds the memory, not the
    value. A ValueError refuses an ensemble, an unknown split, a batch size below 1, alphas of a network without gates,
    a network without parameters, and one that looks at the whole batch even in evaluation mode.
    """

    def __init__(
        self,
        model: nn.Module,
        data: GroupedData,
        split: str,
        *,
        alpha: bool = False,
        batch_size: int = 512,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_one(model, data, split)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                text = f"{name or type(module).__name__} normalises with the statistics of the batch even in "
                text += "evaluation mode, so no input has a loss of its own; use track_running_stats=True"
                raise ValueError(text)
        self.model = copy.deepcopy(model).eval()
        # one precision for all: a gradient is rounded to that of its parameter, and gates are installed in float32
        self.model.to(dtype or reduce(torch.promote_types, (value.dtype for value in model.parameters()), torch.half))
        gates = {id(gate.alpha) for gate in sites(self.model).values()}
        if alpha and not gates:
            raise ValueError(f"{type(model).__name__} has no gates, so alpha=True has nothing to add; use alpha=False")
        everything = dict(self.model.named_parameters())
        weights = {name: parameter for name, parameter in everything.items() if id(parameter) not in gates}
        self.named = weights | everything if alpha else weights
        self.parameters = list(self.named.values())
        if not self.parameters:
            raise ValueError(f"{type(model).__name__} has no parameters to differentiate by")
        self.model.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.weights = sum(parameter.numel() for parameter in weights.values())
        self.data, self.split, self.batch_size = data, split, batch_size
        self.n = torch.bincount(data.splits[split].a, minlength=len(data.group_names)).tolist()

    def check_groups(self, groups: Sequence[int] | None) -> list[int]:
        """The groups asked for, None being all; one that does not exist or has no inputs is an error."""
        chosen = list(range(len(self.n))) if groups is None else list(groups)
        if unknown := [group for group in chosen if not 0 <= group < len(self.n)]:
            raise ValueError(f"{self.data.name} has no groups {unknown}; they are numbered 0 to {len(self.n) - 1}")
        if empty := [group for group in chosen if not self.n[group]]:
            raise ValueError(f"groups {empty} have no inputs in split {self.split!r}; choose others with groups=...")
        return chosen

    def positions(self, group: int, estimator: str) -> list[Tensor]:
        """Positions of the inputs whose risks an estimator looks at: of the group, or of its part of each batch."""
        if estimator not in ESTIMATORS:
            raise ValueError(f"no estimator {estimator!r}; there are {', '.join(ESTIMATORS)}")
        found = (self.data.splits[self.split].a == group).nonzero().flatten()
        if estimator == "exact":
            return [found]
        batch = found // self.batch_size
        return [found[batch == number] for number in batch.unique().tolist()]

    @full_precision()
    def mean_loss(self, index: Tensor, n: int) -> Tensor:
        """Sum of the cross entropies of the inputs at positions index, over n: a scalar with a graph."""
        part, like = self.data.splits[self.split], self.parameters[0]
        with torch.enable_grad(), by_products():
            logits = self.model(self.data.normalise(part.x[index]).to(like))
            losses = cross_entropy(logits, part.y[index].to(like.device))
            mean = losses.sum() / n
        if not torch.isfinite(losses).all():
            where = index[(~torch.isfinite(losses)).to(index.device)]
            text = f"the loss of {len(where)} inputs of split {self.split!r} is not finite (first: input "
            raise ValueError(f"{text}{int(where[0])}); the network diverged: train it at a lower rate")
        return mean

    def value(self, index: Tensor) -> float:
        """Mean cross entropy of the inputs at positions index."""
        return sum(self.mean_loss(part, len(index)).item() for part in index.split(self.batch_size))

    @full_precision()
    def derivative(self, value: Tensor, **options: object) -> tuple[Tensor, ...]:
        """Derivative of a scalar by the parameters, zeros for those it does not depend on."""
        return torch.autograd.grad(value, self.parameters, materialize_grads=True, **options)

    def gradient(self, index: Tensor) -> Tensor:
        """Gradient of `value`: flat, float64, shape (size,)."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.parameters[0].device)
        for part in index.split(self.batch_size):
            total += flat(self.derivative(self.mean_loss(part, len(index))))
        return total


def flat(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other as one float64 vector."""
    return torch.cat([part.detach().flatten().double() for part in parts])


def unflat(vector: Tensor, like: Mapping[object, Tensor]) -> dict[object, Tensor]:
    """A flat vector cut into tensors of the names and shapes of others."""
    pieces = vector.split([one.numel() for one in like.values()])
    return {name: piece.view_as(one) for (name, one), piece in zip(like.items(), pieces, strict=True)}


def group_gradient_norms(
    model: nn.Module,
    data: GroupedData,
    split: str = "train",
    *,
    groups: Sequence[int] | None = None,
    alpha: bool = False,
    estimator: str = "exact",
    batch_size: int = 512,
    dtype: torch.dtype | None = None,
) -> list[GroupGradient]:
    """Gradient norm of each group's risk, a row for each group; every input passes the network, left as it is, once.

    `groups` are their numbers (None is all), `split` is one of `data.splits`; the paper's released code uses the test
    split, and counts the gates' `alpha` among the parameters. `estimator` is `exact`, or `per_batch` in the split's
    stored order, which the `batch_size` defines. A ValueError refuses an unknown group or estimator, a group without
    inputs, a loss that is not finite, and what `ParameterRisk` refuses.

    A linear classifier of two classes with weights 0 has for x = 1, y = 1 the gradient p - onehot(y) = (1/2, -1/2):

    >>> from linfair.data import Split
    >>> one = Split(torch.ones(3, 1), torch.ones(3).long(), torch.zeros(3).long())
    >>> linear = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(linear.weight)
    >>> [row] = group_gradient_norms(linear, GroupedData("ones", {"train": one}, ("no", "yes"), ("all",)))
    >>> row.group, row.n, round(row.norm**2, 6), row.batches
    (0, 3, 0.5, 1)
    """
    risk = ParameterRisk(model, data, split, alpha=alpha, batch_size=batch_size, dtype=dtype)
    return [row for (row,) in _rows(risk, groups, estimator, (risk.size,))]


def group_gradient_norm_pairs(
    model: nn.Module, data: GroupedData, split: str = "train", *, estimator: str = "exact", batch_size: int = 512
) -> list[tuple[GroupGradient, GroupGradient]]:
    """`group_gradient_norms` of every group without and with the gates' alphas, a pair of rows, for the price of one.

    The weights' gradient is part of the gradient by weights and alphas. A network without gates is refused.
    """
    risk = ParameterRisk(model, data, split, alpha=True, batch_size=batch_size)
    return _rows(risk, None, estimator, (risk.weights, risk.size))


def _rows(
    risk: ParameterRisk, groups: Sequence[int] | None, estimator: str, sizes: Sequence[int]
) -> list[tuple[GroupGradient, ...]]:
    """For each group a row for each of `sizes`: that of the gradient by so many parameters, the first ones."""
    rows = []
    for group in risk.check_groups(groups):
        gradients = (risk.gradient(index) for index in risk.positions(group, estimator))
        norms = [[gradient[:size].norm().item() for size in sizes] for gradient in gradients]
        means = [sum(column) / len(norms) for column in zip(*norms, strict=True)]
        rows.append(tuple(GroupGradient(group, risk.n[group], mean, len(norms)) for mean in means))
    return rows
