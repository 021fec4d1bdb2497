"""SNL between the ends of epochs: `check_every`, `exact` and `pace`, on paths whose alphas are known in closed form.

Weights rest and the penalty outweighs the data, so that Adam takes alpha_lr off every alpha in every step. With first
alphas 0.503 + i / 100 one unit after the other passes the threshold, and every count is arithmetic.
"""

import itertools
import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, BudgetOutOfReach, control, snl
from linfair.linearizers.record import missed
from linfair.linearizers.snl import _Path
from linfair.masks import RELUS
from linfair.models import build
from linfair.training import Data, Distill, Schedule, fit

UNITS, RATE, STEPS = 32, 4e-3, 4
FALLING = SNL(
    lasso=1e3,
    growth=1.0,
    schedule=Schedule(epochs=80, batch_size=128, optimizer="adam", lr=0.0, alpha_lr=RATE, augment=False),
)
STEPWISE = replace(FALLING, check_every=1, exact=True)


def first_alphas(seed: int) -> np.ndarray:
    """Alphas 0.503, 0.513, ..., 0.813 in an order of their own for each seed."""
    return 0.503 + np.random.default_rng(seed).permutation(UNITS) / 100


def count_at(step: int) -> int:
    """Units above the threshold after so many steps."""
    return int(sum(0.503 + i / 100 - RATE * step > 0.01 for i in range(UNITS)))


def first_within(limit: int, every: int) -> int:
    """The first check at which the count is within a limit."""
    return next(step for step in range(every, 1000, every) if count_at(step) <= limit)


@pytest.fixture(params=["one network", "ensemble"])
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Data, tuple[int, ...]]:
    """A teacher, its data and seeds; installed gates start from `first_alphas`."""
    seeds = (3,) if request.param == "one network" else (5, 6)
    sets = [load_data("digits", seed=seed) for seed in seeds]
    assert FALLING.schedule.steps(len(sets[0].splits["train"])) == STEPS
    networks = [build("mlp", (1, 12, 12), 10, width=16, seed=seed).eval() for seed in seeds]
    install, order = gates.install, itertools.cycle(seeds)

    def staggered(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        gated, values = install(network, shape), torch.tensor(first_alphas(next(order)), dtype=torch.float32)
        for alpha, part in zip(gates.alphas(gated).values(), values.split(16), strict=True):
            alpha.data.copy_(part)
        return gated

    monkeypatch.setattr(import_module("linfair.linearizers.snl"), "RELUS", replace(RELUS, switched=staggered))
    return (networks[0], sets[0], seeds) if len(seeds) == 1 else (Ensemble(networks), sets, seeds)


def run(problem: tuple[nn.Module, Data, tuple[int, ...]], options: SNL, budgets: tuple[float, ...]) -> list:
    teacher, data, seeds = problem
    return snl(teacher, data, budgets, seeds=seeds, options=options, progress=False)


@pytest.mark.parametrize("every", [None, 1, 3])
def test_masks_are_taken_at_the_first_check_within_the_budget(
    problem: tuple[nn.Module, Data, tuple[int, ...]], every: int | None
) -> None:
    """At the end of an epoch, after every third step too, or after every step; the record says the step."""
    for one in run(problem, replace(FALLING, check_every=every), (0.8, 0.5, 0.1)):
        checks = sorted({*range(STEPS, 400, STEPS), *range(every or STEPS, 400, every or STEPS)})
        step = next(step for step in checks if count_at(step) <= one.budget_units)
        assert set(one.steps) == {step}
        assert set(one.epochs) == {math.ceil(step / STEPS)}
        assert set(one.kept) == {count_at(step)}


def test_budgets_of_one_epoch_come_from_different_steps_where_every_step_is_checked(
    problem: tuple[nn.Module, Data, tuple[int, ...]],
) -> None:
    """In an epoch in which two units pass the threshold."""
    start = next(step for step in range(0, 400, STEPS) if count_at(step) - count_at(step + STEPS) == 2)
    budgets = ((count_at(start) - 1) / UNITS, (count_at(start) - 2) / UNITS)
    for every, different in ((None, False), (1, True)):
        one, two = run(problem, replace(FALLING, check_every=every), budgets)
        assert one.epochs == two.epochs
        assert (one.steps != two.steps) == different
        assert (one.kept != two.kept) == different


@pytest.mark.parametrize("budget", [0.75, 0.5, 0.25])
def test_exact_keeps_the_largest_alphas_of_the_last_step_at_which_all_of_them_are_above_the_threshold(
    problem: tuple[nn.Module, Data, tuple[int, ...]], budget: float
) -> None:
    (one,) = run(problem, STEPWISE, (budget,))
    limit = round(budget * UNITS)
    last = first_within(limit - 1, 1) - 1
    for seed, mask, step in zip(problem[2], one.masks, one.steps, strict=True):
        assert first_within(limit, 1) <= step <= last
        kept = np.concatenate([unit.numpy().ravel() for unit in mask.units.values()])
        assert set(np.flatnonzero(kept)) == set(np.argsort(first_alphas(seed))[::-1][:limit])
        assert (first_alphas(seed)[kept] - RATE * step > 0.01).all()
    for gate in gates.sites(one.model).values():
        assert set(gate.alpha.unique().tolist()) <= {0.0, 1.0}
        assert not gate.alpha.requires_grad


@pytest.mark.parametrize("every", [None, 4])
def test_exact_refuses_to_rank_units_below_the_threshold(
    problem: tuple[nn.Module, Data, tuple[int, ...]], every: int | None
) -> None:
    """At a rate of 0.25 the count falls from 32 to 0 between two checks; without exact it is taken and missed."""
    hasty = replace(FALLING, check_every=every, schedule=replace(FALLING.schedule, alpha_lr=0.25))
    with pytest.raises(BudgetOutOfReach) as caught:
        run(problem, replace(hasty, exact=True), (0.5,))
    message = str(caught.value)
    assert message.startswith(f"snl: exact cannot keep 16 units for seed {problem[2][0]}: the count fell from 32 to 0")
    assert "<= 0.01, which is noise around 0. Set check_every=1, lower lasso or alpha_lr" in message
    (one,) = run(problem, hasty, (0.5,))
    assert set(one.kept) == {0}
    assert missed(0, one.budget_units)


def test_exact_refuses_where_one_step_takes_all_units_and_says_so(digits: GroupedData) -> None:
    """A network of 64 units whose alphas fall in step: nothing tells them apart, even where every step is checked."""
    teacher = build("mlp", digits.input_shape, 10, width=32, seed=3).eval()
    with pytest.raises(BudgetOutOfReach, match=r"fell from 64 to \d+ in 1 steps .* Lower lasso or alpha_lr"):
        snl(teacher, digits, (0.5,), seeds=[3], options=STEPWISE, progress=False)


def test_pace_lets_lambda_grow_while_the_count_falls_too_slowly(
    problem: tuple[nn.Module, Data, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed from the counts: lambda doubles after an epoch that removed less than a fifth of the units left."""
    seen, original = [], _Path.after_epoch

    def spy(self: _Path, epoch: int) -> bool:
        seen.append(self.lasso.tolist())
        return original(self, epoch)

    monkeypatch.setattr(_Path, "after_epoch", spy)
    (one,) = run(problem, replace(FALLING, growth=2.0, warmup=0, pace=0.2), (0.1,))
    counts = [UNITS, *(row["kept"][0] for row in one.history[:-1])]
    expected = [1e3]
    for number, after in enumerate(counts[1:], start=1):
        expected.append(expected[-1] * (2 if after >= 0.8 * min(counts[:number]) else 1))
    assert [lasso[0] for lasso in seen] == expected
    assert any(a == b for a, b in zip(expected, expected[1:], strict=False))


def test_the_control_is_copied_at_the_step_at_which_the_mask_was_taken(digits: GroupedData) -> None:
    """Within an epoch: the same weights as a run of its own that is stopped by an error at that step."""
    teacher = build("mlp", digits.input_shape, 10, width=16, seed=3).eval()
    schedule = Schedule(epochs=4, batch_size=128, optimizer="adam", lr=1e-3, alpha_lr=9e-3)
    options = SNL(lasso=1e3, check_every=1, schedule=replace(schedule, alpha_lr=0.16))
    (one,) = snl(teacher, digits, (0.5,), seeds=[3], options=options, progress=False)
    assert one.steps[0] % STEPS
    (ours,) = control(teacher, digits, [one], seeds=[3], schedule=schedule, progress=False)
    assert (ours.steps, ours.epochs) == (one.steps, one.epochs)
    gated = gates.freeze(gates.install(teacher, digits.input_shape))
    with pytest.raises(StopIteration):
        follow(gated, teacher, digits, schedule, stop=one.steps[0])
    for (name, value), (_, other) in zip(ours.model.state_dict().items(), gated.state_dict().items(), strict=True):
        assert torch.equal(value, other), name


def follow(model: nn.Module, teacher: nn.Module, data: GroupedData, schedule: Schedule, *, stop: int) -> None:
    """Distil until a number of steps is done."""

    def after_step(step: int) -> None:
        if step == stop:
            raise StopIteration

    fit(
        model,
        data,
        Distill(teacher, data),
        schedule,
        seeds=[3],
        stage="masks",
        after_step=after_step,
        progress=False,
    )


@pytest.mark.parametrize(
    ("changes", "said"), [({"check_every": 0}, "check_every .* >= 1"), ({"pace": 1.0}, "pace .* got 1")]
)
def test_options_that_mean_nothing_are_refused_with_what_is_allowed(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SNL(**changes)
