"""`mitigate`: what it trains, resumes, leaves out and reports, and that no test image decides."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from linfair import gates
from linfair.audit import repair as module
from linfair.audit.diagnose import Pair, read_pair
from linfair.audit.linearize import linearize_to
from linfair.audit.repair import Mitigated, arm_list, mitigate, mitigated_text
from linfair.data import Split
from linfair.engine import stages
from linfair.linearizers import finetune
from linfair.linearizers.record import record
from linfair.metrics import group_accuracy
from linfair.mitigation import Lagrangian
from linfair.study import ResultStore, grid, recipe
from linfair.training import TrainingDiverged, correctness

ARMS = ("plain", "balanced_sampling", "group_dro", "lagrangian(limit=1e-09)")
"""Three that train and one whose multipliers soon exceed their limit."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """What `linfair linearize` writes: a smoke run at 20 %."""
    folder = tmp_path_factory.mktemp("linearized")
    (cell,) = grid("digits", "mlp", budgets=(0.2,), seeds=(3,), profile="smoke", width=16)
    linearize_to(folder, cell, with_control=False, store=ResultStore(folder / "store"), progress=False)
    return read_pair(folder / "teacher.safetensors", folder / "snl-0.2.mask.safetensors")


def run(pair: Pair, folder: Path, **options: object) -> Mitigated:
    settings = {"arms": ARMS, "max_accuracy_loss": 100, "profile": "smoke", "progress": False}
    return mitigate(pair, store=ResultStore(folder), **settings | options)


def forced(pair: Pair, folder: Path, winner: str, **options: object) -> Mitigated:
    """The same, with the choice made on answers that are right for one arm alone."""

    def decided(correct: dict[str, torch.Tensor], *args: object, **limits: object) -> object:
        answers = {arm: torch.full_like(one, float(arm == winner)) for arm, one in correct.items()}
        return choose(answers, *args, **limits)

    choose = module.choose
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "choose", decided)
        return run(pair, folder, **options)


@pytest.fixture(scope="module")
def found(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Mitigated:
    """A repair chosen."""
    return forced(pair, tmp_path_factory.mktemp("store"), "balanced_sampling")


def test_trains_what_finetune_trains(pair: Pair, found: Mitigated) -> None:
    """Oracle: `linearizers.finetune` on the masked teacher, bit for bit."""
    schedule = recipe("mlp", "smoke").finetune
    chosen = found.choice.chosen
    total, kept = gates.total_units(pair.linearized), int(gates.kept_units(pair.linearized)[0])
    masked = record("mask", kept / total, kept, [pair.linearized], [0], [], single=True)
    model = finetune(
        masked, pair.original, pair.data, seeds=[3], schedule=schedule, mitigation=chosen, progress=False
    ).model
    assert all(torch.equal(value, found.model.state_dict()[name]) for name, value in model.state_dict().items())
    for split in ("val", "test"):
        rows = group_accuracy(correctness(model, pair.data, split)[0], pair.data.splits[split].a, 10)
        table = found.table[(found.table["arm"] == chosen) & (found.table["split"] == split)]
        assert table["accuracy"].tolist() == [row.accuracy for row in rows]


def test_rows_of_every_arm_on_validation_and_of_two_on_test(found: Mitigated) -> None:
    table, chosen = found.table, found.choice.chosen
    assert chosen == "balanced_sampling"
    assert set(table[table["split"] == "val"]["arm"]) == set(ARMS)
    for split in ("test", "test_balanced"):
        assert set(table[table["split"] == split]["arm"]) == {"plain", chosen}
    assert set(table[table["chosen"]]["arm"]) == {chosen}
    assert set(table["split"]) == {"val", "test", "test_balanced"}
    assert not table.duplicated(["arm", "split", "group"]).any()


def test_an_arm_that_diverges_is_left_out_and_named(found: Mitigated) -> None:
    lost = found.table[found.table["arm"] == ARMS[3]]
    assert list(found.diverged) == [ARMS[3]] and "above its limit 1e-09" in found.diverged[ARMS[3]]
    assert lost["diverged"].all() and lost["accuracy"].isna().all() and lost["margin"].isna().all()
    assert not lost["allowed"].any()
    assert [one.arm for one in found.choice.candidates] == list(ARMS[:3])
    assert f"{ARMS[3]}: left out, " in mitigated_text(found)


def test_test_images_decide_nothing(pair: Pair, tmp_path: Path) -> None:
    """Oracle: the same call with test images and labels garbled chooses alike, and its validation rows are equal."""
    garbled = {
        name: Split(part.x.flip(0), part.y.flip(0), part.a.flip(0)) if name.startswith("test") else part
        for name, part in pair.data.splits.items()
    }
    garbled["test"] = replace(garbled["test"], y=(garbled["test"].y + 1) % 10)
    as_it_is = run(pair, tmp_path / "one")
    other = run(replace(pair, data=replace(pair.data, splits=garbled)), tmp_path / "two")
    assert repr(other.choice) == repr(as_it_is.choice)  # nan is not equal to nan, but written alike
    ours, theirs = (one.table.drop(columns="seconds_finetune") for one in (as_it_is, other))
    assert ours[ours["split"] == "val"].equals(theirs[theirs["split"] == "val"])
    assert not ours[ours["split"] == "test"].equals(theirs[theirs["split"] == "test"])


def test_test_splits_are_measured_after_the_choice_for_two_networks(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, chosen = [], []

    def measured(*args: object, split: list[str], **options: object) -> object:
        seen.extend((bool(chosen), one) for one in split)
        return measure(*args, split=split, **options)

    def decided(*args: object, **options: object) -> object:
        chosen.append(choose(*args, **options))
        return chosen[-1]

    measure, choose = module.measure, module.choose
    monkeypatch.setattr(module, "measure", measured)
    monkeypatch.setattr(module, "choose", decided)
    run(pair, tmp_path, arms=("plain", "balanced_sampling", "group_dro"))
    networks = len({"plain", chosen[0].chosen})
    assert len(chosen) == 1
    assert [when for when, split in seen if split == "test"] == [True] * networks


def test_interrupted_it_goes_on_with_the_missing_arms(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the run that was not interrupted. A diverged arm is not trained again either."""
    whole = run(pair, tmp_path / "whole")
    trained = []

    store = tmp_path / "store"

    def stopping(*args: object, mitigation: object, **options: object) -> object:
        if mitigation.name == "lagrangian" and trained.count("group_dro") and not resumed:
            raise KeyboardInterrupt
        trained.append(mitigation.name)
        return finetune(*args, mitigation=mitigation, **options)

    monkeypatch.setattr(stages, "finetune", stopping)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        run(pair, store)
    assert trained == ["plain", "balanced_sampling", "group_dro"]
    resumed = True
    trained.clear()
    again = run(pair, store)
    assert trained == ["lagrangian"]
    seconds = "seconds_finetune"
    assert again.table.drop(columns=seconds).equals(whole.table.drop(columns=seconds))
    trained.clear()
    said = []
    run(pair, store, max_accuracy_loss=0.5, announce=said.append)
    assert trained == [] and len(said) == 4 and all(line.endswith(": read") for line in said)


def test_plain_fine_tuning_that_diverges_is_an_error(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_args: object, **_options: object) -> None:
        raise TrainingDiverged("the loss is not finite")

    monkeypatch.setattr(stages, "finetune", diverging)
    with pytest.raises(TrainingDiverged):
        run(pair, tmp_path)


def test_few_validation_images_are_said_with_their_interval(pair: Pair, found: Mitigated, tmp_path: Path) -> None:
    """By hand: the Wilson interval of 50 % is 24 to 76 % for 10 images, 9 to 91 % for 2."""
    (warning,) = found.warnings
    assert warning.startswith("The groups of the minority (") and "judged together on 10" in warning
    assert "from 24 to 76 %" in warning
    alone = run(pair, tmp_path, arms=("plain",), min_images=1)
    assert len(alone.warnings) == 5
    assert all("has 2 validation images" in text and "from 9 to 91 %" in text for text in alone.warnings)


def test_text_holds_arms_choice_reason_and_both_test_splits(found: Mitigated) -> None:
    text = mitigated_text(found)
    for words in (*ARMS, f"Chosen: {found.choice.chosen}", f"Reason: {found.choice.reason}", "test, looked at"):
        assert words in text
    row = found.table.query("arm == 'plain' and split == 'test_balanced' and group == 2").iloc[0]
    assert f"{100 * row['accuracy']:.1f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]" in text


def test_arms_are_written_one_way_each_once() -> None:
    assert arm_list(["plain", "lagrangian(mu=0.001)", "lagrangian", "kd_over_c"]) == [
        "plain",
        "lagrangian",
        "kd_over_c",
    ]
    assert arm_list(["lagrangian(one_sided=True,mu=0.5)"], mu=[0.01])[1:] == ["lagrangian(mu=0.5, one_sided=True)"]
    assert arm_list(["lagrangian", "lagrangian(mu=0.5)"], mu=[0.01]) == [
        "plain",
        "lagrangian(mu=0.01)",
        "lagrangian(mu=0.5)",
    ]
    assert Lagrangian().mu == 0.001  # what the first case rests on


@pytest.mark.parametrize("split", ["val", "test", "test_balanced"])
def test_a_group_without_images_in_a_split_is_refused_before_training(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    """The test split too: it would end the run after everything was trained."""
    monkeypatch.setattr(stages, "finetune", None)
    part = pair.data.splits[split]
    keep = part.a != 4
    cut = Split(part.x[keep], part.y[keep], part.a[keep])
    data = replace(pair.data, splits=pair.data.splits | {split: cut})
    with pytest.raises(ValueError, match=rf"groups \['4'\] of digits have no image in the split {split}, "):
        run(replace(pair, data=data), tmp_path)


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        (["lagrangain"], "did you mean 'lagrangian'"),
        (["control"], "no mitigation 'control'"),
        (["lagrangian(mew=1)"], "no option"),
        (["lagrangian(mu=-1)"], "must not be negative"),
        (["lagrangian(mu"], "is not an arm"),
        (["none"], "the arm of plain fine-tuning is called 'plain'"),
        (["group_dro", " None "], "the arm of plain fine-tuning is called 'plain'"),
        (["none(mu=1)"], "the arm of plain fine-tuning is called 'plain'"),
        (["plain(mu=1)"], "there is no option 'mu'; there are kd"),
    ],
)
def test_arms_that_are_none_are_refused(arms: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        arm_list(arms)
