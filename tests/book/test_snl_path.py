"""The page's table of SNL's path against the record of the study's own path."""

import pytest
from linfair_book.snl_path import path_table

from linfair.linearizers import snl
from linfair.study import ResultStore, grid
from linfair.study.cell import Worker

BUDGETS = (0.5, 0.2)


@pytest.fixture(scope="module")
def worker(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """Two seeds of the smoke MLP, with the study's path in the store."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    [cell] = grid("digits", "mlp", budgets=BUDGETS, seeds=(0, 1), profile="smoke", options={"check_every": 1})
    worker = Worker(cell, store, False)
    assert worker.path.records
    return worker


def test_counts_and_masks_are_those_of_the_path(worker: Worker) -> None:
    """Oracle: SNL followed once more."""
    options = {"seeds": (0, 1), "options": worker.options, "progress": False}
    history = snl(worker.teacher.model, worker.stages.data, BUDGETS, **options)[0].history
    for member, seed in enumerate((0, 1)):
        table = path_table(worker.cell, seed, store=worker.store, progress=False)
        assert list(table.columns) == ["epoch", "ReLUs kept", "%", "masks taken"]
        one = table.set_index("epoch")
        assert one["ReLUs kept"].to_dict() == {epoch: history[epoch - 1]["kept"][member] for epoch in one.index}
        assert one["%"].tolist() == pytest.approx((100 * one["ReLUs kept"] / 128).tolist())
        for record in worker.path.records:
            said = one.loc[record.epochs[member], "masks taken"].split("; ")
            assert f"{100 * record.budget:g} %: {record.kept[member]} at step {record.steps[member]}" in said
        assert one.index[0] == 1 and one.index[-1] == worker.path.records[-1].epochs[member]
        assert one.index.is_monotonic_increasing


def test_a_store_is_left_with_what_it_had(worker: Worker) -> None:
    """Reading a path adds nothing."""
    before = sorted(worker.store.folder.rglob("*.safetensors"))
    path_table(worker.cell, 0, store=worker.store, progress=False)
    assert sorted(worker.store.folder.rglob("*.safetensors")) == before
