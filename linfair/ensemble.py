"""Ensembles: networks of one shape, trained side by side as one batch.

The seeds of a small network are too little work, one by one, for any processor. An `Ensemble` stacks the weights of
equal networks along a leading members axis and runs them in one vectorised pass. Members share nothing: the gradient of
the sum of their losses is, for each member, the gradient of its own.
"""

import copy
from collections.abc import Sequence

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
        shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
        if any(other != shapes[0] for other in shapes):
            raise ValueError("networks of an ensemble must have the same structure")
        self.members = len(networks)
        self.network = copy.deepcopy(networks[0])
        tensors = _tensors(self.network)
        if len({id(value) for _, _, value in tensors}) < len(tensors):
            raise ValueError("modules of this network share a parameter (tied weights); an ensemble would untie them")
        for owner, name, value in tensors:
            own = [getattr(network.get_submodule(owner), name).detach() for network in networks]
            _set(self.network, owner, name, torch.stack(own), like=value)

    def forward(self, x: Tensor) -> Tensor:
        """Run every member on its own batch, x of shape (members, n, ...)."""
        if x.shape[0] != self.members:
            raise ValueError(f"{self.members} networks need x of shape ({self.members}, n, ...), got {tuple(x.shape)}")
        # tie_weights would swap the tensors of a module that has two names twice, and restore the wrong ones
        run = vmap(lambda w, b, x: functional_call(self.network, (w, b), (x,), tie_weights=False))
        return run(dict(self.network.named_parameters()), dict(self.network.named_buffers()), x)

    def member(self, index: int) -> nn.Module:
        """A copy of one network, on its own."""
        network = copy.deepcopy(self.network)
        for owner, name, value in _tensors(network):
            _set(network, owner, name, value.detach()[index].clone(), like=value)
        return network

    def networks(self) -> list[nn.Module]:
        """Copies of all networks."""
        return [self.member(index) for index in range(self.members)]


def member_of(model: nn.Module, index: int) -> nn.Module:
    """A copy of one member of an ensemble, or of a network on its own."""
    return model.member(index) if isinstance(model, Ensemble) else copy.deepcopy(model)


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
