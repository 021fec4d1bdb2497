"""Claims: one owner at a time, void once its process is gone; what the dead left is swept."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from linfair.study.locks import Claimed, claim, held, started
from linfair.study.plan import find, plan
from linfair.study.runner import sweep
from linfair.study.work import by_teacher, cell_id, teacher_id


def test_a_claim_has_one_owner_until_it_is_released_or_its_process_is_gone(tmp_path: Path) -> None:
    with held(tmp_path, "cell"):
        with pytest.raises(Claimed, match=rf"process {os.getpid()} on "):
            claim(tmp_path, "cell")
        claim(tmp_path, "other").release()
    claim(tmp_path, "cell")
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    path = tmp_path / "cell.lock"
    for start in ("1", None):
        path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {dead.pid}'))
        assert claim(tmp_path, "cell").path == path, start
    path.write_text(path.read_text().replace(f'"started": "{started(os.getpid())}"', '"started": "1"'))
    claim(tmp_path, "cell")  # the number was given to another process
    path.write_text('{"pid": 1')
    claim(tmp_path, "cell")  # cut off while it was written


def test_another_hosts_claim_is_void_once_it_has_not_been_touched(tmp_path: Path) -> None:
    path = tmp_path / "cell.lock"
    path.write_text('{"pid": 1, "host": "elsewhere", "started": "1"}')
    with pytest.raises(Claimed, match="process 1 on elsewhere"):
        claim(tmp_path, "cell")
    os.utime(path, (time.time() - 300,) * 2)
    claim(tmp_path, "cell")


def test_cells_with_the_same_teacher_are_claimed_together() -> None:
    jobs = plan(find("fig06"), "smoke")
    assert {job.cell.method for job in jobs} == {"snl", "deepreduce"}
    assert len({teacher_id(job.cell) for job in jobs}) == 1 == len(by_teacher(jobs))
    assert len({cell_id(job.cell) for job in jobs}) == 2
    assert teacher_id(jobs[0].cell) != teacher_id(replace(jobs[0].cell, seeds=(5,)))


def test_half_written_files_of_dead_processes_are_swept_once_they_are_old(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    old, mine, fresh = (tmp_path / f".x.parquet.{n}.part" for n in (dead.pid, os.getpid(), dead.pid + 10**7))
    for path in (old, mine, fresh):
        path.write_bytes(b"half")
    for path in (old, mine):
        os.utime(path, (time.time() - 7200,) * 2)
    sweep(tmp_path)
    assert {path for path in (old, mine, fresh) if path.exists()} == {mine, fresh}
