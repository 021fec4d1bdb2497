"""Smoke studies that the tests of this folder read: computed once, then copied."""

import shutil
from pathlib import Path

import pytest

from linfair.engine.store import ResultStore
from linfair.study.jobs import Event, compute
from linfair.study.plan import find, plan


@pytest.fixture(scope="session")
def fig13(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Event]]:
    """Results, cache and events of Fig. 13: original, plain, lagrangian and kd_over_c of one MLP cell."""
    folder, said = tmp_path_factory.mktemp("fig13"), []
    [job] = plan(find("fig13"), "smoke")
    compute(job, ResultStore(folder / "cache", folder / "out"), said.append)
    return folder / "out", folder / "cache", said


@pytest.fixture(scope="session")
def fig01(fig13: tuple[Path, Path, list[Event]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of Fig. 1, the same cell: original and plain are there, its control is computed."""
    folder, (results, cache, said) = tmp_path_factory.mktemp("fig01"), fig13
    shutil.copytree(cache, folder / "cache")
    (folder / "out").mkdir()
    for one in said[:2]:
        shutil.copy(results / f"{one.name}.parquet", folder / "out")
    [job] = plan(find("fig01"), "smoke")
    compute(job, ResultStore(folder / "cache", folder / "out"), lambda event: None)
    return folder / "out"
