"""The cells of a table as values: what is missing, what is the same, in which order, and what only looks the same.

Values that Unicode calls canonically equal (an accent composed or apart) are one value, in the form NFC. Values that
merely look alike (upper and lower case, blanks, invisible characters, letters of another alphabet, 1 and 1.0) stay
apart, and are named.
"""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

MISSING = frozenset(
    ("", "nan", "-nan", "na", "n/a", "<na>", "#n/a", "#na", "#n/a n/a", "nat", "null", "none", "?")
    + ("#null!", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan")
)
"""What is taken for a missing value, in any case: what pandas takes for one, the `?` of UCI tables, Excel's errors."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s?(%?)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
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
    return _visible(unicodedata.normalize("NFKC", value)).strip().casefold() in MISSING


def in_order(values: Sequence[str]) -> tuple[str, ...]:
    """The distinct values: as numbers (also `1.5`, `1e3`, `10%`) where all are numbers, else as text."""
    distinct = sorted(set(values))
    numbers = {value: number(value) for value in distinct}
    return tuple(distinct if None in numbers.values() else sorted(distinct, key=numbers.__getitem__))


def number(value: str) -> Decimal | None:
    """The number that a value writes, a per cent sign aside, as `1.5`, `1,5` or `1,500`; None if it is not a number."""
    if _THOUSANDS.fullmatch(value):
        value = value.replace(",", "")
    elif _DECIMAL_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    return Decimal(value.rstrip("% ")) if _NUMBER.fullmatch(value) else None


def lookalikes(values: Sequence[str]) -> list[tuple[str, ...]]:
    """Distinct values that a reader cannot tell apart, or that mean one number, together."""
    found: dict[object, list[str]] = {}
    for value in sorted(set(values)):
        written = number(value)
        plain = re.sub(r"[\s_-]+", " ", _printed(value).casefold()).strip() if written is None else written
        found.setdefault(plain, []).append(value)
    return [tuple(alike) for alike in found.values() if len(alike) > 1]


def told_apart(values: Sequence[str]) -> dict[str, str]:
    """A name for each value: itself, or with escapes where another value would be printed alike."""
    printed: dict[str, list[str]] = {}
    for value in set(values):
        printed.setdefault(_printed(value), []).append(value)
    return {value: ascii(value)[1:-1] if len(alike) > 1 else value for alike in printed.values() for value in alike}


def _visible(value: str) -> str:
    """Without characters that are not printed (zero-width blanks, joiners, marks of direction, variation selectors)."""
    hidden = ("Cf", "Cc", "Co", "Cn")
    return "".join(
        c for c in value if unicodedata.category(c) not in hidden and not "\ufe00" <= c <= "\ufe0f" and c != "\u034f"
    )


def _printed(value: str) -> str:
    """What a value looks like: NFKC, without invisible characters and doubled blanks, homoglyphs as ASCII."""
    return " ".join(_visible(unicodedata.normalize("NFKC", value)).split()).translate(_HOMOGLYPHS)
