"""Where DeepReDuce's students start: the original's weights, or fresh ones as in the released code (thin ResNet18)."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from linfair.linearizers.finetuning import STARTS
from linfair.study.arms import ARMS
from linfair.study.recipes import recipe
from linfair.study.tables import by_role, over_seeds, side_by_side
from linfair_book.averages import inside
from linfair_book.tables import place, ran, save

TABLE = "digits_resnet18_starts"
CONFIGURATIONS = ("1,4",)
EPOCHS = (20, 200)


def compute(
    seeds: Sequence[int] = (0, 1, 2), *, epochs: Sequence[int] = EPOCHS, profile: str = "small", **how: object
) -> pd.DataFrame:
    """Both starts with their controls, from one original network a seed: rows of `study.run` on the test splits."""
    own, parts = recipe("resnet18", profile).method("deepreduce").schedule, []
    for count in epochs:
        for start in STARTS:
            options = {"configurations": CONFIGURATIONS, "start": start, "finetuning": False}
            options["schedule"] = replace(own, epochs=count)
            shared = {"data": "digits", "network": "resnet18", "method": "deepreduce", "curvature": "none"}
            rows = ran(ARMS, seeds=seeds, profile=profile, options=options, **shared, **how)
            parts.append(rows.assign(start=start, student_epochs=count, options=f"start={start}, epochs={count}"))
    table = pd.concat(parts, ignore_index=True).drop(columns=["multiplier", "multipliers"])
    table.loc[table["arm"] == "original", ["start", "student_epochs", "options"]] = ["", 0, ""]
    table = table[table["split"].isin(("test", "test_balanced"))]
    table = table.drop_duplicates(["arm", "start", "student_epochs", "budget", "seed", "split", "group"])
    return table.dropna(axis="columns", how="all").reset_index(drop=True)


def differences(table: pd.DataFrame, *, split: str = "test_balanced") -> pd.DataFrame:
    """Accuracy (%) of both roles from either start, and fresh minus teacher within a seed (points), over seeds."""
    part = table[(table["split"] == split) & (table["arm"] != "original")]
    part = part[(part["arm"] == "plain") | (part["budget"] == part["budget"].max())]
    pooled = by_role(part.drop(columns=["budget", "budget_units", "kept"]))
    by = ["arm", "configuration", "student_epochs", "role"]
    wide = 100 * pooled.pivot_table(index=[*by, "seed"], columns="start", values="accuracy")
    wide["fresh minus teacher"] = wide["fresh"] - wide["teacher"]
    long = wide.melt(ignore_index=False, var_name="of", value_name="value").reset_index()
    found = over_seeds(long, "value", [*by, "of"])
    return inside(found, 0, 100, lines=found["of"].isin(STARTS))


def shown(table: pd.DataFrame, *, split: str = "test_balanced") -> pd.DataFrame:
    """The table of the page: a line for each network and length of training, `mean [low, high]` for each role."""
    found = differences(table, split=split)
    found = found.sort_values(["student_epochs", "arm"], ascending=[True, False], kind="stable")
    kept = ("culled " + found["configuration"]).where(found["arm"] == "plain", "every ReLU kept")
    found = found.assign(network=kept + ", " + found["student_epochs"].astype(str) + " epochs")
    return side_by_side(found, ["role", "of"], line="network")


if __name__ == "__main__":
    save(compute(), place(TABLE))
