"""Notebook 13: what pruning itself does before anything is retrained, and what goes with what over groups."""

from collections.abc import Sequence

import pandas as pd
from scipy import stats

from linfair.engine.store import ResultStore
from linfair.metrics.measure import Original, measure
from linfair.study.cell import Cell, Worker
from linfair.study.tables import by_role, over_seeds
from linfair.training import threads


def before_retraining(
    cells: Sequence[Cell], *, store: ResultStore | None = None, progress: bool = True
) -> pd.DataFrame:
    """Rows of `linfair.measure` of the pruned networks as they are before retraining, and of the original ones."""
    frames = []
    for cell in cells:
        worker = Worker(cell, store or ResultStore.default(), progress)
        original = Original(worker.teacher.model, worker.stages.data)
        networks = {1.0: original.model} | {one.budget: one.model for one in worker.path.records}
        for budget, network in networks.items():
            with threads(worker.stages.threads):
                rows = measure(network, worker.stages.data, cell.seeds, budget, original=original, gradients=())
            frames.append(rows.assign(arm="not retrained", method=cell.method))
    return pd.concat(frames, ignore_index=True)


def accuracy(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Accuracy in % of both roles, mean over seeds by arm and budget."""
    rows = by_role(table[table["split"] == split])
    return over_seeds(rows.assign(value=100 * rows["accuracy"]), "value", ["arm", "group_name", "budget"])


def together(table: pd.DataFrame, one: str, other: str, *, split: str, arm: str = "original") -> pd.DataFrame:
    """Spearman's correlation of two columns over the groups of a seed in one network, mean over seeds by budget."""
    rows = table[(table["split"] == split) & (table["arm"] == arm)].dropna(subset=[one, other])
    each = rows.groupby(["budget", "seed"], sort=False)[[one, other]].apply(
        lambda part: stats.spearmanr(part[one], part[other]).statistic
    )
    return over_seeds(each.rename("value").reset_index(), "value", ["budget"])
