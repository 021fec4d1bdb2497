"""The local engine: what is there is not computed, what goes wrong is reported and stops nothing else."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from quick_processes import work_until_fine_tuning

from linfair.engine import stages
from linfair.engine.store import DamagedFile, ResultStore, Tables
from linfair.study import recipe, runner
from linfair.study.cell import TIMING, OtherTeacher, Worker
from linfair.study.grids import Cell
from linfair.study.jobs import Event, StudyFailed, cell_id, compute, read_pace, teacher_id
from linfair.study.plan import Job, figures, find, plan
from linfair.study.results import collect, gather, status
from linfair.study.runner import run_jobs

SMOKE = plan(find("fig13"), "smoke")  # original, plain, lagrangian, kd_over_c of one MLP cell
[JOB] = SMOKE


def events(job: Job, store: ResultStore, **options: object) -> list[Event]:
    said: list[Event] = []
    compute(job, store, said.append, **options)
    return said


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.parquet")}


def rows(folder: Path) -> pd.DataFrame:
    return gather(figures()["fig13"], "smoke", collect([str(folder)])).drop(columns=list(TIMING))


@pytest.fixture
def finished(fig13: tuple[Path, Path, list[Event]]) -> tuple[Path, Path, list[Event]]:
    """Results, cache and events of the smoke study; tests work on copies."""
    return fig13


@pytest.fixture
def copied(finished: tuple[Path, Path, list[Event]], tmp_path: Path) -> tuple[Path, Path]:
    return Path(shutil.copytree(finished[0], tmp_path / "out")), Path(shutil.copytree(finished[1], tmp_path / "cache"))


def run(out: Path, cache: Path, jobs: list[Job] = SMOKE, **options: object) -> list[str]:
    lines: list[str] = []
    run_jobs(jobs, out, cache=cache, progress=False, say=options.pop("say", lines.append), **options)
    return lines


# Results


def test_every_arm_is_a_file_named_by_its_key_and_computed_once(finished: tuple[Path, Path, list[Event]]) -> None:
    out, _, said = finished
    assert [one.kind for one in said] == ["computed"] * 4
    assert {one.name for one in said} == {path.stem for path in out.glob("*.parquet")}
    table = rows(out)
    assert set(table["arm"]) == {"original", "plain", "lagrangian", "kd_over_c"}
    assert set(table["teacher"]) == {said[0].text.rpartition("teacher ")[2]}
    assert not table["diverged"].any()


def test_rows_carry_the_seconds_of_each_stage_and_the_peak_memory(finished: tuple[Path, Path, list[Event]]) -> None:
    table = collect([str(finished[0])]).rows
    original, others = table[table["arm"] == "original"], table[table["arm"] != "original"]
    assert (table["seconds_base"] > 0).all() and table["seconds_base"].nunique() == 1
    assert (original["seconds_path"] == 0).all() and (original["seconds_finetune"] == 0).all()
    assert (others["seconds_path"] > 0).all() and (others["seconds_finetune"] > 0).all()
    assert (table["seconds_measure"] > 0).all() and (table["peak_memory"] > 10).all()


def test_multipliers_are_those_of_algorithm_1_and_no_other_arm_has_any(
    finished: tuple[Path, Path, list[Event]],
) -> None:
    """They start at 0 and grow by what is violated, so after a few epochs they are positive."""
    table = rows(finished[0])
    with_some = table[table["multiplier"].notna()]
    assert set(with_some["arm"]) == {"lagrangian"}
    assert (with_some["multiplier"] >= 0).all() and (with_some["multiplier"] > 0).mean() > 0.9
    train = with_some[with_some["split"] == "train"]
    histories = train["multipliers"].map(json.loads)
    assert histories.map(len).eq(recipe("mlp", "smoke").finetune.epochs).all()
    assert histories.map(lambda one: one == sorted(one)).all(), "they never fall"
    assert (histories.str[-1] == train["multiplier"]).all()
    assert (table.drop(index=train.index)["multipliers"] == "").all()


def test_a_finished_study_is_read_not_computed_and_its_files_stay_as_they_are(copied: tuple[Path, Path]) -> None:
    out, cache = copied
    shutil.rmtree(cache)
    before = files(out)
    assert [one.kind for one in events(JOB, ResultStore(cache, out))] == ["read"] * 4
    assert files(out) == before and not cache.exists()


def test_merging_two_folders_is_a_copy(finished: tuple[Path, Path, list[Event]], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    for number, path in enumerate(sorted(finished[0].glob("*.parquet"))):
        shutil.copy(path, (one, two)[number % 2])
    [state] = {status(figures()["fig13"], "smoke", collect([str(one), str(two)]))}
    assert (state.done, state.missing, state.failed, state.seeds) == (8, 0, 0, (0, 1))
    shutil.copytree(two, one, dirs_exist_ok=True)
    pd.testing.assert_frame_equal(rows(one), rows(finished[0]), check_exact=True)


# Damage


@pytest.mark.usefixtures("forked")
def test_a_truncated_result_is_named_set_aside_and_computed_again(
    finished: tuple[Path, Path, list[Event]], copied: tuple[Path, Path]
) -> None:
    out, cache = copied
    victim = next(one for one in finished[2] if one.arm == "kd_over_c").name
    path = out / f"{victim}.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    before = files(out)
    with pytest.warns(
        DamagedFile, match=f"{re.escape(str(path))} cannot be read .*set aside as {victim}.parquet.damaged-1"
    ):
        lines = run(out, cache)
    assert lines[-1] == "4 arms: 1 computed, 3 were there, 0 failed, 0 left"
    assert (out / f"{victim}.parquet.damaged-1").exists()
    after = files(out)
    assert {name for name in after if after[name] != before[name]} == {f"{victim}.parquet"}
    pd.testing.assert_frame_equal(rows(out), rows(finished[0]), check_exact=True)


def other_seed(job: Job = JOB) -> Job:
    return replace(job, cell=replace(job.cell, seeds=(7,)), arms=("original",))


@pytest.mark.usefixtures("bare")
def test_a_full_disk_names_the_file_and_what_to_free_and_the_other_cells_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that fails as the system does; the tables of the other cell have room."""
    store, write = ResultStore(tmp_path / "cache", tmp_path / "out"), Path.write_bytes
    victim = Worker(JOB.cell, store, progress=False).name("original")

    def full(path: Path, content: bytes) -> None:
        if victim in str(path):
            write(path, b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    [failed] = events(replace(JOB, arms=("original",)), store)
    assert failed.kind == "failed" and failed.arms == 1
    for word in (f"{victim}.parquet", "no space left", "MiB free there", "LINFAIR_CACHE", str(store.folder.parent)):
        assert word in failed.text
    assert not list((tmp_path / "out").iterdir()), "no half-written file stays"
    assert [one.kind for one in events(other_seed(), store)] == ["computed"]
    monkeypatch.undo()
    assert [one.kind for one in events(replace(JOB, arms=("original",)), store)] == ["computed"]


@pytest.mark.usefixtures("bare")
def test_a_really_full_disk_does_the_same(tmp_path: Path) -> None:
    """A tmpfs of 300 kB for results and checkpoints."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(mount)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        (mount / "filler").write_bytes(b"x" * 290_000)
        [failed] = events(replace(JOB, arms=("original",)), ResultStore(mount / "cache", tmp_path / "out"))
        assert "DiskFull: no space left for" in failed.text and "checkpoints" in failed.text
        (mount / "filler").unlink()
        said = events(other_seed(), ResultStore(tmp_path / "cache", mount))
        assert [one.kind for one in said] == ["computed"]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.usefixtures("forked")
def test_a_failing_cell_is_reported_with_its_traceback_and_the_others_go_on(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """UTKFace is nowhere to be found; the digits are."""
    out, cache = copied
    monkeypatch.setenv("LINFAIR_DATA", str(out / "nowhere"))
    monkeypatch.setenv("LINFAIR_CACHE", str(cache))
    lost = replace(JOB, cell=replace(JOB.cell, data="utkface_race", network="resnet18", seeds=(0,), profile="paper"))
    lines: list[str] = []
    with pytest.raises(StudyFailed, match=r"(?s)4 arms failed \(tracebacks in .*utkface"):
        run(out, cache, [lost, *SMOKE], say=lines.append)
    assert lines[-1] == "8 arms: 0 computed, 4 were there, 4 failed, 0 left"
    [note] = out.glob("FAILED-*.txt")
    assert note.name == f"FAILED-{cell_id(lost.cell)}.txt" and "Traceback" in note.read_text()
    found = collect([str(out)])
    assert len(found.failed) == 4 and {name[0] for name in found.failed} == {"utkface_race"}
    faces = tuple(replace(panel, data="utkface_race") for panel in figures()["fig13"].panels)
    state = status(replace(figures()["fig13"], panels=faces), "paper", found, seeds=1)
    assert (state.done, state.missing, state.failed) == (0, 0, 4)


def test_one_arm_that_fails_leaves_the_others(begun: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    original = stages.finetune

    def finetune(*args: object, **options: object) -> object:
        if getattr(options["mitigation"], "name", "") == "lagrangian":
            raise RuntimeError("no luck")
        return original(*args, **options)

    monkeypatch.setattr(stages, "finetune", finetune)
    assert [one.kind for one in events(JOB, begun)] == ["computed", "computed", "failed", "computed"]
    monkeypatch.undo()
    assert [one.kind for one in events(JOB, begun)] == ["read", "read", "computed", "read"]


def test_a_mask_path_that_fails_is_tried_once_and_fails_the_arms_that_need_it(
    begun: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def path(self: stages.Stages, *_: object) -> None:
        tried.append(1)
        raise RuntimeError("no luck")

    monkeypatch.setattr(stages.Stages, "path", path)
    first, second = events(JOB, begun)
    assert (first.kind, second.kind, second.arms, len(tried)) == ("computed", "failed", 3, 1)
    assert "plain of snl" in second.text and "and 2 more arms of this cell: RuntimeError: no luck" in second.text


@pytest.mark.slow
def test_a_killed_worker_process_is_reported_and_another_takes_the_next_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does when memory runs out: SIGKILL when a cell begins to fine-tune, which the next one does not."""
    lines: list[str] = []
    monkeypatch.setattr(runner, "work", work_until_fine_tuning)
    with pytest.raises(StudyFailed, match="3 arms failed"):
        run(tmp_path / "out", tmp_path / "cache", [JOB, other_seed()], say=lines.append)
    assert any(
        "arms plain, lagrangian, kd_over_c: its process ended with exit code -9 (out of memory?)" in x for x in lines
    )
    assert lines[-1] == "5 arms: 2 computed, 0 were there, 3 failed, 0 left"


# Time


@pytest.mark.usefixtures("bare")
def test_no_stage_starts_that_would_not_end_in_time(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "cache", tmp_path / "out")
    [stop] = events(JOB, store, deadline=time.time() - 1)
    assert (stop.kind, stop.arms) == ("stopped", 4) and "no time left for stage base" in stop.text
    pace = {("path", "digits", "mlp", 0, "snl", "smoke"): 3600.0}
    done, stop = events(JOB, store, deadline=time.time() + 600, pace=pace)
    assert (done.kind, stop.kind, stop.arms) == ("computed", "stopped", 3)
    assert "stage path, which takes 3600 s" in stop.text
    assert [one.kind for one in events(JOB, store, deadline=time.time() + 600)] == ["read"] + ["computed"] * 3


@pytest.mark.usefixtures("bare")
def test_an_arm_of_a_larger_network_goes_on_with_its_next_budget_and_leaves_no_students_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the same arm without interruption, multipliers included; fine-tunings are counted."""
    cell = Cell("digits", "resnet18", "random", (0.5, 0.2), (0,), "smoke", width=2)
    job, tuned, original = Job(cell, ("lagrangian",)), [], stages.finetune

    def finetune(one: object, *args: object, **options: object) -> object:
        tuned.append(one.budget)
        if len(tuned) == 2:
            raise KeyboardInterrupt
        return original(one, *args, **options)

    monkeypatch.setattr(stages, "finetune", finetune)
    store = ResultStore(tmp_path / "cache", tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        events(job, store)
    [said] = events(job, store)
    assert said.kind == "computed" and tuned == [0.5, 0.2, 0.2]
    assert not [path for path in (tmp_path / "cache").rglob("*.safetensors") if said.name in path.name]
    [alone] = events(job, ResultStore(tmp_path / "cache2", tmp_path / "out2"))
    one, other = (Tables(tmp_path / place).read(said.name).drop(columns=list(TIMING)) for place in ("out", "out2"))
    assert one["multiplier"].notna().all()
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert alone.name == said.name


def test_the_pace_is_what_the_results_say(finished: tuple[Path, Path, list[Event]]) -> None:
    table = collect([str(finished[0])]).rows
    pace = read_pace(Tables(finished[0]))
    kind = ("digits", "mlp", 0, "snl", "smoke")
    assert pace["base", "digits", "mlp", 0, "", "smoke"] == table["seconds_base"].iloc[0]
    assert pace["finetune", *kind] == pytest.approx(table["seconds_finetune"].max() / 2)


@pytest.mark.usefixtures("forked")
def test_a_runner_out_of_time_says_so_and_fails_nothing(tmp_path: Path) -> None:
    lines = run(tmp_path / "out", tmp_path / "cache", minutes=1e-4)
    assert lines[-1] == "4 arms: 0 computed, 0 were there, 0 failed, 4 left; run the same command again for these"


# Two runners


@pytest.mark.slow
def test_two_runners_on_one_folder_compute_every_arm_once(
    finished: tuple[Path, Path, list[Event]], tmp_path: Path
) -> None:
    """Two real processes, started together: one computes, the other waits and reads.

    Computed in another process the rows are those of this one, to the last bit, but for timing and memory.
    """
    command = [
        sys.executable,
        "-m",
        "linfair",
        "study",
        "run",
        "fig13",
        "--out",
        str(tmp_path / "out"),
        "--no-progress",
    ]
    environment = os.environ | {"LINFAIR_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=1800)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    computed = [text.count(": computed in ") for text in said]
    assert sum(computed) == 4 and sorted(computed) == [0, 4], said
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), rows(finished[0]), check_exact=True)


# Requests that are wrong


def test_the_local_engine_writes_to_folders_only_and_needs_positive_numbers() -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: run_jobs(SMOKE, "memory://x"), "use --engine ray"),
        (lambda: run_jobs(SMOKE, "x", workers=0), "must be positive, got 0, 1 and None"),
        (lambda: run_jobs(SMOKE, "x", minutes=0), "must be positive, got 1, 1 and 0"),
        (lambda: run_jobs(SMOKE, "x", minutes=float("nan")), "must be positive, got 1, 1 and nan"),
    ]
    for call, words in calls:
        with pytest.raises(ValueError, match=words):
            call()


# Divergence


@pytest.mark.usefixtures("bare")
def test_a_seed_that_a_mitigation_drives_apart_is_a_row_without_numbers_and_the_others_are_there(
    tmp_path: Path,
) -> None:
    """A limit on the multipliers that they pass in the first epoch; for an ensemble and a network on its own."""
    store = ResultStore(tmp_path / "cache", tmp_path / "out")
    arms = ("original", "plain", "lagrangian(limit=1e-12)")
    for seeds in ((0, 1), (0,)):
        said = events(replace(JOB, cell=replace(JOB.cell, seeds=seeds), arms=arms), store)
        assert [one.kind for one in said] == ["computed"] * 3
        assert f"seeds {list(seeds)} diverged" in said[-1].text
        table = store.read(said[-1].name)
        assert table["diverged"].all() and table["accuracy"].isna().all() and table["risk"].isna().all()
        assert table["kept"].notna().all()


def test_results_of_another_teacher_are_not_mixed_in(finished: tuple[Path, Path, list[Event]]) -> None:
    """Two arms computed elsewhere: the teacher with more arms is taken."""
    found = collect([str(finished[0])])
    other = found.rows[found.rows["arm"].isin(("original", "plain"))].assign(teacher="elsewhere")
    mixed = replace(found, rows=pd.concat([other, found.rows], ignore_index=True))
    with pytest.warns(OtherTeacher, match="2 original networks, .* 7 networks.*; elsewhere .* 3 networks"):
        table = gather(figures()["fig13"], "smoke", mixed).drop(columns=list(TIMING))
    pd.testing.assert_frame_equal(table, rows(finished[0]), check_exact=True)


def test_a_cells_name_is_known_without_its_data() -> None:
    cell = Cell("utkface_race", "resnet18", "snl", (0.5,), (0,), "paper", "cuda")
    assert len(cell_id(cell)) == len(teacher_id(cell)) == 16
