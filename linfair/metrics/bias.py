"""Bias of predictions between two domains, such as coloured and grey images, that share their classes.

Each class is tied to the domain that it has most of in training (Wang et al., CVPR 2020, arXiv 1911.11834), where its
inputs are *aligned*, else *conflicting*; the test split holds every image in both domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from linfair.metrics.accuracy import GroupAccuracy, group_accuracy


@dataclass(frozen=True)
class MeanBias:
    """Mean bias of one network on n inputs."""

    n: int
    bias: float  #: In [0, 1/2]
    low: float  #: Percentile interval over images
    high: float
    left_out: int  #: Classes that are never predicted, which have no bias
    chance: float  #: What predictions that do not depend on the domain have on average: a maximum is never below 1/2


def mean_bias(
    predictions: Tensor, domain: Tensor, classes: int, *, image: Tensor | None = None, draws: int = 1000
) -> MeanBias:
    """Mean over classes of max(grey_c, colour_c) / (grey_c + colour_c) - 1/2 (Wang et al., CVPR 2020).

    grey_c and colour_c count how often class c is *predicted* in each domain, right or wrong. Ours: a class that is
    never predicted is left out of the mean and counted in `left_out`; counts are divided by their domain's inputs where
    these are not equally many. `predictions` and `domain` (0 or 1, else a ValueError) are int64 (n,), and so is
    `image`, which image an input shows: both its domains are drawn together. The 95 % interval is a bootstrap of
    `draws` over images, of the draws that hold both domains (nan without any).

    >>> found = mean_bias(torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1]), 3, draws=2)
    >>> round(found.bias, 3), found.left_out  # of rates 1 and 1/2, then 0 and 1/2: (2/3 + 1) / 2 - 1/2
    (0.333, 1)
    """
    p, d = predictions.cpu().numpy(), domain.cpu().numpy()
    if p.shape != d.shape or p.ndim != 1 or set(np.unique(d)) != {0, 1}:
        raise ValueError(f"predictions and domains (n,) of two domains, 0 and 1, are needed; got {np.unique(d)}")
    if not 0 <= p.min() <= p.max() < classes:
        raise ValueError(f"predictions must be 0 to {classes - 1}, got {np.unique(p).tolist()}")
    whose = np.arange(len(p)) if image is None else np.unique(image.cpu().numpy(), return_inverse=True)[1]

    def counts(times: np.ndarray) -> np.ndarray:  # how often each input counts -> (2, classes)
        return np.stack([np.bincount(p, times * (d == one), minlength=classes) for one in (0, 1)])

    def biases(found: np.ndarray) -> np.ndarray:  # of the classes that are predicted
        rates = found / np.maximum(found.sum(1, keepdims=True), 1)
        there = rates.sum(0) > 0
        return rates.max(0)[there] / rates.sum(0)[there] - 0.5

    own, generator, images = counts(np.ones(len(p))), np.random.default_rng(0), int(whose.max()) + 1
    drawn = (np.bincount(generator.integers(images, size=images), minlength=images)[whose] for _ in range(draws))
    means = [biases(found).mean() for found in map(counts, drawn) if found.sum(1).all()]
    low, high = np.quantile(means, [0.025, 0.975]) if means else (np.nan, np.nan)
    values, (one, two), totals = biases(own), own.sum(1).astype(int), own.sum(0)[own.sum(0) > 0].astype(int)
    even = [hypergeom(len(p), one, n).expect(lambda k, n=n: abs(k / (k + (n - k) * one / two) - 0.5)) for n in totals]
    return MeanBias(len(p), float(values.mean()), float(low), float(high), classes - len(values), float(np.mean(even)))


def aligned_accuracy(correct: Tensor, y: Tensor, domain: Tensor, aligned: Sequence[int]) -> dict[str, GroupAccuracy]:
    """Accuracy with its Wilson interval on `aligned` and on `conflicting` inputs, from `correct` (n,) as for a group's.

    `aligned` is the domain that each class is tied to (`GroupedData.aligned`), y (n,) and `domain` (n,) are int64.

    >>> y, domain = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    >>> rows = aligned_accuracy(torch.tensor([1.0, 0.0, 1.0]), y, domain, (0, 1))
    >>> rows["aligned"].accuracy, rows["conflicting"].accuracy
    (1.0, 0.0)
    """
    apart = (torch.tensor(aligned, device=y.device)[y] != domain).long()
    return dict(zip(("aligned", "conflicting"), group_accuracy(correct, apart, 2), strict=True))
