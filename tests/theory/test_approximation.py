"""Prop. 4.1: closed forms, linear programmes with knots by brute force, and the limits known from f''."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linfair_book import propositions
from linfair_book.propositions import even_error, fit_rate
from scipy.integrate import quad
from scipy.optimize import linprog

from linfair.theory.approximation import FUNCTIONS, ConvexFunction, approximate, line_error

each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def minimax_line(function, low, high, points=1201):
    """Error of the best line on a grid, by linear programming: minimise e with |f(x) - a x - b| <= e."""
    x = np.linspace(low, high, points)
    y = np.array([function.value(v) for v in x.tolist()])
    ones = np.ones_like(x)
    upper = np.block([[np.stack([x, ones, -ones], 1)], [np.stack([-x, -ones, -ones], 1)]])
    bounds = [(None, None), (None, None), (0, None)]
    return linprog([0, 0, 1], A_ub=upper, b_ub=np.concatenate([y, -y]), bounds=bounds).fun


CLOSED = {
    "square": lambda n: 1 / (8 * n**2),
    "inverse": lambda n: (2 - 0.5) ** 2 / (2 * n**2),  # equal steps of 1 / sqrt(x)
    "root": lambda n: 1 / (4 * n * (n + 1)),  # knots at triangular numbers squared
}


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 64])
@pytest.mark.parametrize("key", CLOSED)
def test_error_equals_the_closed_form(key, n):
    assert approximate(FUNCTIONS[key], n).error == pytest.approx(CLOSED[key](n), rel=1e-9)


def test_knots_of_the_root_are_squared_triangular_shares():
    """By hand: E = (b - a)^2 / (8 (a + b)) from a^2 to b^2, equal on all pieces for a_k = k (k + 1) / (n (n + 1))."""
    expected = [(k * (k + 1) / 20) ** 2 for k in range(5)]
    assert approximate(FUNCTIONS["root"], 4).knots == pytest.approx(expected, rel=1e-9)


@each_function
def test_line_error_equals_a_linear_programme(function):
    third = function.low + (function.high - function.low) / 3
    for low, high in ((function.low, function.high), (third, function.high)):
        assert line_error(function, low, high) == pytest.approx(minimax_line(function, low, high), rel=2e-4)


@pytest.mark.parametrize("key", ["fourth", "softplus", "root"])
@pytest.mark.parametrize("n", [2, 3])
def test_no_knots_on_a_grid_do_better(key, n):
    """Brute force: knots on a grid of 40, every piece its own best line, discontinuous if it likes."""
    function = FUNCTIONS[key]
    grid = np.linspace(function.low, function.high, 41).tolist()
    cost = {(i, j): line_error(function, grid[i], grid[j]) for i in range(41) for j in range(i + 1, 41)}
    if n == 2:
        best = min(max(cost[0, i], cost[i, 40]) for i in range(1, 40))
    else:
        best = min(max(cost[0, i], cost[i, j], cost[j, 40]) for i in range(1, 39) for j in range(i + 1, 40))
    error = approximate(function, n).error
    assert error <= best * (1 + 1e-12) and best <= 1.35 * error  # the grid comes near


@each_function
@pytest.mark.parametrize("n", [1, 5])
def test_it_is_continuous_convex_and_swings_between_plus_and_minus_the_error(function, n):
    best = approximate(function, n)
    x = np.unique(np.concatenate([np.linspace(function.low, function.high, 20_001), best.knots]))
    gap = best(x) - np.array([function.value(v) for v in x.tolist()])
    assert np.abs(gap).max() == pytest.approx(best.error, rel=1e-6)
    assert gap[np.searchsorted(x, best.knots)] == pytest.approx([-best.error] * (n + 1), rel=1e-6)
    tops = [gap[(x >= u) & (x <= v)].max() for u, v in zip(best.knots, best.knots[1:], strict=False)]
    assert tops == pytest.approx([best.error] * n, rel=1e-3)
    assert best.spread < 1e-9 and (np.diff(np.diff(best.values) / np.diff(best.knots)) > 0).all()


CURVATURES = {
    "square": lambda x: 2.0,
    "fourth": lambda x: 12 * x**2,
    "exp": math.exp,
    "inverse": lambda x: 2 / x**3,
    "softplus": lambda x: math.exp(-x) / (1 + math.exp(-x)) ** 2,
    "root": lambda x: x**-1.5 / 4,
}


@pytest.mark.parametrize("key", FUNCTIONS)
def test_limits_equal_the_integral_of_the_root_of_the_curvature_and_are_reached(key):
    function = FUNCTIONS[key]
    integral = quad(lambda x: math.sqrt(CURVATURES[key](x)), function.low, function.high)[0]
    assert function.limit == pytest.approx(integral**2 / 16, rel=1e-7)
    assert 100**2 * approximate(function, 100).error == pytest.approx(function.limit, rel=0.012)


@each_function
def test_slopes_equal_central_differences(function):
    for x in np.linspace(function.low, function.high, 9)[1:-1].tolist():
        difference = (function.value(x + 1e-6) - function.value(x - 1e-6)) / 2e-6
        assert function.slope(x) == pytest.approx(difference, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(-2, 1), st.floats(0.1, 3), st.floats(0.01, 100), st.floats(-5, 5), st.floats(-5, 5), st.integers(1, 12)
)
def test_adding_a_line_and_scaling_scale_the_error(low, width, factor, slope, offset, n):
    """e^x on [low, low + width]: E_n is linear in the function and blind to lines; shifts multiply it by e^shift."""
    plain = ConvexFunction("e^x", math.exp, math.exp, 0.0, width, math.nan)
    other = ConvexFunction(
        "other",
        lambda x: factor * math.exp(x) + slope * x + offset,
        lambda x: factor * math.exp(x) + slope,
        low,
        low + width,
        math.nan,
    )
    expected = factor * math.exp(low) * approximate(plain, n).error
    noise = 1e-14 * (factor * math.exp(low + width) + 20)  # rounding of the values
    assert approximate(other, n).error == pytest.approx(expected, rel=1e-6, abs=noise)


def test_even_knots_lose_the_rate_where_the_curvature_is_unbounded():
    """By hand: -sqrt(x) on [0, 1/n] has the error sqrt(1/n) / 8; x^2 is best with even knots."""
    assert even_error(FUNCTIONS["root"], 25) == pytest.approx(1 / 40)
    assert even_error(FUNCTIONS["square"], 25) == pytest.approx(1 / 5000)


def test_an_infinite_slope_at_the_right_end_is_the_mirror_image():
    mirror = ConvexFunction(
        r"-\sqrt{1-x}",
        lambda x: -math.sqrt(1 - x),
        lambda x: 0.5 / math.sqrt(1 - x) if x < 1 else math.inf,
        0.0,
        1.0,
        1 / 4,
    )
    assert approximate(mirror, 3).error == pytest.approx(1 / 48, rel=1e-9)


def test_fit_of_an_exact_power_law_and_of_a_bent_one():
    """By hand: y = log2(e) = 0, -1, -4 at x = 0, 1, 2: order -2, residual of the middle point 2/3 of log 2."""
    assert fit_rate([1, 2, 4], [1.0, 0.25, 0.0625]) == pytest.approx((-2, 0))
    assert fit_rate([1, 2, 4], [1.0, 0.5, 0.0625]) == pytest.approx((-2, 2 / 3 * math.log(2)))


def test_tables_hold_the_closed_forms():
    table = propositions.rate_table([2, 4, 8], functions=["square", "root"])
    assert len(table) == 6
    assert table.query("function == 'square'")["scaled"].tolist() == pytest.approx([1 / 8] * 3)
    square, root = propositions.rates(table).to_dict("records")
    assert (square["order"], square["residual"]) == (pytest.approx(-2), pytest.approx(0, abs=1e-9))
    assert root["even_order"] == pytest.approx(-0.5) and root["last_order"] == pytest.approx(math.log2(5 / 18))
    assert (root["limit"], root["points"]) == (0.25, 3)


@pytest.mark.parametrize(
    ("value", "slope"), [(lambda x: 2 * x, lambda x: 2.0), (lambda x: x**3, lambda x: 3 * x**2), (math.sin, math.cos)]
)
def test_what_is_not_strictly_convex_is_refused(value, slope):
    with pytest.raises(ValueError, match="not strictly convex on"):
        approximate(ConvexFunction("f", value, slope, -1.0, 1.0, math.nan), 2)


def test_no_segments_are_refused():
    with pytest.raises(ValueError, match="n >= 1 segments, got n = 0"):
        approximate(FUNCTIONS["exp"], 0)
