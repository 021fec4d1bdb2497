"""Starts of students, runs without fine-tuning and mitigations over the whole run, against `fit` and closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import (
    LINEARIZERS,
    RELEASED_DEEPREDUCE,
    DeepReDuce,
    LinearizedModel,
    control,
    deepreduce,
    linearize,
)
from linfair.linearizers.finetuning import fresh, starting
from linfair.mitigation import BalancedSampling, KDOverC, Lagrangian
from linfair.models import NETWORKS, build
from linfair.training import Distill, Schedule, fit

BRIEF = Schedule(epochs=1, batch_size=64, lr=0.02, momentum=0.9, nesterov=True)
FRESH = DeepReDuce(configurations=("1,4",), start="fresh", finetuning=False, schedule=BRIEF)
SEED = 3


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def small(digits: GroupedData) -> GroupedData:
    """64 training images, no shifts."""
    part = digits.splits["train"]
    cut = replace(part, x=part.x[:64], y=part.y[:64], a=part.a[:64])
    return replace(digits, splits=digits.splits | {"train": cut}, shift=0)


@pytest.fixture(scope="module")
def teacher(small: GroupedData) -> nn.Module:
    return build("resnet18", small.input_shape, 10, width=2).eval()


def run(teacher: nn.Module, data: GroupedData, options: DeepReDuce) -> LinearizedModel:
    [one] = deepreduce(teacher, data, None, seeds=[SEED], options=options, progress=False)
    return one


# Fresh weights


@pytest.mark.parametrize("name", NETWORKS)
def test_fresh_weights_are_what_torch_draws_for_each_layer(name: str) -> None:
    """Linear and convolution: uniform within 1 / sqrt(fan in); batch norm: 1, 0 and statistics 0, 1."""
    shape = (1, 12, 12)
    network = build(name, shape, 10, width=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    for module in fresh(network, SEED).modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0 < module.weight.abs().max() <= bound + 1e-6
        elif isinstance(module, nn.BatchNorm2d):
            values = (module.weight, module.bias, module.running_mean, module.running_var)
            assert [value.unique().tolist() for value in values] == [[1.0], [0.0], [0.0], [1.0]]
    assert all((parameter == 7.0).all() for parameter in network.parameters()), "the original is left"


def test_fresh_weights_depend_on_the_seed_alone_and_are_not_those_of_the_teachers_start(teacher: nn.Module) -> None:
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    one, again, other = (
        fresh(teacher, 0),
        fresh(build("resnet18", (1, 12, 12), 10, width=2, seed=5), 0),
        fresh(teacher, 1),
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bits(one) == bits(again)
    own = build("resnet18", (1, 12, 12), 10, width=2, seed=0)
    for unlike in (other, own):
        assert not torch.equal(one.head.weight, unlike.head.weight)


def test_members_of_an_ensemble_start_as_they_would_alone() -> None:
    networks = [build("mlp", (4,), 3, width=5, seed=seed) for seed in (0, 1)]
    members = starting(Ensemble(networks), "fresh", [7, 8]).networks()
    assert [bits(one) for one in members] == [bits(fresh(networks[0], seed)) for seed in (7, 8)]
    assert bits(starting(networks[0], "teacher", [7])) == bits(networks[0])


def test_weights_that_cannot_be_drawn_anew_are_refused_by_name() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match="module '1' holds weights and has no reset_parameters"):
        fresh(nn.Sequential(nn.Linear(2, 2), Scaled()), 0)
    with pytest.raises(ValueError, match="start = 'cold' is not allowed; start is one of teacher, fresh"):
        DeepReDuce(start="cold")


def test_a_fresh_student_knows_the_teacher_by_its_answers_alone(teacher: nn.Module, small: GroupedData) -> None:
    """Without distillation two teachers give one student; from the teachers' weights they give two."""
    other = build("resnet18", small.input_shape, 10, width=2, seed=9).eval()
    alone = replace(FRESH, kd_weight=0.0)
    assert bits(run(teacher, small, alone).model) == bits(run(other, small, alone).model)
    warm = replace(alone, start="teacher")
    assert bits(run(teacher, small, warm).model) != bits(run(other, small, warm).model)


# A method's own training is the whole run


def test_without_fine_tuning_a_record_is_the_network_as_it_was_trained(teacher: nn.Module, small: GroupedData) -> None:
    [one] = linearize(teacher, small, method="deepreduce", budgets=[0.4], seeds=[SEED], options=FRESH, progress=False)
    assert bits(one.model) == bits(run(teacher, small, FRESH).model)
    assert one.accuracy_before == one.accuracy_after and one.configurations == ("1,4",)


def test_the_control_is_the_students_training_with_every_relu_kept(teacher: nn.Module, small: GroupedData) -> None:
    """Oracle: DeepReDuce itself with a configuration that culls nothing, bit for bit."""
    method = LINEARIZERS["deepreduce"]
    for start in ("fresh", "teacher"):
        options = replace(FRESH, start=start)
        shared = method.phase(options, teacher, small, [SEED]) | {"seeds": [SEED], "progress": False}
        [kept] = control(teacher, small, [run(teacher, small, options)], **shared)
        nothing = run(teacher, small, replace(options, configurations=("",)))
        assert nothing.kept == kept.kept == (gates.total_units(kept.model),)
        assert bits(kept.model) == bits(nothing.model)


def test_the_released_settings_are_those_of_the_reproduction_notes() -> None:
    one = RELEASED_DEEPREDUCE
    assert (one.temperature, one.kd_weight, one.start, one.finetuning) == (1.0, 0.5, "fresh", False)
    schedule = one.schedule
    assert (schedule.epochs, schedule.batch_size, schedule.lr, schedule.decay) == (200, 512, 1e-3, "cosine")
    assert schedule.nesterov and schedule.momentum == 0.9 and schedule.weight_decay == 5e-4


# Mitigation over the whole run


def by_fit(teacher: nn.Module, data: GroupedData, objective: Distill) -> nn.Module:
    """The student of `FRESH`, trained by `fit` alone."""
    gated = gates.freeze(gates.install(fresh(teacher, SEED), data.input_shape))
    units = run(teacher, data, FRESH).mask.units
    gates.set_alphas(gated, lambda site, _: units[site].float()[None])
    fit(gated, data, objective, BRIEF, seeds=[SEED], stage="masks", progress=False)
    return gated


def test_the_mitigations_objective_takes_the_place_of_the_distillation_loss(
    teacher: nn.Module, small: GroupedData
) -> None:
    """KD / C of the whole run: 0.1 CE + 0.9 / 10 KD."""
    one = run(teacher, small, replace(FRESH, mitigation=KDOverC()))
    expected = by_fit(teacher, small, Distill(teacher, small, ce=1 - 0.9, kd=0.9 / 10))
    assert bits(one.model) == bits(expected)
    assert one.mitigation == KDOverC() and bits(one.model) != bits(run(teacher, small, FRESH).model)


def test_multipliers_are_logged_and_without_a_step_nothing_changes(teacher: nn.Module, small: GroupedData) -> None:
    plain, idle = run(teacher, small, FRESH), run(teacher, small, replace(FRESH, mitigation=Lagrangian(mu=0.0)))
    assert bits(idle.model) == bits(plain.model)
    active = run(teacher, small, replace(FRESH, mitigation="lagrangian"))
    assert len(active.finetuning) == BRIEF.epochs and max(active.finetuning[-1]["multipliers"][0]) > 0


def test_a_mitigation_that_diverges_is_a_record_that_says_so(teacher: nn.Module, small: GroupedData) -> None:
    lost = run(teacher, small, replace(FRESH, mitigation=Lagrangian(mu=1e6, limit=1.0)))
    assert lost.diverged == (0,) and lost.kept == run(teacher, small, FRESH).kept
    assert torch.equal(lost.model.head.weight, fresh(teacher, SEED).head.weight), "as it started"


def test_members_of_an_ensemble_are_mitigated_as_they_would_be_alone() -> None:
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    networks = [build("mlp", sets[0].input_shape, 10, width=9, seed=seed).eval() for seed in (0, 1)]
    options = replace(FRESH, configurations=("1",), mitigation=BalancedSampling())
    [both] = deepreduce(Ensemble(networks), sets, None, seeds=[5, 6], options=options, progress=False)
    for member, (network, data, seed) in enumerate(zip(networks, sets, (5, 6), strict=True)):
        [alone] = deepreduce(network, data, None, seeds=[seed], options=options, progress=False)
        ours, theirs = both.model.member(member).state_dict(), alone.model.state_dict()
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    assert both.configurations == ("1", "1") and both.diverged == (None, None)
