"""SNL with `exact`: the budget to the unit, the largest alphas of the relaxed path, sorted by numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import SNL, LinearizedModel, snl
from linfair.linearizers.record import budget_units
from linfair.linearizers.snl import _Path
from linfair.models import build
from linfair.training import Data, Schedule, fit, supervised

BUDGETS = (0.7, 0.45, 0.2)
LOOSE = SNL(lasso=1e-2, growth=1.3, warmup=2, schedule=Schedule(epochs=200, optimizer="adam", lr=1e-3, alpha_lr=9e-3))
EXACT = replace(LOOSE, exact=True)


@pytest.fixture(scope="module", params=["one network", "ensemble"])
def problem(request: pytest.FixtureRequest, one_thread: None) -> tuple[nn.Module, Data, tuple[int, ...]]:
    """Teacher, data and seeds."""
    seeds = (3,) if request.param == "one network" else (5, 6)
    sets = [load_data("digits", seed=seed) for seed in seeds]
    networks = [build("mlp", (1, 12, 12), 10, width=16, seed=seed) for seed in seeds]
    teacher, data = (networks[0], sets[0]) if len(seeds) == 1 else (Ensemble(networks), sets)
    schedule = Schedule(epochs=20, optimizer="adamw", lr=3e-3)
    fit(teacher, data, supervised, schedule, seeds=seeds, stage="base", progress=False)
    return teacher.eval(), data, seeds


def run(problem: tuple[nn.Module, Data, tuple[int, ...]], options: SNL) -> list[LinearizedModel]:
    teacher, data, seeds = problem
    return snl(teacher, data, BUDGETS, seeds=seeds, options=options, progress=False)


@pytest.fixture
def relaxed(
    problem: tuple[nn.Module, Data, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[LinearizedModel], list[dict[str, np.ndarray]]]:
    """The path without `exact`, and its alphas after every epoch, (members, units) by site."""
    epochs: list[dict[str, np.ndarray]] = []
    original = _Path.after_epoch

    def spy(self: _Path, epoch: int) -> bool:
        found = gates.alphas(self.model).items()
        epochs.append({site.removeprefix("network."): alpha.detach().numpy().copy() for site, alpha in found})
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(_Path, "after_epoch", spy)
        return run(problem, LOOSE), epochs


def test_exact_keeps_the_budget_to_the_unit_at_the_epochs_of_the_relaxed_path(
    problem: tuple[nn.Module, Data, tuple[int, ...]],
    relaxed: tuple[list[LinearizedModel], list[dict[str, np.ndarray]]],
) -> None:
    exact = run(problem, EXACT)
    for one, loose, budget in zip(exact, relaxed[0], BUDGETS, strict=True):
        assert one.budget_units == budget_units(budget, 32) == round(32 * budget)
        assert one.kept == (one.budget_units,) * len(one.masks)
        assert one.kept == tuple(gates.kept_units(one.model).tolist())
        assert one.epochs == loose.epochs
    assert exact[0].history == relaxed[0][0].history
    assert any(kept < one.budget_units for one in relaxed[0] for kept in one.kept)


def test_the_kept_units_are_those_with_the_largest_alphas_in_numpys_order(
    problem: tuple[nn.Module, Data, tuple[int, ...]],
    relaxed: tuple[list[LinearizedModel], list[dict[str, np.ndarray]]],
) -> None:
    """Over all sites together; what the relaxed path keeps is kept."""
    loose, epochs = relaxed
    for number, one in enumerate(run(problem, EXACT)):
        for member, mask in enumerate(one.masks):
            alphas = epochs[one.epochs[member] - 1]
            flat = np.concatenate([alphas[site][member].ravel() for site in mask.units])
            units = np.concatenate([unit.numpy().ravel() for unit in mask.units.values()])
            assert set(np.flatnonzero(units)) == set(np.argsort(flat)[::-1][: one.budget_units])
            for site, unit in loose[number].masks[member].units.items():
                assert not (unit & ~mask.units[site]).any()


def test_weights_are_those_of_the_relaxed_snapshots_and_alphas_binary_and_frozen(
    problem: tuple[nn.Module, Data, tuple[int, ...]],
    relaxed: tuple[list[LinearizedModel], list[dict[str, np.ndarray]]],
) -> None:
    for one, loose in zip(run(problem, EXACT), relaxed[0], strict=True):
        theirs = loose.model.state_dict()
        for name, value in one.model.state_dict().items():
            if name.endswith("alpha"):
                assert set(value.unique().tolist()) <= {0.0, 1.0}
            else:
                assert torch.equal(value, theirs[name])
        assert not any(gate.alpha.requires_grad for gate in gates.sites(one.model).values())


def test_a_unit_below_the_threshold_is_kept_where_the_path_fell_too_far(digits: GroupedData) -> None:
    """With a penalty that pulls all alphas down together the path drops to 0 in one epoch; exact still keeps 16."""
    teacher = build("mlp", digits.input_shape, 10, width=16, seed=3).eval()
    hard = replace(LOOSE, lasso=1e3, schedule=replace(LOOSE.schedule, lr=0.0))
    for options, kept in ((hard, 0), (replace(hard, exact=True), 16)):
        (one,) = snl(teacher, digits, (0.5,), seeds=[3], options=options, progress=False)
        assert one.kept == (kept,)
        assert one.budget_units == 16
