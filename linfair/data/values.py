"""The cells of a user's table as values (missing, the same, or alike only to the eye), and groups made of them.

Values that Unicode calls canonically equal are one value, in the form NFC. Values that merely look alike (case, blanks,
invisible characters, letters of another alphabet, 1 and 1.0) stay apart, and are named.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from linfair.data.core import ensure
from linfair.names import some

MISSING = frozenset(  # in any case: what pandas takes for missing, the `?` of UCI tables, Excel's errors
    ("", "nan", "-nan", "na", "n/a", "<na>", "#n/a", "#na", "#n/a n/a", "nat", "null", "none", "?")
    + ("#null!", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s?(%?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HOMOGLYPHS = str.maketrans(  # Cyrillic and Greek letters, dashes and quotes that look like ASCII
    "аеорсухіјѕԁһӏԛԝАВЕКМНОРСТУХІЈЅԌɡανορΑΒΕΖΗΙΚΜΝΟΡΤΥΧ‐‑‒–—−’‘",
    "aeopcyxijsdhlqwABEKMHOPCTYXIJSGgavopABEZHIKMNOPTYX------''",
)


def cleaned(cell: str) -> str:
    """A cell in the form NFC, without blanks around it, on one line."""
    return re.sub(r"\s*[\r\n\t\v\f\u2028\u2029]+\s*", " ", unicodedata.normalize("NFC", cell).strip())


def is_missing(value: str) -> bool:
    """Whether a cell stands for a missing value."""
    return _visible(value).strip().casefold() in MISSING


def in_order(values: Sequence[str]) -> tuple[str, ...]:
    """The distinct values: as numbers (also `1.5`, `1e3`, `10%`) where all are numbers, else as text."""
    numbers = {value: number(value) for value in sorted(set(values))}
    return tuple(numbers if None in numbers.values() else sorted(numbers, key=numbers.__getitem__))


def number(value: str) -> Decimal | None:
    """The number that a value writes, a per cent sign aside, as `1.5`, `1,5` or `1,500`; None if it is not a number."""
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", value):
        value = value.replace(",", "")
    elif re.fullmatch(r"[+-]?\d+,\d+", value):
        value = value.replace(",", ".")
    return Decimal(value.rstrip("% ")) if _NUMBER.fullmatch(value) else None


def lookalikes(column: str, values: Sequence[str]) -> list[str]:
    """A line for each set of a column's values that a reader cannot tell apart, or that mean one number."""
    found, told = {}, told_apart(values)
    for value in sorted(set(values)):
        written = number(value)
        plain = re.sub(r"[\s_-]+", " ", _printed(value).casefold()).strip() if written is None else written
        found.setdefault(plain, []).append(f"'{told[value]}'")
    advice = "which look alike and are counted apart; write them in one way in labels.csv if they are one"
    return [f"column {column} has {' and '.join(alike)}, {advice}" for alike in found.values() if len(alike) > 1]


def told_apart(values: Sequence[str]) -> dict[str, str]:
    """A name for each value: itself, or with escapes where another is printed alike or a terminal would obey."""
    alike = Counter(map(_printed, set(values)))
    return {one: ascii(one)[1:-1] if alike[_printed(one)] > 1 or _CONTROL.search(one) else one for one in values}


def _visible(value: str) -> str:
    """NFKC without what is not printed (zero-width blanks, joiners, marks of direction, variation selectors)."""
    text, hidden = unicodedata.normalize("NFKC", value), ("Cf", "Cc", "Co", "Cn")
    gone = [c for c in text if unicodedata.category(c) in hidden or "\ufe00" <= c <= "\ufe0f" or c == "\u034f"]
    return text.translate(dict.fromkeys(map(ord, gone)))


def _printed(value: str) -> str:
    """What a value looks like: `_visible`, without doubled blanks, homoglyphs as ASCII."""
    return " ".join(_visible(value).split()).translate(_HOMOGLYPHS)


class Groups(NamedTuple):
    """The group of each image."""

    numbers: np.ndarray  # int64, shape (n,); -1 for an image that is left out
    names: tuple[str, ...]
    merged: tuple[str, ...] = ()  # names of the groups that were made of others
    left_out: tuple[tuple[str, int], ...] = ()  # groups with too few images: name and images


def columns_of(text: str) -> tuple[str, ...]:
    """The columns that `a,b` names."""
    columns = tuple(dict.fromkeys(cleaned(part) for part in text.split(",")))
    ensure("" not in columns, f"group {text!r} names no column beside a comma; write one column, or several as a,b")
    return columns


def intersect(
    columns: Sequence[str], numbers: Sequence[np.ndarray], names: Sequence[Sequence[str]]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Groups of several columns (numbers, -1 where one is missing, and names): those that occur, in their order."""
    if len(columns) == 1:
        return numbers[0], tuple(names[0])
    known = np.all([column >= 0 for column in numbers], axis=0)
    found, joint = np.unique(np.stack(numbers)[:, known], axis=1, return_inverse=True)
    groups = np.full(len(known), -1)
    groups[known] = joint.ravel()
    called = ([f"{column}={of[i]}" for column, of, i in zip(columns, names, one, strict=True)] for one in found.T)
    return groups, tuple(map(", ".join, called))


def regroup(
    numbers: np.ndarray, names: Sequence[str], *, merge: str = "", min_images: int = 0, usable: np.ndarray | None = None
) -> Groups:
    """Merge groups (`a+b;c+d+e`; they stand where the first stood), then leave out those with too few usable images."""
    ensure(min_images >= 0, f"min_images must be at least 0, got {min_images}")
    names, into, merged = list(names), np.arange(len(names)), {}
    for text in filter(None, map(str.strip, merge.split(";"))):
        parts = _parts(text.split("+"), names)
        known = f"write a+b with groups of {some(names)}"
        ensure(parts is not None, f"merge {text!r} names a group that is not there; {known}")
        ensure(len(set(parts)) > 1, f"merge {text!r} names one group; write at least two, as a+b")
        taken = any(into[part] != part or part in merged for part in parts)
        ensure(not taken, f"merge names a group twice: {merge!r}; write all groups that become one as a+b+c")
        into[parts], called = min(parts), "+".join(names[part] for part in parts)
        ensure(called not in names, f"merge {text!r}: there is a group {called!r} already; rename it in the table")
        merged[min(parts)] = called
    called = dict(enumerate(names)) | merged
    found = np.where(numbers >= 0, into[numbers], -1)
    counted = found if usable is None else found[usable]
    images = np.bincount(counted[counted >= 0], minlength=len(names))
    stay = [number for number in np.unique(into).tolist() if not min_images or images[number] >= min_images]
    ensure(stay, f"no group has {min_images} images (min_images); the largest has {images.max()}; choose fewer")
    renumbered = np.full(len(names) + 1, -1)  # the last for -1
    renumbered[stay] = np.arange(len(stay))
    out = tuple((called[number], int(images[number])) for number in np.unique(into).tolist() if number not in stay)
    return Groups(renumbered[found], tuple(called[number] for number in stay), tuple(merged.values()), out)


def _parts(pieces: list[str], names: Sequence[str]) -> list[int] | None:
    """The groups that `a+b`, split at its pluses, names, or None; a name may have a plus of its own."""
    for end in range(len(pieces), 0, -1):
        name = cleaned("+".join(pieces[:end]))
        rest = _parts(pieces[end:], names) if name in names else None
        if rest is not None:
            return [names.index(name), *rest]
    return None if pieces else []
