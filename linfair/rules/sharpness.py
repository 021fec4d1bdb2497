"""Sharpness-aware training: the gradient where the loss is largest near the weights, to first order.

With g the gradient of a batch at the weights w, SAM (Foret et al., ICLR 2021) and ASAM (Kwon et al., ICML 2021) take

    grad L(w + e),    e = rho T^2 g / |T g|,    T = 1 (SAM) or |w| + eta (ASAM), entry by entry,

over all trained parameters; ASAM's released code has T = 1 for biases. A step costs two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linfair.rules.options import RuleOptions, require
from linfair.schedule import Gradient, Loss, Schedule, plain
from linfair.training import Data


@dataclass(frozen=True)
class Ascended:
    """The gradient after a step uphill, each member of an ensemble by its own; `eta` None is SAM.

    The loss and the running moments of batch norm are those before the step.
    """

    rho: float
    eta: float | None = None

    def __call__(self, model: nn.Module, loss: Loss, batch: object) -> Tensor:
        """Compute the gradients of a batch; returns its loss."""
        values, members = plain(model, loss, batch), getattr(model, "members", None) or 1
        weights = [one for one in model.parameters() if one.grad is not None]
        kept = [(one, one.detach().clone()) for one in (*weights, *model.buffers())]
        with torch.no_grad():
            scales = [1.0 if self.eta is None else one.abs() + self.eta for one in weights]
            up = [(scale * one.grad).reshape(members, -1) for scale, one in zip(scales, weights, strict=True)]
            norm = torch.linalg.vector_norm(torch.stack([one.norm(dim=1) for one in up]), dim=0, keepdim=True).T
            for one, scale, way in zip(weights, scales, up, strict=True):
                one.add_(scale * (way * (self.rho / (norm + 1e-12))).view_as(one))
        plain(model, loss, batch)
        with torch.no_grad():
            for one, before in kept:
                one.copy_(before)
        return values


@dataclass(frozen=True)
class SAM(RuleOptions):
    """Sharpness-aware minimisation.

    Attributes:
        rho: Length of the step uphill.
    """

    name = "sam"
    summary = "takes the gradient after a step uphill"
    source = "Foret et al., ICLR 2021"
    rho: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rho >= 0, f"rho is the length of a step, 0 or more, got {self.rho}")

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> Gradient:
        """The rule itself."""
        return Ascended(self.rho)


@dataclass(frozen=True)
class ASAM(SAM):
    """Adaptive sharpness-aware minimisation.

    Attributes:
        eta: Added to the weights' sizes, by which the step is scaled.
    """

    name = "asam"
    summary = "takes the gradient after a step uphill, in proportion to the weights"
    source = "Kwon et al., ICML 2021"
    rho: float = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.eta >= 0, f"eta is added to the weights' sizes, 0 or more, got {self.eta}")

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> Gradient:
        """The rule itself."""
        return Ascended(self.rho, self.eta)
