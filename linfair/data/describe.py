"""What is said of a data set: its sheet (from `sheets.toml`), the images of each group, what was met while reading."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

import linfair
from linfair.data.core import GroupedData
from linfair.names import some
from linfair.paths import save_table

Sheet = Paper = SimpleNamespace
_FACTS = tomllib.loads(Path(__file__).with_name("sheets.toml").read_text(encoding="utf-8"))
SHEETS = {name: Sheet(**{"paper": {}} | facts) for name, facts in _FACTS.items()}  #: As in `sheets.toml`
for _sheet in SHEETS.values():
    _sheet.paper = {name: Paper(**{"counts": None} | said) for name, said in _sheet.paper.items()}
KINDS = {  # why a file was skipped, by `Skipped.kind`
    "missing": "with a missing value",
    "conflict": "listed with conflicting values",
    "unreadable": "not readable",
    "identical": "identical to an image of another split",
    "other": "for another reason",
}


def sheet_of(name: str) -> Sheet:
    """The sheet of a data set by the name that `load_data` takes: `utkface_age`, `folder:PATH`, ..."""
    name = name.partition(":")[0]
    return next(SHEETS[one] for one in (name, f"{name}s", name.partition("_")[0]) if one in SHEETS)


def count_rows(data: GroupedData) -> pd.DataFrame:
    """A row for each split, group and label of a data set (also where n is 0), with what the counts rest on.

    Columns: `data`, `label` and `group` (what they are), `seed`, `split`, `group_number`, `group_name`, `role`,
    `label_number`, `label_name`, `n`, `source`, `source_sha256`, `skipped` (files left out), `linfair`.
    """
    known, labels, rows = data.provenance, len(data.label_names), []
    plain = {"label": "class", "group": "class" if data.aligned is None else "domain"}
    whose = known["source"].rpartition(", ")[0] if data.name == "folder" else data.name  # `folder NAME`
    about = {"data": whose, **{what: known["options"].get(what, word) for what, word in plain.items()}}
    rest = {"source": known["source"], "source_sha256": known.get("source_sha256", known["sha256"])}
    rest |= {"skipped": len(known.get("skipped", ())), "linfair": linfair.__version__}
    for split, part in data.splits.items():
        counted = torch.bincount(part.a.cpu() * labels + part.y.cpu(), minlength=len(data.group_names) * labels)
        for number, n in enumerate(counted.tolist()):
            a, y = divmod(number, labels)
            one = {"split": split, "group_number": a, "group_name": data.group_names[a], "role": data.roles[a]}
            one |= {"label_number": y, "label_name": data.label_names[y], "n": n}
            rows.append(about | {"seed": known["seed"]} | one | rest)
    return pd.DataFrame(rows)


def group_table(rows: pd.DataFrame, paper: Paper | None = None) -> pd.DataFrame:
    """A line per group and one for their sum: counts by split, and ours beside the paper's where it says something."""
    table = rows.pivot_table(index=["group_number", "group_name", "role"], columns="split", values="n", aggfunc="sum")
    table = table[list(dict.fromkeys(rows["split"]))].rename_axis(columns=None).droplevel("group_number")
    if paper is not None:
        table["ours"] = table[list(paper.splits)].sum(axis=1)
        if paper.counts is not None:
            table["paper"] = paper.counts
        table["ours %"] = 100 * table["ours"] / table["ours"].sum()
        table["paper %"] = paper.shares
    kinds = table.dtypes
    table.loc[("all", ""), :] = table.sum()
    return table.astype(kinds).rename_axis(["group", "role"]).reset_index()


def label_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Groups in lines, labels in columns: how many of each there are to train on."""
    part = rows[rows["split"] == "train"]
    names = part.drop_duplicates("label_number").sort_values("label_number")["label_name"]
    table = part.pivot(index=["group_number", "group_name"], columns="label_number", values="n")
    head = "group" + " " * max([len(name) for name in names if name.strip() == "group"], default=0)  # a name of its own
    return table.set_axis(list(names), axis=1).droplevel("group_number").rename_axis(head).reset_index()


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
    return save_table(rows, path)


def notes(known: Mapping[str, object]) -> dict[str, str]:
    """A line for everything that a reader of results should know of the images, from `GroupedData.provenance`."""
    again, spelled, left_out = (known.get(name, ()) for name in ("duplicates", "found_as", "left_out"))
    differ = f" ({known['copies_differ']} with another label or group)" if known.get("copies_differ") else ""
    drawn = known.get("drawn", {})
    thin = {group: [split for split in drawn if group in drawn[split]] for groups in drawn.values() for group in groups}
    alone = some([f"{group} ({', '.join(splits)})" for group, splits in thin.items()])
    lines = {
        "skipped": skipped_line(known),
        "duplicates": f"files listed more than once: {len(again)}, each counted once",
        "found_as": f"files found under another spelling: {len(spelled)} "
        f"({some([f'{file} is {there}' for file, there in spelled])})",
        "copies": f"images identical to another one: {known.get('copies')}{differ}, kept in its split",
        "rotated": f"images turned upright by their EXIF orientation: {known.get('rotated')}",
        "merged": f"groups merged: {some(known.get('merged', ()), joint='; ')}",
        "left_out": f"groups left out for having too few images: {len(left_out)}, {sum(n for _, n in left_out)} images "
        f"({some([f'{name} {n}' for name, n in left_out])})",
        "untested": f"labels without a test image: {some(known.get('untested', ()))}",
        "thin": f"drawn in proportion to group alone, because there are too few images of each label: {alone}",
    }
    said = {name: line for name, line in lines.items() if {"thin": thin, **known}.get(name)}
    return said | {text: text for text in known.get("lookalikes", ())}


def skipped_line(known: Mapping[str, object]) -> str:
    """How many files were skipped, and of which kind."""
    kinds = known.get("skipped_kinds", {})
    why = ", ".join(f"{kinds[kind]} {text}" for kind, text in KINDS.items() if kind in kinds)
    return f"files skipped: {len(known.get('skipped', []))}" + f" ({why})" * bool(why)


def listed(files: Sequence[Sequence[str]]) -> list[str]:
    """A line for each file with its reason, one for all where more than five have one reason; the first 20 of them."""
    reasons: dict[str, list[str]] = {}
    for file, why in files:
        reasons.setdefault(why, []).append(file)
    lines: list[str] = []
    for why, names in reasons.items():
        many = len(names) > 5
        lines += [f"{why}: {len(names)} files, {some(names)}"] if many else [f"{name}: {why}" for name in names]
    return lines[:20] + [f"and {len(lines) - 20} more: see --json"] * (len(lines) > 20)


def split_line(known: Mapping[str, object]) -> str:
    """Which splits were drawn, and which the source has."""
    drawn, options = list(known["drawn"]), known["options"]
    given = [split for split in ("val", "test") if split not in drawn]
    by = " and ".join(dict.fromkeys((options["label"], options["group"])))
    parts = [f"{' and '.join(['train', *given])} as given"] if given else []
    parts += [f"{' and '.join(sorted(drawn))} drawn in proportion to {by}"] if drawn else []
    return f"split: {'; '.join(parts)}"
