"""Theorem 4.4 against dense Hessians, quadratics and finite differences, folding against the unfolded network."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from linfair_book.propositions import remainders
from of_networks import excess_of
from torch import Tensor, nn
from torch.func import functional_call

from linfair.data import GroupedData, Split
from linfair.gates import binarise, install, set_alphas, sites
from linfair.models import build
from linfair.theory.bound import BoundRow, excess_bound, expand
from linfair.theory.folding import Affine, fold_batch_norm


def grouped(seed: int, *, n: int = 30, features: tuple[int, ...] = (3,), classes: int = 3) -> GroupedData:
    """Random float64 inputs of two groups, the second with a fifth of them."""
    rng = np.random.default_rng(seed)
    a = torch.arange(n) % 5 == 0
    x = torch.from_numpy(rng.standard_normal((n, *features)))
    part = Split(x, torch.from_numpy(rng.integers(classes, size=n)), a.long())
    return GroupedData("random", {"train": part}, tuple("abc"[:classes]), ("large", "small"))


def nudged(network: nn.Module, seed: int, size: float) -> nn.Module:
    """The network with every weight (not the alphas) moved at random by about `size`."""
    generator = torch.Generator().manual_seed(seed)
    moved = copy.deepcopy(network)
    gated = {id(gate.alpha) for gate in sites(moved).values()}
    with torch.no_grad():
        for value in moved.parameters():
            if id(value) not in gated:
                value += size * torch.randn(value.shape, generator=generator).to(value)
    return moved


def linearized(network: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """A gated copy with every other unit, at random, the identity."""
    generator = torch.Generator().manual_seed(seed)
    gated = install(network, shape).to(next(network.parameters()).dtype)
    return binarise(set_alphas(gated, lambda _, a: torch.rand(a.shape, generator=generator).round()))


def with_statistics(name: str, *, gated: bool = False) -> nn.Module:
    """A thin float64 network whose batch norms have seen data and have weights of their own."""
    network = build(name, (3, 16, 16), 3, width={"mlp": 5, "wrn22_8": 1}.get(name, 2), seed=1).double()
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value in (module.running_mean, module.running_var, module.weight.data, module.bias.data):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return (linearized(network, (3, 16, 16), 4) if gated else network).eval()


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("name", ["mlp", "resnet18", "resnet34", "wrn22_8", "vgg19"])
def test_folding_computes_the_same_function_and_leaves_no_batch_norm(name: str, gated: bool) -> None:
    network = with_statistics(name, gated=gated)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = network(x)
    assert torch.allclose(folded(x), expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    assert not list(folded.buffers())
    assert len(sites(folded)) == len(sites(network))
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    affine = [name for name, module in folded.named_modules() if isinstance(module, Affine)]
    assert bool(affine) == (name == "wrn22_8")  # only pre-activation has batch norms with no layer before them


class Branches(nn.Module):
    """A convolution whose output goes two ways, and one that is called twice: neither may be folded into."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(2, affine=affine) for affine in (True, False, True))

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        x = self.one(x)
        x = x + self.norms[0](x)
        return self.norms[2](self.two(self.norms[1](self.two(x))))


class Untraceable(Branches):
    """The same with a forward that looks at values."""

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return super().forward(x if x.sum() > 0 else x + 1)


@pytest.mark.parametrize("kind", [Branches, Untraceable])
def test_layers_with_other_readers_are_left_alone(kind: type[nn.Module]) -> None:
    """Oracle: the unfolded network."""
    torch.manual_seed(0)
    network = kind().double()
    for norm in network.norms:
        norm.running_mean.uniform_(0, 1)
        norm.running_var.uniform_(1, 2)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    folded = fold_batch_norm(network)
    assert torch.allclose(folded(x), network.eval()(x), rtol=1e-12)
    assert all(isinstance(norm, Affine) for norm in folded.norms)


def test_linear_layer_takes_its_batch_norm() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    network[1].running_mean.uniform_(0, 1)
    folded = fold_batch_norm(network)
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(folded(x), network.eval()(x), rtol=1e-12)
    assert [name for name, _ in folded.named_parameters()] == ["0.weight", "0.bias", "3.weight", "3.bias"]


class Tied(nn.Module):
    """The weights of a layer before a batch norm are used again, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode."""
        return nn.functional.linear(self.norm(self.code(x)), self.code.weight.T)


@pytest.mark.parametrize("kind", ["axis", "tied"])
def test_a_linear_layer_whose_scale_is_not_its_own_is_left_alone(kind: str) -> None:
    """A norm over the middle axis, which has another size than the layer's; and weights that are read elsewhere."""
    torch.manual_seed(0)
    network = Tied() if kind == "tied" else nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(5))
    network.double().eval().get_submodule("norm" if kind == "tied" else "1").running_var.uniform_(1, 2)
    x = torch.randn(5, *([3] if kind == "tied" else [5, 3]), dtype=torch.float64)
    assert torch.allclose(fold_batch_norm(network)(x), network(x), rtol=1e-12)


def test_a_linear_layer_on_as_many_vectors_as_features_is_refused() -> None:
    """Its norm has a scale for each vector, and the layer one for each feature: the numbers of both agree."""
    folded = fold_batch_norm(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    with pytest.raises(ValueError, match=r"\(n, features\), not \(5, 4, 4\)"):
        folded(torch.randn(5, 4, 3))


class Aliased(nn.Module):
    """A layer or its batch norm has a second name, under which the forward pass calls it."""

    def __init__(self, twice: str) -> None:
        super().__init__()
        layers = {"conv": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2)}
        self.first = layers[twice]
        self.layers = nn.Sequential(*layers.values(), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Run it."""
        return self.layers(x)


@pytest.mark.parametrize("twice", ["conv", "norm"])
def test_a_module_with_two_names_is_folded_under_both(twice: str) -> None:
    """Oracle: the unfolded network."""
    torch.manual_seed(0)
    network = Aliased(twice).double().eval()
    network.layers[1].running_mean.uniform_(1, 2)
    network.layers[1].running_var.uniform_(3, 4)
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    folded = fold_batch_norm(network)
    assert torch.allclose(folded(x), network(x), rtol=1e-12)
    assert folded.first is folded.layers[0 if twice == "conv" else 1]
    assert not list(folded.buffers())


class NormAndReLU(nn.BatchNorm2d):
    """As some collections of networks have it: the ReLU belongs to the norm."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise and rectify."""
        return super().forward(input).relu()


def test_a_batch_norm_that_computes_more_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="1 is a batch norm with a forward of its own, NormAndReLU"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3), NormAndReLU(2)))


def test_statistics_of_the_batch_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="track_running_stats=True"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)))


def test_a_quadratic_has_no_remainder() -> None:
    """Oracle: J(t) = 1/2 t.A t + b.t is its own second-order expansion, at any distance."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    matrix = root + root.T
    linear, start, step = torch.randn(3, 6, dtype=torch.float64, generator=generator)

    def value(point: Tensor) -> float:
        return float(0.5 * point @ matrix @ point + linear @ point)

    found = expand(value(start + step) - value(start), matrix @ start + linear, lambda v: matrix @ v, step)
    assert found.remainder == pytest.approx(0, abs=1e-12)
    assert found.linear + found.quadratic == pytest.approx(found.excess, rel=1e-12)


def vector_risk(model: nn.Module, data: GroupedData, group: int, *, alpha: bool) -> tuple:
    """J of one group as a function of one vector, weights first and alphas last, and the vector."""
    gated = {id(gate.alpha) for gate in sites(model).values()}
    named = sorted(model.named_parameters(), key=lambda item: id(item[1]) in gated)
    free = {name: value.detach() for name, value in named if alpha or id(value) not in gated}
    part = data.splits["train"]
    x, y = part.x[part.a == group], part.y[part.a == group]

    def risk(vector: Tensor) -> Tensor:
        pieces = vector.split([value.numel() for value in free.values()])
        values = {name: piece.view_as(free[name]) for name, piece in zip(free, pieces, strict=True)}
        return F.cross_entropy(functional_call(model, values, (x,)), y)

    return risk, torch.cat([value.flatten() for value in free.values()])


@pytest.mark.parametrize("alpha", [False, True])
def test_every_term_equals_the_dense_gradient_and_hessian(alpha: bool) -> None:
    """Oracle: torch.autograd.functional, float64, to 1e-8."""
    original = install(build("mlp", (3,), 3, width=4, seed=2).double(), (3,)).double()
    model = nudged(linearized(build("mlp", (3,), 3, width=4, seed=2).double(), (3,), 7), 8, 0.1)
    data = grouped(1)
    for row in excess_bound(model, original, data, alpha=alpha, tol=1e-10, batch_size=7):
        risk, start = vector_risk(original, data, row.group, alpha=alpha)
        after, end = vector_risk(model, data, row.group, alpha=alpha)
        step = end - start
        gradient = torch.autograd.functional.jacobian(risk, start)
        hessian = torch.autograd.functional.hessian(risk, start)
        values = torch.linalg.eigvalsh(hessian)
        expected = {
            "excess": after(end) - risk(start),
            "linear": step @ gradient,
            "quadratic": 0.5 * step @ hessian @ step,
            "gradient_norm": gradient.norm(),
            "distance": step.norm(),
            "eigenvalue": values[-1],
            "absolute_eigenvalue": values[values.abs().argmax()],
            "first": gradient.norm() * step.norm(),
            "second": 0.5 * values[-1] * step.norm() ** 2,
        }
        for name, value in expected.items():
            assert getattr(row, name) == pytest.approx(value.item(), rel=1e-8, abs=1e-10), name
        assert row.linear + row.quadratic + row.remainder == pytest.approx(row.excess, rel=1e-12)
        assert row.converged
        assert row.bound == row.first + row.second


def test_a_group_whose_largest_absolute_eigenvalue_is_negative_has_a_positive_second_order_term() -> None:
    """Oracle: the dense Hessian, of a tanh network that is sure of the wrong labels."""
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for value in original.parameters():
            value.mul_(3)
        part = grouped(0).splits["train"]
        wrong = Split(part.x, original(part.x).argmin(1), part.a)
    data = replace(grouped(0), splits={"train": wrong})
    (found, _) = excess_bound(nudged(original, 1, 0.1), original, data, tol=1e-10)
    risk, start = vector_risk(original, data, 0, alpha=False)
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(risk, start))
    assert found.eigenvalue == pytest.approx(values[-1].item(), rel=1e-8)
    assert found.absolute_eigenvalue == pytest.approx(values[0].item(), rel=1e-8)
    assert 0 < found.second < 0.5 * abs(found.absolute_eigenvalue) * found.distance**2


def test_excess_equals_the_metric_and_terms_obey_the_inequalities_of_the_proof() -> None:
    """Oracle: `excessive_loss` on the unfolded networks; Cauchy-Schwarz and the Rayleigh quotient."""
    original = with_statistics("resnet18")
    model = nudged(linearized(original, (3, 16, 16), 2), 1, 0.02)
    model.stem[1].running_mean += 0.1
    data = grouped(2, n=10, features=(3, 16, 16))
    rows = excess_bound(model, original, data, alpha=True, tol=1e-3)
    for row, expected in zip(rows, excess_of(model, original, data, "train"), strict=True):
        assert row.excess == pytest.approx(expected.mean, rel=1e-9, abs=1e-12)
        assert row.linear <= row.first
        assert row.quadratic <= row.second * (1 + 1e-3)
        assert row.eigenvalue <= abs(row.absolute_eigenvalue)
        assert row.holds == (row.excess <= row.bound)


def test_running_statistics_count_as_parameters_once_folded() -> None:
    """A network that differs in a running mean only is at a distance, and its excess is explained."""
    original = with_statistics("resnet18")
    model = copy.deepcopy(original)
    model.stem[1].running_mean += 1e-4
    (row, _) = excess_bound(model, original, grouped(3, n=20, features=(3, 16, 16)))
    assert row.distance > 0
    assert abs(row.remainder) < 0.05 * abs(row.excess)


def test_unchanged_weights_refute_the_statement_as_printed_and_alpha_repairs_it() -> None:
    """A mask alone moves no weight: the right side is 0 while groups lose. With alphas |d|^2 is the removed units."""
    network = build("mlp", (3,), 3, width=16, seed=2).double()
    model = linearized(network, (3,), 1)
    data = grouped(4)
    with torch.no_grad():
        part = data.splits["train"]
        agreed = replace(data, splits={"train": Split(part.x, network(part.x).argmax(1), part.a)})
    plain = excess_bound(model, network, agreed)
    assert [row.bound for row in plain] == [0, 0]
    assert max(row.excess for row in plain) > 0
    assert [row.holds for row in plain] == [row.excess <= 0 for row in plain]
    removed = sum(int((gate.alpha == 0).sum()) for gate in sites(model).values())
    for row, other in zip(excess_bound(model, network, agreed, alpha=True), plain, strict=True):
        assert row.distance == pytest.approx(removed**0.5)
        assert row.excess == pytest.approx(other.excess)
        assert row.bound > 0


def test_remainder_is_of_third_order_where_no_unit_switches() -> None:
    """Oracle: finite differences. Ten times closer, the remainder is a thousandth."""
    torch.manual_seed(1)
    original = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model = nudged(original, 1, 0.3)
    found = remainders(model, original, grouped(5), steps=(1e-1, 1e-2))
    rows = list(found[found["group"] == 1].itertuples())
    assert rows[0].remainder / rows[1].remainder == pytest.approx(1000, rel=0.2)
    assert (rows[0].n, rows[0].t) == (6, 0.1)


def test_remainder_of_relu_networks_shrinks_slower_where_units_switch() -> None:
    """Oracle: one unit, |x| = 1, whose bias passes 0 half way: up to the kink J is flat, behind it linear in t."""
    original = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2, bias=False)).double()
    with torch.no_grad():
        for value, number in zip(original.parameters(), (0.0, -0.5, 1.0), strict=True):
            value.fill_(number)
        original[2].weight[1] = 0
        model = copy.deepcopy(original)
        model[0].bias.fill_(0.5)
    x = torch.ones(2, 1, dtype=torch.float64)
    part = Split(x, torch.ones(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    data = GroupedData("one", {"train": part}, ("no", "yes"), ("all",))
    rows = list(remainders(model, original, data, steps=(0.4, 1.0)).itertuples())
    assert [row.linear for row in rows] == [0, 0]
    assert [row.quadratic for row in rows] == [0, 0]
    assert rows[0].remainder == 0
    assert rows[1].remainder == pytest.approx(np.log1p(np.exp(0.5)) - np.log(2))
    (row,) = excess_bound(model, original, data)
    assert row.bound == 0
    assert not row.holds


def test_steps_end_at_the_linearized_network() -> None:
    """Oracle: excess_bound at t = 1."""
    network = build("mlp", (3,), 3, width=4, seed=2).double()
    model = nudged(linearized(network, (3,), 7), 8, 0.1)
    data = grouped(6)
    steps = remainders(model, network, data, steps=(1.0,)).itertuples()
    for step, row in zip(steps, excess_bound(model, network, data, alpha=True), strict=True):
        assert (step.excess, step.remainder) == pytest.approx((row.excess, row.remainder), rel=1e-9)


def row(group: int, excess: float, gradient_norm: float) -> BoundRow:
    nothing = dict.fromkeys(("linear", "quadratic", "remainder", "eigenvalue", "absolute_eigenvalue", "residual"), 0.0)
    known = {"group": group, "n": 5, "alpha": False, "distance": 1.0, "converged": True}
    return BoundRow(excess=excess, gradient_norm=gradient_norm, **known, **nothing)


def test_looseness_is_the_ratio_for_groups_that_lose() -> None:
    assert row(0, 0.5, 2.0).looseness == 4
    assert np.isnan(row(0, -0.5, 2.0).looseness)


def test_networks_without_a_common_space_are_refused() -> None:
    data, small = grouped(0), build("mlp", (3,), 3, width=4).double()
    with pytest.raises(ValueError, match=r"no common parameter space.*1\.bias \(4,\)"):
        excess_bound(build("mlp", (3,), 3, width=5).double(), small, data)
    with pytest.raises(ValueError, match="use alpha=False"):
        excess_bound(small, small, data, alpha=True)
