"""Iterative magnitude pruning: prune a little, retrain, prune again (Han, Pool, Tran, Dally; NeurIPS 2015).

The kept share falls from 1 by a factor 1 - rate in each round, and stops at every budget on its way: one path serves
all budgets, each takes its network when its mask is set, and the retraining that follows is the record's fine-tuning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from linfair import weights
from linfair.ensemble import Ensemble, member_of
from linfair.linearizers.oneshot import top_units
from linfair.linearizers.record import LinearizedModel, budget_units, check_budgets, record
from linfair.masks import Reduction
from linfair.resume import weights_of, with_weights
from linfair.training import Data, Distill, Schedule, fit

_CNN = Schedule(epochs=1000, lr=1e-2, momentum=0.9, weight_decay=1e-4)
_MLP = Schedule(epochs=1000, optimizer="adamw", lr=1e-3)
PROFILES = {
    "smoke": {"schedule": _CNN, "epochs": 1, "rate": 0.5},
    "smoke, mlp": {"schedule": _MLP, "epochs": 1, "rate": 0.5},
    "small": {"schedule": _CNN, "epochs": 4},
    "small, mlp": {"schedule": _MLP, "epochs": 10},
    "quick": {"schedule": _CNN, "epochs": 1, "rate": 0.5},
    "thin": {"schedule": _CNN, "epochs": 1},
    "cpu": {"schedule": _CNN, "epochs": 1},
    "fast": {"schedule": _CNN, "epochs": 2},
}


@dataclass(frozen=True)
class Iterative:
    """Options of iterative magnitude pruning.

    Attributes:
        rate: Share of the weights left that a round removes.
        epochs: Epochs of retraining between two rounds.
        everything: Prune biases, batch norm and all other parameters too, not only the weights of layers.
        kd: Weight of KD (T = 4) beside CE in the retraining between rounds; 0 is CE alone, as in an arm with `kd` 0.
        schedule: The retraining between rounds; its epochs are the most that are trained.
    """

    profiles = PROFILES

    rate: float = 0.2
    epochs: int = 10
    everything: bool = False
    kd: float = 1.0
    schedule: Schedule = replace(_CNN, lr=1e-3)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.epochs < 1 or not 0 <= self.kd < torch.inf:
            allowed = "rate is a share above 0 and below 1, epochs at least 1, kd a weight of at least 0"
            raise ValueError(f"{allowed}; got rate = {self.rate}, epochs = {self.epochs}, kd = {self.kd}")

    @property
    def reduction(self) -> Reduction:
        """What is removed."""
        return weights.PARAMETERS if self.everything else weights.WEIGHTS

    def distill(self, teacher: nn.Module, data: Data) -> Distill:
        """The loss of the retraining between rounds."""
        return Distill(teacher, data, kd=self.kd)

    def rounds(self, budgets: Sequence[float], total: float = torch.inf) -> list[float]:
        """The share kept after each round; of so many weights in all, less than half a one is none."""
        shares, share = [], 1.0
        for budget in budgets:
            while share > budget:
                share *= 1 - self.rate
                share = budget if share < max(budget * (1 + 1e-9), 0.5 / total) else share
                shares.append(share)
        return shares


def prune_iterative(
    teacher: nn.Module,
    data: Data,
    budgets: Sequence[float],
    *,
    seeds: Sequence[int],
    options: Iterative | None = None,
    progress: bool = True,
) -> list[LinearizedModel]:
    """Follow one path of rounds and take a network at every budget; called like `linfair.linearizers.snl`."""
    options, budgets = options or Iterative(), check_budgets(budgets)
    path = _Path(teacher, data, budgets, options)
    if (needed := options.epochs * (len(path.shares) - 1)) > options.schedule.epochs:
        allowed = f"the schedule has {options.schedule.epochs} epochs"
        raise ValueError(f"{len(path.shares)} rounds need {needed} epochs, {allowed}: raise rate, or take fewer epochs")
    history = []
    if path.left():
        how = {"seeds": seeds, "stage": "masks", "label": "prune_iterative: rounds", "progress": progress}
        how |= {"after_epoch": path.after_epoch, "parts": (path,)}
        history = fit(path.model, data, options.distill(teacher, data), options.schedule, **how)
    about, records = {"single": not isinstance(path.model, Ensemble), "reduction": options.reduction}, []
    for budget, (networks, epochs) in zip(budgets, path.taken, strict=True):
        steps = [epochs * path.steps] * len(networks)
        limit, trained = budget_units(budget, path.total), [epochs] * len(networks)
        records.append(record("prune_iterative", budget, limit, networks, trained, history, steps=steps, **about))
    return records


class _Path:
    """The network on its way, and the networks that budgets took."""

    def __init__(self, teacher: nn.Module, data: Data, budgets: tuple[float, ...], options: Iterative) -> None:
        source = data[0] if isinstance(teacher, Ensemble) else data
        self.model = options.reduction.install(teacher, source.input_shape)
        self.total = options.reduction.total(self.model)
        self.budgets, self.options, self.shares = budgets, options, options.rounds(budgets, self.total)
        self.steps = options.schedule.steps(len(source.splits["train"]))
        self.done = 0
        self.taken: list[tuple[list[nn.Module], int]] = [(self.networks(), 0)] if budgets[0] == 1 else []
        if self.left():
            self.prune(0)

    def networks(self) -> list[nn.Module]:
        return [member_of(self.model, member) for member in range(getattr(self.model, "members", 1))]

    def left(self) -> bool:
        return self.done < len(self.shares)

    def after_epoch(self, epoch: int) -> bool:
        if (epoch + 1) % self.options.epochs == 0:
            self.prune(epoch + 1)
        return not self.left()

    @torch.no_grad()
    def prune(self, epochs: int) -> None:
        """One round; the networks are taken while a budget asks for this share."""
        share, members = self.shares[self.done], range(getattr(self.model, "members", 1))
        count, masks = budget_units(share, self.total), self.options.reduction.masks(self.model)
        found = weights.switches(self.model)
        for member in members:
            own = {site: w[member] if isinstance(self.model, Ensemble) else w for site, (_, w) in found.items()}
            kept = masks[member].units
            left_out = {site: w.abs().cpu().masked_fill(~kept[site], -torch.inf) for site, w in own.items()}
            masks[member] = replace(masks[member], units=top_units(left_out, count, as_torch=True))
        self.options.reduction.apply(self.model, masks)
        self.done += 1
        if share in self.budgets:
            self.taken.append((self.networks(), epochs))

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        named = {f"{n}/{m}": one for n, (each, _) in enumerate(self.taken) for m, one in enumerate(each)}
        return weights_of(named), {"done": self.done, "epochs": [epochs for _, epochs in self.taken]}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        self.done, members = notes["done"], range(getattr(self.model, "members", 1))
        self.taken = [
            ([with_weights(member_of(self.model, m), tensors, f"{n}/{m}") for m in members], epochs)
            for n, epochs in enumerate(notes["epochs"])
        ]
