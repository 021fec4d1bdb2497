"""Prop. 4.5 against dense Hessians by torch.autograd.functional, closed forms and the inequality proved in A.3."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from linfair_book.propositions import random_networks, violations
from torch import Tensor, nn
from torch.func import functional_call

from linfair.data import GroupedData, Split
from linfair.gates import binarise, install, set_alphas
from linfair.models import build
from linfair.theory import logit_curvature as module
from linfair.theory.hessian import READINGS, TwoLogits, hessian_bound
from linfair.theory.logit_curvature import extremes, logit_curvature


def grouped(seed: int, *, n: int = 15) -> GroupedData:
    """Random float64 points of the plane, random labels, two groups."""
    rng = np.random.default_rng(seed)
    part = Split(
        torch.from_numpy(rng.standard_normal((n, 2))), torch.from_numpy(rng.integers(2, size=n)), torch.arange(n) // 10
    )
    return GroupedData("random", {"train": part}, ("no", "yes"), ("first", "second"))


def network(seed: int, outputs: int) -> nn.Module:
    """A 2-4-3-outputs ReLU network in float64 with normal weights."""
    torch.manual_seed(seed)
    layers = [nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, outputs)]
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for value in model.parameters():
            value.normal_()
    return model


def dense(function: callable, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of function(network) by the parameters."""
    named = dict(model.named_parameters())
    sizes = [value.numel() for value in named.values()]

    def of(vector: Tensor) -> Tensor:
        pieces = zip(named.items(), vector.split(sizes), strict=True)
        values = {name: piece.view_as(value) for (name, value), piece in pieces}
        return function(lambda x: functional_call(model, values, (x,)))

    start = torch.cat([value.detach().flatten() for value in named.values()])
    return torch.autograd.functional.jacobian(of, start), torch.autograd.functional.hessian(of, start)


def expected_terms(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, tuple[float, float]]:
    """The three readings by a loop over the inputs, from the definitions."""
    sums = {reading: np.zeros(2) for reading in READINGS}
    for point, label in zip(x, y, strict=True):
        h = TwoLogits(model)(point[None])[0, 1]
        p = h.sigmoid().item()
        near, error = p * (1 - p), abs(p - label.item())
        slope, bend = dense(lambda run, point=point: TwoLogits(run_as(run))(point[None])[0, 1], model)
        p_slope, p_bend = dense(lambda run, point=point: TwoLogits(run_as(run))(point[None])[0, 1].sigmoid(), model)
        values = torch.linalg.eigvalsh(bend)
        sums["printed"] += [near * p_slope.square().sum(), error * torch.linalg.eigvalsh(p_bend)[-1]]
        sums["logit"] += [near * slope.square().sum(), error * values[-1]]
        sums["corrected"] += [near * slope.square().sum(), error * values.abs().max()]
    return {reading: tuple(total / len(x)) for reading, total in sums.items()}


def run_as(function: callable) -> nn.Module:
    """A function as the module TwoLogits expects."""

    class Run(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return Run()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("limit", [64, 0], ids=["dense", "lanczos"])
def test_both_sides_equal_their_definitions(outputs: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch.autograd.functional, input by input, to 1e-8."""
    monkeypatch.setattr(module, "DENSE", limit)
    monkeypatch.setattr(module, "MEMORY", 80 * 40 * 4)  # four inputs at a time
    data, model = grouped(1, n=12), network(2, outputs)
    part = data.splits["train"]
    for row in hessian_bound(model, data, tol=1e-9):
        x, y = part.x[part.a == row.group], part.y[part.a == row.group]
        _, bend = dense(
            lambda run, x=x, y=y: F.binary_cross_entropy_with_logits(TwoLogits(run_as(run))(x)[:, 1], y.double()), model
        )
        assert row.eigenvalue == pytest.approx(torch.linalg.eigvalsh(bend)[-1].item(), rel=1e-8)
        for reading, terms in expected_terms(model, x, y).items():
            found = getattr(row, reading)
            assert (found.z1, found.z2) == pytest.approx(terms, rel=1e-8, abs=1e-12)
            assert found.total == found.z1 + found.z2
            assert row.holds(reading) == (row.eigenvalue <= found.total)
        assert row.converged
        assert row.n == len(x)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000))
def test_the_corrected_bound_holds_for_every_network(seed: int) -> None:
    """Oracle: the inequality of A.3 with logit and absolute eigenvalue, which is proved."""
    for row in hessian_bound(network(seed, 1), grouped(seed, n=12)):
        assert row.holds("corrected")
        assert row.corrected.total >= row.logit.total


def test_two_logits_and_their_difference_are_one_classifier() -> None:
    """Oracle: the two-logit network with its last layer subtracted, in the terms of which the parameters differ by 2.

    (0, h) and (z_0, z_1) with h = z_1 - z_0 have one loss; for a linear classifier grad over both rows is (-g, g), so
    every square, and with it the eigenvalue, doubles.
    """
    data, two = grouped(3), nn.Linear(2, 2).double()
    one = nn.Linear(2, 1).double()
    with torch.no_grad():
        one.weight.copy_(two.weight[1:] - two.weight[:1])
        one.bias.copy_(two.bias[1:] - two.bias[:1])
    for row, other in zip(hessian_bound(two, data), hessian_bound(one, data), strict=True):
        assert row.eigenvalue == pytest.approx(2 * other.eigenvalue, rel=1e-6)
        assert row.corrected.z1 == pytest.approx(2 * other.corrected.z1, rel=1e-9)
        assert row.corrected.z2 == pytest.approx(0, abs=1e-12)


def test_gated_networks_are_measured_over_their_weights() -> None:
    """Oracle: the network without gates, and for a mask without ReLUs the linear network."""
    data = grouped(4)
    model = build("mlp", (2,), 2, width=3, seed=1).double()
    gated = install(model, (2,)).double()
    for row, other in zip(hessian_bound(gated, data), hessian_bound(model, data), strict=True):
        assert row.eigenvalue == pytest.approx(other.eigenvalue, rel=1e-6)
        assert row.corrected.total == pytest.approx(other.corrected.total, rel=1e-9)
    straight = nn.Sequential(*(layer for layer in model if not isinstance(layer, nn.ReLU)))
    linear = binarise(set_alphas(gated, lambda _, alpha: alpha * 0))
    for row, other in zip(hessian_bound(linear, data), hessian_bound(straight, data), strict=True):
        assert row.corrected.total == pytest.approx(other.corrected.total, rel=1e-9)


def test_extremes_equal_eigvalsh_also_for_spaces_that_are_exhausted() -> None:
    """Oracle: torch.linalg.eigvalsh of random, of rank-2, of negative definite and of zero matrices."""
    torch.manual_seed(0)
    full = torch.randn(12, 12, dtype=torch.float64)
    low = torch.randn(12, 2, dtype=torch.float64)
    matrices = torch.stack([full + full.T, low @ torch.diag(torch.tensor([3.0, -1.0])).double() @ low.T])
    matrices = torch.cat([matrices, -(full @ full.T + torch.eye(12))[None], -torch.eye(12)[None], matrices[:1] * 0])
    values = torch.linalg.eigvalsh(matrices)
    low_end, high_end, residual, converged = extremes(
        lambda v: torch.einsum("nij,nj->ni", matrices, v), torch.randn(5, 12).double(), steps=12, tol=1e-10
    )
    assert converged.all()
    assert torch.allclose(low_end, values[:, 0], atol=1e-9)
    assert torch.allclose(high_end, values[:, -1], atol=1e-9)
    assert (residual < 1e-8).all()


def test_a_search_cut_short_says_so() -> None:
    found = logit_curvature(
        lambda t, x: (t[:-1] ** 2 * t[1:]).sum() * x, torch.linspace(1, 2, 80).double(), ones(), steps=3
    )
    assert not found.converged.any()


def ones() -> Tensor:
    return torch.ones(2, dtype=torch.float64)


def test_random_networks_break_the_printed_statement_and_none_the_corrected() -> None:
    """REPRODUCTION: of 400 networks 2-3-3-1 all break it as printed, 24 with the logit inside, none corrected."""
    table = violations(400, inputs=1).set_index("reading")
    assert table.loc["printed", "violations"] == 400
    assert 10 <= table.loc["logit", "violations"] <= 60
    assert table.loc["corrected", "violations"] == 0
    assert table.loc["corrected", "worst"] <= 1 + 1e-9
    assert table.loc["printed sum", "violations"] == 400  # one input: the sum is the mean
    many = violations(100, inputs=20).set_index("reading")
    assert many.loc["printed", "violations"] == 100
    assert many.loc["printed sum", "violations"] < 100


def test_counts_equal_the_same_networks_measured_one_by_one() -> None:
    """Oracle: hessian_bound of each network, rebuilt from the same random numbers."""
    table = violations(8, inputs=6, seed=3).set_index("reading")
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(8, 25, generator=generator, dtype=torch.float64)
    x = torch.randn(8, 6, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (8, 6), generator=generator)
    ratios = {reading: [] for reading in READINGS}
    for weights, points, labels in zip(theta, x, y, strict=True):
        layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)]
        model = nn.Sequential(*layers).double()
        nn.utils.vector_to_parameters(weights, model.parameters())
        data = GroupedData("one", {"train": Split(points, labels, labels * 0)}, ("no", "yes"), ("all",))
        (row,) = hessian_bound(model, data)
        for reading in READINGS:
            total = getattr(row, reading).total
            ratios[reading].append(row.eigenvalue / total if total > 0 else np.inf)
    for reading in READINGS:
        assert table.loc[reading, "worst"] == pytest.approx(max(ratios[reading]), rel=1e-6)
        assert table.loc[reading, "violations"] == sum(ratio > 1 + 1e-6 for ratio in ratios[reading])


def test_trained_networks_and_single_inputs_are_those_of_torch() -> None:
    """Oracle: torch's SGD, and hessian_bound with every input a group of its own, which is Eq. 13 of Tran et al."""
    table = violations(5, inputs=6, seed=2, bend=torch.tanh, steps=4).set_index("reading")
    _, theta, x, y = random_networks(5, 6, seed=2)
    broken, singles, ratios = dict.fromkeys(READINGS, 0), dict.fromkeys(READINGS, 0), []
    for weights, points, labels in zip(theta, x, y, strict=True):
        layers = [nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)]
        model = nn.Sequential(*layers).double()
        nn.utils.vector_to_parameters(weights.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(4):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(points).flatten(), labels.double()).backward()
            optimizer.step()
        for groups, counts in (labels * 0, broken), (torch.arange(6), singles):
            split = {"train": Split(points, labels, groups)}
            data = GroupedData("one", split, ("no", "yes"), tuple(map(str, range(int(groups.max()) + 1))))
            rows = hessian_bound(model, data)
            for reading in READINGS:
                counts[reading] += sum(not row.holds(reading) for row in rows)
            if counts is broken:
                ratios.append(rows[0].corrected.total / rows[0].eigenvalue)
    assert table.loc[list(READINGS), "violations"].to_dict() == broken
    assert table.loc[list(READINGS), "input_violations"].to_dict() == singles
    assert table.loc["corrected", "looseness"] == pytest.approx(np.median(ratios), rel=1e-6)
    assert singles["corrected"] == 0 < singles["logit"]


def test_tasks_that_are_not_binary_are_refused() -> None:
    data = grouped(0)
    three = GroupedData("three", data.splits, ("a", "b", "c"), data.group_names)
    with pytest.raises(ValueError, match="three has 3 labels"):
        hessian_bound(network(0, 2), three)
    with pytest.raises(ValueError, match=r"got \(15, 3\)|got \(\d+, 3\)"):
        hessian_bound(network(0, 3), data)
    with pytest.raises(ValueError, match="no reading 'other'"):
        hessian_bound(network(0, 1), data)[0].holds("other")
