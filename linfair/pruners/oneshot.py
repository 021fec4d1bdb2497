"""One-shot pruners: score each weight of the trained network once, keep the best; retraining follows."""

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from linfair import weights
from linfair.data import GroupedData
from linfair.device import full_precision
from linfair.linearizers.oneshot import Scores, batches, even_units, one_shot, random_scores, top_units
from linfair.masks import Reduction
from linfair.training import Source, evenly, supervised


@dataclass(frozen=True)
class Pruning:
    """Options of the one-shot pruners.

    Attributes:
        everything: Prune biases, batch norm and all other parameters too, not only the weights of layers.
        reestimate: Compute batch norm's means and variances anew on the training split after pruning. Without it, and
            without retraining, they are those of the network before.
        batch_size: Images of a batch while scoring and re-estimating; it changes scores by rounding only.
    """

    everything: bool = False
    reestimate: bool = False
    batch_size: int = 512

    @property
    def reduction(self) -> Reduction:
        """What is removed."""
        return weights.PARAMETERS if self.everything else weights.WEIGHTS

    def ready(self, network: nn.Module, data: GroupedData) -> nn.Module:
        """The pruned network with batch norm re-estimated, if that is asked for."""
        if self.reestimate:
            source = Source(data, "train", network)  # torch weighs all batches alike, so none may be small
            parts = evenly(torch.arange(source.n, device=source.y.device), self.batch_size)
            update_bn((source.take(part.unsqueeze(0)).x for part in parts), network, source.y.device)
        return network.eval()


def magnitude_scores(network: nn.Module, data: GroupedData, seed: int, options: Pruning) -> Scores:
    """|w| of each weight."""
    return {site: weight.detach().abs().cpu() for site, (_, weight) in weights.switches(network).items()}


@full_precision()
def snip_scores(network: nn.Module, data: GroupedData, seed: int, options: Pruning) -> Scores:
    """|w dL/dw| of each weight, L the mean cross entropy over the training split, in evaluation mode.

    Lee, Ajanthan, Torr, SNIP, ICLR 2019, Eq. 4, here on the trained network.
    """
    network, n = copy.deepcopy(network).requires_grad_(), len(data.splits["train"])  # frozen weights have scores, too
    found = {site: weight for site, (_, weight) in weights.switches(network).items()}
    for weight in found.values():
        weight.grad = torch.zeros_like(weight)  # of a weight that does not reach the scores, too
    for batch in batches(network, data, options.batch_size):
        (supervised(network, batch) * len(batch.y) / n).backward()
    return {site: (weight * weight.grad).detach().abs().cpu() for site, weight in found.items()}


prune_magnitude = one_shot("prune_magnitude", magnitude_scores, partial(top_units, as_torch=True), Pruning)
prune_layerwise = one_shot("prune_layerwise", magnitude_scores, partial(even_units, as_torch=True), Pruning)
prune_random = one_shot("prune_random", random_scores, top_units, Pruning)
prune_snip = one_shot("prune_snip", snip_scores, top_units, Pruning)
