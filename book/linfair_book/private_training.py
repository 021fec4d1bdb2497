"""Notebook 16: who loses under which rule of gradients, at which epsilon, and what skewed training data do to it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from linfair.engine.store import ResultStore
from linfair.rules import RULES
from linfair.study.cell import run
from linfair.study.grids import grid
from linfair.study.tables import by_role, over_seeds, overall, text
from linfair_book import tables

NAMES = {"sgd": "SGD", "clipped": "SGD, batch clipped", "sam": "SAM", "asam": "ASAM"}
NAMES |= {"dp_sgd": "DP-SGD", "dp_sat": "DP-SAT", "dp_global_adapt": "DP-SGD, global clip"}
"""Rules as the page calls them, in its order."""
PRIVATE = [name for name in NAMES if name.startswith("dp_") and name in RULES]
NOTHING = "no guarantee"
FEW = {"scale": "fixed", "shift": 0}
EVEN = {"minority_fraction": 0.9, **FEW}
"""Options of digits: as they come, and with as many images of every class. A fixed scale keeps the guarantee."""


def rules_at(epsilons: Sequence[float]) -> list[str]:
    """The rules of the page, private ones at each epsilon and without noise."""
    private = [f"{name}(epsilon={epsilon!r})" for name in PRIVATE for epsilon in sorted(map(float, epsilons))]
    return ["sgd", "clipped", "sam", "asam", "dp_sgd(noise=0.0)", *private]


def compute(
    seeds: Sequence[int],
    *,
    epsilons: Sequence[float],
    network: str = "mlp",
    profile: str = "small",
    device: str = "cpu",
    rules: Sequence[str] = (),
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Original networks on digits under every rule, with few and with as many images of the minority: study rows."""
    how = {"seeds": seeds, "profile": profile, "device": device, "curvature": "none"}
    cells = [
        grid("digits", network, method="prune_magnitude", budgets=[0.5], data_options=options, base_rule=rule, **how)
        for options in (FEW, EVEN)
        for rule in rules or rules_at(epsilons)
    ]
    return run([cell for part in cells for cell in part], arms=("original",), store=store, progress=progress)


def committed(network: str = "mlp") -> pd.DataFrame:
    """The same from the rows that come with the book."""
    rows = tables.committed("digits_private")
    return rows[(rows["network"] == network) & rows["rule"].isin(NAMES)]


def spoken(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with `trained`, their rule in words, and `guarantee`, its (epsilon, delta) where it holds."""
    pairs = [f"({e:g}, {d:g})".replace("e-0", "e-") for e, d in zip(table["epsilon"], table["delta"], strict=True)]
    clean = table["rule"].isin(PRIVATE) & np.isinf(table["epsilon"])
    trained = table["rule"].map(NAMES) + np.where(clean, ", no noise", "")
    return table.assign(trained=trained, guarantee=np.where(table["guarantee"].eq("holds"), pairs, NOTHING))


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `compute`, spoken, in the order of the page.

    `images` is how many training images a class of the minority has. The minority of a seed are the same classes
    whether or not they have fewer images.
    """
    few = ~table["data"].str.contains("minority_fraction")
    roles = table[few].drop_duplicates(["seed", "group"]).set_index(["seed", "group"])["role"]
    role = roles.loc[pd.MultiIndex.from_frame(table[["seed", "group"]])].to_numpy()
    smallest, order = table.groupby("data")["n_train"].transform("min"), table["rule"].map(list(NAMES).index)
    rows = spoken(table).assign(images=smallest, role=role, order=order)
    rows = rows.sort_values(["images", "order", "epsilon"], ascending=[True, True, False], kind="stable")
    return rows.drop(columns="order").reset_index(drop=True)


def _by(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Accuracy in % of both roles, and of all images together, a row for each seed and network."""
    rows = table[table["split"] == split]
    both = pd.concat([by_role(rows), overall(rows)], ignore_index=True)
    order = table.drop_duplicates(["images", "trained", "guarantee"])[["images", "trained", "guarantee"]]
    return order.merge(both.assign(value=100 * both["accuracy"]), on=list(order), how="left")


BY = ["images", "trained", "guarantee", "group_name"]


def levels(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Accuracy in % of both roles and of all, by rule and images of a minority class, mean over seeds."""
    return over_seeds(_by(table, split), "value", BY)


def changes(table: pd.DataFrame, *, split: str, against: str = NAMES["sgd"]) -> pd.DataFrame:
    """Points of accuracy gained against another rule, that without noise or at the same guarantee, paired over seeds.

    SGD has none: every rule is compared with it.
    """
    rows = _by(table, split)
    on = ["images", "group_name", "seed", *["guarantee"] * (against != NAMES["sgd"])]
    other = rows.loc[rows["trained"] == against, [*on, "value"]].rename(columns={"value": "reference"})
    found = rows[rows["trained"] != against].merge(other, on=on, validate="many_to_one")
    return over_seeds(found.assign(value=found["value"] - found["reference"]), "value", BY)


def wide(means: pd.DataFrame, *, what: str = "group_name") -> pd.DataFrame:
    """Means as a table for reading, a line for each rule with its guarantee."""
    shown = text(means).rename(columns={"mean [95 % interval]": "shown"})
    index = ["trained", "guarantee"]
    found = shown.pivot(index=index, columns=what, values="shown")[list(shown[what].unique())]
    found = found.loc[list(dict.fromkeys(zip(shown["trained"], shown["guarantee"], strict=True)))]
    return found.rename_axis(columns=None).reset_index().fillna("")


def published() -> pd.DataFrame:
    """Accuracies in % on CIFAR-10 at (8, 1e-5), as others print them; the mark says where a number is from."""
    lines = [
        ("Hassanpour et al. (2024)", "DP-SAT and further techniques", 81.11, "its abstract"),
        ("De et al. (2022)", "WRN-16-4", 79.5, "remembered, and quoted in the abstract above"),
        ("De et al. (2022)", "WRN-40-4", 81.4, "its abstract"),
        ("Klause et al. (2022)", "ScaleNorm", 82.5, "its abstract"),
    ]
    return pd.DataFrame(lines, columns=["by", "network or technique", "accuracy", "read in"])
