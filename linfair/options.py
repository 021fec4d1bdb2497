"""Options as text files hold them: frozen, and checked against the annotation of the field that takes them.

A TOML list becomes a tuple, so that a cell with the option is hashable; a whole number given for a `float` becomes a
float, so that `1` and `1.0` are one value. What the annotation does not allow is refused before anything is computed.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from pathlib import Path

from linfair.names import unknown

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}
_TEXT_FILE = (bool, int, float, str, list, tuple, dict, date, time)
"""What a text file can hold; a field annotated with `object` takes only what it cannot, an object made in Python."""


class OptionError(ValueError):
    """An option that is unknown, or a value that it does not take; the message names both and what is allowed."""


def checked(given: Mapping[str, object], kind: Callable[..., object], what: str) -> dict[str, object]:
    """Freeze options and check each against the parameter that takes it, of a dataclass or an annotated function.

    Raises:
        OptionError: For an unknown name, or a value of another type; says what is allowed.

    >>> def method(*, names: tuple[str, ...] | None = None, rate: float = 0.1): ...
    >>> checked({"names": ["1", "2,3"], "rate": 1}, method, "method")
    {'names': ('1', '2,3'), 'rate': 1.0}
    >>> checked({"rate": "fast"}, method, "method")
    Traceback (most recent call last):
    ...
    linfair.options.OptionError: method: rate = 'fast' is not allowed; rate takes a finite number
    """
    known = {name: one for name, one in inspect.signature(kind).parameters.items() if name != "seed"}
    hints = typing.get_type_hints(getattr(kind, "func", kind))
    found = {}
    for name, value in given.items():
        if name not in known:
            raise OptionError(unknown(f"{what}: there is no option", name, known or ["no options"]))
        try:
            found[name] = _as(value, hints.get(name, object))
        except TypeError:
            allowed = words(hints.get(name, object))
            raise OptionError(f"{what}: {name} = {value!r} is not allowed; {name} takes {allowed}") from None
    return found


def words(kind: object) -> str:
    """What an annotation allows, in words.

    >>> words(tuple[str, ...] | None), words(int), words(bool)
    ('a list of text', 'a whole number', 'true or false')
    """
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        told = [one for one in typing.get_args(kind) if one not in (types.NoneType, object)]
        return " or ".join(dict.fromkeys(words(one) for one in told))
    if _is_list(kind):
        return f"a list of {_plural(words(typing.get_args(kind)[0]))}"
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)} made in Python, which a text file cannot hold")


def _plural(text: str) -> str:
    return {"a finite number": "finite numbers", "a whole number": "whole numbers"}.get(text, text)


def _is_list(kind: object) -> bool:
    return typing.get_origin(kind) in (tuple, list, Sequence)


def _as(value: object, kind: object) -> object:
    """The value as the annotation has it; a TypeError if it does not allow it."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        for one in typing.get_args(kind):
            try:
                return _as(value, one)
            except TypeError:
                continue
        raise TypeError
    if _is_list(kind):
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_as(one, typing.get_args(kind)[0]) for one in value)
    if kind is object:
        allowed = not isinstance(value, _TEXT_FILE)
    elif kind is float:
        allowed = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if allowed else value
    elif kind is int:
        allowed = isinstance(value, int) and not isinstance(value, bool)
    else:
        allowed = isinstance(value, kind)
    if not allowed:
        raise TypeError
    return value
