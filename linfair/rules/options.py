"""The form all rules have: options, and what they start for one training."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.ledger import Guarantee
from linfair.schedule import Clipped as ClippedGradient
from linfair.schedule import Gradient, Schedule
from linfair.training import Batches, Data, shuffled


@dataclass(frozen=True)
class Started:
    """A rule of one training: what `fit` takes, and what is left to do after it."""

    gradient: Gradient | None = None
    batches: Batches | None = None
    hooks: dict[str, object] = field(default_factory=dict)  #: `after_step` and `parts` of `fit`, where there are any
    guarantee: Guarantee | None = None  #: Of the network when it is trained
    finish: Callable[[], None] = lambda: None  #: To be called after `fit`: averaged weights become the network's


@dataclass(frozen=True)
class Repeated:
    """A plan's batches with each image several times in a row, so that each gets as many shifts of its own."""

    times: int
    plan: Batches = shuffled

    def __call__(self, groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
        """The batches of one epoch."""
        return [one.repeat_interleave(self.times) for one in self.plan(groups, batch_size, generator)]

    def __repr__(self) -> str:
        return f"Repeated({self.times}, {getattr(self.plan, '__qualname__', self.plan)})"


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
        now, decay = self._now(), min(self.decay, steps / (9 + steps))
        torch._foreach_lerp_(list(self.values.values()), [now[name] for name in self.values], 1 - decay)

    def finish(self) -> None:
        """Put the average into the network; where it is not finite, a member of an ensemble diverged and stays."""
        with torch.no_grad():
            for name, now in self._now().items():
                now.copy_(torch.where(self.values[name].isfinite(), self.values[name], now))

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What `linfair.resume` keeps."""
        return self.values, {}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        """Take what was kept."""
        self.values = {name: tensors[name].to(one.device) for name, one in self.values.items()}


def require(ok: bool, text: str) -> None:
    """Refuse an option with a ValueError."""
    if not ok:
        raise ValueError(text)


@dataclass(frozen=True)
class RuleOptions:
    """What all rules have.

    Attributes:
        average: Decay of the exponential moving average of the weights that becomes the network at the end; 0 is none.
        multiplicity: Random shifts of each image whose gradients are averaged in a step (before an image is clipped).
    """

    _: KW_ONLY
    average: float = 0.0
    multiplicity: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.average < 1, f"average is a decay in [0, 1), 0 for no average, got {self.average}")
        require(self.multiplicity >= 1, f"multiplicity counts shifts of an image, 1 or more, got {self.multiplicity}")

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> Gradient | None:
        """The rule itself; None is backpropagation."""
        return None

    def batches(self) -> Batches | None:
        """The batches it needs; None is every image once."""
        return None if self.multiplicity == 1 else Repeated(self.multiplicity)

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
        if self.multiplicity > 1 and not (schedule.augment and sets[0].shift):
            text = f"multiplicity={self.multiplicity} averages over random shifts of an image, and there are none here"
            raise ValueError(f"{text}: use data with shift > 0 and a schedule with augment=True, or multiplicity=1")
        seeds = range(len(sets)) if seeds is None else seeds
        gradient = self.gradient(data, schedule, seeds, stage)
        started = Started(gradient, self.batches(), {"parts": (gradient,) if hasattr(gradient, "state") else ()})
        if not self.average:
            return started
        average = Average(model, self.average)
        hooks = {"after_step": average.after_step, "parts": (*started.hooks["parts"], average)}
        return replace(started, hooks=hooks, finish=average.finish)


@dataclass(frozen=True)
class SGD(RuleOptions):
    """Backpropagation; the optimizer is the schedule's."""

    name = "sgd"
    summary = "the batch's gradient as it is"
    source = "the baseline"


@dataclass(frozen=True)
class Clipped(RuleOptions):
    """Backpropagation, a batch's gradient shortened to a norm of at most `max_norm`; not private."""

    name = "clipped"
    summary = "bounds the norm of the batch's gradient"
    source = "Pascanu et al., ICML 2013"
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_norm > 0, f"max_norm must be above 0, got {self.max_norm}")

    def gradient(self, data: Data, schedule: Schedule, seeds: Sequence[int], stage: str) -> Gradient:
        """The rule itself."""
        return ClippedGradient(self.max_norm)
