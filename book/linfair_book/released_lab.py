"""A lab: one network on the digits, trained and linearized in one version; another version differs in one field."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData, load_data
from linfair.engine.stages import Path, Stages, Teacher
from linfair.engine.store import ResultStore
from linfair.linearizers.record import LinearizedModel
from linfair.models import threads_of
from linfair.study.recipes import Recipe, in_every_stage, recipe
from linfair.training import correctness

ACCURACY = "accuracy of the linearized network"
ORIGINAL = "accuracy of the original network"


@dataclass(frozen=True, eq=False)
class Lab:
    """One network on the digits, each stage trained once; `replace` a field for another version."""

    network: str = "mlp"  # all seeds one ensemble; another network takes one seed
    seeds: Sequence[int] = tuple(range(10))
    budget: float = 0.2
    profile: str = "small"
    device: str = "cpu"
    store: ResultStore | None = None
    progress: bool = True
    data: Sequence[GroupedData] | None = None  # one for each seed; the digits by default
    of_roles: Sequence[GroupedData] | None = None  # whose roles say which groups are minorities; the data's by default
    taught: Teacher | None = None  # another lab's original network
    init: str = "torch"
    augment: bool = True  # stages see random shifts
    snl: tuple[tuple[str, object], ...] = ()  # options of SNL that differ from the recipe's

    @cached_property
    def sets(self) -> Sequence[GroupedData]:
        """The data, one split for each seed."""
        return self.data or [load_data("digits", seed=seed).to(self.device) for seed in self.seeds]

    @cached_property
    def stages(self) -> Stages:
        """The engine over the lab's data."""
        return Stages(self.sets, self.seeds, self.store, count=threads_of(self.network), progress=self.progress)

    @property
    def recipe(self) -> Recipe:
        """How every stage is trained."""
        plan = recipe(self.network, self.profile)
        return plan if self.augment else in_every_stage(plan, augment=False)

    @cached_property
    def teacher(self) -> Teacher:
        """The original network, or ensemble."""
        how = {"width": self.recipe.width, "init": self.init}
        return self.taught or self.stages.teacher(self.network, self.recipe.base, **how)

    @cached_property
    def path(self) -> Path:
        """SNL's path to the budget."""
        options = replace(self.recipe.method("snl"), **dict(self.snl))
        return self.stages.path(self.teacher, "snl", [self.budget], options)

    @property
    def selected(self) -> LinearizedModel:
        """SNL's network at the budget, before fine-tuning."""
        return self.path.records[0]

    def tune(
        self, mitigation: object | None = None, *, one: LinearizedModel | None = None, **changed: object
    ) -> LinearizedModel:
        """A record fine-tuned, `selected` by default, on a changed schedule."""
        schedule = replace(self.recipe.finetune, **changed)
        return self.stages.student(self.teacher, one or self.selected, schedule, mitigation).record

    def right(self, model: nn.Module, split: str = "test_balanced") -> tuple[np.ndarray, np.ndarray]:
        """Share of views on which each image is right, and whether its group is a minority, (seeds, n) each."""
        minority = [torch.tensor(minority_of(one)) for one in self.of_roles or self.sets]
        rare = torch.stack([of[one.splits[split].a.cpu()] for of, one in zip(minority, self.sets, strict=True)])
        return correctness(model, self.stages.data, split).cpu().view(len(self.seeds), -1).numpy(), rare.numpy()

    def accuracies(
        self, version: str, model: nn.Module, *, quantity: str = ACCURACY, split: str = "test_balanced"
    ) -> pd.DataFrame:
        """Rows with the accuracy in % of majority, minority and all."""
        return self.rows(version, quantity, "%", by_role(*self.right(model, split)))

    def lost(self, version: str, quantity: str, model: nn.Module, *, split: str = "test_balanced") -> pd.DataFrame:
        """Rows with the accuracy drop in points against the original network."""
        before, rare = self.right(self.teacher.model, split)
        return self.rows(version, quantity, "points", by_role(before - self.right(model, split)[0], rare))

    def rows(self, version: str, quantity: str, unit: str, values: dict[str, Iterable[float]]) -> pd.DataFrame:
        """A row per (who, seed)."""
        about = {"version": version, "quantity": quantity, "unit": unit}
        pairs = [(who, *one) for who, each in values.items() for one in zip(self.seeds, each, strict=True)]
        return pd.DataFrame({**about, "who": who, "seed": seed, "value": float(value)} for who, seed, value in pairs)


def by_role(right: np.ndarray, rare: np.ndarray, chosen: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Accuracy in % of majority, minority and all images (or of those `chosen`) of each seed, (seeds,) each."""
    chosen = np.ones_like(rare) if chosen is None else chosen
    masks = {"majority": chosen & ~rare, "minority": chosen & rare, "all": chosen}
    with np.errstate(invalid="ignore"):
        return {who: 100 * (right * mask).sum(1) / mask.sum(1) for who, mask in masks.items()}


def minority_of(data: GroupedData) -> np.ndarray:
    """Whether each group is a minority."""
    return np.array([role == "minority" for role in data.roles])
