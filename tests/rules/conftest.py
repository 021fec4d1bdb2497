"""Data on which rules are tested."""

from dataclasses import replace

import pytest

from linfair.data import GroupedData, Split, load_data


@pytest.fixture(scope="session")
def toy() -> GroupedData:
    """Points of the plane in float64, in which no rounding decides on which side of a ReLU a unit lies."""
    data = load_data("toy", seed=3, majority=180, minority=20)
    return replace(data, splits={name: Split(one.x.double(), one.y, one.a) for name, one in data.splits.items()})


@pytest.fixture(scope="session")
def images() -> GroupedData:
    """Digits that are normalised without looking at them, as a guarantee asks."""
    return load_data("digits", seed=3, scale="fixed")
