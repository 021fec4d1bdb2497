"""Notebook 17: who is exposed. Shadow networks of one pool, attacks on them, and what moves the exposure."""

import math
from collections.abc import Callable, Iterable, Sequence
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
from linfair.engine.store import ResultStore, code_hash
from linfair.metrics.bias import mean_bias
from linfair.metrics.membership import confidence, exposure, halves, leave_one_out
from linfair.study.recipes import recipe
from linfair.study.tables import over_seeds, text
from linfair.training import predict
from linfair_book import tables
from linfair_book.private_training import spoken

ATTACKS = ("loss", "lira_offline", "lira_online", "rmia")
OPTIONS = {"scale": "fixed", "shift": 0}


@dataclass(frozen=True)
class Shadows:
    """Networks trained under one rule on random halves of one pool, and which points each has seen."""

    pool: GroupedData  #: See `pooled`
    stages: Stages
    teacher: Teacher
    inside: NDArray[np.bool_]  #: (networks, points)
    rule: str
    network: str
    profile: str
    seed: int

    def confidences(self, model: nn.Module | None = None, split: str = "train") -> NDArray[np.float64]:
        """How confident each network is of the points of a split, (networks, points)."""
        logits = predict(model or self.teacher.model, [self.pool] * len(self.inside), split)
        return confidence(logits, self.pool.splits[split].y).numpy()

    @property
    def known_by(self) -> dict[str, object]:
        """What every row says of them."""
        options, given = rules.resolve(self.rule), self.teacher.guarantee
        epsilon = math.inf if given is None else options.epsilon if options.noise is None else given.epsilon
        words = f"{self.pool.name} ({', '.join(f'{name}={value}' for name, value in OPTIONS.items())})"
        about = {"data": words, "network": self.network, "width": 0, "profile": self.profile}
        about |= {"seed": self.seed, "rule": options.name, "epsilon": epsilon, "delta": given.delta if given else 0.0}
        about |= {"guarantee": "" if given is None else given.ended or "holds", "shadows": len(self.inside)}
        about |= {"n_train": int(self.inside[0].sum()), "device": device_name("cpu"), "precision": "float32"}
        about |= {"torch": torch.__version__, "linfair": linfair.__version__, "code": code_hash()}
        return about | {"seconds": self.teacher.seconds}


def pooled(name: str, seed: int, **options: object) -> GroupedData:
    """Training and validation images of a data set, which are drawn alike, as one pool.

    Its `test` is the data's, balanced where there is one, and its `val` the natural test; neither is in the pool.
    """
    data = load_data(name, seed=seed, **OPTIONS | options)
    parts = [data.splits[split] for split in ("train", "val")]
    pool = Split(*(torch.cat([getattr(one, field) for one in parts]) for field in "xya"))
    test = data.splits["test"]
    return replace(data, splits={"train": pool, "test": data.splits.get("test_balanced", test), "val": test})


def train(
    pool: GroupedData,
    *,
    rule: str = "sgd",
    count: int = 16,
    seed: int = 0,
    network: str = "mlp",
    profile: str = "small",
    keep: NDArray[np.bool_] | None = None,
    store: ResultStore | None = None,
    progress: bool = True,
) -> Shadows:
    """Train shadow networks as one ensemble on halves of the pool, without the points that are not to be kept."""
    part, keep = pool.splits["train"], np.ones(len(pool.splits["train"]), bool) if keep is None else keep
    inside = np.zeros((count, len(part)), bool)
    inside[:, keep] = halves(int(keep.sum()), count, seed=seed)
    sets = [replace(pool, splits={"train": Split(part.x[one], part.y[one], part.a[one])}) for one in inside]
    stages = Stages(sets, [1000 * (seed + 1) + k for k in range(count)], store, count=1, progress=progress)
    teacher = stages.teacher(network, recipe(network, profile).private, rule=rule)
    return Shadows(pool, stages, teacher, inside, rules.canonical(rule), network, profile, seed)


def sides(pool: GroupedData, split: str = "train") -> tuple[NDArray, NDArray, tuple[str, ...]]:
    """Of each point of a split: on which of two sides it is, its cell, and what the sides are called.

    Aligned and conflicting for data with a synthetic bias, majority and minority for others.
    """
    part = pool.splits[split]
    y, a = part.y.numpy(), part.a.numpy()
    cells = y * len(pool.group_names) + a
    if pool.aligned is not None:
        return (np.array(pool.aligned)[y] != a).astype(int), cells, ("aligned", "conflicting")
    return np.array([role == "minority" for role in pool.roles])[a].astype(int), cells, ("majority", "minority")


def exposed(
    found: Shadows,
    kinds: Iterable[str] = ATTACKS,
    *,
    model: nn.Module | None = None,
    naive: bool = False,
    draws: int = 200,
) -> pd.DataFrame:
    """Rows of `exposure`, each network the target once and the others its shadows: all, and both sides within class."""
    seen, (side, cells, names), frames = found.confidences(model), sides(found.pool), []
    for kind in kinds:
        scores = leave_one_out(kind, seen, found.inside)
        table = exposure(scores, found.inside, side, cells, group_names=names, naive=naive, draws=draws)
        frames.append(table.assign(attack=kind, **found.known_by))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(n=table["members"] + table["non_members"], tpr_1=table["tpr_0.01"])


def utility(found: Shadows, model: nn.Module | None = None) -> pd.DataFrame:
    """Accuracy and mean bias of the networks on the data's own test, means over the networks: all, and both sides."""
    test, pool = found.pool.splits["test"], found.pool
    said = predict(model or found.teacher.model, [pool] * len(found.inside), "test").argmax(-1)
    side, _, names = sides(pool, "test")
    right = (said == test.y).double().numpy()
    lines = [{"who": "all", "accuracy": right.mean()}]
    lines += [{"who": name, "accuracy": right[:, side == number].mean()} for number, name in enumerate(names)]
    if pool.aligned is not None:
        lines[0]["mean_bias"] = np.mean([mean_bias(one, test.a, pool.classes, draws=1).bias for one in said])
    return pd.DataFrame(lines).assign(**found.known_by)


def memorization(
    pool: GroupedData, *, count: int = 16, seed: int = 0, network: str = "mlp", profile: str = "small"
) -> pd.DataFrame:
    """One run of shadow networks looked at after every epoch: AUC of two attacks, and the loss on the natural test."""
    inside, part, lines = halves(len(pool.splits["train"]), count, seed=seed), pool.splits["train"], []
    sets = [replace(pool, splits={"train": Split(part.x[one], part.y[one], part.a[one])}) for one in inside]
    seeds = [1000 * (seed + 1) + k for k in range(count)]
    model = Stages(sets, seeds).untrained(network)

    def look(epoch: int) -> bool:
        logits = predict(model, [pool] * count, "val")
        loss = F.cross_entropy(logits.flatten(0, 1), pool.splits["val"].y.repeat(count)).item()
        seen = confidence(predict(model, [pool] * count, "train"), part.y).numpy()
        for kind in ("loss", "lira_online"):
            row = exposure(leave_one_out(kind, seen, inside), inside, draws=2).iloc[0]
            about = {"epoch": epoch + 1, "test_loss": loss, "attack": kind}
            lines.append(about | {name: row[name] for name in ("auc", "low", "high")})
        return False

    rules.train(model, sets, recipe(network, profile).private, seeds=seeds, after_epoch=look, progress=False)
    return pd.DataFrame(lines).assign(seed=seed)


def looks(epochs: pd.DataFrame) -> pd.DataFrame:
    """The rows of three epochs of each seed: before that of the least test loss, at it, and the last one."""
    parts = []
    for _, one in epochs.groupby("seed", sort=False):
        least = int(one.loc[one["test_loss"].idxmin(), "epoch"])
        when = {"before": max(least - 1, 1), "least": least, "last": int(one["epoch"].max())}
        parts += [one[one["epoch"] == epoch].assign(at=name) for name, epoch in when.items()]
    return pd.concat(parts, ignore_index=True)


def confounded(found: Shadows) -> pd.DataFrame:
    """AUC of the loss attack on skewed data, three ways of choosing non-members.

    `test of both domains` takes every test image, half of which are in the domain that members of their class hardly
    have: it recognises the domain. `drawn like members` takes the pool's points that a network has not seen, `within
    cells` compares in each class and domain on its own.
    """
    seen, test = found.confidences(), found.confidences(split="test")
    both = [np.concatenate([one[member], other]) for one, other, member in zip(seen, test, found.inside, strict=True)]
    labels = [np.arange(len(one)) < member.sum() for one, member in zip(both, found.inside, strict=True)]
    naive = exposure(np.stack(both), np.stack(labels), draws=2).assign(who="test of both domains")
    fair = exposed(found, ["loss"], draws=2)
    fair = fair.replace({"who": {"all": "drawn like members"}})
    return pd.concat([naive.assign(**found.known_by), fair], ignore_index=True)


def rows(
    seeds: Iterable[int], rule: str, *, name: str = "digits", kinds: Iterable[str] = ("lira_online",), **how: object
) -> pd.DataFrame:
    """A number a line, as the claims are judged by: accuracy and exposure under a rule, all and both sides."""
    parts = []
    for seed in seeds:
        found = train(pooled(name, seed), rule=rule, seed=seed, **how)
        table = exposed(found, kinds)
        table = table[table["who"] != "all, within cells"]
        parts.append(table.merge(utility(found)[["who", "accuracy"]], on="who"))
    return pd.concat(parts, ignore_index=True).assign(shared=1.0)  # as many points are told apart as were trained on


def under(rule: str = "sgd", network: str = "mlp", profile: str = "small", **options: object) -> Callable:
    """Data sets and seeds -> networks trained under a rule, as one ensemble; options are those of `Stages`."""

    def train(sets: Sequence[GroupedData], seeds: Sequence[int]) -> nn.Module:
        stages = Stages(sets, seeds, count=1, **options)
        return stages.teacher(network, recipe(network, profile).private, rule=rule).model

    return train


def committed() -> pd.DataFrame:
    """The rows of `rows` that come with the book, spoken."""
    return spoken(tables.committed("digits_membership"))


def shown(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows of attacks for reading: `AUC` with its interval, `found (%)` the share of members at 1 % false alarms."""
    spans = {
        "AUC": (("auc", "low", "high"), 1, 3),
        "found (%)": (("tpr_0.01", "tpr_0.01_low", "tpr_0.01_high"), 100, 1),
    }
    found = table.copy()
    for name, (ends, scale, digits) in spans.items():
        if set(ends) <= set(table):
            values = (scale * table[list(ends)]).round(digits).to_numpy()
            found[name] = [f"{one:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" for one, low, high in values]
    return found[list(columns)]


def over(table: pd.DataFrame, column: str = "auc", *, kind: str = "lira_online") -> pd.DataFrame:
    """Means over seeds of one attack, a line for each rule, its guarantee and the number of shadows."""
    index = ["trained", "guarantee", "shadows", "n_seeds"]
    means = over_seeds(table[table["attack"] == kind], column, ["trained", "guarantee", "shadows", "who"])
    wide = text(means, digits=3).pivot(index=index, columns="who", values="mean [95 % interval]")
    return wide.reindex(means[index].drop_duplicates()).rename_axis(columns=None).reset_index()


def by_skew(table: pd.DataFrame) -> pd.DataFrame:
    """AUC by who the non-members are, a column for each skew."""
    wide = shown(table.reset_index(drop=True), ["who", "skew", "AUC"]).pivot(index="who", columns="skew", values="AUC")
    wide = wide.loc[list(table["who"].unique())].rename(columns=lambda skew: f"skew {skew:g}")
    return wide.rename_axis(columns=None).rename_axis("non-members").reset_index()
