"""Gates belong to call sites: the oracle is the network itself, or the same network with one ReLU for each call."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from linfair import gates
from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.gates import GateError, install
from linfair.linearizers import LINEARIZERS, linearize
from linfair.masks import Mask, apply_mask, masks_of
from linfair.study.recipes import recipe
from linfair.training import Schedule


class Mixed(nn.Module):
    """One `nn.ReLU` at three sites and `F.relu` at a fourth: 288 + 96 + 32 + 23 = 439 units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 6, 3, stride=3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(96, 32), nn.Linear(32, 23), nn.Linear(23, 10)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))

    def separate(self, alphas: list[Tensor], x: Tensor) -> Tensor:
        """The same with four alphas, by the formula."""
        layers = [self.conv1, self.conv2, lambda v: self.fc1(v.flatten(1)), self.fc2]
        for layer, alpha in zip(layers, alphas, strict=True):
            x = layer(x)
            x = alpha * x.relu() + (1 - alpha) * x
        return self.fc3(x)


def mixed(seed: int = 0) -> tuple[Mixed, nn.Module]:
    """The network and its copy with gates at random alphas."""
    torch.manual_seed(seed)
    network = Mixed()
    gated = install(network, (1, 12, 12))
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha))
    return network, gated


def test_a_shared_relu_and_a_functional_one_have_a_gate_for_each_call() -> None:
    network, gated = mixed()
    assert gates.total_units(gated) == 439
    names = ["relu.calls.0", "relu.calls.1", "relu.calls.2", "functional_relu.calls.0"]
    assert list(gates.sites(gated)) == names
    x = torch.randn(5, 1, 12, 12)
    expected = network.separate([gates.sites(gated)[name].alpha for name in names], x)
    torch.testing.assert_close(gated(x), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_of_a_gated_network_is_a_network_of_its_own(copied: object) -> None:
    _, gated = mixed()
    twin, x = copied(copied(gated)), torch.randn(5, 1, 12, 12)
    expected = gated(x)
    assert torch.equal(twin(x), expected)
    gates.set_alphas(twin, lambda _, alpha: torch.zeros_like(alpha))
    assert torch.equal(gated(x), expected)
    assert not torch.equal(twin(x), expected)
    assert torch.equal(twin(x), copy.deepcopy(twin)(x))


def test_masks_and_weights_of_shared_and_functional_relus_are_saved_and_loaded(tmp_path: Path) -> None:
    _, gated = mixed()
    gates.set_alphas(gated, lambda _, alpha: torch.randint_like(alpha, 2))
    (mask,) = masks_of(gated)
    fresh = mixed(1)[1]
    fresh.load_state_dict(gated.state_dict())
    apply_mask(fresh, Mask.load(mask.save(tmp_path / "mask")))
    x = torch.randn(5, 1, 12, 12)
    assert torch.equal(fresh(x), gated(x))


def test_an_ensemble_of_shared_and_functional_relus_equals_its_members() -> None:
    networks = [mixed(seed)[1] for seed in (0, 1)]
    x = torch.randn(2, 5, 1, 12, 12)
    torch.testing.assert_close(Ensemble(networks)(x), torch.stack([n(one) for n, one in zip(networks, x, strict=True)]))
    member = Ensemble(networks).member(1)
    assert torch.equal(member(x[1]), networks[1](x[1]))


@pytest.mark.parametrize("method", LINEARIZERS)
def test_a_shared_relu_and_a_functional_one_linearize_under_every_method(method: str, digits: GroupedData) -> None:
    torch.manual_seed(0)
    options = recipe("resnet18", "smoke").method(method)
    (one,) = linearize(
        Mixed(), digits, method=method, budgets=[0.5], options=options, finetuning=Schedule(epochs=1), progress=False
    )
    assert one.mask.total == 439
    assert one.kept[0] < 439


# Skipped calls


class Residual(nn.Module):
    """A residual block with a ReLU that was given to it, skipped in training with some probability."""

    def __init__(self, relu: nn.Module, skipped: float) -> None:
        super().__init__()
        self.linear, self.relu, self.skipped = nn.Linear(6, 6), relu, skipped

    def forward(self, x: Tensor) -> Tensor:
        """Run it, or not."""
        if self.training and torch.rand(()) < self.skipped:
            return x
        return x + self.relu(self.linear(x))


def blocks(*skipped: float) -> nn.Module:
    torch.manual_seed(2)
    relu = nn.ReLU()
    return nn.Sequential(*(Residual(relu, chance) for chance in skipped), nn.Linear(6, 2))


def by_hand(gated: nn.Module, x: Tensor, run: list[int]) -> Tensor:
    """The blocks of `run`, each with its own alphas."""
    for number in run:
        z = gated[number].linear(x)
        alpha = gates.sites(gated)[f"{number}.relu"].alpha
        x = x + alpha * z.relu() + (1 - alpha) * z
    return gated[-1](x)


@pytest.mark.parametrize("skipped", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1.0)])
def test_a_block_that_training_skips_leaves_the_others_their_own_gates(skipped: tuple[float, ...]) -> None:
    """Three residual blocks with one ReLU object; the oracle is the sum written out."""
    gated = install(blocks(*skipped), (6,))
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha))
    x = torch.randn(4, 6)
    torch.testing.assert_close(gated.eval()(x), by_hand(gated, x, [0, 1, 2]))
    run = [number for number, chance in enumerate(skipped) if chance == 0]
    torch.testing.assert_close(gated.train()(x), by_hand(gated, x, run))


class Skips(nn.Module):
    """One ReLU called on three lines, or in a loop; `without` is left out, `order` changes the loop's."""

    def __init__(self, loop: bool) -> None:
        super().__init__()
        self.layers, self.relu, self.loop = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), nn.ReLU(), loop
        self.without: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers."""
        if self.loop:
            for number, layer in enumerate(self.layers):
                x = x if number == self.without else self.relu(layer(x))
            return x
        if self.without != 0:
            x = self.relu(self.layers[0](x))
        if self.without != 1:
            x = self.relu(self.layers[1](x))
        return self.relu(self.layers[2](x)) if self.without != 2 else x


@pytest.mark.parametrize("without", [0, 1, 2])
def test_a_call_that_is_skipped_leaves_the_others_their_own_gates(without: int) -> None:
    torch.manual_seed(0)
    gated, x = install(Skips(loop=False), (4,)), torch.randn(5, 4)
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha))
    gated.without, expected = without, x
    for number, layer in enumerate(gated.layers):
        if number != without:
            z, alpha = layer(expected), gated.relu.calls[number].alpha
            expected = alpha * z.relu() + (1 - alpha) * z
    torch.testing.assert_close(gated(x), expected)


def test_a_loop_that_skips_a_call_is_refused_and_the_next_pass_is_right() -> None:
    gated, x = install(Skips(loop=True), (4,)), torch.randn(5, 4)
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha))
    expected = gated(x)
    gated.without = 1
    with pytest.raises(
        GateError, match=r"Skips was called 3 times when gates were installed, now 2 times.*own nn\.ReLU"
    ):
        gated(x)
    gated.without = None
    assert torch.equal(gated(x), expected)


def test_a_relu_that_training_calls_more_often_is_refused() -> None:
    class More(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.relu = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.linear(x))
            return self.relu(self.linear(x)) if self.training else x

    with pytest.raises(GateError, match="relu is called 1 times in evaluation mode and 2 times in training mode"):
        install(More(), (4,))


def test_a_functional_relu_that_training_calls_more_often_is_refused() -> None:
    class More(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(super().forward(x))
            return F.relu(x - 1) if self.training else x

    with pytest.raises(GateError, match="0.functional_relu is called 1 times in evaluation mode and 2 times"):
        install(nn.Sequential(More(4, 4)), (4,))


# Parts of a network


def test_forward_and_parts_of_a_gated_network_can_be_called_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Mixed(), nn.Linear(10, 2))
    gated, x = install(network, (1, 12, 12)), torch.randn(3, 1, 12, 12)
    for _ in range(2):
        assert torch.equal(gated.forward(x), network(x))
        assert torch.equal(gated[0](x), network[0](x))
        assert torch.equal(gated[0].forward(x), network[0](x))


def test_a_part_whose_calls_cannot_be_told_apart_says_what_to_call() -> None:
    """One block, its weights too, at two places: its ReLU has two gates, and alone it does not say which is meant."""
    block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    network = nn.Sequential(block, nn.Linear(4, 4), block)
    gated, x = install(network, (4,)), torch.randn(3, 4)
    assert torch.equal(gated(x), network(x))
    with pytest.raises(GateError, match="calls that Sequential makes, and it is not running: call Sequential"):
        gated[0](x)


class Encoder(nn.Module):
    """A forward made of a method, which users call alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def encode(self, x: Tensor) -> Tensor:
        """The features."""
        return F.relu(self.linear(x))

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.head(self.encode(x))


def test_a_method_does_not_pass_by_the_gates_of_its_functional_relus() -> None:
    network, x = Encoder(), torch.randn(3, 4)
    gated = install(network, (4,))
    assert torch.equal(gated(x), network(x))
    with pytest.raises(GateError, match="call Encoder, or a module that holds it"):
        gated.encode(x)


# Networks that come as something else than Python modules


def test_a_network_traced_by_fx_has_a_gate_for_each_call_through_copies() -> None:
    """One `nn.ReLU` at three places and a function; the oracle is the network that was traced."""
    network = Mixed()
    gated, x = install(fx.symbolic_trace(network), (1, 12, 12)), torch.randn(3, 1, 12, 12)
    assert gates.total_units(gated) == 439
    assert torch.equal(gated(x), network(x))
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha))
    assert torch.equal(copy.deepcopy(gated)(x), gated(x))
    inner = install(nn.Sequential(fx.symbolic_trace(network), nn.Linear(10, 2)), (1, 12, 12))
    assert gates.total_units(inner) == 439


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_torchscript_is_refused_by_name() -> None:
    with pytest.raises(GateError, match="1 is a TorchScript module; give the Python module"):
        install(nn.Sequential(nn.Linear(4, 4), torch.jit.trace(nn.ReLU(), torch.zeros(2, 4))), (4,))


def test_gates_in_a_transformer_layer_are_used_without_gradients_too() -> None:
    """Without gradients torch would run the layer as one operator, past the gates."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation=nn.ReLU())
    gated, x = install(nn.Sequential(layer, nn.Linear(4, 2)).eval(), (5, 4)), torch.randn(3, 5, 4)
    gates.set_alphas(gated, lambda _, alpha: torch.zeros_like(alpha))
    expected = gated(x)
    with torch.no_grad():
        torch.testing.assert_close(gated(x), expected)


# Training mode


class Frozen(nn.Module):
    """A batch norm that `train()` leaves in evaluation mode, and functional ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.head = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

    def train(self, mode: bool = True) -> "Frozen":
        """Leave the batch norm in evaluation mode."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.head(F.relu(self.norm(self.linear(x))))


def test_a_train_method_that_keeps_batch_norm_in_evaluation_mode_stays() -> None:
    gated = install(Frozen(), (5,))
    for one in (gated, copy.deepcopy(gated)):
        one.train()(3 + torch.randn(8, 5))
        assert torch.equal(one.norm.running_mean, torch.zeros(6))


def test_hooks_stay() -> None:
    seen = []
    network = nn.Sequential(Frozen(), nn.Linear(2, 2))
    network[0].register_forward_hook(lambda *_: seen.append("called"))
    gated = install(network, (5,))
    seen.clear()
    gated(torch.randn(2, 5))
    assert seen == ["called"]
