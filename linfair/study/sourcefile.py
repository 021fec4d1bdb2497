"""One TOML file of definitions: what it may hold, and errors that name the file, the line and what is allowed."""

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path


class DefinitionError(ValueError):
    """A definition that does not hold together; the message names file, line and what is allowed."""


class Source:
    """One TOML file and the lines its keys stand on, for errors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8")
        try:
            self.content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise DefinitionError(f"{path}: no valid TOML: {error}") from None
        self.lines: dict[tuple[str, int, str], int] = {}
        table, counts = "", {}
        for number, line in enumerate(text.splitlines(), start=1):
            if header := re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]", line):
                table = header[1]
                counts[table] = counts.get(table, -1) + 1
                self.lines[table, counts[table], ""] = number
            elif found := re.match(r"\s*([\w-]+)\s*=", line):
                self.lines.setdefault((table, counts.get(table, 0), found[1]), number)

    def error(self, problem: str, table: str, index: int, key: str = "") -> DefinitionError:
        """The error that names the line of a key, or of its table if the key is missing."""
        line = self.lines.get((table, index, key)) or self.lines.get((table, index, ""), 1)
        return DefinitionError(f"{self.path}, line {line}: {problem}")

    def check(
        self, values: Mapping[str, object], kinds: Mapping[str, type], table: str, index: int, needed: Collection[str]
    ) -> None:
        """Refuse unknown keys, missing ones and values of another type."""
        for key, value in values.items():
            if key not in kinds:
                near = difflib.get_close_matches(key, kinds, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(kinds)}"
                raise self.error(f"unknown key {key!r}; {hint}", table, index, key)
            if not isinstance(value, kinds[key]) or isinstance(value, bool):
                raise self.error(f"{key} must be a {kinds[key].__name__}, got {value!r}", table, index, key)
            inner = (int, float) if key == "budgets" else dict if key in ("panel", "entry") else str
            if isinstance(value, list) and not all(isinstance(one, inner) for one in value):
                kind = "numbers" if key == "budgets" else "tables" if inner is dict else "text"
                raise self.error(f"{key} must hold {kind}, got {value!r}", table, index, key)
        for key in needed:
            if key not in values:
                raise self.error(f"{key} is missing", table, index)

    def one_of(self, values: Mapping[str, object], key: str, known: Collection[str], table: str, index: int) -> None:
        """Refuse a value that is not among the known ones."""
        if key in values and values[key] not in known:
            near = difflib.get_close_matches(str(values[key]), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problem = f"{key} = {values[key]!r} is not known; {hint}allowed are {', '.join(known)}"
            raise self.error(problem, table, index, key)

    def called(self, function: object, value: object, table: str, index: int, key: str) -> object:
        """What a function makes of a value, its ValueError with file and line."""
        try:
            return function(value)
        except (ValueError, TypeError) as error:
            raise self.error(str(error), table, index, key) from None
