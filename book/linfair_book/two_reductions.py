"""ReLUs or weights: the same original networks lose the same share of either, and of both in either order."""

from collections.abc import Sequence
from functools import partial
from itertools import permutations

import pandas as pd
from torch import nn

from linfair.engine.store import ResultStore
from linfair.linearizers.record import LinearizedModel
from linfair.metrics.measure import Original, measure
from linfair.mitigation import PLAIN
from linfair.study.cell import Cell, Worker, run
from linfair.study.grids import grid
from linfair.study.tables import by_role, over_seeds
from linfair.training import threads
from linfair_book.averages import alike, gains, paired

METHODS = {"ReLUs": "snl", "weights": "prune_magnitude"}
"""What is removed, and by which method."""
REPAIRS = ("lagrangian(clip=5.0, mu=0.005)", "balanced_sampling")


def compute(
    seeds: Sequence[int],
    *,
    repairs: Sequence[str] = REPAIRS,
    store: ResultStore | None = None,
    progress: bool = True,
    **how: object,
) -> pd.DataFrame:
    """Both reductions of the same original networks with control and repairs: rows of `study.run` with `removed`."""
    arms, run_ = ("original", PLAIN, "control", *repairs), partial(run, store=store, progress=progress)
    parts = [run_(_cells(method, seeds, **how), arms=arms).assign(removed=what) for what, method in METHODS.items()]
    return pd.concat(parts, ignore_index=True)


def in_sequence(
    seeds: Sequence[int],
    *,
    share: float = 0.4,
    store: ResultStore | None = None,
    progress: bool = True,
    **how: object,
) -> pd.DataFrame:
    """One reduction, fine-tuned, then the other of what it left, fine-tuned: each alone and both orders.

    The network in the middle is the teacher of the second step. Rows as of `linfair.measure` with `removed`.
    """
    cells = [_cells(method, seeds, budgets=[share], **how) for method in METHODS.values()]
    frames = []

    def add(model: nn.Module, budget: float, **about: str) -> None:
        with threads(stages.threads):
            rows = measure(model.eval(), stages.data, stages.seeds, budget, original=original)
        frames.append(rows.assign(**about))

    for pair in zip(*cells, strict=True):
        workers = [Worker(cell, store or ResultStore.default(), progress, keep=True) for cell in pair]
        stages = workers[0].stages
        original = Original(workers[0].teacher.model, stages.data)
        add(original.model, 1.0, removed="nothing", arm="original")
        for (name, one), (other, two) in permutations(zip(METHODS, workers, strict=True)):
            (first,) = one.students(PLAIN)
            add(first.model, share, removed=name, arm=PLAIN)
            add(_again(one, two, first).model, share, removed=f"{name}, then {other}", arm=PLAIN)
    return pd.concat(frames, ignore_index=True)


def _again(one: Worker, two: Worker, first: LinearizedModel) -> LinearizedModel:
    """The second step: the first's student takes the place of the original network."""
    middle = one.stages.given(first.model)
    path = one.stages.path(middle, two.cell.method, two.cell.budgets, two.options)
    return one.stages.student(middle, path.records[0], two.recipe.finetune).record


def _cells(method: str, seeds: Sequence[int], data: str = "digits", network: str = "mlp", **how: object) -> list[Cell]:
    options = {"exact": True, "check_every": 1} if method == "snl" else {}
    return grid(data, network, method=method, seeds=seeds, options=options, curvature="none", **how)


def losses(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Points of accuracy that each reduction takes beyond its control, by role, mean over seeds."""
    return _of_each(table, against=PLAIN, arms=["control"], split=split)


def repaired(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """What each repair changes against plain fine-tuning, in points, by role, mean over seeds."""
    return _of_each(table, against=PLAIN, split=split)


def _of_each(table: pd.DataFrame, **how: object) -> pd.DataFrame:
    parts = [gains(rows, **how).assign(removed=removed) for removed, rows in table.groupby("removed", sort=False)]
    return pd.concat(parts, ignore_index=True)


def same_groups(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Spearman's correlation, over the groups of a seed, of what they lose by ReLUs and by weights, mean over seeds."""
    each = {
        removed: paired(rows, arm="control", against=PLAIN, split=split)
        for removed, rows in table.groupby("removed", sort=False)
    }
    lost = {removed: rows.set_index(["budget", "seed", "group_name"])["value"] for removed, rows in each.items()}
    return alike(pd.DataFrame(lost).reset_index(), *METHODS)


def order_effect(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Accuracy with weights removed first minus that with ReLUs first, in points, by role, mean over seeds."""
    rows = by_role(table[table["split"] == split])
    wide = 100 * rows.pivot_table(index=["role", "seed"], columns="removed", values="accuracy")
    one, two = (f"{first}, then {then}" for first, then in (("weights", "ReLUs"), ("ReLUs", "weights")))
    share = float(table.loc[table["removed"] == one, "budget"].iloc[0])
    effect = (wide[one] - wide[two]).rename("value").reset_index().assign(budget=share)
    return over_seeds(effect, "value", ["role", "budget"])
