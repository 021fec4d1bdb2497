"""Nonlinearities by kind: every count is done by hand, every spelling of a ReLU equals `nn.ReLU`."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData
from linfair.functional import check_scores
from linfair.gates import GateError, install, nonlinearities
from linfair.linearizers import OneShot, linearize
from linfair.models import build


class Apply(nn.Module):
    """A linear layer, then a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(6, 6), function

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.function(self.linear(x))


def counts(network: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    return {one.kind: (one.units, one.comparisons) for one in nonlinearities(network, shape)}


FIELD = nn.Sequential(
    *(nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1)),
    *(nn.Hardswish(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
)


def test_a_network_of_several_kinds_names_and_counts_each() -> None:
    """On 3x16x16: 8 * 16 * 16 LeakyReLU, 8 * 8 * 8 outputs of 2x2 windows, 16 * 8 * 8 Hardswish, as many ReLUs."""
    found = nonlinearities(FIELD, (3, 16, 16))
    assert [(one.kind, one.units, one.modules) for one in found] == [
        ("LeakyReLU", 2048, ("1",)),
        ("MaxPool", 512, ("2",)),
        ("Hardswish", 1024, ("4",)),
    ]
    assert found[1].comparisons == 3 * 512
    gated = install(FIELD, (3, 16, 16))
    assert gates.total_units(gated) == 1024
    assert nonlinearities(gated, (3, 16, 16)) == found


ELEMENTWISE = {
    "LeakyReLU": nn.LeakyReLU(),
    "PReLU": nn.PReLU(),
    "RReLU": nn.RReLU(),
    "ELU": F.elu,
    "SELU": nn.SELU(),
    "CELU": F.celu,
    "GELU": nn.GELU(approximate="tanh"),
    "SiLU": lambda x: F.silu(x, inplace=True),
    "Mish": nn.Mish(),
    "Hardswish": F.hardswish,
    "Hardsigmoid": nn.Hardsigmoid(),
    "Hardtanh": nn.Hardtanh(),
    "ReLU6": F.relu6,
    "Hardshrink": nn.Hardshrink(),
    "Softshrink": nn.Softshrink(),
    "Threshold": nn.Threshold(0.5, 0.0),
    "Clamp": lambda x: x.clamp(-1, 2),
    "Sigmoid": torch.sigmoid,
    "Tanh": lambda x: x.tanh_(),
    "Softplus": nn.Softplus(),
    "LogSigmoid": F.logsigmoid,
    "Softmax": lambda x: x.softmax(1),
    "LogSoftmax": nn.LogSoftmax(1),
    "Abs": torch.abs,
    "Sign": torch.sign,
    "Comparison": lambda x: x * (x > 1),
    "Maximum": lambda x: torch.maximum(x, 2 * x),
    "Minimum": lambda x: torch.minimum(x, x - 1),
    "Power": lambda x: x**1.5,
    "Division": lambda x: x / (1 + x * x),
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "Rounding": torch.round,
}


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_every_elementwise_kind_counts_one_for_each_scalar(kind: str) -> None:
    """Six scalars, whether by module, function or method."""
    assert {name: units for name, (units, _) in counts(Apply(ELEMENTWISE[kind]), (6,)).items()} == {kind: 6}


LINEAR = {
    "batch norm": nn.BatchNorm1d(6),
    "scaling": lambda x: x / 2 - 3 * x.mean(1, keepdim=True),
    "square": lambda x: x**2 + x * x,
    "weights": lambda x: x * torch.softmax(torch.arange(6.0), 0),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_private_inference_computes_without_comparing_counts_nothing(name: str) -> None:
    assert nonlinearities(Apply(LINEAR[name]), (6,)) == ()


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], dict[str, tuple[int, int]]]] = {
    "max-pool 2x2": (nn.MaxPool2d(2), (3, 8, 8), {"MaxPool": (48, 48 * 3)}),
    "max-pool 3x3, stride 2": (nn.MaxPool2d(3, 2, 1), (2, 8, 8), {"MaxPool": (32, 32 * 8)}),
    "max-pool 1d": (nn.MaxPool1d(4), (3, 8), {"MaxPool": (6, 6 * 3)}),
    "max-pool 3d": (nn.MaxPool3d(2), (1, 4, 4, 4), {"MaxPool": (8, 8 * 7)}),
    # 8 to 3 along a side: windows 0-3, 2-6, 5-8, that is 3 + 4 + 3 values
    "adaptive max-pool": (nn.AdaptiveMaxPool2d(3), (2, 8, 8), {"AdaptiveMaxPool": (18, 2 * 10 * 10 - 18)}),
    "adaptive max-pool 1d": (nn.AdaptiveMaxPool1d(1), (2, 8), {"AdaptiveMaxPool": (2, 14)}),
    "global max": (lambda x: x.amax((2, 3)), (2, 8, 8), {"Max": (2, 126)}),
    "maxout": (lambda x: x.max(dim=1)[0], (4, 3, 3), {"Max": (9, 27)}),
    "average": (nn.AdaptiveAvgPool2d(1), (2, 8, 8), {}),
}


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_of_k_values_counts_k_minus_1_comparisons_for_each_output(name: str) -> None:
    pool, shape, expected = POOLS[name]
    assert counts(_Only(pool), shape) == expected


class _Only(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_attention_counts_its_softmax_and_layer_norm_its_scalars() -> None:
    """Two heads over five positions: 2 * 5 * 5 scores; a layer norm over 5 * 8 scalars."""
    network = _Only(lambda x: F.scaled_dot_product_attention(x, x, x))
    assert counts(network, (2, 5, 4)) == {"Softmax": (50, 0)}
    assert counts(nn.LayerNorm(8), (5, 8)) == {"LayerNorm": (40, 0)}


def test_vggs_max_pools_count() -> None:
    """Width 4, four pools of 2x2: 4 * 16^2 + 8 * 8^2 + 16 * 4^2 + 32 * 2^2 outputs."""
    assert counts(build("vgg19", (3, 32, 32), 10, width=4), (3, 32, 32)) == {"MaxPool": (1920, 5760)}


# ReLUs in other spellings

EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0.0),
    "clip": lambda x: torch.clip(x, min=0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_min_": lambda x: x.clamp_min_(0),
    "maximum with zeros": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum of zero and x": lambda x: torch.maximum(torch.tensor(0.0), x),
    "max with zero": lambda x: torch.max(x, torch.zeros(())),
    "F.threshold": lambda x: F.threshold(x, 0, 0),
    "nn.Threshold": nn.Threshold(0, 0),
    "F.hardtanh": lambda x: F.hardtanh(x, 0.0, float("inf")),
    "nn.Hardtanh": nn.Hardtanh(0.0, float("inf")),
    "F.leaky_relu": lambda x: F.leaky_relu(x, 0.0),
    "nn.LeakyReLU": nn.LeakyReLU(0.0),
    "F.elu": lambda x: F.elu(x, alpha=0.0),
    "nn.ELU": nn.ELU(0.0),
}


@pytest.mark.parametrize("spelling", EXACT)
def test_a_relu_in_another_spelling_is_gated(spelling: str) -> None:
    torch.manual_seed(1)
    network, x = nn.Sequential(Apply(EXACT[spelling]), nn.Linear(6, 2)), torch.randn(5, 6)
    gated = install(network, (6,))
    assert gates.total_units(gated) == 6
    assert torch.equal(gated(x), network(x))
    (gate,) = gates.sites(gated).values()
    gate.alpha.data.zero_()
    torch.testing.assert_close(gated(x), network[1](network[0].linear(x)))


MASKED = {
    "x * (x > 0)": lambda x: x * (x > 0),
    "(x > 0) * x": lambda x: (x > 0).float() * x,
    "where": lambda x: torch.where(x > 0, x, 0),
    "where with zeros": lambda x: torch.where(x >= 0, x, torch.zeros_like(x)),
}


@pytest.mark.parametrize("spelling", MASKED)
def test_a_relu_made_of_a_mask_is_refused_by_name(spelling: str) -> None:
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Apply(MASKED[spelling]))
    with pytest.raises(
        GateError, match=r"2 computes a ReLU in a way that no gate can replace.*write it as torch\.relu"
    ):
        install(network, (6,))


@pytest.mark.parametrize("capped", [lambda x: x.clamp(0, 6), lambda x: torch.clip(x, 0.0, 6.0), F.relu6])
def test_a_relu6_in_another_spelling_is_refused_by_name(capped: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(GateError, match="1 computes a ReLU6"):
        install(nn.Sequential(nn.Linear(6, 6), Apply(capped)), (6,))


def test_the_larger_of_two_tensors_stays_so_where_one_is_zero_by_chance() -> None:
    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(torch.maximum(self.one(x), self.two(x)) - 0.1)

    gated, x = install(nn.Sequential(Largest()), (6,)), torch.randn(3, 6)
    assert gates.total_units(gated) == 4
    for parameter in gated[0].two.parameters():
        parameter.data.zero_()
    assert torch.equal(gated(x), torch.relu(gated[0].one(x).clamp_min(0) - 0.1))


def test_other_bounds_are_no_relus() -> None:
    for function in (lambda x: x.clamp(min=0.1), lambda x: x.clamp(max=0), lambda x: F.threshold(x, 0.0, 1.0)):
        assert gates.total_units(install(nn.Sequential(Apply(function), nn.Linear(6, 4), nn.ReLU()), (6,))) == 4


# Batches


class Patches(nn.Module):
    """16 patches of 48 numbers, folded into the batch axis or not."""

    def __init__(self, folded: bool) -> None:
        super().__init__()
        self.a, self.r, self.head, self.folded = nn.Linear(48, 32), nn.ReLU(), nn.Linear(512, 2), folded

    def forward(self, p: Tensor) -> Tensor:
        """Run it on (n, 16, 48)."""
        if self.folded:
            return self.head(self.r(self.a(p.reshape(-1, 48))).reshape(len(p), -1))
        return self.head(self.r(self.a(p)).flatten(1))


def test_patches_folded_into_the_batch_are_refused_by_name_with_their_count() -> None:
    """16 patches of 32 units are 512; unfolded they have a gate each."""
    with pytest.raises(GateError, match=r"r sees 16 rows for each input.*each of the 512 units"):
        install(Patches(folded=True), (16, 48))
    assert gates.total_units(install(Patches(folded=False), (16, 48))) == 512


def test_folded_patches_of_other_nonlinearities_are_counted_with_all_their_rows() -> None:
    network = Patches(folded=True)
    network.r = nn.GELU()
    assert counts(network, (16, 48)) == {"GELU": (512, 0)}


class Fusion(nn.Module):
    """Two branches, added with weights that are a ReLU of parameters, as in BiFPN."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two, self.act = nn.Linear(5, 4), nn.Linear(5, 4), act
        self.weights = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        w = self.act(self.weights)
        return self.relu(w[0] * self.one(x) + w[1] * self.two(x))


@pytest.mark.parametrize("act", [nn.ReLU(), F.relu], ids=["module", "function"])
def test_a_relu_on_weights_alone_stays_without_a_gate(act: Callable[[Tensor], Tensor]) -> None:
    """The server computes it by itself: no unit is counted, and the other ReLU has its four."""
    network, x = Fusion(act), torch.randn(3, 5)
    gated = install(network, (5,))
    assert gates.total_units(gated) == 4
    assert torch.equal(gated(x), network(x))
    network.weights.data.mul_(-1)
    gated.weights.data.mul_(-1)
    assert torch.equal(gated(x), network(x))


def test_one_relu_on_weights_and_on_inputs_has_a_gate_for_the_inputs() -> None:
    network = Fusion(nn.Identity())
    network.act = network.relu
    shared = nn.Sequential(network, nn.Linear(4, 2))
    assert gates.total_units(install(shared, (5,))) == 4


class Squeezed(nn.Module):
    """One output, squeezed: the ReLU's input is (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(5, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return torch.stack([self.relu(input=self.linear(x).squeeze()), self.linear(x).squeeze(-1)], 1)


def test_a_squeezed_axis_and_a_keyword_are_one_unit() -> None:
    network, x = Squeezed(), torch.randn(7, 5)
    gated = install(network, (5,))
    assert gates.total_units(gated) == 1
    assert torch.equal(gated(x), network(x))
    gated.relu.alpha.data.zero_()
    gated(x).sum().backward()
    assert torch.equal(gated(x)[:, 0], gated(x)[:, 1])


def test_a_network_of_one_batch_size_is_refused_with_its_own_error() -> None:
    class One(Apply):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(1, 6))

    with pytest.raises(GateError, match=r"One fails on a batch of 2 inputs of shape 6 \(RuntimeError: .*any number"):
        install(One(F.relu), (6,))


def test_a_relu_called_once_for_each_image_is_refused_by_name() -> None:
    class Loop(Apply):
        def __init__(self) -> None:
            super().__init__(None)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.relu(one) for one in self.linear(x)])

    with pytest.raises(GateError, match="relu is called 2 times on 2 inputs and 3 times on 3"):
        install(nn.Sequential(Loop()), (6,))


def test_a_batch_on_another_axis_is_refused_by_name() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(x.transpose(0, 1)).transpose(0, 1)

    with pytest.raises(GateError, match=r"relu has shape \(4, 2, 3\) for 2 inputs and \(4, 3, 3\) for 3"):
        install(Swapped(), (4, 3))


def test_a_network_without_relus_says_what_it_computes() -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2), nn.Sigmoid())
    with pytest.raises(GateError, match="no ReLU, only 5 GELU in 1; 2 Sigmoid in 3: there is nothing to linearize"):
        install(network, (6,))


# Probabilities


SQUASHED = {
    "Softmax": nn.Softmax(1),
    "LogSoftmax": lambda x: F.log_softmax(x, dim=1),
    "Softmax, logarithm": lambda x: torch.log(x.softmax(1) + 1e-9),
    "Sigmoid": nn.Sigmoid(),
    "LogSigmoid": F.logsigmoid,
}


@pytest.mark.parametrize("last", SQUASHED)
def test_a_network_that_returns_probabilities_is_refused_by_name(last: str) -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6), Apply(SQUASHED[last]))
    with pytest.raises(
        GateError, match=rf"last step is the {last.split(',')[0]} of 3.*return what goes into that step"
    ):
        check_scores(network, (6,))


def test_probabilities_that_no_known_operator_makes_are_refused() -> None:
    network = nn.Sequential(Apply(lambda x: x.exp() / x.exp().sum(1, keepdim=True)))
    with pytest.raises(GateError, match="last step is the Softmax, and"):
        check_scores(network, (6,))


def test_a_softmax_inside_a_network_is_no_last_step() -> None:
    check_scores(nn.Sequential(Apply(lambda x: x * x.softmax(1)), nn.Linear(6, 3)), (6,))
    check_scores(build("mlp", (6,), 3, width=4), (6,))


def test_linearize_refuses_a_teacher_that_returns_probabilities(digits: GroupedData) -> None:
    network = nn.Sequential(build("mlp", (1, 12, 12), 10, width=4), nn.LogSoftmax(1))
    with pytest.raises(GateError, match="last step is the LogSoftmax of 1"):
        linearize(network, digits, method="random", budgets=[0.5], options=OneShot(), progress=False)
