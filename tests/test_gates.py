"""Gates against finite differences, a second formula, and the network they were installed in."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble
from linfair.gates import GateError, install
from linfair.models import build


class Repeated(nn.Module):
    """One in-place ReLU called three times at two sizes, as torchvision's blocks do, with batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 2, 3)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 2)
        self.extra_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Call the ReLU three times, and `extra_calls` times more."""
        x = self.relu(self.one(x))
        x = self.relu(self.norm(self.two(x)))
        x = self.relu(self.three(x))
        for _ in range(self.extra_calls):
            x = self.relu(x)
        return self.head(x.flatten(1))


class TwoNames(nn.Module):
    """One ReLU module registered under two names and called once under each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(3, 2)
        self.first = nn.ReLU()
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        """Call it under each name."""
        return self.three(self.second(self.two(self.first(self.one(x)))))


class Inner(nn.Module):
    """Plain modules nested in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.ModuleDict({"act": nn.ReLU()})])
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Call the layers by position and key."""
        return self.head(self.layers[1]["act"](self.layers[0](x) - 0.2))


def shared_block() -> nn.Module:
    """A block, ReLU and weights, that stands at two places."""
    block = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    return nn.Sequential(block, nn.Linear(5, 5), block, nn.Linear(5, 2))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[tuple[int, ...]]]] = {
    "mlp": (lambda: build("mlp", (5,), 3, width=7), (5,), [(7,), (7,)]),
    "thin resnet18": (
        lambda: build("resnet18", (1, 8, 8), 3, width=2),
        (1, 8, 8),
        [(2, 8, 8)] * 4 + [(4, 4, 4)] * 4 + [(8, 2, 2)] * 4 + [(16, 1, 1)] * 4,
    ),
    "nested": (lambda: nn.Sequential(Inner(), nn.Linear(2, 2)), (5,), [(6,), (6,)]),
    "one ReLU called three times": (Repeated, (1, 8, 8), [(3, 6, 6), (3, 4, 4), (2, 2, 2)]),
    "one ReLU under two names": (TwoNames, (5,), [(4,), (3,)]),
    "one block at two places": (shared_block, (5,), [(5,), (5,)]),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def make(name: str, *, batch: int = 6) -> tuple[nn.Module, Tensor, tuple[int, ...], list[tuple[int, ...]]]:
    """A network of the table, with batch-norm statistics that are not the initial ones, and inputs."""
    factory, input_shape, shapes = NETWORKS[name]
    torch.manual_seed(11)
    network = factory()
    with torch.no_grad():
        for _ in range(3):
            network.train()(1 + 2 * torch.randn(16, *input_shape))
    return network.eval(), torch.randn(batch, *input_shape), input_shape, shapes


def bits(state: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.items()}


# Installed


@every_network
def test_fresh_gates_are_the_original_function_exactly_twice_in_a_row(name: str) -> None:
    network, x, input_shape, shapes = make(name)
    gated = install(network, input_shape)
    expected = network(x)
    assert torch.equal(gated(x), expected)
    assert torch.equal(gated(x), expected)
    assert [tuple(gate.alpha.shape) for gate in gates.sites(gated).values()] == shapes
    assert not any(isinstance(module, nn.ReLU) for module in gated.modules())
    assert gates.total_units(gated) == sum(torch.Size(shape).numel() for shape in shapes)


@every_network
def test_fresh_gates_train_as_the_original(name: str) -> None:
    """In training mode: the same outputs, weight gradients and batch-norm statistics, to rounding."""
    network, x, input_shape, _ = make(name)
    gated = gates.freeze(install(network, input_shape))
    network.train(), gated.train()
    for model in (network, gated):
        model(x).square().sum().backward()
    ours = dict(gated.named_parameters())
    for key, parameter in network.named_parameters():
        torch.testing.assert_close(ours[key].grad, parameter.grad, rtol=1e-5, atol=1e-6)
    for key, buffer in network.named_buffers():
        torch.testing.assert_close(gated.get_buffer(key), buffer)


@every_network
def test_install_leaves_the_original_untouched(name: str) -> None:
    network, x, input_shape, _ = make(name)
    network.train()
    before, printed, expected = bits(network.state_dict()), repr(network), copy.deepcopy(network)(x)
    gated = install(network, input_shape)
    with torch.no_grad():
        for parameter in gated.parameters():
            parameter.add_(1)
    assert bits(network.state_dict()) == before
    assert repr(network) == printed
    assert not gates.sites(network)
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert torch.equal(network(x), expected)


def test_install_keeps_each_modules_mode_and_the_batch_norm_statistics() -> None:
    network, _, input_shape, _ = make("thin resnet18")
    network.train()
    network.stages[1].eval()
    gated = install(network, input_shape)
    modes = dict(gated.named_modules())
    assert {n: m.training for n, m in network.named_modules() if not isinstance(m, nn.ReLU)} == {
        n: modes[n].training for n, m in network.named_modules() if not isinstance(m, nn.ReLU)
    }
    assert bits(dict(network.named_buffers())) == bits(dict(gated.named_buffers()))


@every_network
def test_no_relus_is_an_affine_network_and_all_relus_is_not(name: str) -> None:
    """An affine f has f(x + y) - f(0) = (f(x) - f(0)) + (f(y) - f(0)); in float64 and evaluation mode."""
    network, x, input_shape, _ = make(name)
    gated = install(network, input_shape).double()
    x, y = x.double(), torch.randn_like(x.double())
    zero = torch.zeros_like(x)

    def defect(model: nn.Module) -> float:
        at_zero = model(zero)
        return ((model(x + y) - at_zero) - (model(x) - at_zero) - (model(y) - at_zero)).abs().max().item()

    assert defect(gated) > 1e-3
    assert defect(gates.set_alphas(gated, lambda _, alpha: torch.zeros_like(alpha))) < 1e-9


def test_each_call_of_one_relu_has_its_own_alphas() -> None:
    """The oracle is the same network written with one ReLU layer per call, one of them left out."""
    network, x, input_shape, _ = make("one ReLU called three times")
    gated = install(network, input_shape)
    assert list(gates.sites(gated)) == ["relu.calls.0", "relu.calls.1", "relu.calls.2"]
    gates.sites(gated)["relu.calls.1"].alpha.data.zero_()
    first = torch.relu(network.one(x))
    third = torch.relu(network.three(network.norm(network.two(first))))
    assert torch.equal(gated(x), network.head(third.flatten(1)))
    assert torch.equal(gated(x), network.head(third.flatten(1)))


def test_an_exception_in_mid_forward_does_not_shift_the_next_pass() -> None:
    network, x, input_shape, _ = make("one ReLU called three times")
    gated = install(network, input_shape)
    gates.set_alphas(gated, lambda site, alpha: torch.full_like(alpha, float(site[-1]) / 3))
    expected = gated(x)

    def stop(*_: object) -> None:
        raise RuntimeError("stopped after the second ReLU")

    handle = gated.three.register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match="stopped"):
        gated(x)
    handle.remove()
    assert torch.equal(gated(x), expected)


def test_a_relu_called_more_often_than_at_installation_is_an_error() -> None:
    network, x, input_shape, _ = make("one ReLU called three times")
    gated = install(network, input_shape)
    gated.extra_calls = 1
    with pytest.raises(GateError, match="called 3 times"):
        gated(x)


def test_one_relu_under_two_names_is_two_gates() -> None:
    network, x, input_shape, _ = make("one ReLU under two names")
    gated = install(network, input_shape)
    assert list(gates.sites(gated)) == ["first", "second"]
    gated.second.alpha.data.zero_()
    assert torch.equal(gated(x), network.three(network.two(torch.relu(network.one(x)))))


def test_install_refuses_what_it_cannot_gate() -> None:
    with pytest.raises(GateError, match="Linear .*nothing to linearize"):
        install(nn.Linear(3, 2), (3,))
    unused = Inner()
    unused.forward = unused.head.forward
    with pytest.raises(GateError, match="Inner .*nothing to linearize"):
        install(unused, (6,))
    with pytest.raises(GateError, match="Sequential"):
        install(nn.ReLU(), (3,))
    with pytest.raises(GateError, match="gates already"):
        install(install(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,)), (3,))
    with pytest.raises(GateError, match="no gates"):
        gates.kept_units(nn.Linear(3, 2))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.half])
def test_the_input_of_an_in_place_relu_that_is_used_again_is_seen_in_every_number_format(kind: torch.dtype) -> None:
    class Again(Inner):
        def forward(self, x: Tensor) -> Tensor:
            h = self.layers[0][0](x)
            return self.head(h + self.layers[0][1](h))

    network = Again()
    network.layers[0][1].inplace = True
    with pytest.raises(GateError, match="used again"):
        install(network.to(kind), (5,))


def test_another_input_size_is_named_with_both_shapes() -> None:
    gated = install(build("resnet18", (1, 8, 8), 3, width=2), (1, 8, 8))
    with pytest.raises(GateError, match=r"\(2, 8, 8\).*\(2, 12, 12\)"):
        gated(torch.zeros(2, 1, 12, 12))


def test_a_network_without_parameters_can_be_gated() -> None:
    gated = install(nn.Sequential(nn.Flatten(), nn.ReLU()), (2, 2))
    assert gates.total_units(gated) == 4


# Counting, binarising, freezing


def test_kept_units_counts_strictly_above_the_threshold_as_numpy_does() -> None:
    network, _, input_shape, _ = make("mlp")
    gated = install(network, input_shape)
    values = torch.tensor([0.0, -0.5, 0.01, 0.010001, 0.5, 1.0, 1.2])
    gates.set_alphas(gated, lambda *_: values[None])
    expected = 2 * int(np.sum(values.numpy() > np.float32(0.01)))
    assert gates.kept_units(gated).tolist() == [expected] == [8]
    assert gates.kept_units(gated, threshold=0.4).tolist() == [6]


def test_binarise_sets_ones_and_zeros_freezes_and_is_idempotent() -> None:
    network, _, input_shape, _ = make("thin resnet18")
    gated = install(network, input_shape)
    torch.manual_seed(5)
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha) * (torch.rand_like(alpha) < 0.5))
    kept = gates.kept_units(gated)
    assert gates.binarise(gated) is gated
    values = torch.cat([alpha.flatten() for alpha in gates.alphas(gated).values()])
    assert set(values.tolist()) == {0.0, 1.0}
    assert values.sum() == gates.kept_units(gated) == kept
    assert not any(gate.alpha.requires_grad for gate in gates.sites(gated).values())
    once = bits(gated.state_dict())
    assert bits(gates.binarise(gated).state_dict()) == once


def test_freeze_stops_the_alphas_only_and_can_be_undone() -> None:
    network, x, input_shape, _ = make("mlp")
    gated = gates.freeze(install(network, input_shape))
    gated(x).sum().backward()
    assert all(gate.alpha.grad is None for gate in gates.sites(gated).values())
    assert gated[1].weight.grad is not None
    gates.freeze(gated, frozen=False)(x).sum().backward()
    assert all(gate.alpha.grad is not None for gate in gates.sites(gated).values())


def test_alphas_of_an_ensemble_have_a_members_axis_and_are_counted_for_each_member() -> None:
    network, _, input_shape, _ = make("mlp")
    full, none = (install(network, input_shape) for _ in range(2))
    gates.set_alphas(none, lambda _, alpha: torch.zeros_like(alpha))
    ensemble = Ensemble([full, none, full])
    assert {tuple(alpha.shape) for alpha in gates.alphas(ensemble).values()} == {(3, 7)}
    assert gates.kept_units(ensemble).tolist() == [14, 0, 14]
    assert gates.total_units(ensemble) == 14


# Copies


@every_network
def test_deepcopy_and_state_dict_reproduce_the_gated_function_bit_for_bit(name: str) -> None:
    network, x, input_shape, _ = make(name)
    gated = install(network, input_shape)
    torch.manual_seed(6)
    gates.set_alphas(gated, lambda _, alpha: torch.rand_like(alpha))
    expected = gated(x)
    assert not torch.equal(expected, network(x))
    twin = copy.deepcopy(gated)
    assert torch.equal(twin(x), expected)
    fresh = install(NETWORKS[name][0](), input_shape).eval()
    fresh.load_state_dict(gated.state_dict())
    assert torch.equal(fresh(x), expected)
    gates.set_alphas(twin, lambda _, alpha: torch.zeros_like(alpha))
    assert torch.equal(gated(x), expected)


def test_a_float64_network_stays_float64_behind_gates() -> None:
    network, x, input_shape, _ = make("mlp")
    network = network.double()
    assert torch.equal(install(network, input_shape)(x.double()), network(x.double()))
