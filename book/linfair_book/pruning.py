"""Notebook 13: what pruning itself does before anything is retrained, and the rows of faces."""

from collections.abc import Mapping, Sequence

import pandas as pd

from linfair.metrics.measure import Original, measure
from linfair.study.cell import Cell, Worker
from linfair.training import threads
from linfair_book import tables
from linfair_book.faces import unrepaired

FACES = {"small CNN": "utkface_race_cnn_pruning_thin", "ResNet18, width 8": "utkface_race_pruning_thin"}
"""Networks pruned on UTKFace by race, as pages write them -> the table of their rows, those of `pruning_thin`."""


def before_retraining(cells: Sequence[Cell], **how: object) -> pd.DataFrame:
    """Rows of `linfair.measure` of the pruned networks as they are before retraining, and of the original ones."""
    frames = []
    for cell in cells:
        worker = Worker(cell, **how)
        original = Original(worker.teacher.model, worker.stages.data)
        networks = {1.0: original.model} | {one.budget: one.model for one in worker.path.records}
        for budget, network in networks.items():
            with threads(worker.stages.threads):
                rows = measure(network, worker.stages.data, cell.seeds, budget, original=original, gradients=())
            frames.append(rows.assign(arm="not retrained", method=cell.method))
    return pd.concat(frames, ignore_index=True)


def on_faces() -> dict[str, pd.DataFrame]:
    """Committed rows of each network of `FACES`; arms without the `(kd=0.0)` that all of them have."""
    found = {name: tables.committed(table) for name, table in FACES.items()}
    plain = {name: rows["arm"].str.removesuffix("(kd=0.0)") for name, rows in found.items()}
    return {name: rows.assign(base=rows["base"].fillna(""), arm=plain[name]) for name, rows in found.items()}


def usual(networks: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The rows of `on_faces` of original networks trained on cross entropy, of their plain and control ones."""
    return {name: unrepaired(rows[rows["base"] == ""]) for name, rows in networks.items()}
