"""The Ray engine: the same cells on a cluster. Ray gives them to nodes, and again to others when a node is lost.

A task computes the jobs that share a teacher, checkpoints in its node's cache folder, and sends its tables back; the
driver writes them to any fsspec address. So nodes need linfair and the data, and nothing else.
"""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import torch

from linfair.engine.store import ResultStore, Tables
from linfair.memory import keep_freed_memory
from linfair.study import jobs as one_job
from linfair.study.jobs import Broken, Claimed, Event, Report, cell_id, compute, failure, held, words
from linfair.study.plan import DefinitionError, Job
from linfair.study.runner import LOCKS, RETRY

ANSWER = 5.0  #: Seconds in which a cluster must answer
RETRIES = 3  #: How often the jobs of a lost node or process are started again


def run_on_ray(
    jobs: Sequence[Job],
    out: str | Path,
    *,
    address: str | None = None,
    gpus: float = 0.0,
    threads: int = 1,
    minutes: float | None = None,
    cache: str | Path | None = None,
    keep: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> Report:
    """Compute what is missing of a study on a Ray cluster, as `linfair.study.runner.run_jobs` does on one machine."""
    try:
        import ray
    except ImportError:
        raise DefinitionError("--engine ray needs Ray: pip install 'linfair[cluster]'") from None
    if not 0 <= gpus < torch.inf or (minutes is not None and not minutes > 0):
        raise ValueError(f"GPUs of a cell are 0 or more, and minutes positive, got {gpus} and {minutes}")
    tables = Tables(out)
    if not ray.is_initialized():
        _reach(address or os.environ.get("RAY_ADDRESS"))
        try:
            ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise DefinitionError(f"Ray cannot be used ({str(error).splitlines()[0]}); {_ADDRESSES}") from None
    report = Report(tables, sum(len(job.arms) for job in jobs), say, progress)
    if gpus > (there := ray.cluster_resources().get("GPU", 0)):
        report.line(f"the cluster has {there:g} GPUs and a cell needs {gpus:g}: cells wait until there are more")
    deadline = None if minutes is None else time.time() + 60 * minutes
    how = {"deadline": deadline, "pace": one_job.read_pace(tables)}  # also sets aside what cannot be read
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)(compute_all)
    waiting = [(0.0, group) for group in by_teacher(jobs)]
    running, others = {}, set()
    try:
        while waiting or running:
            for due, group in [one for one in waiting if one[0] <= time.time()]:
                waiting.remove((due, group))
                mine = ExitStack()
                try:
                    if tables.folder is not None:
                        mine.enter_context(held(tables.folder / LOCKS, one_job.teacher_id(group[0].cell)))
                except Claimed as owner:
                    if str(owner) not in others:
                        report.line(f"waiting for {words(group[0].cell)}, claimed by {owner}")
                    others.add(str(owner))
                    waiting.append((time.time() + RETRY, group))
                    continue
                except OSError as error:  # it cannot be claimed
                    for job in group:
                        report.tell(failure(job, f"{words(job.cell)}: {error}"))
                    continue
                running[task.remote(group, cache, threads, how, frozenset(tables.names()), keep)] = group, mine
            ready, _ = ray.wait(list(running), timeout=0.5) if running else (time.sleep(0.5), [])
            for reference in ready or ():
                group, mine = running.pop(reference)
                with mine:
                    _take(ray, reference, group, tables, report)
            if deadline is not None and time.time() > deadline + RETRY:
                for reference, (group, _) in running.items():
                    ray.cancel(reference, force=True)
                    for job in group:
                        report.tell(Event("stopped", f"{words(job.cell)}: no time left", len(job.arms)))
                break
    finally:
        for _, mine in running.values():
            mine.close()
    report.close()
    return report


_ADDRESSES = "give --address HOST:PORT, ray://HOST:PORT or auto, or leave it out to start Ray here"


def _reach(address: str | None) -> None:
    """Refuse an address where no Ray cluster answers: Ray would try for minutes and then end this process."""
    if address in (None, "", "auto", "local"):
        return
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if not (place.hostname and place.port and place.scheme in ("", "ray")):
            raise ValueError("not an address")
        with socket.create_connection((place.hostname, place.port), timeout=ANSWER) as one:
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")  # how gRPC begins
            if not os.environ.get("RAY_USE_TLS") and one.recv(9)[3:4] != b"\x04":
                raise OSError("something else answers there")
    except (OSError, ValueError) as error:
        raise DefinitionError(f"no Ray cluster is at {address!r} ({error}); {_ADDRESSES}") from None


def by_teacher(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs that share teachers together, in the order of the first of each."""
    names = [one_job.teacher_id(job.cell) for job in jobs]
    return [[job for job, one in zip(jobs, names, strict=True) if one == name] for name in dict.fromkeys(names)]


def compute_all(
    jobs: Sequence[Job], cache: str | Path | None, threads: int, how: dict, done: frozenset[str], keep: bool
) -> tuple[list[Event], dict[str, pd.DataFrame]]:
    """The Ray task: compute jobs on this node; the events and the new tables."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    store, events = ResultStore.default(cache), []
    for number, job in enumerate(jobs):
        needed = keep or one_job.path_needed(job, jobs[number + 1 :])
        try:
            compute(job, store, events.append, **how, done=done, last=not needed)
        except Broken as broken:  # the rest needs another process: the same command gives it one
            left = len(broken.arms) + sum(len(other.arms) for other in jobs[number + 1 :])
            events.append(Event("stopped", f"{words(job.cell)}: its process met a CUDA error", left))
            break
    fresh = {one.name for one in events if one.kind in ("computed", "read")} - done
    return events, {name: store.read(name) for name in sorted(fresh)}


def _take(ray: object, reference: object, group: Sequence[Job], tables: Tables, report: Report) -> None:
    try:
        events, new = ray.get(reference)
    except ray.exceptions.RayError as error:
        for job in group:
            text = f"{words(job.cell)}: {type(error).__name__} after {RETRIES} retries: {str(error).splitlines()[0]}"
            report.tell(failure(job, text, why=str(error)))
        return
    for event in events:
        try:
            if event.name in new and event.kind in ("computed", "read"):
                tables.write(event.name, new.pop(event.name))
        except OSError as error:  # the node has the result in its cache; the others go on
            [job] = [one for one in group if cell_id(one.cell) == event.cell]
            event = failure(job, f"{event.name} could not be written: {error}", [event.arm], event.name)
        report.tell(event)
