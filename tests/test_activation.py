"""The gate's activation: torch's own PReLU is the oracle, and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair import gates
from linfair.models import build

SHAPES = [(1, 1), (5, 7), (130, 4099)]  # the last takes several chunks, none of them whole


def case(n: int, units: int, dtype: torch.dtype, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n + units)
    x = torch.randn(n, units, generator=draw).to(dtype)
    x[torch.rand(n, units, generator=draw) < 0.1] = 0.0  # where a ReLU's gradient is 0
    alpha = torch.rand(units, generator=draw)
    return x, alpha.round() if kind == "binary" else alpha, torch.randn(n, units, generator=draw).to(dtype)


def gradients(function, x: Tensor, alpha: Tensor, g: Tensor, trained: bool) -> list[Tensor]:
    x, alpha = x.clone().requires_grad_(), alpha.clone().requires_grad_(trained)
    out = function(x, alpha)
    return [out.detach(), *torch.autograd.grad(out, [x, alpha] if trained else [x], g)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kind", "trained"), [("binary", False), ("between", False), ("binary", True), ("between", True)]
)
def test_values_and_gradients_are_those_of_prelu(shape, kind, trained, dtype):
    x, alpha, g = case(*shape, dtype, kind)
    ours = gradients(gates.gate, x, alpha, g, trained)
    torchs = gradients(lambda x, alpha: F.prelu(x, (1 - alpha).to(x.dtype)), x, alpha, g, trained)
    assert torch.equal(ours[0], torchs[0])
    # rounding: one product is taken in two parts, and torch adds up the batch in another order
    coarse = 2 * shape[0] ** 0.5 * torch.finfo(dtype).eps
    for one, two in zip(ours[1:], torchs[1:], strict=True):
        torch.testing.assert_close(one, two, rtol=coarse, atol=coarse)
    if not trained:
        assert torch.equal(ours[1], torchs[1])


@pytest.mark.parametrize("trained", [False, True])
def test_gradients_and_their_gradients_equal_finite_differences(trained):
    x, alpha, _ = case(3, 4, torch.float64, "between" if trained else "binary")
    x = (x + 0.1 * x.sign() + 0.2 * (x == 0)).requires_grad_()  # away from the kink
    alpha = alpha.double().requires_grad_(trained)
    inputs = (x, alpha) if trained else (x,)
    function = gates.gate if trained else lambda x: gates.gate(x, alpha)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_gradient_at_zero_is_that_of_relu():
    x = torch.zeros(2, 2, requires_grad=True)
    gates.gate(x, torch.tensor([1.0, 0.0])).sum().backward()
    assert x.grad.tolist() == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_gate_sees_an_alpha_that_changes_behind_its_back(memory):
    gate = gates.ReLUGate((3, 2, 2))
    gate.alpha.requires_grad_(False)
    x = -torch.ones(2, 3, 2, 2).contiguous(memory_format=memory).requires_grad_()
    for value in (1.0, 0.0, 1.0):
        gate.alpha.data.fill_(value)  # leaves no trace in the tensor's version
        assert torch.equal(gate(x), x * (1 - value))
        gate.alpha.data[0, 0, 0] = 1 - value
        assert gate(x)[0, 0, 0, 0] == -value


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_gated_network_has_the_gradients_of_one_with_relus(memory):
    plain = build("resnet18", (3, 8, 8), 3, width=4).double()
    gated = gates.freeze(gates.install(plain, (3, 8, 8))).to(memory_format=memory)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for network in (plain, gated):
        F.cross_entropy(network(x.contiguous(memory_format=memory)), torch.tensor([0, 1, 2, 0])).backward()
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(gated.get_parameter(name).grad, weight.grad)


def test_it_runs_under_vmap_and_torch_func_as_prelu():
    x, alpha, g = case(5, 7, torch.float64, "binary")
    alpha = alpha.double()

    def loss(x: Tensor) -> Tensor:
        return (gates.gate(x.unsqueeze(0), alpha) * g[0]).sum()

    each = torch.func.vmap(torch.func.grad(loss))(x)
    passed = (x > 0) | (alpha == 0)
    assert torch.equal(each, g[0] * passed)


def test_a_frozen_gate_between_relu_and_identity_takes_the_general_way():
    module = nn.Sequential(gates.ReLUGate((2,)))
    gates.set_alphas(module, lambda site, alpha: torch.full_like(alpha, 0.25))
    x = torch.tensor([[-4.0, 4.0]], requires_grad=True)
    gates.freeze(module)(x).sum().backward()
    assert x.grad.tolist() == [[0.75, 1.0]]
