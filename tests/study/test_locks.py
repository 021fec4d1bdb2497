"""Claims: one owner at a time, void once its process is gone; what the dead left is swept."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from linfair.study.cluster import by_teacher
from linfair.study.jobs import Claimed, cell_id, held, teacher_id
from linfair.study.plan import find, plan
from linfair.study.runner import sweep

OWNER = """
import sys, time
from linfair.study.jobs import held
with held(sys.argv[1], "cell"):
    print("has it", flush=True)
    time.sleep(600)
"""


def claim(folder: Path) -> str:
    """Take the claim and give it up; what it says while it is held."""
    with held(folder, "cell"):
        return (folder / "cell.lock").read_text()


def test_a_claim_has_one_owner_until_it_is_released_or_its_process_is_gone(tmp_path: Path) -> None:
    """Oracle: another process holds it, and is killed so that it can tidy nothing up."""
    with held(tmp_path, "cell"):
        with pytest.raises(Claimed, match=rf"process {os.getpid()} on "):
            claim(tmp_path)
        with held(tmp_path, "other"):
            pass
    assert claim(tmp_path).startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir()), "nothing is left of a claim that was given up"
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"has it\n"
        with pytest.raises(Claimed, match=rf"process {owner.pid} on "):
            claim(tmp_path)
        owner.kill()
    assert re.match(rf"process {owner.pid} on ", (tmp_path / "cell.lock").read_text()), "what the dead left"
    assert claim(tmp_path).startswith(f"process {os.getpid()} on ")
    (tmp_path / "cell.lock").write_text("process 1 o")
    claim(tmp_path)  # cut off while it was written


def test_another_hosts_claim_is_void_once_it_has_not_been_touched(tmp_path: Path) -> None:
    """Its lock cannot be seen from here."""
    path = tmp_path / "cell.lock"
    path.write_text("process 1 on elsewhere\n")
    with pytest.raises(Claimed, match="process 1 on elsewhere"):
        claim(tmp_path)
    os.utime(path, (time.time() - 300,) * 2)
    claim(tmp_path)


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
