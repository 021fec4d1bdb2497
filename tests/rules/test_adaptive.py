"""`dp_global_adapt`: gradients are scaled and bounded as its formula says, and both its releases are accounted for."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from linfair.data import load_data
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.rules import DPSGD, DPGlobalAdapt, resolve, spent, train
from linfair.rules.private import sampling
from linfair.schedule import Schedule
from linfair.training import Source, supervised

DATA = [load_data("digits", seed=seed, scale="fixed", shift=0) for seed in (0, 1)]
SCHEDULE = Schedule(epochs=1, batch_size=125, lr=0.1, momentum=0.0)


def network(seed: int) -> torch.nn.Module:
    return build("mlp", (1, 12, 12), 10, seed=seed, width=16)


def by_hand(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, bound: float, clip: float) -> tuple:
    """The sum over images, one backward pass each, and how many gradients lie above the bound."""
    total, above = [torch.zeros_like(one) for one in model.parameters()], 0
    for image, label in zip(x, y, strict=True):
        model.zero_grad()
        cross_entropy(model(image[None]), label[None]).backward()
        norm = math.sqrt(sum(float(one.grad.square().sum()) for one in model.parameters()))
        above += norm > bound
        for sum_, one in zip(total, model.parameters(), strict=True):
            sum_ += clip / max(bound, norm) * one.grad
    return total, above


def test_gradients_are_scaled_up_to_the_bound_and_clipped_beyond_it() -> None:
    """Oracle: the formula, image by image. Two members draw batches of their own; what fills them up does not count."""
    options, models = DPGlobalAdapt(noise=0.0, bound=4.0, clip=0.7, rate=0.1), [network(0), network(1)]
    rule = options.start(Ensemble([network(0), network(1)]), DATA, SCHEDULE, seeds=(0, 1))
    source, together = Source(DATA, "train"), Ensemble([network(0), network(1)])
    index, _ = source.epoch(["a", "b"], 125, False, rule.batches, pads=True)[0]
    rule.gradient(together, lambda batch, model=together: supervised(model, batch), source.take(index))
    size = sampling(source.n, 125)[0] * source.n
    for member, model in enumerate(models):
        here = index[member][index[member] >= 0]
        split = DATA[member].splits["train"]
        total, above = by_hand(model, DATA[member].normalise(split.x[here]), split.y[here], 4.0, 0.7)
        found = [one.grad.reshape(2, -1)[member] for one in together.parameters()]
        for one, other in zip(found, total, strict=True):
            assert torch.allclose(one, other.flatten() / size, atol=1e-6)
        assert 0 < above < len(here)
        assert float(rule.gradient.bound[member]) == pytest.approx(4.0 * math.exp(above / size - 0.1), rel=1e-5)


def test_no_image_adds_more_than_the_clipping_norm() -> None:
    rule = DPGlobalAdapt(noise=0.0, bound=2.0, clip=0.5).gradient(DATA[0], SCHEDULE, (0,), "base")
    norms = torch.logspace(-3, 4, 50)[:, None]
    assert float((rule.scale(norms, torch.ones(50, 1, dtype=torch.bool)) * norms).max()) <= 0.5 * (1 + 1e-6)


def test_epsilon_counts_the_gradients_and_the_counts() -> None:
    """Oracles: one Gaussian mechanism of sensitivity 1 in both parts, by the accountant; dp-accounting to 1 %."""
    rule = DPGlobalAdapt(epsilon=3.0, count_noise=8.0)
    given, plain = rule.guarantee(500, SCHEDULE), DPSGD(epsilon=3.0).guarantee(500, SCHEDULE)
    made = rule.gradient(DATA[0], SCHEDULE, (0,), "base")
    assert given.epsilon == plain.epsilon <= 3.0  # the same budget, so the gradients get more noise
    assert made.noise > plain.noise
    assert made.noise**-2 + made.options.count_noise**-2 == pytest.approx(given.noise**-2)
    accounting = pytest.importorskip("dp_accounting")
    accountant = accounting.rdp.RdpAccountant()
    both = accounting.PoissonSampledDpEvent(given.rate, accounting.GaussianDpEvent(given.noise))
    accountant.compose(both, given.steps)
    assert accountant.get_epsilon(given.delta) == pytest.approx(given.epsilon, rel=0.01)
    asked = DPGlobalAdapt(noise=made.noise, count_noise=8.0).guarantee(500, SCHEDULE)
    assert asked.epsilon == pytest.approx(given.epsilon)
    assert asked.epsilon > spent(made.noise, 1e-5, given.rate, given.steps)  # that of the gradients alone


def test_the_count_is_noisy_and_training_goes_on_from_its_guarantee() -> None:
    """With count_noise c the exponent has a standard deviation of c / (q n): over 400 steps of one seed within 15 %."""
    rule = DPGlobalAdapt(epsilon=8.0, count_noise=10.0, rate=0.2).gradient(DATA[0], SCHEDULE, (0,), "base")
    moved = []
    for rule.steps in range(400):
        before = rule.bound
        rule.scale(torch.zeros(4, 1), torch.ones(4, 1, dtype=torch.bool))
        rule._noisy({"w": torch.zeros(1, 3)})
        moved.append(float((rule.bound / before).log()) + 0.2)
    assert torch.tensor(moved).std().item() == pytest.approx(10.0 / 125, rel=0.15)
    history, guarantee = train(network(0), DATA[0], SCHEDULE, rule="dp_global_adapt(epsilon=3)", progress=False)
    assert guarantee.holds and guarantee.epsilon <= 3.0 and math.isfinite(history[-1]["loss"][0])


@pytest.mark.parametrize("said", ["bound=0", "rate=0.0", "threshold=-1", "count_noise=0"])
def test_options_that_make_no_rule_are_refused(said: str) -> None:
    with pytest.raises(ValueError, match=f"{said.partition('=')[0]} must be above 0"):
        resolve(f"dp_global_adapt({said})")


def test_a_count_with_less_noise_than_the_step_is_refused() -> None:
    with pytest.raises(ValueError, match="count_noise must be above"):
        DPGlobalAdapt(epsilon=1.0, count_noise=2.0).gradient(DATA[0], SCHEDULE, (0,), "base")
