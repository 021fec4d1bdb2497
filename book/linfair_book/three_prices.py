"""Notebook 18: linearized, pruned, private, and combinations: accuracy, exposure and cost of the same networks."""

import sys
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from torch import nn

from linfair.cost import count_macs, private_inference_cost
from linfair.gates import install
from linfair.ledger import Guarantee
from linfair.masks import Mask, masks_of
from linfair.study.recipes import recipe
from linfair.study.tables import over_seeds
from linfair_book import tables
from linfair_book.averages import less
from linfair_book.membership import Shadows, correct, exposed, of_sides, pooled, train
from linfair_book.private_training import PLAIN, spoken

RULES = ("sgd", "dp_sgd(noise=0.0)", "dp_sgd")
SHARE = 0.5  #: Of the images of a minority class that are kept
WEIGHTS, UNITS = ("prune_magnitude", 0.3), ("random", 0.2)
CHANGES = {
    "whole": (),
    "30 % of weights": (WEIGHTS,),
    "20 % of ReLUs": (UNITS,),
    "both": (WEIGHTS, UNITS),
    "30 % of weights, retrained": (WEIGHTS, "retrained"),
    "20 % of ReLUs by SNL, retrained": (("snl", 0.2), "retrained"),
}
"""What is done to the trained networks, in this order: a method at a share that is kept, or retraining."""
VALUES = {"accuracy (%)": 100, "worst class (%)": 100, "exposure (AUC)": 1, "sent (kB)": 1}
"""What the picture shows, and times what."""


def rows(seeds: Sequence[int], rules: Sequence[str] = RULES, *, profile: str = "small", **how: object) -> pd.DataFrame:
    """A row per seed, rule, change and who, of networks of halves of a pool; shadows are changed as targets are."""
    parts = []
    for seed in seeds:
        pool = pooled("digits", seed, minority_fraction=SHARE)
        for rule in rules:
            found = train(pool, rule, seed=seed, profile=profile, **how)
            parts += [_measured(found, *_changed(found, steps)).assign(change=name) for name, steps in CHANGES.items()]
    return pd.concat(parts, ignore_index=True)


def _changed(found: Shadows, steps: Sequence[object]) -> tuple[nn.Module, Guarantee | None, Mask]:
    """The networks after some steps, what is left of their guarantee, and the ReLUs that the first of them keeps."""
    teacher, stages, one = found.teacher, found.stages, None
    plan = recipe(found.known_by["network"], found.known_by["profile"])
    mask = masks_of(install(teacher.model.member(0), found.pool.input_shape))[0]
    for step in steps:
        if step == "retrained":
            one = stages.student(found.teacher, one, plan.finetune).record
        else:
            one = stages.path(teacher, step[0], [step[1]], plan.method(step[0])).records[0]
            mask = one.masks[0] if one.reduction.kind == "relu" else mask
        teacher = stages.given(one.model, guarantee=one.guarantee)
    return teacher.model, teacher.guarantee, mask


def _measured(found: Shadows, model: nn.Module, guarantee: Guarantee | None, mask: Mask) -> pd.DataFrame:
    """What networks made of `found` reach on the balanced test, how exposed their members are, what an answer costs."""
    right, y = correct(found, model), found.pool.splits["test"].y.numpy()
    table, accuracy = exposed(found, ["lira_online"], model=model, draws=2), of_sides(found, right)
    table, worst = table[table["who"].isin(accuracy)], np.min([right[:, y == label].mean(1) for label in set(y)], 0)
    macs = count_macs(found.teacher.model.member(0), found.pool.input_shape)
    cost = private_inference_cost(mask, macs=macs, bandwidth=1e8, rtt=0.05)
    about = {"guarantee": "" if guarantee is None else guarantee.ended or "holds", "worst": worst.mean()}
    about |= {"relus": mask.kept, "kb": cost.online_bytes / 1e3, "online_seconds": cost.online_seconds, "shared": 1.0}
    return table.assign(accuracy=table["who"].map(accuracy), **about).drop(columns=["note", "finding", "seconds"])


def prices(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of each of `VALUES`, by network: its rule, what is left of its guarantee, its change."""
    rows = spoken(table[table["who"] == "all"])
    rows["network"] = rows["trained"] + ": " + rows["change"]
    values = zip(VALUES.items(), ("accuracy", "worst", "auc", "kb"), strict=True)
    parts = [rows.assign(of=of, value=times * rows[name]) for (of, times), name in values]
    return over_seeds(pd.concat(parts), "value", ["network", "guarantee", "of"])


def lost(table: pd.DataFrame, change: str) -> pd.DataFrame:
    """Points of accuracy that a change takes, from whom more, and how many more than from networks of SGD, paired."""
    on = ["rule", "epsilon", "who", "seed"]
    after = table[table["change"] == change].rename(columns={"accuracy": "after"})[[*on, "after"]]
    taken = spoken(table[table["change"] == "whole"]).merge(after, on=on, validate="one_to_one")
    taken = taken.assign(of="points lost", value=100 * (taken["accuracy"] - taken["after"]))
    wide = taken.pivot(index=["trained", "of", "seed"], columns="who", values="value")
    gap = (wide["minority"] - wide["majority"]).rename("value").reset_index()
    taken = pd.concat([taken, gap.assign(who="minority less majority")])
    plain = taken["trained"] == PLAIN
    more = less(taken[~plain], taken[plain], ["who", "seed"]).assign(of="more than SGD")
    return over_seeds(pd.concat([taken, more]), "value", ["trained", "of", "who"])


def score(accuracy: float, auc: float, bias: float, advantage: float = 1.0, most: float = 0.5) -> float:
    """Harmonic mean of utility, privacy and fairness, each in [0, 1]: ours, after the idea of Hassanpour et al. (2024).

    Accuracy, 1 - max(0, 2 AUC - 1) / advantage, and 1 - bias / most. What counts as worst moves the order of networks.

    >>> round(score(0.9, 0.6, 0.1), 6)  # 3 / (1 / 0.9 + 1 / 0.8 + 1 / 0.8)
    0.830769
    """
    lost = max(0.0, 2 * auc - 1) / advantage, bias / most
    parts = [accuracy, *(round(max(0.0, 1 - one), 12) for one in lost)]
    return 3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """Harmonic score of each network and the ranks that what counts as worst gives it; bias majority less minority."""
    rows = spoken(table)
    wide = rows.pivot_table(index=["trained", "change"], columns="who", values=["accuracy", "auc"], sort=False)
    gap = (wide["accuracy", "majority"] - wide["accuracy", "minority"]).clip(lower=0)
    three = zip(wide["accuracy", "all"], wide["auc", "all"], gap, strict=True)
    networks = dict(zip(map(": ".join, wide.index), three, strict=True))
    each = product(product((0.25, 0.5, 1.0), repeat=2), networks.items())
    found = pd.DataFrame([(name, *most, score(*values, *most)) for most, (name, values) in each])
    found = found.set_axis(["network", "advantage", "bias", "score"], axis=1)
    found["rank"] = found.groupby(["advantage", "bias"])["score"].rank(ascending=False, method="min").astype(int)
    ranks = found.groupby("network", sort=False).agg(
        score=("score", "last"), best=("rank", "min"), worst=("rank", "max")
    )
    return ranks.sort_values("score", ascending=False, kind="stable").reset_index()


if __name__ == "__main__":
    wanted = [(seed,) for seed in range(int(sys.argv[1]))]
    tables.grown(tables.place("digits_three_prices"), ["seed"], wanted, lambda seed: rows([seed], progress=False))
