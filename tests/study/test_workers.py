"""Worker processes: what a CUDA error, too little memory and several GPUs mean for them, and what they leave on disk.

No GPU is needed: errors are raised where a GPU would raise them, and processes are stood in for by a script.
"""

from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from linfair.engine import stages
from linfair.engine.store import ResultStore, Tables
from linfair.study import runner
from linfair.study.jobs import Broken, Event, Report, compute, is_cuda_error
from linfair.study.plan import Job, find, plan

[JOB] = plan(find("fig13"), "smoke")
GPU_JOB = replace(JOB, cell=replace(JOB.cell, device="cuda"))
OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def chained() -> Exception:
    try:
        try:
            raise RuntimeError("CUDA error: device-side assert triggered")
        except RuntimeError as error:
            raise ValueError("a group has no loss") from error
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (torch.AcceleratorError("CUDA error: unspecified launch failure", 719), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), True),
        (chained(), True),
        (OOM, False),
        (RuntimeError("no luck"), False),
        (ValueError("CUDA error in the name of a file"), False),
    ],
)
def test_which_errors_leave_a_process_without_its_gpu(error: Exception, broken: bool) -> None:
    assert is_cuda_error(error) is broken


def failing(error: Exception) -> Callable[..., object]:
    original = stages.finetune

    def finetune(*args: object, **options: object) -> object:
        if getattr(options["mitigation"], "name", "") == "lagrangian":
            raise error
        return original(*args, **options)

    return finetune


def test_a_cuda_error_fails_its_arm_and_hands_the_others_on(
    begun: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Event] = []
    monkeypatch.setattr(stages, "finetune", failing(RuntimeError("CUDA error: device-side assert triggered")))
    with pytest.raises(Broken) as stopped:
        compute(JOB, begun, said.append)
    assert [one.kind for one in said] == ["computed", "computed", "failed"]
    assert stopped.value.arms == ("kd_over_c",)


def test_after_too_little_memory_the_cache_is_emptied_and_the_other_arms_go_on(
    begun: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Event] = []
    emptied: list[int] = []
    monkeypatch.setattr(stages, "finetune", failing(OOM))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    compute(JOB, begun, said.append)
    assert [one.kind for one in said] == ["computed", "computed", "failed", "computed"] and emptied == [1]
    assert "CUDA out of memory" in said[2].text


class Scripted:
    """Stands for a worker process: the first job given to any of them ends in a CUDA error if `breaks` is set."""

    breaks = False
    made: list[int | None] = []
    given: list[tuple[Job, bool]] = []

    def __init__(self, store: ResultStore, threads: int, gpu: int | None) -> None:
        self.made.append(gpu)
        self.connection, self.far = Pipe()
        self.job, self.settled, self.process = None, 0, SimpleNamespace(exitcode=0)

    def give(self, job: Job, deadline: float | None, pace: dict, *, last: bool) -> None:
        """Answer as the script says."""
        self.job, self.settled = job, 0
        self.given.append((job, last))
        if self.breaks and len(self.given) == 1:
            self.far.send(Event("failed", "a CUDA error", 1, "name", "cell"))
            self.far.send(Broken(job.arms[1:]))
            return
        self.far.send(Event("read", "there", len(job.arms)))
        self.far.send(None)

    def end(self) -> None:
        """Hang up."""
        self.connection.close()


def pool(jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> Report:
    settings = {"workers": 1, "gpus": 1, "breaks": False, "keep": False} | options
    process = type("Process", (Scripted,), {"made": [], "given": [], "breaks": settings["breaks"]})
    monkeypatch.setattr(runner, "_Process", process)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: settings["gpus"])
    tmp_path.joinpath("out").mkdir(parents=True)
    report = Report(Tables(tmp_path / "out"), sum(len(job.arms) for job in jobs), lambda line: None, progress=False)
    store = ResultStore(tmp_path / "cache", tmp_path / "out")
    runner._Pool(jobs, store, report, settings["workers"], 1, keep=settings["keep"]).run()
    report.process = process
    return report


def test_a_process_that_met_a_cuda_error_is_replaced_and_another_computes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = pool([GPU_JOB], tmp_path, monkeypatch, breaks=True)
    assert report.process.made == [0, 0]
    assert [job.arms for job, _ in report.process.given] == [GPU_JOB.arms, GPU_JOB.arms[1:]]
    assert report.counts["failed"] == 1 and report.left == 0


def test_processes_take_the_gpus_in_turn_and_none_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [replace(GPU_JOB, cell=replace(GPU_JOB.cell, seeds=(seed,))) for seed in range(5)]
    assert pool(others, tmp_path, monkeypatch, workers=5, gpus=2).process.made == [0, 1, 0, 1, 0]
    assert pool([JOB], tmp_path / "cpu", monkeypatch, gpus=2).process.made == [None]


# Disk


def files(store: ResultStore) -> int:
    return len(list((store.folder / "checkpoints").glob("*")))


def test_a_mask_path_is_removed_when_no_missing_arm_needs_it_and_the_teacher_stays(
    begun: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, job = begun, replace(JOB, arms=("original", "plain", "lagrangian"))
    with monkeypatch.context() as patch:
        patch.setattr(stages, "finetune", failing(RuntimeError("no luck")))
        compute(job, store, lambda event: None, last=True)
        assert files(store) == 2, "an arm is missing"
    compute(job, store, lambda event: None)
    assert files(store) == 2, "another job needs it"
    compute(job, store, lambda event: None, last=True)
    assert files(store) == 1, "everything was read: an earlier run was stopped before it could clear up"
    store.load(next((store.folder / "checkpoints").iterdir()).stem)


def test_the_last_job_of_a_path_is_told_so_unless_all_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cell with another curvature has the same path; another method has its own."""
    same = replace(JOB, cell=replace(JOB.cell, curvature="all"))
    other = replace(JOB, cell=replace(JOB.cell, method="random"))
    found = pool([JOB, other, same], tmp_path, monkeypatch)
    assert [last for _, last in found.process.given] == [False, True, True]
    kept = pool([JOB, other, same], tmp_path / "kept", monkeypatch, keep=True)
    assert [last for _, last in kept.process.given] == [False] * 3
