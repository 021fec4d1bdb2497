"""DeepReDuce: culling and thinning whole layers of ReLUs (Jha, Ghodsi, Garg, Reagen; ICML 2021).

A *configuration* removes (culls) all ReLUs of some stages and, if thinned, the second ReLU of every residual block of
those that stay. Which stages to cull is searched: a network with ReLUs in stage k only is trained for every k, and

    C_k = (accuracy with stage k only - accuracy with no ReLU) / (ReLU units of stage k)^w,   w = 0.07,

orders the stages. Candidates cull the least critical stage, the two least critical, and so on, each with and without
thinning; a budget takes the nearest of those on the Pareto front of validation accuracy against units, which seeds may
not share. Das et al. (ICML 2024) report eight *fixed* configurations, whose budgets are the shares they keep.

Every training distils from the original network, from its weights or, as in the code released with the paper, from
fresh ones; there it is also the whole training. *Reshaping* makes another network, which no mask can express.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from linfair import gates
from linfair.ensemble import Ensemble, member_of
from linfair.linearizers.configurations import PAPER_CONFIGURATIONS, Configuration, kept_counts, stages
from linfair.linearizers.finetuning import STARTS, starting
from linfair.linearizers.record import LinearizedModel, budget_units, check_budgets, record
from linfair.masks import RELUS, Mask, apply_mask, structure_hash
from linfair.mitigation import resolve
from linfair.training import Data, Distill, Schedule, TrainingDiverged, correctness, fit

_OWN = Schedule(epochs=200, batch_size=128, lr=0.1, momentum=0.9, weight_decay=5e-4, decay="cosine")
_LARGE = replace(_OWN, batch_size=512, nesterov=True)
_MLP = Schedule(epochs=100, optimizer="adamw", lr=1e-3, decay="cosine")
_CNN = Schedule(epochs=40, lr=0.02, weight_decay=5e-4, decay="cosine")
PROFILES = {
    "smoke": {"schedule": replace(_CNN, epochs=2)},
    "smoke, mlp": {"schedule": replace(_MLP, epochs=2)},
    "small": {"schedule": _CNN},
    "small, mlp": {"schedule": _MLP},
    "quick": {"schedule": Schedule(epochs=2, batch_size=128, lr=0.05, weight_decay=5e-4)},
    "thin": {"schedule": replace(_OWN, epochs=5, lr=0.05)},
    "cpu": {"schedule": replace(_OWN, epochs=20, lr=0.05, nesterov=True)},
    "fast": {"schedule": replace(_LARGE, epochs=40)},
    "paper": {"schedule": _LARGE},
}


@dataclass(frozen=True)
class DeepReDuce:
    """Options of DeepReDuce; training as its authors do.

    Attributes:
        configurations: Choose among these (`"1,4"`, `"1,4+thin"`) instead of searching.
        exponent: w of the criticality.
        temperature: T of the distillation.
        kd_weight: Share of the distillation loss; cross entropy has the rest.
        start: Where every training starts: `teacher`, the original's weights, or `fresh` ones, as released.
        finetuning: Fine-tune afterwards as SNL does; as released, nothing follows.
        mitigation: Name or options of a mitigation whose objective takes the place of the distillation loss.
        schedule: Training of every configuration.
    """

    profiles = PROFILES

    configurations: tuple[str, ...] | None = None
    exponent: float = 0.07
    temperature: float = 4.0
    kd_weight: float = 0.9
    start: str = "teacher"
    finetuning: bool = True
    mitigation: str | object | None = None
    schedule: Schedule = _OWN

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"start = {self.start!r} is not allowed; start is one of {', '.join(STARTS)}")
        resolve(self.mitigation)
        for text in self.configurations or ():
            Configuration.parse(text)
        if not self.temperature > 0 or not 0 <= self.kd_weight <= 1:
            got = f"temperature = {self.temperature}, kd_weight = {self.kd_weight}"
            raise ValueError(f"temperature must be positive and kd_weight lie in [0, 1], got {got}")

    def distill(self, teacher: nn.Module, data: Data) -> Distill:
        """The distillation loss of every training."""
        return Distill(teacher, data, temperature=self.temperature, ce=1 - self.kd_weight, kd=self.kd_weight)

    def own_training(self, budgets: int, stages: int) -> tuple[int, int]:
        """How many networks are trained, one a budget of a fixed list or those of the search, and how long each."""
        return budgets if self.configurations is not None else 3 * stages - 1, self.schedule.epochs


_RELEASED = {"temperature": 1.0, "kd_weight": 0.5, "start": "fresh", "finetuning": False}
RELEASED_DEEPREDUCE = DeepReDuce(PAPER_CONFIGURATIONS, schedule=replace(_LARGE, lr=1e-3), **_RELEASED)
"""DeepReDuce as the code released with the paper trains it."""


def deepreduce(
    teacher: nn.Module,
    data: Data,
    budgets: Sequence[float] | None,
    *,
    seeds: Sequence[int],
    options: DeepReDuce | None = None,
    progress: bool = True,
) -> list[LinearizedModel]:
    """Find the configuration nearest to each budget, trained with distillation; called like `linfair.linearizers.snl`.

    The nearest configuration may keep more than the budget, or fewer. None for the budgets takes every configuration of
    a fixed list. The records' history has a row for each trained configuration.

    Raises:
        ValueError: For wrong budgets, None of them without a fixed list, or a list that this network cannot have.
        TrainingDiverged: If a training without a mitigation does. One with a mitigation is a record that says so.
    """
    options = options or DeepReDuce()
    if budgets is None and options.configurations is None:
        raise ValueError("a search needs budgets; without them, give a fixed list of configurations")
    search = _Search(teacher, data, seeds, options, progress)
    if options.configurations is None:
        budgets, candidates = check_budgets(budgets), search.candidates()
        accuracies = [search.train(rank) for rank in zip(*candidates, strict=True)]
        choices = list(map(search.pareto, candidates, zip(*accuracies, strict=True)))
    else:
        counts = kept_counts(search.one, options.configurations)
        budgets = check_budgets([count / search.total for count in counts.values()] if budgets is None else budgets)
        choices = [list(counts)] * search.members
    records = []
    for budget in budgets:
        limit = budget_units(budget, search.total)
        chosen = [min(some, key=lambda one: (abs(search.count(one) - limit), search.count(one))) for some in choices]
        search.train(chosen)
        records.append(search.record(chosen, budget, limit))
    return records


class _Search:
    """Trains configurations, each once per member, and remembers what it trained."""

    def __init__(
        self, teacher: nn.Module, data: Data, seeds: Sequence[int], options: DeepReDuce, progress: bool
    ) -> None:
        self.single = not isinstance(teacher, Ensemble)
        source = data if self.single else data[0]
        self.gated = RELUS.fixed(RELUS.install(starting(teacher, options.start, seeds), source.input_shape))
        self.one, self.members = member_of(self.gated, 0), 1 if self.single else self.gated.members
        self.n, self.total = len(source.splits["train"]), gates.total_units(self.gated)
        self.teacher, self.data, self.seeds = teacher, data, tuple(seeds)
        self.options, self.progress = options, progress
        self.distill, self.mitigation = options.distill(teacher, data), resolve(options.mitigation)
        self.history: list[dict[str, object]] = []
        self.trained: dict[tuple[int, Configuration], tuple] = {}  # network, accuracy, rows, epoch in which it diverged

    def count(self, configuration: Configuration) -> int:
        return configuration.count(self.one)

    def train(self, chosen: Sequence[Configuration]) -> list[float]:
        """Train one configuration for each member, if they are not yet; each member's validation accuracy."""
        if not all(place in self.trained for place in enumerate(chosen)):
            masks = [Mask(one.units(self.one), structure_hash(self.gated)) for one in chosen]
            model = apply_mask(copy.deepcopy(self.gated), masks)
            rows, diverged = self._fit(model, chosen)
            accuracy = correctness(model, self.data, "val").mean(dim=1).tolist()
            about = {"configuration": [str(one) for one in chosen], "kept": [self.count(one) for one in chosen]}
            self.history.append(about | {"val_accuracy": accuracy})
            networks = [model] if self.single else model.networks()
            for member, (one, network) in enumerate(zip(chosen, networks, strict=True)):
                mine = [{k: v[member] if isinstance(v, list) else v for k, v in row.items()} for row in rows]
                self.trained[member, one] = network, accuracy[member], mine, diverged[member]
        return [self.trained[place][1] for place in enumerate(chosen)]

    def _fit(self, model: nn.Module, chosen: Sequence[Configuration]) -> tuple[list[dict], Sequence[int | None]]:
        mitigated, before = self.options.mitigation is not None, copy.deepcopy(model.state_dict())
        objective = self.mitigation.start(model, self.teacher, self.data, distill=self.distill)
        names = sorted({str(one) for one in chosen})
        label = f"deepreduce: {'culled ' + ' / '.join(names) if len(names) < 3 else 'candidates'}"
        label += f", {self.mitigation.name}" if mitigated else ""
        how = {"seeds": self.seeds, "stage": "masks", "label": label, "isolate": mitigated, "progress": self.progress}
        try:
            history = fit(model, self.data, objective, self.options.schedule, **how, **objective.hooks)
        except TrainingDiverged:
            if not (mitigated and self.single):
                raise
            model.load_state_dict(before)
            return [], [0]
        rows = objective.logged(history)
        return rows, rows[-1].get("diverged", [None] * self.members)

    def record(self, chosen: Sequence[Configuration], budget: float, limit: int) -> LinearizedModel:
        networks, _, logged, diverged = zip(*(self.trained[place] for place in enumerate(chosen)), strict=True)
        networks = [gates.freeze(copy.deepcopy(network)) for network in networks]
        epochs = [self.options.schedule.epochs] * len(networks)
        steps = [self.options.schedule.steps(self.n) * done for done in epochs]
        made = record("deepreduce", budget, limit, networks, epochs, self.history, single=self.single, steps=steps)
        epochwise = zip(*logged, strict=False)
        rows = [{k: [row[k] for row in at] if k != "epoch" else v for k, v in at[0].items()} for at in epochwise]
        fate = {"finetuning": rows, "diverged": diverged, "mitigation": self.options.mitigation and self.mitigation}
        return replace(made, configurations=tuple(map(str, chosen)), **fate)

    def order(self) -> list[list[int]]:
        """Stages from least to most critical, for each member."""
        numbers, critical = range(1, len(stages(self.one)) + 1), {}
        none = self.train([Configuration(tuple(numbers))] * self.members)
        for number in numbers:
            only = Configuration(tuple(other for other in numbers if other != number))
            size = self.count(only) ** self.options.exponent
            critical[number] = [(a - b) / size for a, b in zip(self.train([only] * self.members), none, strict=True)]
        self.history.append({"criticality": critical})
        return [sorted(numbers, key=lambda number: critical[number][member]) for member in range(self.members)]

    def candidates(self) -> list[list[Configuration]]:
        """For each member: nothing culled, the least critical stage culled, ... , each also thinned."""
        each = [(culled, thinned) for culled in range(len(stages(self.one))) for thinned in (False, True)][1:]
        return [[Configuration(tuple(sorted(order[:n])), thinned) for n, thinned in each] for order in self.order()]

    def pareto(self, candidates: Sequence[Configuration], accuracies: Sequence[float]) -> list[Configuration]:
        """Candidates that no other beats in both units (fewer) and validation accuracy (higher)."""
        points = [(self.count(one), -accuracy, one) for one, accuracy in zip(candidates, accuracies, strict=True)]
        return [
            one
            for units, cost, one in points
            if not any((u <= units and c <= cost) and (u, c) != (units, cost) for u, c, _ in points)
        ]
