"""A user's own images: a folder with a table, `labels.csv`, that has a line for each image.

The column `file` names the image, relative to the folder; the other columns hold labels and groups, as any text. A
column `split` with `train`, `val` and `test` is optional. Without a table, each folder in it holds the images of one
label (inside folders `train`, `val`, `test`, if there are such).
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from linfair.data.core import Collection, Skipped, ensure
from linfair.data.images import check_skips, content_digest, pictures
from linfair.data.table import SPLITS, TABLE, check_named, read_table, split_name
from linfair.data.values import cleaned, in_order, is_missing, lookalikes, told_apart

CONFLICTS = ("leave-out", "first", "last")
"""What to do with a file that is listed with different values: leave it out, or believe its first or last line."""


def read_folder(
    folder: str | Path,
    *,
    columns: Sequence[str] | None = ("label",),
    size: int = 32,
    strict: bool = False,
    conflicts: str = "leave-out",
) -> Collection:
    """Read a folder of images with a `labels.csv`, or with a folder for each label.

    Every image is turned upright and brought to RGB and size x size. Identical pictures get one number in `same`; where
    there is a `split`, test images identical to one of training or validation are skipped, and validation images
    identical to one of training. A line whose image cannot be read, or with a missing value in one of the columns (None
    takes all), is skipped and listed, or with `strict` an error. A file that is listed more than once, in any spelling
    of its path, counts once; with conflicting values `conflicts` decides. Each column is a field of the collection,
    whose values are numbered in their order and named in `names`.
    """
    folder = Path(folder)
    ensure(1 <= size <= 1024, f"images can be brought to 1..1024 pixels, got size={size}")
    ensure(conflicts in CONFLICTS, f"conflicts must be one of {', '.join(CONFLICTS)}, got {conflicts!r}")
    source, table = read_table(folder)
    there = [name for name in table if name != "file"]
    asked = [name for name in there if name != "split"] if columns is None else map(cleaned, columns)
    columns = list(dict.fromkeys(asked))
    check_named(source, columns, there)
    asked = columns + ["split"] * ("split" in there and "split" not in columns)
    rows, skipped = _usable(source, table[["file", *asked]])
    rows, paths, duplicates = _once(rows, _spellings(folder, rows["file"]), asked, conflicts, skipped)
    files = list(zip(rows["file"], paths, strict=True))
    read = pictures([(file, folder / path) for file, path in files], size, what=f"reading {folder.name}")
    skipped += read.skipped
    rows, images, official = rows.iloc[read.kept], read.images, None
    same = pd.factorize(pd.Series(read.digests, dtype=object))[0]
    if "split" in table and len(rows):
        official = _official(source, rows["split"])
        train, test, val = (official == number for number in range(3))
        leaks = {"training": ~train & np.isin(same, same[train]), "validation": test & np.isin(same, same[val])}
        kept = ~np.any([*leaks.values()], axis=0)
        for i in np.flatnonzero(~kept):
            other = next(name for name, found in leaks.items() if found[i])
            skipped.append(Skipped(rows["file"].iloc[i], f"identical to a {other} image", "identical"))
        rows, images, same, official = rows[kept], images[kept], same[kept], official[kept]
    check_skips(str(folder), [(one.name, one.why) for one in skipped], len(rows), strict=strict)
    ordered = {column: in_order(rows[column]) for column in columns}
    fields = {
        column: pd.Categorical(rows[column], categories=list(names)).codes.astype(np.int64)
        for column, names in ordered.items()
    }
    sets = len(np.unique(same))
    notes = {
        "duplicates": duplicates,
        "found_as": [[file, path] for file, path in files if _plain(file) != path],
        "rotated": read.rotated,
        "copies": len(same) - sets,
        "copies_differ": len(np.unique(np.stack([same, *fields.values()]), axis=1).T) - sets,
        "lookalikes": [text for column in columns for text in lookalikes(column, ordered[column])],
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
        names={column: tuple(told_apart(names).values()) for column, names in ordered.items()},
        notes={name: note for name, note in notes.items() if note},
    )


def _usable(source: str, table: pd.DataFrame) -> tuple[pd.DataFrame, list[Skipped]]:
    """The lines without a missing value, and the others; a path that leaves the folder is an error."""
    skipped, usable = [], []
    for number, line in zip(table.index, table.to_dict("records"), strict=True):
        empty = [column for column, cell in line.items() if not cell]
        why = [f"no {' and '.join(empty)} in {TABLE}"] if empty else []
        marked = [column for column, cell in line.items() if cell and column != "file" and is_missing(cell)]
        why += [f"{column} is {line[column]!r}, taken as missing" for column in marked]
        if why:
            skipped.append(Skipped(line["file"] or f"line {number}", "; ".join(why), "missing"))
            continue
        path = PurePosixPath(_plain(line["file"]))
        inside = path.parts and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
        where = f"{source}, line {number}: {line['file']!r} is no file in the folder"
        ensure(inside, f"{where}; paths are relative to it, without '..'")
        usable.append(number)
    return table.loc[usable].copy(), skipped


def _spellings(folder: Path, files: pd.Series) -> pd.Series:
    r"""The path of the file that each spelling of the table means: `./a.png`, `sub\a.png`, `A.PNG`, accents apart."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    alike: dict[str, list[str]] = {}
    for path in there:
        alike.setdefault(_folded(path), []).append(path)

    def meant(file: str) -> str:
        plain = _plain(file)
        near = alike.get(_folded(plain), [])
        if file in there:
            return file
        return near[0] if plain not in there and len(near) == 1 else plain

    return files.map(meant)


def _plain(file: str) -> str:
    return str(PurePosixPath(file.replace("\\", "/")))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _once(
    rows: pd.DataFrame, paths: pd.Series, columns: Sequence[str], conflicts: str, skipped: list[Skipped]
) -> tuple[pd.DataFrame, pd.Series, list[list[str]]]:
    """A line and a path for each file that stays, and the repetitions; files with conflicting lines may be skipped."""
    again, dropped = [], []
    for path, mine in rows[paths.duplicated(keep=False)].groupby(paths, sort=False):
        numbers, first = ", ".join(map(str, mine.index)), mine.index[0]
        differ = {column: mine[column].unique() for column in columns if mine[column].nunique() > 1}
        said = "; ".join(f"{column} {' or '.join(map(repr, map(str, cells)))}" for column, cells in differ.items())
        dropped += mine.index[1:].tolist()
        if differ and conflicts == "leave-out":
            skipped.append(Skipped(path, f"lines {numbers} disagree: {said}", "conflict"))
            dropped.append(first)
            continue
        if differ and conflicts == "last":
            rows.loc[first] = mine.iloc[-1]
        again.append([path, f"lines {numbers}" + (f" disagree: {said}; the {conflicts} counts" if differ else "")])
    return rows.drop(index=dropped), paths.drop(index=dropped), again


def _official(source: str, words: pd.Series) -> np.ndarray:
    found = list(map(split_name, words))
    unknown = [word for word, name in zip(words, found, strict=True) if name is None]
    allowed = "; ".join(" or ".join(names) for names in SPLITS.values())
    ensure(not unknown, f"{source}: column split holds train, val and test, found {unknown[:1]}; allowed: {allowed}")
    there = ", ".join(sorted(set(found)))
    ensure("train" in found, f"{source}: column split gives no image to train; it has {there}")
    return np.array([list(SPLITS).index(name) for name in found], dtype=np.int64)
