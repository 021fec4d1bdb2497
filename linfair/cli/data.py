"""What `linfair data status`, `describe`, `fetch` and `pack` print and do."""

import contextlib
import json
import sys
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from pathlib import Path

import numpy as np

from linfair.data import DATASETS, DataError, GroupedData, check_name, load_data
from linfair.data.counts import as_shown, count_rows, group_table, label_table, named_counts, write_rows
from linfair.data.folder import CONFLICTS
from linfair.data.images import check_skips, files_of
from linfair.data.named import CIFAR10_NAMES, DIGITS
from linfair.data.notes import listed, notes, skipped_line, split_line
from linfair.data.official import SVHN
from linfair.data.packs import read_fields, write_pack
from linfair.data.sheets import SHEETS, sheet_of
from linfair.data.sources import checksum_state, fetch, find, read
from linfair.data.utkface import LIMITS, fields_of, utkface_field
from linfair.names import unknown
from linfair.paths import data_folders

SOURCES = ("cifar10", "svhn", "utkface")
"""Data sets whose files are looked for; the others are made, bundled or the user's folder."""
SHOWN_SKIPS = 20
"""Skipped files that `describe` lists; the rest is counted (`--json` lists all)."""
SHOWN_ALIKE = 5
"""Files skipped for one reason that are listed each; more of them share a line."""


def status(options: Namespace) -> None:
    """Print what was found where, its images by group and its checksum; a broken file is an error at the end."""
    found = {name: state(name, options.root) for name in SOURCES}
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("toy      made by linfair: nothing to find")
        print("digits   comes with scikit-learn: nothing to find")
        for name, one in found.items():
            print(_status_text(name, one))
        print("folder   your own images: linfair data describe folder:PATH --label COLUMN --group COLUMN")
    problems = [one["problem"] for one in found.values() if one["problem"]]
    if problems:
        raise DataError("; ".join(problems))


def state(name: str, root: str | Path | None = None) -> dict[str, object]:
    """What is there of one of `SOURCES`; images are not decoded where labels can be read without.

    Args:
        name: Name of the source.
        root: Look here only; see `linfair.paths.data_folders`.

    Returns:
        `found`, `path`, `kind` and `checksum` (None where nothing was found), `images`, `groups` (field -> name ->
        images), `looked_in`, `obtain`, and `problem` (None, or why the file cannot be used).
    """
    place = find(name, root)
    known: dict[str, object] = {"found": place is not None, "path": None, "kind": None, "checksum": None}
    known |= {"images": 0, "groups": {}, "looked_in": [str(folder) for folder in data_folders(root)]}
    known |= {"obtain": SHEETS[name].obtain, "problem": None}
    if place is None:
        return known
    known |= {"path": str(place.path), "kind": place.kind}
    try:
        known["checksum"] = checksum_state(place)
        fields = _fields(name, place.path, place.kind, root)
    except DataError as error:
        return known | {"problem": str(error)}
    known["images"] = len(next(iter(fields.values())))
    known["groups"] = {title: named_counts(*numbers) for title, numbers in _groupings(name, fields).items()}
    return known


def _fields(name: str, path: Path, kind: str, root: str | Path | None) -> dict[str, np.ndarray]:
    """The labels of a source; of a pack and of UTKFace's files without opening an image."""
    if kind == "pack":
        return read_fields(path, name)
    if name != "utkface":
        return read(name, root).fields
    rows = []
    for file in files_of(path):
        with contextlib.suppress(ValueError):  # a name that says nothing; `describe` lists it
            rows.append(fields_of(file.name))
    return {field: np.array([row[field] for row in rows], dtype=np.int64) for field in LIMITS}


def _groupings(name: str, fields: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    if name == "utkface":
        return {field: utkface_field(fields, field) for field in ("age", "race", "gender")}
    return {"class": (fields["label"], CIFAR10_NAMES if name == "cifar10" else DIGITS)}


def _status_text(name: str, one: dict) -> str:
    if not one["found"]:
        return f"{name:8s} not found in {', '.join(one['looked_in'])}\n         get it: {one['obtain']}"
    head = f"{name:8s} {one['kind']} {one['path']}"
    if one["problem"]:
        return f"{head}\n         cannot be used, see below"
    about = f"{one['images']:,} images, {one['checksum']}"
    if name == "svhn" and one["images"] < SVHN.images:
        about += f" (SVHN subset: the whole has {SVHN.images:,})"
    lines = [head, about]
    for title, groups in one["groups"].items():
        left_out = one["images"] - sum(groups.values())
        counted = ", ".join(f"{group} {n:,}" for group, n in groups.items())
        lines.append(f"{title}: {counted}" + (f" (left out: {left_out:,})" if left_out else ""))
    return "\n         ".join(lines)


def describe(options: Namespace) -> None:
    """Print a data set's groups by split, beside the paper's, with its origin and everything left out."""
    data = _load(options)
    rows = count_rows(data)
    if options.write:
        print(f"wrote {write_rows(rows, options.write)}", file=sys.stderr)
    if options.json:
        print(json.dumps({"provenance": data.provenance, "rows": rows.to_dict("records")}, indent=2, default=str))
        return
    sheet = sheet_of(options.name)
    asked, known = rows.iloc[0], data.provenance
    paper = sheet.paper.get(data.name) if asked["label"] == asked["group"] == _own_label(data.name) else None
    part = " subset" if data.provenance.get("subset") else ""
    print(
        f"{options.name}{part}: {sheet.title}; label {asked['label']}, group {asked['group']}, seed {asked['seed']}\n"
    )
    print(as_shown(group_table(rows, paper)).to_string(index=False))
    if paper is not None:
        print(f"ours: {paper.compared}; paper: {paper.where}. {paper.why}")
    if data.label_names != data.group_names:
        print(f"\nTraining images by group and label\n{as_shown(label_table(rows)).to_string(index=False)}")
    print(f"\nsource: {asked['source']}\nsha256: {asked['source_sha256']}\nterms: {sheet.terms}")
    print(f"what the labels are not: {sheet.labels_are_not}")
    if "drawn" in known:
        print(split_line(known))
    if not known.get("skipped"):
        print(skipped_line(known))
    for line in notes(known):
        print(line)
        files = known["skipped"] if line == skipped_line(known) else []
        files = known["duplicates"] if line.startswith("files listed") else files
        lines = listed(files, SHOWN_ALIKE)
        for one in lines[:SHOWN_SKIPS]:
            print(f"    {one}")
        if len(lines) > SHOWN_SKIPS:
            print(f"    and {len(lines) - SHOWN_SKIPS} more: see --json")


def _own_label(name: str) -> str:
    return name.partition("_")[2] or "class"


def _load(options: Namespace) -> GroupedData:
    check_name(options.name)
    root = {} if options.root is None else {"root": options.root}
    data = load_data(options.name, seed=options.seed, **root, **chosen(options))
    if options.strict:
        check_skips(data.name, data.provenance.get("skipped", []), len(data.splits["train"]), strict=True)
    return data


def _source(name: str, root: str | None) -> tuple[str, str | None]:
    """Name and folder of a source: `utkface_age` is read from utkface, `folder:PATH` from PATH."""
    kind, colon, place = name.partition(":")
    if colon and kind == "folder":
        return kind, place
    source = name if name in SOURCES else kind.partition("_")[0]
    if source in SOURCES and (name == source or name in DATASETS):
        return source, root
    raise DataError(unknown("There is no source", name, [*SOURCES, "folder:PATH"]))


def fetch_data(options: Namespace) -> None:
    """Download a data set into the first folder that is looked in, or say how to obtain it."""
    name, _ = _source(options.name, None)
    if name == "folder":
        raise DataError("folder:PATH is yours already; there is nothing to fetch")
    fetch(name, data_folders(options.root)[0])
    print(_status_text(name, state(name, options.root)))


def pack_data(options: Namespace) -> None:
    """Read a source and write it as one pack with a checksum beside it."""
    name, root = _source(options.name, options.root)
    every = {"columns": None} if name == "folder" else {}
    collection = read(name, root, strict=options.strict or None, **every)
    write_pack(collection, Path(options.out))
    print(f"wrote {options.out}: {len(collection):,} images, files skipped: {len(collection.skipped)}")
    print(f"checksum beside it: {options.out}.sha256")


def chosen(options: Namespace) -> dict[str, object]:
    """The data set's options that `choice_options` added and that were given."""
    given = {name: getattr(options, name) for name in ("label", "group", "min_images", "conflicts")}
    given["merge"] = ";".join(options.merge) if options.merge else None
    return {name: value for name, value in given.items() if value is not None}


def choice_options(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add the options that choose labels and groups of a data set."""
    parser.add_argument("--label", metavar="NAME", help="what is predicted, for data that let you choose")
    parser.add_argument(
        "--group", metavar="NAME", help="what is compared; A,B for combinations of two columns (default: the label)"
    )
    parser.add_argument("--merge", metavar="A+B", action="append", help="make one group of these; may be repeated")
    parser.add_argument("--min-images", type=int, metavar="N", help="leave out groups with fewer images than N")
    parser.add_argument(
        "--conflicts",
        choices=CONFLICTS,
        help="a folder's files that are listed with different values (default: leave-out)",
    )


def _root_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--root", metavar="DIR", help="look here only (default: LINFAIR_DATA, then data in the cache folder)"
    )


def _strict_option(parser: ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="a file that cannot be used is an error, not a skip")


def status_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair data status`."""
    _root_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def describe_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair data describe`."""
    parser.add_argument("name", metavar="NAME", help=f"{', '.join(DATASETS)} or folder:PATH")
    parser.add_argument("--seed", type=int, default=0, help="decides the split (default: 0)")
    choice_options(parser)
    _root_option(parser)
    _strict_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--write", metavar="FILE", help="put the counts into a Parquet file too")


def fetch_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair data fetch`."""
    parser.add_argument("name", metavar="NAME", help=", ".join(SOURCES))
    parser.add_argument("--root", metavar="DIR", help="put it here (default: LINFAIR_DATA, else the cache folder)")


def pack_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair data pack`."""
    parser.add_argument("name", metavar="NAME", help=f"{', '.join(SOURCES)} or folder:PATH")
    parser.add_argument("--out", metavar="FILE", required=True, help="the pack to write, FILE.npz")
    _root_option(parser)
    _strict_option(parser)
