"""Claims: one owner at a time, void once its process is gone; what the dead left is swept."""

import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from linfair.engine.store import DamagedFile
from linfair.study import jobs
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
    several = plan(find("fig06"), "smoke")
    assert {job.cell.method for job in several} == {"snl", "deepreduce"}
    assert len({teacher_id(job.cell) for job in several}) == 1 == len(by_teacher(several))
    assert len({cell_id(job.cell) for job in several}) == 2
    assert teacher_id(several[0].cell) != teacher_id(replace(several[0].cell, seeds=(5,)))


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


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() + seconds,) * 2)


@pytest.mark.parametrize("seconds", [-(10**6), 300, 10**6])
def test_a_claim_whose_time_lies_far_from_now_is_void_though_its_hosts_clock_is_ahead(
    seconds: float, tmp_path: Path
) -> None:
    path = tmp_path / "cell.lock"
    path.write_text("process 1 on elsewhere since 2999-01-01 00:00\n")
    age(path, 5)  # clocks of two hosts are never quite the same
    with pytest.raises(
        Claimed, match=f"process 1 on elsewhere since 2999-01-01 00:00; .*delete {re.escape(str(path))}"
    ):
        claim(tmp_path)
    age(path, seconds)
    assert claim(tmp_path).startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("junk", [b"", b"\xff\x00", b"x" * 10**6, b"process 1 on \n", b"process one on elsewhere\n"])
def test_junk_in_a_lock_claims_nothing(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "cell.lock").write_bytes(junk)
    assert claim(tmp_path).startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())


def test_a_process_that_lives_but_is_another_program_claims_nothing(tmp_path: Path) -> None:
    """Oracle: the lock that the system keeps; the number in the file is that of whoever has it now."""
    (tmp_path / "cell.lock").write_text(f"process {os.getppid()} on {socket.gethostname()}\n")
    assert claim(tmp_path).startswith(f"process {os.getpid()} on ")


def linked(path: Path) -> None:
    mine = path.with_name("mine.txt")
    mine.write_text("mine")
    path.symlink_to(mine)


def hard_linked(path: Path) -> None:
    mine = path.with_name("mine.txt")
    mine.write_text("mine")
    path.hardlink_to(mine)


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), linked, hard_linked],
    ids=["folder", "pipe", "link to itself", "link", "hard link"],
)
def test_what_is_no_lock_is_set_aside_and_nothing_is_written_through_it(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "cell.lock")
    with pytest.warns(DamagedFile, match=r"cell.lock is no lock .*set aside as cell.lock.damaged-1"):
        assert claim(tmp_path).startswith(f"process {os.getpid()} on ")
    assert os.path.lexists(tmp_path / "cell.lock.damaged-1")
    assert not (tmp_path / "mine.txt").exists() or (tmp_path / "mine.txt").read_text() == "mine"


def test_a_lock_of_another_user_is_respected_while_it_is_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cell.lock"
    path.write_text("process 1 on elsewhere\n")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(Claimed, match=f"user {os.getuid()}.*delete {re.escape(str(path))}"):
        claim(tmp_path)
    age(path, -300)
    with pytest.warns(DamagedFile, match="set aside"):
        claim(tmp_path)


def test_whoever_holds_a_lock_and_has_stopped_is_named_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BEAT", 0.01)
    path = tmp_path / "cell.lock"
    path.write_text("process 1 on elsewhere\n")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        age(path, -300)
        with pytest.raises(OSError, match=f"{re.escape(str(path))} is held by process 1 on elsewhere.* end it"):
            claim(tmp_path)
        age(path, 0)
        with pytest.raises(Claimed):
            claim(tmp_path)


def test_a_lock_that_somebody_else_took_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "cell.lock"
    with held(tmp_path, "cell"):
        path.unlink()
        path.write_text("theirs")
    assert path.read_text() == "theirs"


def test_what_looks_like_a_half_written_file_and_is_none_is_left_alone(tmp_path: Path) -> None:
    made = [tmp_path / f".{name}.part" for name in ("x.1", "x.²", "x.9999999", "y.99999999999999999999", "z")]
    for path, make in zip(
        made, (Path.mkdir, Path.touch, os.mkfifo, lambda at: at.symlink_to(at), Path.touch), strict=True
    ):
        make(path)
    sweep(tmp_path)
    assert all(map(os.path.lexists, made))
