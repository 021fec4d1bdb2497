"""What the data sheets of the book show: the facts of a data set, and its counts beside the paper's."""

import math

import pandas as pd
from pandas.io.formats.style import Styler

from linfair.data.describe import SHEETS, Paper, as_shown, group_table
from linfair_book.tables import committed


def markdown(name: str) -> str:
    """A data set's facts as a page of the book shows them."""
    sheet = SHEETS[name]
    parts = {"What it is": sheet.what, "Published": sheet.publication, "Terms": sheet.terms}
    parts |= {"Where to get it": sheet.obtain, "How it is split": sheet.split}
    parts |= {"What the labels are not": sheet.labels_are_not, "What is shown": sheet.shown}
    lines = [f"**{title}.** {text}" for title, text in parts.items()]
    return "\n\n".join([*lines, "**Known faults.**", "\n".join(f"- {fault}" for fault in sheet.faults)])


def read_rows(data: str, *, group: str | None = None) -> pd.DataFrame:
    """The committed counts of one data set; `group` says which way to group it, else as its label."""
    rows = committed("data_counts")
    return rows[(rows["data"] == data) & (rows["group"] == (group or rows["label"]))]


def paper_table(rows: pd.DataFrame, paper: Paper) -> pd.DataFrame:
    """The columns of `group_table` that stand beside the paper's, without those of the splits."""
    table = group_table(rows, paper)
    return table[["group", *(name for name in ("ours", "paper", "ours %", "paper %") if name in table)]]


def styled(table: pd.DataFrame) -> Styler:
    """The table as a page shows it: `as_shown`, numbers to the right, no index."""
    numbers = [name for name in table.columns if not pd.api.types.is_string_dtype(table[name])]
    right = {name: [{"selector": "th, td", "props": "text-align: right"}] for name in numbers}
    return as_shown(table).style.hide(axis="index").set_table_styles(right)


def evidence(rows: pd.DataFrame) -> str:
    """One line on what counts rest on: seed, source, checksum, files left out, version."""
    one = rows.iloc[0]
    source = f"Seed {one['seed']}; {one['source']}, SHA-256 {one['source_sha256'][:12]}..."
    return f"{source}; files skipped: {one['skipped']}; linfair {one['linfair']}."


def share_numbers(rows: pd.DataFrame, page: str = "06_released_code") -> pd.DataFrame:
    """The share of every group of the faces in per cent, as numbers that claims rest on, from `count_rows`."""
    lines = []
    for name, label in (("utkface_age", "age"), ("utkface_race", "race")):
        part = rows[(rows["data"] == name) & (rows["group"] == label) & rows["split"].isin(["train", "val", "test"])]
        counts, first = part.groupby("group_name")["n"].sum(), part.iloc[0]
        about = {"low": math.nan, "high": math.nan, "n": int(counts.sum()), "of": "images", "unit": "%", "digits": 2}
        about["settings"] = f"{first['source']}, sha256 {first['source_sha256'][:12]}, seed {first['seed']}"
        about |= {"device": "counted, no network", "torch": "not used", "linfair": first["linfair"], "seconds": 0.0}
        for group, n in counts.items():
            lines.append({"key": f"{page}#share-of-{group}-in-{name}", "value": 100 * n / counts.sum()} | about)
    return pd.DataFrame(lines)
