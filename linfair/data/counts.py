"""How many items each group has: tidy rows, and the table beside the paper's."""

from pathlib import Path

import pandas as pd
import torch

import linfair
from linfair.data.core import GroupedData
from linfair.data.sheets import Paper
from linfair.paths import whole


def count_rows(data: GroupedData) -> pd.DataFrame:
    """A row for each split, group and label of a data set (also where n is 0), with what the counts rest on.

    Columns: `data`, `label` and `group` (what they are), `seed`, `split`, `group_number`, `group_name`, `role`,
    `label_number`, `label_name`, `n`, `source`, `source_sha256`, `skipped` (files left out), `linfair`.
    """
    known, options = data.provenance, data.provenance["options"]
    about = {"data": data.name, **{what: options.get(what, "class") for what in ("label", "group")}}
    about["seed"] = known["seed"]
    rest = {
        "source": known["source"],
        "source_sha256": known.get("source_sha256", known["sha256"]),
        "skipped": len(known.get("skipped", ())),
        "linfair": linfair.__version__,
    }
    groups, labels, rows = len(data.group_names), len(data.label_names), []
    for split, part in data.splits.items():
        counted = torch.bincount(part.a.cpu() * labels + part.y.cpu(), minlength=groups * labels)
        for number, n in enumerate(counted.tolist()):
            a, y = divmod(number, labels)
            one = {"split": split, "group_number": a, "group_name": data.group_names[a], "role": data.roles[a]}
            rows.append(about | one | {"label_number": y, "label_name": data.label_names[y], "n": n} | rest)
    return pd.DataFrame(rows)


def group_table(rows: pd.DataFrame, paper: Paper | None = None) -> pd.DataFrame:
    """A line per group and one for their sum: counts by split, and ours beside the paper's where it says something."""
    counts = rows.pivot_table(index=["group_number", "group_name", "role"], columns="split", values="n", aggfunc="sum")
    counts = counts[list(dict.fromkeys(rows["split"]))].reset_index().drop(columns="group_number")
    table = counts.rename(columns={"group_name": "group"}).rename_axis(columns=None)
    if paper is not None:
        table["ours"] = table[list(paper.splits)].sum(axis=1)
        if paper.counts is not None:
            table["paper"] = paper.counts
        table["ours %"] = 100 * table["ours"] / table["ours"].sum()
        table["paper %"] = paper.shares
    total = {"group": "all", "role": ""} | table.drop(columns=["group", "role"]).sum().to_dict()
    whole_numbers = [name for name in table if name not in ("group", "role") and not name.endswith("%")]
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True).astype(dict.fromkeys(whole_numbers, "int64"))


def label_table(rows: pd.DataFrame, *, split: str = "train") -> pd.DataFrame:
    """Groups in lines, labels in columns: how many of each there are in one split."""
    part = rows[rows["split"] == split]
    names = part.drop_duplicates("label_number").sort_values("label_number")["label_name"]
    table = part.pivot(index=["group_number", "group_name"], columns="label_number", values="n")
    table = table.set_axis(list(names), axis=1).reset_index().drop(columns="group_number")
    return table.rename(columns={"group_name": "group"})


def as_shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its numbers as text: thousands apart, shares with two decimals."""
    whole_numbers = table.select_dtypes("integer").apply(lambda column: column.map("{:,}".format))
    return table.assign(**whole_numbers, **table.select_dtypes("floating").map("{:.2f}".format))


def write_rows(rows: pd.DataFrame, path: str | Path) -> Path:
    """Put rows of `count_rows` into a Parquet file, in place of what it said of the same data, label and group."""
    path, which = Path(path), ["data", "label", "group"]
    if path.exists():
        old = pd.read_parquet(path)
        keep = ~(old[which] == rows[which].iloc[0]).all(axis=1)
        rows = pd.concat([old[keep], rows]).sort_values(which, kind="stable", ignore_index=True)
    with whole(path) as part:
        rows.to_parquet(part, index=False)
    return path
