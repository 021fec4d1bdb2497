"""Properties of `part` and `thin`, for any sizes, shares, seeds and sets of copies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linfair.data.splits import part, thin

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
