"""ReLU gates: the one thing everything here is about.

A *site* is one call of a ReLU layer, a *unit* one scalar ReLU of it. A gate puts one weight alpha on each unit,

    gate(x) = alpha * relu(x) + (1 - alpha) * x = where(x > 0, x, (1 - alpha) * x),

so alpha = 1 is ReLU, alpha = 0 the identity, and values in between are the relaxation that Selective Network
Linearization trains (Cho et al., ICML 2022; Das et al., ICML 2024, Sec. 2). The second form is a PReLU with one
slope 1 - alpha per unit: one pass forward and one backward, which is how it is computed.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from linfair import activation
from linfair.errors import GateError
from linfair.functional import watch, with_relu_modules


class ReLUGate(nn.Module):
    """A ReLU layer with one weight alpha per unit.

    Args:
        shape: Shape of the layer's input without the batch, for example (channels, height, width).

    Attributes:
        alpha: Parameter of that shape, ones at first (every unit a ReLU).

    >>> gate = ReLUGate((2,))
    >>> _ = gate.alpha.data.copy_(torch.tensor([1.0, 0.0]))  # unit 0: ReLU, unit 1: identity
    >>> gate(torch.tensor([[2.0, 2.0], [-3.0, -3.0]])).tolist() == [[2.0, 2.0], [0.0, -3.0]]
    True
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(shape))
        self._known: tuple[object, Tensor, Tensor | None] = None, self.alpha, None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the gate to x of shape (n, *alpha.shape)."""
        if x.shape[1:] != self.alpha.shape:
            raise GateError(
                f"this gate holds {tuple(self.alpha.shape)} units, its input is {tuple(x.shape[1:])}: "
                "install the gates again with an input of that size"
            )
        last = x.ndim == 4 and 1 == x.stride(1) < x.shape[1] == x.stride(3)
        if not last:
            return activation.gate(x.flatten(1), self.alpha.flatten(), self._switches(x, last)).view_as(x)
        # channels last: flatten in the order of memory, without a copy
        out = activation.gate(x.permute(0, 2, 3, 1).flatten(1), _last(self.alpha), self._switches(x, last))
        return out.reshape(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)

    def _switches(self, x: Tensor, last: bool) -> Tensor | None:
        """What frozen gates do to x, kept until an alpha changes."""
        if self.alpha.requires_grad or not activation.fused(x, self.alpha):
            return None
        alpha, about = self.alpha.detach(), (x.dtype, last)
        if about != self._known[0] or not torch.equal(alpha, self._known[1]):
            switches = activation.switches(_last(alpha) if last else alpha.flatten(), x.dtype)
            self._known = about, alpha.clone(), switches
        return self._known[2]

    def extra_repr(self) -> str:
        """Show the site's shape in the network's printout."""
        return f"shape={tuple(self.alpha.shape)}"


def _last(alpha: Tensor) -> Tensor:
    """Alphas (channels, height, width) in the order of channels-last memory, flat."""
    return alpha.permute(1, 2, 0).flatten()


class SharedGates(nn.Module):
    """The gates of one ReLU module that a forward pass calls several times: each call is its own site."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.calls = nn.ModuleList(ReLUGate(shape) for shape in shapes)
        self.position = 0

    def forward(self, x: Tensor) -> Tensor:
        """Apply the gate whose turn it is."""
        if self.position >= len(self.calls):
            raise GateError(f"this ReLU was called {len(self.calls)} times when gates were installed, now more often")
        gate = self.calls[self.position]
        self.position += 1
        return gate(x)


def _restart(model: nn.Module, _args: object) -> None:
    for module in model.modules():
        if isinstance(module, SharedGates):
            module.position = 0


def install(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """Copy a network and put a gate at every ReLU it computes.

    The copy is run, in evaluation mode, on one random input of the given size: before, to see the sites' shapes, and
    after, to see that it computes the same and no ReLU outside a gate. A module that is called several times, as in
    torchvision's ResNet, gets one site per call. Functional ReLUs (`F.relu`) are turned into modules with torch.fx
    where the network can be traced.

    Args:
        model: Any network with ReLUs; it is left as it is.
        input_shape: Shape of one input, without the batch.

    Returns:
        The copy with gates, every alpha 1: the same function.

    Raises:
        GateError: If the network has gates already, computes no ReLU or a ReLU6, is nothing but one ReLU, hides
            functional ReLUs in a module that torch.fx cannot trace, or uses the input of an in-place ReLU again; the
            message names the module.
    """
    if sites(model):
        raise GateError("this network has gates already; install them on the original network")
    gated = copy.deepcopy(model)
    reference = next(gated.parameters(), torch.empty(0))
    example = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0)).to(reference)
    seen = watch(gated, example)
    original = seen.output
    if seen.hidden:
        gated = with_relu_modules(gated, seen.hidden)
        seen = watch(gated, example)
    if seen.capped:
        raise GateError(
            f"{', '.join(sorted(set(seen.capped)))} computes a ReLU6, whose upper bend a gate cannot express; "
            "replace it by nn.ReLU and fine-tune"
        )
    calls = seen.calls
    if not calls:
        raise GateError(f"{type(model).__name__} computes no ReLU: there is nothing to linearize")
    if gated in calls:
        raise GateError("this network is one bare nn.ReLU; put it into an nn.Sequential")

    gates = {
        relu: (ReLUGate(shapes[0]) if len(shapes) == 1 else SharedGates(shapes)).to(reference.device)
        for relu, shapes in calls.items()
    }
    for name, module in list(gated.named_modules(remove_duplicate=False)):
        if module in gates:
            parent, _, child = name.rpartition(".")
            setattr(gated.get_submodule(parent), child, gates[module])
    if any(isinstance(gate, SharedGates) for gate in gates.values()):
        gated.register_forward_pre_hook(_restart)
    seen = watch(gated, example)
    if seen.hidden:
        raise GateError(
            f"{', '.join(sorted(set(seen.hidden)))} computes ReLUs inside torch's own code, where no gate can be put; "
            "write that layer with nn.ReLU modules"
        )
    if not _close(seen.output, original):
        raise GateError(
            f"{type(model).__name__} with gates would compute something else: the input of an in-place ReLU is used "
            "again (write x = relu(x) and use that), or a subclass of nn.ReLU is no ReLU"
        )
    return gated


def _close(outputs: object, expected: object) -> bool:
    """Whether two outputs, tensors or structures of them, are equal to rounding."""
    for one, two in zip(tree_leaves(outputs), tree_leaves(expected), strict=True):
        if isinstance(two, Tensor) and two.is_floating_point() and two.numel():
            tolerance = 10 * torch.finfo(two.dtype).eps ** 0.5
            scale = two.abs().nan_to_num(posinf=0.0).max().item()
            if not torch.allclose(one, two, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
                return False
    return True


def sites(model: nn.Module) -> dict[str, ReLUGate]:
    """The gates of a network by site name, in the order of its modules."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ReLUGate)}


def alphas(model: nn.Module) -> dict[str, Tensor]:
    """The alphas of a network by site name, each of shape (members, *site shape); one member for a plain network."""
    stacked = getattr(model, "members", None) is not None
    return {name: gate.alpha if stacked else gate.alpha.unsqueeze(0) for name, gate in _required_sites(model).items()}


def _required_sites(model: nn.Module) -> dict[str, ReLUGate]:
    found = sites(model)
    if not found:
        raise GateError(f"{type(model).__name__} has no gates: call linfair.gates.install first")
    return found


def total_units(model: nn.Module) -> int:
    """Number of gated units of one network (of one member, for an ensemble)."""
    return sum(alpha[0].numel() for alpha in alphas(model).values())


def kept_units(model: nn.Module, *, threshold: float = 1e-2) -> Tensor:
    """Number of units that count as ReLUs, alpha > threshold, for each member: int64, shape (members,).

    The threshold 0.01 is the one of SNL's released code.
    """
    counts = [(alpha.detach() > threshold).flatten(1).sum(1) for alpha in alphas(model).values()]
    return torch.stack(counts).sum(0)


def freeze(model: nn.Module, frozen: bool = True) -> nn.Module:
    """Take the alphas out of training (or put them back in); returns the same network."""
    for gate in _required_sites(model).values():
        gate.alpha.requires_grad_(not frozen)
    return model


def binarise(model: nn.Module, *, threshold: float = 1e-2) -> nn.Module:
    """Set every alpha to exactly 1 (alpha > threshold) or 0 and freeze it; returns the same network."""
    with torch.no_grad():
        for gate in _required_sites(model).values():
            gate.alpha.copy_((gate.alpha > threshold).to(gate.alpha.dtype))
    return freeze(model)


def set_alphas(model: nn.Module, values: dict[str, Tensor] | Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Overwrite the alphas, from a dict or from a function of site name and present alpha, both with a members axis."""
    with torch.no_grad():
        for name, alpha in alphas(model).items():
            alpha.copy_(values(name, alpha) if callable(values) else values[name])
    return model
