"""Parameters of a notebook: one with its name, type, range and description, or all of them; the check of values."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TYPES = ("int", "float", "str", "list[float]")


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; the message says what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One notebook parameter.

    Attributes:
        name: The variable's name in the notebook.
        type: One of `TYPES`.
        default: The value used when none is given.
        description: What it is, in one line; the comment beside it in the notebook.
        low: Smallest allowed number (of each entry, for a list), or None.
        high: Largest allowed number, or None.
        choices: The allowed values of a string, or None for any.
        open_ends: The ends `low` and `high` themselves are not allowed.
        descending: A list must be strictly descending.

    Raises:
        ValueError: If the type is not one of `TYPES`.
        ParameterError: If the default breaks the parameter's own rules.
    """

    name: str
    type: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    open_ends: bool = False
    descending: bool = False

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ValueError(f"parameter {self.name}: type {self.type!r} is not one of {', '.join(TYPES)}")
        self.check(self.default)

    @property
    def allowed(self) -> str:
        """The allowed values in words.

        >>> Parameter("p", "float", 0.5, "a share", low=0, high=1).allowed
        '0 to 1'
        >>> Parameter("p", "list[float]", [0.5], "shares", low=0, high=1, open_ends=True).allowed
        'each above 0 and below 1'
        """
        if self.choices is not None:
            return " | ".join(self.choices)
        below, above = ("below", "above") if self.open_ends else ("at most", "at least")
        if self.low is None and self.high is None:
            text = "any"
        elif self.low is None:
            text = f"{below} {_plain(self.high)}"
        elif self.high is None:
            text = f"{above} {_plain(self.low)}"
        elif self.open_ends:
            text = f"above {_plain(self.low)} and below {_plain(self.high)}"
        else:
            text = f"{_plain(self.low)} to {_plain(self.high)}"
        if self.type == "list[float]":
            return f"each {text}" + (", strictly descending" if self.descending else "")
        return text

    def parse(self, text: str) -> Any:
        """Read a value from the command line; `check` still has to approve it.

        Args:
            text: What was typed after `name=`.

        Returns:
            The value, of the parameter's type.

        Raises:
            ParameterError: If the text is no value of this type.

        >>> Parameter("n_seeds", "int", 20, "seeds").parse("5")
        5
        >>> Parameter("budgets", "list[float]", [0.5], "shares").parse("0.5,0.2")
        [0.5, 0.2]
        """
        try:
            if self.type == "int":
                return int(text)
            if self.type == "float":
                return _number(text)
            if self.type == "list[float]":
                return [_number(entry) for entry in text.strip("[]() ").split(",") if entry.strip()]
        except ValueError:
            raise self._wrong_type(text) from None
        return text

    def check(self, value: Any) -> Any:
        """Approve a value, or say what is wrong with it.

        An int is accepted where a float is due, a bool is not accepted as a number, and a list of numbers may
        come as text (`"0.5,0.2"`).

        Args:
            value: The value to check.

        Returns:
            The value in the parameter's type (a float for an int, a list for a tuple or text).

        Raises:
            ParameterError: If the type, the range, the order or the choice is wrong.
        """
        if self.type == "str":
            if not isinstance(value, str):
                raise self._wrong_type(value)
            if self.choices is not None and value not in self.choices:
                raise self._not_allowed(value, closest(value, self.choices))
            return value
        if self.type == "list[float]":
            entries = self.parse(value) if isinstance(value, str) else value
            if not isinstance(entries, list | tuple) or not entries or not all(map(_is_number, entries)):
                raise self._wrong_type(value)
            entries = [float(entry) for entry in entries]
            falls = all(a > b for a, b in zip(entries, entries[1:], strict=False))
            if not all(map(self._in_range, entries)) or (self.descending and not falls):
                raise self._not_allowed(value)
            return entries
        if not _is_number(value) or (self.type == "int" and not isinstance(value, int)):
            raise self._wrong_type(value)
        if not self._in_range(value):
            raise self._not_allowed(value)
        return float(value) if self.type == "float" else value

    def _in_range(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.open_ends:
            return (self.low is None or value > self.low) and (self.high is None or value < self.high)
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def _wrong_type(self, value: Any) -> ParameterError:
        return ParameterError(
            f"{self.name} = {value!r} has the wrong type. Allowed: {self.allowed} "
            f"({self.type}, default {self.default!r})."
        )

    def _not_allowed(self, value: Any, suggestion: str | None = None) -> ParameterError:
        hint = f" Did you mean {suggestion!r}?" if suggestion else ""
        return ParameterError(
            f"{self.name} = {value!r} is not allowed. Allowed: {self.allowed} "
            f"({self.type}, default {self.default!r}).{hint}"
        )

    def line(self) -> str:
        """The parameter's line in the notebook's parameters cell.

        >>> Parameter("seed", "int", 0, "First seed.", low=0).line()
        'seed: int = 0  # First seed.'
        """
        default = f'"{self.default}"' if self.type == "str" else repr(self.default)
        return f"{self.name}: {self.type} = {default}  # {self.description}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to a misspelt one, or None if nothing is near.

    >>> closest("relu_budgt", ["relu_budget", "seed"])
    'relu_budget'
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> int | float:
    """The number as it was typed, so that a message can quote it: 7, not 7.0."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def unknown(problem: str, name: str, known: Iterable[str]) -> ParameterError:
    """The error for a name nobody knows: with the closest known name, or with all of them.

    >>> print(unknown("There is no notebook", "xyz", ["01_toy_boundary"]))
    There is no notebook 'xyz'. Known: 01_toy_boundary.
    Show all parameters with: linfair notebook list
    """
    near = closest(name, known)
    hint = f"Did you mean {near!r}?" if near else f"Known: {', '.join(known)}."
    return ParameterError(f"{problem} {name!r}. {hint}\nShow all parameters with: linfair notebook list")


@dataclass(frozen=True)
class Notebook:
    """What a notebook is called, how long it takes, and what it takes.

    Attributes:
        name: The file's name without `.ipynb`.
        title: One line on what it shows.
        minutes: Minutes at the default parameters on two CPU cores.
        parameters: Its parameters, in the order of the parameters cell.
        limits: For a profile, the largest value of some parameters: the smoke profile only asks whether the
            page runs, and cuts seeds and steps whatever was asked for.
    """

    name: str
    title: str
    minutes: float
    parameters: tuple[Parameter, ...]
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of that name.

        Raises:
            ParameterError: If there is none; the message gives the closest name.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise unknown(f"{self.name} has no parameter", name, [p.name for p in self.parameters])

    def cell(self) -> str:
        """The source of the notebook's cell tagged `parameters`."""
        return "\n".join(parameter.line() for parameter in self.parameters)

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Check some values and fill in the defaults; see the module's `check`."""
        given = {name: self[name].check(value) for name, value in values.items()}
        settings = {p.name: given.get(p.name, p.default) for p in self.parameters}
        for name, limit in self.limits.get(settings.get("profile"), {}).items():
            settings[name] = min(settings[name], limit)
        if settings.get("device") == "cuda":
            _need_cuda()
        return settings


def _need_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ParameterError("device = 'cuda', but torch finds no usable GPU here: use device=cpu.")
