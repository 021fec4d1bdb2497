"""Groups with few images of each label: their share of every split, by arithmetic; thick groups as before.

The oracle is the share itself: of n images round(0.2 n) are test, and round(0.1 m) of the m left are validation.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linfair.data.splits import joint_part, part


def population(labels: int, cells: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups: of each group (its number) so many images of each label."""
    y = np.concatenate([np.repeat(np.arange(labels), n) for n in cells.values()])
    a = np.concatenate([np.full(labels * n, group) for group, n in cells.items()])
    return y, a


def cut(y: np.ndarray, a: np.ndarray, seed: int = 0) -> tuple[dict[str, np.ndarray], set[int]]:
    """Train, validation and test as a data set is cut, and the groups that were too thin for their labels."""
    rng, same = np.random.default_rng(seed), np.arange(len(y))
    test, thin_test = joint_part(y, a, same, 0.2, rng)
    val, thin_val = joint_part(y, a, same, 0.1, rng, among=~test)
    return {"train": ~test & ~val, "val": val, "test": test}, {*thin_test, *thin_val}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("labels", "each", "right"),
    [
        (26, 1, (19, 2, 5)),
        (26, 2, (38, 4, 10)),
        (26, 3, (56, 6, 16)),
        (26, 4, (75, 8, 21)),
        (26, 5, (94, 10, 26)),
        (26, 6, (117, 13, 26)),
        (26, 8, (149, 17, 42)),
        (100, 3, (216, 24, 60)),
        (2, 2, (2, 1, 1)),
        (3, 1, (1, 1, 1)),
    ],
)
def test_a_group_with_few_images_of_each_label_gets_its_share_of_every_split(
    labels: int, each: int, right: tuple[int, int, int], seed: int
) -> None:
    y, a = population(labels, {0: 30, 1: each})
    splits, thin = cut(y, a, seed)
    assert tuple(int((chosen & (a == 1)).sum()) for chosen in splits.values()) == right
    assert thin == {1}
    assert set(y[splits["train"]].tolist()) == set(range(labels)), "every label is trained on"


def test_labels_of_a_thin_group_stay_in_proportion_to_within_one_image() -> None:
    y, a = population(26, {0: 30, 1: 3})
    splits, _ = cut(y, a)
    for chosen, fair in ((splits["test"], 0.6), (splits["val"], 0.24), (splits["train"], 2.16)):
        counts = np.bincount(y[chosen & (a == 1)], minlength=26)
        assert (np.abs(counts - fair) <= 1).all()


def test_uneven_labels_of_a_thin_group_follow_websters_apportionment() -> None:
    """21, 3, 3 and 3 images, a fifth of 30: quotients 0.5/21, 1.5/21, ... against 0.5/3 give 4 or 3, and one each."""
    y = np.repeat([0, 1, 2, 3, 0, 1, 2, 3], [21, 3, 3, 3, 30, 30, 30, 30])
    a = np.repeat([1, 0], [30, 120])
    drawn, thin = joint_part(y, a, np.arange(150), 0.2, np.random.default_rng(0))
    counts = np.bincount(y[drawn & (a == 1)], minlength=4)
    assert counts.sum() in (6, 7) and counts[0] in (3, 4) and set(counts[1:]) <= {0, 1}
    assert thin in ((), (1,))


def test_which_labels_give_an_image_depends_on_the_seed() -> None:
    y, a = population(26, {0: 30, 1: 3})
    drawn = {
        tuple(np.flatnonzero(np.bincount(y[cut(y, a, seed)[0]["test"] & (a == 1)], minlength=26))) for seed in (0, 1)
    }
    assert len(drawn) == 2


def test_a_labels_last_image_stays_in_training() -> None:
    """A thin group has the only image of label 2."""
    y, a = np.array([0] * 40 + [1] * 40 + [0, 1, 2]), np.array([0] * 80 + [1] * 3)
    for seed in range(20):
        splits, _ = cut(y, a, seed)
        assert splits["train"][-1]


@given(
    cells=st.lists(st.integers(10, 60), min_size=1, max_size=3),
    labels=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_where_label_by_group_is_thick_the_split_is_that_of_strata_bit_for_bit(
    cells: list[int], labels: int, seed: int
) -> None:
    """The test part and then the validation part, from one stream of random numbers."""
    y, a = population(labels, dict(enumerate(cells)))
    same, strata = np.arange(len(y)), y * len(cells) + a
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    left = np.ones(len(y), dtype=bool)
    for share in (0.2, 0.1):
        joint, thin = joint_part(y, a, same, share, one, among=left)
        np.testing.assert_array_equal(joint, part(strata, same, share, two, among=left))
        assert thin == ()
        left &= ~joint


@given(labels=st.integers(2, 30), each=st.integers(1, 6), copies=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_copies_never_straddle_and_parts_never_empty_a_thin_group(
    labels: int, each: int, copies: int, seed: int
) -> None:
    y, a = population(labels, {0: 30, 1: each})
    rng = np.random.default_rng(seed)
    same = np.where(a == 1, len(y) + np.arange(len(y)) // copies, np.arange(len(y)))
    drawn, _ = joint_part(y, a, same, 0.2, rng)
    assert not set(same[drawn].tolist()) & set(same[~drawn].tolist())
    assert (drawn & (a == 1)).any() == (len(np.unique(same[a == 1])) > 1)
    assert (~drawn & (a == 1)).any()
