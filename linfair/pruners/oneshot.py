"""One-shot pruners: score each weight of the trained network once, keep the best; retraining follows."""

from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.optim.swa_utils import update_bn

from linfair import weights
from linfair.data import GroupedData
from linfair.device import full_precision
from linfair.linearizers.oneshot import Scores, batches, even_units, one_shot, random_scores, top_units
from linfair.masks import Reduction
from linfair.training import supervised


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
            device = data.splits["train"].y.device
            update_bn((batch.x for batch in batches(data, self.batch_size)), network, device)
        return network.eval()


def magnitude_scores(network: nn.Module, data: GroupedData, seed: int, options: Pruning) -> Scores:
    """|w| of each weight."""
    return {site: weight.detach().abs().cpu() for site, (_, weight) in weights.switches(network).items()}


@full_precision()
def snip_scores(network: nn.Module, data: GroupedData, seed: int, options: Pruning) -> Scores:
    """|w dL/dw| of each weight, L the mean cross entropy over the training split, in evaluation mode.

    Lee, Ajanthan, Torr, SNIP, ICLR 2019, Eq. 4, here on the trained network.
    """
    n = len(data.splits["train"])
    for batch in batches(data, options.batch_size):
        (supervised(network, batch) * len(batch.y) / n).backward()
    found = weights.switches(network)
    scores = {site: (weight * weight.grad).detach().abs().cpu() for site, (_, weight) in found.items()}
    network.zero_grad(set_to_none=True)
    return scores


prune_magnitude = one_shot("prune_magnitude", magnitude_scores, partial(top_units, as_torch=True), Pruning)
prune_layerwise = one_shot("prune_layerwise", magnitude_scores, partial(even_units, as_torch=True), Pruning)
prune_random = one_shot("prune_random", random_scores, top_units, Pruning)
prune_snip = one_shot("prune_snip", snip_scores, top_units, Pruning)
