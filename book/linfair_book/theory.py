"""The propositions on trained networks: pieces along lines, shares of groups that lose, both sides of two bounds.

Networks come from a study's cell, so they are those whose accuracies the other pages show; `linfair.theory` holds the
statements. Tables are tidy, a row per seed, budget and what is counted.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.gates import install
from linfair.masks import apply_mask
from linfair.metrics import mean_interval
from linfair.study.cell import Cell, Worker
from linfair.study.store import ResultStore
from linfair.theory.bound import BoundRow, excess_bound, ranking
from linfair.theory.hessian import READINGS, hessian_bound
from linfair.theory.optimality import optimality_shares
from linfair.theory.pieces import counts_on_lines
from linfair.training import threads

VARIANTS = {
    "weights": "fine-tuned, weights",
    "gates": "fine-tuned, weights and alphas",
    "mask": "mask only, weights",
    "mask gates": "mask only, weights and alphas",
}
"""How Theorem 4.4 is read: which network, and what counts as its parameters."""


@dataclass(frozen=True)
class Trained:
    """One network of a study with its linearized forms.

    Attributes:
        seed: Its seed.
        data: Its data set.
        original: The network with all its ReLUs, no gates.
        linearized: The fine-tuned network of each budget, with gates.
        masked: The original's weights under each budget's mask, nothing fine-tuned.
    """

    seed: int
    data: GroupedData
    original: nn.Module
    linearized: dict[float, nn.Module]
    masked: dict[float, nn.Module]


def trained(
    cell: Cell, *, networks: int | None = None, store: ResultStore | None = None, progress: bool = True
) -> list[Trained]:
    """The networks of a cell, from the store where they are there, else trained.

    Args:
        cell: From `study.grid`.
        networks: How many, the first seeds; all by default.
        store: Where networks are kept; the user's cache by default.
        progress: Show progress bars.

    Returns:
        One record for each seed.
    """
    worker = Worker(cell, store or ResultStore.default(), progress, keep=True)
    students = list(worker.students("plain"))
    originals = _members(worker.teacher.model)
    tuned = {one.budget: _members(one.model) for one in students}
    found = []
    for number, seed in enumerate(cell.seeds[:networks]):
        masked = {}
        for one in students:
            gated = install(copy.deepcopy(originals[number]), worker.sets[number].input_shape)
            masked[one.budget] = apply_mask(gated, one.masks[number]).eval()
        linearized = {budget: members[number].eval() for budget, members in tuned.items()}
        found.append(Trained(seed, worker.sets[number], originals[number].eval(), linearized, masked))
    return found


def _members(model: nn.Module) -> list[nn.Module]:
    return model.networks() if isinstance(model, Ensemble) else [model]


def line_table(networks: Sequence[Trained], *, lines: int, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """Linear pieces of each network on segments between two random inputs of different labels.

    What is counted is the difference of the two labels' logits: the two-class decision along the segment.

    Args:
        networks: From `trained`; networks of linear layers.
        lines: Segments for each seed, the same for all its budgets.
        split: Where the inputs are from.
        seed: Of the choice.

    Returns:
        A row for each seed, budget (1.0 the original) and line: `seed`, `budget`, `line`, `pieces`.
    """
    rows = []
    for one in networks:
        part = one.data.splits[split]
        x = one.data.normalise(part.x).flatten(1)
        generator = torch.Generator().manual_seed(seed)
        pairs = list(_pairs_of_labels(part.y, lines, generator))
        for budget, network in {1.0: one.original, **one.linearized}.items():
            for line, (i, j) in enumerate(pairs):
                weights = np.zeros(one.data.classes)
                weights[part.y[[i, j]].tolist()] = 1, -1
                (count,) = counts_on_lines(network, x[[i]], x[[j]], output=weights.tolist())
                rows.append({"seed": one.seed, "budget": budget, "line": line, "pieces": count})
    return pd.DataFrame(rows)


def _pairs_of_labels(labels: torch.Tensor, count: int, generator: torch.Generator) -> Iterator[tuple[int, int]]:
    while count:
        i, j = torch.randint(len(labels), (2,), generator=generator).tolist()
        if labels[i] != labels[j]:
            yield i, j
            count -= 1


def loss_shares(table: pd.DataFrame, *, splits: Sequence[str] = ("train", "test")) -> pd.DataFrame:
    """How often R(a) >= 0, as Prop. 4.3 says of every group.

    Args:
        table: Rows of `study.run`, one linearized arm.
        splits: Where R(a) was measured.

    Returns:
        A row for each split, budget and `who`: for `majority` and `minority` the mean over seeds of the share of groups
        with R(a) >= 0, with a 95 % t interval; for `all` the share of seeds in which no group gains, with a Wilson
        interval. Columns `split`, `budget`, `who`, `mean`, `low`, `high`, `n` (seeds).
    """
    part = table[table["split"].isin(splits)].assign(loses=lambda rows: (rows["excess"] >= 0).astype(float))
    rows = []
    for (split, budget, role), found in part.groupby(["split", "budget", "role"]):
        share = mean_interval(found.groupby("seed")["loses"].mean().tolist())
        ends = {"mean": share.mean, "low": max(0.0, share.low), "high": min(1.0, share.high), "n": share.n}
        rows.append({"split": split, "budget": budget, "who": role, **ends})
    worst = part.groupby(["split", "budget", "seed"], as_index=False)["excess"].min()
    every = optimality_shares(worst, by=("split", "budget")).assign(mean=lambda rows: rows["share"], who="all")
    found = pd.concat([pd.DataFrame(rows), every[["split", "budget", "who", "mean", "low", "high", "n"]]])
    return found.sort_values("split", key=lambda names: names.map(list(splits).index), kind="stable", ignore_index=True)


def hessian_table(networks: Mapping[str, nn.Module], data: GroupedData, *, split: str = "train") -> pd.DataFrame:
    """Both sides of Prop. 4.5 for every group of some binary classifiers.

    Args:
        networks: Classifiers by name.
        data: Their data set, two labels.
        split: Where the Hessians are taken.

    Returns:
        A row for each network and group: `network`, `group`, `n`, `eigenvalue`, `converged`, and each of
        `linfair.theory.hessian.READINGS` with its right side.
    """
    rows = []
    for name, network in networks.items():
        with threads(1):
            found = hessian_bound(network, data, split)
        for row in found:
            sides = {reading: getattr(row, reading).total for reading in READINGS}
            known = {"network": name, "group": data.group_names[row.group], "n": row.n}
            rows.append({**known, "eigenvalue": row.eigenvalue, "converged": row.converged, **sides})
    return pd.DataFrame(rows)


def bound_table(networks: Sequence[Trained], budgets: Sequence[float], *, split: str = "train") -> pd.DataFrame:
    """Both sides of Theorem 4.4 for every group, in the four readings of `VARIANTS`.

    Args:
        networks: From `trained`.
        budgets: Some of the budgets.
        split: Where the risks are measured.

    Returns:
        A row for each reading, seed, budget and group: `variant`, `seed`, `budget` and the fields and properties of
        `linfair.theory.bound.BoundRow`.
    """
    rows = []
    for one in networks:
        for budget in budgets:
            for variant in VARIANTS:
                model = (one.masked if variant.startswith("mask") else one.linearized)[budget]
                with threads(1):  # small networks: more threads wait for each other
                    found = excess_bound(model, one.original, one.data, split, alpha=variant.endswith("gates"))
                rows += [{"variant": variant, "seed": one.seed, "budget": budget, **_columns(row)} for row in found]
    return pd.DataFrame(rows)


def _columns(row: BoundRow) -> dict[str, object]:
    derived = ("first", "second", "second_absolute", "bound", "bound_absolute", "holds", "holds_absolute", "looseness")
    return asdict(row) | {name: getattr(row, name) for name in derived}


def bound_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Theorem 4.4 in numbers: a row for each reading and budget.

    Args:
        table: From `bound_table`.

    Returns:
        `variant`, `budget`, `seeds`, `rows` (groups times seeds), `violated` (R(a) above the right side), `losing`
        (R(a) > 0), `looseness` (median of bound / R(a) over the losing), `remainder` (median of |remainder| / |R(a)|).
    """
    rows = []
    for (variant, budget), part in table.groupby(["variant", "budget"], sort=False):
        losing = part["excess"] > 0
        rows.append(
            {
                "variant": variant,
                "budget": budget,
                "seeds": part["seed"].nunique(),
                "rows": len(part),
                "violated": int((~part["holds"].astype(bool)).sum()),
                "losing": int(losing.sum()),
                "looseness": part.loc[losing, "looseness"].median(),
                "remainder": (part["remainder"].abs() / part["excess"].abs()).median(),
            }
        )
    return pd.DataFrame(rows)


def rank_table(table: pd.DataFrame, terms: Sequence[str] = ("bound", "first", "second")) -> pd.DataFrame:
    """Whether the bound and its terms order the groups as R(a) does: Spearman within each seed, then over seeds.

    Args:
        table: From `bound_table`.
        terms: Attributes of `BoundRow`.

    Returns:
        A row for each reading, budget and term: `variant`, `budget`, `term`, `mean` with its 95 % t interval `low`,
        `high`, cut at -1 and 1, and `n` seeds with a defined correlation.
    """
    rows = []
    names = BoundRow.__dataclass_fields__
    for (variant, budget), part in table.groupby(["variant", "budget"], sort=False):
        for term in terms:
            by_seed = [
                ranking([BoundRow(**{name: row[name] for name in names}) for row in group.to_dict("records")], term)
                for _, group in part.groupby("seed")
            ]
            known = [one.spearman for one in by_seed if not np.isnan(one.spearman)]
            if known:
                found = mean_interval(known)
                ends = {"low": max(-1.0, found.low), "high": min(1.0, found.high)} if found.n > 1 else {}
                numbers = {"mean": found.mean, "low": np.nan, "high": np.nan, "n": found.n} | ends
                rows.append({"variant": variant, "budget": budget, "term": term, **numbers})
    return pd.DataFrame(rows)
