"""What a schedule promises, held against its formula; nothing is trained."""

import pytest
import torch
from torch import nn

from linfair.training import Schedule


@pytest.mark.parametrize("nesterov", [False, True])
def test_nesterov_momentum_takes_the_steps_of_its_formula(nesterov: bool) -> None:
    """Velocity v = m v + g, then w -= lr v, or w -= lr (g + m v) with Nesterov (Sutskever et al., 2013)."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 2.0)
    schedule = Schedule(epochs=1, lr=0.25, momentum=0.5, nesterov=nesterov)
    optimizer = schedule.make_optimizer(layer)
    weight, velocity = 2.0, 0.0
    for gradient in (1.0, -3.0, 0.5):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        optimizer.step()
        velocity = 0.5 * velocity + gradient
        weight -= 0.25 * (gradient + 0.5 * velocity if nesterov else velocity)
        assert layer.weight.item() == weight  # halves and quarters: exact


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"optimizer": "adamw"}, {"momentum": 0.0}])
def test_nesterov_without_sgd_and_momentum_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="nesterov=True needs optimizer='sgd' and momentum > 0, got"):
        Schedule(epochs=1, nesterov=True, **settings)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"epochs": -1}, {"batch_size": 0}, {"batch_size": -5}])
def test_no_epochs_and_empty_batches_are_refused(settings: dict[str, int]) -> None:
    """A batch size of 0 meant the whole split, and fine-tuning of no epochs failed at its end."""
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        Schedule(**{"epochs": 1} | settings)
