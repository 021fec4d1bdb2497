"""The table of a user's folder: `labels.csv`, as spreadsheets and programs write it, or else the folders' names.

Read are UTF-8, and UTF-16 or UTF-32 with a byte order mark; any line ends; quoted cells; `,` `;` `|` or a tab between
cells, whichever makes `file` a column of the header (a first line `sep=;` settles it).
"""

import codecs
import csv
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from linfair.data.collection import DataError
from linfair.data.images import SUFFIXES
from linfair.data.values import cleaned

TABLE = "labels.csv"
DELIMITERS = (",", ";", "\t", "|")
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev", "development"),
}
"""The splits, in the order of their numbers in `Collection.official`, and how users call them, in lower case."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Table:
    """Header and lines.

    Attributes:
        source: What it was read from, for messages.
        header: Names of the columns; `file` is one of them.
        lines: The number of each line and its cells by column.
    """

    source: str
    header: tuple[str, ...]
    lines: tuple[tuple[int, dict[str, str]], ...]


def read_table(folder: Path) -> Table:
    """Read `labels.csv`, or where there is none, the names of the folders that the images lie in.

    Raises:
        DataError: If neither is there, or the table cannot be read; names the line where it is one.
    """
    if (folder / TABLE).exists() or not has_folders(folder):
        return _from_csv(folder / TABLE)
    return _from_folders(folder)


def has_folders(folder: Path) -> bool:
    """Whether most images of a folder lie in folders of their labels or splits, as torchvision's `ImageFolder` asks."""
    images = _images(folder) if folder.is_dir() else []
    tops = [path.parts[0] for path in images if len(path.parts) > 1]
    return 2 * len(tops) > len(images) and (len(set(tops)) > 1 or all(map(split_name, tops)))


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


def split_name(text: str) -> str | None:
    """The split that a user's word stands for; None if it stands for none.

    >>> [split_name(word) for word in ("Training", "dev", "holdout")]
    ['train', 'val', None]
    """
    return next((name for name, words in SPLITS.items() if text.casefold() in words), None)


def _from_csv(path: Path) -> Table:
    try:
        text, skipped = _text(path), 0
        first = re.match(r'"?sep=([,;|\t])"?\s*?(\r\n|\r|\n)', text)
        if first:
            text, skipped = text[first.end() :], 1
        delimiter = first[1] if first else _delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num + skipped, [cleaned(cell) for cell in row]) for row in reader]
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}: a folder needs a table {TABLE} with the columns file and label, or a folder of "
            "images for each label"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not {error.encoding.upper()} text ({error.reason}); save it as CSV in UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows = [(number, row) for number, row in rows if any(row)]
    if len(rows) < 2:
        raise DataError(f"{path} has no lines below its header")
    header = rows[0][1]
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path} has the column {twice!r} twice")
    check_named(str(path), ("file",), header)
    for number, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: {len(row)} cells, the header has {len(header)}")
    lines = tuple((number, dict(zip(header, row, strict=True))) for number, row in rows[1:])
    return Table(str(path), tuple(header), lines)


def _text(path: Path) -> str:
    raw = path.read_bytes()
    coding = next((name for mark, name in _BOMS if raw.startswith(mark)), "utf-8")
    text = raw.decode(coding)
    if "\0" in text:
        raise DataError(f"{path} holds zero bytes, as UTF-16 without a byte order mark does; save it as CSV in UTF-8")
    return text


def _delimiter(text: str) -> str:
    """The first delimiter that makes `file` a column; else the one that makes most columns."""
    headers = {}
    for delimiter in DELIMITERS:
        row = next((row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)), [])
        headers[delimiter] = [cell.strip() for cell in row]
    named = [delimiter for delimiter, header in headers.items() if "file" in header and len(header) > 1]
    return named[0] if named else max(headers, key=lambda delimiter: len(headers[delimiter]))


def _images(folder: Path) -> list[PurePosixPath]:
    """The images below a folder, relative to it, in order; hidden folders and those of archivers are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    plain = (path for path in found if not any(part.startswith((".", "__")) for part in path.parts))
    return sorted(PurePosixPath(*path.parts) for path in plain if (folder / path).is_file())


def _from_folders(folder: Path) -> Table:
    """A line for each image: its label is the folder it lies in, below a folder for the split if there are such."""
    images = _images(folder)
    tops = sorted({path.parts[0] for path in images if len(path.parts) > 1})
    splits = {top: split_name(top) for top in tops}
    by_split = None not in splits.values()
    if not by_split and "train" in splits.values() and len(set(splits.values()) - {None}) > 1:
        known, others = ([top for top in tops if (splits[top] is None) is other] for other in (False, True))
        raise DataError(
            f"{folder}: the folders {', '.join(known)} are splits, {', '.join(others[:5])} are not; move them away, or "
            f"write a table {TABLE}"
        )
    depth = 2 if by_split else 1
    flat = [path for path in images if len(path.parts) <= depth]
    if by_split and len(flat) == len(images):
        raise DataError(
            f"{folder}: {', '.join(tops)} hold images without a folder for each label, and no {TABLE} is there"
        )
    lines = []
    for number, path in enumerate(images, 1):
        label = path.parts[depth - 1] if len(path.parts) > depth else ""
        line = {"file": str(path), "label": cleaned(label)}
        lines.append((number, line | ({"split": splits.get(path.parts[0]) or ""} if by_split else {})))
    return Table(f"{folder} (labels are folders)", ("file", "label", *(["split"] if by_split else [])), tuple(lines))
