"""Pruners: which weights of a trained network stay. Called like linearizers, they return the same records.

After Tran, Fioretto, Kim, Naidu, *Pruning has a disparate impact on model accuracy* (NeurIPS 2022), whose own pruner is
`prune_magnitude`: the P % of all parameters with the smallest absolute values are removed.
"""

from linfair.ledger import STEPS
from linfair.linearizers.registry import Linearizer
from linfair.pruners.iterative import Iterative, prune_iterative
from linfair.pruners.oneshot import Pruning, prune_layerwise, prune_magnitude, prune_random, prune_snip
from linfair.weights import WEIGHTS

PRUNERS = {}  #: The methods by name
_TRAN, _HAN, _LEE = "Tran et al., NeurIPS 2022", "Han et al., NeurIPS 2015", "Lee et al., SNIP, ICLR 2019"
_OURS = "one-shot control"
for _run, _kind, _source, _step, _summary in (
    (prune_magnitude, Pruning, _TRAN, "magnitude mask", "keeps the weights with the largest |w| over all layers"),
    (prune_layerwise, Pruning, _OURS, "magnitude mask", "keeps the same share of every layer, the largest |w| there"),
    (prune_random, Pruning, _OURS, "random mask", "keeps weights drawn at random over the network"),
    (prune_snip, Pruning, _LEE, "SNIP", "keeps the weights with the largest |w dL/dw|"),
    (prune_iterative, Iterative, _HAN, "retraining", "removes the smallest |w| in rounds, retrains between them"),
):
    PRUNERS[_run.__name__] = Linearizer(_run.__name__, _summary, _source, _kind, _run, WEIGHTS, STEPS[_step])
