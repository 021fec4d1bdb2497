"""The cells of a table as values: what is missing, what is the same, in which order, and what only looks the same.

Values that Unicode calls canonically equal (an accent composed or apart) are one value, in the form NFC. Values that
merely look alike (upper and lower case, blanks, invisible characters, letters of another alphabet, 1 and 1.0) stay
apart, and are named.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

MISSING = frozenset(
    ("", "nan", "-nan", "na", "n/a", "<na>", "#n/a", "#na", "#n/a n/a", "nat", "null", "none", "?")
    + ("#null!", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
)
"""What is taken for a missing value, in any case: what pandas takes for one, the `?` of UCI tables, Excel's errors."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s?(%?)")
_HOMOGLYPHS = str.maketrans(
    "аеорсухіјѕԁһӏԛԝАВЕКМНОРСТУХІЈЅԌɡανορΑΒΕΖΗΙΚΜΝΟΡΤΥΧ‐‑‒–—−’‘",
    "aeopcyxijsdhlqwABEKMHOPCTYXIJSGgavopABEZHIKMNOPTYX------''",
)
"""Cyrillic and Greek letters, dashes and quotes that look like ASCII."""


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
    """A name for each value: itself, or with escapes where another value would be printed alike."""
    alike = Counter(map(_printed, set(values)))
    return {value: ascii(value)[1:-1] if alike[_printed(value)] > 1 else value for value in values}


def _visible(value: str) -> str:
    """NFKC without what is not printed (zero-width blanks, joiners, marks of direction, variation selectors)."""
    text, hidden = unicodedata.normalize("NFKC", value), ("Cf", "Cc", "Co", "Cn")
    gone = [c for c in text if unicodedata.category(c) in hidden or "\ufe00" <= c <= "\ufe0f" or c == "\u034f"]
    return text.translate(dict.fromkeys(map(ord, gone)))


def _printed(value: str) -> str:
    """What a value looks like: `_visible`, without doubled blanks, homoglyphs as ASCII."""
    return " ".join(_visible(value).split()).translate(_HOMOGLYPHS)
