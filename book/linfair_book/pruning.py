"""Notebook 13: what pruning itself does before anything is retrained."""

from collections.abc import Sequence

import pandas as pd

from linfair.metrics.measure import Original, measure
from linfair.study.cell import Cell, Worker
from linfair.training import threads


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
