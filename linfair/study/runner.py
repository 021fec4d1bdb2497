"""The local engine: processes on one machine take the missing cells of a study; killed at any moment, it goes on."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from linfair.engine.store import ResultStore, Tables
from linfair.memory import keep_freed_memory
from linfair.paths import unfit
from linfair.study import jobs as one_job
from linfair.study.jobs import Broken, Claimed, Event, Report, compute, failure, held, words
from linfair.study.plan import Job

LOCKS = ".locks"
RETRY = 2.0  # seconds until a cell that another runner has is asked for again


def run_jobs(
    jobs: Sequence[Job],
    out: str | Path,
    *,
    workers: int = 1,
    minutes: float | None = None,
    threads: int = 1,
    cache: str | Path | None = None,
    keep: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Report:
    """Compute what is missing of a study in worker processes, to which several GPUs are given in turn.

    No stage is started that would not end within the `minutes`; `keep` is for checkpoints that no missing arm needs.
    """
    if workers < 1 or threads < 1 or (minutes is not None and not minutes > 0):
        raise ValueError(f"jobs, threads and minutes must be positive, got {workers}, {threads} and {minutes}")
    tables = Tables(out)
    if tables.folder is None:
        raise ValueError(f"the local engine writes to a folder, got {out}; use --engine ray, or copy the results there")
    store = ResultStore.default(cache, tables.folder)
    for folder in (tables.folder, tables.folder / LOCKS, store.folder / "checkpoints"):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
    report = Report(tables, sum(len(job.arms) for job in jobs), say, progress)
    with report.bar:
        pool = _Pool(jobs, store, report, min(workers, len(jobs)), threads, keep=keep)
        pool.deadline = None if minutes is None else time.time() + 60 * minutes
        pool.run()
        report.close()
    return report


def sweep(folder: Path) -> None:
    """Remove half-written files that killed processes left, an hour old and more."""
    for part in folder.glob(".*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdecimal() and not unfit(part) and time.time() - part.stat().st_mtime > 3600:
            try:
                os.kill(int(pid), 0)
            except (ProcessLookupError, OverflowError):
                part.unlink(missing_ok=True)
            except PermissionError:  # it lives, and is somebody else's
                pass


class _Process:
    job: Job | None = None
    settled = 0

    def __init__(self, store: ResultStore, threads: int, gpu: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, store, threads, gpu), daemon=True)
        self.process.start()
        other.close()

    def give(self, job: Job, deadline: float | None, pace: dict, *, last: bool) -> None:
        self.job, self.settled = job, 0
        self.connection.send((job, deadline, pace, last))

    def end(self) -> None:
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


class _Pool:
    deadline: float | None = None

    def __init__(
        self, jobs: Sequence[Job], store: ResultStore, report: Report, workers: int, threads: int, *, keep: bool
    ) -> None:
        self.waiting = deque((0.0, job) for job in jobs)
        self.gpus = torch.cuda.device_count() if any(job.cell.device == "cuda" for job in jobs) else 0
        self.store, self.report, self.threads, self.keep = store, report, threads, keep
        self.pace = one_job.read_pace(report.tables)
        self.others: set[str] = set()
        self.processes = [self._started(place) for place in range(workers)]

    def _started(self, place: int) -> _Process:
        return _Process(self.store, self.threads, place % self.gpus if self.gpus else None)

    def run(self) -> None:
        try:
            while self.waiting or any(one.job for one in self.processes):
                if self.deadline is not None and time.time() > self.deadline:
                    for one in self.processes:
                        if one.job:
                            text = f"{words(one.job.cell)}: stopped in the middle of a stage; earlier stages are kept"
                            self.report.tell(Event("stopped", text, len(one.job.arms) - one.settled))
                    return
                for one in self.processes:
                    if one.job is None and (job := self._next()):
                        needed = self.keep or one_job.path_needed(job, (other for _, other in self.waiting))
                        try:
                            one.give(job, self.deadline, self.pace, last=not needed)
                        except OSError:  # it died while it had nothing to do
                            self._died(one)
                for connection in wait([one.connection for one in self.processes], timeout=0.2):
                    self._take(next(one for one in self.processes if one.connection is connection))
        finally:
            for one in self.processes:
                one.end()

    def _next(self) -> Job | None:
        """The first job that is due and shares no teacher with one that is being computed."""
        busy = {one_job.teacher_id(one.job.cell) for one in self.processes if one.job}
        for due, job in self.waiting:
            if due <= time.time() and one_job.teacher_id(job.cell) not in busy:
                self.waiting.remove((due, job))
                return job
        return None

    def _take(self, one: _Process) -> None:
        try:
            message = one.connection.recv()
        except (EOFError, OSError):
            self._died(one)
            return
        if isinstance(message, Event):
            one.settled += message.arms
            self.report.tell(message)
            if message.kind == "computed":
                one_job.learn_pace(self.pace, self.report.tables.read(message.name))
            return
        job, one.job = one.job, None
        if isinstance(message, Broken):
            self.report.line(f"{words(job.cell)}: its process ends after the CUDA error and another takes its place")
            if message.arms:
                self.waiting.appendleft((0.0, replace(job, arms=message.arms)))
            self._died(one)
        elif message is not None:  # somebody else's cell
            self.waiting.append((time.time() + RETRY, job))
            if message not in self.others:
                self.others.add(message)
                self.report.line(f"waiting for {words(job.cell)}, claimed by {message}")

    def _died(self, one: _Process) -> None:
        one.end()
        if (job := one.job) is not None:
            arms, code = job.arms[one.settled :], one.process.exitcode
            why = f"its process ended with exit code {code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
            self.report.tell(failure(job, f"{words(job.cell)}, arms {', '.join(arms)}: {why}", arms))
        place = self.processes.index(one)
        self.processes[place] = self._started(place)


def work(connection: Connection, store: ResultStore, threads: int, gpu: int | None = None) -> None:
    """A worker process: events go back, then None for a job that is done, who else has it, or `Broken` if it ends."""

    def end_with_the_runner() -> None:  # even if that was killed
        multiprocessing.parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=end_with_the_runner, daemon=True).start()
    torch.set_num_threads(threads)
    keep_freed_memory()
    if gpu is not None:
        torch.cuda.set_device(gpu)
    while True:
        try:
            job, deadline, pace, last = connection.recv()
        except (EOFError, OSError):
            return
        end: object = None
        try:
            with one_job.noted(connection.send), held(Path(store.results) / LOCKS, one_job.teacher_id(job.cell)):
                compute(job, store, connection.send, deadline=deadline, pace=pace, last=last)
        except Broken as broken:
            end = broken
        except Claimed as owner:
            end = str(owner)
        except OSError as error:  # the claim could not be written
            connection.send(failure(job, f"{words(job.cell)}: {error}"))
        connection.send(end)
        if isinstance(end, Broken):
            return
