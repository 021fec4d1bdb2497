"""Ensembles: networks of one shape, trained side by side as one batch.

The seeds of a small network are too little work, one by one, for any processor. An `Ensemble` stacks the weights of
equal networks along a leading members axis and runs them in one vectorised pass. Members share nothing: the gradient of
the sum of their losses is, for each member, the gradient of its own.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


class Ensemble(nn.Module):
    """Equal networks as one module, (members, n, ...) -> (members, n, classes).

    Args:
        networks: Networks of the same structure; they are copied.

    Attributes:
        network: The structure, its parameters and buffers stacked along a leading members axis.
        members: Number of networks.

    Raises:
        ValueError: If there are no networks, they differ in structure, or modules of one share a parameter.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ValueError("an ensemble needs at least one network")
        states = [network.state_dict() for network in networks]
        shapes = {name: value.shape for name, value in states[0].items()}
        for state in states[1:]:
            if {name: value.shape for name, value in state.items()} != shapes:
                raise ValueError("networks of an ensemble must have the same structure")
        tensors = [value for _, _, value in _tensors(networks[0])]
        if len({id(value) for value in tensors}) < len(tensors):
            raise ValueError("modules of this network share a parameter (tied weights); an ensemble would untie them")
        self.members = len(networks)
        self.network = copy.deepcopy(networks[0])
        for owner, name, value in _tensors(self.network):
            own = [getattr(network.get_submodule(owner), name).detach() for network in networks]
            _set(self.network, owner, name, torch.stack(own), like=value)

    def forward(self, x: Tensor) -> Tensor:
        """Run every member on its own batch, x of shape (members, n, ...)."""
        if x.shape[0] != self.members:
            raise ValueError(f"{self.members} networks need x of shape ({self.members}, n, ...), got {tuple(x.shape)}")
        state = dict(self.network.named_parameters()), dict(self.network.named_buffers())

        def one_member(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            # tie_weights would swap the tensors of a module that has two names twice, and restore the wrong ones
            return functional_call(self.network, (parameters, buffers), (batch,), tie_weights=False)

        return vmap(one_member)(*state, x)

    def member(self, index: int) -> nn.Module:
        """A copy of one network, on its own."""
        network = copy.deepcopy(self.network)
        for owner, name, value in list(_tensors(network)):
            _set(network, owner, name, value.detach()[index].clone(), like=value)
        return network

    def networks(self) -> list[nn.Module]:
        """Copies of all networks."""
        return [self.member(index) for index in range(self.members)]


def member_of(model: nn.Module, index: int) -> nn.Module:
    """A copy of one member of an ensemble, or of a network on its own."""
    return model.member(index) if isinstance(model, Ensemble) else copy.deepcopy(model)


def map_networks(function: Callable[[nn.Module], nn.Module], model: nn.Module) -> nn.Module:
    """Apply a function to a network, or to each network of an ensemble."""
    if isinstance(model, Ensemble):
        return Ensemble([function(network) for network in model.networks()])
    return function(model)


def _tensors(network: nn.Module) -> list[tuple[str, str, Tensor]]:
    """Parameters and buffers: the module's name, their own and the tensor."""
    places = [(owner, held) for owner, one in network.named_modules() for held in (one._parameters, one._buffers)]
    return [(owner, name, value) for owner, held in places for name, value in held.items() if value is not None]


def _set(network: nn.Module, owner: str, name: str, value: Tensor, *, like: Tensor) -> None:
    module = network.get_submodule(owner)
    if isinstance(like, nn.Parameter):
        module._parameters[name] = nn.Parameter(value, requires_grad=like.requires_grad)
    else:
        module._buffers[name] = value
