"""The control arm against a separate run with frozen gates, and fine-tuning against what it may change."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, LinearizedModel, control, finetune, snl
from linfair.linearizers.record import record
from linfair.models import build
from linfair.training import Distill, Schedule, fit, predict, supervised

SEED = 3
MASKS = Schedule(epochs=60, optimizer="adam", lr=1e-3, alpha_lr=9e-3)
QUICK = SNL(lasso=1e-2, growth=1.3, warmup=2, schedule=MASKS)
TUNE = Schedule(epochs=3, optimizer="adamw", lr=1e-3, decay="cosine")


@pytest.fixture(scope="module")
def path(teacher: nn.Module, digits: GroupedData) -> list[LinearizedModel]:
    """A mask path at two budgets; tests must leave it as it is."""
    return snl(teacher, digits, (0.7, 0.2), seeds=[SEED], options=QUICK, progress=False)


@pytest.fixture(scope="module")
def controls(path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData) -> list[LinearizedModel]:
    """Its control."""
    return control(teacher, digits, path, seeds=[SEED], schedule=MASKS, progress=False)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in model.state_dict().items()}


def stopped_at(epochs: tuple[int, ...], teacher: nn.Module, data: GroupedData | list[GroupedData]) -> LinearizedModel:
    """A record that asks for a snapshot at given epochs; the control uses nothing else of it."""
    source = data if isinstance(data, GroupedData) else data[0]
    networks = teacher.networks() if isinstance(teacher, Ensemble) else [teacher]
    gated = [gates.freeze(gates.install(network, source.input_shape)) for network in networks]
    return record("asked", 0.5, 16, gated, epochs, [], single=not isinstance(teacher, Ensemble))


def test_control_keeps_every_relu_and_stops_where_the_method_did(
    path: list[LinearizedModel], controls: list[LinearizedModel]
) -> None:
    for ours, one in zip(controls, path, strict=True):
        assert (ours.method, ours.budget, ours.budget_units) == ("control", one.budget, one.budget_units)
        assert ours.epochs == one.epochs
        assert ours.kept == (ours.mask.total,) == (32,)
        assert all((gate.alpha == 1).all() for gate in gates.sites(ours.model).values())
        assert not any(gate.alpha.requires_grad for gate in gates.sites(ours.model).values())
    assert len({one.epochs for one in controls}) == 2


def test_control_at_a_budget_equals_distilling_the_ungated_teacher_for_that_many_epochs(
    controls: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    """A plain network without gates, trained by `fit` alone: the same weights, to rounding, and the same function."""
    one = controls[0]
    plain = copy.deepcopy(teacher)
    schedule = replace(MASKS, epochs=one.epochs[0])
    fit(plain, digits, Distill(teacher, digits), schedule, seeds=[SEED], stage="masks", progress=False)
    expected = plain.state_dict()
    for key, value in one.model.state_dict().items():
        if not key.endswith("alpha"):
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-5)
    assert any(not torch.equal(value, expected[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_control_snapshots_equal_separate_runs_stopped_there_bit_for_bit(
    decay: str, teacher: nn.Module, digits: GroupedData
) -> None:
    """Whatever else is asked for, and on the method's own rates: a cosine runs over the schedule's epochs."""
    schedule = Schedule(epochs=12, optimizer="sgd", lr=0.01, decay=decay)
    asked = [stopped_at((stop,), teacher, digits) for stop in (2, 5, 9)]
    together = control(teacher, digits, asked, seeds=[SEED], schedule=schedule, progress=False)
    for one, want in zip(together, asked, strict=True):
        (alone,) = control(teacher, digits, [want], seeds=[SEED], schedule=schedule, progress=False)
        assert bits(one.model) == bits(alone.model)
        gated = gates.freeze(gates.install(teacher, digits.input_shape))
        (stop,) = want.epochs
        fit(
            gated,
            digits,
            Distill(teacher, digits),
            schedule,
            seeds=[SEED],
            stage="masks",
            after_epoch=lambda epoch, stop=stop: epoch + 1 == stop,
            progress=False,
        )
        assert bits(gated) == bits(one.model)
    assert len({tuple(bits(one.model).items()) for one in together}) == 3


def test_control_of_a_one_shot_method_is_the_teacher_itself(teacher: nn.Module, digits: GroupedData) -> None:
    (one,) = control(teacher, digits, [stopped_at((0,), teacher, digits)], seeds=[SEED], schedule=MASKS, progress=False)
    assert torch.equal(predict(one.model, digits, "test"), predict(teacher, digits, "test"))
    state = bits(one.model)
    assert {key: state[key] for key in bits(teacher)} == bits(teacher)


def test_each_member_of_an_ensemble_stops_at_its_own_epoch() -> None:
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    teacher = Ensemble([build("mlp", one.input_shape, 10, width=8, seed=seed) for seed, one in enumerate(sets)])
    schedule = Schedule(epochs=5, optimizer="sgd", lr=0.01)

    def run(*stops: tuple[int, int]) -> list[LinearizedModel]:
        asked = [stopped_at(stop, teacher, sets) for stop in stops]
        return control(teacher, sets, asked, seeds=[5, 6], schedule=schedule, progress=False)

    (mixed,) = run((1, 4))
    early, late = run((1, 1), (4, 4))
    assert bits(mixed.model.member(0)) == bits(early.model.member(0)) != bits(late.model.member(0))
    assert bits(mixed.model.member(1)) == bits(late.model.member(1)) != bits(early.model.member(1))
    assert mixed.kept == (16, 16)


def test_a_schedule_shorter_than_the_masks_was_is_refused(teacher: nn.Module, digits: GroupedData) -> None:
    with pytest.raises(ValueError, match="after 9 epochs"):
        control(
            teacher,
            digits,
            [stopped_at((9,), teacher, digits)],
            seeds=[SEED],
            schedule=replace(MASKS, epochs=5),
            progress=False,
        )


def test_control_leaves_teacher_and_records_bit_for_bit(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    before = bits(teacher), [bits(one.model) for one in path]
    control(teacher, digits, path, seeds=[SEED], schedule=MASKS, progress=False)
    assert (bits(teacher), [bits(one.model) for one in path]) == before


# Fine-tuning


def test_finetuning_keeps_the_mask_and_the_input_bit_for_bit_and_changes_the_weights(
    path: list[LinearizedModel], controls: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    for one in (*path, *controls):
        before, taught = bits(one.model), bits(teacher)
        tuned = finetune(one, teacher, digits, seeds=[SEED], schedule=TUNE, progress=False)
        after = bits(tuned.model)
        assert bits(one.model) == before
        assert bits(teacher) == taught
        assert {key for key in after if after[key] == before[key]} == {key for key in after if key.endswith("alpha")}
        assert (tuned.method, tuned.budget, tuned.budget_units) == (one.method, one.budget, one.budget_units)
        assert (tuned.epochs, tuned.kept, tuned.history) == (one.epochs, one.kept, one.history)
        kept = {site: alpha[0].bool() for site, alpha in gates.alphas(tuned.model).items()}
        assert all(torch.equal(unit, kept[site]) for site, unit in one.mask.units.items())


def test_finetuning_equals_fit_on_the_distillation_objective_bit_for_bit(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    """Same seed, stage and masks; and a base objective gives something else."""
    tuned = finetune(path[1], teacher, digits, seeds=[SEED], schedule=TUNE, progress=False)
    found = []
    for objective in (Distill(teacher, digits), supervised):
        model = copy.deepcopy(path[1].model)
        fit(model, digits, objective, TUNE, seeds=[SEED], stage="finetune", progress=False)
        found.append(bits(model))
    assert found[0] == bits(tuned.model) != found[1]


def test_finetuning_freezes_alphas_that_came_unfrozen(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    loose = replace(path[0], model=gates.freeze(copy.deepcopy(path[0].model), frozen=False))
    tuned = finetune(loose, teacher, digits, seeds=[SEED], schedule=TUNE, progress=False)
    assert bits(tuned.model) == bits(
        finetune(path[0], teacher, digits, seeds=[SEED], schedule=TUNE, progress=False).model
    )


def test_finetuning_on_distillation_brings_the_student_nearer_to_the_teacher(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    """Its purpose, on the training split: the loss at the end of a longer run is below that at its start."""
    source = predict(teacher, digits, "train").softmax(1)
    one = path[1]
    tuned = finetune(one, teacher, digits, seeds=[SEED], schedule=replace(TUNE, epochs=20), progress=False)

    def divergence(model: nn.Module) -> float:
        logits = predict(model, digits, "train")
        return (source * (source.log() - logits.log_softmax(1))).sum(1).mean().item()

    assert divergence(tuned.model) < divergence(one.model)
