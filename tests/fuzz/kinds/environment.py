"""What the environment says of folders, where they cannot be."""

from collections.abc import Iterator

from kinds import places
from kinds.case import ESCAPE, Case
from kinds.commands import RIGHT

USING = {
    "LINFAIR_CACHE": ("linearize", "mitigate", "audit", "study run", "study show", "study status", "data status"),
    "LINFAIR_DATA": ("data status", "data describe", "data fetch", "study show"),
    "XDG_CACHE_HOME": ("mitigate", "data fetch"),
}
VALUES = {
    name: places.PLACES[name] for name in ("below a file", "in the kernel", "name too long", "no such user", "a loop")
}
VALUES |= places.THERE | {"a device itself": "/dev/null", "file": "IN/file", "colour": f"IN/file/{ESCAPE}"}
READS = {"study show", "study status", "data status"}
"""Commands that only look: a place where nothing can be is one where nothing is."""


def cases() -> Iterator[Case]:
    """A case for each variable, each command that uses it and each place."""
    turn = 0
    for variable, commands in USING.items():
        for command in commands:
            words = [*command.split(), *RIGHT[command]]
            if command == "data describe":
                words = ["data", "describe", "cifar10"]
            turn += 1
            for name, value in list(VALUES.items())[turn % 2 :: 2]:
                env = {variable: value} | ({"LINFAIR_CACHE": ""} if variable == "XDG_CACHE_HOME" else {})
                codes = (0, 2) if command in READS else (2,)
                said = (value.replace("IN/", "")[:20].partition("\x1b")[0], variable)
                yield Case(
                    "environment", f"{variable}, {command}, {name}", tuple(words), said, places.prepare, codes, env
                )
