"""Accountants against dp-accounting, an implementation of its own."""

import sys

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.rdp import RdpAccountant

from linfair.cli.main import answer
from linfair.rules import DPSGD, noise_for, spent
from linfair.schedule import Schedule

CASES = [(2.73, 1e-5, 4096 / 50_000, 2500), (1.1, 1e-5, 0.01, 1000), (5.0, 1e-4, 0.25, 160), (3.0, 1e-5, 1.0, 20)]


@pytest.mark.parametrize("case", CASES)
def test_epsilon_is_that_of_dp_accounting(case: tuple[float, float, float, int]) -> None:
    """To 1 %."""
    noise, delta, rate, steps = case
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise)) if rate < 1 else GaussianDpEvent(noise)
    theirs = RdpAccountant().compose(SelfComposedDpEvent(event, steps)).get_epsilon(delta)
    assert spent(*case) == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 8.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.25, 160), (1.0, 5), (0.001, 20)])
def test_noise_spends_what_was_asked_for(epsilon: float, rate: float, steps: int) -> None:
    """At most, and 99 % of it at least."""
    noise = noise_for(epsilon, 1e-5, rate, steps)
    assert 0.99 * epsilon <= spent(noise, 1e-5, rate, steps) <= epsilon


def test_more_noise_fewer_images_or_fewer_steps_spend_less() -> None:
    base = spent(1.0, 1e-5, 0.1, 100)
    assert max(spent(1.2, 1e-5, 0.1, 100), spent(1.0, 1e-5, 0.05, 100), spent(1.0, 1e-5, 0.1, 50)) < base
    assert spent(1.0, 1e-6, 0.1, 100) > base


def test_epsilon_is_never_below_0() -> None:
    """By definition; at epsilon 0 one step without sampling has delta = 2 Phi(1 / (2 noise)) - 1, here 0.0008."""
    assert spent(500.0, 0.02, 1.0, 1) == spent(1000.0, 0.4, 0.5, 3) == 0.0
    with pytest.raises(ValueError, match="take a smaller delta"):
        DPSGD(noise=500.0, delta=0.02).guarantee(40, Schedule(epochs=1, batch_size=None))


def test_what_the_accountant_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="0.11.*1e-06"):
        noise_for(1e-6, 1e-5, 0.5, 100)


@pytest.mark.parametrize("wrong", [{"delta": 2.0}, {"delta": 0.0}, {"rate": 0.0}, {"rate": 2.0}, {"steps": 0}])
def test_numbers_of_no_training_are_refused(wrong: dict[str, float]) -> None:
    """Opacus says epsilon = -10 at delta = 2, and looks for the noise of no steps for ever."""
    numbers = {"delta": 1e-5, "rate": 0.1, "steps": 10} | wrong
    for count in (lambda: spent(1.0, **numbers), lambda: noise_for(1.0, **numbers)):
        with pytest.raises(ValueError, match="counted for delta in"):
            count()
    with pytest.raises(ValueError, match="noise=-1"):
        spent(-1.0, 1e-5, 0.1, 10)


def test_without_opacus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(ImportError, match=r"linfair\[private\]") as caught:
        spent(1.23, 1e-5, 0.5, 7)
    code, line = answer(caught.value)
    assert code == 2
    assert 'pip install "linfair[private]"' in line
