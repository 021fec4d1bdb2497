"""The propositions on trained networks (`linfair.theory`): tables of what was counted, and the checks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.data import GroupedData
from linfair.metrics.accuracy import wilson
from linfair.metrics.measure import networks_of
from linfair.study.cell import Cell, Worker
from linfair.study.tables import over_seeds
from linfair.theory.bound import excess_bound
from linfair.theory.hessian import READINGS, hessian_bound
from linfair.theory.optimality import Counterexample
from linfair.training import threads
from linfair.weights import masked as under
from linfair_book.averages import inside
from linfair_book.checks import check
from linfair_book.piecewise import counts_on_lines

Checks = list[dict[str, object]]

VARIANTS = {
    "weights": "fine-tuned, weights",
    "gates": "fine-tuned, weights and alphas",
    "mask": "mask only, weights",
    "mask gates": "mask only, weights and alphas",
}
"""How Theorem 4.4 is read: which network, and what counts as its parameters."""


@dataclass(frozen=True)
class Trained:
    """One network of a study, its fine-tuned forms by budget, and its own weights under their masks, not fine-tuned."""

    seed: int
    data: GroupedData
    original: nn.Module
    linearized: dict[float, nn.Module]
    masked: dict[float, nn.Module]


def trained(cell: Cell, *, networks: int | None = None, **how: object) -> list[Trained]:
    """The networks of a cell's first seeds, from the store where they are there, else trained."""
    worker = Worker(cell, keep=True, **how)
    students = list(worker.students("plain"))
    originals = networks_of(worker.teacher.model)
    tuned = {one.budget: networks_of(one.model) for one in students}
    found = []
    for number, seed in enumerate(cell.seeds[:networks]):
        whole, data = originals[number], worker.sets[number]
        masked = {one.budget: under(whole, data.input_shape, one.masks[number]).eval() for one in students}
        linearized = {budget: members[number].eval() for budget, members in tuned.items()}
        found.append(Trained(seed, data, whole.eval(), linearized, masked))
    return found


def line_table(networks: Sequence[Trained], *, lines: int, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """Pieces of the difference of two labels' logits between two inputs of them, by seed, budget (1.0 all) and line."""
    rows = []
    for one in networks:
        part = one.data.splits[split]
        x = one.data.normalise(part.x).flatten(1)
        pairs = list(_pairs_of_labels(part.y, lines, torch.Generator().manual_seed(seed)))
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
    """How often R(a) >= 0, as Prop. 4.3 says of every group, from a study's rows of one linearized arm."""
    part = table[table["split"].isin(splits)].assign(loses=lambda rows: (rows["excess"] >= 0).astype(float))
    shares = part.groupby(["split", "budget", "role", "seed"], as_index=False)["loses"].mean()
    roles = inside(over_seeds(shares, "loses", ["split", "budget", "role"]), 0, 1)
    roles = roles.rename(columns={"role": "who", "n_seeds": "n"})
    worst = part.groupby(["split", "budget", "seed"])["loses"].min().groupby(["split", "budget"])
    every = worst.agg(["mean", "size"]).rename(columns={"size": "n"}).reset_index().assign(who="all")
    every[["low", "high"]] = [wilson(*one) for one in zip(every["mean"], every["n"], strict=True)]
    found = pd.concat([roles, every])[["split", "budget", "who", "mean", "low", "high", "n"]]
    return found.sort_values("split", key=lambda names: names.map(list(splits).index), kind="stable", ignore_index=True)


def hessian_table(networks: Mapping[str, nn.Module], data: GroupedData, *, split: str = "train") -> pd.DataFrame:
    """Both sides of Prop. 4.5 by binary classifier and group: network, group, n, eigenvalue, converged, `READINGS`."""
    rows = []
    for name, network in networks.items():
        with threads(1):
            found = hessian_bound(network, data, split)
        for row in found:
            known = {"network": name, "group": data.group_names[row.group], "n": row.n}
            sides = {reading: getattr(row, reading).total for reading in READINGS}
            rows.append({**known, "eigenvalue": row.eigenvalue, "converged": row.converged, **sides})
    return pd.DataFrame(rows)


def bound_table(networks: Sequence[Trained], budgets: Sequence[float], *, split: str = "train") -> pd.DataFrame:
    """Both sides of Theorem 4.4 by `VARIANTS`, seed, budget and group: what a `BoundRow` holds and derives."""
    derived = ("first", "second", "bound", "holds", "looseness")
    rows = []
    for one in networks:
        for budget in budgets:
            for variant in VARIANTS:
                model = (one.masked if variant.startswith("mask") else one.linearized)[budget]
                with threads(1):  # small networks: more threads wait for each other
                    found = excess_bound(model, one.original, one.data, split, alpha=variant.endswith("gates"))
                known = {"variant": variant, "seed": one.seed, "budget": budget}
                rows += [{**known, **vars(row)} | {name: getattr(row, name) for name in derived} for row in found]
    return pd.DataFrame(rows)


def bound_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Theorem 4.4 by reading and budget, from `bound_table`: how many rows are violated (R(a) above the right side)."""
    by = ["variant", "budget"]
    losing, remainder = table["excess"] > 0, table["remainder"].abs() / table["excess"].abs()
    rows = table[[*by, "seed"]].assign(violated=~table["holds"].astype(bool), losing=losing, remainder=remainder)
    rows["looseness"] = table["looseness"].where(losing)
    found = {"seeds": ("seed", "nunique"), "rows": ("seed", "size")}
    found |= {name: (name, "sum") for name in ("violated", "losing")}
    found |= {name: (name, "median") for name in ("looseness", "remainder")}
    return rows.groupby(by, sort=False, as_index=False).agg(**found)


def rank_table(table: pd.DataFrame, terms: Sequence[str] = ("bound", "first", "second")) -> pd.DataFrame:
    """Spearman between R(a) and the bound or its terms over groups, mean over seeds, cut at -1 and 1."""
    each = table.groupby(["variant", "budget", "seed"], sort=False)[["excess", *terms]]
    ranks = each.apply(lambda part: part.corr("spearman", min_periods=len(part))["excess"])
    known = ranks[list(terms)].rename_axis(columns="term").stack().dropna().rename("spearman").reset_index()
    return inside(over_seeds(known, "spearman", ["variant", "budget", "term"]), -1, 1)


def check_approximation(rates: pd.DataFrame) -> Checks:
    """Prop. 4.1, from `linfair_book.propositions.rates`."""
    by = rates.set_index("function")
    square = by.loc["square"]
    fit = {"n": int(square["points"]), "of": "numbers of segments", "digits": 3}
    ends = {"n": len(rates), "of": "functions", "digits": 3, "within": (-2.2, -1.8)}
    off = 100 * (rates["scaled"] / rates["limit"] - 1).abs().max()
    lowest, highest = rates["last_order"].min(), rates["last_order"].max()
    return [
        check("exponent for x²", square["order"], key="exponent-of-square", within=(-2.05, -1.95), **fit),
        check("8 n² Eₙ for x²", 8 * square["scaled"], within=(1 - 1e-6, 1 + 1e-6), **fit | {"digits": 6}),
        check("lowest exponent at the largest n", lowest, key="exponent-lowest", **ends),
        check("highest exponent at the largest n", highest, key="exponent-highest", **ends),
        check("largest distance of n² Eₙ from its limit", off, n=len(rates), of="functions", unit="%", digits=1),
        check("exponent for -√x, equally spaced", by.loc["root", "even_order"], key="exponent-root-even", **fit),
    ]


def check_pieces(
    counts: pd.DataFrame, reached: pd.DataFrame, example: Sequence[int], lines: pd.DataFrame, budget: float
) -> Checks:
    """Prop. 4.2, from both tables of `linfair_book.piecewise`, the pieces of Fig. 10's networks, and `line_table`."""
    pieces = counts["pieces"]
    full = counts[counts["share"] == 1.0]
    deepest = full[full["bound"] == full["bound"].max()]
    of_lines = lines.groupby("budget")["pieces"].agg(["mean", "size"])
    each = {"n": len(counts), "of": "networks", "digits": 0}
    built = {"n": len(reached), "of": "constructions", "digits": 0}
    one = {"n": 1, "of": "networks", "digits": 0}
    raised = (pieces > counts["pieces_full"]).sum()
    above = ((pieces > counts["bound_kept"]) | (pieces > counts["bound"])).sum()
    at_product = (reached["pieces"] == reached["bound_kept"]).sum()
    misused = (pieces > counts["printed_with_kept"]).sum()
    typical = {"n": len(deepest), "of": "networks", "digits": 1, "key": "mean-pieces-of-the-deepest"}
    rows = [
        check("counts above one of the bounds", above, key="counts-above-a-bound", within=(0, 0), **each),
        check("constructions at ∏ (1 + w)", at_product, key="constructions-at-the-product", **built),
        check("constructions at the printed bound", (reached["pieces"] == reached["bound"]).sum(), **built),
        check(f"mean pieces, random {deepest['widths'].iloc[0]}", deepest["pieces"].mean(), **typical),
        check("printed bound for these", deepest["bound"].iloc[0], **one),
        check("counts raised by linearizing units", raised, key="counts-raised", **each),
        check("counts above the printed formula of kept ReLUs", misused, key="counts-above-printed-with-kept", **each),
        check("Fig. 10, two ReLUs", example[0], key="fig-10-pieces", within=(3, 3), **one),
        check("Fig. 10, one of them linearized", example[1], key="fig-10-pieces-linearized", within=(2, 2), **one),
    ]
    for share in (1.0, budget):
        mean, size = of_lines.loc[share]
        what = f"pieces on a segment at {100 * share:g}"
        found = {"n": int(size), "of": "segments", "digits": 1, "key": what.replace(" ", "-")}
        rows.append(check(f"trained networks, {what} %", mean, **found))
    return rows


def check_losing(shares: pd.DataFrame, example: Counterexample) -> Checks:
    """Prop. 4.3, from `loss_shares` and the closed-form counterexample."""
    every = shares[shares["who"] == "all"]
    ends = every[every["budget"].isin([every["budget"].max(), every["budget"].min()])]
    rows, share = [], {"unit": "%", "digits": 0, "within": (100, 100)}
    for row in ends.sort_values("budget", ascending=False, kind="stable").itertuples():
        where, found = f"{row.split}, at {100 * row.budget:g} %", (100 * row.mean, 100 * row.low, 100 * row.high)
        known = share | {"n": row.n, "key": f"no-group-gains-{row.split}-at-{100 * row.budget:g}"}
        rows.append(check(f"networks in which no group gains, {where}", *found, **known))
    exact = {"n": 1, "of": "constructions", "unit": "nats", "within": (0, inf)}
    rows.append(check("counterexample, R of the whole sample", example.overall, key="counterexample-all", **exact))
    minority = min(example.excess)
    return [*rows, check("counterexample, R of the minority", minority, key="counterexample-minority", **exact)]


def check_excess(summary: pd.DataFrame, ranks: pd.DataFrame) -> Checks:
    """Theorem 4.4, from `bound_summary` and `rank_table`."""
    by = summary.groupby("variant")[["violated", "rows"]].sum()
    rows, every = [], {"of": "groups times networks times budgets", "digits": 0, "within": (0, 0)}
    for variant, name in VARIANTS.items():
        known = every | {"n": int(by.loc[variant, "rows"]), "key": f"violated-{variant}".replace(" ", "-")}
        rows.append(check(f"right sides below R(a), {name}", by.loc[variant, "violated"], **known))
    lowest = summary["budget"].min()
    last = summary[(summary["variant"] == "weights") & (summary["budget"] == lowest)].iloc[0]
    loose = {"n": int(last["losing"]), "of": "groups times networks", "unit": "times", "digits": 0}
    at = f"at {100 * lowest:g} %"
    rows.append(check(f"median right side over R(a), {at}", last["looseness"], key="looseness-weights", **loose))
    rank = ranks[(ranks["variant"] == "weights") & (ranks["budget"] == lowest) & (ranks["term"] == "bound")]
    for row in rank.itertuples():
        found = {"n": row.n_seeds, "of": "networks", "key": "rank-of-the-bound", "within": (1e-9, 1)}
        rows.append(check(f"the bound orders the groups as R(a), {at}", row.mean, row.low, row.high, **found))
    return rows


def check_hessian(broken: pd.DataFrame, both: pd.DataFrame) -> Checks:
    """Prop. 4.5, from `linfair_book.propositions.violations` and `hessian_table`."""
    rows, random = [], {"of": "networks", "digits": 0, "within": (0, 0)}
    for row in broken.itertuples():
        known = random | {"n": row.n, "key": f"violations-{row.reading}".replace(" ", "-")}
        rows.append(check(f"random networks that break it, {row.reading}", row.violations, **known))
    networks = [part.sort_values("n")["eigenvalue"] for _, part in both.groupby("network")]
    larger = sum(eigenvalues.iloc[0] > eigenvalues.iloc[-1] for eigenvalues in networks)
    found = {"n": len(networks), "of": "networks", "digits": 0, "key": "minority-has-the-larger-eigenvalue"}
    return [*rows, check("toy networks whose smaller group has the larger eigenvalue", larger, **found)]


def check_stationarity(table: pd.DataFrame) -> Checks:
    """App. A.1, from `linfair_book.propositions.stationarity_table`."""
    off = 100 * (table["ratio"] / table["predicted"] - 1).abs()
    applies = table["applies"].astype(bool)
    exact, other = ({"n": int(chosen.sum()), "of": "cases"} for chosen in (applies, ~applies))
    reversed_ = int((~applies & ~table["holds"].astype(bool)).sum())
    where = {"unit": "%", "digits": 4, "within": (0, 0.01), "key": "ratio-error-where-it-applies"}
    elsewhere = {"unit": "%", "digits": 0, "key": "ratio-error-elsewhere"}
    order = {"digits": 0, "key": "reversed-elsewhere"}
    return [
        check("largest error of the ratio where the assumptions hold", off[applies].max(), **exact, **where),
        check("median error of the ratio where one does not", off[~applies].median(), **other, **elsewhere),
        check("cases where one does not and the order is reversed", reversed_, **other, **order),
    ]
