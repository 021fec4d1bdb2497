"""Functional ReLUs become sites: the oracles are the same network with modules, and the network itself."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.functional import watch
from linfair.gates import GateError, install
from linfair.linearizers import OneShot, linearize
from linfair.training import Schedule


class Spelled(nn.Module):
    """Two convolutions and two linear layers; each activation spelled as given."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, stride=2)
        self.fc1, self.drop, self.fc2 = nn.Linear(4 * 4 * 4, 6), nn.Dropout(0.3), nn.Linear(6, 2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        x = self.act(self.norm(self.conv1(x)))
        x = self.act(self.conv2(x))
        return self.fc2(self.drop(self.act(self.fc1(x.view(x.size(0), -1)))))


class Modules(Spelled):
    """The same with one `nn.ReLU` a call, written by hand."""

    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        x = self.relus[0](self.norm(self.conv1(x)))
        x = self.relus[1](self.conv2(x))
        return self.fc2(self.drop(self.relus[2](self.fc1(x.view(x.size(0), -1)))))


class Block(nn.Module):
    """A user's own residual block, with a functional ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        return x + F.relu(self.linear(x))


class Nested(nn.Module):
    """One block at two places, another in a list, and a ReLU module among the functional ones."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), nn.Sequential(Block(), nn.Linear(5, 5), nn.ReLU())])
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Run the first block, the list, the first block again."""
        for block in self.blocks:
            x = block(x)
        return self.head(self.blocks[0](x))


SPELLINGS = {
    "F.relu": F.relu,
    "F.relu with a keyword": lambda x: F.relu(input=x),
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu with a keyword": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "x.relu": lambda x: x.relu(),
    "x.relu_": lambda x: x.relu_(),
}
SHAPES = [(3, 10, 10), (4, 4, 4), (6,)]


def spelled(act: Callable[[Tensor], Tensor] = F.relu) -> nn.Module:
    torch.manual_seed(4)
    network = Spelled(act)
    network(1 + 2 * torch.randn(20, 1, 12, 12))
    return network.eval()


def inputs(n: int = 5) -> Tensor:
    return torch.randn(n, 1, 12, 12, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_call_becomes_a_site_and_the_function_stays(spelling: str) -> None:
    """However it is spelled: the same outputs bit for bit, the shapes of the calls in order, no ReLU left over."""
    network = spelled(SPELLINGS[spelling])
    gated = install(network, (1, 12, 12))
    assert torch.equal(gated(inputs()), network(inputs()))
    assert [tuple(gate.alpha.shape) for gate in gates.sites(gated).values()] == SHAPES
    left = watch(gated, (1, 12, 12))
    assert not left.hidden
    assert not left.calls


def test_gates_of_functional_relus_equal_those_of_modules_at_random_alphas() -> None:
    """Same weights, and alphas by position: outputs and all gradients agree with the network written with modules."""
    functional, modules = spelled(), Modules().eval()
    modules.load_state_dict(functional.state_dict())
    pair = [install(network, (1, 12, 12)) for network in (functional, modules)]
    for gated in pair:
        generator = torch.Generator().manual_seed(5)
        for gate in gates.sites(gated).values():
            gate.alpha.data = torch.rand(gate.alpha.shape, generator=generator)
        gated(inputs()).square().sum().backward()
    assert torch.equal(pair[0](inputs()), pair[1](inputs()))
    assert not torch.allclose(pair[0](inputs()), functional(inputs()))
    for ours, theirs in zip(gates.sites(pair[0]).values(), gates.sites(pair[1]).values(), strict=True):
        assert torch.equal(ours.alpha.grad, theirs.alpha.grad)
    weights = dict(pair[1].named_parameters())
    shared = [name for name, _ in functional.named_parameters()]
    assert all(torch.equal(pair[0].get_parameter(name).grad, weights[name].grad) for name in shared)


def test_a_function_called_at_two_places_has_two_masks() -> None:
    """Only the second call is linearized; the oracle is the forward pass written out."""
    network = spelled()
    gated = install(network, (1, 12, 12))
    list(gates.sites(gated).values())[1].alpha.data.zero_()
    x = network.conv2(torch.relu(network.norm(network.conv1(inputs()))))
    assert torch.equal(gated(inputs()), network.fc2(torch.relu(network.fc1(x.flatten(1)))))


def test_nested_user_modules_have_a_site_for_each_call_and_keep_their_parameters_names() -> None:
    torch.manual_seed(6)
    network, x = Nested(), torch.randn(7, 5)
    gated = install(network, (5,))
    assert torch.equal(gated(x), network(x))
    assert [tuple(gate.alpha.shape) for gate in gates.sites(gated).values()] == [(5,)] * 4
    names = {name for name, _ in gated.named_parameters() if not name.endswith("alpha")}
    assert names == {name for name, _ in network.named_parameters()}


def test_classes_methods_and_attributes_stay() -> None:
    network = spelled()
    network.note = ["kept"]
    gated = install(network, (1, 12, 12))
    assert isinstance(gated, Spelled)
    assert (type(gated).__name__, gated.note) == ("Spelled", ["kept"])
    assert type(install(Modules(), (1, 12, 12))) is Modules


def test_the_original_is_left_as_it_is() -> None:
    network = spelled()
    network.train()
    before = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    printed, state = repr(network), torch.get_rng_state()
    gated = install(network, (1, 12, 12))
    for parameter in gated.parameters():
        parameter.data.add_(1)
    assert {name: value.numpy().tobytes() for name, value in network.state_dict().items()} == before
    assert repr(network) == printed
    assert torch.equal(torch.get_rng_state(), state)
    assert not gates.sites(network)


@pytest.mark.parametrize("training", [True, False])
def test_each_modules_mode_is_restored(training: bool) -> None:
    """The network in either mode, its batch norm in the other."""
    network = spelled().train(training)
    network.norm.train(not training)
    gated = install(network, (1, 12, 12))
    for one in (network, gated):
        assert [one.training, one.drop.training, one.norm.training] == [training, training, not training]


def test_modes_still_switch() -> None:
    """Dropout draws in training mode only, batch norm moves its statistics in training mode only."""
    gated = install(spelled(), (1, 12, 12))
    assert torch.equal(gated.eval()(inputs()), gated(inputs()))
    before = gated.norm.running_mean.clone()
    gated.train()
    assert not torch.equal(gated(inputs()), gated(inputs()))
    assert not torch.equal(gated.norm.running_mean, before)


def test_copies_state_dicts_and_ensembles_compute_the_same() -> None:
    networks = [spelled() for _ in range(2)]
    networks[1].fc2.weight.data.neg_()
    gated = [install(network, (1, 12, 12)) for network in networks]
    generator = torch.Generator().manual_seed(5)
    for one in gated:
        gates.set_alphas(one, lambda _, alpha: torch.rand(alpha.shape, generator=generator))
    fresh = install(spelled(), (1, 12, 12))
    fresh.load_state_dict(gated[1].state_dict())
    assert torch.equal(fresh(inputs()), gated[1](inputs()))
    assert torch.equal(copy.deepcopy(gated[0])(inputs()), gated[0](inputs()))
    expected = torch.stack([one(inputs()) for one in gated])
    torch.testing.assert_close(Ensemble(gated)(torch.stack([inputs()] * 2)), expected)


def test_a_network_with_functional_relus_is_linearized_in_one_call(digits: GroupedData) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Spelled(F.relu), nn.Linear(2, 10)).eval()
    (one,) = linearize(
        network,
        digits,
        method="uniform",
        budgets=[0.25],
        options=OneShot(),
        finetuning=Schedule(epochs=1),
        progress=False,
    )
    assert one.kept == (round(0.25 * (300 + 64 + 6)),)


# What depends on the mode, or on the input


class Branching(Block):
    """Its control flow depends on the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Branch on a value."""
        x = F.relu(self.linear(x))
        return x if x.sum() > 0 else -x


class ModeInFunction(Block):
    """Dropout as a function, with the training flag as its argument."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop half of it in training mode."""
        return F.dropout(F.relu(self.linear(x)), training=self.training)


class ModeInBranch(Block):
    """A forward that does more in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Add noise in training mode."""
        x = F.relu(self.linear(x))
        if self.training:
            x = x + torch.randn_like(x)
        return x


class ModeAtTheEnd(Block):
    """A forward that does less in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve it in evaluation mode."""
        x = F.relu(self.linear(x))
        return x if self.training else x / 2


@pytest.mark.parametrize("block", [Branching, ModeInFunction, ModeInBranch, ModeAtTheEnd])
def test_what_a_forward_does_by_mode_or_by_input_stays(block: type[nn.Module]) -> None:
    """The oracle is the network itself, with the same random numbers, in both modes."""
    torch.manual_seed(3)
    network, x = nn.Sequential(nn.Linear(5, 5), nn.ModuleDict({"inner": block()})["inner"]), torch.randn(6, 5)
    gated = install(network, (5,))
    for training in (True, False):
        for sign in (1, -1):
            found = []
            for one in (network, gated):
                torch.manual_seed(1)
                found.append(one.train(training)(sign * x))
            assert torch.equal(*found)


def test_dropout_that_is_always_on_is_no_question_of_mode() -> None:
    class Always(Block):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(F.relu(self.linear(x)), 0.5, True)

    network, x = nn.Sequential(Always(), nn.Linear(5, 5)), torch.randn(4, 5)
    gated = install(network, (5,))
    found = []
    for one in (network, gated):
        torch.manual_seed(1)
        found.append(one(x))
    assert torch.equal(*found)


# What cannot be gated


class Capped(Block):
    """A functional ReLU6."""

    def forward(self, x: Tensor) -> Tensor:
        """Cap the block's output."""
        return F.relu6(self.linear(x))


@pytest.mark.parametrize("layer", [nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(0.0, 6.0), Capped()])
def test_a_relu6_is_refused_and_its_layer_named(layer: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 5), layer), nn.Linear(5, 2))
    with pytest.raises(GateError, match=r"2\.1 computes a ReLU6.*replace it by nn\.ReLU"):
        install(network, (5,))


def test_other_clamps_are_not_taken_for_a_relu6() -> None:
    network = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Hardtanh(-1.0, 1.0))
    assert gates.total_units(install(network, (5,))) == 5


@pytest.mark.parametrize(
    "layer",
    [
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True),
    ],
    ids=["norm last", "norm first"],
)
def test_relus_inside_torchs_own_layers_are_refused_and_the_layer_named(layer: nn.Module) -> None:
    """In evaluation mode torch may run such a layer as one fused operation, in which no ReLU can be seen."""
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), layer).eval()
    with pytest.raises(GateError, match="2 computes ReLUs inside torch's own code"):
        install(network, (3, 4))


class Reuses(nn.Module):
    """A pre-activation block whose ReLU works in place and whose shortcut starts before it: it adds relu(x), not x."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(5, 5), nn.Linear(5, 5), act

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        x = self.one(x)
        return self.two(self.act(x)) + x


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), F.relu_, lambda x: x.relu_()], ids=["module", "F", "method"])
def test_an_in_place_relu_whose_input_is_used_again_is_refused(act: Callable[[Tensor], Tensor]) -> None:
    """A gate does not overwrite its input: with it the shortcut would carry x, another function."""
    torch.manual_seed(0)
    with pytest.raises(GateError, match="Reuses with gates would compute something else: .*in-place"):
        install(Reuses(act), (5,))
    assert gates.total_units(install(Reuses(nn.ReLU()), (5,))) == 5


def test_a_subclass_that_is_no_relu_is_refused() -> None:
    class Doubled(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(GateError, match=r"subclass of nn\.ReLU"):
        install(nn.Sequential(nn.Linear(5, 5), Doubled()), (5,))
