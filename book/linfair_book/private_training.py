"""Notebook 16: who loses under which rule of gradients, and at which epsilon."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from linfair.rules import RULES
from linfair.study.tables import by_role, over_seeds, overall
from linfair_book.averages import inside, less
from linfair_book.tables import ran

NAMES = {"sgd": "SGD", "clipped": "SGD, batch clipped", "sam": "SAM", "asam": "ASAM"}
NAMES |= {"dp_sgd": "DP-SGD", "dp_sat": "DP-SAT", "dp_global_adapt": "DP-SGD, global clip"}
"""Rules as the page calls them, in its order."""
PRIVATE = [name for name in RULES if name.startswith("dp_")]
NOTHING = "no guarantee"
PLAIN = f"{NAMES['sgd']}, {NOTHING}"
BY = ["images", "trained", "group_name"]
FEW = {"scale": "fixed", "shift": 0}
EVEN = {"minority_fraction": 0.9, **FEW}
"""Options of digits: as they come, and with as many images of every class. A fixed scale keeps the guarantee."""


def rules_at(epsilons: Sequence[float]) -> list[str]:
    """The rules of the page: private ones at each epsilon, one without noise, the repair at the largest epsilon."""
    private = [f"{name}(epsilon={float(epsilon)!r})" for name in ("dp_sgd", "dp_sat") for epsilon in epsilons]
    repair = f"dp_global_adapt(epsilon={float(max(epsilons))!r})"
    return ["sgd", "clipped", "sam", "asam", "dp_sgd(noise=0.0)", *private, repair]


def compute(seeds: Sequence[int], rules: Sequence[str], **how: object) -> pd.DataFrame:
    """Original networks on digits under every rule, with few and with as many images of the minority: study rows."""
    how = {"data": "digits", "network": "mlp", "method": "prune_magnitude", "budgets": [0.5], "curvature": "none"} | how
    each = product((FEW, EVEN), rules)
    parts = [ran(["original"], seeds=seeds, data_options=one, base_rule=rule, **how) for one, rule in each]
    return pd.concat(parts, ignore_index=True)


def spoken(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with `guarantee`, the (epsilon, delta) that holds, and `trained`, their rule in words beside it."""
    pairs = [f"({e:g}, {d:g})".replace("e-0", "e-") for e, d in zip(table["epsilon"], table["delta"], strict=True)]
    given = np.where(table["guarantee"].eq("holds"), pairs, NOTHING)
    clean = table["rule"].isin(PRIVATE) & np.isinf(table["epsilon"])
    trained = table["rule"].map(NAMES) + np.where(clean, ", no noise", "") + ", " + given
    return table.assign(trained=trained, guarantee=given)


def accuracies(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Accuracy in % of both roles and of all images, by seed, rule and `images` of a minority class, as on the page."""
    few = table[~table["data"].str.contains("minority_fraction")].drop_duplicates(["seed", "group"])
    role = few.set_index(["seed", "group"])["role"].loc[pd.MultiIndex.from_frame(table[["seed", "group"]])]
    images, order = table.groupby("data")["n_train"].transform("min"), table["rule"].map(list(NAMES).index)
    rows = spoken(table).assign(images=images, role=role.to_numpy(), order=order)
    both = pd.concat([one(rows[rows["split"] == split]) for one in (by_role, overall)])
    both = both.sort_values(["images", "order", "epsilon"], ascending=[True, True, False], kind="stable")
    return both.assign(value=100 * both["accuracy"])[["images", "trained", "guarantee", "group_name", "seed", "value"]]


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies by rule and group, means over seeds."""
    return inside(over_seeds(rows, "value", BY), 0, 100)


def gains(rows: pd.DataFrame, *, over: str = PLAIN) -> pd.DataFrame:
    """Points gained over another rule, named with its guarantee, or without: each over that of its own guarantee."""
    named = rows["trained"].eq(over) | rows["trained"].eq(over + ", " + rows["guarantee"])
    on = ["images", "group_name", "seed", *["guarantee"] * (over != PLAIN)]
    return over_seeds(less(rows[~named], rows[named], on), "value", BY)
