"""An ensemble against its networks one by one, in float64."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble
from linfair.models import build

MEMBERS = 3
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def gated_mlp(seed: int) -> nn.Module:
    network = gates.install(build("mlp", (5,), 3, width=6, seed=seed), (5,))
    generator = torch.Generator().manual_seed(seed)
    return gates.set_alphas(network, lambda _, alpha: torch.rand(alpha.shape, generator=generator))


def gated_resnet(seed: int) -> nn.Module:
    return gates.install(build("resnet18", (1, 8, 8), 3, width=2, seed=seed), (1, 8, 8))


class Shared(nn.Module):
    """One ReLU under two names: two sites of different size in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 4), nn.Linear(4, 6), nn.Linear(6, 3)
        self.first = self.second = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Call it under each name."""
        return self.three(self.second(self.two(self.first(self.one(x)))))


def gated_shared(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return gates.install(Shared(), (5,))


CASES: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda seed: build("mlp", (5,), 3, width=6, seed=seed), (5,)),
    "gated mlp": (gated_mlp, (5,)),
    "resnet18 with batch norm": (lambda seed: build("resnet18", (1, 8, 8), 3, width=2, seed=seed), (1, 8, 8)),
    "gated resnet18": (gated_resnet, (1, 8, 8)),
    "one ReLU under two names": (gated_shared, (5,)),
}
every_case = pytest.mark.parametrize("name", CASES)
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
}


def make(name: str) -> tuple[list[nn.Module], Tensor, Tensor]:
    factory, shape = CASES[name]
    networks = [factory(seed).double() for seed in range(MEMBERS)]
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(MEMBERS, 8, *shape, dtype=torch.float64, generator=generator)
    return networks, x, torch.randint(3, (MEMBERS, 8), generator=generator)


def losses(ensemble: Ensemble, x: Tensor, y: Tensor) -> Tensor:
    logits = ensemble(x)
    flat = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return flat.view(y.shape).mean(1)


def assert_same(ensemble: Ensemble, networks: list[nn.Module]) -> None:
    for index, network in enumerate(networks):
        ours = ensemble.member(index).state_dict()
        for key, value in network.state_dict().items():
            torch.testing.assert_close(ours[key], value, msg=lambda m, key=key: f"{key}: {m}", **TOLERANCE)


@every_case
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_forward_equals_the_networks_one_by_one(name: str, mode: str) -> None:
    networks, x, _ = make(name)
    ensemble = Ensemble(networks)
    for _ in range(2):
        expected = torch.stack([network.train(mode == "train")(one) for network, one in zip(networks, x, strict=True)])
        torch.testing.assert_close(ensemble.train(mode == "train")(x), expected, **TOLERANCE)
    assert_same(ensemble, networks)


@every_case
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_gradients_and_steps_equal_the_networks_one_by_one(name: str, optimizer: str) -> None:
    """Three steps: losses, gradients, weights, alphas and batch-norm statistics."""
    networks, x, y = make(name)
    ensemble = Ensemble(networks)
    together = OPTIMIZERS[optimizer](ensemble.parameters())
    alone = [OPTIMIZERS[optimizer](network.parameters()) for network in networks]
    for _ in range(3):
        together.zero_grad()
        loss = losses(ensemble, x, y)
        loss.sum().backward()
        gradients = {key: parameter.grad for key, parameter in ensemble.network.named_parameters()}
        together.step()
        for index, (network, step) in enumerate(zip(networks, alone, strict=True)):
            step.zero_grad()
            own = nn.functional.cross_entropy(network(x[index]), y[index])
            own.backward()
            torch.testing.assert_close(loss[index], own, **TOLERANCE)
            for key, parameter in network.named_parameters():
                torch.testing.assert_close(gradients[key][index], parameter.grad, **TOLERANCE)
            step.step()
        assert_same(ensemble, networks)


def test_members_share_nothing() -> None:
    """A change of one member's batch leaves the other members' outputs and gradients bit for bit."""
    networks, x, y = make("gated resnet18")
    found = []
    for factor in (1.0, -3.0):
        ensemble, inputs = Ensemble(networks), x.clone()
        inputs[1] *= factor
        loss = losses(ensemble, inputs, y)
        loss.sum().backward()
        found.append((loss.detach(), ensemble.network.stem[0].weight.grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
        assert not torch.equal(one[1], other[1])


@every_case
def test_member_and_networks_give_back_what_went_in(name: str) -> None:
    networks, x, _ = make(name)
    if gates.sites(networks[0]):
        gates.freeze(networks[0])
        for network in networks[1:]:
            gates.freeze(network)
    ensemble = Ensemble(networks)
    for network, back, one in zip(networks, ensemble.networks(), x, strict=True):
        assert repr(back) == repr(network)
        ours = back.state_dict()
        assert list(ours) == list(network.state_dict())
        assert all(torch.equal(ours[key], value) for key, value in network.state_dict().items())
        assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in network.parameters()]
        assert torch.equal(back.eval()(one), network.eval()(one))


def test_networks_and_members_are_copies() -> None:
    networks, x, _ = make("resnet18 with batch norm")
    before = [copy.deepcopy(network.state_dict()) for network in networks]
    ensemble = Ensemble(networks)
    kept = copy.deepcopy(ensemble.state_dict())
    for model in ensemble.networks():
        model(x[0])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    assert all(torch.equal(value, kept[key]) for key, value in ensemble.state_dict().items())
    ensemble(x)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.zero_()
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_wrong_networks_and_inputs_are_refused() -> None:
    networks, x, _ = make("mlp")
    with pytest.raises(ValueError, match="at least one network"):
        Ensemble([])
    with pytest.raises(ValueError, match="same structure"):
        Ensemble([networks[0], build("mlp", (5,), 3, width=7).double()])
    with pytest.raises(ValueError, match=r"x of shape \(3, n, \.\.\.\), got \(2, 8, 5\)"):
        Ensemble(networks)(x[:2])
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="tied"):
        Ensemble([tied, copy.deepcopy(tied)])
