"""Networks whose pieces tell something about Proposition 4.2: Fig. 10's, the richest possible, and random ones."""

import math
from collections.abc import Sequence
from itertools import pairwise, product

import pandas as pd
import torch
from torch import Tensor, nn

from linfair import gates
from linfair.theory.pieces import layer_counts, on_line, pieces, pieces_bound, pieces_bound_kept


def fig_10(*, linearized: bool = False) -> nn.Sequential:
    """The example of Fig. 10, slopes 0, 1, -1: x -> relu(x + 1) - 2 relu(x - 1), float64, two gated units."""
    gated = gates.install(_hidden([1.0, 1.0], [1.0, -1.0], [1.0, -2.0], 0.0), (1,))
    if linearized:
        gates.set_alphas(gated, lambda _, alpha: alpha.new_tensor([[1.0, 0.0]]))
    return gates.freeze(gated)


def _hidden(weights: list[float], biases: list[float], out: list[float], shift: float) -> nn.Sequential:
    """Linear, ReLU, linear with these numbers: x -> sum of out_i relu(weights_i x + biases_i) + shift."""
    network = nn.Sequential(nn.Linear(1, len(weights)), nn.ReLU(), nn.Linear(len(weights), 1)).double()
    for parameter, values in zip(network.parameters(), (weights, biases, out, [shift]), strict=True):
        parameter.data.copy_(parameter.new_tensor(values).view_as(parameter))
    return network


def zigzag(widths: Sequence[int]) -> nn.Sequential:
    """A network that reaches the product of (1 + width) on R, the most for these widths, which are at least 3.

    A layer of w units computes a zigzag of 1 + w pieces between -1 and 1, on each of which the next layer bends.
    """
    layers = []
    for width in widths:
        turns = [0.0, *(2.0 * i - 1 for i in range(1, width))]
        changes = [-4.0, 3.0, *(2.0 * (-1) ** (i + 1) for i in range(width - 2))]
        side = [-1.0 if i == 2 else 1.0 for i in range(width)]
        biases = [-direction * turn for direction, turn in zip(side, turns, strict=True)]
        first, relu, last = _hidden(side, biases, changes, 1 - changes[2] * turns[2])
        if layers:  # from [-1, 1], where the zigzag before turns, to [-1, 2 w - 1], past all bends
            first = _behind(layers.pop(), first, width, width - 1)
        layers += [first, relu, last]
    return nn.Sequential(*layers)


def _behind(one: nn.Linear, two: nn.Linear, factor: int, shift: int) -> nn.Linear:
    """The linear layer z -> two(factor * one(z) + shift)."""
    joined = nn.Linear(one.in_features, two.out_features).double()
    with torch.no_grad():
        joined.weight.copy_(factor * two.weight @ one.weight)
        joined.bias.copy_(two(factor * one.bias + shift))
    return joined


def reached(widths: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Pieces of `zigzag` beside both bounds: a row for each list of widths."""
    rows = [("-".join(map(str, w)), pieces(zigzag(w)).count, pieces_bound_kept(w), pieces_bound(w)) for w in widths]
    return pd.DataFrame(rows, columns=["widths", "pieces", "bound_kept", "bound"])


def counts_of_random_networks(
    widths: Sequence[Sequence[int]], *, shares: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.0), seeds: Sequence[int]
) -> pd.DataFrame:
    """Pieces on R of `random_network`s as more and more of their ReLUs become the identity, nested by share."""
    rows = []
    for layers, seed in product(widths, seeds):
        gated = gates.install(random_network(layers, seed=seed), (1,))
        order = torch.randperm(sum(layers), generator=torch.Generator().manual_seed(seed))
        full = pieces(gated).count
        for share in shares:
            kept = round(share * sum(layers))
            alphas = torch.zeros(sum(layers), dtype=torch.float64).index_fill_(0, order[:kept], 1.0).split(layers)
            for gate, alpha in zip(gates.sites(gated).values(), alphas, strict=True):
                gate.alpha.data.copy_(alpha)
            first, *others = by_layer = layer_counts(gated)[1]
            misused = 2 ** len(others) * (first + 1) * math.prod(others)
            counts = pieces(gated).count, pieces_bound_kept(by_layer), pieces_bound(layers), misused, full
            rows.append(("-".join(map(str, layers)), seed, share, kept, *counts))
    columns = ["widths", "seed", "share", "kept", "pieces", "bound_kept", "bound", "printed_with_kept", "pieces_full"]
    return pd.DataFrame(rows, columns=columns)


def random_network(widths: Sequence[int], *, seed: int) -> nn.Sequential:
    """A ReLU network R -> R, weights normal with variance 2 / inputs, biases standard normal, float64."""
    generator, layers = torch.Generator().manual_seed(seed), []
    for inputs, outputs in pairwise([1, *widths, 1]):
        linear = nn.Linear(inputs, outputs).double()
        nn.init.normal_(linear.weight, std=(2 / inputs) ** 0.5, generator=generator)
        nn.init.normal_(linear.bias, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def counts_on_lines(
    network: nn.Module, starts: Tensor, ends: Tensor, *, output: Sequence[float] | None = None
) -> list[int]:
    """Number of `pieces` of a network of flat inputs on each segment from `starts` to `ends`, shape (lines, d)."""
    lines = (on_line(network, start, end) for start, end in zip(starts, ends, strict=True))
    return [pieces(line, (0.0, 1.0), output=output).count for line in lines]
