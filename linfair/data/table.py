"""The table of a user's folder: `labels.csv`, as spreadsheets and programs write it, or else the folders' names.

Read are UTF-8, and UTF-16 or UTF-32 with a byte order mark; any line ends; quoted cells; `,` `;` `|` or a tab between
cells, whichever makes `file` a column of the header (a first line `sep=;` settles it).
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from linfair.data.core import DataError, ensure
from linfair.data.images import files_of
from linfair.data.values import cleaned
from linfair.names import closest

TABLE = "labels.csv"
NEEDED = f"a folder needs a table {TABLE} with the columns file and label, or a folder of images for each label"
SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev", "development"),
}
"""The splits, in the order of their numbers in `Collection.official`, and how users call them, in lower case."""
_BOMS = {  # UTF-32 before UTF-16, whose mark it starts with
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_table(folder: Path) -> tuple[str, pd.DataFrame]:
    """What was read, for messages, and its cells as text: one column is `file`, the index has the line numbers."""
    if (folder / TABLE).exists() or not has_folders(folder):
        return str(folder / TABLE), _from_csv(folder / TABLE)
    return f"{folder} (labels are folders)", _from_folders(folder)


def has_folders(folder: Path) -> bool:
    """Whether most images of a folder lie in folders of their labels or splits, as torchvision's `ImageFolder` asks."""
    images = _parts(folder) if folder.is_dir() else []
    tops = [parts[0] for parts in images if len(parts) > 1]
    return 2 * len(tops) > len(images) and (len(set(tops)) > 1 or all(map(split_name, tops)))


def check_named(where: str, asked: Iterable[str], there: Sequence[str]) -> None:
    """Refuse columns that are not there, with those there are and the closest to the first unknown one."""
    unknown = [column for column in asked if column not in there]
    near = closest(unknown[0], there) if unknown else None
    hint = f" (did you mean {near}?)" if near else ""
    ensure(not unknown, f"{where} has no column {', '.join(unknown)}; there are {', '.join(there)}{hint}")


def split_name(text: str) -> str | None:
    """The split that a user's word (`Training`, `dev`) stands for; None if it stands for no split."""
    return next((name for name, words in SPLITS.items() if text.casefold() in words), None)


def _from_csv(path: Path) -> pd.DataFrame:
    """Read with `csv`: pandas fills short lines, and does not say where a line starts."""
    try:
        raw = path.read_bytes()
        text = raw.decode(next((name for mark, name in _BOMS.items() if raw.startswith(mark)), "utf-8"))
        ensure("\0" not in text, f"{path} holds zero bytes, as UTF-16 without a mark does; save it as CSV in UTF-8")
        first = re.match(r'"?sep=([,;|\t])"?\s*?(\r\n|\r|\n)', text)
        text = text[first.end() :] if first else text
        delimiter = first[1] if first else _delimiter(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = {reader.line_num + bool(first): [cleaned(cell) for cell in row] for row in reader}
    except FileNotFoundError:
        raise DataError(f"there is no {path}: {NEEDED}") from None
    except UnicodeDecodeError as error:
        kind = f"{error.encoding.upper()} text ({error.reason})"
        raise DataError(f"{path} is not {kind}; save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
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


def _delimiter(text: str) -> str:
    """The first delimiter that makes `file` a column; else the one that makes most columns."""
    headers = {}
    for delimiter in (",", ";", "\t", "|"):
        row = next(filter(any, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
        named = len(row) > 1 and "file" in map(str.strip, row)
        headers[delimiter] = named, 0 if named else len(row)
    return max(headers, key=headers.__getitem__)


def _parts(folder: Path) -> list[tuple[str, ...]]:
    """The path of each image below a folder, in order, in its parts."""
    return [path.relative_to(folder).parts for path in files_of(folder)]


def _from_folders(folder: Path) -> pd.DataFrame:
    """A line for each image: its label is the folder it lies in, below a folder for the split if there are such."""
    images = _parts(folder)
    splits = {top: split_name(top) for top in sorted({parts[0] for parts in images if len(parts) > 1})}
    by_split = None not in splits.values()
    known, others = ([top for top, name in splits.items() if (name is None) is other] for other in (False, True))
    mixed = f"{folder}: the folders {', '.join(known)} are splits, {', '.join(others[:5])} are not"
    one_kind = by_split or "train" not in splits.values() or len(set(splits.values()) - {None}) == 1
    ensure(one_kind, f"{mixed}; move them away, or write a table {TABLE}")
    depth = 2 if by_split else 1
    labelled = not by_split or any(len(parts) > depth for parts in images)
    flat = f"{folder}: {', '.join(splits)} hold images without a folder for each label"
    ensure(labelled, f"{flat}, and no {TABLE} is there")
    lines = {
        "file": ["/".join(parts) for parts in images],
        "label": [cleaned(parts[depth - 1]) if len(parts) > depth else "" for parts in images],
    }
    if by_split:
        lines["split"] = [splits.get(parts[0]) or "" for parts in images]
    return pd.DataFrame(lines, index=range(1, len(images) + 1))
