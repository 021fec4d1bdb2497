"""A user's own images: a folder with a table, `labels.csv`, that has a line for each image.

The column `file` names the image, relative to the folder; the other columns hold labels and groups, as any text. A
column `split` with `train`, `val` and `test` is optional. Without a table, each folder in it holds the images of one
label (inside folders `train`, `val`, `test`, if there are such).
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from linfair.data.collection import Collection, DataError, Skipped
from linfair.data.images import check_skips, content_digest, numbered, pictures
from linfair.data.table import SPLITS, TABLE, Table, check_named, read_table, split_name
from linfair.data.values import cleaned, in_order, is_missing, lookalikes, told_apart

CONFLICTS = ("leave-out", "first", "last")
"""What to do with a file that is listed with different values: leave it out, or believe its first or last line."""


def read_folder(
    folder: str | Path,
    *,
    columns: Sequence[str] = ("label",),
    size: int = 32,
    strict: bool = False,
    conflicts: str = "leave-out",
) -> Collection:
    """Read a folder of images with a `labels.csv`, or with a folder for each label.

    Every image is turned upright and brought to RGB and size x size. Identical pictures get one number in `same`; where
    there is a `split`, a test image that is identical to a training or validation image is skipped, and so is a
    validation image that is identical to a training image. A line whose image cannot be read, or with a missing value
    in one of the columns, is skipped, counted and listed. A file that is listed more than once (in any spelling of its
    path) counts once; with conflicting values it is left out unless `conflicts` says otherwise.

    Args:
        folder: Holds `labels.csv`, or the labels' folders.
        columns: Columns to read: the label and the groups.
        size: Side of the images in pixels.
        strict: Make every skip an error.
        conflicts: One of `CONFLICTS`.

    Returns:
        The collection; each column as a field, its values numbered in their order (as numbers where all are numbers),
        with their names in `names`; `official` from the column `split`, if there is one.

    Raises:
        DataError: If the table or a column is missing, a path leaves the folder, a split is unknown, nothing can be
            used, or something was skipped and `strict` is set.
    """
    folder, columns = Path(folder), tuple(dict.fromkeys(map(cleaned, columns)))
    if not 1 <= size <= 1024:
        raise DataError(f"images can be brought to 1..1024 pixels, got size={size}")
    if conflicts not in CONFLICTS:
        raise DataError(f"conflicts must be one of {', '.join(CONFLICTS)}, got {conflicts!r}")
    table = read_table(folder)
    check_named(table.source, columns, [name for name in table.header if name != "file"])
    asked = (*columns, *(["split"] if "split" in table.header else []))
    rows, skipped = _usable(table, asked)
    spelled = _spellings(folder, [line["file"] for _, line in rows])
    rows, duplicates, conflicting = _once(rows, [spelled[line["file"]] for _, line in rows], asked, conflicts)
    skipped += conflicting
    files = [line["file"] for line in rows]
    read = pictures([(file, folder / spelled[file]) for file in files], size, what=f"reading {folder.name}")
    skipped += read.skipped
    rows, same = [rows[i] for i in read.kept], numbered(read.digests)
    official = _official(table, rows) if "split" in table.header and rows else None
    images = read.images
    if official is not None:
        leaks = _leaks(official, same)
        skipped += [Skipped(rows[i]["file"], leaks[i], "identical") for i in sorted(leaks)]
        kept = np.array([i not in leaks for i in range(len(rows))])
        rows = [row for row, keep in zip(rows, kept, strict=True) if keep]
        images, same, official = images[kept], same[kept], official[kept]
    check_skips(str(folder), tuple(skipped), len(rows), strict=strict)
    images.flags.writeable = False
    values = {column: [row[column] for row in rows] for column in columns}
    ordered = {column: in_order(cells) for column, cells in values.items()}
    fields = {}
    for column, cells in values.items():
        numbers = {value: number for number, value in enumerate(ordered[column])}
        fields[column] = np.array([numbers[value] for value in cells], dtype=np.int64)
    sets = len(np.unique(same))
    notes = {
        "duplicates": duplicates,
        "found_as": [[file, spelled[file]] for file in files if _plain(file) != spelled[file]],
        "rotated": read.rotated,
        "copies": len(same) - sets,
        "copies_differ": len(set(zip(same.tolist(), *(cells.tolist() for cells in fields.values()), strict=True)))
        - sets,
        "lookalikes": [text for column in columns for text in _warnings(column, ordered[column])],
    }
    return Collection(
        "folder",
        images,
        fields,
        same=same,
        official=official,
        origin=f"folder {folder.name}, {len(rows):,} images",
        sha256=content_digest(images, fields),
        skipped=tuple(skipped),
        names={column: tuple(map(told_apart(names).__getitem__, names)) for column, names in ordered.items()},
        notes={name: note for name, note in notes.items() if note},
    )


Line = tuple[int, dict[str, str]]


def _usable(table: Table, columns: Sequence[str]) -> tuple[list[Line], list[Skipped]]:
    """The lines without a missing value, and the others; a path that leaves the folder is an error."""
    rows, skipped = [], []
    for number, line in table.lines:
        where = line["file"] or f"line {number}"
        empty = [column for column in ("file", *columns) if not line[column]]
        marked = [column for column in columns if line[column] and is_missing(line[column])]
        if empty or marked:
            why = [f"no {' and '.join(empty)} in {TABLE}"] if empty else []
            why += [f"{column} is {line[column]!r}, taken as missing" for column in marked]
            skipped.append(Skipped(where, "; ".join(why), "missing"))
            continue
        _check_path(table.source, number, line["file"])
        rows.append((number, line))
    return rows, skipped


def _check_path(table: str, number: int, file: str) -> None:
    """Images lie in the folder; nothing else is opened."""
    path = PurePosixPath(file.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(
            f"{table}, line {number}: {file!r} is no file in the folder; paths are relative to it, without '..'"
        )


def _spellings(folder: Path, files: Sequence[str]) -> dict[str, str]:
    r"""The path of the file that each spelling of the table means: `./a.png`, `sub\a.png`, `A.PNG`, accents apart."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    alike: dict[str, list[str]] = {}
    for path in there:
        alike.setdefault(_folded(path), []).append(path)
    found = {}
    for file in dict.fromkeys(files):
        plain = _plain(file)
        near = alike.get(_folded(plain), [])
        if file in there or plain in there:
            found[file] = file if file in there else plain
        else:
            found[file] = near[0] if len(near) == 1 else plain
    return found


def _plain(file: str) -> str:
    return str(PurePosixPath(file.replace("\\", "/")))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _once(
    rows: list[Line], paths: Sequence[str], columns: Sequence[str], conflicts: str
) -> tuple[list[dict[str, str]], list[list[str]], list[Skipped]]:
    """One line for each file: those that stay, the repetitions, and the files left out for their conflicting lines."""
    lines: dict[str, list[Line]] = {}
    for path, row in zip(paths, rows, strict=True):
        lines.setdefault(path, []).append(row)
    kept, again, conflicting = [], [], []
    for path, mine in lines.items():
        numbers = ", ".join(str(number) for number, _ in mine)
        differ = [column for column in columns if len({line[column] for _, line in mine}) > 1]
        values = {column: [line[column] for _, line in mine] for column in differ}
        said = "; ".join(f"{column} {' or '.join(map(repr, dict.fromkeys(cells)))}" for column, cells in values.items())
        if differ and conflicts == "leave-out":
            conflicting.append(Skipped(path, f"lines {numbers} disagree: {said}", "conflict"))
            continue
        kept.append(mine[-1 if differ and conflicts == "last" else 0][1])
        if len(mine) > 1:
            again.append([path, f"lines {numbers}" + (f" disagree: {said}; the {conflicts} counts" if differ else "")])
    return kept, again, conflicting


def _official(table: Table, rows: list[dict[str, str]]) -> np.ndarray:
    found = [split_name(row["split"]) for row in rows]
    if None in found:
        unknown = rows[found.index(None)]["split"]
        allowed = "; ".join(" or ".join(words) for words in SPLITS.values())
        raise DataError(
            f"{table.source}: column split holds train, val and test, found {unknown!r}; allowed: {allowed}"
        )
    if "train" not in found:
        raise DataError(f"{table.source}: column split gives no image to train; it has {', '.join(sorted(set(found)))}")
    return np.array([list(SPLITS).index(name) for name in found], dtype=np.int64)


def _leaks(official: np.ndarray, same: np.ndarray) -> dict[int, str]:
    """The images of test and validation that are identical to one they are judged against, and to which."""
    train, test, val = (official == number for number in range(3))
    found = {int(i): "identical to a training image" for i in np.flatnonzero(~train & np.isin(same, same[train]))}
    for i in np.flatnonzero(test & np.isin(same, same[val])):
        found.setdefault(int(i), "identical to a validation image")
    return found


def _warnings(column: str, values: Sequence[str]) -> list[str]:
    """A line for each set of values that look alike."""
    name = {value: f"'{told}'" for value, told in told_apart(values).items()}
    return [
        f"column {column} has {' and '.join(map(name.__getitem__, alike))}, which look alike and are counted apart; "
        f"write them in one way in {TABLE} if they are one"
        for alike in lookalikes(values)
    ]
