"""Ratios of two means over groups within one seed, averaged over seeds as geometric means (Figs. 3, 4, 8 and 14)."""

import numpy as np
import pandas as pd

from linfair.mitigation import PLAIN
from linfair.study.tables import check_teachers
from linfair_book.averages import mean_of_every, paired
from linfair_book.predictors import Predictor
from linfair_book.tables import geometric

OWN = (Predictor("gradient norm", "own_gradient_norm", -1), Predictor("margin", "own_margin", 1))
"""What Fig. 8 sets accuracy against, both of the linearized network; signs are those of accuracy, not of its loss."""


def role_ratios(table: pd.DataFrame, column: str, *, split: str, by: str = "budget") -> pd.DataFrame:
    """A positive quantity of the mean minority group over that of the mean majority group, original and plain."""
    check_teachers(table)
    part = table[(table["split"] == split) & table["arm"].isin(("original", PLAIN))].astype({column: float})
    wide = mean_of_every(part.groupby([by, "seed", "role"])[column]).unstack("role")
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
