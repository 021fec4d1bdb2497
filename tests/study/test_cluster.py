"""The Ray engine against a real cluster: two nodes on 127.0.0.1, one of which is lost while it computes."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from linfair.engine.store import ResultStore, Tables
from linfair.study import cell
from linfair.study.cluster import run_on_ray
from linfair.study.jobs import StudyFailed, compute
from linfair.study.plan import Job, find, plan
from linfair.study.results import collect

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'linfair[cluster]'")

[PANEL] = plan(find("fig01"), "smoke")
JOBS = [replace(PANEL, cell=replace(PANEL.cell, seeds=(seed,)), arms=("original", "plain")) for seed in range(3)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A head without processors, so that no task runs there, and two nodes with one each."""
    from ray._private import services
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(services, "get_node_ip_address", lambda address=None: "127.0.0.1")  # not this machine's own
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small = {"object_store_memory": 80_000_000}
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1"} | small)
    try:
        one.first, one.second = (one.add_node(num_cpus=1, node_ip_address="127.0.0.1", **small) for _ in range(2))
        ray.init(address=one.address, _node_ip_address="127.0.0.1", log_to_driver=False)
        yield one
    finally:
        ray.shutdown()
        one.shutdown()


def rows(place: str) -> pd.DataFrame:
    table = collect([place]).rows.drop(columns=list(cell.TIMING))
    return table.sort_values(["seed", "arm", "budget", "split", "group"], ignore_index=True)


def test_a_study_survives_the_loss_of_a_node_and_ends_with_the_same_table(cluster: object, tmp_path: Path) -> None:
    """Oracle: the same cells computed in this process. Then results at a memory address, and a cell that fails."""
    whole = tmp_path / "whole"
    for job in JOBS:
        compute(job, ResultStore(tmp_path / "cache", whole), lambda event: None)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if len(cluster.worker_nodes) == 2 and "computed in" in line:
            cluster.remove_node(cluster.second, allow_graceful=False)

    out = f"file://{tmp_path}/out"
    run_on_ray(JOBS, out, cache=tmp_path / "nodes", progress=False, say=say)
    assert len(cluster.worker_nodes) == 1, "a node was lost on the way"
    found = re.fullmatch(r"6 arms: (\d) computed, (\d) were there, 0 failed, 0 left", lines[-1])
    assert found and sum(map(int, found.groups())) == 6, lines[-1]
    assert int(found[2]) <= 2, "only what the lost node's task had left in the cache was there"
    pd.testing.assert_frame_equal(rows(out), rows(str(whole)), check_exact=True)
    assert not list((tmp_path / "out" / ".locks").glob("*.lock"))

    address, lost = f"memory://{os.getpid()}", replace(JOBS[0].cell, data="svhn", network="resnet18", profile="paper")
    with pytest.raises(StudyFailed, match="(?s)1 arms failed .*original of snl, resnet18 on svhn"):
        run_on_ray(
            [Job(lost, ("original",)), JOBS[0]],
            address,
            cache=tmp_path / "nodes",
            progress=False,
            say=lines.append,
        )
    assert lines[-1] == "3 arms: 0 computed, 2 were there, 1 failed, 0 left", "the node's cache has the others"
    assert len(Tables(address).names()) == 2 and len(collect([address]).failed) == 1
    only = rows(str(whole))
    only = only[only["seed"] == JOBS[0].cell.seeds[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows(address), only, check_exact=True)
