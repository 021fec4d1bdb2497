"""Reductions: what is removed from a trained network, so that whatever follows need not know what it is.

A reduction puts *switches* into a network, one for each unit that can be removed, sets them to a mask, and counts what
is left. `RELUS` is the one of this package: a unit is a scalar ReLU, its switch a gate. Fine-tuning, the control,
studies and audits ask the reduction of a record; another kind is another `Reduction`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from linfair import gates
from linfair.ensemble import map_networks
from linfair.masks import Mask, apply_mask, masks_of


@dataclass(frozen=True)
class Reduction:
    """One kind of thing to remove.

    Attributes:
        name: Its name, `relus`.
        unit: What one unit is called, `ReLU`.
        switched: Network and the shape of one input -> a copy that computes the same, with a switch at every unit.
        apply: Network with switches and its mask (an ensemble and one mask for each member) -> the same network, its
            switches set to the mask and out of training.
        masks: Network (or ensemble) with switches -> the present mask of each member.
    """

    name: str
    unit: str
    switched: Callable[[nn.Module, tuple[int, ...]], nn.Module]
    apply: Callable[[nn.Module, Mask | list[Mask]], nn.Module]
    masks: Callable[[nn.Module], list[Mask]]

    def install(self, model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
        """A copy of a network, or of each network of an ensemble, with every switch on.

        >>> model = RELUS.install(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), (2,))
        >>> RELUS.kept(model), RELUS.total(model)
        ((3,), 3)
        """
        return map_networks(lambda network: self.switched(network, input_shape), model)

    def fixed(self, model: nn.Module) -> nn.Module:
        """The same network, its switches as they are and out of training."""
        return self.apply(model, self.masks(model))

    def kept(self, model: nn.Module) -> tuple[int, ...]:
        """Units that each member keeps."""
        return tuple(mask.kept for mask in self.masks(model))

    def total(self, model: nn.Module) -> int:
        """Units of one network."""
        return self.masks(model)[0].total


RELUS = Reduction("relus", "ReLU", gates.install, apply_mask, masks_of)
"""A ReLU, by its gate: see `linfair.gates`."""
