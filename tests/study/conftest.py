"""Smoke studies that the tests of this folder read: computed once, then copied."""

import shutil
from collections.abc import Iterator
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


@pytest.fixture
def begun(fig13: tuple[Path, Path, list[Event]], tmp_path: Path) -> Iterator[ResultStore]:
    """A store with Fig. 13's teacher and mask path and no results; rows lack gradient norms and eigenvalues."""
    store = ResultStore(Path(shutil.copytree(fig13[1], tmp_path / "cache")), tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_gradients", "_eigenvalues"):
            patch.setattr(f"linfair.metrics.measure.{name}", lambda *_, **__: {})
        yield store
