"""Statements on pruning against dense Hessians, closed forms, torch's autograd and the pruners themselves."""

import copy
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from linfair import gates, weights
from linfair.data import GroupedData, Split
from linfair.metrics import group_gradient_norms
from linfair.models import build
from linfair.pruners import prune_magnitude
from linfair.theory import pruning
from linfair.theory.bound import excess_bound, excess_bounds, remainders


@pytest.fixture(scope="module")
def nets() -> list[pruning.Net]:
    """Two seeds of either activation."""
    return pruning.small_networks(range(2))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """All verdicts at the size of the book."""
    return pruning.verdicts().set_index("reading")


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


def test_both_sides_of_theorem_1_equal_dense_hessians(nets: list[pruning.Net]) -> None:
    """Oracle: torch.autograd.functional at the original, and the pruned weights set to 0 by hand."""
    for _, _, original, data in nets[::2]:
        values = torch.cat([layer.weight.detach().abs().flatten() for layer in original if hasattr(layer, "weight")])
        limit = values.sort().values[round(0.7 * len(values)) - 1]
        zeroed = copy.deepcopy(original)
        with torch.no_grad():
            for layer in zeroed:
                if hasattr(layer, "weight"):
                    layer.weight *= layer.weight.abs() > limit
        for row in excess_bound(pruning.pruned(original, 0.7), original, data, tol=1e-10):
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
    model = pruning.pruned(original, 0.5)
    expected = excess_bound(weights.plain(model), original, data)
    assert excess_bound(model, original, data) == expected
    assert excess_bound(model, weights.install(original), data) == expected
    assert excess_bounds([model, original], original, data)[0] == expected
    assert [row.excess for row in excess_bounds([model, original], original, data)[1]] == [0, 0]
    at_the_end = remainders(model, original, data, steps=(1.0,))
    assert [row.remainder for row in at_the_end] == pytest.approx([row.remainder for row in expected], rel=1e-9)
    both = gates.install(weights.plain(model), (3, 8, 8)).double()
    both = gates.binarise(gates.set_alphas(both, lambda _, alpha: torch.zeros_like(alpha)))
    units = sum(gate.alpha.numel() for gate in gates.sites(both).values())
    for row, other in zip(excess_bound(both, original, data, alpha=True), expected, strict=True):
        assert row.distance**2 == pytest.approx(other.distance**2 + units)


def test_a_pruned_network_of_another_teacher_is_refused(nets: list[pruning.Net]) -> None:
    wide = nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 2)).double()
    with pytest.raises(ValueError, match=r"no common parameter space.*made from"):
        excess_bound(pruning.pruned(wide, 0.5), nets[0][2], nets[0][3])


@pytest.mark.parametrize("share", pruning.SHARES)
def test_masks_are_those_of_the_pruner_and_nested(nets: list[pruning.Net], share: float) -> None:
    """Oracle: linfair.pruners.prune_magnitude."""
    _, _, original, data = nets[0]
    (mask,) = weights.masks_of(pruning.pruned(original, share))
    (expected,) = prune_magnitude(original, data, [1 - share], seeds=[0])
    assert {site: unit.tolist() for site, unit in mask.units.items()} == {
        site: unit.tolist() for site, unit in expected.mask.units.items()
    }
    (more,) = weights.masks_of(pruning.pruned(original, min(share + 0.1, 1.0)))
    assert all((more.units[site] <= unit).all() for site, unit in mask.units.items())
    (drawn,) = weights.masks_of(pruning.pruned(original, share, seed=1))
    assert drawn.kept == mask.kept
    assert drawn.jaccard(mask) < 1


def test_units_that_switch_are_counted() -> None:
    """Oracle: two units by hand, relu(2 x + 1) and relu(x / 2 - 1); without the smallest weight the second is shut."""
    original = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    for value, numbers in zip(original.parameters(), ([[2.0], [0.5]], [1.0, -1.0], [[3.0, 3.0]], [0.0]), strict=True):
        value.data = torch.tensor(numbers)
    x = torch.tensor([[-3.0], [1.0], [3.0]])
    assert pruning.switched(pruning.pruned(original, 0.25), original, x).tolist() == [0, 0, 1]
    assert pruning.switched(pruning.pruned(original, 0.5), original, x).tolist() == [1, 0, 1]
    smooth = nn.Sequential(nn.Linear(1, 2), nn.Tanh())
    assert pruning.switched(pruning.pruned(smooth, 0.5), smooth, x).tolist() == [0, 0, 0]


def test_no_cell_violates_theorem_1_without_its_remainder(table: pd.DataFrame) -> None:
    """REPRODUCTION: 0 of 200, the bound far from tight; only the ReLU networks have kinks on the way."""
    rows = table.loc[["without remainder, tanh", "without remainder, ReLU"]]
    assert rows["cells"].sum() == 200
    assert rows["holds"].all()
    assert (rows["looseness"] > 10).all()
    assert (rows["looseness_90"] > rows["looseness"]).all()
    assert table.loc["twice differentiable on the way, tanh", "violated"] == 0
    assert table.loc["twice differentiable on the way, ReLU", "violated"] > 90
    assert table.loc["the larger bound has the larger R(a)", "cells"] == 100


def test_rows_count_the_cells_of_the_table(nets: list[pruning.Net]) -> None:
    """Oracle: loops over the table."""
    cells = pruning.bound_table(nets)
    assert len(cells) == 4 * 7 * 2
    magnitude = cells[(cells["criterion"] == "magnitude") & (cells["share"] != 0.6)]
    found = pruning.theorem_1(cells).set_index("reading")
    tanh = magnitude[magnitude["bend"] == "tanh"]
    ratios = (tanh["bound"] / tanh["excess"].abs()).to_numpy()
    assert found.loc["without remainder, tanh", "looseness"] == pytest.approx(np.median(ratios))
    assert found.loc["without remainder, tanh", "looseness_90"] == pytest.approx(np.percentile(ratios, 90))
    assert found.loc["twice differentiable on the way, ReLU", "violated"] == sum(
        switched > 0 for switched in magnitude.loc[magnitude["bend"] == "ReLU", "switched"]
    )
    order = 0
    for _, (one, two) in magnitude.groupby(["bend", "seed", "share"])[["excess", "bound"]].apply(np.array).items():
        order += (one[0] > two[0]) != (one[1] > two[1])
    assert found.loc["the larger bound has the larger R(a)", "violated"] == order
    falls, shrinks, steps = 0, 0, 0
    for _, part in magnitude.groupby(["bend", "seed", "group"]):
        ordered = part.sort_values("share")
        falls += sum(later < before for before, later in pairwise(ordered["excess"]))
        shrinks += sum(later < before for before, later in pairwise(ordered["bound"]))
        steps += len(part) - 1
    found = pruning.corollary_1(cells).set_index("reading")
    assert tuple(found.loc["R(a) itself along nested magnitude masks", ["cells", "violated"]]) == (steps, falls)
    assert tuple(found.loc["bound along nested magnitude masks", ["cells", "violated"]]) == (steps, shrinks)
    negative = (magnitude["excess"] < 0).sum()
    assert tuple(found.loc["R(a) >= 0, magnitude masks", ["cells", "violated"]]) == (len(magnitude), negative)
    keys = ["bend", "seed", "group"]
    random = cells[cells["criterion"] == "random"].set_index(keys)["bound"]
    larger = cells[(cells["criterion"] == "magnitude") & (cells["share"] == 0.6)].set_index(keys)["bound"]
    across = found.loc["bound of random 50 % against magnitude 60 %", "violated"]
    assert across == sum(larger[key] < random[key] for key in random.index)


def test_corollary_1_holds_for_nested_masks_and_not_across_criteria(table: pd.DataFrame) -> None:
    """REPRODUCTION: 160 of 160 steps; 40 of 40 bounds fall though more is pruned; R(a) falls and is negative."""
    assert tuple(table.loc["bound along nested magnitude masks", ["cells", "violated"]]) == (160, 0)
    across = table.loc["bound of random 50 % against magnitude 60 %"]
    assert across["cells"] == 40
    assert across["violated"] > 35
    for reading, cells in ("R(a) itself along nested magnitude masks", 160), ("R(a) >= 0, magnitude masks", 200):
        assert table.loc[reading, "cells"] == cells
        assert 10 < table.loc[reading, "violated"] < cells / 2


def test_the_smallest_group_of_the_closed_form_has_the_smallest_gradient() -> None:
    """Oracle: 7/6 is the mean of the centres, by hand; the weighted gradients sum to 0."""
    sizes, centres = (3, 2, 1), (0, 3, 1)
    best, norms = pruning.quadratic_groups(sizes, centres)
    assert (best, norms) == (Fraction(7, 6), [Fraction(7, 6), Fraction(11, 6), Fraction(1, 6)])
    assert sum(n * (best - c) for n, c in zip(sizes, centres, strict=True)) == 0
    assert norms[2] < norms[0]


def test_proposition_1_holds_for_two_groups_alone(table: pd.DataFrame) -> None:
    """Oracle: A.1's ratio 60 / 20 for two groups; REPRODUCTION: four groups break it in many pairs."""
    two = table.loc["2 groups, weight decay 0"]
    assert tuple(two[["cells", "violated"]]) == (6, 0)
    assert two["looseness"] == pytest.approx(3, rel=1e-6)
    assert two["total"] < 1e-9
    assert table.loc["2 groups, weight decay 0.01", "total"] > 1e-3
    for decay in (0, 0.01):
        four = table.loc[f"4 groups, weight decay {decay}"]
        assert four["cells"] == 36
        assert 5 < four["violated"] < 31
    assert tuple(table.loc["three groups, closed form", ["cells", "violated"]]) == (3, 2)


def test_sides_of_proposition_2_equal_their_definitions() -> None:
    """Oracle: torch.autograd.functional, input by input, for a pruned network with batch norm and three classes."""
    data = images()
    model = pruning.pruned(build("resnet18", (3, 8, 8), 3, width=2, seed=0).double().eval(), 0.5)
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


def test_proposition_2_holds_for_logits_and_not_as_printed(table: pd.DataFrame) -> None:
    """Oracle: Cauchy-Schwarz for the logits; REPRODUCTION: 12 of 40 groups as printed, by either norm."""
    for norm in ("spectral", "Frobenius"):
        assert tuple(table.loc[f"f = logits, {norm} norm", ["cells", "violated"]]) == (40, 0)
        assert 3 < table.loc[f"f = softmax, {norm} norm", "violated"] < 25
    derivative = table.filter(like="f - y is the derivative", axis=0)
    assert derivative["violated"].tolist() == [100, 100, 0]  # the last one is by the logits


def test_theorem_2_fails_as_printed_and_holds_corrected(table: pd.DataFrame) -> None:
    """Oracle: Weyl's inequality for the corrected; REPRODUCTION: as printed nearly all of 96 groups and 2688 inputs."""
    for words, cells in ("group", 48), ("input", 48 * 28):
        for bend in ("tanh", "ReLU"):
            printed, logit, corrected = (
                table.loc[f"{name}, {bend}, by {words}"] for name in ("printed", "logit", "corrected")
            )
            assert printed["cells"] == logit["cells"] == corrected["cells"] == cells
            assert printed["violated"] > 0.9 * cells
            assert logit["violated"] >= (words == "input")
            assert corrected["holds"]
        assert table.loc[f"trace, three classes, by {words}", "holds"]
    assert table.loc["class by class, three classes, by input", "violated"] > 10


def test_the_hessian_of_three_classes_is_the_sum_of_its_terms() -> None:
    """Oracle: H_x by its formula, from torch.autograd.functional; for a linear network the trace term is closed."""
    sides = pruning.softmax_sides(3, 2)
    logits, theta, x, y = pruning.random_networks(3, 2, outputs=3)
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


def test_proposition_3_is_true_and_its_minimum_out_of_reach(table: pd.DataFrame) -> None:
    """Oracle: 1/4 - (f - 1/2)^2."""
    assert table.loc["f (1 - f) <= 1/4", "holds"]
    assert table.loc["f (1 - f) >= 0", "holds"]
    attained = table.loc["f = sigmoid(h) attains the minimum"]
    assert attained["violated"] == attained["cells"]


def test_every_claim_has_rows_and_each_row_its_verdict(table: pd.DataFrame) -> None:
    claims = {"A-T1", "A-T1b", "A-K1", "A-C06", "A-P1", "A-P2", "A-P2b", "A-T2", "A-T2b", "A-P3"}
    assert set(table["claim"]) == claims
    assert table.index.is_unique
    assert table["holds"].dtype == bool
    assert (table["holds"] == (table["violated"] == 0)).all()
    assert table["violated"].between(0, table["cells"]).all()
    again = pruning.theorem_1(pruning.bound_table(pruning.small_networks([0])))
    assert list(again["cells"]) == [10, 10, 10, 10, 10]


def test_verdicts_do_not_touch_the_callers_random_numbers_or_networks(nets: list[pruning.Net]) -> None:
    _, _, original, data = nets[0]
    state, before = torch.get_rng_state(), copy.deepcopy(original.state_dict())
    part = data.splits["train"]
    pruning.bound_table([("tanh", 0, original, replace(data, splits={"train": part}))])
    pruning.small_networks([0])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())
