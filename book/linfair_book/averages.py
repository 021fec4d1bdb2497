"""Means over seeds as pages read them: on which side of a number they lie, how far roles and groups are apart."""

import numpy as np
import pandas as pd

from linfair.study.tables import ORIGINAL, by_role, finished, over_seeds

SIDES = ("up", "down", "no measurable change")


def sides(means: pd.DataFrame, *, at: float = 0.0) -> pd.DataFrame:
    """Add a column `side`: on which side of a number the whole interval lies, one of `SIDES`.

    >>> sides(pd.DataFrame({"low": [1.0, -2.0, -1.0], "high": [2.0, -1.0, 1.0]}))["side"].tolist()
    ['up', 'down', 'no measurable change']
    """
    return means.assign(side=np.select([means["low"] > at, means["high"] < at], SIDES[:2], SIDES[2]))


def disparity(table: pd.DataFrame, *, split: str, column: str = "relative_drop") -> pd.DataFrame:
    """Minority minus majority drop at each budget, over seeds, and what is left of it once the control's is taken off.

    Takes rows of `drops(by_role(...))` and gives a row per (budget, of) with `of` = `plain`, `control` or `plain minus
    control`. The difference is taken within a seed, then averaged.
    """
    part = table[(table["split"] == split) & (table["arm"] != "original")]
    if part.duplicated(["budget", "seed", "arm", "group_name"]).any():
        raise ValueError("several methods, networks or data sets are mixed: select one before asking for its disparity")
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

    With R(a) the excessive loss of group a and A(a) its accuracy (Tran et al., NeurIPS 2022, Eq. 3 and Sec. 6.2)

        excess_violation = max |R(a) - R(a')|,    accuracy_violation = max A(a) - min A(a),    of all groups a, a',

    the first in nats, the second a share; `overall` is the accuracy over all images. Seeds that diverged are left out.

    >>> shared = {"arm": "plain", "budget": 0.5, "split": "test", "seed": 0, "n": 5, "teacher": "x"}
    >>> groups = [{"accuracy": 0.75, "excess": 0.5}, {"accuracy": 0.5, "excess": -0.25}]
    >>> violations(pd.DataFrame([shared | one for one in groups]))[["excess_violation", "accuracy_violation"]].values
    array([[0.75, 0.25]])
    """
    rows = finished(table)
    rows = rows[rows["arm"] != "original"]
    by = [one for one in (*ORIGINAL, "teacher", "method", "options", "arm", "budget", "split") if one in rows]
    if "group" in rows and rows.duplicated([*by, "group"]).any():
        raise ValueError("several rows of one network, split and group: take each table once")
    rows = rows.assign(right=rows["accuracy"] * rows["n"])
    found = rows.groupby(by, dropna=False, sort=False)
    gaps = {f"{name}_violation": found[name].agg(lambda of: np.ptp(of.to_numpy())) for name in ("excess", "accuracy")}
    overall = found["right"].sum() / found["n"].sum()
    return pd.DataFrame(gaps | {"overall": overall}).reset_index()


def disagreement(found: pd.DataFrame) -> pd.DataFrame:
    """How often the two violations disagree about which of two arms of a seed is fairer, a row per budget and split.

    Takes rows of `violations` and compares every two arms of one seed, budget and split: `pairs` of them, of which
    `tied` are equally fair by one of the two, and `share` = `disagree` / (`pairs` - `tied`).
    """
    if found.duplicated(["seed", "budget", "split", "arm"]).any():
        raise ValueError("several rows of one arm, seed, budget and split: select one data set, network and method")
    rows = []
    for (budget, split), part in found.groupby(["budget", "split"], sort=False):
        both = part.merge(part, on="seed", suffixes=("", "_other"))
        both = both[both["arm"] < both["arm_other"]]
        one, two = (np.sign(both[name] - both[f"{name}_other"]) for name in ("excess_violation", "accuracy_violation"))
        pairs, tied, disagree = len(both), int((one * two == 0).sum()), int((one * two < 0).sum())
        rows.append([budget, split, pairs, tied, disagree, disagree / (pairs - tied) if pairs > tied else np.nan])
    return pd.DataFrame(rows, columns=["budget", "split", "pairs", "tied", "disagree", "share"])
