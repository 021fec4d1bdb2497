"""Cells of a method whose own training is the whole run: no fine-tuning follows, mitigated arms train it anew."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from linfair.engine.stages import settings_of
from linfair.ensemble import Ensemble
from linfair.linearizers import deepreduce
from linfair.mitigation import BalancedSampling, KDOverC, resolve
from linfair.study import ResultStore, grid
from linfair.study.cell import TIMING, Worker
from linfair.study.grids import Cell

OPTIONS = {"configurations": ("1",), "start": "fresh", "finetuning": False}
ARMS = ("plain", "control", "kd_over_c", "lagrangian", "balanced_sampling")


def cell(**changes: object) -> Cell:
    settings = {"method": "deepreduce", "seeds": [0, 1], "profile": "smoke", "options": OPTIONS} | changes
    [one] = grid("digits", "mlp", **settings)
    return one


@pytest.fixture(scope="module")
def worker(one_thread: None, light: None, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker whose arms are computed once."""
    return Worker(cell(), ResultStore(tmp_path_factory.mktemp("whole")), False, keep=True)


def test_every_arm_is_the_methods_own_training_under_that_arms_objective(worker: Worker) -> None:
    """Oracle: DeepReDuce called with the arm's mitigation."""
    teacher = worker.teacher.model
    for arm in ("plain", "kd_over_c", "balanced_sampling"):
        options = replace(worker.options, mitigation=None if arm == "plain" else arm)
        expected = deepreduce(teacher, worker.stages.data, [0.5], seeds=(0, 1), options=options, progress=False)
        for one, other in zip(worker.students(arm), expected, strict=True):
            ours, theirs = one.model.state_dict(), other.model.state_dict()
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
            assert one.mitigation == (None if arm == "plain" else resolve(arm))


def test_the_control_starts_where_the_students_do(worker: Worker) -> None:
    """Oracle: DeepReDuce with a configuration that culls nothing."""
    options = replace(worker.options, configurations=("",))
    [expected] = deepreduce(
        worker.teacher.model, worker.stages.data, [1.0], seeds=(0, 1), options=options, progress=False
    )
    [one] = worker.students("control")
    assert isinstance(one.model, Ensemble)
    ours, theirs = one.model.state_dict(), expected.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_arm_read_from_its_checkpoint_gives_the_same_rows_and_the_checkpoint_can_go(worker: Worker) -> None:
    first = {arm: worker.rows(arm) for arm in ARMS}
    again = Worker(worker.cell, worker.store, False, keep=True)
    folder = Path(worker.store.folder) / "checkpoints"
    for arm in ARMS:
        drop = [name for name in TIMING if name in first[arm]]
        pd.testing.assert_frame_equal(again.rows(arm).drop(columns=drop), first[arm].drop(columns=drop))
    before = len(list(folder.iterdir()))
    for arm in ("kd_over_c", "lagrangian", "balanced_sampling"):
        again.forget(arm)
    assert len(list(folder.iterdir())) == before - 3
    again.forget("plain")  # its path is the control's too
    assert len(list(folder.iterdir())) == before - 3


def test_multipliers_and_configurations_are_in_the_rows(worker: Worker) -> None:
    rows = worker.rows("lagrangian")
    assert rows["multiplier"].notna().all() and set(rows["configuration"]) == {"1"}
    assert not rows["diverged"].any()
    assert worker.rows("plain")["multiplier"].isna().all()


def test_names_tell_mitigations_without_options_apart() -> None:
    """`BalancedSampling()` and `KDOverC()` have no fields: their settings alone are both empty."""
    found = [
        settings_of(replace(Worker(cell(), None, False).options, mitigation=one()))
        for one in (BalancedSampling, KDOverC)
    ]
    assert found[0] != found[1]


def test_what_is_not_used_is_in_no_name(monkeypatch: pytest.MonkeyPatch, worker: Worker) -> None:
    """A fine-tuning schedule that nothing is tuned by does not change a result's name; the start does."""
    other = Worker(worker.cell, worker.store, False)
    other.recipe = replace(other.recipe, finetune=replace(other.recipe.finetune, epochs=77))
    assert other.name("plain") == worker.name("plain")
    warm = Worker(cell(options=OPTIONS | {"start": "teacher"}), worker.store, False)
    tuned = Worker(cell(options=OPTIONS | {"finetuning": True}), worker.store, False)
    assert len({one.name("plain") for one in (worker, warm, tuned)}) == 3
