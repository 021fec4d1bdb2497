"""Claims of the pruning paper judged on made rows: fair originals as arms, both violations, ranks."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from linfair_book.judging.cells import arm_in, contexts
from linfair_book.judging.judge import Verdict, judge, judge_rows
from linfair_book.judging.rows import read
from linfair_book.judging.rules import Rules
from made_rows import LOSE, NOTHING, made


def pruned(after: dict[str, float], before: dict[str, float] | None = None, **how: object) -> pd.DataFrame:
    """Rows of pruning: the control at 70 %, plain groups as `made`, a repair after it, and a fair original network."""
    shared = {"method": "prune_magnitude", "budgets": (0.5, 0.1), **how}
    rows = made(after, arm="lagrangian(kd=0.0)", **shared).replace({"arm": {"plain": "plain(kd=0.0)"}})
    rows = rows.replace({"arm": {"control": "control(kd=0.0)"}})
    fair = made(before or after, arm="plain(kd=0.0)", **shared)
    fair = fair[fair["arm"].isin(["original", "plain(kd=0.0)"])]
    fair = fair.assign(base="lagrangian(kd=0.0)", teacher=fair["teacher"] + " fair")
    both = pd.concat([rows.assign(base=""), fair], ignore_index=True)
    return both.assign(excess=0.7 - both["accuracy"], risk=1 - both["accuracy"])


def test_a_fair_original_network_is_another_arm_paired_by_seed(rules: Rules, tmp_path: Path) -> None:
    """a-f8: plain groups are equal at 70 %; Fair Aft spreads them by 10 points, Fair Bf by 20, and stay one set."""
    pruned({**LOSE}, {"White": 0.1, "Black": 0.0, "Others": -0.1}, data="digits", network="mlp").to_parquet(
        tmp_path / "0.parquet"
    )
    [context] = contexts(read(tmp_path, {"prune_magnitude"}), rules.judging)
    found = judge_rows(rules.claims["a-f8"], rules, [context])
    cells = found.deciding[0].cells.set_index(["check", "budget"])
    assert (found.agreement, found.setting) == ("no", "stand-in")
    for check, points in {"fairer-after": 10.0, "fairer-before": 20.0}.items():
        assert cells.loc[check, "estimate"].tolist() == pytest.approx([points] * 2, abs=0.5)
        assert set(cells.loc[check, "group"]) == {"all groups"} and set(cells.loc[check, "n"]) == {6}
    assert "fairer-both" not in set(found.deciding[0].cells["check"])
    assert cells.loc["fairer-before", "arm"].iloc[0] == "plain(kd=0.0) from lagrangian(kd=0.0)"


def test_both_violations_are_the_widest_gap_of_groups_against_the_control(rules: Rules, tmp_path: Path) -> None:
    """a-c30 in points of accuracy, a-c04 in R(a): groups lose 0, 5 and 10 points, which makes either 0.1."""
    rows = made(LOSE, method="prune_magnitude", arm="plain(kd=0.0)", noise=0.001).replace(
        {"arm": {"control": "control(kd=0.0)"}}
    )
    rows.assign(excess=0.7 - rows["accuracy"]).to_parquet(tmp_path / "0.parquet")
    found = contexts(read(tmp_path, {"prune_magnitude"}), rules.judging)
    for claim, value in {"a-c30": 10.0, "a-c04": 0.1}.items():
        verdict = judge_rows(rules.claims[claim], rules, found)
        assert verdict.agreement == "yes" and set(verdict.deciding[0].cells["budget"]) == {"2 %"}
        assert verdict.deciding[0].cells["estimate"].tolist() == pytest.approx(
            [value] * len(verdict.deciding[0].cells), rel=0.05
        )


def test_ranks_by_size_and_by_accuracy_of_the_original(rules: Rules, tmp_path: Path) -> None:
    """a-f2: the norm falls with the size in every seed; a-c01: who was less accurate loses more, on the same test."""
    rows = made(LOSE, method="prune_magnitude", arm="plain(kd=0.0)", noise=0.0, seeds=8)
    rows = rows.replace({"arm": {"control": "control(kd=0.0)"}})
    first = {"White": 0.2, "Black": 0.1, "Others": 0.0}
    same = (rows["arm"] == "original") & (rows["split"] == "test")
    rows.loc[same, "accuracy"] += rows.loc[same, "group_name"].map(first)
    rows.assign(gradient_norm=1 / rows["n_train"]).to_parquet(tmp_path / "0.parquet")
    found = contexts(read(tmp_path, {"prune_magnitude"}), rules.judging)
    for claim, side in {"a-f2": "below", "a-c01": "above"}.items():
        verdict = judge_rows(rules.claims[claim], rules, found)
        assert verdict.agreement == "yes"
        assert set(verdict.deciding[0].cells["count"]) == {f"8 of 8 seeds {side} 0"}


def test_an_arm_on_cross_entropy_stands_for_one_with_further_settings() -> None:
    further = ["lagrangian(clip=5.0, kd=0.0, mu=0.005)", "lagrangian(kd=0.0) from lagrangian(kd=0.0)", "lagrangian"]
    rows = pd.DataFrame([(arm, seed) for arm in further for seed in range(2)], columns=["arm", "seed"])
    assert arm_in(rows, "lagrangian(kd=0.0)") == further[0]
    assert arm_in(rows, "lagrangian(kd=0.0) from lagrangian(kd=0.0)") == further[1]
    assert arm_in(rows, "lagrangian(mu=0.01)") == "lagrangian(mu=0.01)"
    assert (
        arm_in(pd.concat([rows, rows.assign(arm="lagrangian(kd=0.0)")]), "lagrangian(kd=0.0)") == "lagrangian(kd=0.0)"
    )


def test_what_cannot_be_measured_is_not_run_whatever_rows_there_are(rules: Rules, tmp_path: Path) -> None:
    pruned(LOSE).to_parquet(tmp_path / "0.parquet")
    for claim in ("a-c16", "a-c18", "a-c22"):
        found = judge(replace(rules, claims={claim: rules.claims[claim]}), tmp_path, NOTHING)
        assert found[claim] == Verdict(claim, "not run", "")
