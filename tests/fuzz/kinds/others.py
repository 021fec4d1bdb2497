"""Notebooks, definitions of figures, locks, and folders that an audit writes to."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

from kinds.case import ESCAPE, LONG, THINGS, WRONG, WRONG_OR_USED, Case, damages, not_a_file, written
from kinds.commands import RIGHT
from kinds.networks import DEEP
from linfair.study.plan import FIGURES

BOOK = "notebooks/01_small.ipynb"
CELLS = {
    "no cells": {"cells": []},
    "cells null": {"cells": None},
    "cells of numbers": {"cells": [1, 2]},
    "cells of text": {"cells": "x"},
    "a cell without source": {"cells": [{"cell_type": "code", "metadata": {}}]},
    "a cell without metadata": {"cells": [{"cell_type": "code", "source": "x = 1"}]},
    "a source of numbers": {"cells": [{"cell_type": "code", "source": [1], "metadata": {}}]},
    "a source of null": {"cells": [{"cell_type": "code", "source": None, "metadata": {}}]},
    "tags of numbers": {"cells": [{"cell_type": "code", "source": "x = 1", "metadata": {"tags": 3}}]},
    "metadata null": {"metadata": None},
    "minutes of text": {"metadata": {"minutes": ESCAPE}},
    "minutes of lists": {"metadata": {"minutes": [1]}},
}
PARAMETERS = {
    "no comment": "x: int = 1",
    "no type": "x = 1  # One. [0, 2]",
    "unknown type": "x: complex = 1  # One. [0, 2]",
    "no value": "x: int  # One. [0, 2]",
    "no Python": "x: int = = 1  # One. [0, 2]",
    "a call": "x: int = __import__('os').getpid()  # One. [0, 2]",
    "outside": "x: int = 5  # One. [0, 2]",
    "ends of text": "x: int = 1  # One. [low, high]",
    "ends of nan": "x: float = 1.0  # One. [nan, inf]",
    "ends in the wrong order": "x: int = 1  # One. [2, 0]",
    "no choices": "x: str = 'a'  # One. {}",
    "another choice": "x: str = 'a'  # One. {b, c}",
    "a list that rises": "x: list[float] = [0.1, 0.5]  # One. (0, 1)",
    "a list of text": "x: list[float] = ['a']  # One. (0, 1)",
    "deep": "x: int = " + "(" * 500 + ")" * 500 + "  # One.",
    "a limit of text": "x: int = 1  # One. [0, 2], smoke: two",
    "twice": "x: int = 1  # One. [0, 2]\nx: int = 2  # Two. [0, 2]",
}
NUMBERS = {
    "low": "1",
    "high": "101",
    "half": "2.5",
    "text": "ten",
    "empty": "",
    "list": "[3]",
    "hex": "0x10",
    "underscore": "1_0",
}
VALUES = {"n_seeds": NUMBERS | {"sum": "2+3", "code": "exec('1')", "null": "None"}}
VALUES["relu_budget"] = {
    "low": "-0.1",
    "high": "1.5",
    "nan": "nan",
    "text": "half",
    "per cent": "50%",
    "complex": "1j",
    "comma": "0,5",
}
VALUES["budgets"] = {
    "rising": "0.2,0.5",
    "twice": "0.5,0.5",
    "one": "1.0",
    "zero": "0",
    "text": "a,b",
    "nan": "nan",
    "hole": "0.5,,0.2",
}
VALUES["device"] = {"unknown": "tpu", "number": "0", "empty": "", "colour": ESCAPE, "long": LONG}
TEXTS = {
    "empty": "",
    "no TOML": "figure = ",
    "bytes": "\udcff\udcfe",
    "zero bytes": "\0\0",
    "a key twice": 'figure = "a"\nfigure = "b"',
    "deep": "x = " + DEEP,
    "unknown key": "nothing = 1",
    "colour": "title = '\x1b[31m'",
    "long": f"title = '{LONG}'",
    "date": "title = 2024-01-01",
    "html": "<html>",
}
EDITS = {
    ("figure = ", "figure = 3 # "),
    ("split = ", "split = 'tset' # "),
    ("quantity = ", "quantity = [] # "),
    ("claims = ", "claims = 'fig' # "),
    ("[[panel]]", "[panel]"),
    ("data = ", "data = 'cifar11' # "),
    ("network = ", "network = ['mlp'] # "),
    ("method = ", "method = 3 # "),
    ("budgets = ", "budgets = [0.2, 0.5] # "),
    ("budgets = ", "budgets = ['half'] # "),
    ("budgets = ", "budgets = [nan] # "),
    ("budgets = ", "budgets = [inf] # "),
    ("budgets = ", "budgets = 0.5 # "),
    ("budgets = ", "budgets = [] # "),
    ("budgets = ", "width = 'wide'\nbudgets = "),
    ("budgets = ", "width = -1\nbudgets = "),
    ("budgets = ", "seeds = 1.5\nbudgets = "),
    ("budgets = ", "options = []\nbudgets = "),
    ("budgets = ", "options = {nothing = 1}\nbudgets = "),
    ("budgets = ", "options = {configurations = [{a = 1}]}\nbudgets = "),
    ("budgets = ", "data_options = {nothing = '/'}\nbudgets = "),
    ("arms = ", "arms = ['original', 'plain', 'plain'] # "),
    ("arms = ", "arms = ['plain'] # "),
    ("arms = ", "arms = ['original', 'lagrangian(mu=)'] # "),
    ("arms = ", "arms = ['original', 'lagrangian(mu=-1)'] # "),
    ("arms = ", "arms = [1] # "),
    ("arms = ", "arms = [] # "),
}
OWNERS = {
    "empty": "",
    "noise": "\udcff\0\x1b[31m",
    "long": LONG * 100,
    "another host": "process 1 on elsewhere\n",
    "no process": f"process 99999999999 on {socket.gethostname()}\n",
    "two lines": "process 1 on elsewhere\nprocess 2 on elsewhere\n",
    "coloured": f"process 1 on {ESCAPE}\n",
}
LOCK = ".linfair.lock"


def book(content: Callable[[dict], object]) -> Callable[[Path, Path], None]:
    """A folder with one notebook, changed."""

    def prepare(world: Path, place: Path) -> None:
        raw = json.dumps(content(json.loads((world / BOOK).read_text()))).encode()
        (place / "01_small.ipynb").write_bytes(raw)

    return prepare


def cell(source: str) -> Callable[[dict], dict]:
    """The notebook with another parameters cell."""
    return lambda whole: (
        whole | {"cells": [one | ({"source": source} if one["metadata"]["tags"] else {}) for one in whole["cells"]]}
    )


def notebooks() -> Iterator[Case]:
    """Notebooks, listed and run; parameters of a right one."""
    file = "01_small.ipynb"
    for number, (name, change) in enumerate(damages().items()):
        codes = WRONG_OR_USED if "bit" in name else WRONG
        yield Case(
            "notebooks", f"bytes, {name}", listing(number), ("01_small",), written(file, change, like=BOOK), codes
        )
    for number, (name, raw) in enumerate(
        {"deep": DEEP.encode(), "a number": b"3", "null": b"null", "a list": b"[]"}.items()
    ):
        yield Case("notebooks", name, listing(number), ("01_small",), written(file, raw))
    for number, (name, more) in enumerate(CELLS.items()):
        fine = name in ("no cells", "minutes of text")
        yield Case(
            "notebooks",
            name,
            listing(number),
            ("01_small",),
            book(lambda whole, more=more: whole | more),
            WRONG_OR_USED if fine else WRONG,
        )
    for number, (name, source) in enumerate(PARAMETERS.items()):
        fine = name in ("no comment", "no type", "deep", "a limit of text", "twice", "no choices", "no value")
        yield Case(
            "notebooks",
            f"parameters, {name}",
            listing(number),
            ("01_small", "x"),
            book(cell(source)),
            WRONG_OR_USED if fine else WRONG,
        )
    for thing in THINGS:
        yield Case("notebooks", f"a {thing}", listing(0), ("01_small",), not_a_file(thing, file))
    for name, values in VALUES.items():
        for what, value in values.items():
            words = ("notebook", "run", *RIGHT["notebook run"], "-p", f"{name}={value}")
            yield Case("parameters", f"{name}, {what}", words, (name,))


def listing(number: int) -> tuple[str, ...]:
    """A command that reads the notebook."""
    return (("notebook", "list", "--notebooks", "IN/"), ("notebook", "run", "01_small", "--notebooks", "IN/"))[
        number % 2
    ]


def figure(content: Callable[[str], str] | str, file: str) -> Callable[[Path, Path], None]:
    """The figures' definitions, with one file changed."""

    def prepare(_: Path, place: Path) -> None:
        copytree(FIGURES, place / "figures")
        path = place / "figures" / file
        path.write_bytes(
            (content(path.read_text()) if callable(content) else content).encode("utf-8", "surrogateescape")
        )

    return prepare


def definitions() -> Iterator[Case]:
    """Definitions of figures, profiles and the queue, read by the commands that plan."""
    words = [("study", "list"), ("study", "show", "fig15"), ("study", "run", "fig15", "--out", "results")]
    made = [
        (file, f"{file}, {name}", text)
        for file in ("fig15.toml", "queue.toml", "profiles.toml")
        for name, text in TEXTS.items()
    ]
    for number, (old, new) in enumerate(sorted(EDITS)):
        made.append(
            ("fig15.toml", f"{new.strip(' #')!r}, {number}", lambda text, old=old, new=new: text.replace(old, new, 1))
        )
    for number, (file, name, content) in enumerate(made):
        yield Case(
            "definitions", name, words[number % 3], (file, "no profile"), figure(content, file), definitions=True
        )


def lock(text: str, days: int) -> Callable[[Path, Path], None]:
    """A claim by somebody, of the past or of a clock that is ahead."""

    def prepare(world: Path, place: Path) -> None:
        written(LOCK, text)(world, place)
        os.utime(place / LOCK, (time.time() + days * 86400,) * 2)

    return prepare


def locks() -> Iterator[Case]:
    """Claims of a folder: only one that another host has touched of late counts."""
    words = ("study", "merge", "--out", "WORLD/results", "--into", "IN/")
    for name, text in OWNERS.items():
        for days in (-4000, 0, 4000):
            claimed = not days and name in ("another host", "coloured")
            says, codes = (("elsewhere", "red"), WRONG) if claimed else (("",), (0,))
            yield Case("locks", f"{name}, {days} days ahead", words, says, lock(text, days), codes)
    for thing in THINGS:
        yield Case("locks", f"a {thing}", words, (LOCK,), not_a_file(thing, LOCK), (0,))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from notebooks()
    yield from definitions()
    yield from locks()
