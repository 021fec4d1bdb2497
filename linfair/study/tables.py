"""From result rows to what is reported: drops per seed, then means over seeds with intervals, paired where possible."""

import numpy as np
import pandas as pd

from linfair.linearizers.registry import methods
from linfair.masks import WORDS
from linfair.metrics.accuracy import MeanInterval, mean_interval
from linfair.metrics.measure import DIAGNOSTICS

ORIGINAL = ["data", "network", "width", "profile", "base", "seed"]
"""What one original network is known by, beside its digest."""

_LATER = {"options": "", "width": 0, "base": ""}
"""Columns that older rows lack: they were computed without options, at the full width, from an ordinary original."""
_PER_GROUP = {"group", "group_name", "n_train", "n", "accuracy", "low", "high"}


def one_teacher(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of one original network for each seed, that with the most, and a line for each seed with several."""
    by = [name for name in ORIGINAL if name in table]
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
    return table.merge(counts.drop_duplicates(by)[[*by, "teacher"]], on=[*by, "teacher"]), lines


def check_teachers(table: pd.DataFrame) -> None:
    """Refuse rows in which a seed has several original networks."""
    by = [name for name in ORIGINAL if name in table]
    for names, digests in table.groupby(by, dropna=False)["teacher"] if by and "teacher" in table else ():
        if digests.nunique() > 1:
            told = zip(by, names, strict=True)
            seed = ", ".join(f"{name} {value}" for name, value in told if value != "")
            text = f"{seed} has the original networks {', '.join(sorted(digests.unique()))}; take the rows of one"
            raise ValueError(f"arms of different teachers are mixed: {text}, see `linfair.study.tables.one_teacher`")


def units_of(table: pd.DataFrame) -> str:
    """What the networks of these rows lost, `ReLUs` or `weights`; `units` if some lost one and some the other."""
    known, named = methods(), set(table.get("method", ()))
    kinds = {WORDS[known[name].reduction.kind] for name in named & set(known)}
    return (kinds or {WORDS["relu"]}).pop() if len(kinds) < 2 else "units"


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that older ones lack."""
    return table.assign(**{name: table[name].fillna(one) if name in table else one for name, one in _LATER.items()})


def finished(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of seeds that diverged under a mitigation, which have no accuracy."""
    return table[~table["diverged"].eq(True)] if "diverged" in table else table


def by_role(table: pd.DataFrame) -> pd.DataFrame:
    """Pool groups into roles, every image and every shared row counted once; diagnostics are left out.

    Where a group has no accuracy, its role has none.
    """
    table = finished(table).drop(columns=[*DIAGNOSTICS, "multiplier", "multipliers"], errors="ignore").drop_duplicates()
    by = [name for name in table.columns if name not in _PER_GROUP]
    right, lost = table["accuracy"] * table["n"], table["accuracy"].isna()
    pooled = table.assign(right=right, lost=lost, group_name=table["role"])
    pooled = pooled.groupby([*by, "group_name"], as_index=False, dropna=False)[["right", "lost", "n", "n_train"]].sum()
    accuracy = (pooled["right"] / pooled["n"]).where(pooled["lost"] == 0)
    return pooled.assign(accuracy=accuracy).drop(columns=["right", "lost"])


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
    by = [*(name for name in ORIGINAL if name in table), "split", "group_name"]
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


def text(table: pd.DataFrame, *, digits: int = 1) -> pd.DataFrame:
    """A table of means for reading: mean, low and high become one column, `mean [low, high]`; one seed has none."""

    def show(row: pd.Series) -> str:
        mean, low, high = (f"{row[name]:z.{digits}f}" for name in ("mean", "low", "high"))
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
