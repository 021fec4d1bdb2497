"""Data with a synthetic bias against closed forms: counts of every cell, disjoint splits, both domains tested."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from linfair.data import DataError, GroupedData, input_shape, load_data
from linfair.data.biased import in_grey

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


def test_grey_is_pillows_mode_l_to_the_bit() -> None:
    """Oracle: Pillow, image by image; sides that differ, so that no axis can be taken for another."""
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 5, 7), dtype=np.uint8)
    for image, grey in zip(images, in_grey(images), strict=True):
        level = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"))
        assert (grey == level).all()


@pytest.mark.parametrize(
    ("skew", "images", "size"), [(0.5, None, 32), (0.95, 200, 32), (0.99, 400, 16), (0.8, None, 48)]
)
def test_cifar10s_has_the_classes_of_wang_et_al_and_the_counts_of_the_skew(
    skew: float, images: int | None, size: int, tmp_path: Path, write_batches: Callable
) -> None:
    """500 generated training images, 50 a class; a tenth validates; 10 a class in each domain are tested."""
    x, labels = write_batches(tmp_path, each=100)
    options = {"skew": skew, "size": size} | ({"images": images} if images else {})
    data = load_data("cifar10s", seed=2, root=tmp_path, **options)
    each = (images or 500) // 10
    assert (cells(data, "train") == expected(each - each // 10, skew, 10)).all()
    assert (cells(data, "val") == expected(each // 10, skew, 10)).all()
    assert (cells(data, "test") == 10).all()
    colour = {name for name, domain in zip(data.label_names, data.aligned, strict=True) if domain == 0}
    assert colour == {"automobile", "cat", "dog", "horse", "truck"} and len(set(data.label_names)) == 10
    assert data.provenance["options"] == {"skew": skew, "size": size, "validation": 0.1} | options
    assert data.input_shape == input_shape("cifar10s", size=size) == (3, size, size)

    rows = [Image.fromarray(one.transpose(1, 2, 0)).resize((size, size), Image.Resampling.BILINEAR) for one in x]
    known = {np.asarray(row).tobytes(): (0, n) for n, row in enumerate(rows)}
    known |= {np.asarray(row.convert("L").convert("RGB")).tobytes(): (1, n) for n, row in enumerate(rows)}
    seen = {}
    for name, part in data.splits.items():
        found = [known[image.tobytes()] for image in part.x.permute(0, 2, 3, 1).contiguous().numpy()]
        assert [domain for domain, _ in found] == part.a.tolist()
        assert [int(labels[n]) for _, n in found] == part.y.tolist()
        seen[name] = [n for _, n in found]
    assert sorted(seen["test"]) == sorted(2 * [*range(500, 600)])
    assert seen["test"][:100] == seen["test"][100:]
    assert len({*seen["train"], *seen["val"]}) == len(seen["train"]) + len(seen["val"])
    assert max(seen["train"] + seen["val"]) < 500


def test_cifar100s_alternates_along_the_fine_classes(tmp_path: Path, write_hundred: Callable) -> None:
    """1,000 generated training images, 10 a class, one of them validates (a class's own domain gets it)."""
    write_hundred(tmp_path)
    data = load_data("cifar100s", root=tmp_path, skew=0.8)
    assert (cells(data, "train") == expected(9, 0.8, 100)).all() and (cells(data, "test") == 2).all()
    assert data.aligned == (1, 0) * 50
    assert (data.label_names[0], data.label_names[1], data.label_names[-1]) == ("apple", "aquarium_fish", "worm")


@pytest.mark.parametrize("images", [0, -10, 30, 201, 1000])
def test_a_part_that_cannot_be_shared_out_is_refused_with_what_can(
    images: int, tmp_path: Path, write_batches: Callable
) -> None:
    write_batches(tmp_path, each=100)
    with pytest.raises(DataError, match=f"a multiple of 10 from 40 to 500, got {images}"):
        load_data("cifar10s", root=tmp_path, images=images)
    with pytest.raises(DataError, match="got size=0"):
        load_data("cifar10s", root=tmp_path, size=0)


def test_data_without_a_synthetic_bias_are_not_aligned() -> None:
    assert load_data("digits").aligned is None
