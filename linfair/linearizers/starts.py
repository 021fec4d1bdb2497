"""Where a student's training starts: from the teacher's weights, or from fresh ones as the original network did."""

import copy
import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from linfair.ensemble import Ensemble

STARTS = ("teacher", "fresh")


def check_start(start: str) -> None:
    """Refuse a start that is not one of `STARTS`."""
    if start not in STARTS:
        raise ValueError(f"start = {start!r} is not allowed; start is one of {', '.join(STARTS)}")


def starting(teacher: nn.Module, start: str, seeds: Sequence[int]) -> nn.Module:
    """A copy of a teacher (or ensemble) from which its students are trained, its weights those of the start.

    A member's fresh weights depend on its seed alone and are not those from which its teacher started.
    """
    check_start(start)
    if start == "teacher":
        return copy.deepcopy(teacher)
    if isinstance(teacher, Ensemble):
        return Ensemble([fresh(network, seed) for network, seed in zip(teacher.networks(), seeds, strict=True)])
    return fresh(teacher, seeds[0])


def fresh(network: nn.Module, seed: int) -> nn.Module:
    """A copy with fresh weights, as torch draws them for each layer, leaving the global random state alone.

    >>> layer = nn.Linear(1, 1)
    >>> fresh(layer, 0).weight == fresh(layer, 0).weight, fresh(layer, 0).weight == layer.weight
    (tensor([[True]]), tensor([[False]]))
    """
    place = next(network.parameters(), torch.empty(0)).device
    drawn = copy.deepcopy(network).cpu()  # the same weights on every device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed}/student".encode()).digest()[:7]))
        for name, module in drawn.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif list(module.parameters(recurse=False)):
                raise ValueError(
                    f"module {name or type(module).__name__!r} holds weights and has no reset_parameters(): a fresh "
                    "start cannot draw them anew; give it that method, or use start='teacher'"
                )
    return drawn.to(place)
