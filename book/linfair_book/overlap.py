"""Overlap of masks: is what a method selects a property of the network, or of the seed?

The Jaccard index of two masks is the number of units that both keep over the number that either keeps.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from linfair.engine.stages import Stages
from linfair.engine.store import ResultStore
from linfair.study.cell import Cell, Worker

MASK_SEED_STEP = 1_000_000_007  # between two mask seeds of one teacher: far from every seed a study uses


def mask_overlap(
    cells: Sequence[Cell], *, n_masks: int = 3, store: ResultStore | None = None, progress: bool = True
) -> pd.DataFrame:
    """How alike the `n_masks` masks are that one method finds on the same teacher with other mask seeds."""
    if n_masks < 2:
        raise ValueError(f"overlap is that of at least two masks, got n_masks={n_masks}")
    rows = []
    for cell in cells:
        worker = Worker(cell, store or ResultStore.default(), progress)
        paths = [worker.path.records]
        for number in range(1, n_masks):
            seeds = [seed + number * MASK_SEED_STEP for seed in cell.seeds]
            stages = Stages(worker.sets, seeds, worker.store, count=worker.stages.threads, progress=progress)
            paths.append(stages.path(worker.teacher, cell.method, cell.budgets, worker.options).records)
        for at_budget in zip(*paths, strict=True):
            for seed, *masks in zip(cell.seeds, *(one.masks for one in at_budget), strict=True):
                found = np.mean([a.jaccard(b) for a, b in combinations(masks, 2)])
                rows.append([cell.method, at_budget[0].budget, seed, masks[0].kept, masks[0].total, found])
    return pd.DataFrame(rows, columns=["method", "budget", "seed", "kept", "total", "jaccard"])


def expected_jaccard(kept: int, total: int) -> float:
    """Expected Jaccard index of two independent random masks that keep `kept` of `total` units.

    They share X units, hypergeometric, and J = X / (2 kept - X). For many units this is b / (2 - b), b = kept / total.

    >>> round(expected_jaccard(1, 4), 6), round(expected_jaccard(2_000, 5_000), 3)
    (0.25, 0.25)
    """
    if not 1 <= kept <= total:
        raise ValueError(f"need 1 <= kept <= total, got kept={kept}, total={total}")
    shared = np.arange(max(0, 2 * kept - total), kept + 1)
    return float(np.sum(stats.hypergeom(total, kept, kept).pmf(shared) * shared / (2 * kept - shared)))
