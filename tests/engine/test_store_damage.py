"""What is stored must be what its name says: each kind of damage is said in one line, set aside and computed anew.

Oracle everywhere: the rows of the same cell computed once without any damage, equal to the last bit.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from linfair.engine.store import DamagedFile, Tables
from linfair.study import ResultStore, grid, run
from linfair.study.cell import TIMING, Cell, Worker

ARMS = ("original", "plain")


def cell(seed: int = 0) -> Cell:
    return grid("digits", "mlp", method="random", budgets=(0.5, 0.2), seeds=[seed], profile="smoke")[0]


def compute(store: ResultStore, **options: object) -> pd.DataFrame:
    return run([cell()], arms=ARMS, store=store, progress=False, **options)


@pytest.fixture(scope="module")
def finished(
    one_thread: None, light: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ResultStore, pd.DataFrame]:
    """One cell and the teacher of another seed; tests work on copies."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    run([cell(1)], arms=("original",), store=store, progress=False)
    return store, compute(store)


@pytest.fixture
def store(finished: tuple[ResultStore, pd.DataFrame], tmp_path: Path) -> ResultStore:
    return ResultStore(shutil.copytree(finished[0].folder, tmp_path / "copy"))


def checkpoints(store: ResultStore) -> dict[str, Path]:
    """The files of both teachers and of the path, by what they are."""
    found = {"path": store.folder / "checkpoints" / f"{worker(store).path.name}.safetensors"}
    for name, seed in (("teacher", 0), ("other", 1)):
        digest = worker(store, seed).teacher.digest
        for path in (store.folder / "checkpoints").glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                if f'"digest": "{digest}"' in file.metadata()["notes"]:
                    found[name] = path
    return found


def worker(store: ResultStore, seed: int = 0) -> Worker:
    return Worker(cell(seed), store, progress=False)


def table_of(store: ResultStore, arm: str) -> Path:
    return store.folder / "results" / f"{worker(store).name(arm)}.parquet"


def expect_anew(store: ResultStore, path: Path, finished: pd.DataFrame, words: str = "") -> None:
    """The file is named in one line, lies aside, and the rows are those of the undamaged study."""
    damaged = path.read_bytes()
    with pytest.warns(DamagedFile) as caught:
        table = compute(store)
    lines = [str(one.message) for one in caught if str(path) in str(one.message)]
    assert len(lines) == 1 and "\n" not in lines[0], lines
    assert words in lines[0] and f"set aside as {path.name}.damaged-1" in lines[0]
    assert path.with_name(f"{path.name}.damaged-1").read_bytes() == damaged
    timing = list(TIMING)
    pd.testing.assert_frame_equal(table.drop(columns=timing), finished.drop(columns=timing), check_exact=True)


# Checkpoints


def flipped(path: Path) -> None:
    """Bytes behind the header: the file stays readable."""
    content = bytearray(path.read_bytes())
    for place in (-5, -6, -401):
        content[place] ^= 0x55
    path.write_bytes(content)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zeroed_behind_the_header(path: Path) -> None:
    tensors, about = read(path)
    save_file({name: torch.zeros_like(value) for name, value in tensors.items()}, path, metadata=about)


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata()


def not_finite(tensors: dict, notes: dict) -> tuple[dict, dict]:
    return {k: v * float("nan") if v.is_floating_point() else v for k, v in tensors.items()}, notes


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty": Path.touch,
    "text": lambda path: path.write_text("mine"),
    "a header of many bytes": lambda path: path.write_bytes((2**62).to_bytes(8, "little") + b"{}"),
    "a header that is no JSON": lambda path: path.write_bytes((4).to_bytes(8, "little") + b"[[[["),
    "another program's": lambda path: save_file({"weight": torch.ones(2)}, path),
    "notes that are no JSON": lambda path: save_file(
        {"weight": torch.ones(2)}, path, {"name": path.stem, "notes": "{", "sha256": "0"}
    ),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("what", ["teacher", "path"])
def test_what_stands_in_the_place_of_a_checkpoint_is_set_aside_and_computed_anew(
    what: str, kind: str, store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    path = checkpoints(store)[what]
    shutil.rmtree(store.folder / "results")
    path.unlink()
    SPECIAL[kind](path)
    with pytest.warns(DamagedFile) as caught:
        table = compute(store)
    [line] = [str(one.message) for one in caught]
    assert line.startswith(str(path)) and f"set aside as {path.name}.damaged-1" in line and len(line) < 700
    assert os.path.lexists(f"{path}.damaged-1") and path.is_file()
    timing = list(TIMING)
    pd.testing.assert_frame_equal(table.drop(columns=timing), finished[1].drop(columns=timing), check_exact=True)


def test_a_place_where_nothing_can_be_kept_is_said_before_anything_is_trained(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(store.folder)
    store.folder.mkdir()
    (store.folder / "checkpoints").write_text("mine")
    monkeypatch.setattr("linfair.engine.stages.rules.train", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(OSError, match="checkpoints"):
        compute(store)


@pytest.mark.parametrize("damage", [flipped, zeroed, zeroed_behind_the_header])
@pytest.mark.parametrize("what", ["teacher", "path"])
def test_bytes_of_a_checkpoint_that_changed_are_computed_anew(
    what: str, damage: Callable[[Path], None], store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    path = checkpoints(store)[what]
    shutil.rmtree(store.folder / "results")
    damage(path)
    expect_anew(store, path, finished[1])


def test_two_teachers_of_one_shape_that_were_swapped_are_computed_anew(
    store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    found = checkpoints(store)
    shutil.rmtree(store.folder / "results")
    one, other = found["teacher"].read_bytes(), found["other"].read_bytes()
    found["teacher"].write_bytes(other), found["other"].write_bytes(one)
    expect_anew(store, found["teacher"], finished[1], f"holds the checkpoint {found['other'].stem}")


def test_a_second_damage_of_one_file_keeps_the_first(store: ResultStore) -> None:
    path = checkpoints(store)["teacher"]
    for number in (1, 2):
        flipped(path)
        with pytest.warns(DamagedFile, match=f"damaged-{number}"):
            worker(store).teacher  # noqa: B018
    assert len(list(path.parent.glob(f"{path.name}.damaged-*"))) == 2


CHANGES: dict[str, Callable[[dict, dict], tuple[dict, object]]] = {
    "another shape": lambda tensors, notes: ({k: torch.cat([v, v]) for k, v in tensors.items()}, notes),
    "another type": lambda tensors, notes: ({k: v.double() for k, v in tensors.items()}, notes),
    "without a tensor": lambda tensors, notes: (dict(list(tensors.items())[1:]), notes),
    "a tensor more": lambda tensors, notes: (tensors | {"more": torch.ones(1)}, notes),
    "no tensors": lambda tensors, notes: ({}, notes),
    "not finite": lambda tensors, notes: not_finite(tensors, notes),
    "notes {}": lambda tensors, notes: (tensors, {}),
    "notes null": lambda tensors, notes: (tensors, None),
    "notes []": lambda tensors, notes: (tensors, []),
    "notes text": lambda tensors, notes: (tensors, "notes"),
    "every note null": lambda tensors, notes: (tensors, dict.fromkeys(notes)),
    "every note text": lambda tensors, notes: (tensors, dict.fromkeys(notes, "text")),
    "lists of nothing": lambda tensors, notes: (
        tensors,
        {k: [] if isinstance(v, list) else v for k, v in notes.items()},
    ),
    "lists of text": lambda tensors, notes: (
        tensors,
        {k: ["x"] * len(v) if isinstance(v, list) else v for k, v in notes.items()},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("what", ["teacher", "path"])
def test_a_readable_checkpoint_that_does_not_fit_is_computed_anew(
    what: str, change: str, store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    """Written by the store itself, so that digest and name are right."""
    path = checkpoints(store)[what]
    shutil.rmtree(store.folder / "results")
    store.save(path.stem, *CHANGES[change](*store.load(path.stem)))
    expect_anew(store, path, finished[1])


def test_weights_that_are_not_those_of_the_noted_digest_are_computed_anew(
    store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    found = checkpoints(store)
    shutil.rmtree(store.folder / "results")
    store.save(found["teacher"].stem, store.load(found["other"].stem)[0], store.load(found["teacher"].stem)[1])
    expect_anew(store, found["teacher"], finished[1], "does not hold the weights that its notes name")


@pytest.mark.parametrize("change", [*CHANGES, "flipped"])
def test_a_kept_student_that_is_damaged_is_computed_anew(change: str, store: ResultStore) -> None:
    kept = Worker(cell(), store, progress=False, keep=True)
    before = [one.model.state_dict() for one in kept.students("plain")]
    name = kept._kept["plain"][1]
    path = store.folder / "checkpoints" / f"{name}.safetensors"
    if change == "flipped":
        flipped(path)
    else:
        store.save(name, *CHANGES[change](*store.load(name)))
    with pytest.warns(DamagedFile, match=f"{name}.safetensors.damaged-1"):
        after = [one.model.state_dict() for one in Worker(cell(), store, progress=False, keep=True).students("plain")]
    for one, other in zip(before, after, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_checkpoint_without_a_digest_as_older_versions_wrote_it_is_computed_anew(
    store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    path = checkpoints(store)["teacher"]
    shutil.rmtree(store.folder / "results")
    tensors, about = read(path)
    save_file(tensors, path, metadata={"notes": about["notes"]})
    expect_anew(store, path, finished[1], "carries no digest")


# Tables


def half_by_pandas(path: Path, store: ResultStore) -> None:
    table = pd.read_parquet(path)
    table.head(len(table) // 2).to_parquet(path, index=False)


def half_by_pandas_without_attributes(path: Path, store: ResultStore) -> None:
    table = pd.read_parquet(path)
    table.attrs = {}
    table.head(len(table) // 2).to_parquet(path, index=False)


def half_by_arrow(path: Path, store: ResultStore) -> None:
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.slice(0, table.num_rows // 2), path)


def half_by_the_store(path: Path, store: ResultStore) -> None:
    rows = store.read(path.stem)
    store.write(path.stem, rows.head(len(rows) // 2))


def rows_twice(path: Path, store: ResultStore) -> None:
    rows = store.read(path.stem)
    store.write(path.stem, pd.concat([rows, rows.head(1)]))


def one_number_changed(path: Path, store: ResultStore) -> None:
    table = pd.read_parquet(path)
    table.loc[3, "accuracy"] += 1e-9
    table.to_parquet(path, index=False)


def a_column_renamed(path: Path, store: ResultStore) -> None:
    pd.read_parquet(path).rename(columns={"low": "high", "high": "low"}).to_parquet(path, index=False)


def another_arm_copied(path: Path, store: ResultStore) -> None:
    shutil.copy(table_of(store, "original"), path)


def other_rows(**changes: object) -> Callable[[Path, ResultStore], None]:
    return lambda path, store: store.write(path.stem, store.read(path.stem).assign(**changes)) and None


TABLES: dict[str, Callable[[Path, ResultStore], None]] = {
    "flipped": lambda path, store: flipped_page(path),
    "zeroed": lambda path, store: zeroed(path),
    "half by pandas": half_by_pandas,
    "half by pandas, attributes lost": half_by_pandas_without_attributes,
    "half by arrow": half_by_arrow,
    "half by the store": half_by_the_store,
    "a row twice": rows_twice,
    "one number": one_number_changed,
    "columns swapped": a_column_renamed,
    "another arm's file": another_arm_copied,
    "another arm": other_rows(arm="control"),
    "another seed": other_rows(seed=7),
    "another budget": other_rows(budget=0.3),
    "another network": other_rows(network="resnet18"),
    "another data set": other_rows(data="toy"),
    "another method": other_rows(method="snl"),
    "no arm": other_rows(arm="nothing(known="),
    "accuracy in per cent": other_rows(accuracy=97.5),
    "accuracy of text": other_rows(accuracy="high"),
    "half a seed": other_rows(seed=0.5),
    "lists of budgets": lambda path, store: (
        store.write(path.stem, (rows := store.read(path.stem)).assign(budget=[[0.5]] * len(rows))) and None
    ),
    "no names of groups": lambda path, store: (
        store.write(path.stem, store.read(path.stem).drop(columns="group_name")) and None
    ),
    "one name for all groups": other_rows(group_name="all"),
    "empty": lambda path, store: store.write(path.stem, store.read(path.stem).head(0)) and None,
}


def flipped_page(path: Path) -> None:
    """Four bytes of the accuracies, in the middle of their column."""
    about = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    [column] = [i for i in range(about.num_columns) if about.column(i).path_in_schema == "accuracy"]
    chunk = about.column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    middle = start + chunk.total_compressed_size // 2
    for place in range(middle, middle + 4):
        content[place] ^= 0x2A
    path.write_bytes(content)


@pytest.mark.parametrize("damage", TABLES)
def test_a_damaged_table_is_computed_anew(
    damage: str, store: ResultStore, finished: tuple[ResultStore, pd.DataFrame]
) -> None:
    path = table_of(store, "plain")
    TABLES[damage](path, store)
    expect_anew(store, path, finished[1])


def test_a_table_without_a_digest_is_read_under_a_name_of_ones_own_only(tmp_path: Path) -> None:
    """The committed rows of the book were written without; an arm's file has to have one."""
    rows = pd.DataFrame({"seed": [0, 1]})
    for name in ("digits_mlp_snl", "0123456789abcdef"):
        rows.to_parquet(tmp_path / f"{name}.parquet", index=False)
    tables = Tables(tmp_path)
    pd.testing.assert_frame_equal(tables.read("digits_mlp_snl"), rows)
    with pytest.warns(DamagedFile, match=r"0123456789abcdef.parquet carries no digest"):
        assert tables.read("0123456789abcdef") is None


def test_every_table_of_the_book_is_readable() -> None:
    tables = Tables(Path(__file__).parents[2] / "book" / "results")
    assert tables.names()
    assert all(tables.read(name) is not None for name in tables.names())


def test_a_damaged_file_that_cannot_be_renamed_is_said_and_not_used(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoints(store)["teacher"]
    flipped(path)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.warns(DamagedFile, match=r"cannot be set aside \(read-only\)"):
        assert store.load(path.stem) is None
