"""Pruners: which weights of a trained network stay. Called like linearizers, they return the same records.

After Tran, Fioretto, Kim, Naidu, *Pruning has a disparate impact on model accuracy* (NeurIPS 2022), whose own pruner is
`prune_magnitude`: the P % of all parameters with the smallest absolute values are removed.
"""

from linfair.pruners.iterative import Iterative, prune_iterative
from linfair.pruners.oneshot import Pruning, prune_layerwise, prune_magnitude, prune_random, prune_snip

__all__ = [
    "Iterative",
    "Pruning",
    "prune_iterative",
    "prune_layerwise",
    "prune_magnitude",
    "prune_random",
    "prune_snip",
]
