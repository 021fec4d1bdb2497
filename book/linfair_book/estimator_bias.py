"""How far the released estimators are off: per-batch gradient norm and eigenvalue against the batch size.

The code released with the paper measures |g_a| as the mean over batches of the norm of the group's mean gradient in the
batch, and lambda_max(H_a) as the maximum over batches. Both are biased upward for batches that hold few of the group
(`linfair.metrics.gradients` and `curvature` say why), so their value depends on the batch size, and on the order of the
data: where a split is sorted by class, a batch holds one or two classes and many inputs of each; shuffled, a batch of b
holds a group of share s about s b times, and the minority once or not at all. Here both orders are measured beside
the exact value.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData, Split
from linfair.ensemble import Ensemble
from linfair.metrics import group_gradient_norms, mean_interval, top_eigenvalues
from linfair.study.cell import Cell, Worker
from linfair.study.store import ResultStore, key
from linfair.study.tables import over_seeds
from linfair.training import threads

QUANTITIES = ("gradient norm", "top eigenvalue")
ORDERS = ("stored", "shuffled")


def shuffled(data: GroupedData, split: str, *, seed: int) -> GroupedData:
    """The same data set with one split in another order: what a loader that shuffles would hand out.

    Args:
        data: A data set.
        split: The split to shuffle.
        seed: Of the order.

    Returns:
        A data set with the same inputs, labels and groups; its provenance names the order.
    """
    part = data.splits[split]
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).to(part.y.device)
    mixed = Split(part.x[order], part.y[order], part.a[order])
    return replace(
        data,
        splits=data.splits | {split: mixed},
        provenance=data.provenance | {"shuffled": {"split": split, "seed": seed}},
    )


def estimator_bias(
    model: nn.Module,
    data: GroupedData,
    *,
    split: str = "train",
    batch_sizes: Sequence[int] = (16, 32, 64, 128, 256),
    quantities: Sequence[str] = QUANTITIES,
    shuffles: int = 1,
    tol: float = 1e-2,
    seed: int = 0,
) -> pd.DataFrame:
    """The released estimators of one network at several batch sizes, beside the exact values.

    Args:
        model: One network; the paper's figures of eigenvalues and our bias curves take the original.
        data: Its data set.
        split: Where to measure; the released code takes the test split.
        batch_sizes: Inputs of a batch. One of at least the split's size is the exact value.
        quantities: Some of `QUANTITIES`.
        shuffles: Orders that the value of `shuffled` is averaged over.
        tol: Of the eigenvalues, relative.
        seed: Of the first order.

    Returns:
        A row per (quantity, order, batch_size, group) with group_name, role, n_train, n (inputs of the group in the
        split), batches (those that hold the group; of the last order), value, exact and ratio = value / exact (nan
        where the exact value is not above 0).

    Raises:
        ValueError: For an unknown quantity, a batch size below 1, shuffles below 1, or an ensemble.
    """
    unknown = sorted(set(quantities) - set(QUANTITIES))
    if unknown:
        raise ValueError(f"no quantities {unknown}; there are {', '.join(QUANTITIES)}")
    if shuffles < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"need shuffles >= 1 and batch sizes >= 1, got {shuffles=} and {list(batch_sizes)}")
    orders = {"stored": [data], "shuffled": [shuffled(data, split, seed=seed + number) for number in range(shuffles)]}
    lines = []
    for quantity in quantities:
        exact = [value for value, _, _ in _measured(quantity, model, data, split, tol=tol)]
        for order, sets in orders.items():
            for size in batch_sizes:
                options = {"tol": tol, "estimator": "per_batch", "batch_size": size}
                runs = [_measured(quantity, model, one, split, **options) for one in sets]
                for group, found in enumerate(zip(*runs, strict=True)):
                    value = sum(one[0] for one in found) / len(found)
                    ratio = value / exact[group] if exact[group] > 0 else float("nan")
                    about = [data.group_names[group], data.roles[group], data.counts[group], found[-1][1], found[-1][2]]
                    lines.append([quantity, order, size, group, *about, value, exact[group], ratio])
    about = ["group_name", "role", "n_train", "n", "batches"]
    return pd.DataFrame(lines, columns=["quantity", "order", "batch_size", "group", *about, "value", "exact", "ratio"])


def _measured(
    quantity: str, model: nn.Module, data: GroupedData, split: str, *, tol: float, **options: object
) -> list[tuple[float, int, int]]:
    """Value, inputs and batches of each group."""
    if quantity == "gradient norm":
        return [(row.norm, row.n, row.batches) for row in group_gradient_norms(model, data, split, **options)]
    return [(row.value, row.n, row.batches) for row in top_eigenvalues(model, data, split, tol=tol, **options)]


def run_bias(
    cells: Sequence[Cell],
    *,
    split: str = "train",
    batch_sizes: Sequence[int] = (16, 32, 64, 128, 256),
    quantities: Sequence[str] = QUANTITIES,
    shuffles: int = 1,
    networks: int | None = None,
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """`estimator_bias` of the original networks of a study, stored like an arm and read if it is there.

    Args:
        cells: From `linfair.study.grid`; their methods and budgets do not matter.
        split: Where to measure.
        batch_sizes: Inputs of a batch.
        quantities: Some of `QUANTITIES`.
        shuffles: Orders that the value of `shuffled` is averaged over.
        networks: Measure the first so many seeds of each cell only; None is all.
        store: Where; the user's cache by default.
        progress: Show progress bars of trainings.

    Returns:
        Rows of `estimator_bias` with `seed` and `teacher`.
    """
    store = store or ResultStore.default()
    settings = {"stage": "bias", "split": split, "batch_sizes": list(batch_sizes)}
    settings |= {"quantities": list(quantities), "shuffles": shuffles, "networks": networks}
    tables = []
    for cell in cells:
        worker = Worker(cell, store, progress)
        name = key(settings | {"arm": worker.name("original")})
        table = store.read(name)
        if table is None:
            options = {"split": split, "batch_sizes": batch_sizes, "quantities": quantities, "shuffles": shuffles}
            teacher, digest = worker.teacher.model, worker.teacher.digest
            with threads(worker.stages.threads):
                trained = teacher.networks() if isinstance(teacher, Ensemble) else [teacher]
                measured = list(zip(trained, worker.sets, cell.seeds, strict=True))[:networks]
                table = pd.concat(
                    [
                        estimator_bias(network, data, **options).assign(seed=seed, teacher=digest)
                        for network, data, seed in measured
                    ],
                    ignore_index=True,
                )
            store.write(name, table)
        tables.append(table.assign(group_name=table["group"].map(dict(enumerate(worker.sets[0].group_names)))))
    return pd.concat(tables, ignore_index=True)


def inflation(table: pd.DataFrame) -> pd.DataFrame:
    """How many times too large the estimators are for majority and minority: geometric means over groups, then seeds.

    Args:
        table: From `run_bias`.

    Returns:
        A row per (quantity, order, batch_size, role) with n_seeds, mean, low, high of the ratio to the exact value; the
        interval is a t interval of its logarithm over seeds.
    """
    by = ["quantity", "order", "batch_size", "role"]
    logs = table.assign(log=np.log(table["ratio"].where(table["ratio"] > 0)))
    means = over_seeds(logs.groupby([*by, "seed"], sort=False, as_index=False)["log"].mean(), "log", by)
    return means.assign(**{name: np.exp(means[name]) for name in ("mean", "low", "high")})


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """The minority's mean over the majority's, exactly and as estimated: what the paper's argument rests on.

    Args:
        table: From `run_bias`.

    Returns:
        A row per (quantity, order, batch_size, of) with n_seeds, mean, low, high, geometric over seeds: `of` is
        `exact`, `estimate`, or `estimate / exact`, the distortion, paired within a seed.
    """
    lines = []
    by = ["quantity", "order", "batch_size"]
    for names, part in table.groupby(by, sort=False):
        means = np.log(part.groupby(["seed", "role"])[["exact", "value"]].mean()).unstack("role")
        exact, estimate = (means[name]["minority"] - means[name]["majority"] for name in ("exact", "value"))
        for of, logs in (("exact", exact), ("estimate", estimate), ("estimate / exact", estimate - exact)):
            got = mean_interval(logs.to_numpy())
            lines.append([*names, of, got.n, *np.exp([got.mean, got.low, got.high])])
    return pd.DataFrame(lines, columns=[*by, "of", "n_seeds", "mean", "low", "high"])


def verdict(table: pd.DataFrame) -> str:
    """What the released estimators do at the smallest batch size, in words.

    A distortion of the gap between minority and majority is *shown* when its whole 95 % interval, paired within seeds,
    lies on one side of 1.

    Args:
        table: From `run_bias`.

    Returns:
        A list in markdown, a point for each quantity.
    """
    lines = []
    for quantity, part in table.groupby("quantity", sort=False):
        small = part["batch_size"].min()
        part = part[part["batch_size"] == small]
        found = inflation(part).set_index(["order", "role"])
        gap = gaps(part).set_index(["order", "of"])
        texts = []
        for order in ("shuffled", "stored"):
            change = gap.loc[(order, "estimate / exact")]
            kind = "shrunk" if change["high"] < 1 else "widened" if change["low"] > 1 else "no distortion shown"
            texts.append(
                f"{order}, the estimate is {_number(found.loc[(order, 'majority')])} times too large for the majority, "
                f"{_number(found.loc[(order, 'minority')])} for the minority, and the ratio becomes "
                f"{_number(gap.loc[(order, 'estimate')])} ({kind}: times {_number(change, 2)})"
            )
        exact = gap.loc[(ORDERS[0], "exact")]
        lines.append(
            f"* **{quantity.capitalize()}**, batches of {small}, {part['seed'].nunique()} seeds. Minority over "
            f"majority is exactly {_number(exact)}. {'; '.join(texts).capitalize()}."
        )
    return "\n".join(lines)


def _number(row: pd.Series, digits: int = 1) -> str:
    return f"{row['mean']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
