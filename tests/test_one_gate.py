"""One gate against its formula in numpy, torch at both ends, finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.func import functional_call

from linfair import gates
from linfair.gates import ReLUGate


def reference(x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The module's first formula, alpha * relu(x) + (1 - alpha) * x, in numpy."""
    return alpha * np.maximum(x, 0) + (1 - alpha) * x


@given(
    hnp.arrays(np.float64, (4, 6), elements=st.floats(-1e6, 1e6)),
    hnp.arrays(np.float64, (6,), elements=st.floats(-0.5, 1.5)),
)
def test_gate_equals_the_two_term_formula_in_numpy(x: np.ndarray, alpha: np.ndarray) -> None:
    gate = ReLUGate((6,)).double()
    gates.set_alphas(gate, lambda *_: torch.from_numpy(alpha)[None])
    torch.testing.assert_close(gate(torch.from_numpy(x)), torch.from_numpy(reference(x, alpha)), rtol=1e-12, atol=1e-9)


SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, float("inf")]


def test_gate_with_alpha_one_equals_torch_relu_on_special_values() -> None:
    x = torch.tensor([SPECIAL])
    assert torch.equal(ReLUGate((len(SPECIAL),))(x), torch.relu(x))


def test_gate_with_alpha_zero_equals_the_identity_on_special_values() -> None:
    x = torch.tensor([[*SPECIAL, -float("inf")]])
    gate = ReLUGate((x.shape[1],))
    gate.alpha.data.zero_()
    assert torch.equal(gate(x), x)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gate_lets_nan_through_as_relu_does(alpha: float) -> None:
    gate = ReLUGate((1,))
    gate.alpha.data.fill_(alpha)
    assert gate(torch.tensor([[float("nan")]])).isnan().all()


def test_gate_gradients_equal_finite_differences() -> None:
    """First and second derivatives, for input and alpha, away from the kink at 0."""
    torch.manual_seed(0)
    gate = ReLUGate((3, 2, 2)).double()
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()
    alpha = torch.rand(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, alpha: Tensor) -> Tensor:
        return functional_call(gate, {"alpha": alpha}, (x,))

    assert torch.autograd.gradcheck(call, (x, alpha))
    assert torch.autograd.gradgradcheck(call, (x, alpha))


def test_gate_gradients_equal_their_closed_form() -> None:
    """For sum(w * gate(x)): in x, w where x > 0 else (1 - alpha) w; in alpha, the batch's sum of w (relu(x) - x)."""
    torch.manual_seed(1)
    gate = ReLUGate((4,)).double()
    gate.alpha.data.uniform_()
    x, w = torch.randn(9, 4, dtype=torch.float64, requires_grad=True), torch.randn(9, 4, dtype=torch.float64)
    (w * gate(x)).sum().backward()
    alpha = gate.alpha.detach()
    torch.testing.assert_close(x.grad, torch.where(x > 0, w, (1 - alpha) * w))
    torch.testing.assert_close(gate.alpha.grad, (w * (x.detach().relu() - x.detach())).sum(0))


def test_gate_in_bfloat16_equals_float32_within_two_roundings() -> None:
    """Slope and product are each rounded to bfloat16's 8 bits: relative error at most 2 * 2^-8."""
    torch.manual_seed(2)
    gate = ReLUGate((50,))
    gate.alpha.data.uniform_()
    x = torch.randn(20, 50).bfloat16()
    low = gate(x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), gate(x.float()).detach(), rtol=2**-7, atol=0)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 4), (4, 1, 1)])
def test_gate_on_channels_last_inputs_equals_the_contiguous_one(shape: tuple[int, ...]) -> None:
    """Values bit for bit, alpha gradients to rounding."""
    torch.manual_seed(3)
    gate = ReLUGate(shape)
    gate.alpha.data.uniform_()
    x, found = torch.randn(6, *shape), []
    for form in (torch.contiguous_format, torch.channels_last):
        out = gate(x.contiguous(memory_format=form))
        (gradient,) = torch.autograd.grad(out.square().sum(), gate.alpha)
        found.append((out.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


@pytest.mark.parametrize("shape", [(6,), (3, 2, 2)])
def test_held_gates_compute_the_same_and_see_other_alphas_afterwards_and_those_they_are_called_with(shape) -> None:
    """Oracle: the same gate that nothing is kept of, bit for bit, forward and backward, twice; and the identity."""
    torch.manual_seed(0)
    gate = ReLUGate(shape)
    gate.alpha.data.copy_((torch.rand(shape) < 0.5).float())
    gate.alpha.requires_grad_(False)
    x = torch.randn(4, *shape)
    if len(shape) == 3:
        x = x.contiguous(memory_format=torch.channels_last)

    def both() -> list[Tensor]:
        one = x.clone().requires_grad_()
        (out := gate(one)).square().sum().backward()
        return [out.detach(), one.grad]

    expected = both()
    with gates.held(gate):
        for _ in range(2):
            for found, wanted in zip(both(), expected, strict=True):
                assert torch.equal(found, wanted)
        assert torch.equal(functional_call(gate, {"alpha": torch.zeros(shape)}, x), x)
    gate.alpha.data.zero_()
    assert torch.equal(both()[0], x)
