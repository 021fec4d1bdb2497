"""Prop. 4.2: piece counts against activation patterns one by one, dense sampling, and functions made by hand."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linfair_book import piecewise as networks
from linfair_book import toy
from linfair_book.piecewise import counts_on_lines
from torch import nn

import linfair
from linfair import gates
from linfair.theory.pieces import layer_counts, on_line, pieces, pieces_bound, pieces_bound_kept


def by_patterns(network, lower=Fraction(-(10**6)), upper=Fraction(10**6)):
    """Count maximal pieces in another way: every on/off pattern, its affine function in fractions, where it holds."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.ReLU | gates.ReLUGate)]
    width, sizes = 1, []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            width = layer.out_features
        else:
            sizes.append(width)
    found = []
    for pattern in itertools.product((False, True), repeat=sum(sizes)):
        bits, low, high, lines = iter(pattern), lower, upper, [(Fraction(1), Fraction(0))]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                weight, bias = layer.weight.tolist(), layer.bias.tolist()
                lines = [
                    (
                        sum(Fraction(w) * s for w, (s, _) in zip(row, lines, strict=True)),
                        sum(Fraction(w) * c for w, (_, c) in zip(row, lines, strict=True)) + Fraction(shift),
                    )
                    for row, shift in zip(weight, bias, strict=True)
                ]
                continue
            alpha = layer.alpha.tolist() if isinstance(layer, gates.ReLUGate) else [1.0] * len(lines)
            bent = []
            for (s, c), a in zip(lines, alpha, strict=True):
                on = next(bits)
                if s:
                    side = (s > 0) == on  # the unit is on to the right of its root
                    low, high = (max(low, -c / s), high) if side else (low, min(high, -c / s))
                elif (c > 0) != on:
                    low = high
                times = 1 if on else 1 - Fraction(a)
                bent.append((s * times, c * times))
            lines = bent
        if low < high:
            found.append((low, high, lines[0][0]))
    found.sort()
    assert all(left[1] == right[0] for left, right in itertools.pairwise(found))  # they tile the line
    return 1 + sum(left[2] != right[2] for left, right in itertools.pairwise(found))


def by_sampling(network, low, high, points=200_001):
    """Count slopes between neighbours of a fine grid; runs of one grid step straddle a break and are dropped."""
    x = torch.linspace(low, high, points, dtype=torch.float64)
    with torch.no_grad():
        y = network(x[:, None])[:, 0]
    slope = torch.diff(y) / torch.diff(x)
    same = torch.isclose(slope[1:], slope[:-1], rtol=0, atol=1e-6 * float(slope.abs().max()))
    runs = "".join("1" if equal else "0" for equal in same.tolist()).split("0")
    return sum(run != "" for run in runs)


def random_network(widths, seed, *, gated=True):
    """A network with random gates: ReLU, identity and in between."""
    generator = torch.Generator().manual_seed(seed)
    network = networks.random_network(widths, seed=seed)
    if not gated:
        return network
    network = gates.install(network, (1,))
    choices = torch.tensor([0.0, 0.25, 1.0, 1.0], dtype=torch.float64)
    return gates.set_alphas(
        network, lambda _, alpha: choices[torch.randint(4, alpha.shape, generator=generator)].to(alpha)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("widths", [(1,), (4,), (2, 2), (3, 4), (2, 3, 2), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["relu", "gates"])
def test_count_equals_the_activation_patterns_one_by_one(widths, seed, gated):
    network = random_network(widths, seed, gated=gated)
    assert pieces(network).count == by_patterns(network)
    inside = pieces(network, (-0.5, 0.75)).count
    assert inside == by_patterns(network, Fraction(-1, 2), Fraction(3, 4))


@pytest.mark.parametrize("seed", range(3))
def test_count_equals_dense_sampling(seed):
    network = networks.random_network((8, 8), seed=seed)
    found = pieces(network, (-4.0, 4.0))
    assert np.diff([float(b) for b in found.breaks]).min() > 2e-4  # else the grid is too coarse to judge
    assert found.count == by_sampling(network, -4.0, 4.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_function_found_is_the_network(seed):
    network = random_network((6, 5), seed)
    x = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    with torch.no_grad():
        expected = network(x[:, None])[:, 0].numpy()
    found = pieces(network)
    assert found(x.numpy()) == pytest.approx(expected, abs=1e-10)
    assert len(found.breaks) + 1 == len(found.slopes) == len(found.intercepts) == found.count
    for b, s, t, c, d in zip(
        found.breaks, found.slopes, found.slopes[1:], found.intercepts, found.intercepts[1:], strict=False
    ):
        assert s != t and s * b + c == t * b + d  # exactly continuous, exactly maximal


@settings(max_examples=60, deadline=None)
@given(widths=st.lists(st.integers(1, 5), min_size=1, max_size=3), seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_counts_are_within_both_bounds(widths, seed, share):
    network = gates.install(networks.random_network(widths, seed=seed), (1,))
    generator = torch.Generator().manual_seed(seed)
    gates.set_alphas(network, lambda _, alpha: (torch.rand(alpha.shape, generator=generator) < share).to(alpha))
    units, kept = layer_counts(network)
    assert units == widths and sum(kept) == int(gates.kept_units(network))
    assert 1 <= pieces(network).count <= pieces_bound_kept(kept) <= pieces_bound_kept(units) <= pieces_bound(widths)


def test_fig_10_has_the_pieces_and_slopes_computed_by_hand():
    full, less = pieces(networks.fig_10()), pieces(networks.fig_10(linearized=True))
    assert (full.breaks, full.slopes) == ((-1, 1), (0, 1, -1))
    assert (less.breaks, less.slopes) == ((-1,), (-2, -1))
    assert (pieces_bound([2]), pieces_bound_kept([1])) == (full.count, less.count)


@pytest.mark.parametrize("widths", [(3,), (3, 3), (4, 5), (5, 3, 4), (3, 3, 3, 3)], ids=str)
def test_zigzag_reaches_the_product(widths):
    assert pieces(networks.zigzag(widths)).count == pieces_bound_kept(widths)


def test_zigzag_of_one_layer_turns_at_plus_and_minus_one():
    found = pieces(networks.zigzag([5]))
    assert found.breaks == (0, 1, 3, 5, 7) and found.slopes == (2, -2, 1, -1, 1, -1)
    assert found(np.array([0.0, 1, 3, 5, 7])).tolist() == [1, -1, 1, -1, 1]
    assert by_patterns(networks.zigzag([3, 3])) == 16


@pytest.mark.parametrize("widths", [(1, 1), (2, 1), (3, 1), (2, 2), (1, 2)], ids=str)
def test_no_random_network_with_two_layers_reaches_the_printed_bound(widths):
    most = max(pieces(networks.random_network(widths, seed=seed)).count for seed in range(200))
    assert most < pieces_bound(widths)


def test_linearizing_can_add_pieces():
    """relu(-relu(x) - 1) is 0 everywhere; with the inner unit linearized it is relu(-x - 1)."""
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU())
    for parameter, value in zip(network.parameters(), (1.0, 0.0, -1.0, -1.0), strict=True):
        nn.init.constant_(parameter, value)
    gated = gates.install(network, (1,))
    assert pieces(gated).count == 1
    next(iter(gates.sites(gated).values())).alpha.data.zero_()
    assert pieces(gated).count == 2 == pieces_bound_kept(layer_counts(gated)[1])


def test_breaks_closer_than_float64_can_see_are_counted():
    """relu(x) - relu(x - 2^-70) bends at 0 and at 2^-70; at 1 both round to the same sums."""
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    for parameter, value in zip(network.parameters(), ([1, 1], [0, -(2.0**-70)], [1, -1], [0]), strict=True):
        parameter.data.copy_(parameter.new_tensor(value).view_as(parameter))
    assert pieces(network).breaks == (0, Fraction(1, 2**70))


def test_units_that_cancel_leave_one_piece():
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    for parameter, value in zip(network.parameters(), ([3, 3], [1, 1], [1, -1], [0]), strict=True):
        parameter.data.copy_(parameter.new_tensor(value).view_as(parameter))
    assert pieces(network).count == 1


def test_a_line_through_a_plane_bends_where_the_line_crosses_the_units_boundaries():
    """By hand: relu(x1) + relu(x2) from (-1, 3) to (1, -1): x1 = 0 at t = 1/2, x2 = 0 at t = 3/4."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    for parameter, value in zip(network.parameters(), ([1, 0, 0, 1], [0, 0], [1, 1], [0]), strict=True):
        parameter.data.copy_(parameter.new_tensor(value).view_as(parameter))
    start, end = torch.tensor([-1.0, 3.0]), torch.tensor([1.0, -1.0])
    assert pieces(on_line(network, start, end)).breaks == (Fraction(1, 2), Fraction(3, 4))
    ends = torch.stack([end, torch.tensor([-1.0, 1.0])])  # the second stays where x1 < 0 < x2
    assert counts_on_lines(network, torch.stack([start, start]), ends) == [3, 1]


def test_the_toys_network_with_two_logits_is_its_difference():
    network = toy.linearized(toy.network(0), 0.5, seed=0)
    start, end = torch.tensor([-1.0, -0.5]), torch.tensor([1.0, 0.75])
    found = pieces(on_line(network, start, end), (0.0, 1.0), output=(-1, 1))
    t = torch.linspace(0, 1, 201)
    with torch.no_grad():
        logits = network(start + t[:, None] * (end - start))
    assert found(t.numpy()) == pytest.approx((logits[:, 1] - logits[:, 0]).numpy(), abs=1e-5)


def test_counts_of_random_networks_hold_the_bounds_by_hand_and_share_masks():
    table = networks.counts_of_random_networks([(3, 2)], shares=(1.0, 0.6, 0.0), seeds=range(5))
    assert len(table) == 15 and set(table["widths"]) == {"3-2"}
    full = table[table["share"] == 1.0]
    assert (full["pieces"] == full["pieces_full"]).all()
    assert full[["kept", "bound_kept", "bound", "printed_with_kept"]].drop_duplicates().values.tolist() == [
        [5, 12, 16, 16]
    ]
    none = table[table["share"] == 0.0]
    assert none[["kept", "pieces", "bound_kept", "printed_with_kept"]].drop_duplicates().values.tolist() == [
        [0, 1, 1, 0]
    ]
    assert set(table[table["share"] == 0.6]["bound_kept"]) <= {4, 6}  # 3 + 0, 2 + 1, 1 + 2


class Residual(nn.Sequential):
    """Layers whose input is added to what they compute."""

    def forward(self, input):
        """Run it."""
        return input + super().forward(input)


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        (Residual(nn.Linear(1, 1), nn.ReLU()), {}, "in nn.Sequential, not Residual"),
        (nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)), {}, "not Tanh"),
        (linfair.build("mlp", (4,), classes=2, width=3), {"output": (1, 0)}, "takes 4 features where there are 1"),
        (nn.Sequential(nn.Linear(1, 2)), {}, "has 2 outputs: give output="),
        (nn.Sequential(nn.Linear(1, 2)), {"output": (1, 1, 1)}, "has 2 outputs"),
        (nn.Sequential(nn.Linear(1, 1)), {"interval": (1.0, 1.0)}, "low < high"),
    ],
    ids=["residual", "tanh", "inputs", "outputs", "weights", "interval"],
)
def test_refusals(network, options, words):
    with pytest.raises(ValueError, match=words):
        pieces(network, options.pop("interval", None), **options)


def test_infinite_weights_and_impossible_counts_are_refused():
    network = nn.Sequential(nn.Linear(1, 1))
    nn.init.constant_(network[0].bias, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        pieces(network)
    with pytest.raises(ValueError, match="at least one ReLU"):
        pieces_bound([3, 0])
    with pytest.raises(ValueError, match="are counts"):
        pieces_bound_kept([-1])
