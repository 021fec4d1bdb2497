"""What the paper says of Figs. 3, 4, 8 and 14, checked on a study's rows: ratios within a seed, and tables of checks.

Ratios of two means over groups within one seed are averaged over seeds as geometric means; a check holds where the
whole interval lies on the claimed side of 1.
"""

import numpy as np
import pandas as pd

from linfair.study.tables import check_teachers, over_seeds, text, units_of
from linfair_book.averages import SIDES, paired, sides
from linfair_book.predictors import CHECKS, Predictor
from linfair_book.tables import geometric

UP, DOWN, _ = SIDES

OWN = (Predictor("gradient norm", "own_gradient_norm", -1), Predictor("margin", "own_margin", 1))
"""What Fig. 8 sets accuracy against, both of the linearized network; signs are those of accuracy, not of its loss."""


def role_ratios(table: pd.DataFrame, column: str, *, split: str, by: str = "budget") -> pd.DataFrame:
    """A positive quantity of the mean minority group over that of the mean majority group, at every budget."""
    check_teachers(table)
    part = table[(table["split"] == split) & (table["arm"] != "control")].dropna(subset=[column])
    wide = part.astype({column: float}).pivot_table(index=[by, "seed"], columns="role", values=column)
    wide = wide.reindex(columns=["minority", "majority"])
    wide = wide.where(wide > 0)
    return _ratios(np.log(wide["minority"] / wide["majority"]).reset_index(name="value"), [by])


def against_original(table: pd.DataFrame, column: str, *, split: str) -> pd.DataFrame:
    """A positive quantity of each role's mean group over that in the original network, by role and budget."""
    options = {"arm": "plain", "against": "original", "scale": "ratio", "split": split, "pooled": "role"}
    return _ratios(paired(table, column, **options), ["role", "budget"])


def _ratios(logs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    found = geometric(logs.dropna(subset=["value"]), "value", by)
    return found.sort_values(by, ascending=[name != "budget" for name in by], ignore_index=True)


def ratio_checks(table: pd.DataFrame, column: str, *, split: str, higher: bool = True) -> pd.DataFrame:
    """For reading, a line for each budget: minority over majority, whether it is higher (or lower) as claimed."""
    found = _checked(role_ratios(table, column, split=split), higher)
    columns = {"minority over majority": found["shown"], "higher" if higher else "lower": found["check"]}
    for role, part in against_original(table, column, split=split).groupby("role"):
        moved = _checked(part, higher)
        columns[f"{role} over its original"] = moved["shown"] + ", " + moved["side"]
    return pd.DataFrame(columns).fillna("").sort_index(ascending=False).pipe(_in_per_cent, table)


def _checked(means: pd.DataFrame, higher: bool, *, at: float = 1.0, digits: int = 2) -> pd.DataFrame:
    """By budget: `shown` (mean and interval), the `side` of a number that the interval lies on, and the `check`."""
    found = sides(text(means, digits=digits).join(means[["low", "high"]]), at=at).set_index("budget")
    named = dict(zip(SIDES if higher else (DOWN, UP, SIDES[2]), CHECKS.values(), strict=True))
    return found.rename(columns={"mean [95 % interval]": "shown"}).assign(check=found["side"].map(named))


def _in_per_cent(lines: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    lines.insert(0, f"{units_of(table)} kept", [f"{100 * budget:g} %" for budget in lines.index])
    return lines.reset_index(drop=True)


def has_eigenvalues(table: pd.DataFrame) -> bool:
    """Whether any row has a top Hessian eigenvalue: a study may leave them out."""
    return "top_eigenvalue" in table and bool(table["top_eigenvalue"].notna().any())


def distance_checks(table: pd.DataFrame) -> pd.DataFrame:
    """Fig. 8, left, for reading: the distance over the original's norm by budget, its growth, the control's share."""
    part = table[table["arm"] != "original"].drop_duplicates(["arm", "budget", "seed"])
    wide = part.pivot(index="seed", columns=["arm", "budget"], values="relative_distance").astype(float)
    plain = wide["plain"].sort_index(axis=1, ascending=False)
    parts = {"distance": plain, "growth": plain.diff(axis=1), "control's share": None}
    if "control" in wide:
        parts["control's share"] = 100 * wide["control"].reindex(columns=plain.columns) / plain.where(plain > 0)
    columns = {}
    for name, values in parts.items():
        long = pd.DataFrame() if values is None else values.reset_index().melt("seed", var_name="budget").dropna()
        if len(long):
            found = _checked(over_seeds(long, "value", ["budget"]), True, at=0.0, digits=0 if "share" in name else 3)
            columns[name] = found["shown"] + " %" * ("share" in name)
            if name == "growth":
                columns["grows"] = found["check"]
    return pd.DataFrame(columns).fillna("").sort_index(ascending=False).pipe(_in_per_cent, table)
