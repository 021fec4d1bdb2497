"""A user's own images: a folder with a table, `labels.csv`, that has a line for each image.

The column `file` names the image, relative to the folder; the others hold labels and groups, as any text; `split` with
`train`, `val` and `test` is optional. Without a table, each folder in it holds the images of one label (inside folders
`train`, `val`, `test`, if there are such). The table may be UTF-8, or UTF-16 or UTF-32 with a byte order mark; between
cells stands whichever of `,` `;` `|` and tab makes `file` a column of the header (a first line `sep=;` settles it).
"""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from linfair.data.core import Collection, DataError, Skipped, ensure
from linfair.data.images import check_link, check_skips, content_digest, files_of, pictures
from linfair.data.values import cleaned, in_order, is_missing, lookalikes, told_apart
from linfair.names import closest, some
from linfair.paths import unfit

CONFLICTS = ("leave-out", "first", "last")  #: Which line counts of a file that is listed with different values
LINKS = ("inside", "anywhere")  #: Where a link may lead
TABLE = "labels.csv"
NEEDED = f"a folder needs a table {TABLE} with the columns file and label, or a folder of images for each label"
SPLITS = {  # in the order of their numbers in `Collection.official`: how users call them, in lower case
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev", "development"),
}
Columns = Sequence[str] | None
_MARKS = {"utf-8-sig": (codecs.BOM_UTF8,), "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}
_MARKS |= {"utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}  # after UTF-32, whose mark starts with it


def read_folder(
    folder: Path,
    *,
    columns: Columns = ("label",),
    size: int = 32,
    strict: bool = False,
    conflicts: str = "leave-out",
    links: str = "inside",
) -> Collection:
    """Read a folder of images with a `labels.csv`, or with a folder for each label.

    Every image is turned upright and brought to RGB and size x size. Where there is a `split`, test images identical to
    one of training or validation are skipped, and validation images identical to one of training. A line whose image
    cannot be read, or with a missing value in one of the columns (None takes all), is skipped and listed, or with
    `strict` an error. A file that is listed more than once counts once; with conflicting values `conflicts` decides.
    """
    for name, given, allowed in (("conflicts", conflicts, CONFLICTS), ("links", links, LINKS)):
        ensure(given in allowed, f"{name} must be one of {', '.join(allowed)}, got {given!r}")
    inside = None if links == "anywhere" else folder
    check_link(folder / TABLE, inside)
    by_folder = not os.path.lexists(folder / TABLE) and has_folders(folder)
    source = f"{folder} (labels are folders)" if by_folder else str(folder / TABLE)
    table = _from_folders(folder, inside) if by_folder else _from_csv(folder / TABLE)
    there = [name for name in table if name != "file"]
    asked = [name for name in there if name != "split"] if columns is None else map(cleaned, columns)
    columns = list(dict.fromkeys(asked))
    check_named(source, columns, there)
    asked = columns + ["split"] * ("split" in there and "split" not in columns)
    rows, skipped = _usable(source, table[["file", *asked]])
    rows, paths, duplicates = _once(rows, _spellings(folder, rows["file"]), asked, conflicts, skipped)
    files = [(file, folder / path) for file, path in zip(rows["file"], paths, strict=True)]
    found_as = [[file, path] for file, path in zip(rows["file"], paths, strict=True) if _plain(file) != path]
    images, same, kept, unread, rotated = pictures(files, size, what=f"reading {folder.name}", inside=inside)
    skipped += unread
    rows, official = rows.iloc[kept], None
    if "split" in table and len(rows):
        words = rows["split"].map(_split_name)
        odd, allowed = rows["split"][words.isna()].tolist(), "; ".join(" or ".join(names) for names in SPLITS.values())
        ensure(not odd, f"{source}: column split holds train, val and test, found {odd[:1]}; allowed: {allowed}")
        given = f"it has {', '.join(sorted(set(words)))}"
        ensure("train" in set(words), f"{source}: column split gives no image to train; {given}")
        official = words.map(list(SPLITS).index).to_numpy(np.int64)
        train, test, val = (official == number for number in range(3))
        leaks = {"training": ~train & np.isin(same, same[train]), "validation": test & np.isin(same, same[val])}
        kept = ~np.any([*leaks.values()], axis=0)
        for i in np.flatnonzero(~kept):
            other = next(name for name, found in leaks.items() if found[i])
            skipped.append(Skipped(rows["file"].iloc[i], f"identical to a {other} image", "identical"))
        rows, images, same, official = rows[kept], images[kept], same[kept], official[kept]
    check_skips(str(folder), [(one.name, one.why) for one in skipped], len(rows), strict=strict)
    ordered = {column: in_order(rows[column]) for column in columns}
    fields = {column: pd.Index(list(names)).get_indexer(rows[column]) for column, names in ordered.items()}
    alike = [text for column in columns for text in lookalikes(column, ordered[column])]
    notes = {"duplicates": duplicates, "found_as": found_as, "rotated": rotated, "lookalikes": alike}
    notes |= {"copies": len(same) - len(np.unique(same)), "copies_differ": copies_differ(same, fields)}
    origin, sha256 = f"folder {folder.name}, {len(rows):,} images", content_digest(images, fields)
    names = {column: tuple(told_apart(names).values()) for column, names in ordered.items()}
    notes = {name: note for name, note in notes.items() if note}
    return Collection("folder", images, fields, same, official, origin, sha256, tuple(skipped), names, notes)


def copies_differ(same: np.ndarray, fields: dict[str, np.ndarray]) -> int:
    """How many images differ in a field from the first that is identical to them."""
    _, first, member = np.unique(same, return_index=True, return_inverse=True)
    return int(sum(values != values[first[member]] for values in fields.values()).astype(bool).sum())


def has_folders(folder: Path) -> bool:
    """Whether most images of a folder lie in folders of their labels or splits, as torchvision's `ImageFolder` asks."""
    images = _parts(folder, folder) if folder.is_dir() else []
    tops = [parts[0] for parts in images if len(parts) > 1]
    return 2 * len(tops) > len(images) and (len(set(tops)) > 1 or all(map(_split_name, tops)))


def _parts(folder: Path, inside: Path | None) -> list[list[str]]:
    """The parts of each image's path; behind a link to a folder that cannot be read is something without a name."""
    found = files_of(folder, inside)
    return [[*_text(p.relative_to(folder)).split("/"), *["", ""] * (p.is_dir() or not p.suffix)] for p in found]


def check_named(where: str, asked: Iterable[str], there: Sequence[str]) -> None:
    """Refuse columns that are not there, with those there are and the closest to the first unknown one."""
    unknown = [column for column in asked if column not in there]
    near = closest(unknown[0], there) if unknown else None
    hint = f" (did you mean {near}?)" if near else ""
    ensure(not unknown, f"{where} has no column {some(unknown)}; there are {some(there, 20)}{hint}")


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
    there = {_text(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    alone = pd.Series({path: _folded(path) for path in there}, dtype=object).drop_duplicates(keep=False)
    near, plain = dict(zip(alone, alone.index, strict=True)), files.map(_plain)
    close = plain.map(lambda path: path if path in there else near.get(_folded(path), path))
    return files.where(files.isin(there), close)


def _text(path: PurePosixPath) -> str:
    """A path as text; what of it is not UTF-8 is replaced, so that it will not be found."""
    return os.fsencode(path).decode("utf-8", "replace")


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
        numbers, first = some(mine.index), mine.index[0]
        differ = {column: mine[column].unique() for column in columns if mine[column].nunique() > 1}
        each = {column: some(map(repr, map(str, cells)), joint=" or ") for column, cells in differ.items()}
        said = "; ".join(f"{column} {cells}" for column, cells in each.items())
        dropped += mine.index[1:].tolist()
        if differ and conflicts == "leave-out":
            skipped.append(Skipped(path, f"lines {numbers} disagree: {said}", "conflict"))
            dropped.append(first)
            continue
        if differ and conflicts == "last":
            rows.loc[first] = mine.iloc[-1]
        again.append([path, f"lines {numbers}" + (f" disagree: {said}; the {conflicts} counts" if differ else "")])
    return rows.drop(index=dropped), paths.drop(index=dropped), again


def _split_name(text: str) -> str | None:
    """The split that a user's word (`Training`, `dev`) stands for; None if it stands for no split."""
    return next((name for name, words in SPLITS.items() if text.casefold() in words), None)


def _from_csv(path: Path) -> pd.DataFrame:
    """The cells as text, by line number: pandas fills short lines, and does not say where a line starts."""
    why = unfit(path, 2**26)
    ensure(why is None, f"{path} {why}: {NEEDED}")
    try:
        raw = path.read_bytes()
        text = raw.decode(next((name for name, marks in _MARKS.items() if raw.startswith(marks)), "utf-8"))
        ensure("\0" not in text, f"{path} holds zero bytes, as UTF-16 without a mark does; save it as CSV in UTF-8")
        first = re.match(r'"?sep=([,;|\t])"?\s*?(\r\n|\r|\n)', text)
        text = text[first.end() :] if first else text
        begin = text[: 2**17]
        ways = {delimiter: csv.reader(io.StringIO(begin, newline=""), delimiter=delimiter) for delimiter in ",;\t|"}
        heads = {delimiter: [*map(str.strip, next(filter(any, way), []))] for delimiter, way in ways.items()}
        named = [delimiter for delimiter, head in heads.items() if "file" in head and len(head) > 1]
        delimiter = first[1] if first else [*named, max(heads, key=lambda one: len(heads[one]))][0]
        reader, rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), {}
        for row in filter(any, reader):
            number, cells, longest = reader.line_num + bool(first), len(row), max(map(len, row), default=0)
            given = f"{path}, line {number} has {cells:,} cells, the longest of {longest:,} characters"
            ensure(cells <= 1000 and longest <= 4096, f"{given}; at most 1,000 cells of 4,096 characters are read")
            rows[number] = [cleaned(cell) for cell in row]
    except UnicodeDecodeError as error:
        kind = f"{error.encoding.upper()} text ({error.reason})"
        raise DataError(f"{path} is not {kind}; save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; is a quote not closed, or a cell very long?") from error
    rows = {number: row for number, row in rows.items() if any(row)}
    ensure(len(rows) > 1, f"{path} has no lines below its header; write one for each image")
    header = rows.pop(min(rows))
    twice = [name for name in header if header.count(name) > 1]
    ensure(not twice, f"{path} has the column {', '.join(map(repr, twice[:1]))} twice; rename one of them")
    check_named(str(path), ["file"], header)
    for number, row in rows.items():
        cells = f"{len(row)} cells, the header has {len(header)}; put quotes around a cell that holds the delimiter"
        ensure(len(row) == len(header), f"{path}, line {number}: {cells}")
    return pd.DataFrame.from_dict(rows, orient="index", columns=header)


def _from_folders(folder: Path, inside: Path | None) -> pd.DataFrame:
    """A line for each image: its label is the folder it lies in, below a folder for the split if there are such."""
    images = _parts(folder, inside)
    splits = {top: _split_name(top) for top in sorted({parts[0] for parts in images if len(parts) > 1})}
    by_split = None not in splits.values()
    known, others = ([top for top, name in splits.items() if (name is None) is other] for other in (False, True))
    mixed = f"{folder}: the folders {', '.join(known)} are splits, {some(others)} are not"
    one_kind = by_split or "train" not in splits.values() or len(set(splits.values()) - {None}) == 1
    ensure(one_kind, f"{mixed}; move them away, or write a table {TABLE}")
    depth = 2 if by_split else 1
    flat = f"{folder}: {', '.join(splits)} hold images without a folder for each label"
    ensure(not by_split or any(len(parts) > depth for parts in images), f"{flat}, and no {TABLE} is there")
    lines = {"file": ["/".join(parts).rstrip("/") for parts in images]}
    lines["label"] = [cleaned(parts[depth - 1] or parts[0]) if len(parts) > depth else "" for parts in images]
    if by_split:
        lines["split"] = [splits.get(parts[0]) or "" for parts in images]
    return pd.DataFrame(lines, index=range(1, len(images) + 1))
