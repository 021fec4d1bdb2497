"""A user's own images: a folder with a table, `labels.csv`, that has a line for each image.

The column `file` names the image, relative to the folder; the other columns hold labels and groups, as any text. A
column `split` with `train` and `test` is optional.
"""

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from linfair.data.collection import Collection, DataError, Skipped
from linfair.data.images import check_skips, content_digest, numbered, pictures

TABLE = "labels.csv"
SPLITS = ("train", "test")


def read_folder(
    folder: str | Path, *, columns: Sequence[str] = ("label",), size: int = 32, strict: bool = False
) -> Collection:
    """Read a folder of images with a `labels.csv`.

    Every image is brought to RGB and size x size. Identical pictures get one number in `same`; where `labels.csv` has
    a `split`, a test image that is identical to a training image is skipped. A line whose image cannot be read, or
    with an empty cell in one of the columns, is skipped, counted and listed.

    Args:
        folder: Holds `labels.csv`.
        columns: Columns to read: the label and the groups.
        size: Side of the images in pixels.
        strict: Make every skip an error.

    Returns:
        The collection; each column as a field, its values numbered in their order (as numbers where all are whole
        numbers), with their names in `names`; `official` from the column `split`, if there is one.

    Raises:
        DataError: If the table or a column is missing, a path leaves the folder, a split is unknown, nothing can be
            used, or something was skipped and `strict` is set.
    """
    folder, columns = Path(folder), tuple(dict.fromkeys(columns))
    if not 1 <= size <= 1024:
        raise DataError(f"images can be brought to 1..1024 pixels, got size={size}")
    header, lines = _table(folder / TABLE)
    _check_columns(folder / TABLE, header, columns)
    rows, skipped = [], []
    for number, line in lines:
        empty = [column for column in ("file", *columns) if not line[column]]
        if empty:
            skipped.append(Skipped(line["file"] or f"line {number}", f"no {' and '.join(empty)} in {TABLE}"))
            continue
        _check_path(folder / TABLE, number, line["file"])
        rows.append(line)
    read = pictures([(row["file"], folder / row["file"]) for row in rows], size, what=f"reading {folder.name}")
    skipped += read.skipped
    rows, same = [rows[i] for i in read.kept], numbered(read.digests)
    official = _official(folder / TABLE, rows) if "split" in header else None
    images = read.images
    if official is not None:
        leaks = (official == 1) & np.isin(same, same[official == 0])
        skipped += [Skipped(rows[i]["file"], "identical to a training image") for i in np.flatnonzero(leaks)]
        rows = [row for row, leak in zip(rows, leaks, strict=True) if not leak]
        images, same, official = images[~leaks], same[~leaks], official[~leaks]
    check_skips(str(folder), tuple(skipped), len(rows), strict=strict)
    images.flags.writeable = False
    names = {column: _names([row[column] for row in rows]) for column in columns}
    fields = {
        column: np.array([names[column].index(row[column]) for row in rows], dtype=np.int64) for column in columns
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
        names=names,
    )


def check_named(where: str, asked: Sequence[str], there: Sequence[str]) -> None:
    """Refuse columns that are not there.

    Raises:
        DataError: Names the columns there are, and the closest to the first unknown one.
    """
    unknown = [column for column in asked if column not in there]
    if unknown:
        close = difflib.get_close_matches(unknown[0], there, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise DataError(f"{where} has no column {', '.join(unknown)}; there are {', '.join(there)}{hint}")


def _table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and numbered lines of the table, cells without surrounding blanks."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except FileNotFoundError:
        raise DataError(f"there is no {path}: a folder needs a table {TABLE} with the columns file and label") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(rows) < 2:
        raise DataError(f"{path} has no lines below its header")
    header = rows[0][1]
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path} has the column {twice!r} twice")
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: {len(row)} cells, the header has {len(header)}")
    return header, [(number, dict(zip(header, row, strict=True))) for number, row in rows[1:]]


def _check_columns(path: Path, header: list[str], columns: Sequence[str]) -> None:
    check_named(str(path), ("file",), header)
    check_named(str(path), columns, [name for name in header if name != "file"])


def _check_path(table: Path, number: int, file: str) -> None:
    """Images lie in the folder; nothing else is opened."""
    path = PurePosixPath(file.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(
            f"{table}, line {number}: {file!r} is no file in the folder; paths are relative to it, without '..'"
        )


def _official(table: Path, rows: list[dict[str, str]]) -> np.ndarray:
    values = [row["split"].lower() for row in rows]
    unknown = sorted(set(values) - set(SPLITS))
    if unknown:
        raise DataError(f"{table}: column split holds {', '.join(SPLITS)}, found {unknown[0]!r}")
    return np.array([SPLITS.index(value) for value in values], dtype=np.int64)


def _names(values: list[str]) -> tuple[str, ...]:
    """Distinct values in order; whole numbers by size."""
    distinct = sorted(set(values))
    whole = all(value.removeprefix("-").isdecimal() for value in distinct)
    return tuple(sorted(distinct, key=int) if whole else distinct)
