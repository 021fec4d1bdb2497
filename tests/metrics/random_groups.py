"""Random data of three groups and random small networks, shared by the tests of gradients and curvature."""

import numpy as np
import torch
from torch import nn

from linfair.data import GroupedData, Split
from linfair.gates import install, set_alphas
from linfair.models import build


def grouped(seed: int, *, n: int = 23, features: tuple[int, ...] = (3,), classes: int = 3) -> GroupedData:
    """Random float64 inputs of three groups, group 2 the rarest, one at least of each."""
    rng = np.random.default_rng(seed)
    a = np.concatenate([[0, 1, 2], rng.choice(3, size=n - 3, p=[0.6, 0.3, 0.1])])
    x = torch.from_numpy(rng.standard_normal((n, *features)))
    part = Split(x, torch.from_numpy(rng.integers(classes, size=n)), torch.from_numpy(rng.permutation(a)))
    return GroupedData("random", {"train": part}, tuple("abc"[:classes]), ("0", "1", "2"))


def network(seed: int, *, gated: bool = True) -> nn.Module:
    """A 3-5-5-3 network in float64, alphas too, which are fractional."""
    generator = torch.Generator().manual_seed(seed)
    plain = build("mlp", (3,), 3, width=5, seed=seed).double()
    if not gated:
        return plain
    gated = install(plain, (3,)).double()
    return set_alphas(gated, lambda _, alpha: torch.rand(alpha.shape, dtype=alpha.dtype, generator=generator))
