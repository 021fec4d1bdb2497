"""Accuracy against fairness: what each way of mitigating buys, and at which price (notebook 05)."""

import pandas as pd

from linfair.metrics import mean_interval
from linfair_book.mitigation import HEADLINE, accuracies, label


def trade(table: pd.DataFrame, *, budget: float = HEADLINE, split: str = "test_balanced") -> pd.DataFrame:
    """Accuracy against fairness violation of every way at one budget, means over seeds with 95 % t intervals.

    The violation is the largest minus the smallest accuracy of a group (the pruning paper's); `gap` is majority minus
    minority, `worst` the smallest accuracy. A way is `best` if no other one has both a higher mean accuracy and a lower
    mean violation.

    Returns:
        Columns way, n_seeds, best, then mean, low and high of each of accuracy, violation, gap, worst, in per cent or
        points: `accuracy`, `accuracy_low`, ...
    """
    pooled = {}
    for how in ("group", "role", "all"):
        rows = accuracies(table, pooled=how)
        pooled[how] = rows[(rows["split"] == split) & ((rows["budget"] == budget) | (rows["way"] == "original"))]
    spread = pooled["group"].groupby(["way", "seed"])["accuracy"].agg(["max", "min"])
    roles = pooled["role"].pivot(index=["way", "seed"], columns="group_name", values="accuracy")
    values = pd.DataFrame(
        {
            "accuracy": 100 * pooled["all"].set_index(["way", "seed"])["accuracy"],
            "violation": 100 * (spread["max"] - spread["min"]),
            "gap": 100 * (roles["majority"] - roles["minority"]),
            "worst": 100 * spread["min"],
        }
    )
    lines = []
    for way in values.index.unique("way"):
        part, line = values.loc[way], {"way": way, "n_seeds": len(values.loc[way])}
        for name in values.columns:
            got = mean_interval(part[name].to_numpy())
            line |= {name: got.mean, f"{name}_low": got.low, f"{name}_high": got.high}
        lines.append(line)
    found = pd.DataFrame(lines)
    rivals = found[~found["way"].isin(["original", "control"])]
    best = [
        one.way in set(rivals["way"])
        and not ((rivals["accuracy"] > one.accuracy) & (rivals["violation"] < one.violation)).any()
        for one in found.itertuples()
    ]
    return found.assign(best=best)


def trade_text(table: pd.DataFrame, *, budget: float = HEADLINE, split: str = "test_balanced") -> pd.DataFrame:
    """The table behind the Pareto picture for reading, fairest first, `mean [low, high]`; a triangle: not beaten."""
    found = trade(table, budget=budget, split=split).sort_values("violation")
    names = {
        "accuracy": "accuracy (%)",
        "violation": "violation",
        "gap": "majority - minority",
        "worst": "worst group (%)",
    }
    names_of = {"original": "original network", "control": "100 % control"}
    lines = {"": ["▲ " * row.best + names_of.get(row.way, label(row.way)) for row in found.itertuples()]}
    for column, name in names.items():
        ends = zip(found[column], found[f"{column}_low"], found[f"{column}_high"], strict=True)
        lines[name] = [f"{mean:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low == low else "") for mean, low, high in ends]
    return pd.DataFrame(lines)
