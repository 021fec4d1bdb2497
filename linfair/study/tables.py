"""From result rows to what is reported: drops per seed, then means over seeds with intervals, paired where possible."""

import numpy as np
import pandas as pd

from linfair.linearizers.registry import methods
from linfair.masks import WORDS
from linfair.metrics.accuracy import MeanInterval, mean_interval
from linfair.metrics.measure import DIAGNOSTICS
from linfair.names import some
from linfair.study.arms import base_of, canonical

_ORIGINAL = ["data", "network", "width", "profile", "base", "seed"]
"""What one original network is known by, beside its digest."""

_PER_GROUP = {"group", "group_name", "n_train", "n", "accuracy", "low", "high"}


def one_teacher(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of one original network for each seed, and a line for each seed whose others are left out.

    The same settings give another network on another processor or GPU, and arms of different networks are never
    compared: that with the most arms and budgets is taken, of equal ones the first by its digest in `teacher`.
    """
    by = [name for name in _ORIGINAL if name in table]
    if table.empty or "teacher" not in table or table.groupby(by, dropna=False)["teacher"].nunique().max() <= 1:
        return table, []
    arms = table.drop_duplicates([*by, "teacher", "method", "arm", "budget"]).groupby([*by, "teacher"], dropna=False)
    counts = arms.agg(arms=("arm", "size"), device=("device", "first")).reset_index()
    counts, lines = counts.sort_values(["arms", "teacher"], ascending=[False, True]), []
    for names, part in counts.groupby(by, dropna=False):
        if len(part) > 1:
            told = zip(by, names, strict=True)
            seed = ", ".join(f"{name} {value}" for name, value in told if name != "width" and value != "")
            said = [f"{row.teacher} ({row.device}, {row.arms} networks)" for row in part.itertuples()]
            lines.append(f"{seed}: {len(part)} original networks, {'; '.join(said)}; rows of the first are used")
    best = counts.drop_duplicates(by)[[*by, "teacher"]]
    return table.merge(best, on=[*by, "teacher"]), lines


def check_teachers(table: pd.DataFrame) -> None:
    """Refuse rows in which a seed has several original networks."""
    by = [name for name in _ORIGINAL if name in table]
    groups = table.groupby(by, dropna=False)["teacher"].unique() if by and "teacher" in table else {}
    for names, digests in groups.items():
        if len(digests) > 1:
            told = zip(by, np.atleast_1d(names), strict=True)
            seed = ", ".join(f"{name} {value}" for name, value in told if value != "")
            text = f"{seed} has the original networks {', '.join(sorted(digests))}; take the rows of one"
            raise ValueError(f"arms of different teachers are mixed: {text}, see `linfair.study.tables.one_teacher`")


def units_of(table: pd.DataFrame) -> str:
    """What the networks of these rows lost, `ReLUs` or `weights`; `units` if some lost one and some the other."""
    known, named = methods(), set(table.get("method", ()))
    kinds = {WORDS[known[name].reduction.kind] for name in named & set(known)}
    return (kinds or {WORDS["relu"]}).pop() if len(kinds) < 2 else "units"


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of seeds that diverged under a mitigation, which have no accuracy."""
    return table[~table["diverged"].eq(True)] if "diverged" in table else table


def by_role(table: pd.DataFrame) -> pd.DataFrame:
    """Pool groups into roles, every image and every shared row counted once; diagnostics are left out."""
    table = finished(table).drop(columns=[*DIAGNOSTICS, "multiplier", "multipliers"], errors="ignore").drop_duplicates()
    by = [name for name in table.columns if name not in _PER_GROUP]
    pooled = table.assign(right=table["accuracy"] * table["n"], group_name=table["role"])
    pooled = pooled.groupby([*by, "group_name"], as_index=False, dropna=False)[["right", "n", "n_train"]].sum()
    return pooled.assign(accuracy=pooled["right"] / pooled["n"]).drop(columns="right")


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Pool all groups: the accuracy of the whole split; `group_name` becomes `all`."""
    return by_role(table.assign(role="all"))


def drops(table: pd.DataFrame) -> pd.DataFrame:
    """Add each row's accuracy drop against the same seed's original network; seeds that diverged are left out.

    Adds `original` (its accuracy), `drop` in points, 100 (original - accuracy), and `relative_drop` in per cent,
    100 (original - accuracy) / original, nan where the original accuracy is 0.
    """
    table = finished(table)
    check_teachers(table)
    by = ["data", "network", "profile", *["base"] * ("base" in table), "seed", "split", "group_name"]
    original = table[table["arm"] == "original"].drop_duplicates([*by, "teacher"])[[*by, "accuracy"]]
    original = original.rename(columns={"accuracy": "original"})
    merged = table.merge(original, on=by, how="left", validate="many_to_one")
    if (lost := merged["original"].isna()).any():
        raise ValueError(f"no original network for seeds {sorted(merged.loc[lost, 'seed'].unique())}")
    drop = 100 * (merged["original"] - merged["accuracy"])
    return merged.assign(drop=drop, relative_drop=drop / merged["original"].where(merged["original"] > 0))


def over_seeds(table: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    """Mean of a column over the seeds that have a value, its 95 % t interval (nan for one seed): mean, low, high."""
    if (twice := table.duplicated([*by, "seed"])).any():
        raise ValueError(f"several rows of one seed for {table.loc[twice, by].iloc[0].to_dict()}: add a column to {by}")
    rows = []
    for names, part in table.groupby(by, sort=False, dropna=False)[column]:
        values = part.dropna().to_numpy()
        found = mean_interval(values) if len(values) else MeanInterval(0, np.nan, np.nan, np.nan)
        rows.append([*names, found.n, found.mean, found.low, found.high])
    return pd.DataFrame(rows, columns=[*by, "n_seeds", "mean", "low", "high"])


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
    arm: str,
    against: str = "",
    scale: str = "points",
    split: str = "test",
    pooled: str = "group",
    beside: str = "",
) -> pd.DataFrame:
    """One arm against another in the same seed, budget and group: the way from rows to the numbers of a comparison.

    With a of the arm and b of the other one, 0 (for a ratio 1) without another:

        points 100 (a - b),  relative 100 (a - b) / b,  difference a - b,  ratio log(a / b).

    The original network's value counts at every budget; its own is budget 1 alone. `exp` turns the mean of a ratio into
    one. Pooled by `group`, `role` (majority and minority) or `all`, accuracies count by images, other quantities are
    means over groups. Beside the `majority`, the same number of the majority is taken off.

    Returns:
        Columns budget, seed, group_name, role, n_train, value; without rows that lack either side or a value, and
        without seeds that diverged.
    """
    if scale not in SCALES or pooled not in ("group", "role", "all") or beside not in ("", "majority"):
        allowed = f"scales {', '.join(SCALES)}, pooling by group, role or all, and beside the majority or nothing"
        raise ValueError(f"scale={scale!r}, pooled={pooled!r}, beside={beside!r}; allowed are {allowed}")
    rows = finished(table)
    rows = rows[rows["split"] == split]
    for name in filter(None, (arm, against)):
        if name not in set(rows["arm"]):
            there = ", ".join(sorted(rows["arm"].unique()))
            raise ValueError(f"no rows of arm {name!r} on split {split!r}; there are {there or 'none'}")
    if quantity not in rows:
        raise ValueError(f"the rows have no column {quantity!r}; they have {some(rows.columns, 20)}")
    check_teachers(rows := rows[rows["arm"].isin([arm, against])])
    found = _compared(_pooled(rows, quantity, pooled), arm, against, scale)
    if beside:
        majority = _compared(_pooled(rows, quantity, "role"), arm, against, scale).query("role == 'majority'")
        majority, on = majority.rename(columns={"value": "majority"}), ["budget", "seed"]
        found = found.merge(majority[[*on, "majority"]], on=on, validate="many_to_one")
        found = found.assign(value=found["value"] - found.pop("majority"))
    return found.reset_index(drop=True)


def _pooled(rows: pd.DataFrame, quantity: str, pooled: str) -> pd.DataFrame:
    """A row per arm, budget, seed and group, role or all: `value`, role, n_train; several of one group are refused."""
    by = ["arm", "budget", "seed", "group_name", "role"]
    rows = rows[[*by, "n_train", "n", quantity]].dropna(subset=[quantity]).astype({quantity: float})
    if rows.duplicated(by).any():
        raise ValueError("several rows of one arm, budget, seed and group: select one data set, network and method")
    if pooled != "group":
        rows = rows.assign(role="all") if pooled == "all" else rows
        rows = rows.assign(group_name=rows["role"])
    elif len(rows):
        return rows.rename(columns={quantity: "value"})[[*by, "n_train", "value"]]
    weight = rows["n"] if quantity == "accuracy" else 1.0
    rows = rows.assign(weight=weight, weighted=rows[quantity] * weight)
    sums = rows.groupby(by, as_index=False, sort=False)[["weighted", "weight", "n_train"]].sum()
    return sums.assign(value=sums["weighted"] / sums["weight"]).drop(columns=["weighted", "weight"])


def _compared(values: pd.DataFrame, arm: str, against: str, scale: str) -> pd.DataFrame:
    found = values[values["arm"] == arm].drop(columns="arm")
    on = ["seed", "group_name"] if against == "original" else ["budget", "seed", "group_name"]
    if against:
        reference = values[values["arm"] == against].rename(columns={"value": "reference"})
        found = found.merge(reference[[*on, "reference"]], on=on, validate="many_to_one")
    else:
        found = found.assign(reference=1.0 if scale == "ratio" else 0.0)
    found = found.assign(value=SCALES[scale](found["value"], found["reference"])).dropna(subset=["value"])
    return found[["budget", "seed", "group_name", "role", "n_train", "value"]]


TIMES = ("No mitigation", "Fair Bf", "Fair Aft", "Fair Both")
"""When a mitigation acts, in the words of Tran et al. (NeurIPS 2022): never, before the reduction, after it, both."""


def before_and_after(table: pd.DataFrame, mitigation: str, *, base: str = "", plain: str = "plain") -> pd.DataFrame:
    """Rows of the arm `plain` and of a mitigation, each from two original networks of a seed, arms named as `TIMES`.

    One was trained on cross entropy, the other under `base`, which is the mitigation without KD if it is not given. An
    original network under one seed is paired with the other of that seed, see `paired`.

    Raises:
        ValueError: If one of the four has no rows; says which.
    """
    fair, found = base_of(base or mitigation), []
    arms = {plain: TIMES[:2], canonical(mitigation): TIMES[2:]}
    wanted = {(one, arm): names[one != ""] for arm, names in arms.items() for one in ("", fair)}
    for (one, arm), name in wanted.items():
        part = table[(table["base"].fillna("") == one) & (table["arm"] == arm)]
        if part.empty:
            whose = f"under {one}" if one else "on cross entropy"
            raise ValueError(
                f"{name} has no rows: they are those of arm {arm!r} of an original network trained {whose}"
            )
        found.append(part.assign(arm=name))
    return pd.concat(found, ignore_index=True)


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
    by = [one for one in (*_ORIGINAL, "teacher", "method", "options", "arm", "budget", "split") if one in rows]
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


def text(table: pd.DataFrame, *, digits: int = 1) -> pd.DataFrame:
    """A table of means for reading: mean, low and high become one column, `mean [low, high]`; one seed has none."""

    def show(row: pd.Series) -> str:
        mean, low, high = (f"{row[name]:.{digits}f}" for name in ("mean", "low", "high"))
        one = " (1 seed)" if row.get("n_seeds") == 1 else ""
        return f"{mean}{one}" if np.isnan(row["low"]) else f"{mean} [{low}, {high}]"

    return table.assign(**{"mean [95 % interval]": table.apply(show, axis=1)}).drop(columns=["mean", "low", "high"])


def side_by_side(
    table: pd.DataFrame, columns: list[str], *, digits: int = 1, line: str = "budget", units: str = "ReLUs"
) -> pd.DataFrame:
    """A table of means for reading, a line per budget: each combination of `columns` becomes one column of text."""
    if table.empty:
        return pd.DataFrame(columns=[f"{units} kept" if line == "budget" else line])
    shown = text(table, digits=digits).rename(columns={"mean [95 % interval]": "shown"})
    if "budget" in columns:
        shown["budget"] = [f"{100 * budget:g} %" for budget in shown["budget"]]
    shown["name"] = shown[columns].agg(", ".join, axis=1)
    wide = shown.pivot(index=line, columns="name", values="shown")[list(shown["name"].unique())].fillna("")
    if line == "budget":
        wide = wide.sort_index(ascending=False).rename_axis(columns=None)
        wide.insert(0, f"{units} kept", [f"{100 * budget:g} %" for budget in wide.index])
        return wide.reset_index(drop=True)
    return wide.loc[list(shown[line].unique())].rename_axis(columns=None).reset_index()
