"""One bad file among good ones: whatever it is, it is named in one line, passed over, and the good ones are used.

Oracle: the rows of the good files alone, and what the commands say of them.
"""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from linfair.cli.main import main
from linfair.engine.rows import COLUMNS, NEEDED
from linfair.engine.store import DamagedFile, Tables
from linfair.study.cell import OtherTeacher
from linfair.study.jobs import read_pace
from linfair.study.plan import figures
from linfair.study.results import BOOK, collect, gather, merge, values

Make = Callable[[Path, pd.DataFrame, bytes], object]


def table(change: Callable[[pd.DataFrame], pd.DataFrame], **how: object) -> Make:
    return lambda path, rows, _: change(rows).to_parquet(path, **{"index": False} | how)


def column(**values: object) -> Make:
    return table(lambda rows: rows.assign(**{name: [value] * len(rows) for name, value in values.items()}))


def arrow(change: Callable[[pa.Table], pa.Table]) -> Make:
    return lambda path, rows, _: pq.write_table(change(pa.Table.from_pandas(rows, preserve_index=False)), path)


def content(change: Callable[[bytes], bytes]) -> Make:
    return lambda path, _, good: path.write_bytes(change(good))


def bound(path: Path, *_: object) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(path.parent)  # the path of a socket must be short
        one.bind(path.name)


SPECIAL: dict[str, Make] = {
    "a folder": lambda path, *_: path.mkdir(),
    "a pipe": lambda path, *_: os.mkfifo(path),
    "a socket": bound,
    "a link to itself": lambda path, *_: path.symlink_to(path),
    "a link to nothing": lambda path, *_: path.symlink_to("nothing"),
    "an endless device": lambda path, *_: path.symlink_to("/dev/zero"),
}
TABLES: dict[str, Make] = SPECIAL | {
    "no rows": table(lambda rows: rows.head(0)),
    "no columns": arrow(lambda one: one.select([])),
    "another table": table(lambda rows: rows[["seed", "n"]]),
    "without seeds": table(lambda rows: rows.drop(columns="seed")),
    "seeds in the index": table(lambda rows: rows.set_index("seed"), index=True),
    "a column twice": arrow(lambda one: one.append_column("seed", one["seed"])),
    "text for numbers": column(accuracy="high"),
    "numbers for text": column(arm=0.5),
    "categories": table(lambda rows: rows.astype({"arm": "category"})),
    "bytes": column(arm=b"plain"),
    "lists": column(accuracy=[0.5]),
    "structs": column(seed={"a": 1}),
    "times": column(seed=pd.Timestamp(0)),
    "truth for numbers": column(seed=True),
    "whole numbers for truth": column(diverged=1),
    "seconds of text": column(seconds_base="long"),
    "no accuracy": column(accuracy=np.nan),
    "infinite accuracy": column(accuracy=np.inf),
    "accuracy in per cent": column(accuracy=97.5),
    "a negative share": column(budget=-0.1),
    "no budget": column(budget=np.nan),
    "half a seed": column(seed=0.5),
    "no seed": column(seed=np.nan),
    "an infinite seed": column(seed=np.inf),
    "a negative count": column(n=-1),
    "infinite seconds": column(seconds_path=np.inf),
    "no teacher": column(teacher=None),
    "a long text": column(device="x" * 100_000),
    "a text for every row that fills the memory": arrow(
        lambda one: one.set_column(
            one.column_names.index("device"),
            "device",
            pa.DictionaryArray.from_arrays(pa.array([0] * one.num_rows), ["x" * 10**7]),
        )
    ),
    "20,000 columns": arrow(lambda _: pa.table({f"c{number}": [1] for number in range(20_000)})),
    "cut in half": content(lambda good: good[: len(good) // 2]),
    "its second half": content(lambda good: good[len(good) // 2 :]),
    "zero bytes": content(lambda _: b""),
    "another head": content(lambda good: b"PAGE" + good[4:]),
    "a CSV": lambda path, rows, _: rows.to_csv(path),
    "encrypted": content(lambda good: b"PARE" + good[4:-4] + b"PARE"),
}
FAILURES: dict[str, bytes | Make] = SPECIAL | {
    "empty": b"",
    "an empty line": b"\nwhy",
    "no text": b"\xff\xfe\x00",
    "a number": b"3",
    "a list": b"[]",
    "nothing known": b"{}",
    "nested": b"[" * 100_000,
    "digits": b"9" * 10_000,
    "large": b" " * 2_000_000,
    "seeds of text": b'{"data": "d", "network": "n", "method": "m", "profile": "p", "arms": ["a"], "seeds": ["0"]}',
    "arms of lists": b'{"data": "d", "network": "n", "method": "m", "profile": "p", "arms": [[]], "seeds": [0]}',
    "more": b'{"data": "d", "network": "n", "method": "m", "profile": "p", "arms": [], "seeds": [], "x": 1}',
}


@pytest.fixture
def good(fig01: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("linfair.cli.study.BOOK", tmp_path / "none")  # it takes longer to count
    return Path(shutil.copytree(fig01, tmp_path / "out"))


def put(make: bytes | Make, path: Path) -> None:
    one = sorted(path.parent.glob("*.parquet"))[0]
    rows, raw = pd.read_parquet(one), one.read_bytes()
    rows.attrs = {}
    path.write_bytes(make) if isinstance(make, bytes) else make(path, rows, raw)


def expect_named(folder: Path, path: Path) -> None:
    """Everything that reads a folder names the file, in one line, leaves it, and has the rows of the others."""
    clean, before = collect([str(path.parents[1] / "clean")]).rows, os.lstat(path)
    for read in (lambda: collect([str(folder)]).rows, lambda: list(Tables(folder).results())):
        with pytest.warns(DamagedFile) as caught:
            found = read()
        [line] = [str(one.message) for one in caught]
        assert str(path) in line and "passed over" in line and "\n" not in line and len(line) < 1000
        if isinstance(found, pd.DataFrame):
            pd.testing.assert_frame_equal(found, clean, check_exact=True)
        if path.suffix == ".txt":
            break
    assert os.path.samestat(os.lstat(path), before)


@pytest.mark.parametrize("kind", TABLES)
def test_a_bad_table_is_named_and_passed_over(kind: str, good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "clean")
    put(TABLES[kind], good / "mine.parquet")
    expect_named(good, good / "mine.parquet")
    with pytest.warns(DamagedFile, match="mine.parquet"):
        read_pace(Tables(good))


@pytest.mark.parametrize("kind", FAILURES)
def test_a_bad_note_of_a_failure_is_named_and_passed_over(kind: str, good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "clean")
    put(FAILURES[kind], good / "FAILED-mine.txt")
    expect_named(good, good / "FAILED-mine.txt")


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_stands_in_the_place_of_a_result_is_set_aside(kind: str, good: Path) -> None:
    """Under a name of the store's own, so that the result can be written."""
    path = good / "0123456789abcdef.parquet"
    put(SPECIAL[kind], path)
    with pytest.warns(DamagedFile, match=r"set aside as 0123456789abcdef.parquet.damaged-1"):
        assert Tables(good).read(path.stem) is None
    assert os.path.lexists(f"{path}.damaged-1") and not os.path.lexists(path)
    Tables(good).write(path.stem, pd.DataFrame({"seed": [0]}))


def test_names_that_a_terminal_obeys_or_cannot_show_are_escaped(good: Path) -> None:
    clean = collect([str(good)]).rows
    for name in (b"\x1b[31mred\n.parquet", b"\xff\xfe.parquet"):
        (good / os.fsdecode(name)).write_bytes(b"junk")
    with pytest.warns(DamagedFile) as caught:
        found = collect([str(good)]).rows
    assert [r"\x1b[31mred" in str(one.message) for one in caught] == [True, False]
    assert r"\udcff\udcfe.parquet" in str(caught[1].message)
    pd.testing.assert_frame_equal(found, clean, check_exact=True)


def test_columns_that_no_study_has_are_left_out(good: Path) -> None:
    """Lists in one of them would stop what compares rows."""
    clean = collect([str(good)]).rows
    for path in good.glob("*.parquet"):
        rows = pd.read_parquet(path).assign(notes=[["mine"]] * len(pd.read_parquet(path)))
        path.unlink()
        Tables(good).write(path.stem, rows)
    pd.testing.assert_frame_equal(collect([str(good)]).rows, clean, check_exact=True)


def test_every_command_goes_on_with_the_good_files(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(TABLES["text for numbers"], good / "mine.parquet")
    put(TABLES["a pipe"], good / "pipe.parquet")
    put(FAILURES["nothing known"], good / "FAILED-mine.txt")
    commands = ["status --out out", "table fig01 --out out", "compare fig01 --out out --other out"]
    commands += ["merge --out out --into into", "show fig01 --out out"]
    for command in commands:
        assert main(["study", *command.split()]) == 0, command
        said = capsys.readouterr().err.splitlines()
        names = ["mine.parquet", "pipe.parquet", *["FAILED-mine.txt"] * ("show" not in command)]
        assert [any(name in line for line in said) for name in names] == [True] * len(names), said
        assert len(said) == len(names)
    assert len(Tables("into").names()) == 1


def test_seeds_whose_original_network_is_lost_are_left_out_of_drops_and_named(good: Path) -> None:
    """Oracle: the other seed alone."""
    [panel] = [part for _, part in gather(figures()["fig01"], "smoke", collect([str(good)])).groupby("panel")]
    lost = panel[(panel["arm"] != "original") | (panel["seed"] == 0)]
    with pytest.warns(OtherTeacher, match=r"seeds \[1\] are left out"):
        found = values(lost, "drop")
    alone = values(panel[panel["seed"] == 0], "drop")
    pd.testing.assert_frame_equal(found.reset_index(drop=True), alone.reset_index(drop=True), check_exact=True)
    with pytest.raises(ValueError, match="no original network for seeds"):
        values(panel[panel["arm"] != "original"], "drop")


def test_groups_of_one_name_are_named(good: Path) -> None:
    put(column(group_name="all"), good / "mine.parquet")
    with pytest.warns(DamagedFile, match="mine.parquet has several groups of one name"):
        collect([str(good)])


def test_a_file_in_the_place_of_a_folder_is_said(good: Path) -> None:
    [one, *_] = good.glob("*.parquet")
    with pytest.raises(ValueError, match=f"{one} is no folder"):
        collect([str(one)])


def test_a_bad_file_in_the_place_of_a_merged_one_is_kept_beside_it(good: Path) -> None:
    found = collect([str(good)])
    [path] = merge(found, "into")
    path.write_bytes(b"mine")
    with pytest.warns(DamagedFile, match="set aside"):
        assert merge(found, "into") == [path]
    assert Path(f"{path}.damaged-1").read_bytes() == b"mine" and len(collect(["into"]).rows) == len(found.rows)


def test_the_tables_of_the_book_are_read_as_they_are() -> None:
    """Oracle: pandas; the book's other tables lie there without a word."""
    found = dict(Tables(BOOK).results(said=False))
    assert len(found) >= 15
    for name, rows in found.items():
        pd.testing.assert_frame_equal(rows, pd.read_parquet(BOOK / f"{name}.parquet"), check_exact=True)
        assert set(rows) <= set(COLUMNS) and set(rows) >= NEEDED
    collect([str(BOOK)])
