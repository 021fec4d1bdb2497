"""SNL's one path for all budgets against separate runs, a second implementation, and its own rules replayed by hand."""

import copy
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, BudgetOutOfReach, LinearizedModel, snl
from linfair.linearizers.record import budget_units
from linfair.linearizers.snl import _Path
from linfair.models import build
from linfair.training import Schedule, Source, fit, supervised

SEED = 3
BUDGETS = (0.7, 0.4, 0.1)
QUICK = SNL(lasso=1e-2, growth=1.3, warmup=2, schedule=Schedule(epochs=200, optimizer="adam", lr=1e-3, alpha_lr=9e-3))


def run(teacher: nn.Module, data: GroupedData, budgets: tuple[float, ...] = BUDGETS, **changes: object) -> list:
    return snl(teacher, data, budgets, seeds=[SEED], options=replace(QUICK, **changes), progress=False)


@pytest.fixture(scope="module")
def pair(one_thread: None) -> tuple[Ensemble, list[GroupedData]]:
    """Two trained networks as one ensemble."""
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    ensemble = Ensemble([build("mlp", one.input_shape, 10, width=16, seed=seed) for seed, one in enumerate(sets)])
    schedule = Schedule(epochs=15, optimizer="adamw", lr=3e-3)
    fit(ensemble, sets, supervised, schedule, seeds=[5, 6], stage="base", progress=False)
    return ensemble.eval(), sets


@pytest.fixture(scope="module")
def path(teacher: nn.Module, digits: GroupedData) -> list[LinearizedModel]:
    """One path at all budgets; tests must leave it as it is."""
    return run(teacher, digits)


def assert_equal_bit_for_bit(one: LinearizedModel, other: LinearizedModel) -> None:
    assert (one.budget, one.budget_units, one.epochs, one.kept) == (
        other.budget,
        other.budget_units,
        other.epochs,
        other.kept,
    )
    for ours, theirs in zip(one.masks, other.masks, strict=True):
        assert all(torch.equal(unit, theirs.units[site]) for site, unit in ours.units.items())
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[key].numpy().tobytes() == theirs[key].numpy().tobytes() for key in ours)


# One path for all budgets


def test_one_path_equals_a_separate_run_for_each_budget_bit_for_bit(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    assert len({one.epochs for one in path}) == len(BUDGETS)
    for one in path:
        torch.manual_seed(int(100 * one.budget))
        (alone,) = run(teacher, digits, (one.budget,))
        assert_equal_bit_for_bit(one, alone)
        assert alone.history == path[0].history[: one.epochs[0]]


def test_one_path_of_an_ensemble_equals_separate_runs_bit_for_bit(pair: tuple[Ensemble, list[GroupedData]]) -> None:
    ensemble, sets = pair
    together = snl(ensemble, sets, BUDGETS, seeds=[5, 6], options=QUICK, progress=False)
    for one in together:
        (alone,) = snl(ensemble, sets, (one.budget,), seeds=[5, 6], options=QUICK, progress=False)
        assert_equal_bit_for_bit(one, alone)
    assert all(len(one.masks) == len(one.epochs) == 2 for one in together)
    with pytest.raises(ValueError, match="holds 2 networks"):
        _ = together[0].mask


def test_a_member_follows_the_path_it_has_alone(pair: tuple[Ensemble, list[GroupedData]]) -> None:
    """To rounding: the first epochs' losses and counts."""
    ensemble, sets = pair
    together = snl(ensemble, sets, (0.7,), seeds=[5, 6], options=QUICK, progress=False)[0]
    for member, seed in enumerate((5, 6)):
        (alone,) = snl(ensemble.member(member), sets[member], (0.7,), seeds=[seed], options=QUICK, progress=False)
        ours, own = together.history[:10], alone.history[:10]
        assert [row["kept"][member] for row in ours] == [row["kept"][0] for row in own]
        assert [row["loss"][member] for row in ours] == pytest.approx([row["loss"][0] for row in own], rel=1e-3)


# What a record says


def test_counts_are_within_the_budgets_and_are_the_masks_and_the_historys(path: list[LinearizedModel]) -> None:
    counts = [row["kept"][0] for row in path[0].history]
    for one, budget in zip(path, BUDGETS, strict=True):
        assert (one.method, one.budget, one.budget_units) == ("snl", budget, budget_units(budget, 32))
        stop = next(epoch for epoch, count in enumerate(counts) if count <= one.budget_units)
        assert one.epochs == (stop + 1,)
        assert one.kept == (counts[stop],) == (one.mask.kept,)
        assert one.mask.kept == int(gates.kept_units(one.model)) <= one.budget_units
    assert len(counts) == path[-1].epochs[0]
    assert [row["epoch"] for row in path[0].history] == list(range(len(counts)))


def test_snapshots_are_binary_frozen_and_nested_in_nothing_shared(path: list[LinearizedModel]) -> None:
    for one in path:
        for site, alpha in gates.alphas(one.model).items():
            assert torch.equal(alpha[0], one.mask.units[site].float())
        assert not any(gate.alpha.requires_grad for gate in gates.sites(one.model).values())
        assert all(p.requires_grad for name, p in one.model.named_parameters() if not name.endswith("alpha"))
    pointers = [p.data_ptr() for one in path for p in one.model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_the_teacher_is_left_bit_for_bit() -> None:
    """A network with batch norm: weights, running statistics, and no gates; one epoch, a budget of 100 %."""
    data = load_data("digits", seed=SEED)
    teacher = build("resnet18", data.input_shape, 10, width=2, seed=1)
    teacher(data.normalise(data.splits["train"].x[:64]))
    before = copy.deepcopy(teacher.state_dict())
    (one,) = run(teacher, data, (1.0,))
    assert one.epochs == (1,)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not gates.sites(teacher)
    assert not torch.equal(one.model.stem[1].running_mean, teacher.stem[1].running_mean)


# The mask alone


def test_rewind_keeps_the_exact_paths_mask_and_the_teachers_weights_bit_for_bit(
    teacher: nn.Module, digits: GroupedData
) -> None:
    exact = run(teacher, digits, exact=True, check_every=1)
    rewound = run(teacher, digits, exact=True, check_every=1, rewind=True)
    weights = teacher.state_dict()
    for one, other in zip(rewound, exact, strict=True):
        assert one.kept == other.kept == (budget_units(one.budget, 32),)
        assert one.epochs == (0,)
        assert other.epochs[0] > 0
        assert all(torch.equal(unit, other.mask.units[site]) for site, unit in one.mask.units.items())
        state = one.model.state_dict()
        assert all(state[name].numpy().tobytes() == value.numpy().tobytes() for name, value in weights.items())
        assert {name for name in state if name not in weights} == {f"{site}.alpha" for site in one.mask.units}
        assert not any(gate.alpha.requires_grad for gate in gates.sites(one.model).values())
        assert any(not torch.equal(other.model.state_dict()[name], value) for name, value in weights.items())


def test_rewind_of_an_ensemble_gives_each_member_its_own_weights_back(
    pair: tuple[Ensemble, list[GroupedData]],
) -> None:
    ensemble, sets = pair
    stepwise = replace(QUICK, exact=True, check_every=1)
    exact, rewound = (
        snl(ensemble, sets, (0.5,), seeds=[5, 6], options=replace(stepwise, rewind=back), progress=False)[0]
        for back in (False, True)
    )
    assert rewound.epochs == (0, 0)
    for member in range(2):
        state = rewound.model.member(member).state_dict()
        assert all(torch.equal(state[name], value) for name, value in ensemble.member(member).state_dict().items())
        masks = zip(rewound.masks[member].units.values(), exact.masks[member].units.values(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in masks)
    assert not torch.equal(*(next(iter(mask.units.values())) for mask in rewound.masks))


# The rules, by hand


def test_lambda_follows_its_rule_replayed_from_the_recorded_counts(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times `growth` after every epoch from number `warmup` on whose count did not fall below the lowest so far."""
    seen = []
    original = _Path.after_epoch

    def spy(self: _Path, epoch: int) -> bool:
        done = original(self, epoch)
        seen.append(self.lasso.item())
        return done

    monkeypatch.setattr(_Path, "after_epoch", spy)
    run(teacher, digits)
    expected, lowest = [torch.tensor(1e-2)], 32
    for epoch, row in enumerate(path[0].history[:-1]):
        (count,) = row["kept"]
        expected.append(expected[-1] * (1.3 if count >= lowest and epoch >= 2 else 1.0))
        lowest = min(lowest, count)
    grown = [value.item() for value in expected[1:]]
    assert seen[:-1] == pytest.approx(grown, rel=1e-6)
    counts = [row["kept"][0] for row in path[0].history]
    assert any(later < now for now, later in zip(counts, counts[1:], strict=False))
    assert any(b > a for a, b in zip(grown, grown[1:], strict=False))
    assert any(b == a for a, b in zip(grown[5:], grown[6:], strict=False))


def test_the_first_epochs_equal_a_second_implementation(
    path: list[LinearizedModel], teacher: nn.Module, digits: GroupedData
) -> None:
    """SNL for this MLP without linfair's gates, losses and loop: alpha relu(x) + (1 - alpha) x, CE + KD + L1."""
    weights = [p.detach().clone().requires_grad_() for p in teacher.parameters()]
    alphas = [torch.ones(16, requires_grad=True) for _ in range(2)]
    step = torch.optim.Adam([{"params": weights, "lr": 1e-3}, {"params": alphas, "lr": 9e-3}])

    def forward(x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, alpha in enumerate(alphas):
            x = F.linear(x, *weights[2 * layer : 2 * layer + 2])
            x = alpha * torch.relu(x) + (1 - alpha) * x
        return F.linear(x, *weights[4:])

    source, lasso, lowest = Source(digits, "train"), 1e-2, 32
    for epoch in range(12):
        total = 0.0
        for index, shifts in source.epoch([f"{SEED}/masks/{epoch}"], 128, augment=True):
            batch = source.take(index, shifts)
            logits = forward(batch.x)
            with torch.no_grad():
                taught = F.softmax(teacher(batch.x) / 4, 1)
            kd = 16 * F.kl_div(F.log_softmax(logits / 4, 1), taught, reduction="batchmean")
            loss = F.cross_entropy(logits, batch.y) + kd + lasso * sum(alpha.abs().sum() for alpha in alphas)
            step.zero_grad()
            loss.backward()
            step.step()
            total += loss.item() * len(batch.y)
        kept = sum(int((alpha > 0.01).sum()) for alpha in alphas)
        row = path[0].history[epoch]
        assert row["loss"][0] == pytest.approx(total / source.n, rel=1e-3), epoch
        assert row["kept"] == [kept]
        if kept >= lowest and epoch >= 2:
            lasso *= 1.3
        lowest = min(lowest, kept)


# Errors


def lowest_count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The counts of a run that will fail, as they are measured."""
    counts = []
    original = gates.kept_units

    def spy(model: nn.Module, *, threshold: float) -> Tensor:
        found = original(model, threshold=threshold)
        counts.append(int(found.min()))
        return found

    monkeypatch.setattr(gates, "kept_units", spy)
    return counts


@pytest.mark.parametrize(
    ("changes", "why", "advice"),
    [
        (
            {"schedule": replace(QUICK.schedule, epochs=22)},
            "all 22 epochs were used",
            "Raise lasso, alpha_lr or epochs",
        ),
        ({"patience": 7, "lasso": 1e-7, "growth": 1.0}, "no unit left in the last 7 epochs (epoch 7)", "Raise lasso"),
        (
            {"schedule": replace(QUICK.schedule, epochs=9, alpha_lr=0.05)},
            "all 9 epochs were used",
            "Lower alpha_lr (0.05) below the threshold (0.01)",
        ),
    ],
)
def test_a_budget_out_of_reach_is_an_error_that_names_the_lowest_count_and_the_fix(
    changes: dict,
    why: str,
    advice: str,
    teacher: nn.Module,
    digits: GroupedData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = lowest_count(monkeypatch)
    with pytest.raises(BudgetOutOfReach) as caught:
        run(teacher, digits, (0.7, 0.0), **changes)
    message = str(caught.value)
    assert why in message
    assert advice in message
    assert f"seeds [{SEED}]" in message
    assert int(re.search(r"the lowest count is (\d+)", message)[1]) == min(counts)
    limit = budget_units(0.7, 32) if min(counts) > budget_units(0.7, 32) else 0
    assert message.startswith(f"snl: {limit} units are out of reach")


def test_only_the_members_that_miss_their_budget_are_named(pair: tuple[Ensemble, list[GroupedData]]) -> None:
    """At a budget that the two members reach in different epochs, one epoch less: only the slower misses."""
    ensemble, sets = pair
    path = snl(ensemble, sets, (0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05), seeds=[5, 6], options=QUICK, progress=False)
    one = next(one for one in path if len(set(one.epochs)) == 2)
    slow = max(one.epochs)
    options = replace(QUICK, schedule=replace(QUICK.schedule, epochs=slow - 1))
    with pytest.raises(BudgetOutOfReach, match=rf"for seeds \[{[5, 6][one.epochs.index(slow)]}\]"):
        snl(ensemble, sets, (one.budget,), seeds=[5, 6], options=options, progress=False)


@pytest.mark.parametrize("budgets", [(), (0.2, 0.5), (0.5, 0.5), (1.1,), (0.5, -0.1), (80, 20)])
def test_budgets_must_be_descending_fractions(
    budgets: tuple[float, ...], teacher: nn.Module, digits: GroupedData
) -> None:
    with pytest.raises(ValueError, match=re.escape(str(list(budgets)))):
        run(teacher, digits, budgets)


def test_a_count_given_as_a_budget_is_told_what_to_divide_by() -> None:
    with pytest.raises(ValueError, match="got 98304; divide a count by 491520 units"):
        budget_units(98_304, 491_520)


def test_the_papers_options_are_the_defaults() -> None:
    """SNL as released: lambda from 1e-5, times 1.1, threshold 0.01, Adam 1e-3 for weights and alphas, batch 128."""
    options = SNL()
    assert (options.lasso, options.growth, options.threshold) == (1e-5, 1.1, 1e-2)
    schedule = options.schedule
    assert (schedule.optimizer, schedule.lr, schedule.alpha_lr, schedule.batch_size) == ("adam", 1e-3, None, 128)
