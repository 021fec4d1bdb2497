"""Excess drop: no group may lose much more against the *dense* network than all inputs together.

With err the 0/1 error over the training set S, h the student and h* the original (dense) network, the excess drop of
group a is

    psi_a = [err_a(h) - err_a(h*)] - [err(h) - err(h*)] - tolerance    <= 0,

one-sided: a group that loses less is left alone. The error has no gradient, so the dual takes the true rate and the
primal a surrogate, the cross entropy (Cotter et al., 2019; for pruning: Hashemizadeh et al., "Balancing Act:
Constraining Disparate Impact in Sparse Models", arXiv 2310.20673):

    per batch      L^KD(B) + sum_a lambda_a (CE_a(B) - CE(B))     (the dense network's part is constant)
    per epoch      lambda_a <- max(0, lambda_a + mu psi_a),       in evaluation mode.

A student that fits its training set has nothing to repair there: see `violations` in the log.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from linfair.ledger import STEPS
from linfair.mitigation.objective import MitigationOptions, Multiplied
from linfair.training import Batch, Data, correctness, cross_entropy


class ExcessDropObjective(Multiplied):
    """L^KD + the surrogate penalty."""

    repeats = True

    def __init__(self, model: nn.Module, teacher: nn.Module, data: Data, **stage: object) -> None:
        super().__init__(model, teacher, data, **stage)
        self.dense = self._errors(teacher)

    def _errors(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Error over the training split (members, 1) and its groups, over the data set's fixed views; their counts."""
        wrong = 1 - correctness(model, self.data, "train").double()
        return wrong.mean(dim=1, keepdim=True), *self.means(wrong, self._source.a)

    def violations(self) -> Tensor:
        """Psi of each group over the training split, (members, groups)."""
        error, by_group, counts = self._errors(self.model)
        return (by_group - self.dense[1] - (error - self.dense[0]) - self.options.tolerance) * (counts > 0)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of a batch and its surrogate penalty, one number for each member."""
        logits = model(batch.x)
        wrong = cross_entropy(logits, batch.y).view(self.members, -1)
        means, counts = self.means(wrong, batch.a)
        present = counts > 0
        self.note_absent(present, batch)
        penalty = self.penalty((means - wrong.mean(dim=1, keepdim=True)) * present)
        return self.distill.per_input(logits, batch).mean(dim=-1).view(self.members) + penalty


@dataclass(frozen=True)
class ExcessDrop(MitigationOptions):
    """Options of the excess-drop constraint.

    Attributes:
        mu: Step of the multipliers, per epoch and unit of error rate.
        tolerance: Excess drop a group is allowed, as a share (0.01 is one point).
        clip: Largest gradient norm; None is unbounded.
        limit: A multiplier above this counts as diverged.
    """

    name = "excess_drop"
    summary = "constrains each group's drop of accuracy against the dense network, one-sided"
    source = "Hashemizadeh et al., Balancing Act, arXiv 2310.20673, carried over from pruning"
    privacy = STEPS["group multipliers"]
    objective = ExcessDropObjective
    taught = True
    mu: float = 0.1
    tolerance: float = 0.0
    clip: float | None = None
    limit: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tolerance <= 1:
            raise ValueError(f"tolerance is a share in [0, 1] (0.01 is a point), got {self.tolerance}")
