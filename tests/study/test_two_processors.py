"""Rows of two original networks under the same settings stay apart, and that is said.

Another processor is stood in for by a training whose weights end in other last digits.
"""

import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

from linfair.engine import stages
from linfair.study import ResultStore, grid, run
from linfair.study.cell import OtherTeacher, Worker
from linfair.study.tables import check_teachers, drops, one_teacher

[CELL] = grid("digits", "mlp", method="random", budgets=(0.5,), seeds=[0], profile="smoke")


@pytest.fixture(scope="module")
def first(one_thread: None, light: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Original and plain arm as one processor computes them."""
    store = ResultStore(tmp_path_factory.mktemp("first"))
    return store.folder, run([CELL], arms=("original", "plain"), store=store, progress=False)


@pytest.fixture
def other_roundings(monkeypatch: pytest.MonkeyPatch) -> None:
    train = stages.rules.train

    def rounded(model: torch.nn.Module, *args: object, **options: object) -> object:
        found = train(model, *args, **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 2**-20)
        return found

    monkeypatch.setattr(stages.rules, "train", rounded)


def test_an_arm_added_on_another_processor_is_not_mixed_with_what_was_there(
    first: tuple[Path, pd.DataFrame], tmp_path: Path, other_roundings: None
) -> None:
    """One results folder, a cache of its own: all three arms are of the second teacher, the first one's files stay."""
    results = shutil.copytree(first[0] / "results", tmp_path / "results")
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    store = ResultStore(tmp_path / "cache", results)
    digest = first[1]["teacher"].iloc[0]
    with pytest.warns(OtherTeacher, match=f"was computed from the original network {digest}, not from .* as here"):
        table = run([CELL], arms=("original", "plain", "control"), store=store, progress=False)
    assert table["teacher"].nunique() == 1 and table["teacher"].iloc[0] != digest
    assert len(drops(table)) == len(table)
    assert {name: (results / name).read_bytes() for name in before} == before
    assert len(list(results.glob("*.parquet"))) == len(before) + 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OtherTeacher)
        again = run([CELL], arms=("original", "plain", "control"), store=store, progress=False)
    pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_a_finished_cell_is_read_as_it_is_on_another_processor(
    first: tuple[Path, pd.DataFrame], tmp_path: Path, other_roundings: None
) -> None:
    store = ResultStore(tmp_path / "cache", first[0] / "results")
    table = run([CELL], arms=("original", "plain"), store=store, progress=False)
    pd.testing.assert_frame_equal(table, first[1], check_exact=True)
    assert not (tmp_path / "cache").exists()


def test_names_hold_the_instructions_that_torch_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = Worker(CELL, ResultStore(tmp_path), progress=False).name("plain")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert Worker(CELL, ResultStore(tmp_path), progress=False).name("plain") != name


def test_of_two_teachers_the_one_with_more_is_taken_and_the_other_named(first: tuple[Path, pd.DataFrame]) -> None:
    rows = first[1]
    other = rows[rows["arm"] == "original"].assign(teacher="elsewhere", device="GPU")
    both = pd.concat([other, rows], ignore_index=True)
    found, [line] = one_teacher(both)
    pd.testing.assert_frame_equal(found, rows)
    digest = rows["teacher"].iloc[0]
    assert line.startswith("data digits, network mlp, profile smoke, seed 0: 2 original networks, " + digest)
    assert "elsewhere (GPU, 1 networks); rows of the first are used" in line
    assert one_teacher(rows)[1] == []
    with pytest.raises(ValueError, match=f"seed 0 has the original networks {digest}, elsewhere"):
        check_teachers(both)
    with pytest.raises(ValueError, match="mixed"):
        drops(both)


def test_a_folder_whose_groups_were_renamed_is_read_with_the_new_names(
    tmp_path: Path, one_thread: None, light: None
) -> None:
    """The stored rows take the new names; nothing else changes and nothing is trained."""
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    lines = []
    for number in range(120):
        Image.new("RGB", (8, 8), (2 * number, 255 - number, 7 * number % 255)).save(images / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{int(number % 3 == 0)}")

    def rows(names: tuple[str, str]) -> pd.DataFrame:
        named = [f"{line[:-1]}{names[int(line[-1])]}" for line in lines]
        (images / "labels.csv").write_text("\n".join(["file,label,who", *named]))
        options = {"method": "random", "budgets": (0.5,), "seeds": [0], "profile": "smoke"}
        grown = grid(f"folder:{images}", "mlp", data_options={"group": "who", "size": 8}, **options)
        return run(grown, arms=("original", "plain"), store=ResultStore(tmp_path / "cache"), progress=False)

    old, new = rows(("0", "1")), rows(("female", "male"))
    assert set(old["group_name"]) == {"0", "1"} and set(new["group_name"]) == {"female", "male"}
    pd.testing.assert_frame_equal(old.drop(columns="group_name"), new.drop(columns="group_name"), check_exact=True)
    stored = [pd.read_parquet(path) for path in (tmp_path / "cache" / "results").glob("*.parquet")]
    assert all(set(one["group_name"]) == {"female", "male"} for one in stored)
