"""Gates whose alphas pass the threshold one after the other."""

from collections.abc import Callable

import torch
from torch import nn

from linfair import gates


def staggered(network: nn.Module, shape: tuple[int, ...], install: Callable = gates.install) -> nn.Module:
    """Gates with alphas spread over [0.5, 1): falling in step, they pass the threshold one after the other."""
    gated = install(network, shape)
    total, generator = gates.total_units(gated), torch.Generator().manual_seed(0)
    values = (0.5 + 0.5 * torch.randperm(total, generator=generator) / total).split(
        [alpha.numel() for alpha in gates.alphas(gated).values()]
    )
    for alpha, part in zip(gates.alphas(gated).values(), values, strict=True):
        alpha.data.copy_(part.view_as(alpha))
    return gated
