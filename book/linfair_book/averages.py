"""Numbers of pages from rows: one arm against another, how far roles and groups are apart, sides of intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy, SeriesGroupBy

from linfair.names import some
from linfair.study.tables import ORIGINAL, by_role, check_teachers, finished, over_seeds

SIDES = ("up", "down", "no measurable change")
ROUNDING = 1e-7
"""Accuracies, and differences of them, that are closer are one number: 0.9 - 0.5 is not 0.7 - 0.3 in a computer, and
the share of an image's views that are right is a float32."""


def sides(means: pd.DataFrame, *, at: float = 0.0) -> pd.DataFrame:
    """Add a column `side`: on which side of a number the whole interval lies, one of `SIDES`."""
    return means.assign(side=np.select([means["low"] > at, means["high"] < at], SIDES[:2], SIDES[2]))


def inside(means: pd.DataFrame, least: float, most: float, *, lines: pd.Series | bool = True) -> pd.DataFrame:
    """Cut intervals at what a mean can be: a t interval of accuracies does not know that none is above 100 %."""
    cut = {end: np.where(lines, means[end].clip(least, most), means[end]) for end in ("low", "high")}
    return means.assign(**cut)


def disparity(table: pd.DataFrame, *, split: str, column: str = "relative_drop") -> pd.DataFrame:
    """Minority minus majority drop (of `drops(by_role(...))`) by budget, and what is left without the control's."""
    part = table[(table["split"] == split) & (table["arm"] != "original")]
    wide = part.pivot(index=["budget", "seed"], columns=["group_name", "arm"], values=column)
    gaps = wide["minority"] - wide["majority"]
    if {"plain", "control"} <= set(gaps):
        gaps["plain minus control"] = gaps["plain"] - gaps["control"]
    long = gaps.rename_axis(columns="of").reset_index().melt(["budget", "seed"], value_name="gap")
    found = over_seeds(long, "gap", ["budget", "of"])
    return found.sort_values(["of", "budget"], ascending=[True, False], ignore_index=True)


def convergence(table: pd.DataFrame) -> pd.DataFrame:
    """How well the original networks are trained: last training loss, training accuracy of each role, over seeds."""
    original = table[(table["arm"] == "original") & (table["split"] == "train")]
    loss = original.drop_duplicates("seed").rename(columns={"base_loss": "value"})
    loss = loss.assign(what="training loss (last epoch)")
    pooled = by_role(original)
    accuracy = pooled.assign(what="training accuracy, " + pooled["group_name"] + " (%)", value=100 * pooled["accuracy"])
    return over_seeds(pd.concat([loss, accuracy])[["what", "seed", "value"]], "value", ["what"])


def violations(table: pd.DataFrame) -> pd.DataFrame:
    """Both fairness violations of every network but the original ones: a row per original network, arm, budget, split.

    With R(a) the excessive loss of group a and A(a) its accuracy (Tran et al., NeurIPS 2022, Eq. 3 and Sec. 6.2),
    `excess_violation` = max |R(a) - R(a')| in nats, `accuracy_violation` = max A(a) - min A(a), `overall` the accuracy
    over all images. Seeds that diverged are left out; what one group has no number for is nan.
    """
    rows = finished(table)
    rows = rows[rows["arm"] != "original"]
    by = [one for one in (*ORIGINAL, "teacher", "method", "options", "arm", "budget", "split") if one in rows]
    if "group" in rows and rows.duplicated([*by, "group"]).any():
        raise ValueError("several rows of one network, split and group: take each table once")
    rows = rows.assign(right=rows["accuracy"] * rows["n"])
    found = rows.groupby(by, dropna=False, sort=False)
    gaps = {f"{name}_violation": found[name].agg(lambda of: np.ptp(of.to_numpy())) for name in ("excess", "accuracy")}
    overall = (found["right"].sum() / found["n"].sum()).where(gaps["accuracy_violation"].notna())
    return pd.DataFrame(gaps | {"overall": overall}).reset_index()


def mean_of_every(groups: DataFrameGroupBy | SeriesGroupBy) -> pd.DataFrame | pd.Series:
    """Means over groups; without the number of one of them there is none."""
    return groups.agg(lambda values: values.mean(skipna=False))


def even(accuracies: pd.Series, within: float = ROUNDING) -> pd.Series:
    """Accuracies or differences of them without what rounding adds, so that equal ones tie.

    >>> even(pd.Series([0.9 - 0.5, 0.25, 0.7 - 0.3])).nunique(), even(pd.Series([1e-8])).tolist()
    (2, [0.0])
    """
    known = accuracies.dropna().sort_values()
    known = known.where(known.abs() > within, 0.0)
    return known.groupby((known.diff() > within).cumsum()).transform("first").reindex(accuracies.index)


def disagreement(found: pd.DataFrame) -> pd.DataFrame:
    """How often `violations` disagree on which of two arms of a seed is fairer; `share` is without ties."""
    if found.duplicated(["seed", "budget", "split", "arm"]).any():
        raise ValueError("several rows of one arm, seed, budget and split: select one data set, network and method")
    rows, found = [], found.dropna(subset=["excess_violation", "accuracy_violation"]).reset_index(drop=True)
    found = found.assign(accuracy_violation=even(found["accuracy_violation"]))
    for (budget, split), part in found.groupby(["budget", "split"], sort=False):
        both = part.merge(part, on="seed", suffixes=("", "_other"))
        both = both[both["arm"] < both["arm_other"]]
        one, two = (np.sign(both[name] - both[f"{name}_other"]) for name in ("excess_violation", "accuracy_violation"))
        pairs, tied, disagree = len(both), int((one * two == 0).sum()), int((one * two < 0).sum())
        rows.append([budget, split, pairs, tied, disagree, disagree / (pairs - tied) if pairs > tied else np.nan])
    return pd.DataFrame(rows, columns=["budget", "split", "pairs", "tied", "disagree", "share"])


SCALES = {
    "points": lambda a, b: 100 * (a - b),
    "relative": lambda a, b: 100 * (a - b) / b.where(b > 0),
    "ratio": lambda a, b: np.log(a.where(a > 0) / b.where(b > 0)),
    "difference": lambda a, b: a - b,
}


def paired(
    table: pd.DataFrame,
    quantity: str = "accuracy",
    *,
    arm: str | Sequence[str],
    against: str = "",
    scale: str = "points",
    split: str = "test",
    pooled: str = "group",
    beside: str = "",
) -> pd.DataFrame:
    """One or more arms against another in the same seed, budget and group: from rows to the numbers of a comparison.

    With a of the arm and b of the other one, 0 (for a ratio 1) without another:

        points 100 (a - b),  relative 100 (a - b) / b,  difference a - b,  ratio log(a / b).

    The original network counts at every budget (its own is 1). Pooled by `group`, `role` or `all`, accuracies count by
    images, others are means over groups; without the number of one there is none. Beside the `majority`, its number is
    taken off. Diverged seeds are left out.
    """
    arms = [arm] if isinstance(arm, str) else list(arm)
    if scale not in SCALES or pooled not in ("group", "role", "all") or beside not in ("", "majority"):
        allowed = f"scales {', '.join(SCALES)}, pooling by group, role or all, and beside the majority or nothing"
        raise ValueError(f"scale={scale!r}, pooled={pooled!r}, beside={beside!r}; allowed are {allowed}")
    used = {*ORIGINAL, "teacher", "diverged", "arm", "budget", "group_name", "role", "n_train", "n", quantity}
    rows = table.loc[table["split"] == split, table.columns.intersection(used)]
    for name in filter(None, (*arms, against)):
        if name not in set(rows["arm"]):
            there = ", ".join(sorted(rows["arm"].unique()))
            raise ValueError(f"no rows of arm {name!r} on split {split!r}; there are {there or 'none'}")
    if quantity not in rows:
        raise ValueError(f"the rows have no column {quantity!r}; they have {some(table.columns, 20)}")
    check_teachers(rows := finished(rows[rows["arm"].isin([*arms, against])]))
    found = _compared(_pooled(rows, quantity, pooled), arms, against, scale)
    if beside:
        majority = _compared(_pooled(rows, quantity, "role"), arms, against, scale).query("role == 'majority'")
        found = less(found, majority, ["arm", "budget", "seed"])
    if quantity == "accuracy":
        percent = scale in ("points", "relative")
        found = found.reset_index(drop=True)
        found = found.assign(value=even(found["value"], 100 * ROUNDING if percent else ROUNDING))
    return found.drop(columns=["arm"] * isinstance(arm, str)).reset_index(drop=True)


def less(rows: pd.DataFrame, other: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Rows with `value` less that of the other row with the same `on`; rows without one are left out."""
    found = rows.merge(other[[*on, "value"]], on=on, suffixes=("", "_other"), validate="many_to_one")
    return found.assign(value=found["value"] - found.pop("value_other"))


def _pooled(rows: pd.DataFrame, quantity: str, pooled: str) -> pd.DataFrame:
    """A row per arm, budget, seed and group, role or all: `value`, role, n_train; several of one group are refused.

    A role of which a group has no number has none.
    """
    by = ["arm", "budget", "seed", "group_name", "role"]
    rows = rows[[*by, "n_train", "n", quantity]].astype({quantity: float})
    known = rows.dropna(subset=[quantity])
    if known.duplicated(by).any():
        raise ValueError("several rows of one arm, budget, seed and group: select one data set, network and method")
    if pooled == "group" and len(known):
        return known.rename(columns={quantity: "value"})[[*by, "n_train", "value"]]
    if pooled != "group":
        rows = rows.assign(lost=rows.groupby(by)[quantity].transform("max").isna())
        rows = rows.assign(role="all") if pooled == "all" else rows
        rows = rows.assign(group_name=rows["role"])
        rows = rows[~rows.groupby(by)["lost"].transform("any")]
    rows = rows.dropna(subset=[quantity])
    weight = rows["n"] if quantity == "accuracy" else 1.0
    rows = rows.assign(weight=weight, weighted=rows[quantity] * weight)
    sums = rows.groupby(by, as_index=False, sort=False)[["weighted", "weight", "n_train"]].sum()
    return sums.assign(value=sums["weighted"] / sums["weight"]).drop(columns=["weighted", "weight"])


def _compared(values: pd.DataFrame, arms: list[str], against: str, scale: str) -> pd.DataFrame:
    found = values[values["arm"].isin(arms)]
    found = found.sort_values("arm", key=lambda names: names.map(arms.index), kind="stable")
    on = ["seed", "group_name"] if against == "original" else ["budget", "seed", "group_name"]
    if against:
        reference = values[values["arm"] == against].rename(columns={"value": "reference"})
        found = found.merge(reference[[*on, "reference"]], on=on, validate="many_to_one")
    else:
        found = found.assign(reference=1.0 if scale == "ratio" else 0.0)
    found = found.assign(value=SCALES[scale](found["value"], found["reference"])).dropna(subset=["value"])
    return found[["arm", "budget", "seed", "group_name", "role", "n_train", "value"]]


def role_accuracy(table: pd.DataFrame, by: list[str], *, split: str) -> pd.DataFrame:
    """Accuracy in % of both roles on a split, mean over seeds; no interval leaves 0 to 100."""
    rows = by_role(table[table["split"] == split])
    return inside(over_seeds(rows.assign(value=100 * rows["accuracy"]), "value", by), 0, 100)


def gains(table: pd.DataFrame, *, against: str, arms: Sequence[str] = (), **how: str) -> pd.DataFrame:
    """Points that arms (by default all repairs) gain against another one, by role, mean over seeds; as `paired`."""
    arms = arms or [arm for arm in table["arm"].unique() if arm not in ("original", "control", against)]
    each = paired(table, arm=arms, against=against, pooled="role", **how)
    return over_seeds(each, "value", ["arm", "budget", "group_name"])


def alike(rows: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Spearman's correlation of two columns over the groups of a seed, mean over seeds by budget."""
    if "accuracy" in (one, other):
        rows = rows.reset_index(drop=True)
        rows = rows.assign(accuracy=even(rows["accuracy"]))
    each = rows.dropna(subset=[one, other]).groupby(["budget", "seed"], sort=False)[[one, other]]
    ranks = each.apply(lambda part: part.corr("spearman").iloc[0, 1])
    return over_seeds(ranks.rename("value").reset_index(), "value", ["budget"])
