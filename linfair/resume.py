"""Training that goes on within a stage where it was stopped.

Inside `resumable(...)` every `fit` of a single network keeps, at the end of an epoch and at most every few minutes,
what its next epoch depends on: weights, the optimizer, the rows so far, and those who hook into it. Started again with
the same settings it goes on from there, equal to the last bit. `remembered` does the same for a few numbers that take
minutes, such as the eigenvalue of one group.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn


def weights_of(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Weights and buffers of several networks, `NETWORK/TENSOR` -> tensor."""
    return {f"{one}/{name}": value for one, network in networks.items() for name, value in network.state_dict().items()}


def under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors called `name/...`, by what follows."""
    return {k.removeprefix(f"{name}/"): one for k, one in tensors.items() if k.startswith(f"{name}/")}


def with_weights(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """The network with the weights that `weights_of` gave under a name."""
    network.load_state_dict(under(tensors, name))
    return network


@dataclass
class Stage:
    """What one stage keeps: the state of each `fit` in it, in the order of the calls."""

    store: object  # has `load`, `save` and `discard` by name, such as `linfair.engine.store.ResultStore`
    name: str
    every: float
    calls: int = 0
    anew: bool = False  # what was kept is not used
    earlier: float = 0.0  # seconds that fits of this stage took before they were stopped
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds that the stage has taken, those before it was stopped included."""
        return self.earlier + time.perf_counter() - self.began


class Unfit(Exception):  # noqa: N818
    """A kept state was set aside after a part of it was taken over: start the stage again, from its beginning."""


STAGE: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def resumable(store: object, *, name: str, every: float = 240.0) -> Iterator[Stage]:
    """Keep the state of every `fit` inside, and remove it when the block ends without an error.

    The stage's name must hold everything that decides the result; `every` is the least seconds between two files.
    """
    stage = Stage(store, name, every)
    token = STAGE.set(stage)
    try:
        yield stage
    finally:
        STAGE.reset(token)
    for number in range(stage.calls):
        store.discard(f"{name}-fit{number}")


def remembered(compute: Callable[[], list], read: Callable[[list], list] = list, **about: object) -> list:
    """What `compute` returns, fit for JSON; inside `resumable`, what `read` makes of that from before a stop."""
    if (stage := STAGE.get()) is None:
        return compute()
    name = f"{stage.name}-fit{stage.calls}"
    stage.calls += 1
    about = json.loads(json.dumps(about))
    found = stage.store.load(name, lambda _, notes: read(notes["values"]) if notes.get("about") == about else None)
    if found is None:
        start = time.perf_counter()
        found = compute()
        if time.perf_counter() - start >= min(stage.every, 60):
            stage.store.save(name, {}, {"about": about, "values": found})
    return found


@dataclass
class Kept:
    """The state of one `fit`; a state that was kept by another call, as `about` says, is left alone."""

    stage: Stage
    about: dict[str, object]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    parts: Sequence[object]  # their `state() -> (tensors by name, notes for JSON)` goes into `restore(tensors, notes)`
    rows: list[dict[str, object]] = field(default_factory=list)  # of the epochs that were done before
    done: bool = False  # nothing is left to do
    before: float = 0.0  # seconds

    def __post_init__(self) -> None:
        self.about = json.loads(json.dumps(self.about, default=str))
        self.name = f"{self.stage.name}-fit{self.stage.calls}"
        self.stage.calls += 1
        self.start = self.saved = time.perf_counter()
        begun = []
        if not self.stage.anew and self.stage.store.load(self.name, partial(self._take, begun)) is None and begun:
            self.stage.anew, self.stage.calls = True, 0
            raise Unfit(self.name)

    def _take(self, begun: list[bool], tensors: Mapping[str, Tensor], notes: Mapping[str, object]) -> bool:
        """Take over what was kept; whatever is wrong with it makes the store set it aside."""
        shapes = {name: value.shape for name, value in under(tensors, "model").items()}
        own = {name: value.shape for name, value in self.model.state_dict().items()}
        if notes.get("about") != self.about or shapes != own:
            return False
        if not all(value.isfinite().all() for value in under(tensors, "model").values()):
            raise ValueError("has weights that are not finite")
        begun.append(True)
        with_weights(self.model, tensors, "model")
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, object]] = {}
        for name, value in under(tensors, "optimizer").items():
            number, _, key = name.partition("/")
            like = weights[int(number)]
            if value.shape == like.shape:  # in the memory format of the weight, as a fused optimizer needs it
                value = torch.empty_like(like, dtype=value.dtype).copy_(value)
            state.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for number, (part, noted) in enumerate(zip(self.parts, notes["parts"], strict=True)):
            part.restore(under(tensors, f"part{number}"), noted)
        self.rows, self.done, self.before = list(notes["rows"]), bool(notes["done"]), float(notes["seconds"])
        self.stage.earlier += self.before
        return True

    def epoch_done(self, rows: list[dict[str, object]], *, last: bool) -> None:
        """Store the state if it is time, or if this epoch is the last of a fit that took long enough."""
        now = time.perf_counter()
        seconds = self.before + now - self.start
        if now - self.saved < self.stage.every and not (last and seconds > 60):
            return
        tensors, noted = weights_of({"model": self.model}), []
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{key}": one for key, one in values.items() if isinstance(one, Tensor)}
        for number, part in enumerate(self.parts):
            own, notes = part.state()
            tensors |= {f"part{number}/{name}": value for name, value in own.items()}
            noted.append(notes)
        about = {"about": self.about, "rows": rows, "done": last, "parts": noted, "seconds": seconds}
        self.stage.store.save(self.name, {name: value.detach().clone() for name, value in tensors.items()}, about)
        self.saved = time.perf_counter()
