"""What mitigations change: every arm against *plain* fine-tuning at the same budget, within a seed (paper, Sec. 6).

The relative change is Fig. 9's, 100 (A_plain - A_mitigated) / A_plain, negative for a gain. A *way* is a mitigation
while fine-tuning (its arm), in SNL's mask phase alone (`lagrangian, before`), or in both (`lagrangian, both`). A seed
that diverged is counted, and left out of that way's means with its plain partner.
"""

import re
from collections.abc import Sequence

import pandas as pd

from linfair.study.arms import ARMS
from linfair.study.tables import check_teachers, finished, over_seeds
from linfair_book.averages import paired
from linfair_book.tables import geometric

TABLE = "digits_mlp_mitigation"
DEEPREDUCE_TABLE = "digits_resnet18_mitigation"

HEADLINE = 0.2  # the headline: minority and majority at this budget, on the balanced test
MUS = (0.0005, 0.001, 0.005, 0.01)  # Fig. 15's, and 0.001, the released default, which stands for Algorithm 1 elsewhere
BEYOND = 1.0  # a mu far above the paper's, to see Algorithm 1 diverge
RIVALS = ("balanced_sampling", "excess_drop", "lagrangian(kd_over_classes=True)")  # compared with Algorithm 1 itself
SELECTED = ("lagrangian", "balanced_sampling")  # mitigations that are used in the mask phase too


def label(way: str) -> str:
    """A way as figures write it.

    >>> label("lagrangian(mu=0.005, clip=5.0), both"), label("lagrangian, before"), label("kd_over_c")
    ('Alg. 1, mu 0.005, clip 5, both', 'Alg. 1, before', 'KD / C')
    """
    if way == "lagrangian(kd_over_classes=True)":
        return "Alg. 1, mu 0.001, KD / C"
    name, rest, when = re.fullmatch(r"(.*?)(?:\((.*)\))?(?:, (before|both))?", way).groups(default="")
    words = []
    for option in rest.split(", ") if rest else []:
        key, _, value = option.partition("=")
        words.append(key.replace("_", "-") if value == "True" else f"{key} {float(value):g}")
    known = {"lagrangian": "Alg. 1", "kd_over_c": "KD / C", "group_dro": "group DRO"}
    known |= {"original": "original network", "control": "100 % control"}
    if name == "lagrangian" and not any(word.startswith("mu") for word in words) and not when:
        words = ["mu 0.001", *words]
    return ", ".join([known.get(name, name.replace("_", " ")), *words, *([when] if when else [])])


def of_mu(mu: float) -> str:
    """The way of Algorithm 1 with a step; 0.001 is its default."""
    return "lagrangian" if mu == 0.001 else f"lagrangian(mu={mu!r})"


def with_ways(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `way`, those of an original network that several panels share once."""
    inside = table["options"].str.extract(r"\bmitigation=((?:\([^)]*\)|[^,])*)", expand=False)
    when = (inside + ", before").where(table["arm"] == "plain", table["arm"] + ", both")
    rows = table.assign(way=when.where(inside.notna(), table["arm"]))
    return rows.drop_duplicates(["way", "budget", "seed", "split", "group"])


def mitigated(table: pd.DataFrame) -> list[str]:
    """The ways of a table that mitigate, in its order."""
    return [way for way in with_ways(table)["way"].unique() if way not in ARMS]


def _values(table: pd.DataFrame, quantity: str, ways: Sequence[str], **how: str) -> pd.DataFrame:
    """`averages.paired` of several ways; one of which every seed diverged has no rows."""
    rows = with_ways(table)
    return paired(rows.assign(arm=rows["way"]), quantity, arm=ways, **how).rename(columns={"arm": "way"})


def changes(table: pd.DataFrame, *, ways: Sequence[str] | None = None, **how: str) -> pd.DataFrame:
    """Every way's change at the same budget and seed; columns way, budget, seed, group_name, role, n_train, value."""
    check_teachers(finished(table))
    how = {"split": "test_balanced", "scale": "points", "pooled": "role", "against": "plain"} | how
    ways = [way for way in mitigated(table) if way != how["against"] and (ways is None or way in ways)]
    found = _values(table, "accuracy", ways, **how)
    return found.assign(value=-found["value"]) if how["scale"] == "relative" else found


def compared(table: pd.DataFrame, **how: object) -> pd.DataFrame:
    """Mean of `changes` with its 95 % t interval: columns way, budget, group_name, n_seeds, mean, low, high."""
    found = over_seeds(changes(table, **how), "value", ["way", "budget", "group_name"])
    order = mitigated(table)
    found = found.sort_values("budget", ascending=False, kind="stable")
    return found.sort_values("way", key=lambda ways: ways.map(order.index), kind="stable", ignore_index=True)


def lost_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """How many seeds of every way diverged: columns way, budget, diverged, n_seeds."""
    each = with_ways(table).drop_duplicates(["way", "budget", "seed"])
    counts = each.groupby(["way", "budget"], sort=False)["diverged"]
    return counts.agg(diverged="sum", n_seeds="size").reset_index().astype({"diverged": int})


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, float]:
    """How many rows two tables share, and the largest difference of accuracy there (points; nan without any)."""
    by = ["arm", "options", "budget", "seed", "split", "group", "data", "network", "profile"]
    both = one.merge(other, on=by, suffixes=("", "_other"), validate="one_to_one")
    return len(both), float(100 * (both["accuracy"] - both["accuracy_other"]).abs().max())


def shares_of_groups(table: pd.DataFrame) -> pd.DataFrame:
    """How many single groups gain, lose or stay by way, budget and role; `n` counts groups times seeds (Fig. 9)."""
    found = changes(table, pooled="group")
    points = found["value"]
    kinds = {"n": 1, "gain": points > 1e-9, "same": points.abs() <= 1e-9, "lose": points < -1e-9}
    by = found.assign(**kinds).groupby(["way", "budget", "role"], sort=False)
    return by[list(kinds)].sum().reset_index()


def in_and_out(table: pd.DataFrame) -> pd.DataFrame:
    """Gain by way and group on the `train` split, on `test_balanced`, and `train minus test`, all within a seed."""
    values = {}
    for split in ("train", "test_balanced"):
        found = changes(table, split=split)
        values[split] = found[found["budget"] == HEADLINE].set_index(["way", "group_name", "seed"])["value"]
    wide = pd.DataFrame(values)
    wide["train minus test"] = wide["train"] - wide["test_balanced"]
    long = wide.melt(ignore_index=False, var_name="of", value_name="points").dropna().reset_index()
    return over_seeds(long, "points", ["way", "group_name", "of"])


def diagnosed(table: pd.DataFrame, column: str, *, split: str, ways: Sequence[str]) -> pd.DataFrame:
    """A quantity of each role's mean group, one number a seed; the original is budget 1 of every way."""
    found = _values(table, column, ["original", *ways], split=split, scale="difference", pooled="role")
    first = found[found["way"] == "original"]
    return pd.concat([*(first.assign(way=way) for way in ways), found[found["way"] != "original"]], ignore_index=True)


def ratios(table: pd.DataFrame, column: str, *, split: str, way: str = "lagrangian") -> pd.DataFrame:
    """A way's quantity over plain's by role and budget: geometric means over seeds, t intervals of the logarithm."""
    found = _values(table, column, [way], split=split, scale="ratio", pooled="role", against="plain")
    found = geometric(found, "value", ["role", "budget"])
    return found.sort_values(["role", "budget"], ascending=False, ignore_index=True)


def trade(table: pd.DataFrame, *, split: str = "test_balanced", against: str = "") -> pd.DataFrame:
    """Accuracy and fairness (`violation`, `gap`, `worst`) of every way at `HEADLINE`, or their change within a seed."""
    rows = with_ways(finished(table))
    rows = rows[(rows["split"] == split) & ((rows["budget"] == HEADLINE) | (rows["way"] == "original"))]
    rows = rows.assign(right=rows["accuracy"] * rows["n"])
    groups, sums = rows.groupby(["way", "seed"], sort=False)["accuracy"], ["right", "n"]
    whole = rows.groupby(["way", "seed"], sort=False)[sums].sum().eval("right / n")
    roles = rows.groupby(["way", "seed", "role"], sort=False)[sums].sum().eval("right / n").unstack("role")
    values = {"accuracy": whole, "violation": groups.max() - groups.min()}
    values = 100 * pd.DataFrame(values | {"gap": roles["majority"] - roles["minority"], "worst": groups.min()})
    if against:
        reference = values.xs(against, level="way").reindex(values.index, level="seed")
        values = (values - reference).drop(index=[against, "original"], level="way")
    long = values.melt(ignore_index=False, var_name="of", value_name="value").dropna().reset_index()
    return over_seeds(long, "value", ["way", "of"])
