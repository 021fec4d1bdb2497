"""The form all rules have, and those that look at a batch as a whole.

With g the gradient of a batch at the weights w, SAM (Foret et al., ICLR 2021) and ASAM (Kwon et al., ICML 2021) take

    grad L(w + e),    e = rho T^2 g / |T g|,    T = 1 (SAM) or |w| + eta (ASAM), entry by entry,

over all trained parameters; ASAM's released code has T = 1 for biases. A step costs two.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.ledger import STEPS, Guarantee, after
from linfair.schedule import Gradient, Loss, Schedule, plain
from linfair.training import Batch, Batches, Data, shuffled

_POSITIVE = (lambda value: 0 < value < float("inf"), "above 0 and finite")
RANGES = {
    "average": (lambda value: 0 <= value < 1, "a decay in [0, 1), 0 for no average"),
    "delta": (lambda value: 0 < value < 1, "between 0 and 1"),
    **dict.fromkeys(("multiplicity", "physical"), (lambda value: value >= 1, "1 or more")),
    "count_noise": (lambda value: 1e-3 < value < float("inf"), "above 0.001 and finite"),
    "noise": (lambda value: not value or 1e-3 < value < float("inf"), "0 (no guarantee), or above 0.001 and finite"),
    **dict.fromkeys(("bound", "clip", "epsilon", "max_norm", "rate", "threshold"), _POSITIVE),
    **dict.fromkeys(("eta", "rho"), (lambda value: 0 <= value < float("inf"), "0 or more and finite")),
}
"""What each option may be, and how that is said."""


@dataclass(frozen=True)
class Started:
    """A rule of one training: `gradient` and `batches` as `fit` takes them."""

    gradient: Gradient | None
    batches: Batches | None
    average: "Average | None"  #: Of the weights, which become the network's after `fit`
    guarantee: Guarantee | None  #: Of the network when it is trained


@dataclass(frozen=True)
class Repeated:
    """A plan's batches with each image several times in a row, so that each gets as many shifts of its own."""

    times: int
    plan: Batches = field(default=shuffled, repr=False)

    def __call__(self, groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
        """The batches of one epoch."""
        return [one.repeat_interleave(self.times) for one in self.plan(groups, batch_size, generator)]


class Average:
    """Exponential moving average of weights and buffers, v <- d v + (1 - d) w after step t (counted from 0).

    d = min(decay, (1 + t) / (10 + t)) weighs the start of training less (De et al., arXiv 2204.13650).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.values = {name: value.clone() for name, value in self._now().items()}

    def _now(self) -> dict[str, Tensor]:
        return {name: one for name, one in self.model.state_dict().items() if one.is_floating_point()}

    def after_step(self, steps: int) -> None:
        """Take the weights in, after so many steps."""
        weight = 1 - min(self.decay, steps / (9 + steps))
        torch._foreach_lerp_(list(self.values.values()), list(self._now().values()), weight)

    def finish(self) -> None:
        """Put the average into the network; where it is not finite, a member of an ensemble diverged and stays."""
        for name, now in self._now().items():
            now.copy_(torch.where(self.values[name].isfinite(), self.values[name], now))

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What `linfair.resume` keeps."""
        return self.values, {}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        """Take what was kept."""
        self.values = {name: tensors[name].to(one.device) for name, one in self.values.items()}


@dataclass(frozen=True)
class RuleOptions:
    """What all rules have; one whose options are called as a `Gradient` needs nothing else."""

    plan = staticmethod(shuffled)
    _: KW_ONLY
    average: float = 0.0  #: Decay of the moving average of the weights that becomes the network at the end; 0 is none
    multiplicity: int = 1  #: Random shifts of each image whose gradients are averaged (before an image is clipped)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            fits, words = RANGES.get(name, (lambda value: True, ""))
            if not fits(value):
                raise ValueError(f"{self.name}: {name} must be {words}, got {value}")

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> Gradient | None:
        """The rule of one training; None is backpropagation."""
        return self if callable(self) else None

    def guarantee(self, n: int, schedule: Schedule) -> Guarantee | None:
        """What a training on n images guarantees."""
        return None

    def start(
        self,
        model: nn.Module,
        data: Data,
        schedule: Schedule,
        *,
        seeds: Sequence[int] | None = None,
        stage: str = "base",
    ) -> Started:
        """The rule of one training, with the arguments that `fit` gets.

        Raises:
            ValueError: If images are to be shifted several times, and the data or the schedule have no shifts.
        """
        sets = [data] if isinstance(data, GroupedData) else list(data)
        if self.multiplicity > 1 and not (schedule.augment and sets[0].reach):
            text = f"multiplicity={self.multiplicity} averages over random shifts of an image, and there are none here"
            text += ": use data with a shift or crop above 0 and a schedule with augment=True, or multiplicity=1"
            raise ValueError(text)
        guarantee = self.guarantee(len(sets[0].splits["train"]), schedule)
        if not all(one.fixed_scale for one in sets):
            guarantee = after(guarantee, STEPS["normalisation by training images"])
        if any("upsampled_from" in one.provenance for one in sets):
            guarantee = after(guarantee, STEPS["repeated images"])
        gradient = self.gradient(data, schedule, range(len(sets)) if seeds is None else seeds, stage)
        batches = Repeated(self.multiplicity, self.plan) if self.multiplicity > 1 else self.plan
        average = Average(model, self.average) if self.average else None
        return Started(gradient, None if batches is shuffled else batches, average, guarantee)


@dataclass(frozen=True)
class SGD(RuleOptions):
    """Backpropagation; the optimizer is the schedule's."""

    name = "sgd"


@dataclass(frozen=True)
class Clipped(RuleOptions):
    """Backpropagation, then each member's gradient g over all parameters becomes g * min(1, max_norm / (|g| + 1e-6)).

    That is not private. Source: Pascanu et al., ICML 2013.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> toward = lambda batch: (layer.weight * batch).sum()
    >>> _ = Clipped(1.0)(layer, toward, layer.weight.new_tensor([3.0, 4.0]))
    >>> layer.weight.grad.norm().round(decimals=5).item()
    1.0
    """

    name = "clipped"
    max_norm: float = 1.0

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


@dataclass(frozen=True)
class SAM(RuleOptions):
    """Sharpness-aware minimisation: the gradient where the loss is largest within `rho`, to first order."""

    name = "sam"
    rho: float = 0.05

    def __call__(self, model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
        """Compute the gradients of a batch, each member's by its own step; returns the loss before the step.

        The running moments of batch norm are those before it, too.
        """
        values, members = plain(model, loss, batch), getattr(model, "members", None) or 1
        weights = [one for one in model.parameters() if one.grad is not None]
        kept = [(one, one.detach().clone()) for one in (*weights, *model.buffers())]
        with torch.no_grad():
            scales = [self.scale(one) for one in weights]
            up = [(scale * one.grad).reshape(members, -1) for scale, one in zip(scales, weights, strict=True)]
            norm = torch.linalg.vector_norm(torch.stack([one.norm(dim=1) for one in up]), dim=0, keepdim=True).T
            for one, scale, way in zip(weights, scales, up, strict=True):
                one.add_(scale * (way * (self.rho / (norm + 1e-12))).view_as(one))
        plain(model, loss, replace(batch, again=True))
        with torch.no_grad():
            for one, before in kept:
                one.copy_(before)
        return values

    def scale(self, weight: Tensor) -> Tensor | float:
        """T of a weight."""
        return 1.0


@dataclass(frozen=True)
class ASAM(SAM):
    """Adaptive sharpness-aware minimisation: steps in proportion to the weights' sizes, to which `eta` is added."""

    name = "asam"
    rho: float = 0.5
    eta: float = 0.01

    def scale(self, weight: Tensor) -> Tensor:
        """T of a weight."""
        return weight.abs() + self.eta
