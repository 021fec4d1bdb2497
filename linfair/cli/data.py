"""`linfair data`: what is found where, a data set's groups, downloads, packs."""

import json
import re
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import App

from linfair.cli.options import DATA, Choices, Json, Seed, output, says, tell
from linfair.data import DATASETS, DataError, check_name, ensure, load_data, packs, sources
from linfair.data import describe as facts
from linfair.data.images import check_skips
from linfair.data.official import CLASSES, SVHN, utkface_field
from linfair.names import unknown
from linfair.paths import data_folders

app = App(name="data", help="Find, describe, fetch and pack data sets.")

# whose files are looked for; the others are made, bundled or a user's
SOURCES = tuple(name for name in sources.SOURCES if name != "folder")
Root = Annotated[str | None, says("Look here only; by default in LINFAIR_DATA, then in data in the cache folder.")]
Target = Annotated[str | None, says("Put it here; by default in LINFAIR_DATA, else in the cache folder.")]
Fetched = Annotated[str, says(f"{', '.join(SOURCES)}.")]
Packed = Annotated[str, says(f"{', '.join(SOURCES)} or folder:PATH.")]
Pack = Annotated[str, says("The pack to write, FILE.npz.")]
Strict = Annotated[bool, says("A file that cannot be used is an error, not a skip.")]


@app.command(name="status")
def show(*, root: Root = None, as_json: Json = False) -> None:
    """Show which data are found where, their groups and checksums; a broken file is an error at the end."""
    found = {name: state(name, root) for name in SOURCES}
    lines = ["toy      made by linfair: nothing to find", "digits   comes with scikit-learn: nothing to find"]
    lines += ["digits_s is made of digits: nothing to find"]
    lines += [_status_text(name, one) for name, one in found.items()]
    lines += ["folder   your own images: linfair data describe folder:PATH --label COLUMN --group COLUMN"]
    print(json.dumps(found, indent=2) if as_json else "\n".join(lines))
    problems = [one["problem"] for one in found.values() if one["problem"]]
    ensure(not problems, "; ".join(problems))


def state(name: str, root: str | Path | None = None) -> dict[str, object]:
    """What is there of a source: where, images, group sizes, checksum, and the problem if it cannot be used."""
    place, groups = sources.find(name, root), {}
    known = {"found": place is not None, "path": place and str(place.path), "kind": place and place.kind}
    known |= {"checksum": None, "images": 0, "groups": groups, "looked_in": list(map(str, data_folders(root)))}
    known |= {"obtain": facts.sheet_of(name).obtain, "problem": None}
    if place is None:
        return known
    try:
        known["checksum"] = sources.checksum_state(place)
        quick = sources.SOURCES[name].fields
        if place.kind == "pack":
            fields = packs.read_fields(place.path, name)
        else:
            fields = quick(place.path) if quick else sources.read(name, root).fields
    except DataError as error:
        return known | {"problem": str(error)}
    if name == "utkface":
        ways = {field: utkface_field(fields, field) for field in ("age", "race", "gender")}
    elif name == "celeba":
        ways = {field: (fields[field], (f"not {field}", field)) for field in ("Smiling", "Male")}
    else:
        ways = {"class": (fields["label"], CLASSES[name])}
    for title, (values, names) in ways.items():
        counts = np.bincount(values[values >= 0], minlength=len(names)).tolist()
        groups[title] = dict(zip(names, counts, strict=True))
    return known | {"images": len(values)}


def _status_text(name: str, one: dict) -> str:
    if not one["found"]:
        return f"{name:8s} not found in {', '.join(one['looked_in'])}\n         get it: {one['obtain']}"
    lines = [f"{name:8s} {one['kind']} {one['path']}"]
    if one["problem"]:
        return f"{lines[0]}\n         cannot be used, see below"
    subset = f" (SVHN subset: the whole has {SVHN.images:,})" * (name == "svhn" and one["images"] < SVHN.images)
    lines.append(f"{one['images']:,} images, {one['checksum']}{subset}")
    for title, groups in one["groups"].items():
        left_out = one["images"] - sum(groups.values())
        counted = ", ".join(f"{group} {n:,}" for group, n in groups.items())
        lines.append(f"{title}: {counted}" + f" (left out: {left_out:,})" * bool(left_out))
    return "\n         ".join(lines)


@app.command
def describe(
    name: Annotated[str, says(f"{DATA}.")],
    /,
    *,
    seed: Annotated[int, Seed("Decides the split.")] = 0,
    choices: Choices = Choices(),
    root: Root = None,
    strict: Strict = False,
    as_json: Json = False,
    write: Annotated[str | None, says("Put the counts into this Parquet file too.")] = None,
) -> None:
    """Show a data set's groups by split, beside the paper's, with its origin and everything left out."""
    check_name(name)
    write = output("--write", write, ".parquet") if write else None
    data = load_data(name, seed=seed, **({} if root is None else {"root": root}), **choices.given())
    known, rows = data.provenance, facts.count_rows(data)
    check_skips(data.name, known.get("skipped", []), len(rows), strict=strict)
    if write:
        tell(f"wrote {facts.write_rows(rows, write)}")
    if as_json:
        print(json.dumps({"provenance": known, "rows": rows.to_dict("records")}, indent=2, default=str))
        return
    sheet, asked = facts.sheet_of(name), rows.iloc[0]
    own = data.name.partition("_")[2] or "class"
    paper = sheet.paper.get(data.name) if asked["label"] == asked["group"] == own else None
    subset = " subset" * bool(known.get("subset"))
    print(f"{name}{subset}: {sheet.title}; label {asked['label']}, group {asked['group']}, seed {asked['seed']}\n")
    print(facts.as_shown(facts.group_table(rows, paper)).to_string(index=False))
    if paper is not None:
        print(f"ours: {paper.compared}; paper: {paper.where}. {paper.why}")
    if data.label_names != data.group_names:
        table = facts.as_shown(facts.label_table(rows)).to_string(index=False)
        print(f"\nTraining images by group and label\n{table}")
    print(f"\nsource: {asked['source']}\nsha256: {asked['source_sha256']}\nterms: {sheet.terms}")
    print(f"what the labels are not: {sheet.labels_are_not}")
    if "drawn" in known:
        print(facts.split_line(known))
    for what, line in ({"skipped": facts.skipped_line(known)} | facts.notes(known)).items():
        files = known.get(what, ()) if what in ("skipped", "duplicates") else ()
        print("\n    ".join([line, *facts.listed(files)]))


@app.command
def fetch(name: Fetched, /, *, root: Target = None) -> None:
    """Download a data set into the first folder that is looked in, or say how to get it."""
    source, _ = _source(name, None)
    ensure(source != "folder", "folder:PATH is yours already; there is nothing to fetch")
    place = output("--root" if root else "LINFAIR_DATA, or the cache,", data_folders(root)[0], alone=False)
    sources.fetch(source, place)
    print(_status_text(source, state(source, root)))


@app.command
def pack(name: Packed, /, *, out: Pack, root: Root = None, strict: Strict = False) -> None:
    """Write a source as one file with a checksum beside it."""
    source, place = _source(name, root)
    every, path = {"columns": None} if source == "folder" else {}, output("--out", out, ".npz")
    collection = sources.read(source, place, strict=strict or None, **every)
    packs.write_pack(collection, path)
    print(f"wrote {out}: {len(collection):,} images, files skipped: {len(collection.skipped)}")
    print(f"checksum beside it: {out}.sha256")


def _source(name: str, root: str | None) -> tuple[str, str | None]:
    """Name and folder of a source: those of `cifar10s` and `folder:PATH` are cifar10 and PATH."""
    if name.startswith("folder:"):
        ensure(root is None, f"--root {root}: the images of {name} are in that folder; leave --root out")
        return "folder", name.removeprefix("folder:")
    source = re.sub(r"_.*|(?<=0)s$", "", name) if name in DATASETS else name
    if source in SOURCES:
        return source, root
    raise DataError(unknown("There is no source", name, [*SOURCES, "folder:PATH"]))
