"""The form all mitigations have: an objective for each batch and a hook after each epoch of the one `fit`.

Without a mitigation the objective is the paper's distillation loss, averaged over the batch,

    L^KD(B) = 1/|B| sum_{i in B} l_i,    l_i = CE_i + KD_i    (T = 4, KD times T^2).

The option `kd` of every mitigation weighs KD. Most need its means by group, L_a(B) = 1/|B_a| sum_{i in B_a} l_i; a
group absent from a batch has no mean and takes no part in it.
"""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair.data import GroupedData, ensure
from linfair.ledger import STEPS, UNDESCRIBED
from linfair.rules.options import Clipped
from linfair.schedule import Gradient
from linfair.training import Batch, Batches, Data, Distill, Failure, Source, predict


def means_by_group(values: Tensor, groups: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Mean of a quantity over each group of a batch, for each member: 0 for a group without inputs; and counts, int64.

    `values` are one number for each input, (members, n), `groups` int64 in the same shape; both results (members,
    n_groups).

    >>> means_by_group(torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([[0, 0, 2]]), 3)
    (tensor([[2., 0., 5.]]), tensor([[2, 0, 1]]))
    """
    belongs = F.one_hot(groups, n_groups)
    counts = belongs.sum(dim=1)
    return (values.unsqueeze(-1) * belongs.to(values.dtype)).sum(dim=1) / counts.clamp(min=1), counts


class MitigatedObjective:
    """An objective with its hooks, for one stage of training a student, or an ensemble on one data set for each member.

    Of its `options`, `clip` bounds each member's gradient, `kd` weighs KD, `kd_over_classes` divides it by the classes;
    `distill` is the stage's loss. `carried` names the tensors (members, groups), 0 at first, that one epoch hands to
    the next, `rows` has what the mitigation logs for each epoch; `gradient` and `batches` are as in `fit`.
    """

    gradient: Gradient | None = None
    batches: Batches | None = None
    carried: tuple[str, ...] = ()

    def __init__(
        self, model: nn.Module, teacher: nn.Module, data: Data, *, options: object, distill: Distill | None = None
    ) -> None:
        self.model, self.data, self.options = model, data, options
        clip = getattr(options, "clip", None)
        self.gradient = None if clip is None else Clipped(clip)
        self.distill = distill or Distill(teacher, data)
        sets = [data] if isinstance(data, GroupedData) else list(data)
        sizes = sorted({len(one.group_names) for one in sets})
        ensure(len(sizes) == 1, f"data sets of an ensemble must have equally many groups, got {sizes}")
        divisor = sets[0].classes if getattr(options, "kd_over_classes", False) else 1
        if (kd := self.distill.kd * getattr(options, "kd", 1.0) / divisor) != self.distill.kd:
            self.distill = replace(self.distill, kd=kd)
        self.members, self.n_groups = len(sets), sizes[0]
        self.rows: list[dict[str, object]] = []
        self._source = Source(data, "train", model)
        self._absent = self.zeros(dtype=torch.int64)
        self.trained_on = F.one_hot(self._source.a, self.n_groups).any(dim=1)  # the groups that have training images
        for name in self.carried:
            setattr(self, name, self.zeros())

    @property
    def repeats(self) -> bool:
        """See `linfair.replay.repeats`; a class with a loss of its own states it."""
        return type(self).__call__ is MitigatedObjective.__call__

    @property
    def hooks(self) -> dict[str, object]:
        """What `fit` is called with beside the objective."""
        return {"check": self.after_epoch, "gradient": self.gradient, "batches": self.batches, "parts": (self,)}

    def logged(self, history: list[dict[str, object]]) -> list[dict[str, object]]:
        """The rows of `fit` with what was logged in each epoch."""
        return [row | logged for row, logged in zip(history, self.rows, strict=True)]

    def zeros(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """One number for each member and group, (members, groups)."""
        return torch.zeros(self.members, self.n_groups, dtype=dtype, device=self._source.y.device)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of a batch, one number for each member."""
        return self.distill(model, batch)

    def batch_losses(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss of a batch (members,), means of its groups and their counts, (members, groups) each."""
        losses = self.distill.per_input(logits, batch)
        means, counts = self.means(losses, batch.a)
        return losses.mean(dim=-1).view(self.members), means, counts

    def means(self, values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """`means_by_group` of a batch's values, which lack the members axis for a plain network."""
        return means_by_group(values.view(self.members, -1), groups.view(self.members, -1), self.n_groups)

    def note_absent(self, present: Tensor, batch: Batch) -> None:
        """Count the groups that took no part in a batch, (members, groups), for the epoch's row; once in a step."""
        if not batch.again:
            self._absent += ~present

    def log(self, **columns: Tensor) -> None:
        """Add the epoch's row: each column a list (members) of lists (groups)."""
        self.rows.append({name: value.tolist() for name, value in (columns | {"absent": self._absent}).items()})
        self._absent.zero_()

    @torch.no_grad()
    def training_losses(self) -> tuple[Tensor, Tensor]:
        """Mean loss over the training split (members,) and in its groups (members, groups).

        In evaluation mode and the training's precision, images where they are (no shifts), averaged in float64.
        """
        source = self._source
        y, a = (value[0] if source.single else value for value in (source.y, source.a))
        everything = torch.arange(source.n, device=y.device).expand(y.shape)
        batch = Batch(y.new_empty(0), y, a, everything, augmented=False)
        logits = predict(self.model, self.data, "train", measured=False)
        losses = self.distill.per_input(logits, batch).view(self.members, -1).double()
        return losses.mean(dim=1), self.means(losses, source.a)[0]

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What `linfair.resume` keeps for a training that goes on later."""
        return {name: getattr(self, name) for name in self.carried}, {"rows": self.rows}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        """Take what was kept."""
        for name in self.carried:
            setattr(self, name, tensors[name].to(self._source.y.device))
        self.rows = list(notes["rows"])

    def after_epoch(self, epoch: int) -> dict[int, Failure]:
        """Update and log what changes once an epoch; say which members diverged."""
        self.rows.append({})
        return {}


class Multiplied(MitigatedObjective):
    """An objective with a multiplier for each group, never below 0, that grows with the epoch's `violations()`."""

    carried = ("multipliers",)

    def penalty(self, violations: Tensor) -> Tensor:
        """Sum of multipliers times violations, (members,)."""
        return (self.multipliers.to(violations.dtype) * violations).sum(dim=1)

    def after_epoch(self, epoch: int) -> dict[int, Failure]:
        """One step of the multipliers, logged; members of which one is not finite or above the limit have diverged."""
        options, violations = self.options, self.violations()
        self.multipliers = (self.multipliers + options.mu * violations).clamp(min=0)
        self.log(multipliers=self.multipliers, violations=violations)
        tighter = 5.0 if options.clip is None else options.clip / 2
        worst = self.multipliers.nan_to_num(nan=torch.inf).amax(dim=1).tolist()
        said = f"a multiplier of {options.name} is {{:.3g}}, above its limit {options.limit:g},".format
        advice = f"lower mu ({options.mu:g}) or bound the gradients (clip={tighter:g})"
        return {member: Failure(said(one), advice) for member, one in enumerate(worst) if not one <= options.limit}


@dataclass(frozen=True)
class MitigationOptions:
    """Base of a mitigation's options, a frozen dataclass: `objective` is the class of what `start` returns.

    Attributes:
        kd: Weight of KD beside CE; 0 is plain cross entropy.
    """

    objective = MitigatedObjective
    taught = False  #: Whether it compares with the original network beyond KD, and so cannot train that one
    privacy = UNDESCRIBED  #: What it does to a privacy guarantee, one of `linfair.ledger.STEPS`

    kd: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.kd < torch.inf:
            raise ValueError(f"kd is the weight of KD, 0 (plain cross entropy) or above, got {self.kd}")
        for name in ("mu", "step"):
            if not (value := getattr(self, name, 0)) >= 0:
                own = getattr(type(self), name)
                raise ValueError(f"{name} must not be negative, got {value}; by default it is {own}")

    def start(self, model: nn.Module, teacher: nn.Module, data: Data, **stage: object) -> MitigatedObjective:
        """The objective of one stage of training the model; `stage` may hold its own `distill`."""
        return self.objective(model, teacher, data, options=self, **stage)


PLAIN = "plain"  #: The arm of plain fine-tuning, in rows, commands, reports and pages


@dataclass(frozen=True)
class Plain(MitigationOptions):
    """No mitigation: fine-tuning on L^KD = CE + KD, as SNL and the paper's baseline do; with `kd` 0 on CE alone."""

    name = PLAIN
    summary = "CE + KD, no mitigation"
    source = "Das et al., ICML 2024 (the baseline)"
    privacy = STEPS["fine-tuning"]


@dataclass(frozen=True)
class KDOverC(MitigationOptions):
    """Fine-tuning on CE + KD / C, with C classes: what is left of the released penalty, which has no gradient."""

    name = "kd_over_c"
    summary = "weighs KD by 1 / classes and knows no groups: what the released mitigation trains"
    source = "code released with Das et al., ICML 2024; a control"
    privacy = STEPS["fine-tuning"]
    kd_over_classes = True
