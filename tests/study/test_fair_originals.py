"""Mitigation before, after and both: fair original networks, their cells' names, rows and figures; both violations."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from linfair_book.averages import disagreement, paired, violations
from linfair_book.fair_pruning import before_and_after

from linfair.data import load_data
from linfair.engine.stages import Stages
from linfair.engine.store import key
from linfair.mitigation import EqualGradients, GroupDRO, Lagrangian, Plain
from linfair.models import build
from linfair.schedule import SMALL
from linfair.study import ResultStore, grid, run
from linfair.study.arms import base_of, canonical, mitigation_of
from linfair.study.cell import Worker
from linfair.study.grids import about
from linfair.study.jobs import cell_id, kind, learn_pace, teacher_id, words
from linfair.study.plan import plan, read_figure
from linfair.study.results import KNOWN_BY, collect, gather, merge, missing
from linfair.study.tables import check_teachers, drops
from linfair.training import cross_entropy, fit, predict, supervised

FAIR = "lagrangian(mu=0.5, kd=0)"
BASE = "lagrangian(kd=0.0, mu=0.5)"
ARMS = ("original", "plain(kd=0)", "control(kd=0)", FAIR)
HOW = {"method": "prune_magnitude", "budgets": [0.5], "profile": "smoke", "width": 8}
SHORT = replace(SMALL, epochs=3)


def cells(seeds: tuple[int, ...] = (0, 1), **changes: object) -> list:
    return grid("digits", "mlp", seeds=seeds, **HOW, **changes)


@pytest.fixture(scope="module")
def rows(one_thread: None, light: None, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Both cells of two seeds under all four arms."""
    store = ResultStore(tmp_path_factory.mktemp("fair"))
    return run([*cells(), *cells(base_mitigation=FAIR)], arms=ARMS, store=store, progress=False)


# Plain cross entropy


def test_arms_on_cross_entropy_are_written_with_kd_and_those_at_its_default_without() -> None:
    assert canonical("plain(kd=0)") == "plain(kd=0.0)" and canonical("control( kd = 0.0 )") == "control(kd=0.0)"
    assert canonical("plain(kd=1)") == "plain" and canonical("lagrangian(kd=1, mu=0.5)") == "lagrangian(mu=0.5)"
    assert mitigation_of("control(kd=0)") == Plain(kd=0.0)


@pytest.mark.parametrize("options", [Plain(kd=0.0), Lagrangian(mu=0.0, kd=0.0)])
def test_without_kd_the_loss_is_cross_entropy_and_the_teacher_is_not_asked(options: object) -> None:
    """Oracle: `fit` on `supervised`, bit for bit; a teacher that fails when it is called."""
    data = load_data("digits", seed=0)

    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the teacher was asked")

    models = [build("mlp", data.input_shape, 10, width=8, seed=0) for _ in range(2)]
    objective = options.start(models[0], Silent(), data)
    fit(models[0], data, objective, SHORT, seeds=[0], progress=False, **objective.hooks)
    fit(models[1], data, supervised, SHORT, seeds=[0], progress=False)
    assert all(torch.equal(a, b) for a, b in zip(*(one.parameters() for one in models), strict=True))


def test_the_control_without_kd_is_the_original_fine_tuned_on_cross_entropy(rows: pd.DataFrame) -> None:
    """Nothing is pruned of it, and its accuracies are not those of pruned networks."""
    part = rows[(rows["base"] == "") & (rows["split"] == "test")]
    assert set(part["arm"]) == {"original", "plain(kd=0.0)", "control(kd=0.0)", BASE}
    kept = part.groupby("arm")[["kept", "total"]].first()
    assert kept.loc["control(kd=0.0)", "kept"] == kept.loc["control(kd=0.0)", "total"]
    assert kept.loc["plain(kd=0.0)", "kept"] < kept.loc["plain(kd=0.0)", "total"]


def test_arms_without_kd_retrain_between_rounds_without_it(
    light: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distillation loss fails when it is computed; the arm that has one fails in the first round."""

    def refuse(*_: object) -> None:
        raise AssertionError("distilled")

    monkeypatch.setattr("linfair.training.distillation", refuse)
    rounds = grid("digits", "mlp", seeds=(0,), **HOW | {"method": "prune_iterative", "budgets": [0.5, 0.2]})
    found = run(rounds, arms=ARMS, store=ResultStore(tmp_path), progress=False)
    kept = found.query("split == 'test' and group == 0").groupby(["arm", "budget"])["kept"].first()
    assert kept["plain(kd=0.0)"].to_list() == kept[BASE].to_list() != kept["control(kd=0.0)"].to_list()
    with pytest.raises(AssertionError, match="distilled"):
        run(rounds, arms=["plain"], store=ResultStore(tmp_path), progress=False)


# Fair original networks


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_fair_original_equals_the_sum_written_out(seeds: tuple[int, ...], tmp_path: Path) -> None:
    """J + sum of lambda_a |J_a - J| on cross entropy by hand, lambda_a growing once an epoch; it is read again."""
    sets = [load_data("digits", seed=seed) for seed in seeds]
    stages = Stages(sets, seeds, ResultStore(tmp_path), count=1, progress=False)
    fair = stages.teacher("mlp", SHORT, width=8, mitigation=Lagrangian(mu=0.5))
    model, multipliers = stages.untrained("mlp", width=8), torch.zeros(len(seeds), 10)

    def gaps(logits: torch.Tensor, y: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        each = cross_entropy(logits, y).view(len(seeds), -1)
        y, a, mean = y.view_as(each), a.view_as(each), each.mean(dim=1)
        found = []
        for group in range(10):
            inside = a == group
            means = (each * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
            found.append((means - mean).abs() * inside.any(dim=1))
        return mean, torch.stack(found, dim=1)

    def objective(network: torch.nn.Module, batch: object) -> torch.Tensor:
        mean, found = gaps(network(batch.x), batch.y, batch.a)
        return mean + (multipliers * found).sum(dim=1)

    def after_epoch(epoch: int) -> bool:
        split = [one.splits["train"] for one in sets]
        y, a = (torch.stack([getattr(one, name) for one in split]).squeeze(0) for name in "ya")
        multipliers.add_(0.5 * gaps(predict(model, stages.data, "train"), y, a)[1].detach())
        return False

    fit(model, stages.data, objective, SHORT, seeds=seeds, stage="base", after_epoch=after_epoch, progress=False)
    for ours, theirs in zip(fair.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    again = stages.teacher("mlp", SHORT, width=8, mitigation=Lagrangian(mu=0.5))
    assert again.digest == fair.digest and again.loss == fair.loss
    plain = stages.teacher("mlp", SHORT, width=8)
    assert plain.digest != fair.digest
    still = stages.teacher("mlp", SHORT, width=8, mitigation=Lagrangian(mu=0.0))
    assert still.digest == plain.digest, "multipliers of 0 are cross entropy, bit for bit"
    assert len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 3


@pytest.mark.parametrize("options", [GroupDRO(), EqualGradients(mu=1e-4, eigenvalues=False)])
def test_other_mitigations_train_an_original_too(options: object, tmp_path: Path) -> None:
    stages = Stages(load_data("digits", seed=0), [0], ResultStore(tmp_path), count=1, progress=False)
    found = stages.teacher("mlp", SHORT, width=8, mitigation=options)
    assert found.digest != stages.teacher("mlp", SHORT, width=8).digest
    assert all(torch.isfinite(one).all() for one in found.model.parameters())


def test_rows_say_their_original_and_arms_of_both_never_mix(rows: pd.DataFrame) -> None:
    assert set(rows["base"]) == {"", BASE}
    teachers = rows.groupby(["base", "seed"])["teacher"].nunique()
    assert (teachers == 1).all() and rows["teacher"].nunique() == 2  # one ensemble of two seeds each
    check_teachers(rows)
    with pytest.raises(ValueError, match="original networks"):
        check_teachers(rows.drop(columns="base"))
    dropped = drops(rows).query("arm != 'original'")
    original = rows[rows["arm"] == "original"].set_index(["base", "seed", "split", "group"])["accuracy"]
    for at in dropped.sample(20, random_state=0).itertuples():
        assert at.original == original[at.base, at.seed, at.split, at.group]


def test_cells_without_a_fair_original_keep_their_names(tmp_path: Path) -> None:
    """Names of files and stages are hashes of what there was before; with the field they are others."""
    (plain,), (fair,) = cells(), cells(base_mitigation=FAIR)
    assert fair.base_mitigation == BASE
    later = ("base_mitigation", "base_rule", "norm", "standardised")
    before = {name: value for name, value in asdict(plain).items() if name not in later}
    assert cell_id(plain) == key(before) != cell_id(fair)
    assert teacher_id(plain) == key(before | dict.fromkeys(("method", "budgets", "options", "curvature")))
    assert teacher_id(plain) != teacher_id(fair)
    workers = [Worker(one, ResultStore(tmp_path), False) for one in (plain, fair)]
    for arm in ("original", "plain", "lagrangian"):
        assert len({one.name(arm) for one in workers}) == 2
    assert about(fair)["base"] == BASE and about(plain)["base"] == ""
    assert BASE in words(fair) and "original under" not in words(plain)


def test_names_of_arms_at_the_default_of_kd_are_those_from_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that are hashed do not hold `kd` at 1."""
    (cell,) = cells()
    worker, hashed = Worker(cell, ResultStore(tmp_path), False), []
    monkeypatch.setattr("linfair.study.cell.key", lambda settings: hashed.append(settings) or "name")
    for arm in ("lagrangian", "lagrangian(kd=0)", "plain(kd=0)", "plain"):
        worker.name(arm)
    assert "kd" not in hashed[0]["mitigation"] and "base_mitigation" not in hashed[0]
    assert hashed[1]["mitigation"]["kd"] == 0.0 and hashed[2]["mitigation"] == {"kd": 0.0}
    assert "mitigation" not in hashed[3] and [one["arm"] for one in hashed[2:]] == ["plain", "plain"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("plain", "'plain' is no mitigation; leave it out"),
        ("control(kd=0)", "is no mitigation; leave it out"),
        ("excess_drop", "excess_drop compares with the original network"),
        ("lagrangan", "there are original, plain, control, lagrangian"),
    ],
)
def test_what_cannot_train_an_original_is_refused(given: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        base_of(given)
    with pytest.raises(ValueError, match=said):
        cells(base_mitigation=given)


def test_a_network_of_a_file_is_trained_already() -> None:
    with pytest.raises(
        ValueError, match=r"mine.safetensors is trained already: base_mitigation='lagrangian\(kd=0.0\)'"
    ):
        cells(teacher="mine.safetensors", base_mitigation="lagrangian")


def test_the_pace_of_a_fair_original_is_its_own(rows: pd.DataFrame) -> None:
    pace: dict = {}
    for (_, _), part in rows.groupby(["base", "arm"]):
        learn_pace(pace, part.reset_index(drop=True))
    (plain,), (fair,) = cells(), cells(base_mitigation=FAIR)
    assert kind("base", plain) != kind("base", fair) and {kind("base", plain), kind("base", fair)} <= set(pace)
    assert kind("path", plain) == kind("path", fair)


# Figures


PANEL = """
figure = "Fig. 8"
title = "a test"
shows = "a test"
split = "test"
quantity = "accuracy"
claims = []

[[panel]]
data = "digits"
network = "mlp"
method = "prune_magnitude"
budgets = [0.5]
width = 8
arms = ["original", "plain(kd=0)", "lagrangian(mu=0.5, kd=0)"]
"""


@pytest.fixture
def figure(tmp_path: Path) -> object:
    path = tmp_path / "fig99.toml"
    second = PANEL[PANEL.index("[[panel]]") :]
    path.write_text(f'{PANEL}\n{second}base_mitigation = "{FAIR}"\n')
    return read_figure(path)


def test_a_panel_names_the_mitigation_of_its_original(figure: object, tmp_path: Path) -> None:
    jobs = plan([figure], "smoke", seeds=2)
    assert [job.cell.base_mitigation for job in jobs] == ["", BASE]
    assert f"base {BASE}" in figure.panels[1].title
    path = tmp_path / "wrong.toml"
    path.write_text(f'{PANEL}base_mitigation = "plain"\n')
    line = len(PANEL.splitlines()) + 1
    with pytest.raises(ValueError, match=rf"line {line}: panel 1 .*base_mitigation: 'plain' is no mitigation"):
        read_figure(path)


def test_results_are_known_by_their_original_and_older_ones_have_cross_entropy(
    figure: object, rows: pd.DataFrame, tmp_path: Path
) -> None:
    store = ResultStore(tmp_path)
    older = rows[rows["base"] == ""].drop(columns="base")
    store.tables.write("older", older)
    jobs = plan([figure], "smoke", seeds=2)
    found = collect([store.tables.place])
    assert "base" in KNOWN_BY and set(found.rows["base"]) == {""}
    assert [job.cell.base_mitigation for job in missing(jobs, found)] == [BASE]
    place = tmp_path / "book"
    assert len(merge(found, place)) == 1 and merge(found, place) == []
    store.tables.write("fair", rows[rows["base"] != ""])
    found = collect([store.tables.place])
    assert missing(jobs, found) == [] and len(merge(found, place)) == 1
    shown = gather(figure, "smoke", found, seeds=2)
    assert set(shown["panel"]) == {panel.title for panel in figure.panels}
    for title, part in shown.groupby("panel"):
        assert set(part["base"]) == ({BASE} if BASE in title else {""})
        assert set(part["arm"]) == {"original", "plain(kd=0.0)", BASE}
    store.tables.put("FAILED-x.txt", (json.dumps(about(jobs[1].cell) | {"arms": ["plain"]}) + "\n\nwhy").encode())
    assert {name[7] for name in collect([store.tables.place]).failed} == {BASE}


# Before, after, both


def test_before_after_and_both_are_paired_by_seed(rows: pd.DataFrame) -> None:
    """Each is one arm of one of the two cells; a difference is that of the two accuracies of a seed and group."""
    table = before_and_after(rows, FAIR, plain="plain(kd=0.0)")
    assert table["arm"].unique().tolist() == ["No mitigation", "Fair Bf", "Fair Aft", "Fair Both"]
    for name, base, arm in (
        ("No mitigation", "", "plain(kd=0.0)"),
        ("Fair Bf", BASE, "plain(kd=0.0)"),
        ("Fair Aft", "", BASE),
        ("Fair Both", BASE, BASE),
    ):
        part = table[table["arm"] == name]
        assert set(part["base"]) == {base}
        expected = rows[(rows["base"] == base) & (rows["arm"] == arm)]
        assert part["accuracy"].tolist() == expected["accuracy"].tolist()
    found = paired(table, arm="Fair Both", against="No mitigation").set_index(["seed", "group_name"])["value"]
    test = table[table["split"] == "test"].set_index(["arm", "seed", "group_name"])["accuracy"]
    for (seed, group), value in found.items():
        assert value == pytest.approx(100 * (test["Fair Both", seed, group] - test["No mitigation", seed, group]))
    assert len(found) == 20
    with pytest.raises(ValueError, match="Fair Bf has no rows: .* original network trained under"):
        before_and_after(rows[rows["base"] == ""], FAIR, plain="plain(kd=0.0)")


# Both violations


def made(values: dict[str, tuple[tuple[float, float], ...]], seed: int = 0) -> pd.DataFrame:
    """Rows of arms from the (accuracy, excess) of each group."""
    shared = {"budget": 0.5, "split": "test", "seed": seed, "n": 10, "teacher": f"t{seed}", "method": "m"}
    return pd.DataFrame(
        shared | {"arm": arm, "group": group, "accuracy": accuracy, "excess": excess}
        for arm, groups in values.items()
        for group, (accuracy, excess) in enumerate(groups)
    )


THREE = {
    "a": ((0.9, 0.5), (0.5, 0.5), (0.7, 0.25)),  # excess 0.25, accuracy 0.4
    "b": ((0.9, 1.0), (0.8, -0.5), (0.7, 0.25)),  # excess 1.5, accuracy 0.2: less fair by Eq. 3, fairer by accuracy
    "c": ((0.9, 2.0), (0.8, -1.0), (0.2, 0.0)),  # excess 3, accuracy 0.7: less fair than both by both
}


def test_violations_are_the_largest_difference_of_two_groups() -> None:
    """Oracle: all pairs of groups, written out."""
    found = violations(made(THREE)).set_index("arm")
    for arm, groups in THREE.items():
        for place, name in enumerate(("accuracy_violation", "excess_violation")):
            each = [one[place] for one in groups]
            assert found.loc[arm, name] == pytest.approx(max(abs(x - y) for x in each for y in each))
        assert found.loc[arm, "overall"] == pytest.approx(np.mean([one[0] for one in groups]))


def test_violations_of_real_rows_need_no_original_and_no_diverged_seed(rows: pd.DataFrame) -> None:
    lost = rows["diverged"] | ((rows["arm"] == BASE) & (rows["seed"] == 1) & (rows["base"] == ""))
    found = violations(rows.assign(diverged=lost))
    expected = rows[~lost & (rows["arm"] != "original")].groupby(["base", "arm", "seed", "split"]).ngroups
    assert len(found) == expected
    one = rows[
        (rows["base"] == "") & (rows["arm"] == "plain(kd=0.0)") & (rows["seed"] == 0) & (rows["split"] == "test")
    ]
    mine = found.query("base == '' and arm == 'plain(kd=0.0)' and seed == 0 and split == 'test'").iloc[0]
    assert mine["excess_violation"] == one["excess"].max() - one["excess"].min()
    assert mine["accuracy_violation"] == one["accuracy"].max() - one["accuracy"].min()
    with pytest.raises(ValueError, match="take each table once"):
        violations(pd.concat([rows, rows]))


def test_disagreement_counts_the_pairs_of_arms_that_change_places() -> None:
    """Three pairs a seed: a and b disagree, c is less fair than both; in the second seed a and b tie by accuracy."""
    tie = THREE | {"b": ((0.7, 1.0), (0.3, -0.5), (0.5, 0.25))}  # 0.7 - 0.3 is not 0.9 - 0.5 in floating point
    assert 0.7 - 0.3 != 0.9 - 0.5
    table = disagreement(violations(pd.concat([made(THREE), made(tie, seed=1)])))
    assert table.to_dict("records") == [
        {"budget": 0.5, "split": "test", "pairs": 6, "tied": 1, "disagree": 1, "share": pytest.approx(0.2)}
    ]
    alone = disagreement(violations(made({"a": THREE["a"]})))
    assert alone["pairs"].tolist() == [0] and alone["share"].isna().all()
    with pytest.raises(ValueError, match="select one data set"):
        disagreement(pd.concat([violations(made(THREE))] * 2))
