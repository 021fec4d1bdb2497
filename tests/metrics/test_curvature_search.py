"""The search for a top eigenvalue: on matrices whose eigenvalues are known, and to the last digit."""

import os

import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.metrics.curvature import _Found, _search, top_eigenvalue_pairs, top_eigenvalues
from linfair.models import build


def diagonal(values: Tensor, which: str = "LA", *, tol: float = 1e-10, max_iterations: int = 1000) -> _Found:
    """The search on the diagonal matrix of these values: its eigenvalues are known, and it is as slow as we like."""
    return _search(lambda vector: values * vector, len(values), which=which, tol=tol, max_iterations=max_iterations)


def test_search_finds_the_top_of_an_even_spectrum_after_restarts() -> None:
    """Oracle: the diagonal. 500 even values from -3 to 2 need many restarts of 20 products."""
    values = torch.linspace(-3, 2, 500, dtype=torch.float64)
    algebraic, absolute = diagonal(values), diagonal(values, "LM")
    assert (algebraic.value, absolute.value) == pytest.approx((2, -3), rel=1e-9)
    assert algebraic.converged and absolute.converged
    assert algebraic.products > 100


@pytest.mark.parametrize("which", ["LA", "LM"])
@pytest.mark.parametrize("values", [[-2.0], [-2.0, -2.0], [-2.0] * 20], ids=len)
def test_equal_negative_eigenvalues_are_found(values: list[float], which: str) -> None:
    """Oracle: the diagonal. What the matrix maps a vector to points away from it, so that their sum is 0."""
    found = diagonal(torch.tensor(values, dtype=torch.float64), which)
    assert found.value == pytest.approx(-2, rel=1e-12)
    assert found.converged


def test_residual_bounds_the_distance_to_a_true_eigenvalue() -> None:
    """A symmetric matrix has an eigenvalue within |Hv - value v| of v . H v; a loose search shows it."""
    values = torch.linspace(-3, 2, 500, dtype=torch.float64)
    loose = diagonal(values, tol=0.05)
    assert loose.converged
    assert 1e-6 < loose.residual <= 0.05 * loose.value
    assert (values - loose.value).abs().min() <= loose.residual
    assert loose.value < 2


def test_a_search_that_does_not_converge_says_so_and_gives_its_best() -> None:
    """One restart is not enough for an even spectrum: the value is a lower bound with a residual above tol."""
    values = torch.linspace(-3, 2, 500, dtype=torch.float64)
    short = diagonal(values, max_iterations=1)
    assert not short.converged
    assert short.residual > 1e-3
    assert 1.5 < short.value < 2
    assert (values - short.value).abs().min() <= short.residual


def test_a_group_that_does_not_converge_is_reported(digits: GroupedData, teacher: nn.Module) -> None:
    """Rounding in float32 keeps the residual above 1e-12 of the value; oracle: float64 arithmetic gets there."""
    options = {"groups": [3], "tol": 1e-12, "max_iterations": 3}
    (rough,) = top_eigenvalues(teacher, digits, **options)
    (fine,) = top_eigenvalues(teacher, digits, dtype=torch.float64, **options)
    assert fine.converged
    assert not rough.converged
    assert rough.residual > 1e-12 * rough.value
    assert rough.value == pytest.approx(fine.value, rel=1e-5)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores: on one, BLAS has one thread anyway")
@pytest.mark.parametrize("which", ["LA", "LM"])
def test_last_digits_do_not_depend_on_the_number_of_blas_threads(digits: GroupedData, which: str) -> None:
    """A cell computed in a worker with one BLAS thread must give the rows of a process that has two."""
    wide = build("mlp", digits.input_shape, digits.classes, seed=0)  # 14,000 parameters: OpenBLAS splits its sums
    found = []
    for count in (1, 2):
        with threadpool_limits(limits=count, user_api="blas"):
            found.append(top_eigenvalues(wide, digits, which=which))
    assert found[0] == found[1]


def test_pairs_search_again_where_the_first_search_did_not_converge(digits: GroupedData, teacher: nn.Module) -> None:
    """A tolerance out of float32's reach: the value is not taken over, both rows say that they did not converge."""
    (pair, *_) = top_eigenvalue_pairs(teacher, digits, tol=1e-13, max_iterations=2)
    assert not pair[0].converged
    assert not pair[1].converged
    with pytest.raises(ValueError, match="need tol > 0"):
        top_eigenvalue_pairs(teacher, digits, tol=0)
