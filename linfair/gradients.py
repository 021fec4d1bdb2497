"""Gradient rules: how a step of `linfair.training.fit` gets its gradients from a batch.

A rule is called with the network, a function `loss` and the batch. It leaves a gradient on every parameter that is
trained and returns the batch's loss, one number for each member. `loss(batch)` is the objective on that batch, or on
any other; `loss(batch, network)` computes it with something called like the network, such as a functional form of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Loss = Callable[..., Tensor]
Gradient = Callable[[nn.Module, Loss, object], Tensor]
"""Network, loss, batch -> the loss, one number for each member; gradients lie in the parameters' `grad`."""


def plain(model: nn.Module, loss: Loss, batch: object) -> Tensor:
    """Backpropagation of the batch's loss."""
    values = loss(batch)
    model.zero_grad(set_to_none=True)
    values.sum().backward()
    return values.detach()


@dataclass(frozen=True)
class Clipped:
    """Backpropagation, then each member's gradient g over all parameters becomes g * min(1, max_norm / (|g| + 1e-6)).

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> toward = lambda batch: (layer.weight * batch).sum()
    >>> _ = Clipped(1.0)(layer, toward, layer.weight.new_tensor([3.0, 4.0]))
    >>> layer.weight.grad.norm().round(decimals=5).item()
    1.0
    """

    max_norm: float

    def __call__(self, model: nn.Module, loss: Loss, batch: object) -> Tensor:
        """Compute the gradients of a batch; returns its loss."""
        values = plain(model, loss, batch)
        members = getattr(model, "members", None) or 1
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        square = sum(gradient.reshape(members, -1).pow(2).sum(dim=1) for gradient in gradients)
        scale = (self.max_norm / (square.sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale[0] if members == 1 else scale.view(-1, *[1] * (gradient.ndim - 1)))
        return values
