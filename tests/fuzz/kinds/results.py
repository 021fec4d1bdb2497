"""Folders of results in which one file among good ones is bad: every command that reads them goes on and names it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from kinds.case import ESCAPE, HUNDRED, LONG, THINGS, Case, damages, not_a_file, written
from linfair.engine.store import Tables

SHOWN = ["fig15", "--profile", "small", "--seeds", "2"]
READERS = {
    "status": ("study", "status", "--profile", "small", "--seeds", "2", "--out", "IN/"),
    "table": ("study", "table", *SHOWN, "--out", "IN/"),
    "compare": ("study", "compare", *SHOWN, "--out", "IN/", "--other", "WORLD/results"),
    "merge": ("study", "merge", "--out", "IN/", "--into", "merged"),
    "run": ("study", "run", *SHOWN, "--known", "WORLD/results", "--out", "IN/"),
    "known": ("study", "run", *SHOWN, "--known", "IN/", "--out", "results"),
    "show": ("study", "show", *SHOWN, "--out", "IN/"),
}
GOOD = "results/mine.parquet"
Change = Callable[[pd.DataFrame], pd.DataFrame]
ROWS: dict[str, Change] = {
    "no rows": lambda rows: rows[:0],
    "text for numbers": lambda rows: rows.assign(accuracy="high"),
    "text for seeds": lambda rows: rows.assign(seed="first"),
    "text for budgets": lambda rows: rows.assign(budget="half"),
    "text for groups": lambda rows: rows.assign(group="g"),
    "text for widths": lambda rows: rows.assign(width=ESCAPE),
    "lists for numbers": lambda rows: rows.assign(accuracy=[[0.5]] * len(rows)),
    "lists for seeds": lambda rows: rows.assign(seed=[[1]] * len(rows)),
    "lists for names": lambda rows: rows.assign(arm=[["plain"]] * len(rows)),
    "lists for methods": lambda rows: rows.assign(method=[["snl"]] * len(rows)),
    "objects": lambda rows: rows.assign(data=[{"a": 1}] * len(rows)),
    "numbers for names": lambda rows: rows.assign(arm=3),
    "numbers for data": lambda rows: rows.assign(data=1.5),
    "numbers for teachers": lambda rows: rows.assign(teacher=np.arange(len(rows)) // 20),
    "no seeds": lambda rows: rows.assign(seed=np.nan),
    "no teachers": lambda rows: rows.assign(teacher=None),
    "no names": lambda rows: rows.assign(arm=None),
    "no data": lambda rows: rows.assign(data=None),
    "no budgets": lambda rows: rows.assign(budget=np.nan),
    "no numbers": lambda rows: rows.assign(accuracy=np.nan),
    "infinite": lambda rows: rows.assign(accuracy=np.inf),
    "infinite seeds": lambda rows: rows.assign(seed=np.inf),
    "huge": lambda rows: rows.assign(accuracy=1e300),
    "half seeds": lambda rows: rows.assign(seed=0.5),
    "negative seeds": lambda rows: rows.assign(seed=-1),
    "large budgets": lambda rows: rows.assign(budget=20.0),
    "booleans": lambda rows: rows.assign(seed=True, accuracy=True),
    "dates": lambda rows: rows.assign(seed=pd.Timestamp("2024-01-01")),
    "categories": lambda rows: rows.astype({"arm": "category", "data": "category", "method": "category"}),
    "bytes": lambda rows: rows.assign(arm=b"plain"),
    "colours": lambda rows: rows.assign(arm=ESCAPE, device=ESCAPE),
    "coloured profile": lambda rows: rows.assign(profile=ESCAPE),
    "path for data": lambda rows: rows.assign(data="../../escaped"),
    "long names": lambda rows: rows.assign(group_name=LONG, device=LONG),
    "seconds of text": lambda rows: rows.assign(seconds_base="long", seconds_path="long", seconds_finetune="long"),
    "no seconds": lambda rows: rows.assign(seconds_base=np.nan, seconds_path=np.nan, seconds_finetune=np.nan),
    "diverged in words": lambda rows: rows.assign(diverged="no"),
    "eigenvalues of text": lambda rows: rows.assign(top_eigenvalue="large"),
    "codes of numbers": lambda rows: rows.assign(code=3),
    "column missing": lambda rows: rows.drop(columns="teacher"),
    "split missing": lambda rows: rows.drop(columns="split"),
    "accuracy missing": lambda rows: rows.drop(columns="accuracy"),
    "another table": lambda rows: pd.DataFrame({"a": [1]}),
    "no columns": lambda rows: pd.DataFrame(index=range(3)),
    "many columns": lambda rows: rows.join(
        pd.DataFrame(0, index=rows.index, columns=[f"{ESCAPE}{n}" for n in range(100)])
    ),
}
UNNAMED = {
    "column missing",
    "split missing",
    "accuracy missing",
    "another table",
    "no columns",
    "huge",
    "infinite",
    "no numbers",
}
UNNAMED |= {
    "categories",
    "colours",
    "coloured profile",
    "path for data",
    "long names",
    "many columns",
    "diverged in words",
}
UNNAMED |= {
    "no seconds",
    "negative seeds",
    "large budgets",
    "codes of numbers",
    "numbers for teachers",
    "no rows",
    "numbers for names",
}
"""Tables that may be other tables than results, or results that say something odd: they need not be named."""
KNOWN = {"data": "digits", "network": "mlp", "method": "snl", "arms": ["plain"], "profile": "small", "seeds": [0]}
FAILED = {
    "empty": "",
    "text": "no JSON",
    "brace": "{",
    "list": "[]",
    "number": "3",
    "null": "null",
    "object": "{}",
    "deep": "[" * 100_000,
    "arms of a number": json.dumps(KNOWN | {"arms": 3}),
    "arms of null": json.dumps(KNOWN | {"arms": None}),
    "arms of lists": json.dumps(KNOWN | {"arms": [[1]]}),
    "seeds of a number": json.dumps(KNOWN | {"seeds": 3}),
    "seeds of lists": json.dumps(KNOWN | {"seeds": [[0]]}),
    "data of a list": json.dumps(KNOWN | {"data": [1]}),
    "nothing but arms": json.dumps({"arms": ["plain"], "seeds": [0]}),
    "blank line first": "\n" + json.dumps(KNOWN),
    "hundred digits": HUNDRED,
    "ten thousand digits": "9" * 10_000,
    "bytes": "\udcff\udcfe",
    "zero bytes": "\0" * 50,
}
NAMES = {
    "a colour": "\x1b[31mred.parquet",
    "two lines": "one\nlinfair: two.parquet",
    "bytes": "raw\udcffbytes.parquet",
    "long": "n" * 240 + ".parquet",
    "only the end": "x.parquet.parquet",
    "a question mark": "wh?t*[a].parquet",
    "a scheme": "memory:.parquet",
}


def among(write: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    """A good table, and beside it what is written."""

    def prepare(world: Path, place: Path) -> None:
        (place / "good.parquet").write_bytes((world / "results/mine.parquet").read_bytes())
        write(world, place)

    return prepare


def rows(change: Change, *, marked: bool) -> Callable[[Path, Path], object]:
    """Changed rows, with a digest as linfair writes it, or without, as another tool does."""

    def write(world: Path, place: Path) -> None:
        table = change(pd.read_parquet(world / "results/mine.parquet").reset_index(drop=True))
        table.attrs = {}
        if marked:
            Tables(place).write("broken", table)
        else:
            table.to_parquet(place / "broken.parquet")

    return write


def cases() -> Iterator[Case]:
    """Each bad file, read by one of the commands in turn."""
    made: list[tuple[str, Callable, str]] = []
    for damage, change in damages().items():
        said = "" if damage == "twice" else "broken.parquet"  # a table that ends as it should
        made.append((f"bytes, {damage}", written("broken.parquet", change, like=GOOD), said))
        made.append(
            (
                f"an arm's bytes, {damage}",
                written("0123456789abcdef.parquet", change, like=GOOD),
                "0123456789abcdef.parquet",
            )
        )
    for number, (name, change) in enumerate(ROWS.items()):
        made.append(
            (f"rows, {name}", rows(change, marked=number % 2 == 0), "" if name in UNNAMED else "broken.parquet")
        )
    for name, text in FAILED.items():
        made.append((f"failed, {name}", written("FAILED-broken.txt", text), "FAILED-broken.txt"))
    for name, file in NAMES.items():
        made.append(
            (f"named, {name}", written(file, b"noise"), re.split("[\x1b\n\udcff]", file.lstrip("\x1b"))[0][:60])
        )
    for thing in THINGS:
        for file in ("broken.parquet", "FAILED-broken.txt"):
            made.append((f"a {thing}, {file}", not_a_file(thing, file), file))
    others = [name for name in READERS if name != "status"]  # which takes longest
    turn = [*others, *others, *others, *others, "status"]
    for number, (name, write, said) in enumerate(made):
        for reader in (turn[number % 25], turn[(number + 3) % 25])[: 1 + name.startswith("rows")]:
            quiet = name.startswith("failed") or "FAILED" in name  # these are read where what failed is counted
            reader = {"show": "merge", "run": "known"}.get(reader, reader) if quiet else reader
            yield Case("results", f"{name}, {reader}", READERS[reader], (said,), among(write), codes=(0,))
