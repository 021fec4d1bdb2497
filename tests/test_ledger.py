"""What keeps and what ends a privacy guarantee: the ledger itself, then every step through what takes it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from linfair.audit.diagnose import Pair, read_pair
from linfair.audit.linearize import linearize_to
from linfair.audit.repair import mitigate
from linfair.checkpoints import Header, load_network, save_network
from linfair.cli import main
from linfair.data import GroupedData, load_data
from linfair.data.core import upsample
from linfair.engine.stages import Stages
from linfair.engine.store import ResultStore
from linfair.ensemble import Ensemble
from linfair.ledger import STEPS, UNDESCRIBED, Guarantee, after
from linfair.linearizers import SNL, DeepReDuce, linearize
from linfair.linearizers.finetuning import finetune
from linfair.linearizers.registry import Linearizer, methods
from linfair.mitigation import MITIGATIONS, Plain
from linfair.mitigation.objective import MitigationOptions
from linfair.models import build
from linfair.pruners import Iterative, Pruning
from linfair.rules import train
from linfair.study import grid
from linfair.training import Schedule

PRIVATE = Guarantee(8.0, 1e-5, "rdp", 2.2, 1.0, 0.25, 160)


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_the_first_step_that_reads_images_ends_a_guarantee_for_good(names: list[str]) -> None:
    found = PRIVATE
    for name in names:
        found = after(found, STEPS[name])
        assert after(None, STEPS[name]) is None
    first = next((name for name in names if not STEPS[name].keeps), "")
    assert found == replace(PRIVATE, ended=first)
    assert found.holds == (not first)
    text = found.text()
    assert (
        "\n" not in text
        and ("guarantee holds" in text) == found.holds
        and (f"ended by {first}, which" in text) != found.holds
    )


@given(st.floats(1e-6, 1e6), st.floats(1e-12, 0.5))
def test_a_printed_budget_is_never_smaller_than_the_true_one(epsilon: float, delta: float) -> None:
    words = replace(PRIVATE, epsilon=epsilon, delta=delta).text().replace(",", "").split()
    shown = [float(words[at + 2]) for at, word in enumerate(words) if word in ("epsilon", "delta")]
    assert all(
        one >= true and math.isclose(one, true, rel_tol=2e-3) for one, true in zip(shown, (epsilon, delta), strict=True)
    )


@pytest.mark.parametrize(
    "change",
    [{"epsilon": -1.0}, {"epsilon": math.nan}, {"epsilon": math.inf}, {"delta": 0.0}, {"delta": 1.0}, {"rate": 1.1}]
    + [{"noise": 0.0}, {"clip": math.nan}, {"steps": 0}, {"steps": 1.5}, {"ended": "magic"}, {"ended": "averaging"}],
    ids=str,
)
def test_numbers_that_promise_nothing_are_refused(change: dict[str, object]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name} = .*{value}"):
        replace(PRIVATE, **change)


# Every method says of itself what it does


def test_every_method_and_mitigation_is_described_and_a_new_one_ends_a_guarantee() -> None:
    for one in (*methods().values(), *MITIGATIONS.values()):
        assert one.privacy in STEPS.values() and one.privacy is not UNDESCRIBED, one.name
    assert {name for name, one in methods().items() if one.privacy.keeps} == set(KEPT)
    assert not any(one.privacy.keeps for one in MITIGATIONS.values())  # each trains on images
    new = Linearizer("new", "", "", Pruning, lambda *_, **__: [])
    assert not after(PRIVATE, new.does(Pruning())).holds
    assert not MitigationOptions.privacy.keeps


# Steps through the functions that take them

KEPT = ("random", "uniform", "prune_magnitude", "prune_layerwise", "prune_random")
QUICK = Schedule(epochs=1, optimizer="adamw", lr=1e-3)
OPTIONS = {
    "snl": SNL(lasso=1.0, growth=2.0, warmup=0, schedule=replace(QUICK, epochs=40, alpha_lr=0.5)),
    "deepreduce": DeepReDuce(schedule=QUICK, finetuning=True),
    "prune_iterative": Iterative(epochs=1, rate=0.5, schedule=replace(QUICK, epochs=9)),
}
ENDS = {
    "snl": "SNL",
    "deepreduce": "DeepReDuce",
    "snip": "SNIP",
    "prune_snip": "SNIP",
    "negative_part": "negative_part",
}
ENDS |= {"prune_iterative": "retraining"} | dict.fromkeys(KEPT, "")


def left(found: Guarantee | None) -> str:
    """What ended a guarantee; empty while it holds."""
    return found.ended


@pytest.fixture(scope="module")
def stages(digits: GroupedData, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(digits, [3], ResultStore(tmp_path_factory.mktemp("store")), count=1, progress=False)


@pytest.mark.parametrize("again", [False, True], ids=["computed", "read"])
@pytest.mark.parametrize("method", ENDS)
def test_methods_keep_or_end_a_guarantee_and_fine_tuning_ends_it(
    method: str, again: bool, teacher: nn.Module, stages: Stages
) -> None:
    """Each method's record, its control, and both fine-tuned; from the store the same as computed."""
    private, options = stages.given(teacher, guarantee=PRIVATE), OPTIONS.get(method)
    path = stages.path(private, method, [0.5], options)
    control = stages.control(private, path)
    assert left(path.records[0].guarantee) == ENDS[method]
    trained = any(path.records[0].epochs)
    assert left(control.records[0].guarantee) == ("retraining" if trained else "")
    tuned = stages.student(private, path.records[0], QUICK).record
    assert left(tuned.guarantee) == (ENDS[method] or "fine-tuning")
    plain = stages.given(teacher)
    assert stages.path(plain, method, [0.5], options).records[0].guarantee is None
    assert stages.student(plain, replace(path.records[0], guarantee=None), QUICK).record.guarantee is None


@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_mitigations_end_a_guarantee_by_what_they_do(
    mitigation: str, teacher: nn.Module, digits: GroupedData, stages: Stages
) -> None:
    private = stages.given(teacher, guarantee=PRIVATE)
    record = stages.path(private, "prune_magnitude", [0.5]).records[0]
    wanted = {"plain": "fine-tuning", "kd_over_c": "fine-tuning", "balanced_sampling": "balanced sampling"}
    found = finetune(record, teacher, digits, seeds=[3], schedule=QUICK, mitigation=mitigation, progress=False)
    assert left(found.guarantee) == wanted.get(mitigation, "group multipliers")
    assert record.guarantee == PRIVATE


def test_a_mitigation_that_says_it_keeps_a_guarantee_is_fine_tuning_all_the_same(
    teacher: nn.Module, digits: GroupedData, stages: Stages
) -> None:
    @dataclass(frozen=True)
    class Harmless(Plain):
        name = "harmless"
        privacy = STEPS["export"]

    record = stages.path(stages.given(teacher, guarantee=PRIVATE), "random", [0.5]).records[0]
    found = finetune(record, teacher, digits, seeds=[3], schedule=QUICK, mitigation=Harmless(), progress=False)
    assert left(found.guarantee) == "fine-tuning"


def test_distillation_from_a_teacher_without_a_guarantee_ends_it(teacher: nn.Module, stages: Stages) -> None:
    """From one whose guarantee has ended too; cross entropy alone asks no teacher and is fine-tuning."""
    private, said = stages.given(teacher, guarantee=PRIVATE), "distillation from a non-private teacher"
    record = stages.path(private, "prune_magnitude", [0.5]).records[0]
    for other in (None, after(PRIVATE, STEPS["SNL"])):
        public = stages.given(teacher, guarantee=other)
        assert left(stages.student(public, record, QUICK).record.guarantee) == said
        assert left(stages.student(public, record, QUICK, Plain(kd=0.0)).record.guarantee) == "fine-tuning"


def test_batch_norm_re_estimation_ends_a_guarantee(teacher: nn.Module, stages: Stages) -> None:
    private = stages.given(teacher, guarantee=PRIVATE)
    for method in ("prune_magnitude", "prune_random"):
        found = stages.path(private, method, [0.5], Pruning(reestimate=True)).records[0]
        assert left(found.guarantee) == "batch-norm re-estimation"
    found = stages.path(private, "prune_snip", [0.5], Pruning(reestimate=True)).records[0]
    assert left(found.guarantee) == "SNIP"


@pytest.mark.parametrize("method", ["prune_magnitude", "negative_part"])
def test_the_one_call_carries_a_guarantee(method: str, teacher: nn.Module, digits: GroupedData) -> None:
    how = {"budgets": [0.5], "method": method, "seeds": [3], "finetuning": QUICK, "progress": False}
    assert left(linearize(teacher, digits, guarantee=PRIVATE, **how)[0].guarantee) == (ENDS[method] or "fine-tuning")
    assert linearize(teacher, digits, **how)[0].guarantee is None
    both = linearize(Ensemble([teacher, teacher]), [digits] * 2, guarantee=PRIVATE, **how | {"seeds": [3, 4]})
    assert left(both[0].guarantee) == (ENDS[method] or "fine-tuning")


# Through files and commands, from a network that was trained privately


@pytest.fixture(scope="module")
def folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private original network, `teacher.safetensors`, and what `linfair reduce` and `linearize` make of it."""
    folder = tmp_path_factory.mktemp("private")
    data = load_data("digits", seed=3, scale="fixed")
    network = build("mlp", data.input_shape, data.classes, width=8, seed=3, norm="group")
    rule = "dp_sgd(epsilon=3.0, average=0.9)"
    schedule = Schedule(epochs=3, batch_size=100, lr=0.5, momentum=0.0)
    _, guarantee = train(network, data, schedule, rule=rule, seeds=[3], progress=False)
    assert guarantee.holds  # averaging kept it
    options = (("scale", "fixed"),)
    header = Header("mlp", 8, data.input_shape, data.classes, "digits", 3, data_options=options, content=data.content)
    header = replace(header, norm="group", rule=rule, guarantee=guarantee)
    path = save_network(folder / "own.safetensors", network, header)
    for method in ("prune_magnitude", "snl", "random"):
        how = {
            "method": method,
            "budgets": (0.5,),
            "seeds": (3,),
            "profile": "smoke",
            "teacher": str(path),
            "norm": "group",
        }
        (cell,) = grid("digits", "mlp", data_options=dict(options), width=8, **how)
        store = ResultStore(folder / "store")
        linearize_to(folder / method, cell, with_control=False, store=store, progress=False)
    return folder


def test_normalisation_by_training_images_ends_a_guarantee(digits: GroupedData) -> None:
    network = build("mlp", digits.input_shape, digits.classes, width=4, norm="group")
    schedule = Schedule(epochs=1, batch_size=100, lr=0.1, momentum=0.0)
    _, guarantee = train(network, digits, schedule, rule="dp_sgd", seeds=[3], progress=False)
    assert left(guarantee) == "normalisation by training images"


def test_images_that_are_there_several_times_end_a_guarantee() -> None:
    """A step's sum may hold an image three times, so that it changes by three times the clip, not by one."""
    data = upsample(load_data("digits", seed=3, scale="fixed"), 0, 3)
    network = build("mlp", data.input_shape, data.classes, width=4, norm="group")
    schedule = Schedule(epochs=1, batch_size=100, lr=0.1, momentum=0.0)
    _, guarantee = train(network, data, schedule, rule="dp_sgd", seeds=[3], progress=False)
    assert left(guarantee) == "repeated images"


def test_files_of_a_private_teacher_say_what_is_left(folder: Path) -> None:
    """Its copy holds, a network that SNL made does not, nor one that was fine-tuned after pruning."""
    before = load_network(folder / "own.safetensors")[1]
    for method, ended in (("snl", "SNL"), ("prune_magnitude", "fine-tuning"), ("random", "fine-tuning")):
        assert load_network(folder / method / "teacher.safetensors")[1] == before
        after_it = load_network(folder / method / f"{method}-0.5.weights.safetensors")[1]
        assert (left(after_it.guarantee), after_it.rule) == (ended, before.rule)


def pair_of(folder: Path, method: str, *, tuned: bool = False) -> Pair:
    near = folder / method
    weights = near / f"{method}-0.5.weights.safetensors" if tuned else None
    return read_pair(near / "teacher.safetensors", near / f"{method}-0.5.mask.safetensors", weights=weights)


def test_a_mask_on_the_private_weights_keeps_what_its_choice_keeps(folder: Path) -> None:
    assert pair_of(folder, "prune_magnitude").guarantee.holds
    assert pair_of(folder, "random").guarantee.holds
    assert left(pair_of(folder, "snl").guarantee) == "SNL"
    assert left(pair_of(folder, "prune_magnitude", tuned=True).guarantee) == "fine-tuning"


def remade(folder: Path, place: Path, method: str, **changes: str) -> Guarantee:
    """What is left under a mask file whose header says something else."""
    from linfair.masks import Mask

    mask = replace(Mask.load(folder / method / f"{method}-0.5.mask.safetensors"), **changes)
    path = mask.save(place / "other.mask.safetensors")
    return read_pair(folder / method / "teacher.safetensors", path).guarantee


def test_a_mask_of_another_network_or_of_unknown_origin_ends_a_guarantee(folder: Path, tmp_path: Path) -> None:
    """A random one knows of no network, so it may come from any."""
    assert left(remade(folder, tmp_path, "prune_magnitude", teacher="0" * 16)) == "a mask of another network"
    assert left(remade(folder, tmp_path, "prune_magnitude", step="")) == "an undescribed step"
    assert left(remade(folder, tmp_path, "random", teacher="0" * 16)) == ""


def test_weights_that_say_nothing_of_their_teachers_guarantee_have_none(folder: Path, tmp_path: Path) -> None:
    path = folder / "snl/snl-0.5.weights.safetensors"
    model, header = load_network(path)
    other = save_network(tmp_path / "other.safetensors", model, replace(header, guarantee=None))
    found = read_pair(folder / "snl/teacher.safetensors", folder / "snl/snl-0.5.mask.safetensors", weights=other)
    assert left(found.guarantee) == "an undescribed step"


def test_repairs_end_a_guarantee(folder: Path, tmp_path: Path) -> None:
    how = {"arms": ["plain"], "profile": "smoke", "schedule": QUICK, "progress": False}
    found = mitigate(pair_of(folder, "prune_magnitude"), store=ResultStore(tmp_path), **how)
    assert left(found.guarantee) == "fine-tuning"


def test_commands_print_what_is_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """`diagnose`, `mitigate` and `audit`, a line each; nothing for a network that never had a guarantee."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))

    def said(command: str, method: str, *more: str) -> list[str]:
        near = folder / method
        files = ["--teacher", str(near / "teacher.safetensors"), "--mask", str(near / f"{method}-0.5.mask.safetensors")]
        assert main.main([command, *(files[:2] if command == "audit" else files), *more]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "privacy guarantee" in line]

    diagnose = ("diagnose", "prune_magnitude", "--no-curvature")
    (line,) = said(*diagnose)
    assert "privacy guarantee holds: epsilon = 3, delta = 1e-05" in line
    assert "not numbers that are measured" in line
    (line,) = said("expose", "prune_magnitude", "--attack", "loss")
    assert "guarantee holds" in line
    (line,) = said("expose", "snl", "--attack", "loss")
    assert "ended by SNL" in line
    (line,) = said("diagnose", "snl", "--no-curvature")
    assert "ended by SNL" in line and "holds" not in line
    weights = folder / "prune_magnitude/prune_magnitude-0.5.weights.safetensors"
    assert "ended by fine-tuning" in said(*diagnose, "--weights", str(weights))[0]
    out = ["--out", str(tmp_path / "repaired"), "--profile", "smoke"]
    (line,) = said("mitigate", "prune_magnitude", "--arms", "group_dro", *out)
    chosen = load_network(tmp_path / "repaired/chosen.weights.safetensors")[1]
    assert f"ended by {chosen.guarantee.ended}" in line
    short = [
        "--budgets",
        "0.5",
        "--no-mitigate",
        "--no-curvature",
        "--profile",
        "smoke",
        "--out",
        str(tmp_path / "report"),
    ]
    (line,) = said("audit", "snl", *short)
    assert "ended by SNL" in line
    page = (tmp_path / "report/index.html").read_text()
    assert "privacy guarantee holds: epsilon = 3" in page and "ended by SNL" in page
    assert left(load_network(tmp_path / "report/snl-0.5.weights.safetensors")[1].guarantee) == "SNL"
    public, header = load_network(folder / "own.safetensors")
    save_network(folder / "snl/teacher.safetensors", public, replace(header, guarantee=None))
    assert said("diagnose", "snl", "--no-curvature") == []
