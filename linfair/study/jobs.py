"""One job in one process, for every engine: compute the missing arms of a cell, stop in time, say what happened."""

import gc
import json
import os
import re
import socket
import stat
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

import pandas as pd
import torch
from tqdm import tqdm

from linfair.engine.store import DamagedFile, DiskFull, ResultStore, Tables, key, set_aside
from linfair.study.cell import STAGES, Cell, OtherTeacher, Worker
from linfair.study.grids import about, asked_for, width_of
from linfair.study.plan import Job

BEAT, STALE = 10.0, 120.0  # seconds between touches of a claim; without one after which another host's is void
CUDA_SIGNS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "CUDNN_STATUS", "CUSOLVER_STATUS", "CUDA driver error")
"""How torch's errors begin that a GPU or its libraries raised."""

Pace = Mapping[tuple[str | int, ...], float]
"""(stage, data, network, width, method, profile) -> the most seconds it has taken; the method of base training is its
mitigation, empty for none."""


class StudyFailed(RuntimeError):
    """Some cells of a study failed, the others are done; the message says which."""


class Claimed(RuntimeError):
    """Somebody else computes this; the message says who."""


class Stuck(OSError):
    """Whoever has claimed this has stopped, and holds it all the same."""


class OutOfTime(RuntimeError):
    """The next stage would not be finished in the time that is left."""


class Broken(RuntimeError):
    """This process met a CUDA error and can compute nothing more on the GPU; `arms` are left of its job."""

    def __init__(self, arms: Sequence[str]) -> None:
        super().__init__("a CUDA error")
        self.arms = tuple(arms)


@dataclass(frozen=True)
class Event:
    """What happened to one arm, or to a whole cell."""

    kind: str  #: `computed`, `read`, `failed`, `stopped` (no time left) or `note`
    text: str
    arms: int = 0  #: How many arms it settles
    name: str = ""  #: Of the arm's table
    cell: str = ""
    arm: str = ""
    details: str = ""  #: Traceback of a failure


def cell_id(cell: Cell) -> str:
    """A cell's name, known before its data are read."""
    return key(cell.known_by)


def teacher_id(cell: Cell) -> str:
    """The name of what cells share that have the same teachers: they are computed one after the other."""
    return key(cell.known_by | dict.fromkeys(("method", "budgets", "options", "curvature")))


def path_needed(job: Job, others: Iterable[Job]) -> bool:
    """Whether one of these jobs has the same mask path."""
    return any(replace(job.cell, curvature=None) == replace(other.cell, curvature=None) for other in others)


def kind(stage: str, cell: Cell) -> tuple[str | int, ...]:
    """What a cell's stage is called in a `Pace`."""
    how = cell.based if stage == "base" else cell.method
    return stage, cell.data_words(), cell.network, width_of(cell), how, cell.profile


def words(cell: Cell) -> str:
    """A cell in words."""
    seeds = f"seed {cell.seeds[0]}" if len(cell.seeds) == 1 else f"seeds {cell.seeds[0]}-{cell.seeds[-1]}"
    fair = f", original under {cell.based}" if cell.based else ""
    return f"{cell.method}, {cell.network} on {cell.data_words()}{fair}, {seeds}"


def is_cuda_error(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, leaves the process unable to use its GPU; too little memory does not."""
    while error is not None:
        signs = isinstance(error, RuntimeError) and any(sign in str(error) for sign in CUDA_SIGNS)
        if not isinstance(error, torch.OutOfMemoryError) and (signs or isinstance(error, torch.AcceleratorError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def compute(
    job: Job,
    store: ResultStore,
    tell: Callable[[Event], None],
    *,
    deadline: float | None = None,
    pace: Pace | None = None,
    done: Collection[str] = (),
    last: bool = False,
) -> None:
    """Compute what is missing of a job; whatever goes wrong is told, not raised, but for `Broken` after a CUDA error.

    No stage is started that will not end before the deadline, as far as its `pace` is known. Tables named in `done`
    exist elsewhere, and so do the job's `known` arms where the original network is the same. After the `last` job that
    needs its mask path, that checkpoint is removed.
    """
    cell, arms, worker, complete, pace = job.cell, list(job.arms), None, True, pace or {}

    def before(stage: str) -> None:
        need = pace.get(kind(stage, cell), 0.0)
        if deadline is not None and time.time() + need > deadline:
            takes = f", which takes {need:.0f} s" if need else ""
            raise OutOfTime(f"{words(cell)}: no time left for stage {stage}{takes}")

    while arms:
        arm, name = arms.pop(0), cell_id(cell)
        try:
            with noted(tell):
                if worker is None:
                    worker = Worker(cell, store, progress=False, keep=cell.network != "mlp")
                    worker.stages.before = worker.base.before = before
                    with suppress(Exception):  # said below, of the arms that need what failed
                        worker.settle([arm, *arms])
                name = worker.name(arm)
                there = name in done or (arm in dict(job.known) and (arm, worker.teacher.digest) in job.known)
                event = _finish(worker, arm, name, there)
            tell(event)
        except OutOfTime as stop:
            tell(Event("stopped", str(stop), 1 + len(arms)))
            return
        except Exception as error:  # every failure of a cell is reported, and none stops the study
            shared = worker is None or arm == "original" or "path" not in vars(worker) or isinstance(error, DiskFull)
            rest, complete = len(arms) if shared else 0, False
            also = f", and {rest} more arm{'s' * (rest > 1)} of this cell" if rest else ""
            text = f"{name}: {arm} of {words(cell)}{also}: {type(error).__name__}: {error}"
            tell(failure(job, text, [arm, *arms[:rest]], name, traceback.format_exc()))
            if isinstance(error, torch.OutOfMemoryError):
                traceback.clear_frames(error.__traceback__)  # they hold the tensors that did not fit
                gc.collect()
                torch.cuda.empty_cache()
            elif is_cuda_error(error):
                raise Broken(arms[rest:]) from None
            if rest:
                return
    if last and complete and worker is not None:
        worker.forget_path()


@contextmanager
def noted(tell: Callable[[Event], None]) -> Iterator[None]:
    """Tell what is said of damaged files and other teachers, however the block ends."""
    with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
        try:
            yield
        finally:
            for one in caught:
                if issubclass(one.category, DamagedFile | OtherTeacher):
                    tell(Event("note", str(one.message)))


def _finish(worker: Worker, arm: str, name: str, exists: bool) -> Event:
    head, settled = f"{name}: {arm} of {words(worker.cell)}", (1, name, cell_id(worker.cell), arm)
    if exists:
        return Event("read", f"{head}: there", *settled)
    said: list[str] = []
    start, table = time.perf_counter(), worker.table(arm, said.append)
    how = said[-1].rpartition(" ")[2]
    worker.forget(arm)
    lost = sorted(table.loc[table["diverged"], "seed"].unique().tolist())
    text = f"{head}: {how} in {time.perf_counter() - start:.1f} s, teacher {table['teacher'].iloc[0]}"
    return Event(how, text + (f"; seeds {lost} diverged" if lost else ""), *settled)


def failure(job: Job, text: str, arms: Sequence[str] | None = None, name: str = "", why: str = "") -> Event:
    """The event of arms, by default all, that failed; its details start with what `study status` knows them by."""
    arms, cell = job.arms if arms is None else arms, cell_id(job.cell)
    known = json.dumps(about(job.cell) | {"arms": arms})
    return Event("failed", text, len(arms), name or cell, cell, details=f"{known}\n\n{why or text}")


def read_pace(tables: Tables) -> dict[tuple[str | int, ...], float]:
    """How long stages took in the results so far, a fine-tuning per budget; unreadable tables are set aside."""
    pace = {}
    for _, table in tables.results():
        learn_pace(pace, table)
    return pace


def learn_pace(pace: dict[tuple[str | int, ...], float], table: pd.DataFrame | None) -> None:
    """Add what one result tells about the seconds of its stages."""
    if table is None or not {f"seconds_{stage}" for stage in STAGES} <= set(table.columns):
        return
    row = table.iloc[0]
    stages = ("base", row.get("base", ""), 1), ("path", row["method"], 1), ("finetune", row["method"], None)
    for stage, method, times in stages:
        at = stage, asked_for(row["data"]), row["network"], int(row.get("width", 0)), method, row["profile"]
        seconds = row[f"seconds_{stage}"] / (times or table["budget"].nunique())
        pace[at] = max(pace.get(at, 0.0), float(seconds))


@dataclass
class Report:
    """What an engine has done of `total` arms: prints every event, counts, keeps failures as `FAILED-NAME.txt`."""

    tables: Tables
    total: int
    say: Callable[[str], None]
    progress: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bar = tqdm(total=self.total, desc="study", unit="arm", disable=not self.progress)

    def tell(self, event: Event) -> None:
        """Take one event."""
        failed = event.kind == "failed"
        self.counts[event.kind] += event.arms
        if failed:
            self.failures.append(event.text)
            with suppress(OSError):  # the disk may be full
                self.tables.put(f"FAILED-{event.name}.txt", event.details.encode())
        for name in (event.name, event.cell) if event.kind in ("computed", "read") else ():
            self.tables.drop(f"FAILED-{name}.txt")
        self.line("failed: " * failed + event.text)
        self.bar.update(0 if event.kind == "stopped" else event.arms)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.clear()
        self.say(text)
        self.bar.refresh()

    @property
    def left(self) -> int:
        """Arms that nothing happened to, or that there was no time for."""
        return self.total - sum(self.counts[kind] for kind in ("computed", "read", "failed"))

    def close(self) -> None:
        """End with the sums; a `StudyFailed` if something failed."""
        self.bar.close()
        done = f"{self.counts['computed']} computed, {self.counts['read']} were there, {self.counts['failed']} failed"
        again = "; run the same command again for these" if self.left else ""
        self.say(f"{self.total} arms: {done}, {self.left} left{again}")
        if self.failures:
            where = f"tracebacks in {self.tables.place}/FAILED-*.txt; run the same command to try these again"
            raise StudyFailed("\n".join([f"{self.counts['failed']} arms failed ({where})", *self.failures]))


@contextmanager
def held(folder: str | Path, name: str) -> Iterator[None]:
    """Claim work while the block runs; `Claimed` and `Stuck` say who has it. What is no lock is set aside."""
    import fcntl  # not on every system; only runners need it

    path, here = Path(folder) / f"{name}.lock", socket.gethostname()
    path.parent.mkdir(parents=True, exist_ok=True)

    def fresh(found: os.stat_result) -> bool:  # touched of late, by the clock that stamps files here
        with tempfile.TemporaryFile(dir=path.parent) as now:
            return abs(os.fstat(now.fileno()).st_mtime - found.st_mtime) < STALE

    with suppress(FileNotFoundError):  # whoever had it gave it up just now
        found, usable = path.lstat(), os.access(path, os.R_OK | os.W_OK)
        alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1  # what a link names would be overwritten
        if alone and not usable and fresh(found):
            raise Claimed(f"a process of user {found.st_uid}; if that no longer runs, delete {path}")
        if not (alone and usable):
            set_aside(path, "is no lock that can be read and written", then="the work is claimed anew")
    with path.open("a+", errors="replace") as file:
        file.seek(0)
        owner = re.fullmatch(r"process \d+ on (\S+)( since .*)?\n", text := file.read(1000))
        who = text.strip() if owner else "another program"
        claimed = Claimed(f"{who}; if that no longer runs, delete {path}")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not fresh(os.fstat(file.fileno())):
                time.sleep(1.2 * BEAT)  # a machine that slept wakes up
                if not fresh(os.fstat(file.fileno())):
                    raise Stuck(f"{path} is held by {who}, which has stopped; end it, then run this again") from None
            raise claimed from None
        # another host may not see the lock: a claim that it has touched of late counts, too
        away = owner and owner[1] != here and fresh(os.fstat(file.fileno()))
        if away or not _same(path, file):  # or it was given up just now
            raise claimed
        file.truncate(0)
        file.write(f"process {os.getpid()} on {here} since {time.strftime('%Y-%m-%d %H:%M')}\n")
        file.flush()
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                with suppress(OSError):
                    os.utime(file.fileno())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if _same(path, file):
                path.unlink(missing_ok=True)


def _same(path: Path, file: TextIO) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    return False
