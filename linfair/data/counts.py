"""How many items each group has: tidy rows, the table beside the paper's, and whole sources in one line a field."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pandas.io.formats.style import Styler

import linfair
from linfair.data.core import GroupedData
from linfair.data.sheets import Paper
from linfair.paths import whole


def count_rows(data: GroupedData) -> pd.DataFrame:
    """A row for each split, group and label of a data set, with what the counts rest on.

    Columns: `data`, `label` and `group` (what they are), `seed`, `split`, `group_number`, `group_name`, `role`,
    `label_number`, `label_name`, `n`, `source`, `source_sha256`, `skipped` (files left out), `linfair`. Rows with n = 0
    are there too.

    Args:
        data: The data set.

    Returns:
        The rows, split by split.
    """
    known = data.provenance
    options = known["options"]
    about = {
        "data": data.name,
        "label": options.get("label", "class"),
        "group": options.get("group", "class"),
        "seed": known["seed"],
    }
    rest = {
        "source": known["source"],
        "source_sha256": known.get("source_sha256", known["sha256"]),
        "skipped": len(known.get("skipped", ())),
        "linfair": linfair.__version__,
    }
    groups, labels = len(data.group_names), len(data.label_names)
    rows = []
    for split, part in data.splits.items():
        counted = torch.bincount(part.a.cpu() * labels + part.y.cpu(), minlength=groups * labels)
        for number, n in enumerate(counted.tolist()):
            a, y = divmod(number, labels)
            one = {"split": split, "group_number": a, "group_name": data.group_names[a], "role": data.roles[a]}
            rows.append(about | one | {"label_number": y, "label_name": data.label_names[y], "n": n} | rest)
    return pd.DataFrame(rows)


def group_table(rows: pd.DataFrame, paper: Paper | None = None) -> pd.DataFrame:
    """A line per group: counts by split, and where there is something to compare, ours beside the paper's.

    Args:
        rows: Of `count_rows`, one data set.
        paper: What the paper says of the same groups.

    Returns:
        Columns `group`, `role`, one for each split, and with a paper `ours`, `paper` (counts, where it gives them),
        `ours %` and `paper %`; the last line is the sum.
    """
    counts = rows.pivot_table(index=["group_number", "group_name", "role"], columns="split", values="n", aggfunc="sum")
    counts = counts[list(dict.fromkeys(rows["split"]))].reset_index().drop(columns="group_number")
    table = counts.rename(columns={"group_name": "group"}).rename_axis(columns=None)
    if paper is not None:
        ours = table[list(paper.splits)].sum(axis=1)
        table["ours"] = ours
        if paper.counts is not None:
            table["paper"] = paper.counts
        table["ours %"] = 100 * ours / ours.sum()
        table["paper %"] = paper.shares
    total = table.drop(columns=["group", "role"]).sum()
    return pd.concat([table, pd.DataFrame([{"group": "all", "role": ""} | total.to_dict()])], ignore_index=True).astype(
        {name: "int64" for name in table.columns if name not in ("group", "role") and not name.endswith("%")}
    )


def label_table(rows: pd.DataFrame, *, split: str = "train") -> pd.DataFrame:
    """Groups in lines, labels in columns: how many of each there are in one split.

    Args:
        rows: Of `count_rows`.
        split: The split.
    """
    part = rows[rows["split"] == split]
    names = part.drop_duplicates("label_number").sort_values("label_number")["label_name"]
    table = part.pivot(index=["group_number", "group_name"], columns="label_number", values="n")
    return (
        table.set_axis(list(names), axis=1)
        .reset_index()
        .drop(columns="group_number")
        .rename(columns={"group_name": "group"})
    )


def as_shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its numbers as text: thousands apart, shares with two decimals.

    >>> as_shown(pd.DataFrame({"group": ["a"], "train": [22500], "ours %": [42.513]})).iloc[0].tolist()
    ['a', '22,500', '42.51']
    """
    shown = table.copy()
    for name in table.columns:
        if pd.api.types.is_integer_dtype(table[name]):
            shown[name] = [f"{n:,}" for n in table[name]]
        elif pd.api.types.is_float_dtype(table[name]):
            shown[name] = [f"{share:.2f}" for share in table[name]]
    return shown


def paper_table(rows: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """The columns of `group_table` that stand beside the paper's, without those of the splits."""
    table = group_table(rows, paper)
    return table[["group", *(name for name in ("ours", "paper", "ours %", "paper %") if name in table)]]


def styled(table: pd.DataFrame) -> Styler:
    """The table as a page shows it: `as_shown`, numbers to the right, no index."""
    numbers = [name for name in table.columns if not pd.api.types.is_string_dtype(table[name])]
    right = {name: [{"selector": "th, td", "props": "text-align: right"}] for name in numbers}
    return as_shown(table).style.hide(axis="index").set_table_styles(right)


def named_counts(values: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Images of each value of a field by its name; negative numbers (unknown) are left out.

    >>> named_counts(np.array([0, 1, 1, -1]), ("cat", "dog"))
    {'cat': 1, 'dog': 2}
    """
    counted = np.bincount(values[values >= 0].astype(np.int64), minlength=len(names))
    return dict(zip(names, counted.tolist(), strict=True))


def evidence(rows: pd.DataFrame) -> str:
    """One line on what counts rest on: seed, source, checksum, files left out, version."""
    one = rows.iloc[0]
    return (
        f"Seed {one['seed']}; {one['source']}, SHA-256 {one['source_sha256'][:12]}...; "
        f"files skipped: {one['skipped']}; linfair {one['linfair']}."
    )


def read_rows(path: str | Path, data: str, *, group: str | None = None) -> pd.DataFrame:
    """The rows of one data set from a file of `write_rows`.

    Args:
        path: The file.
        data: Name of the data set.
        group: What its groups are, where the file holds several ways to group it.

    Raises:
        ValueError: If there are none.
    """
    rows = pd.read_parquet(path)
    found = rows[(rows["data"] == data) & ((rows["group"] == group) if group else (rows["group"] == rows["label"]))]
    if found.empty:
        raise ValueError(
            f"{path} has no counts of {data}; write them with: linfair data describe {data} --write {path}"
        )
    return found


def write_rows(rows: pd.DataFrame, path: str | Path) -> Path:
    """Put rows of `count_rows` into a Parquet file, in place of what it said of the same data, label and group.

    Args:
        rows: Rows of one data set.
        path: The file; made if missing, written whole or not at all.

    Returns:
        The path.
    """
    path = Path(path)
    which = ["data", "label", "group"]
    if path.exists():
        old = pd.read_parquet(path)
        keep = ~(old[which] == rows[which].iloc[0]).all(axis=1)
        rows = pd.concat([old[keep], rows]).sort_values(which, kind="stable", ignore_index=True)
    with whole(path) as part:
        rows.to_parquet(part, index=False)
    return path


def share_numbers(rows: pd.DataFrame, page: str = "06_released_code") -> pd.DataFrame:
    """The share of every group of the faces as numbers that claims rest on, with the columns of noted ones.

    Where they come from is what the counted rows say: the pack and its digest, and no network.

    Args:
        rows: Of `count_rows`, whole data sets; splits that repeat others' images (`test_balanced`) do not count.
        page: The notebook that shows them.

    Returns:
        A row for each group of `utkface_age` and `utkface_race`, key `PAGE#share-of-GROUP-in-DATA`, in per cent.
    """
    lines = []
    for name, label in (("utkface_age", "age"), ("utkface_race", "race")):
        part = rows[(rows["data"] == name) & (rows["group"] == label) & rows["split"].isin(["train", "val", "test"])]
        counts = part.groupby("group_name")["n"].sum()
        for group, n in counts.items():
            first = part.iloc[0]
            lines.append(
                {
                    "key": f"{page}#share-of-{group}-in-{name}",
                    "value": 100 * n / counts.sum(),
                    **{"low": float("nan"), "high": float("nan"), "n": int(counts.sum()), "of": "images", "unit": "%"},
                    "digits": 2,
                    "settings": f"{first['source']}, sha256 {first['source_sha256'][:12]}, seed {first['seed']}",
                    **{"device": "counted, no network", "torch": "not used", "linfair": first["linfair"]},
                    "seconds": 0.0,
                }
            )
    return pd.DataFrame(lines)
