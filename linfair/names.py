"""Names that somebody typed: the closest known name to a misspelt one, and the sentence that says so."""

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to a misspelt one, or None if nothing is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def hint(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: take the closest known one, or one of all."""
    known = list(known)
    near = closest(name, known)
    return f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"


def unknown(problem: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that nobody knows.

    >>> unknown("there is no data set", "digts", ["digits", "toy"]), hint("x", ["digits", "toy"])
    ("there is no data set 'digts'; did you mean 'digits'?", 'there are digits, toy')
    """
    return f"{problem} {name!r}; {hint(name, known)}"
