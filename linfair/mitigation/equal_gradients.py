"""Equal gradients: groups with equal gradient norms and equal curvature (Tran et al., NeurIPS 2022, Eq. 7).

What makes a group pay for a reduction are, by their Theorem 1, its gradient g_a = grad J(theta; D_a) and the top
eigenvalue lambda(H_a) of its Hessian. With g and H those of all inputs, the full problem is

    minimise J(theta; D)  such that  |g_a| = |g|  and  lambda(H_a) = lambda(H)  for every group a,

of which Eq. 8, J(theta; D_a) = J(theta; D), is the relaxed form: `lagrangian` with `kd` 0. Here, per batch B,

    J(B) + sum_a mu_a ||g_a(B)| - |g(B)|| / s  +  sum_a nu_a |lambda(H_a(B)) - lambda(H(B))| / t,

and once an epoch mu_a and nu_a, 0 at first, grow by the step `mu` times their violations over the training split. s and
t are the original network's means over the groups of |g_a| and |lambda(H_a)| there: eigenvalues of order 100 would make
the multipliers explode. An eigenvalue is v . H_a v, with v of `STEPS` power iterations from g_a (from a fixed vector
where that is 0) held constant: that of largest absolute value, from below. Its gradient takes three backpropagations
through the whole batch for every group.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from linfair import ledger
from linfair.functional import by_products, in_mode
from linfair.mitigation.objective import MitigationOptions, Multiplied
from linfair.training import AT_ONCE, Batch, Data

STEPS = 10  #: Power iterations for an eigenvalue
_AFFINE = (("weight", 1.0), ("bias", 0.0))


class BatchNormWritten(TorchFunctionMode):
    """Batch norm of a batch as plain arithmetic: torch's own takes the batch's moments as constant the third time."""

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        """Run one function of torch."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)  # moves the running moments
        if func is not F.batch_norm or not kwargs["training"]:
            return out
        x, affine = args[0].to(torch.promote_types(out.dtype, torch.float32)), kwargs["weight"] is not None
        var, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0, keepdim=True)
        weight, bias = (kwargs[name].view(1, -1, *[1] * (x.ndim - 2)) if affine else one for name, one in _AFFINE)
        return ((x - mean) * (var + kwargs["eps"]).rsqrt() * weight + bias).to(out.dtype)


class EqualGradientsObjective(Multiplied):
    """J and both penalties; rows hold `multipliers` and `violations` of the norms, and `eigenvalue_*`."""

    def __init__(self, model: nn.Module, teacher: nn.Module, data: Data, **stage: object) -> None:
        super().__init__(model, teacher, data, **stage)
        self.multipliers = self.zeros().repeat(1, 1 + self.options.eigenvalues)
        own = self._over_split(teacher)[..., 1:].abs().sum(dim=2, keepdim=True)
        own = own / self.trained_on.sum(dim=1).view(-1, 1, 1)
        self.scale = torch.where(own > 0, own, 1.0)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of a batch and its penalties, one number for each member."""
        network = getattr(model, "_orig_mod", model)  # what torch.compile makes has first derivatives alone
        penalised = bool(self.multipliers.any())  # a penalty of 0 costs nothing
        with BatchNormWritten() if penalised else nullcontext(), by_products():
            logits = network(batch.x)
        mean, means, counts = self.batch_losses(logits, batch)
        self.note_absent(counts > 0, batch)
        if not penalised:
            return mean
        parameters = self._parameters(self.model)
        here = torch.stack([self._of_batch(one, parameters) for one in (mean, *means.unbind(1))], dim=2)
        return mean + self.penalty(self._violated(here, counts > 0))

    def violations(self) -> Tensor:
        """Violations over the training split, (members, groups) of the norms, then of the eigenvalues."""
        return self._violated(self._over_split(self.model), self.trained_on)

    def _violated(self, found: Tensor, present: Tensor) -> Tensor:
        """Violations, (members, constraints x groups), of (members, constraints, 1 + groups), all inputs first.

        `present` says which groups have inputs, (members, groups); the others take no part.
        """
        whole, groups = found[..., :1], found[..., 1:]
        return ((groups - whole).abs() * present.unsqueeze(1) / self.scale.to(found.dtype)).flatten(1)

    def _parameters(self, network: nn.Module) -> list[Tensor]:
        """What gradients and Hessians are by: the weights that are trained, not the gates' alphas."""
        named = network.named_parameters()
        return [one for name, one in named if one.requires_grad and name.rpartition(".")[2] != "alpha"]

    def _derivative(self, value: Tensor, parameters: list[Tensor], **how: object) -> Tensor:
        """Derivative of each member's value by its own parameters, (members, parameters); members share none."""
        parts = torch.autograd.grad(value, parameters, materialize_grads=True, **how)
        return torch.cat([one.reshape(self.members, -1) for one in parts], dim=1)

    def _of_batch(self, mean: Tensor, parameters: list[Tensor]) -> Tensor:
        """Gradient norm and eigenvalue of a mean loss (members,), with a graph: (members, constraints)."""
        gradient = self._derivative(mean.sum(), parameters, create_graph=True)

        def product(vector: Tensor, again: bool) -> Tensor:
            how = {"grad_outputs": vector, "retain_graph": True, "create_graph": again}
            return self._derivative(gradient, parameters, **how)

        return self._values(gradient, product)

    def _of_split(self, network: nn.Module, parameters: list[Tensor], inside: Tensor) -> Tensor:
        """The same of the mean over some images of the training split, (members, n), without a graph."""
        counts = inside.sum(dim=1)
        order = inside.long().argsort(dim=1, descending=True, stable=True)[:, : max(1, counts.max())]

        def derivative(vector: Tensor | None = None, again: bool = False) -> Tensor:
            total = 0
            for index in order.split(AT_ONCE, dim=1):
                batch = self._source.take(index)
                with by_products():
                    losses = self.distill.per_input(network(batch.x), batch).view(self.members, -1)
                mean = (losses * inside.gather(1, index)).sum(dim=1) / counts.clamp(min=1)
                part = self._derivative(mean.sum(), parameters, create_graph=vector is not None)
                part = part if vector is None else self._derivative(part, parameters, grad_outputs=vector)
                total = total + part.detach()
            return total

        return self._values(derivative(), derivative)

    def _values(self, gradient: Tensor, product: Callable[[Tensor, bool], Tensor]) -> Tensor:
        """From a gradient, (members, parameters), and the product with the Hessian: (members, constraints)."""
        found = [torch.linalg.vector_norm(gradient, dim=1)]
        if self.options.eigenvalues:
            still, other = (gradient == 0).all(dim=1, keepdim=True), torch.arange(gradient.shape[1]).to(gradient).cos()
            vector = F.normalize(torch.where(still, other, gradient.detach()), dim=1)
            for _ in range(STEPS):
                vector = F.normalize(product(vector, False), dim=1)
            found.append((vector * product(vector, True)).sum(dim=1))
        return torch.stack(found, dim=1)

    @torch.enable_grad()
    def _over_split(self, network: nn.Module) -> Tensor:
        """Of all of the training split and of each group, in evaluation mode: (members, constraints, 1 + groups)."""
        a, parameters = self._source.a, self._parameters(network)
        some = [torch.ones_like(a, dtype=torch.bool), *(a == group for group in range(self.n_groups))]
        with in_mode(network):
            found = [self._of_split(network, parameters, inside).double() for inside in some]
        return torch.stack(found, dim=2)

    def log(self, **columns: Tensor) -> None:
        """The epoch's row, the two constraints in columns of their own."""
        groups, each = self.n_groups, columns.items()
        more = {f"eigenvalue_{name}": value[:, groups:] for name, value in each} if self.options.eigenvalues else {}
        super().log(**{name: value[:, :groups] for name, value in each}, **more)


@dataclass(frozen=True)
class EqualGradients(MitigationOptions):
    """Options of the full problem.

    Attributes:
        mu: Step of the multipliers; 0.001 is the paper's.
        eigenvalues: Constrain the eigenvalues too, not the gradient norms alone.
        clip: Largest gradient norm; None, the paper's, is unbounded.
        limit: A multiplier above this counts as diverged.
    """

    name = "equal_gradients"
    summary = "constrains each group's gradient norm and top Hessian eigenvalue to those of all inputs"
    source = "Tran et al., NeurIPS 2022, Eq. 7"
    privacy = ledger.STEPS["group multipliers"]
    objective = EqualGradientsObjective
    mu: float = 0.001
    eigenvalues: bool = True
    clip: float | None = None
    limit: float = 1000.0
