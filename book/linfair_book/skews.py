"""Rules of gradients on data with a bias, skew by skew: utility, mean bias and exposure of the same networks.

`python -m linfair_book.skews digits_s` adds what is missing of `digits_s_private`, `digits_s_outliers` the removal. A
seed is one pool; member k of a rule's ensemble has the same random half, start and test under every rule. Faces have
the imbalance that they come with and no skew; only with two domains there is a mean bias, and a score.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair import rules
from linfair.data import GroupedData, Split, load_data
from linfair.ensemble import Ensemble
from linfair.ledger import Guarantee
from linfair.metrics import membership
from linfair.metrics.bias import aligned_accuracy, mean_bias
from linfair.models import build
from linfair.schedule import Schedule
from linfair.study.recipes import recipe
from linfair.training import predict, threads
from linfair_book import tables
from linfair_book.build import repository
from linfair_book.membership import promised, where
from linfair_book.outliers import removal
from linfair_book.three_prices import score


@dataclass(frozen=True)
class Sweep:
    """What a table holds, in the order of computing; without skews a class is aligned with its largest group."""

    data: str
    network: str
    profile: str = "small"
    width: int | None = None
    norm: str = "batch"
    standardised: bool = False
    members: int = 10
    attack: str = "lira_online"
    rules: Sequence[str] = ("sgd", "sam", "dp_sgd", "dp_sat", "clipped", "asam")
    skews: Sequence[float] = (0.5, 0.95, 0.75, 0.9, 0.99)
    options: Mapping[str, object] = field(default_factory=dict)
    pool: int | None = None  #: So many training images, drawn by the seed
    schedule: Schedule | None = None  #: None is the recipe's for every rule


_MLP = {"width": 32, "options": {"shift": 0}, "schedule": Schedule(epochs=40, batch_size=64, lr=0.02)}
_CNN = {"norm": "group", "members": 3, "attack": "loss", "rules": ("sgd", "sam", "dp_sgd", "dp_sat")}
_CNN |= {"options": {"images": 6000, "size": 16}, "schedule": Schedule(epochs=12, batch_size=256, lr=0.1)}
_FACES = {"skews": (None,), "rules": ("sgd", "dp_sgd", "sam", "dp_sat"), "options": {"group": "race"}, "pool": 4000}
_FACES |= {"width": 32, "schedule": Schedule(epochs=20, batch_size=64, lr=0.02)}
SWEEPS = {"digits_s": Sweep("digits_s", "mlp", **_MLP), "cifar10s": Sweep("cifar10s", "cnn", **_CNN)}
SWEEPS["utkface_gender"] = Sweep("utkface_gender", "mlp", **_FACES)


def loaded(sweep: Sweep, skew: float | None, seed: int) -> GroupedData:
    """The data of a sweep, with the domain that each class is aligned with."""
    options = sweep.options if skew is None else {"skew": skew, **sweep.options}
    data = load_data(sweep.data, seed=seed, scale="fixed", **options)
    part = data.splits["train"]
    if sweep.pool:
        chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(part))[: sweep.pool])
        part = Split(part.x[chosen], part.y[chosen], part.a[chosen])
        data = replace(data, splits=data.splits | {"train": part})
    most = [int(part.a[part.y == label].mode().values) for label in range(data.classes)]
    return replace(data, aligned=data.aligned or tuple(most))


def rows(sweep: Sweep, rule: str | rules.RuleOptions, skew: float | None, *, seed: int = 0) -> pd.DataFrame:
    """A row for each member and each of all, aligned and conflicting images, see `book/rules.toml`."""
    start, options = time.perf_counter(), rules.resolve(rule)
    data = loaded(sweep, skew, seed)
    pool, test = data.splits["train"], data.splits["test"]
    inside = np.concatenate([membership.halves(len(pool), 1, seed=1000 * (seed + 1) + k) for k in range(sweep.members)])
    parts = [torch.from_numpy(one) for one in inside]
    sets = [replace(data, splits={"train": Split(pool.x[one], pool.y[one], pool.a[one])}) for one in parts]
    seeds = [1000 * (seed + 1) + k for k in range(sweep.members)]
    model, guarantee = trained(sweep, sets, seeds, rule)
    with threads(1):
        every = [data] * sweep.members
        confidence = membership.confidence(predict(model, every, "train"), pool.y).numpy()
        predictions = predict(model, every, "test").argmax(dim=-1)
    conflicting = (torch.tensor(data.aligned)[pool.y] != pool.a).long().numpy()
    found = []
    for k, predicted in enumerate(predictions):
        others = np.arange(sweep.members) != k
        seen = inside[others].any(axis=0) & ~inside[others].all(axis=0)  # LiRA needs a shadow on either side
        seen |= sweep.attack == "loss"
        shadows = () if sweep.attack == "loss" else (confidence[others][:, seen], inside[others][:, seen])
        scores = membership.attack(sweep.attack, confidence[k][seen], *shadows, variance="global")
        cells = {"groups": conflicting[seen], "labels": pool.y.numpy()[seen], "draws": 2}
        exposed = membership.exposure(scores, inside[k][seen], group_names=("aligned", "conflicting"), **cells)
        exposed = exposed.set_index("who")
        for one in useful(data, predicted):
            one |= {"auc": exposed.loc[one["who"], "auc"], "tpr_1": exposed.loc[one["who"], "tpr_0.01"]}
            if not math.isnan(one.get("mean_bias", math.nan)):
                one["score"] = score(one["accuracy"], one["auc"], one["mean_bias"])
            found.append(one | {"seed": k})
    said = about(sweep, options, guarantee) | {"attack": sweep.attack, "shadows": sweep.members - 1}
    n_train, images = int(inside[0].sum()), len(test) if skew is None else len(test) / 2
    said |= ({} if skew is None else {"skew": skew}) | {"n_train": n_train, "shared": images / n_train}
    return pd.DataFrame(found).assign(**said, **where(), seconds=(time.perf_counter() - start))


def about(sweep: Sweep, options: rules.RuleOptions, guarantee: Guarantee | None) -> dict[str, object]:
    """What rows say of a sweep, a rule and its guarantee."""
    data = sweep.data + "".join(f" ({key}={value})" for key, value in sweep.options.items() if key == "group")
    said = {"data": data, "network": sweep.network, "width": sweep.width or 0, "profile": sweep.profile}
    return said | {"rule": options.name} | promised(options, guarantee)


def trained(
    sweep: Sweep, sets: Sequence[GroupedData], seeds: Sequence[int], rule: str | rules.RuleOptions = "sgd"
) -> tuple[nn.Module, Guarantee | None]:
    """Networks of a sweep, one for each data set and seed, and what a private rule guarantees."""
    how = {"width": sweep.width, "norm": sweep.norm, "standardised": sweep.standardised}
    first, schedule = sets[0], sweep.schedule or recipe(sweep.network, sweep.profile).private
    alone = [build(sweep.network, first.input_shape, first.classes, seed=seed, **how) for seed in seeds]
    model, data = (Ensemble(alone), sets) if len(seeds) > 1 else (alone[0], first)
    with threads(1):
        return model, rules.train(model, data, schedule, rule=rule, seeds=seeds, progress=False)[1]


def removed(sweep: Sweep, seed: int, *, skew: float = 0.95, rule: str = "sgd") -> pd.DataFrame:
    """Rows of `outliers.removal` on a sweep's data, one seed: its training split is the pool."""
    start = time.perf_counter()
    data = loaded(sweep, skew, seed)
    found = removal(data, lambda sets, seeds: trained(sweep, sets, seeds, rule)[0], seed=seed)
    said = {"data": sweep.data, "network": sweep.network, "width": sweep.width or 0, "profile": sweep.profile}
    said |= {"rule": rule, "epsilon": math.inf, "delta": 0.0, "skew": skew, "attack": "lira_online", "shadows": 16}
    said["shared"] = len(data.splits["test"]) / 2 / found["n_train"]
    return found.assign(**said, **where(), seconds=time.perf_counter() - start)


def useful(data: GroupedData, predicted: torch.Tensor) -> list[dict[str, object]]:
    """Accuracy of one network on all, aligned and conflicting test images, and the mean bias of its predictions."""
    test = data.splits["test"]
    right = (predicted == test.y).float()
    found = aligned_accuracy(right, test.y, test.a, data.aligned)
    lines = [{"who": who, "accuracy": one.accuracy, "n": one.n} for who, one in found.items()]
    bias = mean_bias(predicted, test.a, data.classes, draws=2).bias if len(data.group_names) == 2 else math.nan
    return [*lines, {"who": "all", "accuracy": float(right.mean()), "n": len(right), "mean_bias": bias}]


def compute(name: str, into: Path) -> pd.DataFrame:
    """What is missing of a sweep's table, a combination of skew and rule at a time; what is there stays."""
    sweep = SWEEPS[name]
    wanted = product(sweep.skews, sweep.rules)
    return tables.grown(into, ("skew", "rule"), wanted, lambda skew, rule: rows(sweep, rule, skew))


if __name__ == "__main__":
    for named in sys.argv[1:] or SWEEPS:
        if named.endswith("_outliers"):
            known = partial(removed, SWEEPS[named.removesuffix("_outliers")])
            tables.grown(tables.place(named), ["seed"], [(seed,) for seed in range(10)], known)
        else:
            compute(named, repository() / tables.RESULTS / f"{named}_private.parquet")
