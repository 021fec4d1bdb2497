"""The gate's activation on a processor, at nearly the price of a plain ReLU.

A gate computes out = where(x > 0, x, (1 - alpha) x), a PReLU with a slope 1 - alpha for each unit. Torch's own PReLU
takes one pass forward; its backward pass computes the slopes' gradients whether they are wanted or not, and costs
several times that of a ReLU. Here, with g the gradient of the output,

    alpha in {0, 1}:  out = max(x, f),  f = 0 (ReLU) or -inf (identity);    dL/dx = g [max(out, 1 - alpha) > 0]
    otherwise:        dL/dx = g where(x > 0, 1, 1 - alpha),  dL/dalpha = -sum over the batch of g min(x, 0)

Both gradients are those of PReLU, 0 at x = 0 for a ReLU included. They are computed for a few images at a time, so
that what lies between two operations stays in the processor's cache. On a GPU, under `torch.func` and `torch.compile`
the gate is torch's PReLU.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 18
"""Numbers that are worked on at a time."""


def gate(x: Tensor, alpha: Tensor) -> Tensor:
    """Apply one alpha for each unit, x (n, units) and alpha (units,): where(x > 0, x, (1 - alpha) x), as precise as x.

    >>> gate(torch.tensor([[2.0, -3.0], [-2.0, 3.0]]), torch.tensor([1.0, 0.0])).tolist()
    [[2.0, -3.0], [-0.0, 3.0]]
    """
    slope = (1 - alpha).to(x.dtype)
    trains = torch.is_grad_enabled() and (x.requires_grad or alpha.requires_grad)
    elsewhere = torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()
    if trains and x.device.type == "cpu" and not elsewhere:
        if alpha.requires_grad:
            return _Trained.apply(x, slope)
        if torch.equal(alpha * alpha, alpha):  # every gate is open or shut: the logarithm is 0 or -inf
            return _Frozen.apply(x, alpha.log().to(x.dtype), slope)
    return F.prelu(x, slope)


class _Frozen(torch.autograd.Function):
    """A ReLU where the floor is 0, the identity where it is -inf."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, floor: Tensor, linear: Tensor) -> Tensor:
        out = torch.maximum(x, floor)
        ctx.save_for_backward(out, linear)
        return out

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> tuple[Tensor, None, None]:
        out, linear = ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient is differentiated again
            return g * (torch.maximum(out, linear) > 0), None, None
        into = torch.empty_like(g)
        for some, (passed,) in _chunks(out, 1):
            torch.maximum(out[some], linear, out=passed)
            torch.ops.aten.threshold_backward.grad_input(g[some], passed, 0, grad_input=into[some])
        return into, None, None


class _Trained(torch.autograd.Function):
    """A PReLU with one slope for each unit."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            return g * torch.where(x > 0, 1.0, slope), (g * x.clamp(max=0)).sum(0).to(slope.dtype)
        into, rest = torch.empty_like(g), 1 - slope
        slopes = torch.zeros_like(slope, dtype=torch.promote_types(slope.dtype, torch.float32))
        for some, (one, two) in _chunks(x, 2):
            torch.mul(g[some], rest, out=one)
            torch.ops.aten.threshold_backward.grad_input(one, x[some], 0, grad_input=two)
            torch.addcmul(two, g[some], slope, out=into[some])
            torch.clamp_max(x[some], 0, out=one)
            slopes += one.mul_(g[some]).sum(0)
        return into, slopes.to(slope.dtype)


def _chunks(x: Tensor, spaces: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Slices of the batch axis of about `CHUNK` numbers, each with so many tensors of its size to write to."""
    size = max(1, CHUNK // x.shape[1])
    room = [x.new_empty(min(size, len(x)), x.shape[1]) for _ in range(spaces)]
    for start in range(0, len(x), size):
        some = slice(start, min(start + size, len(x)))
        yield some, [one[: some.stop - some.start] for one in room]
