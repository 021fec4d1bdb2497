"""Killed with SIGKILL at random moments and started again, a study ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from linfair.engine.store import ResultStore, code_hash
from linfair.study import cell
from linfair.study.jobs import compute
from linfair.study.plan import figures, find, plan
from linfair.study.results import collect, gather
from linfair.study.runner import run_jobs

pytestmark = pytest.mark.slow

FIGURE = "fig01"  # original, plain, control of one MLP cell
KILLS = int(os.environ.get("LINFAIR_TEST_KILLS", "3"))


def rows(folder: Path) -> pd.DataFrame:
    table = gather(figures()[FIGURE], "smoke", collect([str(folder)]))
    return table.drop(columns=list(cell.TIMING))


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.glob("*.parquet"))}


def start(out: Path, cache: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "linfair", "study", "run", FIGURE, "--profile", "smoke", "--out", str(out)]
    environment = os.environ | {"LINFAIR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--no-progress"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def owners(out: Path) -> list[str]:
    found = []
    for path in (out / ".locks").glob("*.lock"):
        with suppress(FileNotFoundError):  # it was given up just now
            found.append(path.read_text())
    return found


def test_killed_at_random_moments_it_ends_with_the_same_table_and_computes_no_finished_arm_again(
    tmp_path: Path,
) -> None:
    """Oracle: the same study computed in this process without interruption."""
    jobs, whole = plan(find(FIGURE), "smoke"), tmp_path / "whole"
    begun = time.monotonic()
    for job in jobs:
        compute(job, ResultStore(whole / "cache", whole / "out"), lambda event: None)
    lasts = time.monotonic() - begun
    draw, moments, ends, arms = random.Random(7), [], [], sum(len(job.arms) for job in jobs)
    while len(moments) < KILLS:
        out, cache, finished = tmp_path / f"out{len(ends)}", tmp_path / f"cache{len(ends)}", {}
        while len(moments) < KILLS and len(finished) < arms:
            before, runner, begun = owners(out), start(out, cache), time.monotonic()
            while owners(out) in ([], before) and runner.poll() is None and time.monotonic() < begun + 120:
                time.sleep(0.05)  # until a worker has claimed the cell
            moments.append(draw.uniform(0, lasts))
            time.sleep(moments[-1])
            runner.send_signal(signal.SIGKILL)
            runner.communicate()
            now = state(out)
            assert finished.items() <= now.items(), f"a finished arm was written again; killed after {moments}"
            finished = now
        lines: list[str] = []
        run_jobs(jobs, out, cache=cache / code_hash(), progress=False, say=lines.append)
        assert lines[-1].endswith("0 failed, 0 left")
        assert finished.items() <= state(out).items(), f"a finished arm was written again; killed after {moments}"
        pd.testing.assert_frame_equal(rows(out), rows(whole / "out"), check_exact=True)
        ends.append(lines[-1])
    print(f"killed {[round(one, 1) for one in moments]} s after the cell was claimed; {len(ends)} studies: {ends}")
