"""Ensembles: networks of one shape, trained side by side as one batch; members share nothing."""

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


class Ensemble(nn.Module):
    """Equal networks as one module, (members, n, ...) -> (members, n, classes).

    `network` is a copy of the first, its parameters and buffers stacked along a leading axis of `members`. A ValueError
    says that there are none, that they differ in structure, or that modules of one share a parameter.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ValueError("an ensemble needs at least one network")
        shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in networks]
        if any(other != shapes[0] for other in shapes):
            raise ValueError("networks of an ensemble must have the same structure")
        self.members, self.network = len(networks), copy.deepcopy(networks[0])
        tensors = [_tensors(network) for network in (self.network, *networks)]
        if len(set(map(id, tensors[0]))) < len(tensors[0]):
            raise ValueError("modules of this network share a parameter (tied weights); an ensemble would untie them")
        for own, *theirs in zip(*tensors, strict=True):
            own.data = torch.stack([one.detach() for one in theirs])

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
        for one in _tensors(network):
            one.data = one.data[index].clone()
        return network

    def networks(self) -> list[nn.Module]:
        """Copies of all networks."""
        return [self.member(index) for index in range(self.members)]


class Isolation:
    """Keeps diverged members of an ensemble as they were after their last good epoch; the others train on alone."""

    def __init__(self, model: Ensemble) -> None:
        self.model = model
        self.epoch: list[int | None] = [None] * model.members  # in which each member diverged
        self._good = copy.deepcopy(model.state_dict())

    def update(self, epoch: int, failed: Collection[int]) -> list[int | None]:
        """Put the members that diverged, now or earlier, back; returns the epoch in which each did."""
        self.epoch = [epoch if when is None and m in failed else when for m, when in enumerate(self.epoch)]
        lost = [member for member, when in enumerate(self.epoch) if when is not None]
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                value[lost] = self._good[name][lost]
        self._good = copy.deepcopy(self.model.state_dict())
        return self.epoch


def member_of(model: nn.Module, index: int) -> nn.Module:
    """A copy of one member of an ensemble, or of a network on its own."""
    return model.member(index) if isinstance(model, Ensemble) else copy.deepcopy(model)


def _tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers, module by module."""
    held = [values for one in network.modules() for values in (one._parameters, one._buffers)]
    return [value for values in held for value in values.values() if value is not None]
