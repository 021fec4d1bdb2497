"""Which explanation predicts best: rank correlations of what a group loses with what it was like in the original.

Over the groups of one seed, Spearman's rho = corr(rank x, rank y). *Given others* both rankings lose their fit on the
rankings of the others first. Averages over seeds have a t interval, which speaks of repeated experiments with these
groups, not of other groups.
"""

import math
from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from linfair.study.tables import drops, over_seeds
from linfair_book.averages import ROUNDING, even, inside

Predictor = namedtuple("Predictor", "name column sign")
"""One explanation: name, column in `group_rows`, and +1 where the paper expects large values to lose more."""
Predictors = Sequence[Predictor]
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

STATISTICS = ("alone", "given group size", "given all others")

_KEYS = ["data", "network", "profile", "seed", "group"]


def partial_spearman(x: Sequence[float], y: Sequence[float], others: Sequence[Sequence[float]] = ()) -> float:
    """Spearman's rank correlation of x and y over groups, given others; nan where one side has nothing left to vary."""
    ranks = np.column_stack([stats.rankdata(values) for values in (x, y)])
    fixed = np.column_stack([np.ones(len(ranks)), *map(stats.rankdata, others)])
    left = ranks - fixed @ np.linalg.lstsq(fixed, ranks, rcond=None)[0]
    norms = np.linalg.norm(left, axis=0)
    if (norms < 1e-8 * np.linalg.norm(ranks, axis=0)).any():
        return math.nan
    return float(left[:, 0] @ left[:, 1] / norms.prod())


def group_rows(
    table: pd.DataFrame, *, split: str = "test_balanced", arm: str = "plain", net: bool = False
) -> pd.DataFrame:
    """What each group lost (`net` of the control) beside what it was in the original, `own_...` in this network."""
    by, losses = [*_KEYS, "budget"], ["drop", "relative_drop", "excess"]
    every = drops(table[table["split"] == split])
    lost = every[every["arm"] == arm]
    if lost.duplicated(by).any():
        raise ValueError("several methods or options are mixed: select one before asking what explains its drops")
    lost = lost.set_index(by)
    if net:
        control = every[every["arm"] == "control"].set_index(by)[losses]
        lost = lost[lost.index.isin(control.index)]
        lost = lost.assign(**(lost[losses] - control.loc[lost.index]))
    kept = ["group_name", "role", "n_train", "original", "accuracy", *losses, "distance", "relative_distance"]

    train = table[table["split"] == "train"].assign(top_eigenvalue=converged(table))
    original = train[train["arm"] == "original"].drop_duplicates(_KEYS)
    own = train[train["arm"] == arm].rename(columns={name: f"own_{name}" for name in ("gradient_norm", "margin")})
    rows = lost[kept].reset_index()
    for name, scale in {"original": 1, "accuracy": 1, "drop": 100, "relative_drop": 100}.items():
        rows[name] = even(rows[name], scale * ROUNDING)
    rows = rows.merge(original[[*_KEYS, "gradient_norm", "margin", "top_eigenvalue"]], on=_KEYS, validate="many_to_one")
    rows = rows.merge(own[[*by, "own_gradient_norm", "own_margin"]], on=by, validate="one_to_one")
    return rows.assign(log_size=np.log(rows["n_train"]))


def converged(table: pd.DataFrame) -> pd.Series:
    """The top eigenvalues of the rows, nan where none was computed or its search did not converge."""
    if "top_eigenvalue" not in table:
        return pd.Series(math.nan, index=table.index)
    found = table["top_eigenvalue"].astype(float)
    return found.where(table["top_eigenvalue_converged"].eq(True)) if "top_eigenvalue_converged" in table else found


def per_seed(rows: pd.DataFrame, *, outcome: str = "drop", predictors: Predictors = PREDICTORS) -> pd.DataFrame:
    """The coefficients of each seed: a row per (budget, seed, predictor, statistic), nan where it is not defined."""
    lines = []
    for (budget, seed), part in rows.groupby(["budget", "seed"], sort=False):
        n, y = len(part), part[outcome].to_numpy()
        if n < 3:
            raise ValueError(f"ranks of {n} groups say nothing; correlations need at least three")
        columns = {one.name: part[one.column].to_numpy() for one in predictors}
        known = {name: np.isfinite(x).all() and np.isfinite(y).all() for name, x in columns.items()}
        enough = all(known.values()) and n - 1 - len(predictors) >= 1
        for name, x in columns.items():
            values = dict.fromkeys(STATISTICS, math.nan)
            if known[name]:
                values["alone"] = partial_spearman(x, y)
            if known[name] and name != "group size" and n >= 4:
                values["given group size"] = partial_spearman(x, y, [part["log_size"]])
            if enough:
                others = [column for other, column in columns.items() if other != name]
                values["given all others"] = partial_spearman(x, y, others)
            lines += [[budget, seed, n, name, statistic, value] for statistic, value in values.items()]
    return pd.DataFrame(lines, columns=["budget", "seed", "n_groups", "predictor", "statistic", "value"])


def correlations(rows: pd.DataFrame, *, outcome: str = "drop", predictors: Predictors = PREDICTORS) -> pd.DataFrame:
    """How well each predictor ranks the groups by an outcome: mean of `per_seed` over seeds, cut at -1 and 1."""
    by = ["budget", "predictor", "statistic"]
    found = per_seed(rows, outcome=outcome, predictors=predictors)
    means = over_seeds(found, "value", by)
    groups = found.groupby(by, sort=False)["n_groups"].min().to_numpy()
    means = inside(means, -1, 1).assign(outcome=outcome, n_groups=groups)
    return means[["outcome", *by, "n_groups", "n_seeds", "mean", "low", "high"]]


def collinearity(rows: pd.DataFrame, predictors: Predictors = PREDICTORS) -> pd.DataFrame:
    """How far the predictors say the same: rank correlations `with` each other."""
    names = {one.column: one.name for one in predictors}
    each = rows[rows["budget"] == rows["budget"].min()].rename(columns=names).groupby("seed", sort=False)
    ranks = each[list(names.values())].apply(lambda part: part.corr("spearman", min_periods=len(part)))
    found = ranks.rename_axis(["seed", "predictor"]).rename_axis(columns="with").stack().reset_index(name="value")
    return over_seeds(found[found["predictor"] != found["with"]].dropna(), "value", ["predictor", "with"])


def ranking(rows: pd.DataFrame, *, budget: float, predictors: Predictors = PREDICTORS) -> tuple[str, pd.DataFrame]:
    """The predictor that ranks the groups best, which flatters it, and its lead over each other one within a seed."""
    found = per_seed(rows[rows["budget"] == budget], predictors=predictors)
    wide = found[found["statistic"] == "alone"].pivot(index="seed", columns="predictor", values="value")
    wide = wide.dropna(axis=1, how="all").dropna()
    wide = wide * wide.columns.map({one.name: one.sign for one in predictors})
    best = wide.mean().idxmax()
    lead = (-wide.drop(columns=best)).add(wide[best], axis=0).reset_index().melt("seed", var_name="predictor")
    return best, over_seeds(lead, "value", ["predictor"])
