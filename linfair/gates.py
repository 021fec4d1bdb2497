"""ReLU gates: the one thing everything here is about.

A *site* is one call of a ReLU layer, a *unit* one scalar ReLU of it. A gate puts one weight alpha on each unit,

    gate(x) = alpha * relu(x) + (1 - alpha) * x = where(x > 0, x, (1 - alpha) * x),

so alpha = 1 is ReLU, alpha = 0 the identity, and values in between are the relaxation that Selective Network
Linearization trains (Cho et al., ICML 2022; Das et al., ICML 2024, Sec. 2). The second form is a PReLU with one slope
1 - alpha per unit. Torch's own computes the slopes' gradients whether they are wanted or not; here, on a processor,

    alpha in {0, 1}:  out = max(x, f),  f = 0 (ReLU) or -inf (identity);    dL/dx = g [max(out, 1 - alpha) > 0]
    otherwise:        dL/dx = g where(x > 0, 1, 1 - alpha),  dL/dalpha = -sum over the batch of g min(x, 0)

with g the gradient of the output: as for PReLU, 0 at x = 0 for a ReLU included, at nearly the price of a plain ReLU.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from linfair.callsites import SharedGates, UngatedReLU, own, redirect, split_graph
from linfair.ensemble import Ensemble
from linfair.functional import GateError, Watched, survey, watch
from linfair.nonlinear import Nonlinearity


class NoReLU(GateError):
    """A network that computes no ReLU on its inputs."""


_HELD: WeakKeyDictionary[nn.Module, tuple[Tensor, dict]] = WeakKeyDictionary()  # gate -> alpha, what is made of it


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Within it nobody changes frozen alphas, so that what they are turned into at every call is kept."""
    frozen = [one for one in model.modules() if isinstance(one, ReLUGate) and not one.alpha.requires_grad]
    _HELD.update({one: (one.alpha, {}) for one in frozen})
    try:
        yield
    finally:
        for one in frozen:
            _HELD.pop(one, None)


def gate(x: Tensor, alpha: Tensor, kept: dict | None = None) -> Tensor:
    """One alpha for each unit, x (n, units), alpha (units,) -> where(x > 0, x, (1 - alpha) x), as precise as x."""
    trains = torch.is_grad_enabled() and (x.requires_grad or alpha.requires_grad)
    here = trains and x.device.type == "cpu" and not _elsewhere()
    kept = {} if kept is None else kept
    if (made := kept.get((x.dtype, here))) is None:
        # where every gate is open or shut, the logarithm is 0 or -inf
        frozen = here and not alpha.requires_grad and torch.equal(alpha * alpha, alpha)
        made = kept[x.dtype, here] = (1 - alpha).to(x.dtype), alpha.log().to(x.dtype) if frozen else None
    slope, floor = made
    if floor is not None:
        return _Frozen.apply(x, floor, slope)
    return _Trained.apply(x, slope) if here and alpha.requires_grad else F.prelu(x, slope)


def _elsewhere() -> bool:
    return torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()


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
    """Slices of the batch axis that fit a processor's cache, each with so many tensors of its size to write to."""
    size = max(1, 2**18 // x.shape[1])
    room = [x.new_empty(min(size, len(x)), x.shape[1]) for _ in range(spaces)]
    for start in range(0, len(x), size):
        some = slice(start, min(start + size, len(x)))
        yield some, [one[: some.stop - some.start] for one in room]


class ReLUGate(nn.Module):
    """A ReLU layer with one weight per unit: the parameter `alpha` has the `shape` of one input, and starts as ones.

    >>> gate = ReLUGate((2,))
    >>> _ = gate.alpha.data.copy_(torch.tensor([1.0, 0.0]))  # unit 0: ReLU, unit 1: identity
    >>> gate(torch.tensor([[2.0, 2.0], [-3.0, -3.0]])).tolist() == [[2.0, 2.0], [0.0, -3.0]]
    True
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(shape))

    def forward(self, input: Tensor) -> Tensor:
        """Apply the gate to an input of shape (n, *alpha.shape)."""
        x = input
        if x.shape[1:] != self.alpha.shape:
            text = f"this gate holds {tuple(self.alpha.shape)} units, its input is {tuple(x.shape[1:])}: install the "
            raise GateError(f"{text}gates again with an input of that size")
        last = x.ndim == 4 and 1 == x.stride(1) < x.shape[1] == x.stride(3)
        own = None if _elsewhere() else _HELD.get(self)
        kept = own[1].setdefault(last, {}) if own is not None and own[0] is self.alpha else {}
        if (alpha := kept.get("alpha")) is None:
            alpha = kept["alpha"] = (self.alpha.permute(1, 2, 0) if last else self.alpha).flatten()
        if last:  # no copy
            out = gate(x.permute(0, 2, 3, 1).flatten(1), alpha, kept)
            return out.reshape(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
        return gate(x.reshape(len(x), alpha.numel()), alpha, kept).view_as(x)

    def extra_repr(self) -> str:
        """Show the site's shape in the network's printout."""
        return f"shape={tuple(self.alpha.shape)}"


def install(model: nn.Module, input_shape: tuple[int, ...]) -> nn.Module:
    """Copy a network and put a gate at every ReLU it computes, every alpha 1: the same function, in training mode too.

    The copy is run, in evaluation mode, on 2 and on 3 random inputs, before and after, to see that it computes the same
    and no ReLU outside a gate. ReLUs are `nn.ReLU` modules, functions (`F.relu`, `x.relu()`) and other spellings:
    `clamp(min=0)`, `maximum` with zeros, `threshold`, `hardtanh` and `leaky_relu` with the numbers that make them one.
    A ReLU under several names gets a gate for each name, one that a forward pass calls several times a gate for each
    call (`linfair.callsites`). A ReLU on weights alone stays: the server computes it. `input_shape` is that of one
    input.

    Raises:
        GateError: If the network has gates or no ReLU, is one bare ReLU, or computes one where no gate can be put, on
            something folded into the batch axis, or in place on what is used again; the message names the module.
    """
    if sites(model):
        raise GateError("this network has gates already; install them on the original network")
    gated, name = copy.deepcopy(model), type(model).__name__
    found = seen = survey(gated, input_shape, skip=(ReLUGate,))
    if seen.capped:
        text = f"{seen.named(seen.capped)} computes a ReLU6, whose upper bend a gate cannot express; replace it by "
        raise GateError(f"{text}nn.ReLU and fine-tune")
    if _is_relu(gated, seen):
        raise GateError("this network is one bare nn.ReLU; put it into an nn.Sequential")
    if not seen.calls and not seen.hidden:
        others = f", only {'; '.join(map(str, seen.others))}" if seen.others else ""
        raise NoReLU(f"{name} computes no ReLU{others}: there is nothing to linearize")
    places = [child for parent in gated.modules() for child in parent._modules.values() if isinstance(child, nn.ReLU)]
    traced = any(isinstance(one, fx.GraphModule) for one in gated.modules())
    if seen.hidden or traced or len(set(places)) < len(places):
        found = _separated(gated, seen, input_shape)
    _check_training(gated, found, input_shape)
    shared = _put_gates(gated, found)
    if not sites(gated):
        raise NoReLU(f"{name} computes ReLUs on its weights alone: there is nothing to linearize")
    last = watch(gated, input_shape, skip=(ReLUGate,))
    for one in shared:
        one.learning = False
    if last.hidden:
        raise _hidden(last)
    if not _close(last.output, seen.output):
        text = f"{name} with gates would compute something else: the input of an in-place ReLU is used again (write x "
        raise GateError(f"{text}= relu(x) and use that), or a subclass of nn.ReLU is no ReLU")
    return gated


def _is_relu(module: nn.Module, seen: Watched) -> bool:
    """Whether a module is one ReLU: `nn.ReLU`, or another with the numbers that make it one."""
    spelled = type(module) in (nn.Threshold, nn.LeakyReLU, nn.Hardtanh, nn.ELU)
    return isinstance(module, nn.ReLU) or (spelled and module in seen.hidden)


def _separated(network: nn.Module, seen: Watched, input_shape: tuple[int, ...]) -> Watched:
    """Give every name of a ReLU module, every call in a traced network and functional ReLUs a module of their own."""
    modules = list(network.modules())
    for module in modules:
        if isinstance(module, fx.GraphModule):
            split_graph(module, lambda one: _is_relu(one, seen))
    for parent in modules:
        for name, child in parent._modules.items():
            if child is not None and _is_relu(child, seen):
                parent._modules[name] = UngatedReLU()
    for module in seen.hidden:
        if isinstance(module, fx.GraphModule) or _is_relu(module, seen):
            continue
        if type(module).__module__.startswith("torch.nn."):
            raise _hidden(seen)
        redirect(module, seen.names[module])
    found = survey(network, input_shape)
    if found.hidden:
        raise _hidden(found)
    return found


def _hidden(seen: Watched) -> GateError:
    if theirs := {module for module in seen.hidden if type(module).__module__.startswith("torch.nn.")}:
        return GateError(
            f"{seen.named(theirs)} computes ReLUs inside torch's own code, where no gate can be put; write that layer "
            "with nn.ReLU modules"
        )
    spelled = ", ".join(sorted(set(seen.hidden.values())))
    return GateError(
        f"{seen.named(seen.hidden)} computes a ReLU in a way that no gate can replace (operator {spelled}); write it "
        "as torch.relu or nn.ReLU in its forward"
    )


def _check_training(network: nn.Module, found: Watched, input_shape: tuple[int, ...]) -> None:
    """Refuse a ReLU module that training calls more often than evaluation does: a gate belongs to one call."""
    try:
        training = watch(copy.deepcopy(network), input_shape, training=True)
    except Exception:  # a forward that wants more in training, such as labels, tells nothing
        return
    often = {training.names[module]: len(calls) for module, calls in training.calls.items()}
    for relu, shapes in found.sites.items():
        name = found.names[relu]
        if often.get(name, 0) > len(shapes):
            text = f"{name} is called {len(shapes)} times in evaluation mode and {often[name]} times in training mode: "
            raise GateError(f"{text}a gate belongs to one call; give the calls of training an nn.ReLU of their own")


def _put_gates(network: nn.Module, found: Watched) -> list[SharedGates]:
    """Replace each called ReLU by its gates; returns those that several calls share."""
    device = next(network.parameters(), torch.empty(0)).device
    places = {child: (parent, name) for parent in network.modules() for name, child in parent._modules.items()}
    shared: dict[nn.Module, list[tuple[str, SharedGates]]] = {}
    for relu, shapes in found.sites.items():
        parent, name = places[relu]
        if isinstance(parent, nn.TransformerEncoderLayer):
            parent.activation_relu_or_gelu = 0  # no fused operator, which would know no gate
        gates = [UngatedReLU() if shape is None else ReLUGate(shape).to(device) for shape in shapes]
        if len(gates) == 1 and name != "functional_relu":
            parent._modules[name] = gates[0]
            continue
        paths = zip(*(inside for _, inside in found.calls[relu]), strict=False)
        together = [same[0] for same in paths if len(set(same)) == 1]
        owner = [module for module in together if found.entered[module] == 1][-1]  # the innermost
        parent._modules[name] = SharedGates(gates, found.names[owner])
        shared.setdefault(owner, []).append((name, parent._modules[name]))
    for owner, named in shared.items():
        own(owner, [one for _, one in named], compiles="functional_relu" not in dict(named))
    return [one for named in shared.values() for _, one in named]


def nonlinearities(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[Nonlinearity, ...]:
    """Every nonlinearity of a network, gated or not, but its ReLUs: what private inference pays for as well.

    A record a kind, counted for one input, in the order of first use; those on weights alone are left out.

    >>> print(*nonlinearities(nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(), nn.MaxPool2d(2)), (1, 6, 6)), sep="; ")
    32 LeakyReLU in 1; 8 MaxPool outputs (3 comparisons each) in 2
    """
    return survey(model, input_shape, skip=(ReLUGate,)).others


def _close(outputs: object, expected: object) -> bool:
    """Whether two outputs, tensors or structures of them, are equal to rounding."""
    for one, two in zip(tree_leaves(outputs), tree_leaves(expected), strict=True):
        if isinstance(two, Tensor) and two.is_floating_point() and two.numel():
            tolerance = min(10 * torch.finfo(two.dtype).eps ** 0.5, 0.05)
            scale = two.abs().nan_to_num(posinf=0.0).max().item()
            if not torch.allclose(one, two, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
                return False
    return True


def sites(model: nn.Module) -> dict[str, ReLUGate]:
    """The gates of a network by site name, in the order of its modules."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ReLUGate)}


def alphas(model: nn.Module) -> dict[str, Tensor]:
    """The alphas by site name in one network, each (members, *site shape); a plain network is one member."""
    stacked = isinstance(model, Ensemble)
    if not (found := sites(model.network if stacked else model)):
        raise GateError(f"{type(model).__name__} has no gates: call linfair.gates.install first")
    return {name: gate.alpha if stacked else gate.alpha.unsqueeze(0) for name, gate in found.items()}


def total_units(model: nn.Module) -> int:
    """Number of gated units of one network (of one member, for an ensemble)."""
    return sum(alpha[0].numel() for alpha in alphas(model).values())


def kept_units(model: nn.Module, *, threshold: float = 1e-2) -> Tensor:
    """Units that count as ReLUs, alpha > threshold (0.01 as in SNL's code), of each member: int64, shape (members,)."""
    return sum((alpha.detach() > threshold).reshape(len(alpha), -1).sum(1) for alpha in alphas(model).values())


def freeze(model: nn.Module, frozen: bool = True) -> nn.Module:
    """Take the alphas out of training (or put them back in); returns the same network."""
    alphas(model)  # refuses a network without gates
    for gate in sites(model).values():
        gate.alpha.requires_grad_(not frozen)
    return model


def binarise(model: nn.Module, *, threshold: float = 1e-2) -> nn.Module:
    """Set every alpha to exactly 1 (alpha > threshold) or 0 and freeze it; returns the same network."""
    return freeze(set_alphas(model, lambda _, alpha: alpha > threshold))


def set_alphas(model: nn.Module, values: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """Overwrite the alphas by a function of site name and present alpha, both with a members axis; returns the same."""
    with torch.no_grad():
        for name, alpha in alphas(model).items():
            alpha.copy_(values(name, alpha))
    return model
