"""Overlap of masks (Jaccard: both over either): is a selection the network's property, or the seed's?"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from linfair.study.cell import Cell, Worker

MASK_SEED_STEP = 1_000_000_007  # between two mask seeds of one teacher: far from every seed a study uses


def mask_overlap(cells: Sequence[Cell], *, n_masks: int = 3, **how: object) -> pd.DataFrame:
    """How alike the `n_masks` masks are that one method finds on the same teacher with other mask seeds."""
    rows = []
    for cell in cells:
        worker = Worker(cell, **how)
        paths = [worker.path.records]
        for number in range(1, n_masks):
            stages = replace(worker.stages, seeds=[seed + number * MASK_SEED_STEP for seed in cell.seeds])
            paths.append(stages.path(worker.teacher, cell.method, cell.budgets, worker.options).records)
        for at_budget in zip(*paths, strict=True):
            for seed, *masks in zip(cell.seeds, *(one.masks for one in at_budget), strict=True):
                found = np.mean([a.jaccard(b) for a, b in combinations(masks, 2)])
                rows.append([cell.method, at_budget[0].budget, seed, masks[0].kept, masks[0].total, found])
    return pd.DataFrame(rows, columns=["method", "budget", "seed", "kept", "total", "jaccard"])


def expected_jaccard(kept: int, total: int) -> float:
    """Expected Jaccard index of two random masks: X units are shared, hypergeometric, and J = X / (2 kept - X)."""
    shared = np.arange(max(0, 2 * kept - total), kept + 1)
    return float(np.sum(stats.hypergeom(total, kept, kept).pmf(shared) * shared / (2 * kept - shared)))
