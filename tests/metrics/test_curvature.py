"""Top Hessian eigenvalues against dense Hessians, closed forms, finite differences and curvlinops."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_groups import grouped, network
from torch import Tensor, nn
from torch.func import functional_call

from linfair.data import GroupedData, Split
from linfair.ensemble import Ensemble
from linfair.gates import freeze, install, set_alphas, sites
from linfair.metrics.curvature import hessian_product, top_eigenvalue_pairs, top_eigenvalues
from linfair.metrics.gradients import ParameterRisk


def smooth(seed: int) -> nn.Module:
    """A 3-4-3 tanh network in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def dense(model: nn.Module, x: Tensor, y: Tensor, *, alpha: bool) -> Tensor:
    """Hessian of the mean cross entropy by torch.autograd.functional.hessian, weights first, alphas last."""
    gates = {id(gate.alpha) for gate in sites(model).values()}
    named = sorted(model.named_parameters(), key=lambda item: id(item[1]) in gates)
    free = {name: value.detach() for name, value in named if alpha or id(value) not in gates}
    sizes = [value.numel() for value in free.values()]

    def risk(vector: Tensor) -> Tensor:
        pieces = vector.split(sizes)
        values = {name: piece.view_as(free[name]) for name, piece in zip(free, pieces, strict=True)}
        return F.cross_entropy(functional_call(model, values, (x,)), y)

    start = torch.cat([value.flatten() for value in free.values()])
    return torch.autograd.functional.hessian(risk, start)


def extreme(hessian: Tensor, which: str) -> float:
    values = torch.linalg.eigvalsh(hessian)
    return (values[-1] if which == "LA" else values[values.abs().argmax()]).item()


def with_groups(data: GroupedData, a: Tensor) -> GroupedData:
    part = data.splits["train"]
    return replace(data, splits={"train": Split(part.x, part.y, a)})


NETWORKS = {
    "tanh": (lambda: smooth(1), False),
    "relu": (lambda: network(2, gated=False), False),
    "gated": (lambda: network(3), False),
    "gated with alpha": (lambda: network(4), True),
    "frozen with alpha": (lambda: freeze(network(5)), True),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("which", ["LA", "LM"])
def test_exact_equals_the_dense_hessians_eigenvalue(name: str, which: str) -> None:
    make, alpha = NETWORKS[name]
    data, model = grouped(1), make()
    part = data.splits["train"]
    rows = top_eigenvalues(model, data, which=which, alpha=alpha, tol=1e-8, batch_size=4)
    assert [row.group for row in rows] == [0, 1, 2]
    for row in rows:
        pick = part.a == row.group
        expected = extreme(dense(model, part.x[pick], part.y[pick], alpha=alpha), which)
        assert row.value == pytest.approx(expected, rel=1e-8)
        assert row.converged
        assert row.residual <= 1e-8 * abs(row.value)
        assert (row.n, row.batches) == (int(pick.sum()), 1)


def negative() -> tuple[nn.Module, GroupedData]:
    """A tanh network whose labels are all wrong: the most negative eigenvalue is the largest in absolute value."""
    model, data = smooth(0), grouped(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        part = data.splits["train"]
        wrong = model(part.x).argmin(1)
    return model, replace(data, splits={"train": Split(part.x, wrong, part.a)})


def test_largest_in_absolute_value_may_be_negative_and_keeps_its_sign() -> None:
    """Oracle: the dense Hessian, of a network that is sure of the wrong labels."""
    model, data = negative()
    part = data.splits["train"]
    pick = part.a == 0
    hessian = dense(model, part.x[pick], part.y[pick], alpha=False)
    (algebraic,) = top_eigenvalues(model, data, groups=[0], tol=1e-8)
    (absolute,) = top_eigenvalues(model, data, groups=[0], which="LM", tol=1e-8)
    assert absolute.value == pytest.approx(extreme(hessian, "LM"), rel=1e-8)
    assert algebraic.value == pytest.approx(extreme(hessian, "LA"), rel=1e-8)
    assert absolute.value < 0 < algebraic.value < -absolute.value


@given(st.integers(0, 1000))
def test_linear_classifier_equals_its_closed_form(seed: int) -> None:
    """Logistic regression: H = mean (diag(p) - p p') kron (x, 1)(x, 1)', independent of the labels."""
    data, model = grouped(seed), nn.Linear(3, 3).double()
    part = data.splits["train"]
    for row in top_eigenvalues(model, data, tol=1e-9):
        x = part.x[part.a == row.group]
        p = model(x).softmax(1).detach()
        extended = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
        spread = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        hessian = torch.einsum("nij,nk,nl->ikjl", spread, extended, extended).reshape(12, 12) / len(x)
        assert row.value == pytest.approx(extreme(hessian, "LA"), rel=1e-8)
        assert row.converged


@pytest.mark.parametrize("batch_size", [4, 512])
@pytest.mark.parametrize("alpha", [False, True])
def test_products_equal_the_dense_hessians(batch_size: int, alpha: bool) -> None:
    """Oracle: the dense Hessian, graph kept between products (512) or not (4), three products each."""
    data, model = grouped(2), network(2)
    part = data.splits["train"]
    risk = ParameterRisk(model, data, "train", alpha=alpha, batch_size=batch_size)
    (index,) = risk.positions(0, "exact")
    assert len(index) > 4
    product = hessian_product(risk, index)
    hessian = dense(model, part.x[index], part.y[index], alpha=alpha)
    for vector in torch.randn(3, risk.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)):
        torch.testing.assert_close(product(vector), hessian @ vector, rtol=1e-10, atol=1e-10)


class Attending(nn.Module):
    """Two tokens of 4 numbers, made of 3, that attend to each other; torch has one operator for it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(8, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        tokens = self.embed(x).view(-1, 2, 4)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].flatten(1))


@pytest.mark.parametrize(("model", "alpha"), [(network(3), False), (network(3), True), (Attending(), False)])
def test_products_equal_finite_differences_of_the_gradient(model: nn.Module, alpha: bool) -> None:
    """Central differences of our gradient along a random direction, on a gated network with fractional alphas."""
    data = grouped(3)
    risk = ParameterRisk(model, data, "train", alpha=alpha)
    (index,) = risk.positions(1, "exact")
    direction = torch.randn(risk.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = hessian_product(risk, index)(direction)
    sizes = [parameter.numel() for parameter in risk.parameters]

    def gradient_at(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, piece in zip(risk.parameters, direction.split(sizes), strict=True):
                parameter += step * piece.view_as(parameter)
        gradient = risk.gradient(index)
        with torch.no_grad():
            for parameter, piece in zip(risk.parameters, direction.split(sizes), strict=True):
                parameter -= step * piece.view_as(parameter)
        return gradient

    expected = (gradient_at(1e-6) - gradient_at(-1e-6)) / 2e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_convolutions_with_batch_norm_and_gates_equal_the_dense_hessian() -> None:
    """Two convolutions in evaluation mode, fractional alphas; oracle: the dense Hessian."""
    torch.manual_seed(0)
    data = grouped(3, n=9, features=(1, 4, 4))
    blocks = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU()]
    plain = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        plain.train()(3 + 2 * torch.randn(8, 1, 4, 4, dtype=torch.float64))
    gated = install(plain.eval(), (1, 4, 4)).double()
    model = set_alphas(gated, lambda _, alpha: torch.full_like(alpha, 0.4)).train()
    part = data.splits["train"]
    pick = part.a == 0
    (row,) = top_eigenvalues(model, data, groups=[0], tol=1e-8, batch_size=2)
    assert model.training
    expected = extreme(dense(model.eval(), part.x[pick], part.y[pick], alpha=False), "LA")
    assert row.value == pytest.approx(expected, rel=1e-8)


@settings(max_examples=4)
@given(st.integers(0, 1000), st.integers(5, 30), st.sampled_from(["LA", "LM"]))
def test_exact_depends_neither_on_batch_size_nor_on_order(seed: int, batch_size: int, which: str) -> None:
    data, model = grouped(seed), network(seed)
    part, order = data.splits["train"], torch.randperm(23, generator=torch.Generator().manual_seed(seed))
    shuffled = replace(data, splits={"train": Split(part.x[order], part.y[order], part.a[order])})
    one = top_eigenvalues(model, data, which=which, tol=1e-9)
    two = top_eigenvalues(model, shuffled, which=which, tol=1e-9, batch_size=batch_size)
    assert [row.value for row in one] == pytest.approx([row.value for row in two], rel=1e-8)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # on importing curvlinops
def test_convnet_equals_curvlinops_operator() -> None:
    """Oracle: curvlinops' HessianLinearOperator and eigsh on a float32 convnet, to 1e-4."""
    curvlinops = pytest.importorskip("curvlinops")
    sparse = pytest.importorskip("scipy.sparse.linalg")
    data = grouped(4, n=20, features=(1, 6, 6))
    part = data.splits["train"]
    data = replace(data, splits={"train": Split(part.x.float(), part.y, part.a)})
    part = data.splits["train"]
    torch.manual_seed(0)
    blocks = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 2, stride=2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*blocks, nn.Linear(16, 3)).eval()
    for row in top_eigenvalues(model, data, groups=[0, 2], batch_size=7):
        pick = part.a == row.group
        operator = curvlinops.HessianLinearOperator(
            model, nn.CrossEntropyLoss(), list(model.parameters()), [(part.x[pick], part.y[pick])]
        )
        expected = sparse.eigsh(operator.to_scipy(), k=1, which="LA", tol=1e-5, return_eigenvectors=False)[0]
        assert row.converged
        assert row.value == pytest.approx(expected, rel=1e-4)


def test_float32_converges_at_the_default_tolerance(digits: GroupedData, teacher: nn.Module) -> None:
    """Oracle: the same network in float64 arithmetic at a tolerance of 1e-8."""
    rough = top_eigenvalues(teacher, digits, groups=[0, 9])
    fine = top_eigenvalues(teacher, digits, groups=[0, 9], dtype=torch.float64, tol=1e-8)
    assert all(row.converged for row in rough + fine)
    assert [row.value for row in rough] == pytest.approx([row.value for row in fine], rel=1e-4)


def test_a_flat_risk_has_eigenvalue_zero() -> None:
    """Logits 1000 apart with the right label: every loss is exactly 0 around here, and so is the Hessian."""
    data = grouped(0)
    part = data.splits["train"]
    data = replace(data, splits={"train": Split(part.x, torch.zeros_like(part.y), part.a)})
    model = nn.Linear(3, 3).double()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor([2000.0, 0.0, 0.0]))
    for row in top_eigenvalues(model, data):
        assert (row.value, row.residual, row.converged, row.products) == (0.0, 0.0, True, 1)


class _Scale(nn.Module):
    """Logits (0, w x): one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.7], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the first feature."""
        return torch.stack([torch.zeros(len(x), dtype=x.dtype), self.w * x[:, 0]], dim=1)


def test_one_parameter_equals_the_second_derivative() -> None:
    """Logistic loss of one weight: J'' = mean x^2 p (1 - p)."""
    data = grouped(5, classes=2)
    part = data.splits["train"]
    for row in top_eigenvalues(_Scale(), data):
        x = part.x[part.a == row.group, 0]
        p = (0.7 * x).sigmoid()
        assert row.value == pytest.approx((x**2 * p * (1 - p)).mean().item(), rel=1e-12)
        assert row.converged


def test_network_is_left_as_it_is_and_no_grad_does_not_matter() -> None:
    data, model = grouped(6), freeze(network(6)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    expected = top_eigenvalues(model, data, alpha=True)
    with torch.no_grad():
        assert top_eigenvalues(model, data, alpha=True) == expected
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("estimator", ["exact", "per_batch"])
def test_pairs_equal_both_searches_run_apart(estimator: str) -> None:
    """Oracle: `top_eigenvalues`; one network's LM is positive and serves as LA, the other's is negative for a group."""
    options = {"estimator": estimator, "tol": 1e-8, "batch_size": 12}
    signs = set()
    for model, data in ((network(8), grouped(8)), negative()):
        pairs = top_eigenvalue_pairs(model, data, **options)
        for number, which in enumerate(("LA", "LM")):
            for pair, row in zip(pairs, top_eigenvalues(model, data, which=which, **options), strict=True):
                assert pair[number].value == pytest.approx(row.value, rel=1e-7)
                assert (pair[number].group, pair[number].n, pair[number].batches) == (row.group, row.n, row.batches)
                assert pair[number].converged and row.converged
        signs |= {absolute.value > 0 for _, absolute in pairs}
    assert signs == {True, False}


# per_batch


@pytest.mark.parametrize("which", ["LA", "LM"])
def test_per_batch_equals_the_released_loop_written_out(which: str) -> None:
    """Oracle: the dense Hessian of each stored batch's inputs of the group, then the maximum over batches."""
    model, data = negative()
    part = data.splits["train"]
    for row in top_eigenvalues(model, data, which=which, estimator="per_batch", tol=1e-8, batch_size=6):
        seen = []
        for first in range(0, 23, 6):
            x, y, a = (v[first : first + 6] for v in (part.x, part.y, part.a))
            if (a == row.group).any():
                seen.append(extreme(dense(model, x[a == row.group], y[a == row.group], alpha=False), which))
        expected = max(seen, key=lambda value: value if which == "LA" else abs(value))
        assert row.value == pytest.approx(expected, rel=1e-7)
        assert row.batches == len(seen)
        assert row.converged


def test_per_batch_with_one_batch_equals_exact() -> None:
    data, model = grouped(7), network(7)
    one = top_eigenvalues(model, data, estimator="per_batch", batch_size=23)
    assert one == top_eigenvalues(model, data, batch_size=23)


@settings(max_examples=4)
@given(st.integers(0, 1000))
def test_per_batch_is_at_least_exact_where_batches_hold_equally_many_of_a_group(seed: int) -> None:
    """lambda_max is convex: that of a mean of Hessians is at most the largest of theirs."""
    model, data = network(seed), grouped(seed, n=12)
    data = with_groups(data, torch.tensor([0, 0, 1, 2] * 3))
    biased = top_eigenvalues(model, data, estimator="per_batch", tol=1e-8, batch_size=4)
    exact = top_eigenvalues(model, data, tol=1e-8)
    assert [row.batches for row in biased] == [3, 3, 3]
    for one, other in zip(biased, exact, strict=True):
        assert one.value >= other.value * (1 - 1e-9)


def test_on_digits_small_batches_inflate_the_eigenvalue(digits: GroupedData, teacher: nn.Module) -> None:
    """Convexity of lambda_max, on real images in random order: a majority and a minority group."""
    groups = [digits.roles.index("majority"), digits.roles.index("minority")]
    part = digits.splits["train"]
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
    shuffled = replace(digits, splits={"train": Split(part.x[order], part.y[order], part.a[order])})
    exact = top_eigenvalues(teacher, shuffled, groups=groups)
    biased = top_eigenvalues(teacher, shuffled, groups=groups, estimator="per_batch", batch_size=16, tol=1e-2)
    assert all(one.value > 1.2 * other.value for one, other in zip(biased, exact, strict=True))


# errors


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: Ensemble([network(0), network(1)]), {}, r"ensemble of 2: use member\(index\)"),
        (lambda: network(0), {"which": "SA"}, "no which='SA'; there are LA .* and LM"),
        (lambda: network(0), {"split": "tset"}, "random has no split 'tset'; there are train"),
        (lambda: network(0), {"estimator": "batch"}, "no estimator 'batch'; there are exact, per_batch"),
        (lambda: network(0), {"groups": [3]}, r"no groups \[3\]; they are numbered 0 to 2"),
        (lambda: network(0), {"tol": 0}, "need tol > 0 .* got tol=0"),
        (lambda: network(0), {"max_iterations": 0}, "got tol=0.0001, max_iterations=0"),
        (lambda: network(0, gated=False), {"alpha": True}, "MLP has no gates"),
    ],
)
def test_refusals_say_what_was_given_and_what_is_allowed(
    make: Callable[[], nn.Module], options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        top_eigenvalues(make(), grouped(0), **options)


def test_groups_without_inputs_are_refused_unless_left_out() -> None:
    data = replace(grouped(0), group_names=("0", "1", "2", "3"))
    with pytest.raises(ValueError, match=r"groups \[3\] have no inputs in split 'train'"):
        top_eigenvalues(network(0), data)
    assert [row.group for row in top_eigenvalues(network(0), data, groups=[2, 0])] == [2, 0]


def test_a_loss_that_is_not_finite_is_refused() -> None:
    data = grouped(0)
    data.splits["train"].x[11] = math.inf
    with pytest.raises(ValueError, match=r"loss of 1 inputs of split 'train' is not finite \(first: input 11\)"):
        top_eigenvalues(network(0), data)


class _Root(nn.Module):
    """Logits sqrt(w)^3 x at w = 0: value and gradient are finite, the second derivative is not."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Scale the first two features."""
        return self.w.pow(1.5) * x[:, :2]


def test_a_product_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="product with the Hessian is not finite"):
        top_eigenvalues(_Root(), grouped(5, classes=2))
