"""Runs behind `linfair_book.released`, a generator named as each switch: rows with a number per version and seed."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from linfair.data import GroupedData, Split, load_data
from linfair.metrics import group_gradient_norms, parameter_distance, top_eigenvalues
from linfair.mitigation import Lagrangian
from linfair.mitigation.lagrangian import LagrangianObjective
from linfair.training import Data, Distill, Source, fit
from linfair_book.released_lab import ACCURACY, ORIGINAL, Lab, by_role, minority_of

Rows = Iterator[pd.DataFrame]
NATURAL = {"majority_fraction": 1.0, "minority_fraction": 1.0}  # the digits as they are
DIAGNOSTIC_BATCH = 16  # as on CIFAR-10, the test split, sorted by class, has about 17 batches of one or two classes
CULLED = "1,4"  # DeepReDuce's configuration here: stages 1 and 4 culled, 38 % of the units kept on 12x12 images


@dataclass(frozen=True)
class MajorityOnly(Lagrangian):
    """Algorithm 1 with the majority groups constrained alone: groups 0 to 4 of ten, the majority of its CIFAR-10."""

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
    pairs = [(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True) if a.requires_grad]
    return torch.stack([(a - b).detach().view(members, -1).abs().amax(1) for a, b in pairs]).amax(0).tolist()


def penalty(lab: Lab) -> Rows:
    """The penalty with a gradient, and detached."""
    plain = lab.tune().model
    for version, options in {"paper": Lagrangian(), "released": Lagrangian(detached=True)}.items():
        model = lab.tune(options).model
        moved = {"all": largest_change(model, plain, len(lab.seeds))}
        yield lab.rows(version, "largest change of a weight by the penalty", "", moved)
        yield lab.accuracies(version, model)


def kd_weight(lab: Lab) -> Rows:
    """KD averaged over the batch, and over batch and classes; no penalty in either."""
    return _tuned(lab, {"paper": None, "released": "kd_over_c"})


def multipliers(lab: Lab, batch_sizes: Sequence[int] = (32, 128, 512)) -> Rows:
    """Multipliers from the training set, and from the sum over an epoch's batches."""
    for size in batch_sizes:
        for version, accumulate in (("paper", "epoch"), ("released", "batches")):
            one = lab.tune(Lagrangian(accumulate=accumulate), batch_size=size)
            last = [float(np.mean(member)) for member in one.finetuning[-1]["multipliers"]]
            yield lab.rows(version, f"last multiplier, batches of {size}", "times", {"all": last})
            yield lab.accuracies(version, one.model, quantity=f"{ACCURACY}, batches of {size}")


def constrained(lab: Lab) -> Rows:
    """All groups constrained, and the majority groups alone."""
    return _tuned(lab, {"paper": Lagrangian(), "released": MajorityOnly()})


def sided(lab: Lab) -> Rows:
    """Groups better than the average held back too (paper and released code), and not."""
    return _tuned(lab, {"paper": Lagrangian(), "one-sided": Lagrangian(one_sided=True)})


def _tuned(lab: Lab, ways: dict[str, object]) -> Rows:
    return (lab.accuracies(version, lab.tune(way).model) for version, way in ways.items())


def test_size(lab: Lab) -> Rows:
    """The test set thinned as the training set is, and balanced: how wide intervals get, and what the mean hides."""
    model = lab.tune().model
    for version, split in (("balanced", "test_balanced"), ("released", "test")):
        yield lab.lost(version, "accuracy drop by linearization", model, split=split)
        right, rare = lab.right(model, split)
        each = rare.sum(1) / [one.roles.count("minority") for one in lab.sets]
        p = by_role(right, rare)["minority"] / 100
        error = {"minority": 100 * np.sqrt(p * (1 - p) / each)}
        yield lab.rows(version, "standard error of one class in one network", "points", error)


def mismatch(lab: Lab) -> Rows:
    """Linearization on the data of base training, and on a thinned part: 90 % of five classes, 30 % of the others."""
    base = [load_data("digits", seed=seed, **NATURAL).to(lab.device) for seed in lab.seeds]
    thinned = [other_split(load_data("digits", seed=seed, minority_fraction=0.3), seed) for seed in lab.seeds]
    pairs = zip(thinned, base, strict=True)
    thinned = [replace(part.to(lab.device), mean=one.mean, std=one.std) for part, one in pairs]
    whole = replace(lab, data=base, of_roles=lab.sets)
    for version, one in (("paper", whole), ("released", replace(whole, data=thinned, taught=whole.teacher))):
        tuned = one.tune().model
        [kept] = one.stages.control(one.teacher, one.path).records
        yield one.accuracies(version, tuned)
        yield one.lost(version, "accuracy drop", tuned)
        yield one.lost(version, "accuracy drop of the control, all ReLUs kept", one.tune(one=kept).model)


def augmentation(lab: Lab) -> Rows:
    """Stages with random shifts and without; tested on the images as they are."""
    for version, one in (("shifts", lab), ("released", replace(lab, augment=False))):
        still = replace(one, data=[replace(data, shift=0) for data in one.sets], taught=one.teacher)
        tuned = one.tune().model
        yield still.accuracies(version, tuned)
        yield still.lost(version, "accuracy drop", tuned)
        yield still.accuracies(version, one.teacher.model, quantity=ORIGINAL)


def other_split(data: GroupedData, seed: int) -> GroupedData:
    """The same classes with the same counts to train on, drawn by another seed; tests and minorities stay."""
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


def leak(lab: Lab) -> Rows:
    """One seed for both networks, and an original network trained on another seed's split."""
    others = [other_split(one, seed + 1000) for one, seed in zip(lab.sets, lab.seeds, strict=True)]
    seen = np.stack([shared(one, other) for one, other in zip(lab.sets, others, strict=True)])
    unseen = np.stack([shared(one, one) for one in lab.sets])
    released = replace(lab, taught=replace(lab, data=others).teacher)
    for version, one, known in (("paper", lab, unseen), ("released", released, seen)):
        pupil = one.tune().model
        right, rare = one.right(pupil)
        yield one.rows(version, "test images the original was trained on", "%", by_role(known * 1.0, rare))
        yield one.accuracies(version, pupil)
        yield one.accuracies(version, one.teacher.model, quantity=ORIGINAL)
        gain = by_role(right, rare, seen)["majority"] - by_role(right, rare, ~seen)["majority"]
        words = "accuracy on those test images minus on the others"
        yield one.rows(version, words, "points", {"majority": gain})


def checkpoint(lab: Lab) -> Rows:
    """Fine-tuning ends with its last epoch, the best one on validation, or the best one on the test (released)."""
    model = copy.deepcopy(lab.selected.model)
    found: dict[str, list[np.ndarray]] = {"val": [], "test_balanced": []}
    _, rare = lab.right(model)
    tested = np.stack([shared(one, one, among="test") for one in lab.sets])

    def after_epoch(epoch: int) -> bool:
        for split, kept in found.items():
            kept.append(lab.right(model, split)[0])
        return False

    options = {"seeds": lab.seeds, "stage": "finetune", "after_epoch": after_epoch, "progress": lab.progress}
    fit(model, lab.stages.data, Distill(lab.teacher.model, lab.stages.data), lab.recipe.finetune, **options)
    right, on_val = np.stack(found["test_balanced"]), np.stack(found["val"]).mean(2)
    on_test = np.stack([by_role(one, rare, tested)["all"] for one in right])
    epochs = {"last": np.full(len(lab.seeds), len(right) - 1), "best on validation": on_val.argmax(0)}
    epochs["released"] = on_test.argmax(0)
    share = (rare & tested).sum(1) / tested.sum(1)
    for version, epoch in epochs.items():
        chosen = right[epoch, np.arange(len(lab.seeds))]
        reported, fresh = by_role(chosen, rare, tested), by_role(chosen, rare, ~tested)
        fresh["all"] = (1 - share) * fresh["majority"] + share * fresh["minority"]
        yield lab.rows(version, "accuracy on the test that is reported", "%", reported)
        yield lab.rows(version, "accuracy on test images kept apart", "%", fresh)
        yield lab.rows(version, "reported minus kept apart", "points", {"all": reported["all"] - fresh["all"]})
        yield lab.rows(version, "epoch", "", {"all": epoch + 1})


def exact_budget(lab: Lab) -> Rows:
    """Budgets checked at the ends of epochs, and met exactly at the step before the count falls below."""
    exact = replace(lab, taught=lab.teacher, snl=(("exact", True), ("check_every", 1)))
    for version, one in (("exact", exact), ("released", lab)):
        kept = [100 * count / one.selected.masks[0].total for count in one.selected.kept]
        yield one.rows(version, "ReLUs kept", "%", {"all": kept})
        yield one.accuracies(version, one.tune().model)


def diagnostics(lab: Lab) -> Rows:
    """Minority over majority gradient norm and top eigenvalue: exact on train, exact on test, released on test."""
    networks = lab.teacher.model.networks() if len(lab.seeds) > 1 else [lab.teacher.model]
    released = {"estimator": "per_batch", "batch_size": DIAGNOSTIC_BATCH}
    ways = {"paper": ("train", {}), "exact, on test": ("test", {}), "released": ("test", released)}
    for version, (split, options) in ways.items():
        found: dict[str, list[float]] = {"gradient norm": [], "top eigenvalue": []}
        for network, data in zip(networks, lab.sets, strict=True):
            rare = minority_of(data)
            norms = np.array([row.norm for row in group_gradient_norms(network, data, split, **options)])
            tops = np.array([row.value for row in top_eigenvalues(network, data, split, tol=1e-2, **options)])
            for name, values in (("gradient norm", norms), ("top eigenvalue", tops)):
                found[name].append(values[rare].mean() / values[~rare].mean())
        for name, values in found.items():
            yield lab.rows(version, f"{name}, minority / majority", "times", {"all": values})


def deepreduce_objectives(lab: Lab) -> Rows:
    """DeepReDuce trained on its authors' objective, on the released one, and on that with the released rate."""
    own = replace(lab.recipe.method("deepreduce"), configurations=(CULLED,), temperature=4.0, kd_weight=0.9)
    released = replace(own, temperature=1.0, kd_weight=0.5)
    slow = replace(released, schedule=replace(own.schedule, lr=own.schedule.lr / 100))
    for version, options in (("authors", own), ("released", released), ("released, rate too", slow)):
        [one] = lab.stages.path(lab.teacher, "deepreduce", [0.4], options).records
        yield lab.accuracies(version, one.model)


def update_statistics(model: nn.Module, data: GroupedData, *, batch_size: int = 128) -> nn.Module:
    """A copy whose batch normalization has the plain averages over batches of the training images, not shifted."""
    model, source = copy.deepcopy(model), Source(data, "train")
    batches = source.epoch(["statistics"], batch_size, augment=False)
    update_bn((source.take(index).x for index, _ in batches), model)
    return model.eval()


def initialisation(lab: Lab) -> Rows:
    """Original networks from torch's own first weights and, as released, from Kaiming-normal ones 2.4 times larger."""
    for version, one in (("torch", lab), ("released", replace(lab, init="kaiming_normal"))):
        teacher, tuned, data = one.teacher.model, one.tune().model, one.sets[0]
        norms = np.array([row.norm for row in group_gradient_norms(tuned, data)])
        moved = parameter_distance(tuned, teacher)
        numbers = {"norm of the original's parameters": moved.original, "distance to the original": moved.distance}
        numbers["minority's gradient norm"] = norms[minority_of(data)].mean()
        yield one.accuracies(version, teacher, quantity=ORIGINAL)
        yield one.accuracies(version, tuned)
        yield from (one.rows(version, name, "times", {"all": [value]}) for name, value in numbers.items())


def threshold(lab: Lab) -> Rows:
    """SNL's mask made binary: batch normalization keeps its statistics (released), or takes new ones first."""
    shocked = lab.selected
    calm = replace(shocked, model=update_statistics(shocked.model, lab.sets[0]))
    for version, one in (("statistics updated", calm), ("released", shocked)):
        yield lab.accuracies(version, one.model, quantity="accuracy before fine-tuning")
        yield lab.accuracies(version, lab.tune(one=one).model)
