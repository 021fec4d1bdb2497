"""The parameters of a notebook: what its parameters cell says of them, and the check before anything is computed.

A line of that cell holds name, type and default; its comment says what the parameter is and what is allowed:

    relu_budget: float = 0.5  # Share of ReLUs kept. [0, 1]
    n_seeds: int = 10  # Repetitions. [2, 100], smoke: 2
    device: str = "cpu"  # Where to train. {cpu, cuda}

A square bracket includes the end, a round one does not; `smoke: 2` is the largest value in the profile `smoke`.
"""

import ast
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from papermill.translators import PythonTranslator

from linfair.linearizers.record import check_budgets
from linfair.names import closest, number, unknown
from linfair.paths import unfit

PROFILE = "LINFAIR_PROFILE"
FOLDER = Path(__file__).parents[2] / "notebooks"  # the repository's, beside the package (an editable install)
TYPES = {"int": int, "float": int | float, "str": str, "list[float]": list | tuple}
COMMENT = re.compile(
    r"(?P<text>.*?)(?: (?P<open>[\[(])(?P<low>[^],)]+), (?P<high>[^],)]+)[\])]| \{(?P<choices>.+)\})?"
    r"(?P<limits>(?:, \w+: \d+)*)"
)


class ParameterError(ValueError):
    """A notebook parameter that cannot be used; the message says what is allowed."""


def unknown_name(problem: str, name: str, known: Iterable[str]) -> ParameterError:
    """The error for a notebook or parameter that nobody knows."""
    return ParameterError(f"{unknown(problem, name, known)} (`linfair notebook list` shows all)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell; a list is always one of ReLU budgets, strictly descending."""

    name: str
    type: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    open_ends: bool = False
    choices: tuple[str, ...] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ParameterError(f"parameter {self.name}: type {self.type!r} is not one of {', '.join(TYPES)}")
        self.check(self.default)

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.choices:
            return " | ".join(self.choices)
        if self.low is None:
            return "any"
        words = "above {:.15g} and below {:.15g}" if self.open_ends else "{:.15g} to {:.15g}"
        ends = words.format(self.low, self.high)
        return f"each {ends}, strictly descending" if self.type == "list[float]" else ends

    def parse(self, text: str) -> Any:
        """The value that is meant on the command line, or the text itself, which `check` then refuses."""
        try:
            if self.type == "list[float]":
                inner = re.fullmatch(r"\[(.*)\]|\((.*)\)|(.*)", text.strip())
                return [number(entry) for entry in inner[inner.lastindex].split(",")]
            kind = int if self.type == "int" or text.isdecimal() else float
            return text if self.type == "str" else number(text, kind)
        except (TypeError, ValueError):  # TypeError: a line end inside
            return text

    def check(self, value: Any) -> Any:
        """The value in the parameter's type; a ParameterError if it has another type or is not allowed."""
        listed = self.type == "list[float]"
        given = self.parse(value) if listed and isinstance(value, str) else value
        numbers = [] if self.type == "str" else given if isinstance(given, list | tuple) else [given]
        right = isinstance(given, TYPES[self.type]) and given not in ([], ())
        if not right or any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
            raise self._error(value, "has the wrong type")
        if not all(map(self._inside, numbers)) or (self.choices and given not in self.choices):
            raise self._error(value, "is not allowed")
        try:
            return list(check_budgets(given, ends=False)) if listed else float(given) if self.type == "float" else given
        except ValueError:
            raise self._error(value, "is not allowed") from None

    def _inside(self, value: float) -> bool:
        if self.low is None or not math.isfinite(value):
            return math.isfinite(value)
        return self.low < value < self.high if self.open_ends else self.low <= value <= self.high

    def _error(self, value: Any, problem: str) -> ParameterError:
        near = closest(str(value), self.choices or ())
        hint = f" Did you mean {near!r}?" if near else ""
        allowed = f"{self.allowed} ({self.type}, default {self.default!r})"
        return ParameterError(f"{self.name} = {value!r} {problem}. Allowed: {allowed}.{hint}")


def read(cell: str) -> tuple[Parameter, ...]:
    """The parameters that a parameters cell names, as papermill finds them."""
    ast.parse(cell)  # papermill passes over what is no Python
    found = []
    for one in PythonTranslator.inspect(NotebookNode(source=cell)):
        said = COMMENT.fullmatch(one.help)
        choices = _choices(said["choices"]) if said["choices"] else None
        low, high = (None if said[end] is None else float(said[end]) for end in ("low", "high"))
        limits = {profile: int(most) for profile, most in re.findall(r"(\w+): (\d+)", said["limits"])}
        allowed = (low, high, said["open"] == "(", choices, limits)
        found.append(Parameter(one.name, one.inferred_type_name, ast.literal_eval(one.default), said["text"], *allowed))
    return tuple(found)


def _choices(text: str) -> tuple[str, ...]:
    """The names between braces; `figures` stands for all figures that are grids."""
    if text != "figures":
        return tuple(text.split(", "))
    from linfair.study.plan import find

    return tuple(figure.name for figure in find("all"))


@dataclass(frozen=True)
class Notebook:
    """What a notebook is called, where it is, how many minutes it takes by default on two cores, what it takes."""

    name: str
    parameters: tuple[Parameter, ...]
    title: str = ""
    minutes: float = 0
    path: Path | None = None

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of that name, or the error that names the closest one."""
        known = {parameter.name: parameter for parameter in self.parameters}
        if name not in known:
            raise unknown_name(f"{self.name} has no parameter", name, known)
        return known[name]

    def parse(self, texts: Sequence[str]) -> dict[str, Any]:
        """The values of `name=value` pairs; a name given twice is an error."""
        values: dict[str, Any] = {}
        for text in texts:
            name, equals, value = (part.strip() for part in text.partition("="))
            if not equals:
                raise ParameterError(f"-p {text} sets nothing: write -p {name}=VALUE.")
            if name in values:
                raise ParameterError(f"-p {name} is given more than once.")
            values[name] = self[name].parse(value)
        return values

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter's value: the given one or the default, at most what the profile allows."""
        given = {name: self[name].check(value) for name, value in values.items()}
        settings = {p.name: given.get(p.name, p.default) for p in self.parameters}
        for p in self.parameters:
            settings[p.name] = min(settings[p.name], p.limits.get(settings.get("profile"), settings[p.name]))
        if settings.get("device") == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise ParameterError("device = 'cuda', but torch finds no usable GPU here: use device=cpu.")
        return settings

    def as_json(self) -> dict[str, Any]:
        """What `linfair notebook list --json` prints of it."""
        listed = [asdict(p) | {"allowed": p.allowed} for p in self.parameters]
        return {"name": self.name, "title": self.title, "minutes": self.minutes, "parameters": listed}


def load(path: Path) -> Notebook:
    """What a notebook's file says of it: the title in its first line, the minutes in its metadata, its parameters."""
    problem = unfit(path, 2**26)
    try:
        content = {} if problem else json.loads(path.read_text(encoding="utf-8"))
        cells = [("".join(cell["source"]), cell["metadata"].get("tags", ())) for cell in content["cells"]]
        title = cells[0][0].split("\n")[0].removeprefix("# ")
        source = next((source for source, tags in cells if "parameters" in tags), "")
        return Notebook(path.stem, read(source), title, +content["metadata"].get("minutes", 0), path)
    except (AttributeError, IndexError, KeyError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        why = problem or f"is not a notebook as linfair reads it ({type(error).__name__}: {error})"
        raise ParameterError(f"{path} {why}; restore it, or name another folder with --notebooks") from error


def from_namespace(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Check a notebook's parameters from inside it, as its second code cell does with `globals()`.

    Without the notebook's file (in a copy elsewhere), IPython keeps the source of each cell in `In`, papermill's too.
    The environment variable `LINFAIR_PROFILE` replaces `profile`, so that all notebooks can run in seconds.
    """
    cells = [source for source in namespace.get("In", ()) if source]
    files = [folder / f"{notebook}.ipynb" for folder in (Path.cwd(), FOLDER)]
    file = next((path for path in files if path.is_file()), None)
    typed = next((source for source in cells if re.match(r"\w+: [][\w]+ = .*  # ", source)), "")
    spec = load(file) if file else Notebook(notebook, read(typed))
    missing = [p.name for p in spec.parameters if p.name not in namespace]
    if missing or not spec.parameters:
        raise ParameterError(f"{', '.join(missing) or notebook} not set: run the cell tagged 'parameters' first.")
    for source in cells:
        if source.startswith("# Parameters\n"):  # papermill's
            for name in re.findall(r"^(\w+) =", source, re.MULTILINE):
                spec[name]
    values = {p.name: namespace[p.name] for p in spec.parameters}
    if PROFILE in os.environ and "profile" in values:
        values["profile"] = os.environ[PROFILE]
    return spec.check(values)
