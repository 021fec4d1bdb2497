"""One TOML file of definitions: what it may hold, and errors that name the file, the line and what is allowed."""

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import get_args, get_origin

from linfair.names import closest, unknown


class DefinitionError(ValueError):
    """A definition that does not hold together; the message names file, line and what is allowed."""


class Source:
    """One TOML file of definitions and the lines its keys stand on, for errors."""

    def __init__(self, path: str | Path) -> None:
        self.path, text = path, Path(path).read_text(encoding="utf-8")
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

    def check(self, values: Mapping[str, object], kinds: Mapping[str, object], *at: str | int, needed: Collection[str]):
        """Refuse unknown keys, missing ones, and values that are not of the key's type, or not among its names."""
        for key, value in values.items():
            if key not in kinds:
                raise self.error(unknown("unknown key", key, kinds), *at, key)
            kind = kinds[key]
            if isinstance(kind, Collection) and not isinstance(kind, type) and get_origin(kind) is None:
                if value not in kind:
                    near = closest(str(value), kind)
                    hint = f"did you mean {near!r}? " if near else ""
                    allowed = f"{hint}allowed are {', '.join(kind)}"
                    raise self.error(f"{key} = {value!r} is not known; {allowed}", *at, key)
                continue
            outer, inner = get_origin(kind) or kind, (*get_args(kind), object)[0]
            if not isinstance(value, outer) or isinstance(value, bool):
                raise self.error(f"{key} must be a {outer.__name__}, got {value!r}", *at, key)
            if outer is list and not all(isinstance(one, inner) for one in value):
                words = {str: "text", dict: "tables"}.get(inner, "numbers")
                raise self.error(f"{key} must hold {words}, got {value!r}", *at, key)
            if outer is int and value < 1:
                raise self.error(f"{key} must be at least 1, got {value}", *at, key)
        for key in needed:
            if key not in values:
                raise self.error(f"{key} is missing", *at)

    def called(self, function: Callable, value: object, table: str, index: int, key: str, prefix: str = "") -> object:
        """What a function makes of a value, its ValueError with file and line."""
        try:
            return function(value)
        except (ValueError, TypeError) as error:
            raise self.error(f"{prefix}{error}", table, index, key) from None
