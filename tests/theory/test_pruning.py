"""Statements on pruning against dense Hessians, closed forms, torch's autograd and the pruners themselves."""

import copy
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from linfair_book import verdicts
from linfair_book.propositions import random_networks, remainders
from torch import Tensor, nn
from torch.func import functional_call

from linfair import gates, weights
from linfair.data import GroupedData, Split
from linfair.metrics import group_gradient_norms
from linfair.models import build
from linfair.pruners import prune_magnitude
from linfair.theory import pruning
from linfair.theory.bound import excess_bound, excess_bounds


@pytest.fixture(scope="module")
def nets() -> list[verdicts.Net]:
    """Two seeds of either activation."""
    return verdicts.small_networks(range(2))


def group_risk(model: nn.Module, data: GroupedData, group: int) -> tuple:
    """J of one group as a function of one vector, and the vector."""
    named, part = dict(model.named_parameters()), data.splits["train"]
    x, y = part.x[part.a == group], part.y[part.a == group]

    def risk(vector: Tensor) -> Tensor:
        pieces = vector.split([value.numel() for value in named.values()])
        values = {name: piece.view_as(named[name]) for name, piece in zip(named, pieces, strict=True)}
        return F.cross_entropy(functional_call(model, values, (x,)), y)

    return risk, nn.utils.parameters_to_vector(model.parameters()).detach()


def images(shape: tuple[int, ...] = (3, 8, 8)) -> GroupedData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, *shape, dtype=torch.float64, generator=generator)
    part = Split(x, torch.arange(24) % 3, torch.arange(24) // 16)
    return GroupedData("images", {"train": part}, ("a", "b", "c"), ("first", "second"))


class Again(nn.Module):
    """A layer that is used twice, under one name or under two."""

    def __init__(self, names: int) -> None:
        super().__init__()
        self.one, self.last = nn.Linear(3 * 8 * 8, 3 * 8 * 8), nn.Linear(3 * 8 * 8, 3)
        if names == 2:
            self.two = self.one

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        x = torch.tanh(self.one(x.flatten(1)))
        return self.last(torch.tanh(getattr(self, "two", self.one)(x)))


def test_a_layer_of_two_names_has_the_gradient_and_bound_of_one() -> None:
    """Oracle: the same network with one name, whose norm is that of `group_gradient_norms`."""
    torch.manual_seed(0)
    one, two = Again(1).double(), Again(2).double()
    two.one, two.last = one.one, one.last
    two.two = two.one
    found = [pruning.gradient_bound(network, images()) for network in (one, two)]
    pd.testing.assert_frame_equal(*found, rtol=1e-12)
    assert found[1]["norm"].tolist() == pytest.approx([row.norm for row in group_gradient_norms(one, images())])


def test_both_sides_of_theorem_1_equal_dense_hessians(nets: list[verdicts.Net]) -> None:
    """Oracle: torch.autograd.functional at the original, and the pruned weights set to 0 by hand."""
    for _, _, original, data in nets[::2]:
        values = torch.cat([layer.weight.detach().abs().flatten() for layer in original if hasattr(layer, "weight")])
        limit = values.sort().values[round(0.7 * len(values)) - 1]
        zeroed = copy.deepcopy(original)
        with torch.no_grad():
            for layer in zeroed:
                if hasattr(layer, "weight"):
                    layer.weight *= layer.weight.abs() > limit
        for row in excess_bound(verdicts.pruned(original, 0.7), original, data, tol=1e-10):
            risk, start = group_risk(original, data, row.group)
            end = nn.utils.parameters_to_vector(zeroed.parameters()).detach()
            gradient = torch.autograd.functional.jacobian(risk, start)
            top = torch.linalg.eigvalsh(torch.autograd.functional.hessian(risk, start))[-1]
            distance = (end - start).norm()
            assert distance.item() == pytest.approx(values[values <= limit].norm().item(), rel=1e-12)
            assert row.excess == pytest.approx((risk(end) - risk(start)).item(), rel=1e-9)
            right = gradient.norm() * distance + 0.5 * top * distance**2
            assert row.bound == pytest.approx(right.item(), rel=1e-8)


def test_switches_zeros_and_batch_norm_make_no_difference_to_the_bound() -> None:
    """Oracle: the same network without its switches; one with gates besides them counts its alphas too."""
    data, original = images(), build("resnet18", (3, 8, 8), 3, width=2, seed=0).double().eval()
    model = verdicts.pruned(original, 0.5)
    expected = excess_bound(weights.plain(model), original, data)
    assert excess_bound(model, original, data) == expected
    assert excess_bound(model, weights.install(original), data) == expected
    assert excess_bounds([model, original], original, data)[0] == expected
    assert [row.excess for row in excess_bounds([model, original], original, data)[1]] == [0, 0]
    at_the_end = remainders(model, original, data, steps=(1.0,))
    assert at_the_end["remainder"].tolist() == pytest.approx([row.remainder for row in expected], rel=1e-9)
    both = gates.install(weights.plain(model), (3, 8, 8)).double()
    both = gates.binarise(gates.set_alphas(both, lambda _, alpha: torch.zeros_like(alpha)))
    units = sum(gate.alpha.numel() for gate in gates.sites(both).values())
    for row, other in zip(excess_bound(both, original, data, alpha=True), expected, strict=True):
        assert row.distance**2 == pytest.approx(other.distance**2 + units)


def test_a_pruned_network_of_another_teacher_is_refused(nets: list[verdicts.Net]) -> None:
    wide = nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 2)).double()
    with pytest.raises(ValueError, match=r"no common parameter space.*made from"):
        excess_bound(verdicts.pruned(wide, 0.5), nets[0][2], nets[0][3])


@pytest.mark.parametrize("share", verdicts.SHARES)
def test_masks_are_those_of_the_pruner_and_nested(nets: list[verdicts.Net], share: float) -> None:
    """Oracle: linfair.pruners.prune_magnitude."""
    _, _, original, data = nets[0]
    (mask,) = weights.masks_of(verdicts.pruned(original, share))
    (expected,) = prune_magnitude(original, data, [1 - share], seeds=[0])
    assert {site: unit.tolist() for site, unit in mask.units.items()} == {
        site: unit.tolist() for site, unit in expected.mask.units.items()
    }
    (more,) = weights.masks_of(verdicts.pruned(original, min(share + 0.1, 1.0)))
    assert all((more.units[site] <= unit).all() for site, unit in mask.units.items())
    (drawn,) = weights.masks_of(verdicts.pruned(original, share, seed=1))
    assert drawn.kept == mask.kept
    assert drawn.jaccard(mask) < 1


def test_units_that_switch_are_counted() -> None:
    """Oracle: two units by hand, relu(2 x + 1) and relu(x / 2 - 1); without the smallest weight the second is shut."""
    original = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    for value, numbers in zip(original.parameters(), ([[2.0], [0.5]], [1.0, -1.0], [[3.0, 3.0]], [0.0]), strict=True):
        value.data = torch.tensor(numbers)
    x = torch.tensor([[-3.0], [1.0], [3.0]])
    assert verdicts.switched(verdicts.pruned(original, 0.25), original, x).tolist() == [0, 0, 1]
    assert verdicts.switched(verdicts.pruned(original, 0.5), original, x).tolist() == [1, 0, 1]
    smooth = nn.Sequential(nn.Linear(1, 2), nn.Tanh())
    assert verdicts.switched(verdicts.pruned(smooth, 0.5), smooth, x).tolist() == [0, 0, 0]


def test_the_smallest_group_of_the_closed_form_has_the_smallest_gradient() -> None:
    """Oracle: 7/6 is the mean of the centres, by hand; the weighted gradients of its sizes sum to 0."""
    best = Fraction(3 * 0 + 2 * 3 + 1 * 1, 6)
    assert [abs(best - centre) for centre in (0, 3, 1)] == [Fraction(7, 6), Fraction(11, 6), Fraction(1, 6)]
    assert verdicts.proposition_1(range(1)).set_index("reading").loc["three groups, closed form", "violated"] == 2


def test_sides_of_proposition_2_equal_their_definitions() -> None:
    """Oracle: torch.autograd.functional, input by input, for a pruned network with batch norm and three classes."""
    data = images()
    model = verdicts.pruned(build("resnet18", (3, 8, 8), 3, width=2, seed=0).double().eval(), 0.5)
    plain = weights.plain(model)
    found = pruning.gradient_bound(plain, data)
    named, part = dict(plain.named_parameters()), data.splits["train"]
    for row in found.itertuples():
        sums = dict.fromkeys(found.columns[3:], 0.0)
        for x, y in zip(part.x[part.a == row.group], part.y[part.a == row.group], strict=True):

            def run(*values: Tensor, x: Tensor = x) -> Tensor:
                return functional_call(plain, dict(zip(named, values, strict=True)), (x[None],))[0]

            for name, function in ("logits", run), ("softmax", lambda *values, run=run: run(*values).softmax(0)):
                pieces = torch.autograd.functional.jacobian(function, tuple(named.values()))
                jacobian = torch.cat([piece.flatten(1) for piece in pieces], 1)
                error = (run(*named.values()).softmax(0) - F.one_hot(y, 3)).norm().item()
                sums[name] += error * torch.linalg.svdvals(jacobian)[0].item() / row.n
                sums[f"{name}_frobenius"] += error * jacobian.square().sum().sqrt().item() / row.n
        assert {name: getattr(row, name) for name in sums} == pytest.approx(sums, rel=1e-8)
        assert row.norm <= row.logits <= row.logits_frobenius
    norms = [one.norm for one in group_gradient_norms(plain, data, dtype=torch.float64)]
    assert found["norm"].tolist() == pytest.approx(norms, rel=1e-12)
    assert (pruning.gradient_bound(model, data)["norm"] <= found["norm"] * (1 + 1e-12)).all()  # of the kept weights


@pytest.mark.parametrize("h", [0.0, 3.0, -8.0])
def test_no_constant_repairs_proposition_2_for_the_softmax_output(h: float) -> None:
    """Oracle: one input, two classes: |g| over the right side is 1 / (2 p (1 - p)), which no constant bounds."""
    linear = nn.Linear(1, 2, bias=False).double()
    linear.weight.data = torch.tensor([[0.0], [h]], dtype=torch.float64)
    part = Split(torch.ones(1, 1, dtype=torch.float64), torch.ones(1).long(), torch.zeros(1).long())
    data = GroupedData("one", {"train": part}, ("no", "yes"), ("all",))
    (row,) = pruning.gradient_bound(linear, data).itertuples()
    p = 1 / (1 + math.exp(-h))
    assert row.norm / row.softmax == pytest.approx(1 / (2 * p * (1 - p)), rel=1e-9)
    assert row.norm == pytest.approx(row.logits, rel=1e-12)


def test_the_hessian_of_three_classes_is_the_sum_of_its_terms() -> None:
    """Oracle: H_x by its formula, from torch.autograd.functional; for a linear network the trace term is closed."""
    sides = verdicts.softmax_sides(3, 2)
    logits, theta, x, y = random_networks(3, 2, outputs=3)
    for i, j in np.ndindex(3, 2):
        jacobian = torch.autograd.functional.jacobian(lambda t, i=i, j=j: logits(t, x[i, j]), theta[i])
        bends = [
            torch.autograd.functional.hessian(lambda t, i=i, j=j, z=z: logits(t, x[i, j])[z], theta[i])
            for z in range(3)
        ]
        p = logits(theta[i], x[i, j]).softmax(0)
        off = p - F.one_hot(y[i, j], 3)
        expected = jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
        expected = expected + sum(one * bend for one, bend in zip(off, bends, strict=True))
        error = sum(one.abs() * torch.linalg.svdvals(bend)[0] for one, bend in zip(off, bends, strict=True))
        near = {"class by class": ((p - p**2) * jacobian.square().sum(1)).sum()}
        near["trace"] = (1 - p @ p) * torch.linalg.svdvals(jacobian)[0] ** 2
        for reading, (hessian, right) in sides.items():
            assert torch.allclose(hessian[i, j], expected, rtol=1e-9, atol=1e-12)
            assert right[i, j].item() == pytest.approx((near[reading] + error).item(), rel=1e-9)
