"""DeepReDuce: culling and thinning whole layers of ReLUs (Jha, Ghodsi, Garg, Reagen; ICML 2021).

A *configuration* removes (culls) all ReLUs of some stages and, if thinned, every second ReLU layer of those that stay:
the second ReLU of every residual block. Which stages to cull is searched: a network with ReLUs in stage k only is
trained for every k, and its criticality

    C_k = (accuracy with stage k only - accuracy with no ReLU) / (ReLU units of stage k)^w,   w = 0.07,

orders the stages. The candidates cull the least critical stage, the two least critical, and so on, each with and
without thinning; those on the Pareto front of validation accuracy against units are kept, and a budget takes the
nearest of them. Every training distils from the original network, from its weights.

DeepReDuce's third step, *reshaping* (fewer channels, smaller images), makes another network, which no mask can express:
it is out of scope. ResNet18 at 32x32 therefore ends at 16,384 units, 3.3 %.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble, map_networks
from linfair.linearizers.record import LinearizedModel, budget_units, check_budgets, record
from linfair.linearizers.stages import stages
from linfair.training import Data, Distill, Schedule, correctness, fit


@dataclass(frozen=True, order=True)
class Configuration:
    """Which stages are culled (numbered from 1, as in the paper) and whether the rest is thinned.

    >>> str(Configuration.parse("1,4+thin"))
    '1,4+thin'
    """

    culled: tuple[int, ...]
    thinned: bool = False

    @classmethod
    def parse(cls, text: str) -> "Configuration":
        """Read `1,4` or `1,4+thin`; an empty list of stages culls none.

        Raises:
            ValueError: If the text is no configuration.
        """
        found = re.fullmatch(r"([1-9]\d*(?:,[1-9]\d*)*)?(\+thin)?", text.replace(" ", ""))
        if not found:
            raise ValueError(f"a DeepReDuce configuration reads '1,4' or '1,4+thin' (stages from 1), got {text!r}")
        numbers = found[1].split(",") if found[1] else []
        return cls(tuple(sorted({int(number) for number in numbers})), bool(found[2]))

    def __str__(self) -> str:
        return ",".join(map(str, self.culled)) + "+thin" * self.thinned

    def units(self, model: nn.Module) -> dict[str, Tensor]:
        """The kept units of one network, a boolean tensor per site.

        Raises:
            ValueError: If the network has no such stage.
        """
        groups = stages(model)
        if any(number > len(groups) for number in self.culled):
            raise ValueError(f"this network has {len(groups)} stages, configuration {self} culls another one")
        found = gates.sites(model)
        kept = {}
        for number, group in enumerate(groups, start=1):
            for position, site in enumerate(group):
                stays = number not in self.culled and not (self.thinned and position % 2 == 1)
                kept[site] = torch.full(found[site].alpha.shape, stays)
        return kept

    def count(self, model: nn.Module) -> int:
        """Number of ReLUs it keeps in one network."""
        return sum(int(unit.sum()) for unit in self.units(model).values())


@dataclass(frozen=True)
class DeepReDuce:
    """Options of DeepReDuce; training as its authors do.

    Attributes:
        configurations: Choose among these (`"1,4"`, `"1,4+thin"`) instead of searching.
        exponent: w of the criticality.
        temperature: T of the distillation.
        kd_weight: Share of the distillation loss; cross entropy has the rest.
        schedule: Training of every configuration. The released code of Das et al. has kd_weight 0.5, T = 1, lr 1e-3.
    """

    configurations: tuple[str, ...] | None = None
    exponent: float = 0.07
    temperature: float = 4.0
    kd_weight: float = 0.9
    schedule: Schedule = field(
        default=Schedule(epochs=200, batch_size=128, lr=0.1, momentum=0.9, weight_decay=5e-4, decay="cosine")
    )


def deepreduce(
    teacher: nn.Module,
    data: Data,
    budgets: Sequence[float],
    *,
    seeds: Sequence[int],
    options: DeepReDuce | None = None,
    progress: bool = True,
) -> list[LinearizedModel]:
    """Find the configuration nearest to each budget, trained with distillation.

    Args:
        teacher: Trained network, or ensemble, without gates.
        data: Its data; validation accuracy ranks stages and candidates.
        budgets: Fractions of units, descending. The nearest configuration may keep more or fewer; the record says.
        seeds: One for each member.
        options: Options; the authors' by default.
        progress: Show a progress bar.

    Returns:
        One record per budget, its history one row per trained configuration.
    """
    budgets, options = check_budgets(budgets), options or DeepReDuce()
    search = _Search(teacher, data, seeds, options, progress)
    members = range(search.members)
    if options.configurations is None:
        candidates = search.candidates()
        trained = [search.train([candidates[m][rank] for m in members]) for rank in range(len(candidates[0]))]
        choices = [search.pareto(candidates[m], [accuracy[m] for _, accuracy in trained]) for m in members]
    else:
        given = [Configuration.parse(text) for text in options.configurations]
        choices = [given for _ in members]
    records = []
    for budget in budgets:
        limit = budget_units(budget, search.total)
        chosen = [min(choices[m], key=lambda one: (abs(search.count(one) - limit), search.count(one))) for m in members]
        model, _ = search.train(chosen)
        networks = model.networks() if isinstance(model, Ensemble) else [copy.deepcopy(model)]
        networks = [gates.freeze(network) for network in networks]
        epochs = [options.schedule.epochs] * len(networks)
        single = not isinstance(model, Ensemble)
        steps = [options.schedule.steps(search.n) * done for done in epochs]
        records.append(
            record("deepreduce", budget, limit, networks, epochs, search.history, single=single, steps=steps)
        )
    return records


class _Search:
    """Trains configurations, each once per member, and remembers what it trained."""

    def __init__(
        self, teacher: nn.Module, data: Data, seeds: Sequence[int], options: DeepReDuce, progress: bool
    ) -> None:
        self.single = not isinstance(teacher, Ensemble)
        source = data if self.single else data[0]
        shape, self.n = source.input_shape, len(source.splits["train"])
        self.gated = gates.freeze(map_networks(lambda network: gates.install(network, shape), teacher))
        self.one = self.gated if self.single else self.gated.member(0)
        self.members = 1 if self.single else self.gated.members
        self.data, self.seeds, self.options, self.progress = data, tuple(seeds), options, progress
        self.total = gates.total_units(self.gated)
        self.distill = Distill(
            teacher, data, temperature=options.temperature, ce=1 - options.kd_weight, kd=options.kd_weight
        )
        self.history: list[dict[str, object]] = []
        self._trained: dict[tuple[Configuration, ...], tuple[nn.Module, list[float]]] = {}
        self._alone: dict[tuple[int, Configuration], tuple[nn.Module, float]] = {}

    def count(self, configuration: Configuration) -> int:
        return configuration.count(self.one)

    def train(self, chosen: Sequence[Configuration]) -> tuple[nn.Module, list[float]]:
        """Train one configuration for each member; the model and each member's validation accuracy."""
        key = tuple(chosen)
        if key not in self._trained and all((member, one) in self._alone for member, one in enumerate(key)):
            networks, accuracies = zip(*(self._alone[member, one] for member, one in enumerate(key)), strict=True)
            self._trained[key] = Ensemble(networks), list(accuracies)
        if key not in self._trained:
            model = copy.deepcopy(self.gated)
            prefix = "" if self.single else "network."
            units = [one.units(self.one) for one in key]
            gates.set_alphas(
                model, {prefix + site: torch.stack([u[site] for u in units]).to(self.device) for site in units[0]}
            )
            names = sorted({str(one) for one in key})
            label = f"deepreduce: culled {' / '.join(names)}" if len(names) < 3 else "deepreduce: candidates"
            fit(
                model,
                self.data,
                self.distill,
                self.options.schedule,
                seeds=self.seeds,
                stage="masks",
                label=label,
                progress=self.progress,
            )
            accuracy = correctness(model, self.data, "val").mean(dim=1).tolist()
            self.history.append(
                {
                    "configuration": [str(one) for one in key],
                    "kept": [self.count(one) for one in key],
                    "val_accuracy": accuracy,
                }
            )
            self._trained[key] = model, accuracy
            networks = [model] if self.single else model.networks()
            for member, (one, network) in enumerate(zip(key, networks, strict=True)):
                self._alone[member, one] = network, accuracy[member]
        return self._trained[key]

    @property
    def device(self) -> torch.device:
        return next(self.gated.parameters()).device

    def order(self) -> list[list[int]]:
        """Stages from least to most critical, for each member."""
        numbers = range(1, len(stages(self.one)) + 1)
        none = self.train([Configuration(tuple(numbers))] * self.members)[1]
        critical = {}
        for number in numbers:
            only = Configuration(tuple(other for other in numbers if other != number))
            gained = self.train([only] * self.members)[1]
            size = self.count(only) ** self.options.exponent
            critical[number] = [(a - b) / size for a, b in zip(gained, none, strict=True)]
        self.history.append({"criticality": critical})
        return [sorted(numbers, key=lambda number: critical[number][member]) for member in range(self.members)]

    def candidates(self) -> list[list[Configuration]]:
        """For each member: nothing culled, the least critical stage culled, ... , each also thinned."""
        return [
            [
                Configuration(tuple(sorted(order[:culled])), thinned)
                for culled in range(len(order))
                for thinned in (False, True)
                if culled or thinned
            ]
            for order in self.order()
        ]

    def pareto(self, candidates: Sequence[Configuration], accuracies: Sequence[float]) -> list[Configuration]:
        """Candidates that no other beats in both units (fewer) and validation accuracy (higher)."""
        points = [(self.count(one), -accuracy, one) for one, accuracy in zip(candidates, accuracies, strict=True)]
        return [
            one
            for units, cost, one in points
            if not any((u <= units and c <= cost) and (u, c) != (units, cost) for u, c, _ in points)
        ]
