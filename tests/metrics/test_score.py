"""Oracles: Python's own harmonic mean, closed forms, bounds that every mean keeps."""

from statistics import harmonic_mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linfair.metrics.score import harmonic, parts_of, sensitivity

PARTS = st.dictionaries(st.text(max_size=3), st.floats(0.001, 1), min_size=1, max_size=4)


@given(PARTS, st.lists(st.floats(0.1, 10), min_size=4, max_size=4))
def test_it_is_the_weighted_harmonic_mean(parts: dict[str, float], numbers: list[float]) -> None:
    weights = dict(zip(parts, numbers, strict=False))
    assert harmonic(parts, weights) == pytest.approx(harmonic_mean(parts.values(), weights.values()))
    assert min(parts.values()) - 1e-12 <= harmonic(parts, weights) <= max(parts.values()) + 1e-12


def test_a_part_of_nothing_leaves_nothing() -> None:
    assert harmonic({"utility": 1.0, "privacy": 1.0, "fairness": 0.0}) == 0
    assert harmonic(parts_of(0.99, 1.0, 0.0)) == 0  # every member is found
    assert harmonic(parts_of(0.99, 0.5, 0.5)) == 0  # predictions name the domain
    assert harmonic(parts_of(1.0, 0.4, 0.0)) == 1  # an attack below chance has no advantage


def test_what_is_no_part_is_refused() -> None:
    for parts, weights in (({}, None), ({"a": 1.5}, None), ({"a": float("nan")}, None), ({"a": 0.5}, {"b": 1.0})):
        with pytest.raises(ValueError, match="need"):
            harmonic(parts, weights)
    with pytest.raises(ValueError, match="above 0"):
        harmonic({"a": 0.5}, {"a": 0.0})
    for values in ((1.5, 0.5, 0.0), (0.5, 1.5, 0.0), (0.5, 0.5, -0.1)):
        with pytest.raises(ValueError, match="need"):
            parts_of(*values)


def test_an_order_that_hangs_on_the_scaling_is_no_order() -> None:
    rows = sensitivity({"better in all": (0.9, 0.51, 0.02), "worse": (0.8, 0.52, 0.04)})
    assert len(rows) == 2 * 4 * 3 and rows["always"].all()
    rows = sensitivity({"accurate": (0.95, 0.6, 0.05), "private": (0.7, 0.5, 0.05)})
    assert not rows["always"].any()
