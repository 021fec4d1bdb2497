"""ReLUs or weights: the same original networks lose the same share of either, and of both in either order."""

from collections.abc import Sequence
from itertools import permutations

import pandas as pd
from torch import nn

from linfair.metrics.measure import Original, measure
from linfair.mitigation import PLAIN
from linfair.study.cell import Worker
from linfair.study.grids import grid
from linfair.study.tables import over_seeds
from linfair.training import threads
from linfair_book import tables
from linfair_book.averages import alike, gains, paired

METHODS = {"ReLUs": "snl", "weights": "prune_magnitude"}
"""What is removed, and by which method."""
REPAIRS = ("lagrangian(clip=5.0, mu=0.005)", "balanced_sampling")


def compute(seeds: Sequence[int], **how: object) -> pd.DataFrame:
    """Both reductions of the same original networks with control and repairs: rows of `study.run` with `removed`."""
    arms = ("original", PLAIN, "control", *REPAIRS)
    return _by_reduction(pd.concat(tables.ran(arms, seeds=seeds, **_grid(one) | how) for one in METHODS.values()))


def committed() -> pd.DataFrame:
    """The same on digits from the rows that come with the book."""
    return _by_reduction(tables.committed("digits_mlp_two_reductions"))


def _by_reduction(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with what was removed in `removed`; those of the original networks stand with either."""
    rows = rows.drop_duplicates(["method", "arm", "budget", "seed", "split", "group"])
    parts = [rows[rows["method"].isin([one, "original"])].assign(removed=what) for what, one in METHODS.items()]
    return pd.concat(parts, ignore_index=True)


def in_sequence(seeds: Sequence[int], *, share: float = 0.4, **how: object) -> pd.DataFrame:
    """One reduction, fine-tuned, then the other of what it left, fine-tuned: each alone and both orders."""
    cells = [grid(seeds=seeds, budgets=[share], **_grid(method) | how) for method in METHODS.values()]
    frames = []

    def add(model: nn.Module, budget: float, **about: str) -> None:
        with threads(stages.threads):
            rows = measure(model.eval(), stages.data, stages.seeds, budget, original=original)
        frames.append(rows.assign(**about))

    for pair in zip(*cells, strict=True):
        workers = [Worker(cell, keep=True) for cell in pair]
        stages = workers[0].stages
        original = Original(workers[0].teacher.model, stages.data)
        add(original.model, 1.0, removed="nothing", arm="original")
        for (name, one), (other, two) in permutations(zip(METHODS, workers, strict=True)):
            (first,) = one.students(PLAIN)
            add(first.model, share, removed=name, arm=PLAIN)
            middle = one.stages.given(first.model)  # the student takes the place of the original network
            path = one.stages.path(middle, two.cell.method, two.cell.budgets, two.options)
            again = one.stages.student(middle, path.records[0], two.recipe.finetune).record
            add(again.model, share, removed=f"{name}, then {other}", arm=PLAIN)
    return pd.concat(frames, ignore_index=True)


def _grid(method: str) -> dict[str, object]:
    options = {"exact": True, "check_every": 1} if method == "snl" else {}
    return {"data": "digits", "network": "mlp", "method": method, "options": options, "curvature": "none"}


def gained(table: pd.DataFrame, *, split: str = "test", arms: Sequence[str] = ()) -> pd.DataFrame:
    """Points that arms, by default the repairs, have more than plain fine-tuning, by what was removed and role."""
    how = {"against": PLAIN, "split": split, "arms": arms}
    parts = [gains(rows, **how).assign(removed=removed) for removed, rows in table.groupby("removed", sort=False)]
    return pd.concat(parts, ignore_index=True)


def same_groups(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Spearman's correlation, over the groups of a seed, of what they lose by ReLUs and by weights, mean over seeds."""
    lost, how = {}, {"arm": "control", "against": PLAIN, "split": split}
    for removed, rows in table.groupby("removed", sort=False):
        lost[removed] = paired(rows, **how).set_index(["budget", "seed", "group_name"])["value"]
    return alike(pd.DataFrame(lost).reset_index(), *METHODS)


def at_other_shares(relus: pd.DataFrame, weights: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """As `same_groups`, of two studies with other shares and the same seeds: a line for each pair of `shares`."""
    one, other = (paired(rows, arm="control", against=PLAIN, split=split) for rows in (relus, weights))
    both = one.merge(other, on=["seed", "group_name"], suffixes=("", "_other"))
    shares = [
        f"{100 * a:g} % of ReLUs, {100 * b:g} % of weights" for a, b in both[["budget", "budget_other"]].to_numpy()
    ]
    return alike(both.assign(budget=shares), "value", "value_other").rename(columns={"budget": "shares"})


def order_effect(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Accuracy with weights removed first minus that with ReLUs first, in points, by role, mean over seeds."""
    one, two = (f"{first}, then {then}" for first, then in (("weights", "ReLUs"), ("ReLUs", "weights")))
    each = paired(table.assign(arm=table["removed"]), arm=one, against=two, split=split, pooled="role")
    return over_seeds(each, "value", ["role", "budget"])
