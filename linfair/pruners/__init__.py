"""Pruners: which weights of a trained network stay. Called like linearizers, they return the same records.

After Tran, Fioretto, Kim, Naidu, *Pruning has a disparate impact on model accuracy* (NeurIPS 2022), whose own pruner is
`prune_magnitude`: the P % of all parameters with the smallest absolute values are removed.
"""

from linfair.linearizers.registry import Linearizer
from linfair.pruners.iterative import Iterative, prune_iterative
from linfair.pruners.oneshot import Pruning, prune_layerwise, prune_magnitude, prune_random, prune_snip
from linfair.weights import WEIGHTS

PRUNERS = {}  #: The methods by name
for _run, _kind, _source, _summary in (
    (prune_magnitude, Pruning, "Tran et al., NeurIPS 2022", "keeps the weights with the largest |w| over all layers"),
    (
        prune_layerwise,
        Pruning,
        "one-shot control",
        "keeps the same share of every layer, the largest |w| there",
    ),
    (prune_random, Pruning, "one-shot control", "keeps weights drawn at random over the network"),
    (prune_snip, Pruning, "Lee et al., SNIP, ICLR 2019", "keeps the weights with the largest |w dL/dw|"),
    (
        prune_iterative,
        Iterative,
        "Han et al., NeurIPS 2015",
        "removes the smallest |w| in rounds, retrains between them",
    ),
):
    PRUNERS[_run.__name__] = Linearizer(_run.__name__, _summary, _source, _kind, _run, WEIGHTS)
