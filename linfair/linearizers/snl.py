"""SNL, Selective Network Linearization (Cho, Joshi, Reagen, Garg, Hegde; ICML 2022), as used by Das et al. (ICML 2024).

Weights and alphas are trained together on

    CE + KD(T = 4) + lambda * sum |alpha|,

with lambda growing by 10 % in every epoch (from the sixth on) in which the number of kept units, alpha > 0.01, did not
fall below its lowest. Nothing before a budget is met depends on that budget, so one path serves all budgets: each
takes its snapshot, alphas binarised and frozen, at the end of the first epoch whose count is within it, which may
undershoot. *Fair selection*: the objective of a `mitigation` takes the place of CE + KD while the mask is selected.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble, member_of
from linfair.linearizers.oneshot import top_units
from linfair.linearizers.record import TOLERANCE, BudgetOutOfReach, LinearizedModel, budget_units, check_budgets, record
from linfair.masks import RELUS, apply_mask, masks_of
from linfair.mitigation import resolve
from linfair.replay import repeats
from linfair.resume import weights_of, with_weights
from linfair.training import Batch, Data, Schedule, fit

Snapshot = tuple[nn.Module, int, int]  #: A network with its mask, and the epochs and steps it had trained
_SMALL = Schedule(epochs=1000, optimizer="adam", lr=1e-3)
_SHORT = {"growth": 1.4, "schedule": replace(_SMALL, epochs=500, alpha_lr=4e-3)}
_STEPWISE = {"lasso": 3e-5, "growth": 1.5, "warmup": 0, "pace": 0.3, "check_every": 1}
_STEPWISE |= {"schedule": replace(_SMALL, epochs=60, alpha_lr=4e-3)}
"""Through thin networks on real images: lambda starts so small that the units do not fall together; the count is
checked after every step, so that each budget has its own point of the path."""
_HASTY = {"growth": 1.3, "warmup": 0, "schedule": replace(_SMALL, alpha_lr=6e-3)}
PROFILES = {
    "smoke": {"lasso": 1e-4} | _HASTY,
    "smoke, mlp": {"lasso": 1e-3} | _HASTY,
    "small": {"lasso": 1e-4, "growth": 1.2, "schedule": replace(_SMALL, alpha_lr=5e-3)},
    "small, mlp": {"lasso": 1e-3, "schedule": replace(_SMALL, alpha_lr=3e-3)},
    "quick": _STEPWISE | {"growth": 2.0, "pace": 0.4, "schedule": replace(_STEPWISE["schedule"], alpha_lr=6e-3)},
    "thin": _STEPWISE,
    "cpu": _STEPWISE,
    "fast": _SHORT,
}


@dataclass(frozen=True)
class SNL:
    """Options of SNL; the defaults are the paper's.

    Attributes:
        lasso: First lambda.
        growth: Factor on lambda.
        warmup: Epochs before lambda may grow.
        threshold: A unit is kept while its alpha is above this.
        patience: Give up after so many epochs without a new lowest count; None is twice the epochs in which Adam can
            carry an alpha from 1 to the threshold, at least 50.
        check_every: Ours. Check the count after every so many steps, too; None is at the end of an epoch, as released.
        pace: Ours. Lambda grows after an epoch in which the count fell by less than this share of its lowest, too.
        exact: Ours. Keep exactly the budget, the units with the largest alphas at the last check at which they all were
            above the threshold and at most 5 % more were (or one unit; 16 where every step is checked). Where the count
            jumps over that range, alphas are noise around 0 and the budget is refused: set `check_every`.
        rewind: Take only the mask from the path: the weights go back to the teacher's, and the record says 0 epochs.
        mitigation: Name or options of a mitigation used while the mask is selected.
        schedule: Training of weights and alphas; its epochs are the most that are tried.
    """

    profiles: ClassVar[Mapping[str, Mapping[str, object]]] = PROFILES

    lasso: float = 1e-5
    growth: float = 1.1
    warmup: int = 5
    threshold: float = 1e-2
    patience: int | None = None
    check_every: int | None = None
    pace: float = 0.0
    exact: bool = False
    rewind: bool = False
    mitigation: str | object | None = None
    schedule: Schedule = replace(_SMALL, epochs=2000)

    def __post_init__(self) -> None:
        if self.check_every is not None and self.check_every < 1:
            raise ValueError(f"check_every is a number of steps >= 1, or None (ends of epochs): {self.check_every}")
        if not 0 <= self.pace < 1:
            raise ValueError(f"pace is a share in [0, 1) of the kept units that an epoch removes, got {self.pace}")

    def own_training(self, budgets: int, stages: int) -> tuple[int, int]:
        """How many networks the path trains, one, and for about how many epochs, 300 at the paper's growth."""
        return 1, math.ceil(300 * math.log(1.1) / math.log(self.growth))


def snl(
    teacher: nn.Module,
    data: Data,
    budgets: Sequence[float],
    *,
    seeds: Sequence[int],
    options: SNL | None = None,
    progress: bool = True,
) -> list[LinearizedModel]:
    """Follow one mask path and take a snapshot for every budget: a record each, before fine-tuning.

    The teacher, an ensemble or not, has no gates and is not changed; data sets and `seeds` are one for each member,
    budgets fractions of units to keep, descending; the paper's options by default.

    Raises:
        BudgetOutOfReach: If the count stops falling before the last budget, or jumps over one that must be met exactly.
        TrainingDiverged: If the loss or a multiplier of the mitigation does; names the seeds.
    """
    options, budgets = options or SNL(), check_budgets(budgets)
    path = _Path(teacher, data, budgets, seeds, options)
    how = path.mitigated.hooks | {"after_epoch": path.after_epoch, "parts": (path, path.mitigated)}
    how |= {"after_step": path.after_step if options.check_every else None, "progress": progress}
    how |= {"seeds": seeds, "stage": "masks", "label": "snl: mask path"}
    history = path.finished(fit(path.model, data, path, options.schedule, **how))
    single, records = not isinstance(path.model, Ensemble), []
    for number, (budget, limit) in enumerate(zip(budgets, path.limits, strict=True)):
        networks, epochs, steps = zip(*(taken[number] for taken in path.taken), strict=True)
        records.append(record("snl", budget, limit, networks, epochs, history, single=single, steps=steps))
    return records


class _Path:
    """The state of one mask path: a lambda, a lowest count and the snapshots of each member."""

    def __init__(
        self, teacher: nn.Module, data: Data, budgets: tuple[float, ...], seeds: Sequence[int], options: SNL
    ) -> None:
        source = data[0] if isinstance(teacher, Ensemble) else data
        self.model = RELUS.install(teacher, source.input_shape)
        self.original = copy.deepcopy(self.model) if options.rewind else None
        self.options, self.seeds = options, tuple(seeds)
        members, total = len(seeds), gates.total_units(self.model)
        self.limits = [budget_units(budget, total) for budget in budgets]
        self.lasso = torch.full((members,), options.lasso, device=source.splits["train"].y.device)
        self.lowest, self.stale = [total] * members, [0] * members
        self.taken: list[list[Snapshot]] = [[] for _ in seeds]
        self.held: dict[int, Snapshot] = {}
        self.last = [(0, total)] * members  # step and count of the latest check
        self.counts: list[list[int]] = []
        self.mitigated = resolve(options.mitigation).start(self.model, teacher, data)
        self.steps = options.schedule.steps(len(source.splits["train"]))
        fall = (1 - options.threshold) / ((options.schedule.alpha_lr or options.schedule.lr) * self.steps)
        self.patience = options.patience or max(50, math.ceil(2 * fall))

    @property
    def repeats(self) -> bool:
        return repeats(self.mitigated)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        l1 = sum(alpha.abs().reshape(len(alpha), -1).sum(1) for alpha in gates.alphas(model).values())
        return self.mitigated(model, batch) + self.lasso * l1

    def after_step(self, step: int) -> None:
        if step % self.options.check_every == 0 and step % self.steps:
            self.check(step)

    def after_epoch(self, epoch: int) -> bool:
        self.counts.append(counts := self.check((epoch + 1) * self.steps))
        missing = self.missing()
        for member, (count, lowest) in enumerate(zip(counts, self.lowest, strict=True)):
            self.stale[member] = 0 if count < lowest else self.stale[member] + 1
            slow = count >= (1 - self.options.pace) * lowest
            if member in missing and slow and epoch >= self.options.warmup:
                self.lasso[member] *= self.options.growth
        self.lowest = list(map(min, counts, self.lowest))
        if any(self.stale[member] >= self.patience for member in missing):
            self._give_up(missing, f"no unit left in the last {self.patience} epochs (epoch {epoch + 1})")
        return not missing

    def missing(self) -> list[int]:
        """The members that have not met their last budget."""
        return [member for member, taken in enumerate(self.taken) if len(taken) < len(self.limits)]

    def check(self, step: int) -> list[int]:
        """Count each member's units and take the masks that are due."""
        spare = 16 if self.options.check_every == 1 else 1
        counts = gates.kept_units(self.model, threshold=self.options.threshold).tolist()
        for member, count in enumerate(counts):
            taken = self.taken[member]
            while len(taken) < len(self.limits):
                limit = self.limits[len(taken)]
                if self.options.exact and 0 <= count - limit <= max(TOLERANCE * limit, spare):
                    self.held[member] = self._snapshot(member, limit, step)
                if count > limit:
                    break
                if self.options.exact and member not in self.held:
                    self._refuse(member, limit, step, count)
                taken.append(self.held.pop(member, None) or self._snapshot(member, limit, step))
            self.last[member] = step, count
        return counts

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        known = {f"{m}/{n}": one for m, each in enumerate(self.taken) for n, one in enumerate(each)}
        known |= {f"{m}/held": one for m, one in self.held.items()}
        notes = {"lowest": self.lowest, "stale": self.stale, "last": self.last, "counts": self.counts}
        notes["trained"] = {name: (epochs, steps) for name, (_, epochs, steps) in known.items()}
        return weights_of({name: one[0] for name, one in known.items()}) | {"lasso": self.lasso}, notes

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        self.lasso.copy_(tensors["lasso"])
        self.lowest, self.stale, self.counts = notes["lowest"], notes["stale"], notes["counts"]
        self.last = [tuple(one) for one in notes["last"]]
        for name, (epochs, steps) in notes["trained"].items():
            member, _, number = name.partition("/")
            network = gates.freeze(with_weights(member_of(self.model, int(member)), tensors, name))
            if number == "held":
                self.held[int(member)] = network, epochs, steps
            else:
                self.taken[int(member)].append((network, epochs, steps))

    def finished(self, history: list[dict[str, object]]) -> list[dict[str, object]]:
        """The rows of the training with the counts, if every budget was met."""
        if missing := self.missing():
            self._give_up(missing, f"all {self.options.schedule.epochs} epochs were used")
        each = zip(history, self.counts, self.mitigated.rows, strict=True)
        return [row | logged | {"kept": counts} for row, counts, logged in each]

    def _snapshot(self, member: int, limit: int, step: int) -> Snapshot:
        network = member_of(self.model, member)
        if self.options.exact:
            units = top_units({site: gate.alpha.detach() for site, gate in gates.sites(network).items()}, limit)
            gates.set_alphas(network, lambda site, alpha: units[site].to(alpha).unsqueeze(0))
        network = gates.binarise(network, threshold=self.options.threshold)
        if self.original is None:
            return network, math.ceil(step / self.steps), step
        return apply_mask(member_of(self.original, member), masks_of(network)), 0, 0

    def _refuse(self, member: int, limit: int, step: int, count: int) -> None:
        before, was = self.last[member]
        alphas = torch.cat([alpha[member].flatten() for alpha in gates.alphas(self.model).values()])
        smallest = alphas.topk(limit).values[-1].item() if limit else math.nan
        finer = "Lower lasso or alpha_lr" if step - before == 1 else "Set check_every=1, lower lasso or alpha_lr"
        text = f"snl: exact cannot keep {limit} units for seed {self.seeds[member]}: the count fell from {was} to "
        text += f"{count} in {step - before} steps (step {step}), and the last unit to keep has alpha {smallest:.3g} "
        text += f"<= {self.options.threshold:g}, which is noise around 0. {finer}, or take exact=False"
        raise BudgetOutOfReach(text)

    def _give_up(self, missing: list[int], why: str) -> None:
        member, advice = missing[0], "Raise lasso, alpha_lr or epochs, or drop the budget"
        limit, threshold = self.limits[len(self.taken[member])], f"the threshold ({self.options.threshold:g})"
        if (rate := self.options.schedule.alpha_lr or self.options.schedule.lr) >= self.options.threshold:
            advice = f"Lower alpha_lr ({rate:g}) below {threshold}: alphas oscillate by about alpha_lr"
        text = f"snl: {limit} units are out of reach for seeds {[self.seeds[m] for m in missing]}: {why}; the lowest "
        text += f"count is {self.lowest[member]} at lambda {self.lasso[member].item():.3g}. {advice}"
        raise BudgetOutOfReach(text)
