"""Data with a synthetic bias against closed forms: counts of every cell, disjoint splits, both domains tested."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from linfair.data import DataError, GroupedData, load_data

skews = st.floats(0.5, 1, exclude_max=True)


def cells(data: GroupedData, split: str) -> np.ndarray:
    """Images of each label (lines) and domain (columns)."""
    part = data.splits[split]
    return torch.bincount(2 * part.y + part.a, minlength=2 * data.classes).view(-1, 2).numpy()


def expected(n: int, skew: float, classes: int) -> np.ndarray:
    """Closed form: round(skew * n) of a class in its own domain, one at least in the other; odd classes in colour."""
    most = min(round(skew * n), n - 1)
    return np.array([[most, n - most] if label % 2 else [n - most, most] for label in range(classes)])


@given(seed=st.integers(0, 2**31), skew=skews)
def test_every_cell_of_the_digits_has_the_images_that_the_skew_says(seed: int, skew: float) -> None:
    data = load_data("digits_s", seed=seed, skew=skew)
    assert (cells(data, "train") == expected(100, skew, 10)).all()
    assert (cells(data, "val") == expected(20, skew, 10)).all()
    assert (cells(data, "test") == 54).all()
    assert data.aligned == (1, 0) * 5 and data.group_names == ("colour", "grey")
    assert data.counts == [500, 500] and data.roles == ["majority"] * 2
    assert data.provenance["options"] == {"skew": skew, "shift": 2}


def test_a_digit_is_in_one_split_and_in_one_domain_of_it_but_for_the_test() -> None:
    """Oracle: scikit-learn's digits counted with multiplicity; a grey digit is its scan, an orange one has its red."""
    source = load_digits()
    canvas = np.zeros((len(source.target), 12, 12), np.uint8)
    canvas[:, 2:10, 2:10] = np.rint(source.images * 255 / 16)
    available = Counter((int(y), x.tobytes()) for x, y in zip(canvas, source.target, strict=True))
    data, used = load_data("digits_s", seed=3, skew=0.8), Counter()
    for name, part in data.splits.items():
        x, grey = part.x.numpy(), part.a.numpy() == 1
        assert (x[grey] == x[grey][:, :1]).all()
        assert (x[~grey][:, 1] == x[~grey][:, 0] // 2).all() and not x[~grey][:, 2].any()
        red = [(int(y), one.tobytes()) for one, y in zip(x[:, 0], part.y, strict=True)]
        if name == "test":
            orange, as_scanned = ([one for one, is_grey in zip(red, grey, strict=True) if is_grey == g] for g in (0, 1))
            assert orange == as_scanned and len(orange) == 540
            red = orange
        used.update(red)
    assert used <= available


@pytest.mark.parametrize("skew", [0.499, 1, 1.5, float("nan")])
def test_a_skew_out_of_range_is_refused_with_the_range(skew: float) -> None:
    with pytest.raises(DataError, match=f"at least 0.5 and below 1, got {skew}"):
        load_data("digits_s", skew=skew)
    with pytest.raises(ValueError, match="shift must be"):
        load_data("digits_s", shift=3)


def test_skews_of_one_seed_train_on_the_same_images() -> None:
    red = [
        sorted(x[0].numpy().tobytes() for x in load_data("digits_s", seed=1, skew=skew).splits["train"].x)
        for skew in (0.5, 0.95)
    ]
    assert red[0] == red[1]


def test_data_without_a_synthetic_bias_are_not_aligned() -> None:
    assert load_data("digits").aligned is None
