"""The page's table of SNL's path against the record of the study's own path."""

from pathlib import Path

import pandas as pd
import pytest
from linfair_book.snl_path import path_rows, path_table

from linfair.linearizers import snl
from linfair.study import ResultStore, grid
from linfair.study.cell import Worker

BUDGETS = (0.5, 0.2)


@pytest.fixture(scope="module")
def followed(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Worker, pd.DataFrame]:
    """Two seeds of the smoke MLP: the study's path, and what its checkpoint has kept of it."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    [cell] = grid("digits", "mlp", budgets=BUDGETS, seeds=(0, 1), profile="smoke", options={"check_every": 1})
    worker = Worker(cell, store, False)
    assert worker.path.records
    return worker, path_rows(cell, store=store, progress=False)


def test_counts_and_masks_are_those_of_the_path(followed: tuple[Worker, pd.DataFrame]) -> None:
    """Oracle: SNL followed once more."""
    worker, rows = followed
    options = {"seeds": (0, 1), "options": worker.options, "progress": False}
    history = snl(worker.teacher.model, worker.stages.data, BUDGETS, **options)[0].history
    for member, seed in enumerate((0, 1)):
        assert rows.loc[rows["seed"] == seed, "kept"].tolist() == [row["kept"][member] for row in history]
    for member, seed in enumerate((0, 1)):
        one = rows[rows["seed"] == seed].set_index("epoch")
        for record in worker.path.records:
            said = one.loc[record.epochs[member], "masks"].split("; ")
            assert f"{100 * record.budget:g} %: {record.kept[member]} at step {record.steps[member]}" in said
        assert one.index.tolist() == list(range(1, len(one) + 1))
        assert one["share"].tolist() == pytest.approx((100 * one["kept"] / 128).tolist())


def test_the_page_shows_the_epochs_of_the_masks_and_some_between(followed: tuple[Worker, pd.DataFrame]) -> None:
    worker, rows = followed
    table = path_table(rows, 1)
    assert list(table.columns) == ["epoch", "ReLUs kept", "%", "masks taken"]
    assert {record.epochs[1] for record in worker.path.records} <= set(table["epoch"])
    assert table["epoch"].iloc[-1] == worker.path.records[-1].epochs[1]
    assert table["epoch"].is_monotonic_increasing
    assert path_table(rows, 1, lines=[2])["epoch"].tolist() == sorted(
        {2, *(one.epochs[1] for one in worker.path.records)}
    )


def test_a_store_is_left_with_what_it_had(followed: tuple[Worker, pd.DataFrame], tmp_path: Path) -> None:
    """Reading a path adds nothing."""
    worker, _ = followed
    before = sorted(worker.store.folder.rglob("*.safetensors"))
    path_rows(worker.cell, store=worker.store, progress=False)
    assert sorted(worker.store.folder.rglob("*.safetensors")) == before
