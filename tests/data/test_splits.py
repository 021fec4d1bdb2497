"""Splits: `part` and `thin` for any sizes, shares, seeds and sets of copies; thin groups by arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linfair.data.splits import joint_part, part, thin

shares = st.floats(0.02, 0.98)
seeds = st.integers(0, 2**31)


@st.composite
def populations(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strata of any sizes, copies among them (also with conflicting strata), and who may be drawn."""
    sizes = draw(st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(sum))
    n = sum(sizes)
    rng = np.random.default_rng(draw(seeds))
    strata = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    same = rng.integers(0, max(1, round(n * draw(st.floats(0.1, 3)))), n)
    among = rng.random(n) < draw(st.sampled_from([0.5, 1.1]))
    return strata, same, among


def homes(strata: np.ndarray, same: np.ndarray, among: np.ndarray) -> dict[int, list[int]]:
    """The sizes of the sets of each stratum, a set counting where its first image does; plain loops."""
    sets: dict[int, list[int]] = {}
    for i in np.flatnonzero(among):
        sets.setdefault(int(same[i]), []).append(i)
    sizes: dict[int, list[int]] = {}
    for members in sets.values():
        sizes.setdefault(int(strata[members[0]]), []).append(len(members))
    return sizes


@given(population=populations(), share=shares, seed=seeds)
def test_a_part_is_whole_sets_of_the_allowed_and_the_same_for_the_same_seed(
    population: tuple[np.ndarray, np.ndarray, np.ndarray], share: float, seed: int
) -> None:
    strata, same, among = population
    drawn = part(strata, same, share, np.random.default_rng(seed), among=among)
    assert drawn.dtype == bool
    assert not (drawn & ~among).any(), "disjoint from what was not allowed"
    rest = among & ~drawn
    assert not set(same[drawn].tolist()) & set(same[rest].tolist()), "no set straddles"
    np.testing.assert_array_equal(drawn, part(strata, same, share, np.random.default_rng(seed), among=among))


@given(population=populations(), share=shares, seed=seeds)
def test_every_stratum_is_drawn_within_one_set_of_its_share(
    population: tuple[np.ndarray, np.ndarray, np.ndarray], share: float, seed: int
) -> None:
    """Counted by home: within the largest set of round(share * n), and at least one set on either side."""
    strata, same, among = population
    drawn = part(strata, same, share, np.random.default_rng(seed), among=among)
    first = {}
    for i in np.flatnonzero(among):
        first.setdefault(int(same[i]), int(strata[i]))
    for stratum, sizes in homes(strata, same, among).items():
        got = sum(first[int(same[i])] == stratum for i in np.flatnonzero(drawn))
        if len(sizes) == 1:
            assert got == 0
            continue
        assert 0 < got < sum(sizes)
        assert abs(got - round(share * sum(sizes))) <= max(sizes)


@given(sizes=st.lists(st.integers(2, 50), min_size=1, max_size=5), share=shares, seed=seeds)
def test_without_copies_a_part_is_exact(sizes: list[int], share: float, seed: int) -> None:
    strata = np.repeat(np.arange(len(sizes)), sizes)
    drawn = part(strata, np.arange(len(strata)), share, np.random.default_rng(seed))
    counts = np.bincount(strata[drawn], minlength=len(sizes)).tolist()
    assert counts == [min(max(round(share * n), 1), n - 1) for n in sizes]


@given(population=populations(), test=shares, validation=shares, seed=seeds)
def test_train_val_and_test_are_disjoint_and_cover_and_share_no_copies(
    population: tuple[np.ndarray, np.ndarray, np.ndarray], test: float, validation: float, seed: int
) -> None:
    """The way the data sets are cut: test from all, validation from the rest."""
    strata, same, among = population
    rng = np.random.default_rng(seed)
    held = part(strata, same, test, rng, among=among)
    val = part(strata, same, validation, rng, among=among & ~held)
    train = among & ~held & ~val
    np.testing.assert_array_equal(held.astype(int) + val + train, among.astype(int))
    a, b, c = (set(same[chosen].tolist()) for chosen in (train, val, held))
    assert not (a & b or a & c or b & c)


@given(
    sizes=st.lists(st.integers(0, 80), min_size=1, max_size=6),
    fractions=st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
    seed=seeds,
)
def test_thinning_keeps_exactly_the_fraction_of_every_class(
    sizes: list[int], fractions: list[float], seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    among = np.arange(len(labels)) % 3 > 0
    fractions = fractions[: len(sizes)]
    kept = thin(labels, fractions, np.random.default_rng(seed), among=among)
    assert not (kept & ~among).any()
    for label, fraction in enumerate(fractions):
        assert (kept & (labels == label)).sum() == round(fraction * (among & (labels == label)).sum())
    np.testing.assert_array_equal(kept, thin(labels, fractions, np.random.default_rng(seed), among=among))


def test_another_seed_draws_others() -> None:
    one, two = (part(np.zeros(100, int), np.arange(100), 0.3, np.random.default_rng(seed)) for seed in (0, 1))
    assert (one != two).any()


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_shares_outside_zero_and_one_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"between 0 and 1, got {share}"):
        part(np.zeros(4, int), np.arange(4), share, np.random.default_rng(0))


@pytest.mark.parametrize("fractions", [[0.0, 1.0], [0.5, 1.01], [-1.0, 0.5]])
def test_fractions_outside_zero_and_one_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        thin(np.array([0, 1]), fractions, np.random.default_rng(0))


# Groups with few images of each label. The oracle is the share itself: of n images round(0.2 n) are test, and
# round(0.1 m) of the m left are validation.


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
