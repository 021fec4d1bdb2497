"""Training steps that a GPU repeats on its own.

A step of a ResNet18 is about a thousand operations, and a processor hands them over more slowly than a GPU computes
them. Where the same operations follow for every batch of an epoch they are recorded as a CUDA graph, once an epoch for
each size of batch, and replayed after that: the same operations in the same order on the same numbers. The
environment variable `LINFAIR_REPLAY=0` turns this off.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

Step = Callable[..., Tensor]
"""Tensors of a batch -> its loss; gradients lie in the parameters' `grad`."""


def repeats(objective: object) -> bool:
    """Whether an objective says that it does the same for every batch of an epoch, and changes its tensors in place."""
    return bool(getattr(objective, "repeats", False))


def worthwhile(device: str) -> bool:
    """Whether steps are replayed on a device: on a GPU, unless the environment says no."""
    return device == "cuda" and os.environ.get("LINFAIR_REPLAY") != "0"


_stream = cache(torch.cuda.Stream)  # by device


@cache
def _pool(device: int) -> tuple[torch.cuda.CUDAGraph, Tensor, object]:
    """The memory of all graphs of this process, and what keeps it: a graph that is never replayed."""
    pool, graph, one = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph(), torch.ones(1, device="cuda")
    graph.capture_begin(pool=pool)
    kept = one + 1
    graph.capture_end()
    return graph, kept, pool


@contextmanager
def aside() -> Iterator[None]:
    """Compute in a stream that can be recorded, torch's default one cannot; without a GPU nothing changes."""
    if not torch.cuda.is_initialized():
        yield
        return
    own = _stream(torch.cuda.current_device())
    own.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        torch.cuda.current_stream().wait_stream(own)


class Replay:
    """A step of one network, recorded when a size of batch comes again, and forgotten at the end of an epoch.

    The first step of an epoch, and of each size, is computed as usual: what is made once is made there.
    """

    def __init__(self, step: Step, model: nn.Module) -> None:
        self.step, self.model = step, model
        self.seen: set[tuple[torch.Size, ...]] = set()
        self.recorded: dict[tuple[torch.Size, ...], tuple[Callable[[], None], Sequence[Tensor], Tensor, list]] = {}
        self.first, self.works = True, True

    def __call__(self, *given: Tensor) -> Tensor:
        """The loss of a batch, its gradients in the parameters."""
        sizes = tuple(one.shape for one in given)
        if self.first or sizes not in self.seen or not self.works:
            self.first = False
            self.seen.add(sizes)
            return self.step(*given)
        if sizes not in self.recorded:
            try:
                self.recorded[sizes] = self._record(given)
            except RuntimeError as error:
                self.works = False
                text = "steps are computed one operation at a time, slowly, because they cannot be recorded for the GPU"
                warnings.warn(f"{text}: {error}", RuntimeWarning, stacklevel=2)
                return self.step(*given)
        replay, inputs, loss, gradients = self.recorded[sizes]
        for own, one in zip(inputs, given, strict=True):
            own.copy_(one)
        replay()
        for weight, gradient in gradients:
            weight.grad = gradient
        return loss

    def _record(self, given: Sequence[Tensor]) -> tuple[Callable[[], None], Sequence[Tensor], Tensor, list]:
        inputs, graph = [one.clone() for one in given], torch.cuda.CUDAGraph()
        *_, pool = _pool(torch.cuda.current_device())
        graph.capture_begin(pool=pool)
        try:
            loss = self.step(*inputs)
        finally:
            graph.capture_end()
        return graph.replay, inputs, loss, [(one, one.grad) for one in self.model.parameters() if one.grad is not None]

    def end_epoch(self) -> None:
        """Forget what was recorded: what is made anew once an epoch is part of it."""
        self.recorded.clear()
        self.first = True
