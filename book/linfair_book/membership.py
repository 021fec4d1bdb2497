"""Notebooks 17 and 18: shadow networks of one pool, attacks on them, and what moves the exposure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

import linfair
from linfair import rules
from linfair.data import GroupedData, Split, load_data
from linfair.device import device_name
from linfair.engine.stages import Stages, Teacher
from linfair.engine.store import code_hash
from linfair.ledger import Guarantee
from linfair.metrics.membership import confidence, exposure, halves, leave_one_out
from linfair.study.recipes import recipe
from linfair.training import predict

ATTACKS = ("loss", "lira_offline", "lira_online", "rmia")
OPTIONS = {"scale": "fixed", "shift": 0}


def pooled(name: str, seed: int, **options: object) -> GroupedData:
    """A data set whose `train` is a pool, its training and validation images, and whose `val` is the natural test."""
    data = load_data(name, seed=seed, **OPTIONS | options)
    parts, test = [data.splits[split] for split in ("train", "val")], data.splits["test"]
    pool = Split(*(torch.cat([getattr(one, field) for one in parts]) for field in "xya"))
    return replace(data, splits={"train": pool, "test": data.splits.get("test_balanced", test), "val": test})


@dataclass(frozen=True)
class Shadows:
    """Networks trained under one rule on random halves of one pool, and which points (networks, points) each has."""

    pool: GroupedData
    stages: Stages
    teacher: Teacher
    inside: NDArray[np.bool_]
    known_by: dict[str, object]  #: What every row says of them

    def confidences(self, model: nn.Module | None = None, split: str = "train") -> NDArray[np.float64]:
        """How confident each network is of the points of a split, (networks, points)."""
        logits = predict(model or self.teacher.model, [self.pool] * len(self.inside), split)
        return confidence(logits, self.pool.splits[split].y).numpy()


def prepared(pool: GroupedData, count: int, seed: int, **options: object) -> tuple[Stages, NDArray[np.bool_]]:
    """Halves of a pool as the data sets of an ensemble."""
    part, inside = pool.splits["train"], halves(len(pool.splits["train"]), count, seed=seed)
    sets = [replace(pool, splits={"train": Split(part.x[one], part.y[one], part.a[one])}) for one in inside]
    return Stages(sets, [1000 * (seed + 1) + k for k in range(count)], count=1, **options), inside


def train(
    pool: GroupedData,
    rule: str = "sgd",
    *,
    count: int = 16,
    seed: int = 0,
    network: str = "mlp",
    profile: str = "small",
    **options: object,
) -> Shadows:
    """Train shadow networks as one ensemble on halves of the pool; options are those of `Stages`."""
    stages, inside = prepared(pool, count, seed, **options)
    teacher = stages.teacher(network, recipe(network, profile).private, rule=rule)
    chosen = rules.resolve(rule)
    about = {"data": f"{pool.name} (scale=fixed, shift=0)", "network": network, "width": 0, "profile": profile}
    about |= {"seed": seed, "rule": chosen.name, "shadows": count} | promised(chosen, teacher.guarantee)
    about |= {"n_train": int(inside[0].sum())} | where() | {"seconds": teacher.seconds}
    return Shadows(pool, stages, teacher, inside, about)


def promised(rule: object, given: Guarantee | None) -> dict[str, object]:
    """What rows say of a guarantee: the epsilon that was asked for, or reached at a noise that was."""
    if given is None:
        return {"epsilon": math.inf, "delta": 0.0, "guarantee": ""}
    epsilon = rule.epsilon if rule.noise is None else given.epsilon
    return {"epsilon": epsilon, "delta": given.delta, "guarantee": given.ended or "holds"}


def where() -> dict[str, object]:
    """What rows say of the machine and the code."""
    known = {"device": device_name("cpu"), "precision": "float32", "torch": torch.__version__}
    return known | {"linfair": linfair.__version__, "code": code_hash()}


def sides(pool: GroupedData, split: str = "train") -> tuple[NDArray, NDArray, tuple[str, ...]]:
    """Of each point its side (aligned, conflicting; else majority, minority) and cell, and the sides' names."""
    y, a = pool.splits[split].y.numpy(), pool.splits[split].a.numpy()
    cells = y * len(pool.group_names) + a
    if pool.aligned is not None:
        return (np.array(pool.aligned)[y] != a).astype(int), cells, ("aligned", "conflicting")
    return np.array([role == "minority" for role in pool.roles])[a].astype(int), cells, ("majority", "minority")


def exposed(
    found: Shadows, kinds: Iterable[str] = ATTACKS, *, model: nn.Module | None = None, **how: object
) -> pd.DataFrame:
    """Rows of `exposure`, each network the target once and the others its shadows: all, and both sides within class."""
    seen, (side, cells, names), inside = found.confidences(model), sides(found.pool), found.inside
    scores = {kind: leave_one_out(kind, seen, inside) for kind in kinds}
    how |= {"group_names": names}
    frames = [exposure(one, inside, side, cells, **how).assign(attack=kind) for kind, one in scores.items()]
    table = pd.concat(frames, ignore_index=True).assign(**found.known_by)
    return table.assign(n=table["members"] + table["non_members"], tpr_1=table["tpr_0.01"])


def correct(found: Shadows, model: nn.Module | None = None) -> NDArray[np.float64]:
    """Whether each network is right, (networks, test points)."""
    said = predict(model or found.teacher.model, [found.pool] * len(found.inside), "test").argmax(-1)
    return (said == found.pool.splits["test"].y).double().numpy()


def of_sides(found: Shadows, right: NDArray[np.float64]) -> dict[str, float]:
    """Accuracy on all test points and on both sides, mean over the networks."""
    side, _, names = sides(found.pool, "test")
    return {"all": right.mean()} | {name: right[:, side == number].mean() for number, name in enumerate(names)}


def rows(seeds: Iterable[int], rule: str, **how: object) -> pd.DataFrame:
    """A number a line, as claims are judged by: accuracy and exposure under a rule, all and both sides."""
    parts = []
    for seed in seeds:
        found = train(pooled("digits", seed), rule, seed=seed, **how)
        table, accuracy = exposed(found, ["lira_online"]), of_sides(found, correct(found))
        table = table[table["who"].isin(accuracy)]
        parts.append(table.assign(accuracy=table["who"].map(accuracy), shared=1.0))
    return pd.concat(parts, ignore_index=True)


def memorization(
    pool: GroupedData, *, count: int = 16, seed: int = 0, network: str = "mlp", profile: str = "small"
) -> pd.DataFrame:
    """One run of shadow networks looked at after every epoch: AUC of two attacks, and the loss on the natural test."""
    stages, inside = prepared(pool, count, seed)
    model, y, lines = stages.untrained(network), pool.splits["val"].y.repeat(count), []

    def look(epoch: int) -> bool:
        loss = F.cross_entropy(predict(model, [pool] * count, "val").flatten(0, 1), y).item()
        seen = confidence(predict(model, [pool] * count, "train"), pool.splits["train"].y).numpy()
        for kind in ("loss", "lira_online"):
            row = exposure(leave_one_out(kind, seen, inside), inside, draws=2).loc[0, ["auc", "low", "high"]].to_dict()
            lines.append({"epoch": epoch + 1, "test_loss": loss, "attack": kind, "seed": seed} | row)
        return False

    schedule = recipe(network, profile).private
    rules.train(model, stages.sets, schedule, seeds=stages.seeds, after_epoch=look, progress=False)
    return pd.DataFrame(lines)


def looks(epochs: pd.DataFrame) -> pd.DataFrame:
    """The rows of three epochs of each seed: before that of the least test loss, at it, and the last one."""
    parts = []
    for _, one in epochs.groupby("seed", sort=False):
        least = int(one.loc[one["test_loss"].idxmin(), "epoch"])
        when = {"before": max(least - 1, 1), "least": least, "last": int(one["epoch"].max())}
        parts += [one[one["epoch"] == epoch].assign(at=name) for name, epoch in when.items()]
    return pd.concat(parts, ignore_index=True)


def confounded(found: Shadows) -> pd.DataFrame:
    """The loss attack on skewed data against test images of both domains, points drawn like members, within cells."""
    pairs = zip(found.confidences(), found.confidences(split="test"), found.inside, strict=True)
    scores = np.stack([np.concatenate([one[member], other]) for one, other, member in pairs])
    members = np.arange(scores.shape[1]) < found.inside.sum(1)[:, None]
    naive = exposure(scores, members, draws=2).assign(who="test of both domains")
    fair = exposed(found, ["loss"], draws=2).replace({"who": {"all": "drawn like members"}})
    return pd.concat([naive, fair], ignore_index=True)


def shown(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows of attacks for reading: `AUC` with its interval, `found (%)` the share of members at 1 % false alarms."""
    spans = {"AUC": ("auc", "low", "high"), "found (%)": ("tpr_0.01", "tpr_0.01_low", "tpr_0.01_high")}
    made = {}
    for name in set(columns) & set(spans):
        scale, digits = (100, 1) if "%" in name else (1, 3)
        values = scale * table[list(spans[name])].to_numpy()
        made[name] = [f"{one:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" for one, low, high in values]
    return table.assign(**made)[list(columns)]
