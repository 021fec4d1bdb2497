"""Proposition 4.1: how well n line segments follow a strictly convex function.

The best line on a piece [u, v] is the chord, moved down by half of its largest height above f. With the Bregman
divergence B(x, t) = f(x) - f(t) - f'(t) (x - t), t the point whose tangent is parallel to the chord,

    B(u, t) = B(v, t) = 2 e(u, v),    e(u, v) = the sup-norm error of the best line on [u, v].

e grows with the piece, so the best n knots give all pieces the same error E_n, and neighbours meet at f - E_n: nothing
asked for a continuous approximation, but the best one is. E_n ~ (1/16) (integral of sqrt(f''))^2 / n^2 is the rate of
Prop. 4.1 (Das et al., ICML 2024, Sec. 4, after Liu and Liang, 2021) and its constant.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq

_HUGE = 1e300  # stands for an infinite slope at an end


@dataclass(frozen=True)
class ConvexFunction:
    """A strictly convex function on a bounded interval."""

    name: str  #: How to write it, in TeX without dollar signs
    value: Callable[[float], float]  #: f, of one float
    slope: Callable[[float], float]  #: Its derivative; it may be infinite at the ends
    low: float  #: Left end
    high: float  #: Right end
    limit: float  #: The limit of n^2 E_n, that is (integral of sqrt(f''))^2 / 16


FUNCTIONS: Mapping[str, ConvexFunction] = {
    "square": ConvexFunction("x^2", lambda x: x * x, lambda x: 2 * x, 0.0, 1.0, 1 / 8),
    "fourth": ConvexFunction("x^4", lambda x: x**4, lambda x: 4 * x**3, 0.0, 1.0, 3 / 16),
    "exp": ConvexFunction("e^x", math.exp, math.exp, 0.0, 1.0, (math.sqrt(math.e) - 1) ** 2 / 4),
    "inverse": ConvexFunction("1/x", lambda x: 1 / x, lambda x: -1 / x**2, 0.25, 4.0, 9 / 8),
    "softplus": ConvexFunction(
        *(r"\log(1+e^x)", lambda x: math.log1p(math.exp(x)), lambda x: 1 / (1 + math.exp(-x))),
        *(-4.0, 4.0, math.atan(math.tanh(1)) ** 2),
    ),
    "root": ConvexFunction(
        r"-\sqrt{x}", lambda x: -math.sqrt(x), lambda x: -0.5 / math.sqrt(x) if x else -math.inf, 0.0, 1.0, 1 / 4
    ),
}
"""Functions with a known limit of n^2 E_n; `root` has an infinite slope and curvature at 0."""


@dataclass(frozen=True)
class Approximation:
    """The best approximation of a strictly convex function by n line segments, in the sup norm."""

    error: float  #: Its error E_n
    knots: tuple[float, ...]  #: The n + 1 ends of its segments, ascending
    values: tuple[float, ...]  #: Its values there, f - E_n
    spread: float  #: Largest minus smallest error of a segment, relative to E_n, 0 but for rounding

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Value at points of [low, high]."""
        return np.interp(x, self.knots, self.values)


def line_error(function: ConvexFunction, low: float, high: float) -> float:
    """Sup-norm error of the best line on a piece [low, high]."""
    f, slope = function.value, function.slope
    chord = (f(high) - f(low)) / (high - low)
    if not slope(low) < chord < slope(high):  # a piece so short that it is straight in float64
        return 0.0
    t = brentq(lambda x: _finite(slope(x) - chord), low, high, xtol=1e-16 * max(1.0, abs(high)))
    return max(0.0, (f(low) + chord * (t - low) - f(t)) / 2)


def approximate(function: ConvexFunction, n: int) -> Approximation:
    """Best approximation by n >= 1 line segments with free knots.

    From the left end, each knot u gives the next one v for a trial error E: first the point t with B(u, t) = 2 E, then
    v > t with B(v, t) = 2 E. E is the root of (error of what is left for the last segment) - E, which falls with E. A
    ValueError refuses n < 1, and a function that is not strictly convex on a grid of 65 points.

    >>> best = approximate(FUNCTIONS["square"], 4)
    >>> round(best.error * 8 * 4**2, 9), [round(knot, 6) for knot in best.knots]
    (1.0, [0.0, 0.25, 0.5, 0.75, 1.0])
    """
    if n < 1:
        raise ValueError(f"an approximation has n >= 1 segments, got n = {n}")
    f, high = function.value, function.high
    values = np.array([f(x) for x in np.linspace(function.low, high, 65).tolist()])
    if not (np.diff(values, 2) > 0).all():
        text = f"{function.name} is not strictly convex on [{function.low:g}, {high:g}]: Prop. 4.1 is about strictly "
        raise ValueError(f"{text}convex functions; cut the interval where the curvature changes sign")

    def left_over(error: float) -> float:
        knots = _walk(function, n, error)
        return (line_error(function, knots[-1], high) if len(knots) == n else 0.0) - error

    error = line_error(function, function.low, high)
    if n > 1:
        error = brentq(left_over, error * 1e-4 / n**2, error, xtol=1e-18, rtol=1e-14)
    knots = (*_walk(function, n, error), high)
    if len(knots) != n + 1:
        raise ValueError(f"{function.name}: {n} segments are finer than float64 resolves; take a smaller n")
    errors = [line_error(function, u, v) for u, v in pairwise(knots)]
    error = max(errors)
    return Approximation(error, knots, tuple(f(knot) - error for knot in knots), (error - min(errors)) / error)


def _finite(value: float) -> float:
    return max(-_HUGE, min(_HUGE, value)) if value == value else _HUGE


def _next_knot(function: ConvexFunction, u: float, error: float) -> float:
    """The end of the longest piece from u with that error; the right end if it is not exhausted there."""
    f, slope, high = function.value, function.slope, function.high

    def gap(x: float, t: float) -> float:
        return f(x) - f(t) - slope(t) * (x - t) - 2 * error

    if _finite(gap(u, high)) <= 0:
        return high
    t = brentq(lambda t: _finite(gap(u, t)) if t > u else -2 * error, u, high, xtol=1e-17, rtol=1e-15)
    return high if gap(high, t) <= 0 else brentq(gap, t, high, args=(t,), xtol=1e-17, rtol=1e-15)


def _walk(function: ConvexFunction, n: int, error: float) -> list[float]:
    """The left ends of n pieces of that error, fewer if the interval is used up before."""
    knots = [function.low]
    while len(knots) < n and knots[-1] < function.high:
        knots.append(_next_knot(function, knots[-1], error))
    return knots if knots[-1] < function.high else knots[:-1]
