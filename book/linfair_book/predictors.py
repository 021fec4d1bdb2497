"""Which explanation predicts best: rank correlations of what a group loses with what it was like in the original.

The paper (Das et al., ICML 2024, Secs. 4 and 5) explains who loses by the gradient norm, the top Hessian eigenvalue and
the distance to the decision boundary of each group; behind all three stands the group's size. A predictor is worth what
it says about the loss *before* linearization, so each is taken from the original network and compared over the groups
of one seed by Spearman's rank correlation (C. Spearman, Am. J. Psychol. 15, 1904)

    rho = corr(rank x, rank y).

*Given others*: both rankings lose their least-squares fit on the rankings z of the others first,

    rho_xy.z = corr(rank x - fit, rank y - fit),

and *R2 lost* is how much of the variance of rank y is no longer explained when rank x is left out of all predictors.
Coefficients are computed within a seed, then averaged over seeds with a t interval: it estimates the mean coefficient
over repeated experiments with this data set and these groups, not over other groups. With few groups all of them are
weak, and `weakest` says how weak.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from linfair.metrics import mean_interval
from linfair.study.tables import drops
from linfair_book.ranks import explained, partial_spearman, weakest


@dataclass(frozen=True)
class Predictor:
    """One explanation of who loses.

    Attributes:
        name: What tables and figures call it.
        column: Its column in `group_rows`.
        sign: +1 where the paper expects large values to lose more, -1 where it expects less.
    """

    name: str
    column: str
    sign: int


PREDICTORS = (
    Predictor("gradient norm", "gradient_norm", 1),
    Predictor("margin", "margin", -1),
    Predictor("top eigenvalue", "top_eigenvalue", 1),
    Predictor("group size", "log_size", -1),
    Predictor("original accuracy", "original", -1),
)
"""What is known of a group in the original network; the first three are the paper's."""

OUTCOMES = {
    "drop": "accuracy drop (points)",
    "relative_drop": "relative accuracy drop (%)",
    "excess": "excessive loss R(a)",
    "accuracy": "accuracy",
}

STATISTICS = ("alone", "given group size", "given all others", "R2 lost without it")

_KEYS = ["data", "network", "profile", "seed", "group"]


def group_rows(
    table: pd.DataFrame,
    *,
    split: str = "test_balanced",
    predictors_on: str = "train",
    arm: str = "plain",
    net: bool = False,
) -> pd.DataFrame:
    """What each group lost beside what it was like in the original network.

    Args:
        table: Rows of one method of a study, with the columns of the diagnostics.
        split: Where the losses are measured: drops, `excess`, and `original`, the original network's accuracy.
        predictors_on: Where gradient norm and margin are measured: `train`, as in the paper's theory and known without
            test data, or `test`, as in its released code. The eigenvalue is always that of the training split.
        arm: `plain`, or `control` to see what training alone does.
        net: Take off what the 100 % control lost in the same seed, budget and group: `drop`, `relative_drop` and
            `excess` are then what linearization itself costs.

    Returns:
        A row per (budget, seed, group): `drop`, `relative_drop`, `excess`, `accuracy`; `original`, `gradient_norm`,
        `margin`, `top_eigenvalue` (nan without a search that converged) and `log_size` of the original;
        `own_gradient_norm` and `own_margin` of the linearized network; `distance`, `relative_distance`, n_train, role.

    Raises:
        ValueError: If the table has no diagnostics, no such split or arm, or several methods.
    """
    missing = sorted({"gradient_norm", "margin", "excess", "distance"} - set(table.columns))
    if missing:
        raise ValueError(f"the table has no columns {missing}: it is older than the diagnostics, run its study again")
    for column, value in (("split", split), ("split", predictors_on), ("arm", arm)):
        if value not in set(table[column]):
            raise ValueError(f"the table has no {column} {value!r}; there are {sorted(table[column].unique())}")
    lost = drops(table[table["split"] == split])
    lost = lost[lost["arm"] == arm]
    if lost.duplicated([*_KEYS, "budget"]).any():
        raise ValueError("several methods or options are mixed: select one before asking what explains its drops")
    before = table[(table["arm"] == "original") & (table["split"] == predictors_on)].drop_duplicates(_KEYS)
    curved = table[(table["arm"] == "original") & (table["split"] == "train")].drop_duplicates(_KEYS)
    found = curved["top_eigenvalue_converged"].eq(True) if "top_eigenvalue_converged" in curved else True
    values = curved["top_eigenvalue"].where(found) if "top_eigenvalue" in curved else math.nan
    curved = curved.assign(top_eigenvalue=values)
    own = table[(table["arm"] == arm) & (table["split"] == predictors_on)]
    own = own.rename(columns={"gradient_norm": "own_gradient_norm", "margin": "own_margin"})
    kept = ["budget", "group_name", "role", "n_train", "original", "accuracy", "drop", "relative_drop", "excess"]
    if net:
        control = drops(table[table["split"] == split])
        losses, by = ["drop", "relative_drop", "excess"], [*_KEYS, "budget"]
        control = control[control["arm"] == "control"].set_index(by)[losses]
        lost = lost.set_index(by)
        lost[losses] -= control.loc[lost.index]
        lost = lost.reset_index()
    rows = lost[[*_KEYS, *kept, "distance", "relative_distance"]]
    rows = rows.merge(before[[*_KEYS, "gradient_norm", "margin"]], on=_KEYS, validate="many_to_one")
    rows = rows.merge(curved[[*_KEYS, "top_eigenvalue"]], on=_KEYS, validate="many_to_one")
    rows = rows.merge(own[[*_KEYS, "budget", "own_gradient_norm", "own_margin"]], on=[*_KEYS, "budget"])
    return rows.assign(log_size=np.log(rows["n_train"])).astype({"top_eigenvalue": float})


def per_seed(
    rows: pd.DataFrame, *, outcome: str = "drop", predictors: Sequence[Predictor] = PREDICTORS
) -> pd.DataFrame:
    """The coefficients of each seed.

    Args:
        rows: From `group_rows`.
        outcome: One of `OUTCOMES`.
        predictors: Which predictors; `given all others` means the others among these.

    Returns:
        A row per (budget, seed, predictor, statistic) with `value`, nan where it is not defined.

    Raises:
        ValueError: For an unknown outcome, or fewer than three groups.
    """
    if outcome not in OUTCOMES:
        raise ValueError(f"no outcome {outcome!r}; there are {', '.join(OUTCOMES)}")
    lines = []
    for (budget, seed), part in rows.groupby(["budget", "seed"], sort=False):
        if len(part) < 3:
            raise ValueError(f"ranks of {len(part)} groups say nothing; correlations need at least three")
        y = part[outcome].to_numpy()
        columns = {one.name: part[one.column].to_numpy() for one in predictors}
        fine = np.isfinite(y).all() and all(np.isfinite(column).all() for column in columns.values())
        enough = len(part) - 1 - len(predictors) >= 1
        everything = explained(y, list(columns.values())) if fine and enough else math.nan
        for name, x in columns.items():
            values = dict.fromkeys(STATISTICS, math.nan)
            if np.isfinite(y).all() and np.isfinite(x).all():
                values["alone"] = partial_spearman(x, y)
                if name != "group size" and len(part) >= 4:
                    values["given group size"] = partial_spearman(x, y, [part["log_size"]])
            if fine and enough:
                others = [column for other, column in columns.items() if other != name]
                values["given all others"] = partial_spearman(x, y, others)
                values["R2 lost without it"] = everything - explained(y, others)
            lines += [[budget, seed, len(part), name, statistic, value] for statistic, value in values.items()]
    return pd.DataFrame(lines, columns=["budget", "seed", "n_groups", "predictor", "statistic", "value"])


def correlations(
    rows: pd.DataFrame, *, outcome: str = "drop", predictors: Sequence[Predictor] = PREDICTORS
) -> pd.DataFrame:
    """How well each predictor ranks the groups by an outcome: alone, given the size, given all others, and R2 lost.

    Args:
        rows: From `group_rows`.
        outcome: One of `OUTCOMES`.
        predictors: Which predictors.

    Returns:
        A row per (budget, predictor, statistic) with outcome, n_groups, n_seeds (those with a defined coefficient),
        mean, low, high (95 % t interval over seeds, cut at -1 and 1; nan for fewer than two seeds).

    Raises:
        ValueError: As `per_seed`.
    """
    lines = []
    found = per_seed(rows, outcome=outcome, predictors=predictors)
    for (budget, predictor, statistic), part in found.groupby(["budget", "predictor", "statistic"], sort=False):
        values = part["value"].dropna().to_numpy()
        interval = mean_interval(values) if len(values) else None
        ends = (math.nan,) * 3
        if interval:  # no coefficient lies outside [-1, 1]
            ends = interval.mean, *np.clip([interval.low, interval.high], -1, 1)
        lines.append([outcome, budget, predictor, statistic, part["n_groups"].min(), len(values), *ends])
    names = ["outcome", "budget", "predictor", "statistic", "n_groups", "n_seeds", "mean", "low", "high"]
    return pd.DataFrame(lines, columns=names)


def collinearity(rows: pd.DataFrame, predictors: Sequence[Predictor] = PREDICTORS) -> pd.DataFrame:
    """How far the predictors say the same: their rank correlations with each other, and R2 of each on all others.

    Args:
        rows: From `group_rows`.
        predictors: Which predictors.

    Returns:
        A row per (predictor, with) with n_seeds, mean, low, high; `with` is another predictor, or `all others (R2)`.
    """
    first = rows[rows["budget"] == rows["budget"].min()]
    values: dict[tuple[str, str], list[float]] = {}
    for _, part in first.groupby("seed", sort=False):
        columns = {one.name: part[one.column].to_numpy() for one in predictors}
        if not all(np.isfinite(column).all() for column in columns.values()):
            continue
        for name, x in columns.items():
            others = {other: column for other, column in columns.items() if other != name}
            for other, column in others.items():
                values.setdefault((name, other), []).append(partial_spearman(x, column))
            values.setdefault((name, "all others (R2)"), []).append(explained(x, list(others.values())))
    lines = []
    for (name, other), numbers in values.items():
        defined = [number for number in numbers if not math.isnan(number)]
        if defined:
            got = mean_interval(defined)
            lines.append([name, other, got.n, got.mean, got.low, got.high])
    return pd.DataFrame(lines, columns=["predictor", "with", "n_seeds", "mean", "low", "high"])


@dataclass(frozen=True)
class Ranking:
    """Predictors by how well they rank the groups the way the paper expects.

    Attributes:
        best: Name of the best one.
        lead: For each other predictor the best one's coefficient minus its own, both with the expected sign, within a
            seed: predictor, n_seeds, mean, low, high. The best was picked on the same data, which flatters it.
    """

    best: str
    lead: pd.DataFrame


def ranking(
    rows: pd.DataFrame, *, budget: float, outcome: str = "drop", predictors: Sequence[Predictor] = PREDICTORS
) -> Ranking:
    """Which predictor does best at a budget, and by how much it leads each other one.

    Only seeds in which every predictor's coefficient is defined are compared.

    Raises:
        ValueError: If there is no such seed at this budget.
    """
    found = per_seed(rows[rows["budget"] == budget], outcome=outcome, predictors=predictors)
    wide = found[found["statistic"] == "alone"].pivot(index="seed", columns="predictor", values="value").dropna()
    if wide.empty:
        raise ValueError(f"no seed has defined coefficients at budget {budget}: an outcome or predictor is constant")
    wide = wide[[one.name for one in predictors]] * [one.sign for one in predictors]
    best = wide.mean().idxmax()
    lines = []
    for name in wide.columns.drop(best):
        got = mean_interval((wide[best] - wide[name]).to_numpy())
        lines.append([name, got.n, got.mean, got.low, got.high])
    return Ranking(best, pd.DataFrame(lines, columns=["predictor", "n_seeds", "mean", "low", "high"]))


def verdict(
    rows: pd.DataFrame,
    *,
    budget: float | None = None,
    outcome: str = "drop",
    predictors: Sequence[Predictor] = PREDICTORS,
) -> str:
    """Which predictor ranks the groups' losses best, whether that lead is shown, and what is left given the others.

    An effect is *shown* when its whole 95 % interval over seeds lies on one side of 0.

    Args:
        rows: From `group_rows`.
        budget: A budget of the table; the smallest by default.
        outcome: One of `OUTCOMES`.
        predictors: Which predictors.

    Returns:
        One paragraph of markdown.
    """
    budget = rows["budget"].min() if budget is None else budget
    found = per_seed(rows[rows["budget"] == budget], outcome=outcome, predictors=predictors)
    predictors, left_out = _defined(found, predictors)
    if not predictors:
        return (
            f"**Verdict** ({100 * budget:g} % of the ReLUs). No seed has a rank correlation with the "
            f"{OUTCOMES[outcome]}: it is the same in all groups, or what is known of the groups is."
        )
    ranked = ranking(rows, budget=budget, outcome=outcome, predictors=predictors)
    at = correlations(rows[rows["budget"] == budget], outcome=outcome, predictors=predictors)
    alone = at[at["statistic"] == "alone"].set_index("predictor")
    top, n_groups = alone.loc[ranked.best], int(alone["n_groups"].min())
    sign = next(one.sign for one in predictors if one.name == ranked.best)
    shown = ranked.lead[ranked.lead["low"] > 0]
    level = ranked.lead[~ranked.lead["predictor"].isin(shown["predictor"])]
    lead = [f"{row.predictor} (by {row.mean:.2f} [{row.low:.2f}, {row.high:.2f}])" for row in shown.itertuples()]
    tied = [f"{row.predictor} ({row.mean:.2f} [{row.low:.2f}, {row.high:.2f}])" for row in level.itertuples()]
    start = f"**Verdict** ({int(top['n_seeds'])} seeds, {n_groups} groups, {100 * budget:g} % of the ReLUs)."
    if left_out:
        start += f" Left out, as too few seeds have it: {', '.join(left_out)}."
    if sign * top["low" if sign > 0 else "high"] > 0:
        said = [
            f"{start} The {OUTCOMES[outcome]} is ranked best by **{ranked.best}**: {_number(top)}.",
            *([f"It is shown to be better than {', '.join(lead)}."] if lead else []),
            *([f"No lead is shown over {', '.join(tied)}."] if tied else []),
        ]
    else:
        said = [f"{start} **No property** is shown to rank the {OUTCOMES[outcome]} the expected way."]
        signs = {one.name: one.sign for one in predictors}
        ends = zip(alone.index, alone["low"], alone["high"], strict=True)
        wrong = [name for name, low, high in ends if max(signs[name] * low, signs[name] * high) < 0]
        if wrong:
            listed = ", ".join(f"{name} ({_number(alone.loc[name])})" for name in wrong)
            said.append(f"Shown to go the other way: {listed}.")
    given = at[(at["statistic"] == "given all others") & (at["n_seeds"] > 1)]
    clear = given[(given["low"] > 0) | (given["high"] < 0)]
    lasting = [f"{row['predictor']} ({_number(row)})" for _, row in clear.iterrows()]
    if len(given):
        what = ", ".join(lasting) if lasting else "none of them"
        fixed = len(predictors) - 1
        said.append(
            f"Given all others, what still correlates with it: {what}. "
            f"One seed alone shows nothing below |rho| = {weakest(n_groups):.2f}, given {fixed} others nothing below "
            f"{weakest(n_groups, given=fixed):.2f}."
        )
    return " ".join(said)


def _defined(found: pd.DataFrame, predictors: Sequence[Predictor]) -> tuple[list[Predictor], list[str]]:
    """The predictors that some seed has all of, those with the fewest seeds left out first; and the names left out."""
    wide = found[found["statistic"] == "alone"].pivot(index="seed", columns="predictor", values="value")
    kept, left_out = list(predictors), []
    while kept and wide[[one.name for one in kept]].dropna().empty:
        fewest = min(kept, key=lambda one: wide[one.name].notna().sum())
        kept.remove(fewest)
        left_out.append(fewest.name)
    return kept, left_out


def _number(row: pd.Series) -> str:
    return f"{row['mean']:+.2f} [{row['low']:.2f}, {row['high']:.2f}]"
