"""Weight switches: the units of pruning are a network's weights, as those of linearization are its ReLUs.

A switched weight is used as `kept * weight`, with one bit for each entry, so that one that is not kept is 0 whatever an
optimizer does, and has no gradient. Sites are called as their parameters, `conv1.weight`. Switches are
`torch.nn.utils.parametrize`'s; unlike what `torch.nn.utils.prune` makes, a network with switches can be copied.
"""

import copy
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from linfair.ensemble import Ensemble
from linfair.gates import GateError, ReLUGate
from linfair.masks import RELUS, Mask, Reduction, check_fit, structure_hash

MATRICES = (_ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)
"""Layers whose weights are pruned by default: parameters of at least two axes."""


class Switch(nn.Module):
    """A weight of which only some entries are kept."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, 0 where it is not kept."""
        return weight * self.kept


def install(model: nn.Module, input_shape: tuple[int, ...] = (), *, everything: bool = False) -> nn.Module:
    """Copy a network and put a switch at every weight of its convolutions and linear layers, every one kept.

    With `everything` all other parameters get switches too, gates excepted. A weight that several modules share is one
    site, under its first name. A GateError refuses a network that has switches, or nothing that could get one.
    """
    switched, shared = copy.deepcopy(model), {}
    if switches(switched):
        raise GateError("this network has weight switches already; install them on the original network")
    layers = [one for one in switched.modules() if not (isinstance(one, ReLUGate) or parametrize.is_parametrized(one))]
    held = [(one, value) for one in layers for value in one._parameters.values() if value is not None]
    units = {id(value) for one, value in held if everything or (value.ndim > 1 and isinstance(one, MATRICES))}
    for module in layers:
        for name, value in list(module._parameters.items()):
            if id(value) in units:
                switch = shared.setdefault(id(value), Switch(value))
                parametrize.register_parametrization(module, name, switch, unsafe=True)
    if not shared:
        raise GateError(f"{type(model).__name__} has no weight of a convolution or linear layer: nothing to prune")
    return switched


def switches(model: nn.Module) -> dict[str, tuple[Switch, nn.Parameter]]:
    """The switch and the weight of each site by name, in the order of the modules; of an ensemble with its members."""
    found: dict[int, tuple[str, tuple[Switch, nn.Parameter]]] = {}
    for path, module in (model.network if isinstance(model, Ensemble) else model).named_modules():
        for name, one in module.parametrizations.items() if _switched(module) else ():
            found.setdefault(id(one[0]), (f"{path}.{name}".lstrip("."), (one[0], one.original)))
    return dict(found.values())


def _switched(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module) and all(
        isinstance(one[0], Switch) for one in module.parametrizations.values()
    )


def masks_of(model: nn.Module) -> list[Mask]:
    """The present mask of each member; a plain network is one member."""
    if not (found := switches(model)):
        raise GateError(f"{type(model).__name__} has no weight switches: call linfair.weights.install first")
    structure, stacked = structure_hash(model, "weight"), isinstance(model, Ensemble)
    members = model.members if stacked else 1
    kept = {site: switch.kept.cpu() if stacked else switch.kept.cpu()[None] for site, (switch, _) in found.items()}
    return [Mask({site: unit[m] for site, unit in kept.items()}, structure, "weight") for m in range(members)]


def apply_mask(model: nn.Module, mask: Mask | list[Mask]) -> nn.Module:
    """Set a network's weight switches to a mask (one per member for an ensemble); returns the network.

    Weights that are not kept become 0 in the parameters too. A GateError names the sites of a mask that does not fit.
    """
    masks = [mask] if isinstance(mask, Mask) else list(mask)
    check_fit(masks, masks_of(model))
    with torch.no_grad():
        for site, (switch, weight) in switches(model).items():
            switch.kept.copy_(torch.stack([one.units[site] for one in masks]).view(switch.kept.shape))
            weight.mul_(switch.kept)
    return model


def masked(model: nn.Module, input_shape: tuple[int, ...], mask: Mask) -> nn.Module:
    """A copy of a network with the switches that a mask speaks of, gates or those of weights, set to it."""
    if mask.kind == "relu":
        return RELUS.apply(RELUS.install(model, input_shape), mask)
    switched = install(model)
    return apply_mask(install(model, everything=True) if set(mask.units) > set(switches(switched)) else switched, mask)


def plain(model: nn.Module) -> nn.Module:
    """A copy without switches, its weights 0 where they were not kept; one that layers share is shared again."""
    network, made = copy.deepcopy(model), {}
    for module in [one for one in network.modules() if _switched(one)]:
        values = {name: (one.original, getattr(module, name).detach()) for name, one in module.parametrizations.items()}
        # not remove_parametrizations, which would break all copies of this network: they share one class
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
        rest = {name: module._parameters.pop(name) for name in list(module._parameters)}
        for name, (own, value) in values.items():
            module.register_parameter(name, made.setdefault(own, nn.Parameter(value, own.requires_grad)))
        module._parameters |= rest
    return network


def named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters as they are used, under the names that they have without switches."""
    found = {id(weight): (site, switch) for site, (switch, weight) in switches(model).items()}
    for name, value in model.named_parameters():
        site, switch = found.get(id(value), (name, None))
        yield site, value if switch is None else switch(value)


def removed(model: nn.Module, original: nn.Module) -> Reduction:
    """What a network lost against its original: weights where it has switches that the original lacks, else ReLUs."""
    return WEIGHTS if switches(model) and not switches(original) else RELUS


WEIGHTS = Reduction(install, apply_mask, masks_of, "weight")  #: A unit is a weight of a convolution or linear layer
PARAMETERS = Reduction(partial(install, everything=True), apply_mask, masks_of, "weight")
"""A unit is any parameter, biases and batch norm included."""
