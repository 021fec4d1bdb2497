"""The rule of the choice, by hand; its test for noise against McNemar's exact test, enumeration, and chance."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from linfair.data import GroupedData, Split
from linfair.mitigation.choose import REASONS, choose, gain_p_value, judged_groups

GROUPS = torch.tensor([0] * 80 + [1] * 20)
NAMES = ["large", "small"]


def answers(large: int, small: int) -> Tensor:
    """The first `large` of 80 and the first `small` of 20 images right."""
    return torch.cat([torch.arange(80) < large, torch.arange(20) < small]).float()


def test_takes_the_best_worst_group_within_the_loss() -> None:
    """By hand: overall 80, 79, 78.5 and 83 %, worst groups 50, 75, 86.25 and 55 %."""
    arms = {"plain": (70, 10), "a": (64, 15), "b": (69, 11), "c": (73, 10)}
    given = {arm: answers(*right) for arm, right in arms.items()}
    found = choose(given, GROUPS, NAMES, max_accuracy_loss=1.0, significance=1)
    assert found.chosen == found.best == "a"
    assert found["a"].worst.accuracy == 0.75 and found["a"].overall.accuracy == 0.79 and found["a"].overall.n == 100
    assert [one.arm for one in found.candidates] == ["plain", "a", "b", "c"]
    assert found.reason == REASONS["asked"] and found.gain == pytest.approx(25)
    stricter = choose(given, GROUPS, NAMES, max_accuracy_loss=0.9, significance=1)
    assert stricter.chosen == "b" and not stricter["a"].allowed and math.isnan(stricter["a"].p)


def test_loss_is_measured_against_plain_not_against_the_best() -> None:
    found = choose({"plain": answers(70, 10), "c": answers(80, 9), "a": answers(64, 15)}, GROUPS, NAMES, significance=1)
    assert found.chosen == "a" and found["c"].overall.accuracy - found["a"].overall.accuracy > 0.09


def test_ties_go_to_the_better_overall_then_to_the_first() -> None:
    """Worst groups all 60 %; and `plain` before an arm that answers alike."""
    arms = {"plain": answers(70, 10), "a": answers(70, 12), "b": answers(72, 12), "c": answers(72, 12)}
    assert choose(arms, GROUPS, NAMES, significance=1).chosen == "b"
    assert choose({"b": answers(72, 12), "plain": answers(72, 12)}, GROUPS, NAMES).chosen == "plain"


@pytest.mark.parametrize(
    ("plain", "other"),
    [((40, 0), (60, 0)), ((70, 12), (80, 12)), ((70, 12), (80, 11))],
    ids=["worst group at 0 % with both", "worst group as before", "worst group worse"],
)
@pytest.mark.parametrize("significance", [0.05, 1])
def test_what_gains_only_overall_is_never_chosen(
    plain: tuple[int, int], other: tuple[int, int], significance: float
) -> None:
    """A worst group that goes from 0 to 0 % is not repaired, however much the other group gains."""
    arms = {"plain": answers(*plain), "a": answers(*other)}
    found = choose(arms, GROUPS, NAMES, significance=significance)
    assert found.chosen == found.best == "plain" and not found.helped and found.gain == 0
    assert found.mark("plain") == "chosen"


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({}, "alone"),
        ({"a": (20, 20), "b": (40, 20)}, "costly"),
        ({"a": (72, 8)}, "worse"),
    ],
)
def test_plain_stays_and_says_why(others: dict[str, tuple[int, int]], words: str) -> None:
    arms = {"plain": answers(70, 10)} | {arm: answers(*right) for arm, right in others.items()}
    found = choose(arms, GROUPS, NAMES)
    assert found.chosen == "plain" and found.reason == REASONS[words]


def test_a_gain_within_noise_is_not_chosen_unless_asked_for_and_then_it_is_said() -> None:
    """By hand: one image more of 20, swapped or not, is as good as a coin: p = 0.5."""
    arms = {"plain": answers(70, 5), "a": answers(70, 6)}
    kept = choose(arms, GROUPS, NAMES)
    assert (kept.chosen, kept.best) == ("plain", "a") and kept.gain == pytest.approx(5)
    assert kept["a"].p == pytest.approx(0.5, abs=0.02)
    assert kept.reason == REASONS["noise"]
    assert [kept.mark(arm) for arm in arms] == ["chosen", "gain within noise"]
    taken = choose(arms, GROUPS, NAMES, significance=1)
    assert taken.chosen == "a" and taken.reason == REASONS["asked"]
    assert [taken.mark(arm) for arm in arms] == ["", "chosen, gain within noise"]
    for found in (kept, taken):
        assert not found.helped


def test_a_gain_beyond_noise_is_chosen_and_said_unless_more_is_asked_for() -> None:
    """By hand: ten images of 20 gained, none lost: p = 2^-10."""
    arms = {"plain": answers(70, 5), "a": answers(70, 15)}
    found = choose(arms, GROUPS, NAMES)
    assert found.chosen == "a" and found.helped and found.reason == REASONS["gain"]
    assert found["a"].p == pytest.approx(2**-10, abs=1e-3)
    assert found.gain == pytest.approx(50)
    strict = choose(arms, GROUPS, NAMES, significance=1e-5)
    assert strict.chosen == "plain" and strict.mark("a") == "p above the limit"
    assert strict.reason == REASONS["limit"]


def test_with_one_arm_there_is_nothing_to_choose() -> None:
    found = choose({"plain": answers(70, 5)}, GROUPS, NAMES)
    assert found.chosen == "plain" and not found.helped and found.reason == REASONS["alone"]


def test_p_values_are_multiplied_by_the_arms_compared() -> None:
    """Oracle: the test itself; an arm that loses too much is not compared."""
    arms = {"plain": answers(70, 5), "a": answers(70, 9), "b": answers(71, 5), "awful": answers(0, 20)}
    found = choose(arms, GROUPS, NAMES)
    assert found["a"].p == pytest.approx(2 * gain_p_value(arms["plain"], arms["a"], GROUPS, 2))


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (7, 2), (3, 3), (0, 4)])
def test_one_group_agrees_with_mcnemars_exact_test(gained: int, lost: int) -> None:
    """Oracle: scipy's binomial test on the images that only one of the two gets right."""
    first = torch.tensor([0.0] * gained + [1.0] * lost + [1.0] * 9 + [0.0] * 3)
    second = torch.tensor([1.0] * gained + [0.0] * lost + [1.0] * 9 + [0.0] * 3)
    exact = stats.binomtest(gained, gained + lost, alternative="greater").pvalue
    found = gain_p_value(first, second, torch.zeros(len(first), dtype=torch.int64), 1)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999) + 1e-4)


def test_shares_of_views_in_three_groups_agree_with_all_swaps() -> None:
    """Oracle: every one of the 2^10 swaps, by loops."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randint(0, 10, (10,), generator=generator) / 9 for _ in range(2))
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])

    def gain(one: Tensor, other: Tensor) -> float:
        return float(min(other[groups == g].mean() for g in range(3)) - min(one[groups == g].mean() for g in range(3)))

    observed, count = gain(first, second), 0
    for bits in itertools.product([False, True], repeat=10):
        swap = torch.tensor(bits)
        count += gain(torch.where(swap, second, first), torch.where(swap, first, second)) >= observed - 1e-6
    found = gain_p_value(first, second, groups, 3)
    assert found == pytest.approx(count / 1024, abs=0.02) and 0.05 < found < 0.95


def test_arms_that_differ_by_chance_alone_are_seldom_significant() -> None:
    """Oracle: the level of the test. 5 % of 200 equally good pairs may pass, 19 or more by chance 1 in 200."""
    generator, passed = torch.Generator().manual_seed(0), 0
    for _ in range(200):
        first, second = (torch.rand(100, generator=generator) < 0.7 for _ in range(2))
        passed += gain_p_value(first.float(), second.float(), GROUPS, 2) <= 0.05
    assert 1 <= passed < 19


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_accuracy_loss": -1.0}, "0 to 100 points, got -1.0"),
        ({"max_accuracy_loss": math.nan}, "got nan"),
        ({"significance": 0.0}, "above 0 and at most 1"),
    ],
)
def test_limits_that_are_none_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        choose({"plain": answers(70, 10)}, GROUPS, NAMES, **options)


def test_plain_must_be_among_the_arms() -> None:
    with pytest.raises(ValueError, match="'plain', which is missing from a, b"):
        choose({"a": answers(1, 1), "b": answers(1, 1)}, GROUPS, NAMES)


def test_small_groups_of_a_role_are_judged_together(digits: GroupedData) -> None:
    """By hand: digits has 18 validation images in each majority group and 2 in each minority group."""
    found = judged_groups(digits)
    together = [one for one in found if len(one.groups) > 1]
    minority = [g for g, role in enumerate(digits.roles) if role == "minority"]
    assert [one.groups for one in together] == [tuple(minority)] and together[0].n == 10
    assert together[0].name == f"minority ({', '.join(map(str, minority))})"
    assert sorted(g for one in found for g in one.groups) == list(range(10))
    assert {one.n for one in found} == {10, 18}
    alone = judged_groups(digits, min_images=1)
    assert [one.groups for one in alone] == [(g,) for g in range(10)]
    assert min(one.n for one in alone) == 2


def test_a_group_without_validation_images_is_refused(digits: GroupedData) -> None:
    part = digits.splits["val"]
    keep = part.a != 4
    cut = replace(digits, splits=digits.splits | {"val": Split(part.x[keep], part.y[keep], part.a[keep])})
    with pytest.raises(ValueError, match=r"groups \['4'\] of digits have no image in the split val"):
        judged_groups(cut)
    none = replace(digits, splits={name: one for name, one in digits.splits.items() if name != "val"})
    with pytest.raises(ValueError, match="no split 'val'"):
        judged_groups(none)
