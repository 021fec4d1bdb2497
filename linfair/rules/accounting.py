"""What noise costs: (epsilon, delta) of Poisson-sampled Gaussian steps, by the RDP accountant of Opacus.

A step releases sum_i clip(g_i) + noise * clip * N(0, 1) over a batch that holds each image with probability `rate`. A
guarantee of (epsilon, delta) says of two data sets that differ by one image, added or left out, and any set S of
networks: P(net in S) <= e^epsilon P(net' in S) + delta. The accountant bounds epsilon by Renyi divergences (Mironov et
al., arXiv 1908.10530), never too small, for Poisson batches: of shuffled ones the same numbers say too little.
"""

import math
import warnings
from functools import cache
from types import ModuleType


def _opacus() -> ModuleType:
    try:
        from opacus.accountants import utils
    except ImportError:
        text = "Opacus, which counts epsilon, is missing: pip install 'linfair[private]'"
        raise ImportError(text, name="opacus") from None
    return utils


def _check(delta: float, rate: float, steps: int, noise: float = 0.0) -> None:
    if not (0 < delta < 1 and 0 < rate <= 1 and steps >= 1 and noise >= 0):
        text = "epsilon is counted for delta in (0, 1), rate in (0, 1], steps of 1 or more and noise of 0 or more, got"
        raise ValueError(f"{text} delta={delta:g}, rate={rate:g}, steps={steps}, noise={noise:g}")


@cache
def spent(noise: float, delta: float, rate: float, steps: int) -> float:
    """Epsilon at a delta of so many steps.

    Args:
        noise: Standard deviation of the noise over the clipping norm, 0 or more.
        delta: In (0, 1).
        rate: Probability of each image to be in a batch, in (0, 1].
        steps: How many, at least 1.

    Raises:
        ValueError: For numbers outside these ranges.
        ImportError: If Opacus (the extra `private`) is not installed.

    >>> 7.9 < spent(2.73, 1e-5, 4096 / 50_000, 2500) < 8.0
    True
    """
    _check(delta, rate, steps, noise)
    counted = _opacus().create_accountant(mechanism="rdp")
    counted.history = [(noise, rate, steps)]
    # of an order at the end of those tried: the bound is loose there, but it holds
    with warnings.catch_warnings(action="ignore"):
        return max(0.0, float(counted.get_epsilon(delta=delta)))  # the bound falls below 0 at a delta of 0.01, say


@cache
def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise with which so many steps spend at most epsilon, and at least 99 % of it; all else as for `spent`.

    A ValueError also refuses an epsilon too small for the accountant, which stays above some number whatever the noise.
    """
    _check(delta, rate, steps)
    utils = _opacus()
    order = max(utils.create_accountant(mechanism="rdp").DEFAULT_ALPHAS)
    # at this order rdp stays above `least` without any loss
    least = 1.1 * (math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    if not least <= epsilon <= 1e4:
        text = f"the accountant 'rdp' reaches epsilon from {least:.2g} to 1e+04 at a delta of {delta:g}"
        raise ValueError(f"{text}, got {epsilon:g}: ask for one of these")
    how = {"target_epsilon": epsilon, "target_delta": delta, "sample_rate": rate, "steps": steps}
    with warnings.catch_warnings(action="ignore"):
        return utils.get_noise_multiplier(**how, accountant="rdp", epsilon_tolerance=0.005 * epsilon)
