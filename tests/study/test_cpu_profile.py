"""The profile for processors: its settings, its refusal, its queue, and what is known of results elsewhere."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from linfair import device
from linfair.cli import main
from linfair.study import recipes
from linfair.study.plan import find, plan
from linfair.study.recipes import check_precision, recipe
from linfair.study.results import collect, merge, missing


def test_a_processor_without_bf16_hardware_is_asked_before_anything_is_computed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recipes, "bf16_is_fast", lambda device: False)
    with pytest.raises(ValueError, match="--precision float32"):
        check_precision("cpu", None, "cpu")
    for profile, precision in (("cpu", "float32"), ("cpu", "bf16"), ("paper", None)):
        check_precision(profile, precision, "cpu")
    arguments = ["study", "run", "cpu", "--profile", "cpu", "--data", "svhn", "--out", str(tmp_path / "out")]
    assert main.main(arguments) == 2
    assert "AMX" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "capability", "fast"),
    [
        (True, True, "AVX512", True),
        (True, False, "AVX2", True),
        (False, True, "AVX512", True),
        (False, False, "AVX512", False),
        (True, True, "DEFAULT", False),
    ],
)
def test_bf16_is_fast_where_instructions_for_it_are_and_torch_uses_them(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, capability: str, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert device.bf16_is_fast("cpu") == fast
    assert device.has_amx() == (amx and fast), "channels-last memory is sound with AMX alone"


def test_with_the_hardware_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(recipes, "bf16_is_fast", lambda device: True)
    check_precision("cpu", None, "cpu")


def test_precision_reaches_every_stage_and_the_names_of_results():
    how = recipe("resnet18", "cpu")
    methods = [how.method(name).schedule for name in ("snl", "deepreduce")]
    assert {one.precision for one in (how.base, how.finetune, *methods)} == {"bf16"}
    slow = recipes.in_every_stage(how, precision="float32")
    methods = [slow.method(name).schedule for name in ("snl", "deepreduce")]
    assert {one.precision for one in (slow.base, slow.finetune, *methods)} == {"float32"}


def test_the_queue_runs_its_entries_in_order_each_to_its_own_seeds():
    jobs = plan(find("cpu"), "cpu")
    entries = [(job.cell.data, job.cell.network, job.cell.width, job.cell.method) for job in jobs]
    assert entries[:20] == [("cifar10", "resnet18", 16, "snl")] * 10 + [("utkface_race", "resnet18", 16, "snl")] * 10
    assert [job.cell.seeds for job in jobs[:10]] == [(seed,) for seed in range(10)]
    assert jobs[0].arms == ("original", "plain", "control", "lagrangian(mu=0.01)")
    assert {len(job.cell.budgets) for job in jobs if job.cell.method == "deepreduce"} == {8}, "its whole list"
    wide = [job for job in jobs if job.cell.width == 64]
    assert [job.cell.seeds for job in wide] == [(0,), (1,)]
    assert {job.cell.seeds for job in plan(find("cpu"), "cpu", seeds=1)} == {(0,)}
    assert all(job.figures != ("cpu",) for job in plan(find("all"), "fast")), "the queue is none of the paper's figures"


@pytest.fixture
def smoke(fig01):
    """Fig. 1 in the smoke profile: its jobs and a folder of its results."""
    return plan(find("fig01"), "smoke"), fig01


def test_cells_whose_rows_are_elsewhere_with_one_original_network_are_known(smoke):
    jobs, out = smoke
    found = collect([str(out)])
    assert missing(jobs, found) == [] and missing(jobs, collect([])) == jobs

    def left(rows: pd.DataFrame) -> list[dict[str, str]]:
        """The arms known of each job that is left."""
        some = missing(jobs, replace(found, rows=rows))
        assert [replace(job, known=()) for job in some] == jobs
        return [dict(job.known) for job in some]

    [digest] = found.rows["teacher"].unique()
    arms = [arm for arm in jobs[0].arms if arm != "plain"]
    assert left(found.rows[found.rows["arm"] != "plain"]) == [dict.fromkeys(arms, digest)]
    assert left(found.rows[found.rows["seed"] == 0]) == [{}], "the seeds of an ensemble are trained together"
    apart = found.rows.assign(teacher=found.rows["teacher"].where(found.rows["arm"] == "plain", "other"))
    assert left(apart) == [dict.fromkeys(arms, "other") | {"plain": digest}]
    wider = [replace(job, cell=replace(job.cell, width=7)) for job in jobs]
    assert missing(wider, found) == wider


def test_merged_files_hold_every_row_once_and_stand_for_the_folder(smoke, tmp_path):
    jobs, out = smoke
    found = collect([str(out)])
    [path] = merge(found, tmp_path)
    assert path.name == "smoke_digits_mlp_full.parquet"
    assert merge(found, tmp_path) == []
    once = collect([str(tmp_path)])
    assert len(once.rows) == len(found.rows) and missing(jobs, once) == []
    by = ["arm", "budget", "seed", "split", "group"]
    one, two = (rows.sort_values(by, ignore_index=True)[[*by, "accuracy"]] for rows in (found.rows, once.rows))
    pd.testing.assert_frame_equal(one, two)
    other = replace(found, rows=found.rows.assign(teacher="other"))
    assert merge(other, tmp_path) == [path]
    assert len(collect([str(tmp_path)]).rows) == 2 * len(found.rows)
