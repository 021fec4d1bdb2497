"""Every mitigation on two networks and every network under two, alone, in an ensemble and while SNL selects."""

import copy
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
from thin import WIDTHS
from torch import nn

from linfair import gates
from linfair.data import GroupedData, Split, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, LinearizedModel, finetune, snl
from linfair.linearizers.registry import LINEARIZERS
from linfair.mitigation import MITIGATIONS, BalancedSampling, EqualGradients, ExcessDrop, GroupDRO, Lagrangian
from linfair.models import NETWORKS, build
from linfair.rules import Clipped
from linfair.training import Schedule, fit

CASES = [(list(WIDTHS)[(at + step) % len(WIDTHS)], name) for at, name in enumerate(MITIGATIONS) for step in (0, 2, 5)]
ONE = Schedule(epochs=1, batch_size=32, optimizer="adamw", lr=1e-3)
STRONG = {
    "lagrangian": Lagrangian(mu=0.5, clip=5.0),
    "excess_drop": ExcessDrop(mu=5.0),
    "group_dro": GroupDRO(step=0.1),
    "equal_gradients": EqualGradients(mu=0.01, eigenvalues=False),  # eigenvalues have their own tests
}
QUICK = SNL(lasso=1e-2, growth=1.3, warmup=2, schedule=Schedule(epochs=60, optimizer="adam", lr=1e-3, alpha_lr=9e-3))


def options_of(name: str) -> object:
    return STRONG.get(name) or MITIGATIONS[name].options()


def few(seed: int) -> GroupedData:
    """96 images to train on, unshifted."""
    data = load_data("digits", seed=seed)
    split = data.splits["train"]
    index = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:96]
    cut = Split(split.x[index], split.y[index], split.a[index])
    return replace(data, splits=data.splits | {"train": cut}, shift=0)


@cache
def student_of(network: str) -> tuple[LinearizedModel, nn.Module, GroupedData]:
    data = few(0)
    teacher = build(network, data.input_shape, 10, width=WIDTHS[network], seed=0).eval()
    (one,) = LINEARIZERS["uniform"].run(teacher, data, (0.3,), seeds=[0], options=None, progress=False)
    return one, teacher, data


def test_the_cases_cover_every_network_twice() -> None:
    assert set(WIDTHS) == set(NETWORKS)
    assert min(Counter(network for network, _ in CASES).values()) >= 2


@pytest.mark.parametrize(("network", "name"), CASES)
def test_every_mitigation_trains_the_network_and_keeps_its_mask(network: str, name: str) -> None:
    """All weights move and stay finite; teacher, input record and mask are left as they were."""
    one, teacher, data = student_of(network)
    before, taught = copy.deepcopy(one.model.state_dict()), copy.deepcopy(teacher.state_dict())
    tuned = finetune(one, teacher, data, seeds=[0], schedule=ONE, mitigation=options_of(name), progress=False)
    assert all(torch.equal(value, before[key]) for key, value in one.model.state_dict().items())
    assert all(torch.equal(value, taught[key]) for key, value in teacher.state_dict().items())
    for key, value in tuned.model.state_dict().items():
        assert torch.isfinite(value).all()
        if key.endswith("alpha"):
            assert torch.equal(value, before[key])
        elif key.endswith("weight"):
            assert not torch.equal(value, before[key])
    (row,) = tuned.finetuning
    assert row["epoch"] == 0
    assert tuned.mitigation == (None if name == "plain" else options_of(name))
    for column in set(row) - {"epoch", "loss", "diverged"}:
        assert torch.tensor(row[column]).shape == (1, 10)
    assert tuned.kept == one.kept


@pytest.fixture(scope="module")
def pair() -> tuple[list[LinearizedModel], LinearizedModel, list[nn.Module], list[GroupedData]]:
    """Two students alone and as an ensemble, with their teachers and data."""
    sets = [few(seed) for seed in (5, 6)]
    teachers = [build("mlp", one.input_shape, 10, width=8, seed=seed).eval() for seed, one in enumerate(sets)]
    run = LINEARIZERS["uniform"].run
    (both,) = run(Ensemble(teachers), sets, (0.5,), seeds=[5, 6], options=None, progress=False)
    alone = [replace(both, model=both.model.member(m), masks=[both.masks[m]]) for m in range(2)]
    return alone, both, teachers, sets


@pytest.mark.parametrize("name", MITIGATIONS)
def test_an_ensemble_equals_its_members_alone(
    name: str, pair: tuple[list[LinearizedModel], LinearizedModel, list[nn.Module], list[GroupedData]]
) -> None:
    """Weights and logs after three epochs, to rounding."""
    alone, both, teachers, sets = pair
    schedule = replace(ONE, epochs=3, optimizer="sgd", lr=0.01)
    run = {"schedule": schedule, "mitigation": options_of(name), "progress": False}
    together = finetune(both, Ensemble(teachers), sets, seeds=[5, 6], **run)
    for m in range(2):
        one = finetune(alone[m], teachers[m], sets[m], seeds=[(5, 6)[m]], **run)
        state = together.model.member(m).state_dict()
        for key, value in one.model.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-5)
        for ours, theirs in zip(together.finetuning, one.finetuning, strict=True):
            for column in set(theirs) - {"epoch", "diverged"}:
                torch.testing.assert_close(
                    torch.tensor(ours[column][m]), torch.tensor(theirs[column][0]), rtol=1e-3, atol=1e-5
                )
    plain = finetune(both, Ensemble(teachers), sets, seeds=[5, 6], schedule=schedule, progress=False)
    same = all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), together.model.parameters(), strict=True))
    assert same == (name == "plain")


def test_a_mitigation_of_ones_own_is_taken_as_it_is(
    pair: tuple[list[LinearizedModel], LinearizedModel, list[nn.Module], list[GroupedData]],
) -> None:
    """Anything with `start`; here one that starts the plain objective and counts."""
    alone, _, teachers, sets = pair
    started = []

    class Own:
        name = "own"

        def start(self, model: nn.Module, teacher: nn.Module, data: GroupedData) -> object:
            started.append((model, teacher, data))
            return MITIGATIONS["plain"].options().start(model, teacher, data)

    mine = Own()
    tuned = finetune(alone[0], teachers[0], sets[0], seeds=[5], schedule=ONE, mitigation=mine, progress=False)
    plain = finetune(alone[0], teachers[0], sets[0], seeds=[5], schedule=ONE, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(tuned.model.parameters(), plain.model.parameters(), strict=True))
    assert tuned.mitigation is mine
    assert [one[1:] for one in started] == [(teachers[0], sets[0])]


# Fair selection


def select(teacher: nn.Module, data: GroupedData, mitigation: object) -> LinearizedModel:
    """SNL's record of 30 % of the ReLUs."""
    options = replace(QUICK, mitigation=mitigation)
    return snl(teacher, data, (0.3,), seeds=[3], options=options, progress=False)[0]


def test_selection_with_mu_0_equals_selection_without_bit_for_bit(teacher: nn.Module, digits: GroupedData) -> None:
    """And a multiplier that moves changes weights and alphas."""
    found = [select(teacher, digits, one) for one in (None, Lagrangian(mu=0.0), Lagrangian(mu=0.05))]
    states = [{k: v.numpy().tobytes() for k, v in one.model.state_dict().items()} for one in found]
    assert states[0] == states[1] != states[2]
    assert found[0].epochs == found[1].epochs
    last = found[2].history[-1]
    assert len(last["kept"]) == 1
    assert max(last["multipliers"][0]) > 0
    assert "multipliers" not in found[0].history[-1]


@pytest.mark.parametrize(
    "options", [Lagrangian(mu=0.05), Lagrangian(mu=0.05, clip=0.05), BalancedSampling()], ids=["plain", "clip", "draws"]
)
def test_selections_objective_is_the_mitigations_plus_the_lasso(
    options: object, teacher: nn.Module, digits: GroupedData
) -> None:
    """Lambda held at its first value: the mask phase equals `fit` on the sum written here, bit for bit."""
    steps, lasso = 3, 1e-2
    schedule = Schedule(epochs=steps, optimizer="adam", lr=1e-3, alpha_lr=9e-3)
    model = gates.install(teacher, digits.input_shape)
    mitigated = options.start(model, teacher, digits)

    def objective(network: nn.Module, batch: object) -> torch.Tensor:
        alphas = [parameter for name, parameter in network.named_parameters() if name.endswith("alpha")]
        return mitigated(network, batch) + lasso * sum(alpha.abs().sum() for alpha in alphas)

    fit(model, digits, objective, schedule, seeds=[3], stage="masks", check=mitigated.after_epoch,
        batches=mitigated.batches, gradient=Clipped(0.05) if getattr(options, "clip", None) else None,
        progress=False)  # fmt: skip
    alphas = torch.cat([gate.alpha.detach().flatten() for gate in gates.sites(model).values()])
    mask = alphas > float(alphas.median())
    path = SNL(lasso=lasso, growth=1.0, threshold=float(alphas.median()), mitigation=options,
               schedule=replace(schedule, epochs=steps))  # fmt: skip
    (one,) = snl(teacher, digits, (0.5,), seeds=[3], options=path, progress=False)
    assert one.epochs == (steps,)
    kept = torch.cat([unit.flatten() for unit in one.mask.units.values()])
    assert torch.equal(kept, mask)
    state = model.state_dict()
    weights = {k: v for k, v in one.model.state_dict().items() if not k.endswith("alpha")}
    assert all(torch.equal(value, state[key]) for key, value in weights.items())


@pytest.mark.parametrize("name", MITIGATIONS)
def test_every_mitigation_runs_while_the_mask_is_selected_by_name(
    name: str, teacher: nn.Module, digits: GroupedData
) -> None:
    one = select(teacher, digits, STRONG[name] if name == "equal_gradients" else name)
    assert 0 < one.kept[0] <= one.budget_units
    assert len(one.history) == one.epochs[0]
