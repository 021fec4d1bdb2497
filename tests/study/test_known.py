"""Arms whose rows are elsewhere: left out if, and only if, the original network is the one of those rows."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from linfair.engine.store import ResultStore, Tables
from linfair.study.jobs import Event, compute
from linfair.study.plan import figures, find, plan
from linfair.study.results import collect, gather

[JOB] = plan(find("fig13"), "smoke")  # original, plain, lagrangian, kd_over_c of one MLP cell


def test_arms_that_are_known_elsewhere_are_left_out_where_the_original_network_is_the_same(
    fig13: tuple[Path, Path, list[Event]], tmp_path: Path
) -> None:
    """Oracle: the tables of the whole study; with another digest everything is computed."""
    whole = gather(figures()["fig13"], "smoke", collect([str(fig13[0])]))
    [digest] = whole["teacher"].unique()
    for other, computed in (("", ["lagrangian", "kd_over_c"]), ("0", list(JOB.arms))):
        cache = Path(shutil.copytree(fig13[1], tmp_path / f"cache{other}"))
        store, said = ResultStore(cache, tmp_path / f"part{other}"), []
        compute(replace(JOB, known=(("original", digest + other), ("plain", digest + other))), store, said.append)
        assert [one.arm for one in said if one.kind == "computed"] == computed
        assert [one.kind for one in said if one.arm not in computed] == ["read"] * (len(JOB.arms) - len(computed))
        found = pd.concat([table for _, table in Tables(store.results).results()])
        assert set(found["arm"]) == set(computed)
        columns = ["arm", "budget", "seed", "split", "group", "accuracy", "teacher"]
        both = [one[one["arm"].isin(computed)][columns].sort_values(columns[:5]) for one in (found, whole)]
        pd.testing.assert_frame_equal(*(one.reset_index(drop=True) for one in both))
