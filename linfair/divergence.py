"""When training leaves the finite numbers: say so, and lose no other member of an ensemble."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn


class TrainingDiverged(RuntimeError):
    """The loss, or a multiplier of a constraint, left the finite numbers or its stated limit."""


@dataclass(frozen=True)
class Failure:
    """Why one member of a training diverged, and what would help: two phrases of an error message."""

    what: str
    advice: str


class Isolation:
    """Keeps the diverged members of an ensemble as they were at the end of their last good epoch.

    Members share nothing, so that the others train on as if they were alone.
    """

    def __init__(self, model: nn.Module, members: int) -> None:
        self.model = model
        self.epoch: list[int | None] = [None] * members  # in which each member diverged
        self._good = self._copy()

    def update(self, epoch: int, failed: Collection[int]) -> list[int | None]:
        """Put the members that diverged, now or earlier, back; returns the epoch in which each did."""
        self.epoch = [epoch if when is None and m in failed else when for m, when in enumerate(self.epoch)]
        lost = [member for member, when in enumerate(self.epoch) if when is not None]
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value[lost] = self._good[name][lost]
        self._good = self._copy()
        return self.epoch

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}
