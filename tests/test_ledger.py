"""What keeps and what ends a privacy guarantee."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linfair.ledger import STEPS, Guarantee, after

PRIVATE = Guarantee(8.0, 1e-5, "rdp", 2.2, 1.0, 0.25, 160)


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_the_first_step_that_reads_images_ends_a_guarantee_for_good(names: list[str]) -> None:
    found = PRIVATE
    for name in names:
        found = after(found, STEPS[name])
        assert after(None, STEPS[name]) is None
    first = next((name for name in names if not STEPS[name].keeps), "")
    assert found == replace(PRIVATE, ended=first)
    assert found.holds == (not first)
    text = found.text()
    assert (
        "\n" not in text
        and ("guarantee holds" in text) == found.holds
        and (f"ended by {first}, which" in text) != found.holds
    )


@given(st.floats(1e-6, 1e6), st.floats(1e-12, 0.5))
def test_a_printed_budget_is_never_smaller_than_the_true_one(epsilon: float, delta: float) -> None:
    words = replace(PRIVATE, epsilon=epsilon, delta=delta).text().replace(",", "").split()
    shown = [float(words[at + 2]) for at, word in enumerate(words) if word in ("epsilon", "delta")]
    assert all(
        one >= true and math.isclose(one, true, rel_tol=2e-3) for one, true in zip(shown, (epsilon, delta), strict=True)
    )


@pytest.mark.parametrize(
    "change",
    [{"epsilon": -1.0}, {"epsilon": math.nan}, {"epsilon": math.inf}, {"delta": 0.0}, {"delta": 1.0}, {"rate": 1.1}]
    + [{"noise": 0.0}, {"clip": math.nan}, {"steps": 0}, {"steps": 1.5}, {"ended": "magic"}, {"ended": "averaging"}],
    ids=str,
)
def test_numbers_that_promise_nothing_are_refused(change: dict[str, object]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name} = .*{value}"):
        replace(PRIVATE, **change)
