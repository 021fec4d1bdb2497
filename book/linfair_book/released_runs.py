"""Runs behind `linfair_book.released`: networks trained the paper's way and the released code's, one switch apart.

Everything here is on scikit-learn's digits: an MLP whose seeds are one ensemble, and a thin ResNet18 where a switch
needs batch normalization or stages (`released_thin`). Each function returns one number per version, group of images and
seed; which version is the paper's, and what is compared with what, stands in `linfair_book.released.SWITCHES`.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData, Split, load_data
from linfair.linearizers import SNL, control, finetune, snl
from linfair.linearizers.record import LinearizedModel
from linfair.mitigation import Lagrangian
from linfair.mitigation.lagrangian import LagrangianObjective
from linfair.study.cell import Worker, grid
from linfair.study.recipes import Recipe
from linfair.study.stages import Stages
from linfair.study.store import ResultStore
from linfair.training import Data, Distill, correctness, fit

ACCURACY = "accuracy of the linearized network"
ORIGINAL = "accuracy of the original network"
NATURAL = {"majority_fraction": 1.0, "minority_fraction": 1.0}
"""Options of the digits as they are: all classes with as many images."""


@dataclass
class Lab:
    """One network on the digits: its data, its recipe, and what several switches share, trained once.

    Args:
        network: `mlp`, all seeds one ensemble, or another network with one seed.
        seeds: Seeds.
        budget: Share of ReLUs kept.
        profile: Profile of the recipe.
        device: Where to train.
        store: Where teachers and mask paths are kept; the user's cache by default.
        progress: Show progress bars.
    """

    network: str = "mlp"
    seeds: Sequence[int] = tuple(range(10))
    budget: float = 0.2
    profile: str = "small"
    device: str = "cpu"
    store: ResultStore | None = None
    progress: bool = True
    _tuned: dict[object, LinearizedModel] = field(default_factory=dict, repr=False)

    @cached_property
    def worker(self) -> Worker:
        """The cell of the plain study: teacher and mask path are read from the store if they are there."""
        options = {"seeds": self.seeds, "profile": self.profile, "device": self.device, "curvature": "none"}
        [cell] = grid("digits", self.network, budgets=[self.budget], **options)
        return Worker(cell, self.store or ResultStore.default(), self.progress)

    @property
    def recipe(self) -> Recipe:
        """How every stage is trained."""
        return self.worker.recipe

    @property
    def sets(self) -> list[GroupedData]:
        """The data, one split for each seed."""
        return self.worker.sets

    @property
    def teacher(self) -> nn.Module:
        """The original network, or ensemble."""
        return self.worker.teacher.model

    @property
    def selected(self) -> LinearizedModel:
        """SNL's network at the budget, before fine-tuning."""
        return self.worker.path.records[0]

    def train(self, sets: Sequence[GroupedData], *, init: str = "torch", **changed: object) -> nn.Module:
        """An original network on other data, from another start, or on a changed schedule; same seeds."""
        stages = Stages(sets, self.seeds, self.worker.store, progress=self.progress)
        plan = replace(self.recipe.base, **changed)
        return stages.teacher(self.network, plan, width=self.recipe.width, init=init).model

    def options(self, *, augment: bool = True, **changed: object) -> SNL:
        """The recipe's options of SNL, some changed."""
        options = self.recipe.method("snl")
        return replace(options, schedule=replace(options.schedule, augment=augment), **changed)

    def select(self, teacher: nn.Module, sets: Sequence[GroupedData], options: SNL) -> LinearizedModel:
        """SNL's network at the budget, before fine-tuning."""
        data = _one(sets)
        [one] = snl(teacher, data, [self.budget], seeds=self.seeds, options=options, progress=self.progress)
        return one

    def tune(
        self,
        mitigation: object | None = None,
        *,
        one: LinearizedModel | None = None,
        teacher: nn.Module | None = None,
        sets: Sequence[GroupedData] | None = None,
        **changed: object,
    ) -> LinearizedModel:
        """A record fine-tuned; those that start from `selected` are kept for the next switch that wants them."""
        plan = replace(self.recipe.finetune, **changed)
        key = (mitigation, plan) if one is None else None
        if key is None or key not in self._tuned:
            options = {"seeds": self.seeds, "schedule": plan, "mitigation": mitigation, "progress": self.progress}
            found = finetune(one or self.selected, teacher or self.teacher, _one(sets or self.sets), **options)
            if key is None:
                return found
            self._tuned[key] = found
        return self._tuned[key]

    def right(self, model: nn.Module, sets: Sequence[GroupedData] | None = None, split: str = "test_balanced"):
        """Share of views on which each image is right, (seeds, n), and whether its group is a minority, (seeds, n)."""
        sets = sets or self.sets
        minority = [torch.tensor([role == "minority" for role in one.roles]) for one in self.sets]
        rare = torch.stack([of[one.splits[split].a.cpu()] for of, one in zip(minority, sets, strict=True)])
        return correctness(model, _one(sets), split).cpu().view(len(self.seeds), -1).numpy(), rare.numpy()

    def accuracies(
        self,
        version: str,
        model: nn.Module,
        *,
        quantity: str = ACCURACY,
        sets: Sequence[GroupedData] | None = None,
        split: str = "test_balanced",
    ) -> pd.DataFrame:
        """Rows with the accuracy in % of majority, minority and all."""
        return self.rows(version, quantity, "%", by_role(*self.right(model, sets, split)))

    def rows(self, version: str, quantity: str, unit: str, values: dict[str, Iterable[float]]) -> pd.DataFrame:
        """A row per (who, seed)."""
        about = {"version": version, "quantity": quantity, "unit": unit}
        return pd.DataFrame(
            {**about, "who": who, "seed": seed, "value": float(value)}
            for who, numbers in values.items()
            for seed, value in zip(self.seeds, numbers, strict=True)
        )


def by_role(right: np.ndarray, rare: np.ndarray, chosen: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Accuracy in % of majority, minority and all images of each seed, (seeds,) each.

    Args:
        right: Share of views on which each image is right, (seeds, n).
        rare: Whether its group is a minority, (seeds, n).
        chosen: Only these images.

    >>> found = by_role(np.array([[1.0, 1.0, 0.0, 1.0]]), np.array([[False, False, True, True]]))
    >>> {who: value.tolist() for who, value in found.items()}
    {'majority': [100.0], 'minority': [50.0], 'all': [75.0]}
    """
    chosen = np.ones_like(rare) if chosen is None else chosen
    masks = {"majority": chosen & ~rare, "minority": chosen & rare, "all": chosen}
    with np.errstate(invalid="ignore"):
        return {who: 100 * (right * mask).sum(1) / mask.sum(1) for who, mask in masks.items()}


def _one(sets: Sequence[GroupedData]) -> Data:
    return list(sets) if len(sets) > 1 else sets[0]


# --- Algorithm 1 -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MajorityOnly(Lagrangian):
    """Algorithm 1 with the majority groups constrained alone.

    The released code constrains groups 0 to 4 of ten; on its CIFAR-10 these are the majority.
    """

    def start(
        self, model: nn.Module, teacher: nn.Module, data: Data, *, distill: Distill | None = None
    ) -> LagrangianObjective:
        """The objective of one stage, its multipliers at 0."""
        objective = super().start(model, teacher, data, distill=distill)
        sets = [data] if isinstance(data, GroupedData) else data
        roles = [[role == "majority" for role in one.roles] for one in sets]
        objective.constrained &= torch.tensor(roles, device=objective.constrained.device)
        return objective


def largest_change(one: nn.Module, other: nn.Module, members: int) -> list[float]:
    """Largest absolute difference of a trained parameter of each member; 0 is bitwise equality."""
    found = dict(other.named_parameters())
    gaps = [
        (value - found[name]).detach().view(members, -1).abs().amax(1)
        for name, value in one.named_parameters()
        if value.requires_grad
    ]
    return torch.stack(gaps).amax(0).tolist()


def penalty(lab: Lab) -> pd.DataFrame:
    """M1: the penalty with a gradient, and detached."""
    plain, parts = lab.tune().model, []
    for version, options in {"paper": Lagrangian(), "released": Lagrangian(detached=True)}.items():
        model = lab.tune(options).model
        moved = {"all": largest_change(model, plain, len(lab.seeds))}
        parts.append(lab.rows(version, "largest change of a weight by the penalty", "", moved))
        parts.append(lab.accuracies(version, model))
    return pd.concat(parts)


def kd_weight(lab: Lab) -> pd.DataFrame:
    """M2: KD averaged over the batch, and over batch and classes; no penalty in either."""
    ways = {"paper": None, "released": "kd_over_c"}
    return pd.concat([lab.accuracies(version, lab.tune(way).model) for version, way in ways.items()])


def multipliers(lab: Lab, batch_sizes: Sequence[int] = (32, 128, 512)) -> pd.DataFrame:
    """M3: multipliers from the training set, and from the sum over an epoch's batches."""
    parts = []
    for size in batch_sizes:
        for version, accumulate in (("paper", "epoch"), ("released", "batches")):
            one = lab.tune(Lagrangian(accumulate=accumulate), batch_size=size)
            last = [float(np.mean(member)) for member in one.finetuning[-1]["multipliers"]]
            parts.append(lab.rows(version, f"last multiplier, batches of {size}", "times", {"all": last}))
            parts.append(lab.accuracies(version, one.model, quantity=f"{ACCURACY}, batches of {size}"))
    return pd.concat(parts)


def constrained(lab: Lab) -> pd.DataFrame:
    """M4: all groups constrained, and the majority groups alone."""
    ways = {"paper": Lagrangian(), "released": MajorityOnly()}
    return pd.concat([lab.accuracies(version, lab.tune(way).model) for version, way in ways.items()])


def sided(lab: Lab) -> pd.DataFrame:
    """M5: groups better than the average held back too (paper and released code), and not."""
    ways = {"paper": Lagrangian(), "one-sided": Lagrangian(one_sided=True)}
    return pd.concat([lab.accuracies(version, lab.tune(way).model) for version, way in ways.items()])


# --- data ------------------------------------------------------------------------------------------------------------


def thinned_test(lab: Lab) -> pd.DataFrame:
    """The test set thinned as the training set is, and balanced: how wide intervals get, and what the mean hides."""
    parts = []
    for version, split in (("balanced", "test_balanced"), ("released", "test")):
        before, rare = lab.right(lab.teacher, split=split)
        after, _ = lab.right(lab.tune().model, split=split)
        lost = by_role(before - after, rare)
        parts.append(lab.rows(version, "accuracy drop by linearization", "points", lost))
        each = rare.sum(1) / [one.roles.count("minority") for one in lab.sets]
        p = by_role(after, rare)["minority"] / 100
        error = {"minority": 100 * np.sqrt(p * (1 - p) / each)}
        parts.append(lab.rows(version, "standard error of one class in one network", "points", error))
    return pd.concat(parts)


def thinned_split(seed: int) -> GroupedData:
    """The naturally balanced digits of a seed, 90 % and 30 % of the training images of its two halves of classes."""
    return other_split(load_data("digits", seed=seed, minority_fraction=0.3), seed)


def mismatch(lab: Lab) -> pd.DataFrame:
    """Linearization on the data of base training, and on a thinned part: 90 % of five classes, 30 % of the others."""
    base = [load_data("digits", seed=seed, **NATURAL).to(lab.device) for seed in lab.seeds]
    thinned = [
        replace(thinned_split(seed).to(lab.device), mean=one.mean, std=one.std)
        for seed, one in zip(lab.seeds, base, strict=True)
    ]
    teacher = lab.train(base)
    before, rare = lab.right(teacher, base)
    parts = []
    for version, sets in (("paper", base), ("released", thinned)):
        one = lab.select(teacher, sets, lab.options())
        tuned = lab.tune(one=one, teacher=teacher, sets=sets).model
        schedule = lab.options().schedule
        options = {"seeds": lab.seeds, "schedule": schedule, "progress": lab.progress}
        [kept] = control(teacher, _one(sets), [one], **options)
        whole = lab.tune(one=kept, teacher=teacher, sets=sets).model
        parts.append(lab.accuracies(version, tuned, sets=sets))
        for words, model in (("accuracy drop", tuned), ("accuracy drop of the control, all ReLUs kept", whole)):
            lost = by_role(before - lab.right(model, sets)[0], rare)
            parts.append(lab.rows(version, words, "points", lost))
    return pd.concat(parts)


def augmentation(lab: Lab) -> pd.DataFrame:
    """Random shifts in every stage, and none; tested on the images as they are."""
    bare = {"augment": False}
    still = [replace(one, shift=0) for one in lab.sets]
    teacher = lab.train(lab.sets, **bare)
    without = lab.tune(one=lab.select(teacher, lab.sets, lab.options(**bare)), teacher=teacher, **bare)
    parts = []
    for version, network, student in (("shifts", lab.teacher, lab.tune()), ("released", teacher, without)):
        before, rare = lab.right(network, still)
        lost = by_role(before - lab.right(student.model, still)[0], rare)
        parts.append(lab.accuracies(version, student.model, sets=still))
        parts.append(lab.accuracies(version, network, quantity=ORIGINAL, sets=still))
        parts.append(lab.rows(version, "accuracy drop", "points", lost))
    return pd.concat(parts)


def other_split(data: GroupedData, seed: int) -> GroupedData:
    """The same classes with the same counts to train on, drawn by another seed; the tests stay.

    Args:
        data: The digits.
        seed: The other seed, of the split alone: which classes are the minority does not change.
    """
    pool = load_data("digits", seed=seed, **NATURAL)
    splits = dict(data.splits)
    for name in ("train", "val"):
        part, counts = pool.splits[name], torch.bincount(data.splits[name].a.cpu(), minlength=10).tolist()
        index = torch.cat([(part.a == group).nonzero().flatten()[:count] for group, count in enumerate(counts)])
        splits[name] = Split(*(one[index].to(data.splits[name].y.device) for one in (part.x, part.y, part.a)))
    return replace(data, splits=splits, provenance=data.provenance | {"split_seed": seed})


def shared(data: GroupedData, other: GroupedData, split: str = "test_balanced", *, among: str = "train") -> np.ndarray:
    """Whether each image of a split is in one of the other data's splits, the training split by default, (n,)."""
    known = {bytes(x.numpy()) for x in other.splits[among].x.cpu()}
    return np.array([bytes(x.numpy()) in known for x in data.splits[split].x.cpu()])


def leak(lab: Lab) -> pd.DataFrame:
    """One seed for both networks, and an original network trained on another seed's split."""
    others = [other_split(one, seed + 1000) for one, seed in zip(lab.sets, lab.seeds, strict=True)]
    teacher = lab.train(others)
    student = lab.tune(one=lab.select(teacher, lab.sets, lab.options()), teacher=teacher).model
    seen = np.stack([shared(one, other) for one, other in zip(lab.sets, others, strict=True)])
    none = np.stack([shared(one, one) for one in lab.sets])
    parts = []
    for version, network, pupil, known in (
        ("paper", lab.teacher, lab.tune().model, none),
        ("released", teacher, student, seen),
    ):
        right, rare = lab.right(pupil)
        parts.append(lab.rows(version, "test images the original was trained on", "%", by_role(known * 1.0, rare)))
        parts += [lab.accuracies(version, pupil), lab.accuracies(version, network, quantity=ORIGINAL)]
        gain = by_role(right, rare, seen)["majority"] - by_role(right, rare, ~seen)["majority"]
        words = "accuracy on those test images minus on the others"
        parts.append(lab.rows(version, words, "points", {"majority": gain}))
    return pd.concat(parts)


# --- selection of models, masks --------------------------------------------------------------------------------------


def checkpoint(lab: Lab) -> pd.DataFrame:
    """Fine-tuning ends with its last epoch, the best one on validation, or the best one on the test (released)."""
    model = copy.deepcopy(lab.selected.model)
    found: dict[str, list[np.ndarray]] = {"val": [], "test_balanced": []}
    _, rare = lab.right(model)
    tested = np.stack([shared(one, one, among="test") for one in lab.sets])

    def after_epoch(epoch: int) -> bool:
        for split, kept in found.items():
            kept.append(lab.right(model, split=split)[0])
        return False

    options = {"seeds": lab.seeds, "stage": "finetune", "after_epoch": after_epoch, "progress": lab.progress}
    fit(model, _one(lab.sets), Distill(lab.teacher, _one(lab.sets)), lab.recipe.finetune, **options)
    right, on_val = np.stack(found["test_balanced"]), np.stack(found["val"]).mean(2)
    on_test = np.stack([by_role(one, rare, tested)["all"] for one in right])
    epochs = {"last": np.full(len(lab.seeds), len(right) - 1), "best on validation": on_val.argmax(0)}
    epochs["released"] = on_test.argmax(0)
    share = (rare & tested).sum(1) / tested.sum(1)
    parts = []
    for version, epoch in epochs.items():
        chosen = right[epoch, np.arange(len(lab.seeds))]
        reported, fresh = by_role(chosen, rare, tested), by_role(chosen, rare, ~tested)
        fresh["all"] = (1 - share) * fresh["majority"] + share * fresh["minority"]
        parts.append(lab.rows(version, "accuracy on the test that is reported", "%", reported))
        parts.append(lab.rows(version, "accuracy on test images kept apart", "%", fresh))
        parts.append(lab.rows(version, "reported minus kept apart", "points", {"all": reported["all"] - fresh["all"]}))
        parts.append(lab.rows(version, "epoch", "", {"all": epoch + 1}))
    return pd.concat(parts)


def exact_budget(lab: Lab) -> pd.DataFrame:
    """Budgets checked at the ends of epochs, and met exactly at the step before the count falls below."""
    exact = lab.select(lab.teacher, lab.sets, lab.options(exact=True, check_every=1))
    parts = []
    for version, one, tuned in (("exact", exact, lab.tune(one=exact)), ("released", lab.selected, lab.tune())):
        kept = [100 * count / one.masks[0].total for count in one.kept]
        parts += [lab.rows(version, "ReLUs kept", "%", {"all": kept}), lab.accuracies(version, tuned.model)]
    return pd.concat(parts)
