"""Data sets against their own description: sizes, fractions, disjoint splits, and shifts written in numpy."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from linfair.data import BOUNDARIES, EMBEDDED, GroupedData, Split, digits, load_data, move, toy

seeds = st.integers(0, 2**31)
DIGITS_SEED_0 = "eed1eed2821855aba14002b9cd3eccdebba1f2350aa7228c8503fba9f5860e95"


def images(split: Split) -> list[tuple[int, bytes]]:
    """Label and content of each input: what identifies it, up to duplicates in the source."""
    return [(int(y), x.numpy().tobytes()) for x, y in zip(split.x, split.y, strict=True)]


def checksum(data: GroupedData) -> str:
    content = b"".join(
        tensor.numpy().tobytes()
        for name in sorted(data.splits)
        for tensor in (data.splits[name].x, data.splits[name].y, data.splits[name].a)
    )
    return hashlib.sha256(content).hexdigest()


# Digits


@given(seed=seeds, minority=st.floats(0.02, 0.5), majority=st.floats(0.9, 1.0))
def test_digits_use_every_source_image_at_most_once_and_keep_the_fractions(
    seed: int, minority: float, majority: float
) -> None:
    """Oracle: the source counted with multiplicity, and the docstring's arithmetic."""
    data = digits(seed=seed, minority_fraction=minority, majority_fraction=majority)
    source = load_digits()
    canvas = np.zeros((len(source.target), 12, 12), np.uint8)
    canvas[:, 2:10, 2:10] = np.rint(source.images * 255 / 16)
    available = Counter((int(y), x.tobytes()) for x, y in zip(canvas, source.target, strict=True))
    used = Counter()
    for name in ("train", "val", "test_balanced"):
        used.update(images(data.splits[name]))
    assert used <= available
    assert Counter(images(data.splits["test"])) <= Counter(images(data.splits["test_balanced"]))

    small = [label for label, role in enumerate(data.roles) if role == "minority"]
    assert len(small) == 5
    for label in range(10):
        fraction = minority if label in small else majority
        kept = max(2, round(120 * fraction))
        held = max(1, round(kept / 6))
        n = {name: int((split.y == label).sum()) for name, split in data.splits.items()}
        expected = {"train": kept - held, "val": held, "test": max(1, round(54 * fraction)), "test_balanced": 54}
        assert n == expected
    assert all(torch.equal(split.y, split.a) for split in data.splits.values())


def test_digits_default_sizes_are_the_papers_fractions() -> None:
    """Half the classes keep 108 of 120 images (90 for training), half 12 (10 for training)."""
    data = digits(seed=1)
    assert sorted(data.counts) == [10] * 5 + [90] * 5
    assert [data.roles[label] for label in np.argsort(data.counts)] == ["minority"] * 5 + ["majority"] * 5
    assert (len(data.splits["val"]), len(data.splits["test"]), len(data.splits["test_balanced"])) == (100, 270, 540)
    assert (data.input_shape, data.classes, data.shift) == ((1, 12, 12), 10, 2)


def test_all_seeds_have_splits_of_one_size_so_that_they_can_train_side_by_side() -> None:
    sizes = {tuple((name, len(s)) for name, s in digits(seed=seed).splits.items()) for seed in range(12)}
    assert len(sizes) == 1


def test_equal_fractions_leave_no_minority() -> None:
    assert digits(minority_fraction=0.5, majority_fraction=0.5).roles == ["majority"] * 10


# The toy


@given(
    seed=seeds,
    majority=st.integers(20, 300),
    minority=st.integers(20, 300),
    test=st.integers(10, 200),
    boundary=st.sampled_from(sorted(BOUNDARIES)),
)
def test_toy_points_lie_on_their_side_are_distinct_and_as_many_as_asked(
    seed: int, majority: int, minority: int, test: int, boundary: str
) -> None:
    data = toy(seed=seed, majority=majority, minority=minority, test_per_group=test, boundary=boundary)
    assert data.counts == [majority, minority]
    for split in data.splits.values():
        x, y = split.x.double().numpy().T
        curve = {"sine": 0.5 * np.sin(2.5 * np.pi * x), "parabola": 0.5 * (2 * x**2 - 1)}[boundary]
        clear = np.abs(y - curve) > 1e-5
        assert ((y > curve) == split.a.numpy())[clear].all()
        assert split.x.abs().max() <= 1
        assert torch.equal(split.y, split.a)
    points = [image for split in data.splits.values() for image in images(split)]
    assert len(set(points)) == len(points)
    counts = {name: torch.bincount(split.a, minlength=2).tolist() for name, split in data.splits.items()}
    assert counts["test_balanced"] == [test, test]
    assert sum(counts["test"]) == 2 * test
    assert counts["test"][1] == max(1, round(2 * test * minority / (majority + minority)))
    assert counts["val"] == [max(1, round(0.2 * majority)), max(1, round(0.2 * minority))]
    assert data.provenance["counts"] == counts


def test_toy_is_uniform_on_each_side() -> None:
    """Per side and quadrant: the share of a fine grid's points, within 5 standard errors."""
    data = toy(seed=5, test_per_group=20_000)
    axis = (np.arange(1000) + 0.5) / 500 - 1
    x, y = np.meshgrid(axis, axis)
    above = y > 0.5 * np.sin(2.5 * np.pi * x)
    split = data.splits["test_balanced"]
    for group, side in enumerate((~above, above)):
        points = split.x[split.a == group].numpy()
        for quadrant, ours in (
            (side & (x > 0) & (y > 0), (points > 0).all(1)),
            (side & (x < -0.5), points[:, 0] < -0.5),
        ):
            share = quadrant.sum() / side.sum()
            assert abs(ours.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(points))


# Both


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_seed_alone_decides_the_content_and_the_checksum_follows_it(name: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    one = load_data(name, seed=4)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    before = torch.get_rng_state()
    again, other = load_data(name, seed=4), load_data(name, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    for split in one.splits:
        assert images(one.splits[split]) == images(again.splits[split])
        assert images(one.splits[split]) != images(other.splits[split])
    assert one.provenance["sha256"] == again.provenance["sha256"] == checksum(one)
    assert other.provenance["sha256"] == checksum(other) != checksum(one)
    assert one.provenance["seed"] == 4


def test_digits_of_seed_0_are_the_ones_the_published_tables_were_made_with() -> None:
    """A change of this checksum is a change of the data behind every committed table on digits."""
    assert digits(seed=0).provenance["sha256"] == DIGITS_SEED_0


@pytest.mark.parametrize(("counts", "roles"), [([5, 5], "MM"), ([9, 1], "Mm"), ([3, 2, 1], "MMm"), ([1, 0, 8], "mmM")])
def test_roles_compare_with_the_mean_group(counts: list[int], roles: str) -> None:
    a = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    split = Split(torch.zeros(len(a), 2), a, a)
    names = tuple("abc"[: len(counts)])
    data = GroupedData("x", {"train": split}, names, names)
    assert data.counts == counts
    assert data.roles == [{"M": "majority", "m": "minority"}[role] for role in roles]


# Shifts and normalisation


@given(
    shifts=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=5),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    channels=st.integers(1, 3),
)
def test_move_equals_numpy_pad_and_roll(shifts: list[tuple[int, int]], height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(height + 10 * width)
    x = rng.integers(1, 255, (len(shifts), channels, height, width), dtype=np.uint8)
    expected = []
    for image, (down, right) in zip(x, shifts, strict=True):
        framed = np.pad(image, ((0, 0), (3, 3), (3, 3)))
        expected.append(np.roll(framed, (down, right), (1, 2))[:, 3 : 3 + height, 3 : 3 + width])
    down, right = torch.tensor(shifts).T
    moved = move(torch.from_numpy(x), down, right, 3)
    assert moved.dtype == torch.uint8
    np.testing.assert_array_equal(moved.numpy(), np.stack(expected))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_views_are_the_fixed_grid_of_shifts(shift: int) -> None:
    views = digits(shift=shift).views
    steps = sorted({-shift, 0, shift})
    assert sorted(views) == [(down, right) for down in steps for right in steps]


def test_no_view_of_a_digit_loses_ink() -> None:
    """The canvas leaves 2 pixels on each side: shifts by up to 2 keep the sum of the pixels."""
    data = digits(seed=2)
    x = data.splits["train"].x
    for down, right in data.views:
        moved = move(x, torch.full((len(x),), down), torch.full((len(x),), right), data.shift)
        assert torch.equal(moved.long().sum((1, 2, 3)), x.long().sum((1, 2, 3)))


def test_normalised_training_images_have_mean_zero_and_deviation_one() -> None:
    data = digits(seed=2)
    x = data.normalise(data.splits["train"].x)
    assert x.dtype == torch.float32
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std().item() == pytest.approx(1, abs=1e-5)
    test = data.splits["test"].x
    expected = (test.double() / 255 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(data.normalise(test).double(), expected, rtol=1e-5, atol=1e-6)


def test_channels_are_normalised_each_with_its_own_numbers() -> None:
    x = torch.randint(256, (2, 5, 3, 4, 4), dtype=torch.uint8)
    split = Split(x[0], torch.zeros(5).long(), torch.zeros(5).long())
    data = GroupedData("x", {"train": split}, ("a", "b"), ("a",), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    expected = (x.numpy() / 255 - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))) / np.reshape([0.5, 0.6, 0.7], (3, 1, 1))
    torch.testing.assert_close(data.normalise(x).double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_features_are_left_as_they_are() -> None:
    data = toy()
    x = data.splits["train"].x
    assert data.normalise(x) is x
    assert data.views == ((0, 0),)


def test_to_another_device_keeps_everything_else() -> None:
    data = digits()
    moved = data.to("meta")
    assert {split.x.device.type for split in moved.splits.values()} == {"meta"}
    assert (moved.mean, moved.views, moved.provenance) == (data.mean, data.views, data.provenance)
    assert data.splits["train"].x.device.type == "cpu"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_data("imagenet"), "no data set 'imagenet'; (there are toy, digits|did you)"),
        (lambda: digits(minority_fraction=0), "0 < minority_fraction"),
        (lambda: digits(minority_fraction=0.9, majority_fraction=0.5), "got 0.9, 0.5"),
        (lambda: digits(majority_fraction=1.1), "got 0.1, 1.1"),
        (lambda: digits(shift=3), "got 3"),
        (lambda: digits(shift=-1), "got -1"),
        (lambda: toy(boundary="line"), "no boundary 'line'; did you mean 'sine'"),
        (lambda: toy(minority=0), "minority=0"),
        (lambda: toy(amplitude=3, boundary="parabola", frequency=0), "amplitude 3 leaves one side"),
    ],
)
def test_bad_requests_quote_what_was_given(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# A scale that no image decides


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_fixed_scale_depends_on_no_image_and_changes_nothing_else(name: str) -> None:
    own, fixed = load_data(name), load_data(name, scale="fixed")
    assert fixed.fixed_scale and (fixed.mean, fixed.std) == ((0.5,) * len(own.mean), (0.25,) * len(own.std))
    assert own.fixed_scale == (not own.mean)  # plain features are never normalised
    assert checksum(fixed) == checksum(own) and fixed.content == own.content
    x = own.splits["train"].x
    if own.mean:
        np.testing.assert_allclose(fixed.normalise(x).numpy(), (x.numpy() / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)


def test_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale = 'published' .* own or fixed"):
        load_data("digits", scale="published")
