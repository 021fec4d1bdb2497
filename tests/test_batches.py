"""What an epoch visits, against counting and numpy's indexing: order, shifts, normalisation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from linfair.data import GroupedData, Split, load_data
from linfair.training import Source


def blank(n: int, **reach: int) -> GroupedData:
    """Images that hold their own number in every pixel."""
    x = torch.arange(n).view(n, 1, 1, 1).expand(n, 1, 3, 3).to(torch.uint8)
    y = torch.arange(n) % 2
    return GroupedData("blank", {"train": Split(x, y, y)}, ("0", "1"), ("0", "1"), (0.0,), (1.0,), **reach)


@given(n=st.integers(1, 200), batch_size=st.one_of(st.none(), st.integers(1, 250)), members=st.integers(1, 3))
def test_an_epoch_visits_every_image_once_in_batches_that_differ_by_one_at_most(
    n: int, batch_size: int | None, members: int
) -> None:
    source = Source([blank(n)] * members, "train")
    batches = source.epoch([f"{m}" for m in range(members)], batch_size, augment=True)
    sizes = [index.shape[1] for index, shifts in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (batch_size or n)
    assert len(batches) == -(-n // (batch_size or n))
    for order in torch.cat([index for index, _ in batches], dim=1):
        assert sorted(order.tolist()) == list(range(n))
    assert all(shifts is None for _, shifts in batches)


def test_shifts_are_uniform_over_the_grid() -> None:
    """Chi-squared over the 25 shifts by up to 2 pixels; 40,000 draws, p above 1e-4."""
    from scipy.stats import chisquare

    source = Source(blank(40_000, shift=2), "train")
    shifts = torch.cat([moved for _, moved in source.epoch(["0"], 128, augment=True)], dim=2)
    assert shifts.shape == (2, 1, 40_000)
    cell = 5 * (shifts[0] + 2) + shifts[1] + 2
    assert chisquare(np.bincount(cell.flatten().numpy(), minlength=25)).pvalue > 1e-4


def test_crops_mirror_half_of_the_images_and_tests_see_none_of_it() -> None:
    """Binomial of 40,000 draws at p above 1e-4; the shifts are those without mirroring, and there is one view."""
    from scipy.stats import binomtest

    data = blank(40_000, crop=2)
    draws = torch.cat([moved for _, moved in Source(data, "train").epoch(["0"], 128, augment=True)], dim=2)
    assert draws.shape == (3, 1, 40_000) and set(draws[2].unique().tolist()) == {0, 1}
    assert binomtest(int(draws[2].sum()), 40_000).pvalue > 1e-4
    plain = torch.cat([moved for _, moved in Source(blank(40_000, shift=2), "train").epoch(["0"], 128, True)], dim=2)
    assert torch.equal(draws[:2], plain)
    assert data.views == ((0, 0),) and data.reach == 2


def test_a_crop_moves_and_then_mirrors(digits: GroupedData) -> None:
    """Against the same shifts without mirroring, flipped by numpy."""
    index, shifts = torch.tensor([[7, 0, 123]]), torch.tensor([[[1, -2, 0]], [[0, 2, -1]], [[1, 0, 1]]])
    source = Source(digits, "train")
    moved = source.take(index, shifts[:2]).x.numpy()
    moved[[0, 2]] = np.flip(moved[[0, 2]], axis=-1)
    assert torch.equal(source.take(index, shifts).x, torch.from_numpy(moved.copy()))


def test_a_members_batches_do_not_depend_on_the_others() -> None:
    data = [load_data("digits", seed=seed) for seed in (5, 6)]
    together = Source(data, "train").epoch(["5/base/0", "6/base/0"], 64, augment=True)
    for member, key in enumerate(["5/base/0", "6/base/0"]):
        alone = Source(data[member], "train").epoch([key], 64, augment=True)
        for (index, shifts), (own, moved) in zip(together, alone, strict=True):
            assert torch.equal(index[member], own[0])
            assert torch.equal(shifts[:, member], moved[:, 0])
    first = [index for index, _ in together]
    for other in ("5/base/1", "5/masks/0", "7/base/0"):
        again = [index for index, _ in Source(data, "train").epoch([other, "6/base/0"], 64, augment=True)]
        assert any(not torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
        assert all(torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("shifts", [None, torch.tensor([[[1, -2, 0]], [[0, 2, -1]]])])
def test_take_equals_numpy_indexing_shifting_and_normalising(shifts: Tensor | None, digits: GroupedData) -> None:
    index = torch.tensor([[7, 0, 123]])
    batch = Source(digits, "train").take(index, shifts)
    split = digits.splits["train"]
    raw = split.x[index[0]].numpy()
    if shifts is not None:
        raw = np.stack([np.roll(np.pad(one, ((0, 0), (2, 2), (2, 2))), (d, r), (1, 2))[:, 2:-2, 2:-2]
                        for one, d, r in zip(raw, *shifts[:, 0].numpy(), strict=True)])  # fmt: skip
    expected = (raw / 255 - digits.mean[0]) / digits.std[0]
    torch.testing.assert_close(batch.x.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    assert torch.equal(batch.y, split.y[index[0]])
    assert torch.equal(batch.a, split.a[index[0]])
    assert torch.equal(batch.index, index[0])
    assert batch.augmented == (shifts is not None)
