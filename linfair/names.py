"""Names and options that somebody typed: the closest known name, and options checked against their annotations.

A list of a TOML file becomes a tuple, so that a cell with the option is hashable; a whole number given for a `float`
becomes a float, so that `1` and `1.0` are one value. What an annotation does not allow is refused.
"""

import ast
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, time
from pathlib import Path

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}
_PLURALS = {"a finite number": "finite numbers", "a whole number": "whole numbers"}
_UNION, _LIST = (types.UnionType, typing.Union), (tuple, list, Sequence)
_TEXT_FILE = (bool, int, float, str, list, tuple, dict, date, time)
"""What a text file can hold; a field annotated with `object` takes only what it cannot, an object made in Python."""


NAMES = {"plain": "plain fine-tuning", "lagrangian": "Algorithm 1", "kd_over_c": "distillation divided by classes"}
NAMES |= {"excess_drop": "penalty on excess drops", "group_dro": "group DRO", "control": "100 % control"}
NAMES |= {"test": "test images", "test_balanced": "balanced test images"}
NAMES |= {"lira_online": "the likelihood ratio attack LiRA"}
NAMES |= {"mlp": "MLP", "cnn": "CNN", "resnet18": "ResNet18", "resnet34": "ResNet34"}
NAMES |= {"snl": "SNL", "snl mask": "SNL's mask", "snip": "SNIP", "deepreduce": "DeepReDuce"}
NAMES |= {"prune_magnitude": "magnitude pruning", "utkface_age": "faces by age", "utkface_race": "faces by race"}
NAMES |= {"cifar10": "CIFAR-10", "svhn": "SVHN", "svhn subset": "a tenth of SVHN"}
"""Readers' names of arms, splits, attacks, networks, methods and data; others are their own words."""


def called(name: str) -> str:
    """The reader's name of an arm, a split, an attack, a network, a method or data, its options in brackets.

    >>> called("lagrangian(clip=5.0)"), called("balanced_sampling"), called("test_balanced")
    ('Algorithm 1 (clip 5)', 'balanced sampling', 'balanced test images')
    """
    first, _, rest = name.partition("(")
    words = re.sub(r"\.0\b", "", rest.rstrip(")")).replace("=True", "").replace("=", " ").replace("_", " ")
    return NAMES.get(first, first.replace("_", " ")) + (f" ({words})" if words else "")


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to a misspelt one, or None if nothing is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def some(names: Iterable[object], most: int = 6, joint: str = ", ") -> str:
    """The first few names, and how many more there are; one alone is never left out."""
    names = list(map(str, names))
    return joint.join(names if len(names) <= most + 1 else [*names[:most], f"... {len(names) - most} more"])


def hint(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: take the closest known one, or one of all."""
    known = list(known)
    near = closest(name, known)
    return f"did you mean {near!r}?" if near else f"there are {some(known, 20)}"


def unknown(problem: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that nobody knows."""
    return f"{problem} {name!r}; {hint(name, known)}"


def number(text: str, kind: type[int] | type[float] = float) -> float:
    """A number as it is typed, in plain digits: a ValueError for `1_0`, `nan`, `inf`, digits of other scripts."""
    pattern = r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?" if kind is float else r"[+-]?\d+"
    plain = len(text) <= 40 and re.fullmatch(pattern, text.strip(), re.ASCII | re.IGNORECASE)
    if not plain or not math.isfinite(value := kind(text)):
        raise ValueError(f"{text!r} is not {_WORDS[kind]} in plain digits")
    return value


def call(text: str) -> tuple[str, dict[str, object]]:
    """A name with options, `name` or `name(option=value)`; a ValueError for anything else, or an option given twice."""
    try:
        tree = ast.parse(text, mode="eval").body
        found = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        names = [one.arg for one in found.keywords]
        if found.args or None in names or len(set(names)) < len(names) or re.search(r"\d_\d", text):
            raise ValueError
        return found.func.id, {one.arg: ast.literal_eval(one.value) for one in found.keywords}
    except (SyntaxError, ValueError, AttributeError, MemoryError, RecursionError):
        raise ValueError(f"{text!r} is neither a name nor name(option=value), each option once") from None


def written(name: str, options: object) -> str:
    """The one way to write `call`: the options of a dataclass in their own order, those at their default left out."""
    own = vars(type(options)())
    changed = [f"{key}={value!r}" for key, value in vars(options).items() if value != own[key]]
    return f"{name}({', '.join(changed)})" if changed else name


def checked(given: Mapping[str, object], kind: Callable[..., object], what: str, **more: type) -> dict[str, object]:
    """Freeze options and check each against the parameter that takes it, of a dataclass or an annotated function.

    `more` are the types of further options. A ValueError for an unknown name, or a value of another type, says what is
    allowed.
    """
    known = [name for name in (*inspect.signature(kind).parameters, *more) if name != "seed"]
    hints = typing.get_type_hints(getattr(kind, "func", kind)) | more
    found = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(unknown(f"{what}: there is no option", name, known or ["no options"]))
        try:
            found[name] = _as(value, hints.get(name, object))
        except TypeError:
            allowed = _words(hints.get(name, object))
            raise ValueError(f"{what}: {name} = {value!r} is not allowed; {name} takes {allowed}") from None
    return found


def _words(kind: object) -> str:
    """What an annotation allows, in words."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) in _UNION:
        return " or ".join(dict.fromkeys(_words(one) for one in inner if one not in (types.NoneType, object)))
    if typing.get_origin(kind) in _LIST:
        one = _words(inner[0])
        return f"a list of {_PLURALS.get(one, one)}"
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)} made in Python, which a text file cannot hold")


def _as(value: object, kind: object) -> object:
    """The value as the annotation has it; a TypeError if it does not allow it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    for one in inner if origin in _UNION else ():
        with suppress(TypeError):
            return _as(value, one)
    if origin in _LIST and isinstance(value, list | tuple):
        return tuple(_as(one, inner[0]) for one in value)
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63  # no nan, no inf
    if kind is float and number:
        return float(value)
    if kind is object:
        allowed = not isinstance(value, _TEXT_FILE)
    elif origin is not None or kind is float:
        allowed = False
    else:
        allowed = isinstance(value, kind) and (number or kind is not int)
    if not allowed:
        raise TypeError
    return value


def shown(text: str) -> str:
    """Text with all that a terminal obeys, or does not show, as escapes; ends of lines stay."""
    return re.sub(r"[^\n -~]", lambda found: one if (one := found[0]).isprintable() else ascii(one)[1:-1], text)
