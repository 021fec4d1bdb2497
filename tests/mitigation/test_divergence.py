"""Divergence: named where it ends a run, isolated where other members go on. Clipping against torch's."""

import copy
import math

import pytest
import torch
from torch import nn

from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, LinearizedModel, finetune, snl
from linfair.linearizers.registry import LINEARIZERS
from linfair.mitigation import ExcessDrop, GroupDRO, Lagrangian
from linfair.models import build
from linfair.rules import Clipped
from linfair.training import Schedule, TrainingDiverged, fit, supervised

SEED = 3
TUNE = Schedule(epochs=5, batch_size=100, optimizer="adamw", lr=1e-3)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def trio() -> tuple[LinearizedModel, Ensemble, list[GroupedData]]:
    """Three students of half the ReLUs, briefly trained teachers; tests must leave them as they are."""
    sets = [load_data("digits", seed=seed) for seed in (5, 6, 7)]
    networks = [build("mlp", one.input_shape, 10, width=8, seed=seed) for seed, one in enumerate(sets)]
    teacher = Ensemble(networks)
    fit(teacher, sets, supervised, Schedule(epochs=3, optimizer="adamw", lr=3e-3), seeds=[5, 6, 7], stage="base",
        progress=False)  # fmt: skip
    run = LINEARIZERS["random"].run
    (student,) = run(teacher, sets, (0.5,), seeds=[5, 6, 7], options=None, progress=False)
    return student, teacher, sets


def poison(student: LinearizedModel, member: int) -> LinearizedModel:
    """The same record with one member's head infinite: its loss is nan from the first batch on."""
    broken = copy.deepcopy(student)
    with torch.no_grad():
        list(broken.model.parameters())[-1][member] = math.inf
    return broken


# Clipping


@pytest.mark.parametrize("norm", [1e-3, 0.5, 1e6])
def test_clipping_equals_torchs_for_each_member(norm: float) -> None:
    networks = [build("mlp", (5,), 3, width=4, seed=seed) for seed in range(3)]
    ensemble = Ensemble(networks)
    x = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0))
    loss = Clipped(norm)(ensemble, lambda batch: (ensemble(batch) ** 2).flatten(1).sum(1), x)
    torch.testing.assert_close(loss, (ensemble(x) ** 2).flatten(1).sum(1).detach())
    for member, network in enumerate(networks):
        other = copy.deepcopy(network)
        (network(x[member]) ** 2).sum().backward()
        before = torch.nn.utils.clip_grad_norm_(network.parameters(), norm)
        Clipped(norm)(other, lambda batch, other=other: (other(batch) ** 2).sum(), x[member])
        stacked = [parameter.grad[member] for parameter in ensemble.parameters()]
        for ours, alone, theirs in zip(stacked, other.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(alone.grad, theirs.grad, rtol=1e-5, atol=1e-8)
        after = torch.cat([parameter.grad.flatten() for parameter in other.parameters()]).norm()
        assert after.item() == pytest.approx(min(norm, before.item()), rel=1e-3)


def test_fit_clips_every_step(digits: GroupedData, teacher: nn.Module) -> None:
    """Plain SGD at rate 1 without momentum: one full-batch step is as long as the clipped gradient."""
    model = copy.deepcopy(teacher)
    step = Schedule(epochs=1, batch_size=None, lr=1.0, momentum=0.0)
    fit(model, digits, supervised, step, seeds=[SEED], stage="base", gradient=Clipped(0.01), progress=False)
    moved = [a - b for a, b in zip(model.parameters(), teacher.parameters(), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("kind", [Lagrangian, ExcessDrop, GroupDRO])
def test_finetuning_clips_as_the_mitigation_says(
    kind: type, student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    """The same step: as long as the clipped gradient, and longer without a bound."""
    step = Schedule(epochs=1, batch_size=None, lr=1.0, momentum=0.0)
    lengths = []
    for clip in (0.01, None):
        tuned = finetune(student, teacher, digits, seeds=[SEED], schedule=step, mitigation=kind(clip=clip),
                         progress=False)  # fmt: skip
        moved = [a - b for a, b in zip(tuned.model.parameters(), student.model.parameters(), strict=True)]
        lengths.append(torch.cat([m.flatten() for m in moved]).norm().item())
    assert lengths[0] == pytest.approx(0.01, rel=1e-2)
    assert lengths[1] > 0.1


# Single networks


@pytest.mark.parametrize(
    ("options", "name"),
    [(Lagrangian(mu=9.0, limit=20.0), "lagrangian"), (ExcessDrop(mu=2e3, limit=20.0), "excess_drop")],
)
def test_an_exploding_multiplier_of_one_network_names_mu_epoch_and_seed(
    options: object, name: str, student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    found = rf"50 %, {name}: a multiplier of {name} is .*, above its limit 20, in epoch \d for seeds \[3\]; " \
            rf"lower mu \({options.mu:g}\) or bound the gradients \(clip=5\)"  # fmt: skip
    with pytest.raises(TrainingDiverged, match=found):
        finetune(student, teacher, digits, seeds=[SEED], schedule=TUNE, mitigation=options, progress=False)


def test_a_loss_that_is_nan_names_mu_too(student: LinearizedModel, teacher: nn.Module, digits: GroupedData) -> None:
    broken = copy.deepcopy(student)
    with torch.no_grad():
        list(broken.model.parameters())[-1][0] = math.inf
    with pytest.raises(TrainingDiverged, match=r"epoch 0 for seeds \[3\]; lower mu \(0.01\) or bound .* \(clip=2\)"):
        finetune(broken, teacher, digits, seeds=[SEED], schedule=TUNE, mitigation=Lagrangian(mu=0.01, clip=4.0),
                 progress=False)  # fmt: skip


# Ensembles


@pytest.mark.parametrize("mitigation", ["lagrangian", "kd_over_c", "group_dro"])
def test_a_diverging_member_is_marked_set_back_and_the_others_train_as_if_it_had_not(
    mitigation: str, trio: tuple[LinearizedModel, Ensemble, list[GroupedData]]
) -> None:
    """Oracle: the same run with a healthy member in its place, bit for bit."""
    student, teacher, sets = trio
    run = {"seeds": [5, 6, 7], "schedule": TUNE, "mitigation": mitigation, "progress": False}
    healthy = finetune(student, teacher, sets, **run)
    broken = poison(student, 1)
    found = finetune(broken, teacher, sets, **run)
    assert healthy.diverged == (None, None, None)
    assert found.diverged == (None, 0, None)
    for name, value in state(found.model).items():
        assert torch.equal(value[[0, 2]], state(healthy.model)[name][[0, 2]])
        assert torch.equal(value[1], state(broken.model)[name][1])
    assert len(found.finetuning) == 5
    assert all(row["diverged"] == [None, 0, None] for row in found.finetuning)
    losses = [[math.isnan(loss) for loss in row["loss"]] for row in found.finetuning]
    assert losses == [[False, True, False]] * 5


def test_a_member_that_diverges_later_goes_back_to_its_last_good_epoch(
    trio: tuple[LinearizedModel, Ensemble, list[GroupedData]],
) -> None:
    """A limit that one member's multipliers pass first; it equals a run that ended the epoch before."""
    student, teacher, sets = trio

    def run(limit: float, epochs: int) -> LinearizedModel:
        schedule = Schedule(epochs=epochs, batch_size=100, optimizer="adamw", lr=1e-3)
        options = Lagrangian(mu=0.1, limit=limit)
        return finetune(student, teacher, sets, seeds=[5, 6, 7], schedule=schedule, mitigation=options, progress=False)

    free = run(1e9, 6)
    largest = torch.tensor([row["multipliers"] for row in free.finetuning]).amax(dim=2)
    first = int(largest[3].argmax())
    limit = (largest[3, first] - 1e-6).item()
    bounded = run(limit, 6)
    expected = [next((e for e in range(6) if largest[e, m] > limit), None) for m in range(3)]
    assert list(bounded.diverged) == expected
    assert expected[first] == 3
    early = state(run(1e9, 3).model)
    for name, value in state(bounded.model).items():
        assert torch.equal(value[first], early[name][first])


def test_training_ends_when_no_member_is_left(trio: tuple[LinearizedModel, Ensemble, list[GroupedData]]) -> None:
    student, teacher, sets = trio
    found = finetune(student, teacher, sets, seeds=[5, 6, 7], schedule=TUNE,
                     mitigation=Lagrangian(mu=1.0, limit=1e-9), progress=False)  # fmt: skip
    assert found.diverged == (0, 0, 0)
    assert len(found.finetuning) == 1
    assert all(torch.equal(value, state(student.model)[name]) for name, value in state(found.model).items())


def test_without_a_mitigation_a_diverging_ensemble_still_raises(
    trio: tuple[LinearizedModel, Ensemble, list[GroupedData]],
) -> None:
    student, teacher, sets = trio
    with pytest.raises(
        TrainingDiverged, match=r"the loss is not finite in epoch 0 for seeds \[6\]; lower the learning"
    ):
        finetune(poison(student, 1), teacher, sets, seeds=[5, 6, 7], schedule=TUNE, progress=False)


def test_divergence_in_the_mask_phase_names_the_seeds(teacher: nn.Module, digits: GroupedData) -> None:
    options = SNL(mitigation=Lagrangian(mu=9.0, limit=1.0), schedule=Schedule(epochs=30, optimizer="adam", lr=1e-3))
    with pytest.raises(
        TrainingDiverged, match=r"snl: mask path: a multiplier of lagrangian .* for seeds \[3\]; lower mu"
    ):
        snl(teacher, digits, (0.5,), seeds=[SEED], options=options, progress=False)
