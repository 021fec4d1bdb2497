"""How far the released estimators are off: per-batch gradient norm and eigenvalue against the batch size.

The released code takes the mean over batches of a group's gradient norm and the maximum of its eigenvalue: both too
large where batches hold few of the group, so on data in either order, sorted by class or shuffled, both are measured.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData, Split
from linfair.engine.store import ResultStore, key
from linfair.metrics import group_gradient_norms, top_eigenvalues
from linfair.metrics.measure import networks_of
from linfair.study.cell import Cell, Worker
from linfair.training import threads
from linfair_book.tables import geometric


def shuffled(data: GroupedData, split: str, *, seed: int) -> GroupedData:
    """The same data set with one split in another order, as a shuffling loader hands it out; the provenance says so."""
    part = data.splits[split]
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed)).to(part.y.device)
    mixed = Split(part.x[order], part.y[order], part.a[order])
    known = data.provenance | {"shuffled": {"split": split, "seed": seed}}
    return replace(data, splits=data.splits | {split: mixed}, provenance=known)


def estimator_bias(
    model: nn.Module,
    data: GroupedData,
    *,
    split: str = "train",
    batch_sizes: Sequence[int] = (16, 32, 64, 128, 256),
    quantities: Sequence[str] = ("gradient norm", "top eigenvalue"),
    tol: float = 1e-2,
    seed: int = 0,
) -> pd.DataFrame:
    """The released estimators of one network at several batch sizes, beside the exact values, of each group."""
    orders = {"stored": data, "shuffled": shuffled(data, split, seed=seed)}
    lines = []
    for quantity in quantities:
        exact = [value for value, _, _ in _measured(quantity, model, data, split, tol=tol)]
        for (order, one), size in product(orders.items(), batch_sizes):
            found = _measured(quantity, model, one, split, tol=tol, estimator="per_batch", batch_size=size)
            for group, (value, n, batches) in enumerate(found):
                about = [data.group_names[group], data.roles[group], data.counts[group], n, batches]
                lines.append([quantity, order, size, group, *about, value, exact[group]])
    about = ["group_name", "role", "n_train", "n", "batches"]
    table = pd.DataFrame(lines, columns=["quantity", "order", "batch_size", "group", *about, "value", "exact"])
    return table.assign(ratio=table["value"] / table["exact"].where(table["exact"] > 0))


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
    networks: int | None = None,
    store: ResultStore | None = None,
    progress: bool = True,
    **options: object,
) -> pd.DataFrame:
    """`estimator_bias` of a study's original networks (of the first `networks` seeds of a cell), stored like an arm."""
    tables = []
    for cell in cells:
        worker = Worker(cell, store, progress)
        name = key({"stage": "bias", "networks": networks, "arm": worker.name("original")} | options)
        if (table := worker.store.read(name)) is None:
            teacher = worker.teacher
            with threads(worker.stages.threads):
                each = list(zip(networks_of(teacher.model), worker.sets, cell.seeds, strict=True))[:networks]
                parts = [estimator_bias(network, data, **options).assign(seed=seed) for network, data, seed in each]
            table = pd.concat(parts, ignore_index=True).assign(teacher=teacher.digest)
            worker.store.write(name, table)
        tables.append(table.assign(group_name=table["group"].map(dict(enumerate(worker.sets[0].group_names)))))
    return pd.concat(tables, ignore_index=True)


def inflation(table: pd.DataFrame) -> pd.DataFrame:
    """How many times too large the estimators are for majority and minority: geometric over groups, then seeds."""
    by = ["quantity", "order", "batch_size", "role"]
    logs = table.assign(log=np.log(table["ratio"].where(table["ratio"] > 0)))
    return geometric(logs.groupby([*by, "seed"], sort=False, as_index=False)["log"].mean(), "log", by)


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """The minority's mean over the majority's, `exact`, as `estimate` and `estimate / exact`, geometric over seeds."""
    by = ["quantity", "order", "batch_size"]
    means = np.log(table.groupby([*by, "seed", "role"], sort=False)[["exact", "value"]].mean()).unstack("role")
    gap = pd.DataFrame({of: means[of]["minority"] - means[of]["majority"] for of in ("exact", "value")})
    gap = gap.rename(columns={"value": "estimate"}).assign(both=lambda one: one["estimate"] - one["exact"])
    gap = gap.rename(columns={"both": "estimate / exact"}).rename_axis(columns="of").stack().reset_index(name="log")
    return geometric(gap, "log", [*by, "of"])
