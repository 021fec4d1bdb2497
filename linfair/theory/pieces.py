"""Proposition 4.2 and Appendix B.1: how many linear pieces a ReLU network R -> R has, counted exactly.

The network is carried through its layers as break points and, on each piece, slope and intercept of every unit. A
linear layer maps slopes and intercepts; a ReLU breaks a piece where its input crosses 0 and multiplies the negative
side by 1 - alpha (alpha = 1 for a plain ReLU). Floats are integers times powers of two, so all of this is done in
integers, without a tolerance. Neighbours of equal slope are one piece. With kept_i <= w_i ReLUs in layer i,

    pieces <= product over layers of (1 + kept_i)                            (`pieces_bound_kept`)
           <= 2^(k - 1) (w_1 + 1) w_2 ... w_k                                (`pieces_bound`, as printed).

`linfair_book.piecewise.zigzag` reaches the first, networks with one hidden layer the printed one, which must not be
used with kept counts: a layer without ReLUs makes it 0. Source: Das et al., ICML 2024, Sec. 4 and App. B.1; Arora et
al., ICLR 2018.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from linfair.gates import ReLUGate


@dataclass(frozen=True)
class PiecewiseLinear:
    """A continuous piecewise linear function of one variable, exactly; neighbouring slopes differ."""

    breaks: tuple[Fraction, ...]  #: Where the slope changes, ascending
    slopes: tuple[Fraction, ...]  #: Slope of each piece, one more than breaks
    intercepts: tuple[Fraction, ...]  #: Value each piece would have at 0

    @property
    def count(self) -> int:
        """Number of linear pieces."""
        return len(self.slopes)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values at some points, in float64."""
        piece = np.searchsorted(np.array([float(b) for b in self.breaks]), x)
        slopes, intercepts = (np.array([float(v) for v in values]) for values in (self.slopes, self.intercepts))
        return slopes[piece] * x + intercepts[piece]


def pieces_bound(widths: Sequence[int]) -> int:
    """The bound as printed in Prop. 4.2, for hidden layers of w_1, ..., w_k units: 2^(k - 1) (w_1 + 1) w_2 ... w_k.

    >>> pieces_bound([2]), pieces_bound([2, 2])
    (3, 12)
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"the bound is for hidden layers of at least one ReLU, got widths {list(widths)}")
    return 2 ** (len(widths) - 1) * (widths[0] + 1) * math.prod(widths[1:])


def pieces_bound_kept(kept: Sequence[int]) -> int:
    """The product of (1 + kept ReLUs) over the hidden layers; a layer linearized altogether keeps 0.

    >>> pieces_bound_kept([2]), pieces_bound_kept([1]), pieces_bound_kept([2, 0, 3])
    (3, 2, 12)
    """
    if min(kept, default=0) < 0:
        raise ValueError(f"kept ReLUs are counts, got {list(kept)}")
    return math.prod(1 + count for count in kept)


def layer_counts(network: nn.Module) -> tuple[list[int], list[int]]:
    """Units and kept ReLUs (alpha != 0) of each hidden layer of a network that `pieces` can read."""
    widths, kept, width = [], [], 1
    for layer in _layers(network):
        if isinstance(layer, nn.Linear):
            width = layer.out_features
        else:
            widths.append(width)
            kept.append(int((layer.alpha != 0).sum()) if isinstance(layer, ReLUGate) else width)
    return widths, kept


def pieces(
    network: nn.Module, interval: tuple[float, float] | None = None, *, output: Sequence[float] | None = None
) -> PiecewiseLinear:
    """The piecewise linear function that a ReLU network of one input computes, exactly; `count` is its pieces' number.

    The network has linear layers and ReLUs or gates in `nn.Sequential`s (nested or not) and one input feature
    (`on_line` makes it of several); flatten and identity layers do nothing. `interval` is where to look, (low, high),
    all of R by default; `output` weighs the outputs where there are several, (-1, 1) for the difference of two logits.
    A ValueError refuses other layers, weights that are not finite, an empty interval, and what these do not fit.

    Fig. 10, x -> relu(x + 1) - 2 relu(x - 1), on R and on a part of it:

    >>> network, numbers = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)), (1, 1, 1, -1, 1, -2, 0)
    >>> nn.utils.vector_to_parameters(torch.tensor(numbers).float(), network.parameters())
    >>> pieces(network).count, pieces(network, (-4.0, 0.0)).count
    (3, 2)
    """
    sides = [None, None] if interval is None else [Fraction(float(end)) for end in interval]
    if interval is not None and not sides[0] < sides[1]:
        raise ValueError(f"an interval is (low, high) with low < high, got {tuple(interval)}")
    lines, exponent = np.array([[[1]], [[0]]], dtype=object), 0  # slopes and intercepts, (2, pieces, units)
    for layer in _layers(network):
        if isinstance(layer, nn.Linear):
            if layer.in_features != lines.shape[2]:
                raise ValueError(f"a layer takes {layer.in_features} features where there are {lines.shape[2]}")
            lines, exponent = _linear(layer.weight, layer.bias, lines, exponent)
        else:
            sides, lines, exponent = _relu(layer, sides, lines, exponent)
    units = lines.shape[2]
    if output is not None or units > 1:
        if output is None or len(output) != units:
            raise ValueError(f"the network has {units} outputs: give output= as many weights, (-1, 1) for a difference")
        lines, exponent = _linear(torch.tensor([list(output)], dtype=torch.float64), None, lines, exponent)
    slope, intercept = lines[..., 0]
    new = [0, *(piece for piece in range(1, len(slope)) if slope[piece] != slope[piece - 1])]
    slopes, intercepts = (tuple(Fraction(one[piece], 2**exponent) for piece in new) for one in (slope, intercept))
    return PiecewiseLinear(tuple(sides[piece] for piece in new[1:]), slopes, intercepts)


def on_line(network: nn.Module, start: Tensor, end: Tensor) -> nn.Sequential:
    """A network of flat inputs (n, d) along the line start + t (end - start), ends of shape (d,), as a network of t."""
    first = nn.Linear(1, len(start), dtype=start.dtype, device=start.device)
    with torch.no_grad():
        first.weight.copy_((end - start)[:, None])
        first.bias.copy_(start)
    return nn.Sequential(first, network)


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """Linear layers, ReLUs and gates in the order of the forward pass."""
    forward = type(network).forward  # a subclass may have its own, as a residual block
    if forward is nn.Sequential.forward:
        for layer in network:
            yield from _layers(layer)
    elif forward in (nn.Linear.forward, ReLUGate.forward, nn.ReLU.forward):
        yield network
    elif not isinstance(network, nn.Flatten | nn.Identity):
        text = f"pieces are counted for linear layers, nn.ReLU and gates in nn.Sequential, not {type(network).__name__}"
        raise ValueError(text)


def _integers(values: Tensor) -> tuple[np.ndarray, int]:
    """Floats as (integers, exponent): value = integer / 2^exponent, exactly."""
    values = values.detach().cpu().double()
    if not values.isfinite().all():
        raise ValueError("a weight is not finite: the network is no piecewise linear function")
    ratios = [value.as_integer_ratio() for value in values.flatten().tolist()]
    exponent = max((bottom.bit_length() - 1 for _, bottom in ratios), default=0)
    whole = np.empty(len(ratios), dtype=object)
    whole[:] = [top * (2**exponent // bottom) for top, bottom in ratios]
    return whole.reshape(tuple(values.shape)), exponent


def _linear(weight: Tensor, bias: Tensor | None, lines: np.ndarray, exponent: int) -> tuple[np.ndarray, int]:
    factor, finer = _integers(weight)
    lines, exponent = lines @ factor.T, exponent + finer
    if bias is not None:
        shift, finer = _integers(bias)
        common = max(exponent, finer)
        lines, exponent = lines * 2 ** (common - exponent), common
        lines[1] += shift * 2 ** (common - finer)
    return lines, exponent


def _relu(
    layer: nn.Module, sides: list[Fraction | None], lines: np.ndarray, exponent: int
) -> tuple[list[Fraction | None], np.ndarray, int]:
    """Break the pieces (`sides` are their ends) where a unit crosses 0 and multiply the negative sides by 1 - alpha."""
    units = lines.shape[2]
    alpha = layer.alpha.detach().flatten() if isinstance(layer, ReLUGate) else torch.ones(units)
    if len(alpha) != units:
        raise ValueError(f"a gate holds {len(alpha)} units where there are {units}")
    negative = 1 - alpha  # rounded as the gate rounds it
    bending = (negative != 1).nonzero()[:, 0].tolist()
    refined, origin = sides[:1], []
    for piece, (left, right) in enumerate(pairwise(sides)):
        slope, intercept = lines[:, piece]
        roots = {Fraction(-intercept[unit], slope[unit]) for unit in bending if slope[unit]}
        inside = sorted(r for r in roots if (left is None or left < r) and (right is None or r < right))
        refined += [*inside, right]
        origin += [piece] * (len(inside) + 1)
    lines = lines[:, origin]
    factor, finer = _integers(negative)
    for piece, (left, right) in enumerate(pairwise(refined)):
        point = _between(left, right)
        below = lines[0, piece] * point.numerator + lines[1, piece] * point.denominator < 0
        lines[:, piece] *= np.where(below, factor, 2**finer)
    return refined, lines, exponent + finer


def _between(left: Fraction | None, right: Fraction | None) -> Fraction:
    """A point inside a piece: the mediant of its ends, or one step from the only end."""
    if left is None or right is None:
        return Fraction(0) if left is right else right - 1 if left is None else left + 1
    return Fraction(left.numerator + right.numerator, left.denominator + right.denominator)
