"""Call sites: which of its gates a ReLU uses when a forward pass calls it more than once.

A ReLU module that is called several times, and a functional ReLU (`F.relu(x)`), have one gate for each call. Which one
is told by *where* the call is made: the lines of the user's own forward passes between the call and the *owner*, the
innermost module that holds all calls and runs once in a pass. Calls on one line (a loop) are told apart by their order,
and a pass that makes another number of them is refused. Owner and caller become subclasses, made on the spot.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from linfair.functional import GateError
from linfair.nonlinear import is_relu

_OURS = ("torch", "linfair.callsites", "linfair.gates")
_ARGUMENTS = {"relu": "", "clamp": "min max", "clip": "min max", "clamp_min": "min", "elu": "alpha"}
_ARGUMENTS |= {"threshold": "threshold value", "hardtanh": "min_val max_val", "leaky_relu": "negative_slope"}
_ARGUMENTS |= dict.fromkeys(("maximum", "fmax", "max"), "other")
_SPELLINGS: dict[object, tuple[str, tuple[str, ...]]] = {
    getattr(place, spelled): ({"clip": "clamp", "max": "maximum"}.get(name, name), ("input", *more.split()))
    for name, more in _ARGUMENTS.items()
    for place in (F, torch, Tensor)
    for spelled in (name, f"{name}_")
    if hasattr(place, spelled)
}
"""Functions and methods that may be a ReLU: what they are called here, and their arguments."""


class UngatedReLU(nn.ReLU):
    """A ReLU that keeps no gate: called in training mode only, or on weights alone, which costs the client nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """max(input, 0)."""
        return torch.ops.aten.relu.default(input)  # past any `_Redirect`


class SharedGates(nn.Module):
    """The gates of one ReLU that a forward pass of `owner` calls several times: one for each call, its own site."""

    def __init__(self, gates: Sequence[nn.Module], owner: str) -> None:
        super().__init__()
        self.calls, self.owner = nn.ModuleList(gates), owner
        self.learning, self.places = True, ()  # where each call is made, noted in the first pass
        self.begin(False)

    def begin(self, inside: bool = True) -> None:
        """Start (or end) a pass of the owner."""
        self.inside, self.position, self.taken = inside, 0, {}

    def forward(self, input: Tensor) -> Tensor:
        """Apply the gate of this call."""
        if not self.inside:
            text = f"these gates belong to the calls that {self.owner} makes, and it is not running: call "
            raise GateError(f"{text}{self.owner}, or a module that holds it, not a part of it")
        number, self.position = self.position, self.position + 1
        if self.learning:
            self.places += (_place(),)
        elif not torch.compiler.is_compiling():
            place = _place()
            same, turn = [n for n, one in enumerate(self.places) if one == place], self.taken.get(place, 0)
            if turn >= len(same):
                raise self._refused(f"more than {len(same)} times from one place" if same else "from another place")
            number, self.taken[place] = same[turn], turn + 1
        if number >= len(self.calls):
            raise self._refused(f"more than {len(self.calls)} times")
        return self.calls[number](input)

    def end(self) -> None:
        """Check that no call of several on one line was left out."""
        for place, count in self.taken.items():
            if count != self.places.count(place):
                raise self._refused(f"{count} times from one place")

    def _refused(self, now: str) -> GateError:
        text = f"a ReLU of {self.owner} was called {len(self.calls)} times when gates were installed, now {now}"
        return GateError(f"{text}: a gate belongs to one call; give each call its own nn.ReLU")


def _place() -> tuple[object, ...]:
    """Where in the user's code this call is made: function, line and instruction of every frame up to the owner's."""
    frame, found = sys._getframe(2), []
    while frame is not None and frame.f_code is not _one_pass.__code__:
        name = str(frame.f_globals.get("__name__"))
        if not any(name == ours or name.startswith(f"{ours}.") for ours in _OURS):
            found.append((frame.f_code.co_name, frame.f_code.co_firstlineno, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def _relu_call(function: object, args: Sequence[object], kwargs: dict[str, object]) -> tuple[str, list[object]]:
    """The operator of a call that is a ReLU, empty for any other, and its arguments up to the last that was given."""
    name, names = _SPELLINGS.get(function, ("", ()))
    given = dict(zip(names, args, strict=False)) | {key: kwargs[key] for key in names if key in kwargs}
    values = [given.get(key) for key in names[: 1 + max((names.index(key) for key in given), default=-1)]]
    return name if not set(kwargs) - {*names, "inplace"} and is_relu(name, values) else "", values


def split_graph(traced: fx.GraphModule, is_relu_module: Callable[[nn.Module], bool]) -> None:
    """Give every ReLU call of a traced network, module or function, a module of its own."""
    calls, seen = [], set()
    for node in traced.graph.nodes:
        target = getattr(Tensor, node.target, None) if node.op == "call_method" else node.target
        if node.op == "call_module" and is_relu_module(traced.get_submodule(target)):
            calls += [node] if target in seen else []
            seen.add(target)
        elif _relu_call(target, node.args, node.kwargs)[0]:
            calls.append(node)
    for number, node in enumerate(calls):
        traced.add_submodule(f"relu_call_{number}", UngatedReLU())
        node.args, node.kwargs = (node.args[0] if node.args else node.kwargs["input"],), {}
        node.op, node.target = "call_module", f"relu_call_{number}"
    traced.recompile()


class _Redirect(TorchFunctionMode):
    """Sends every functional ReLU, in whatever spelling, to one module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __torch_function__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if func in _SPELLINGS and sys._getframe(1).f_globals.get("__name__") != "linfair.gates":
            name, values = _relu_call(func, args, kwargs or {})
            learned = isinstance(self.module, SharedGates) and not self.module.learning
            if name in ("maximum", "fmax"):
                if not learned or _place() in self.module.places:  # elsewhere one of two tensors is 0 by chance
                    return self.module(values[0] if bool(values[0].any()) else values[1])
            elif name:
                return self.module(values[0])
        return func(*args, **(kwargs or {}))


def _one_pass(owner: nn.Module, forward: Callable[..., object], *args: object, **kwargs: object) -> object:
    shared = owner._shared_gates
    for one in shared:
        one.begin()
    try:
        output = forward(owner, *args, **kwargs)
        for one in shared:
            one.end()
    finally:
        for one in shared:
            one.begin(False)
    return output


def _one_eager_pass(owner: nn.Module, forward: Callable[..., object], *args: object, **kwargs: object) -> object:
    return _one_pass(owner, forward, *args, **kwargs)


def _redirected(caller: nn.Module, forward: Callable[..., object], *args: object, **kwargs: object) -> object:
    if caller.__dict__.get("_redirecting"):
        return forward(caller, *args, **kwargs)
    caller.__dict__["_redirecting"] = True
    try:
        with _Redirect(caller.functional_relu):
            return forward(caller, *args, **kwargs)
    finally:
        caller.__dict__["_redirecting"] = False


def _wrapped(method: Callable[..., object], around: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def wrapper(self: nn.Module, *args: object, **kwargs: object) -> object:
        return around(self, method, *args, **kwargs)

    return wrapper


@functools.cache
def _subclass(base: type, around: Callable[..., object]) -> type:
    """A subclass whose forward is `around(module, base.forward, ...)`."""
    own = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    if around is _redirected:  # a method may be called without the forward, and must not pass by the gates
        theirs = [vars(one) for one in reversed(base.__mro__) if not one.__module__.startswith("torch.nn.")]
        for name, method in {name: value for one in theirs for name, value in one.items()}.items():
            if inspect.isfunction(method) and not name.startswith("__") and name not in vars(nn.Module):
                own[name] = _wrapped(method, around)
    compiled = torch.compiler.disable(around) if around is _one_eager_pass else around  # it imports all of the compiler
    own |= {"forward": _wrapped(base.forward, compiled), "_made_of": (*getattr(base, "_made_of", (base,)), around)}
    own["__reduce_ex__"] = lambda self, _protocol: (_empty, type(self)._made_of, self.__dict__)
    return type(base)(base.__name__, (base,), own)


def _empty(base: type, *arounds: Callable[..., object]) -> nn.Module:
    """An object for a copy or a pickle to fill."""
    kind = functools.reduce(_subclass, arounds, base)
    return kind.__new__(kind)


def _adapt(module: nn.Module, around: Callable[..., object], name: str) -> None:
    if "forward" in module.__dict__:
        raise GateError(f"{name} has no forward in a Python class of its own, so its ReLUs cannot be given gates")
    module.__class__ = _subclass(type(module), around)


def redirect(caller: nn.Module, name: str) -> None:
    """Send the functional ReLUs of a module's own forward to its new sub-module `functional_relu`."""
    if hasattr(caller, "functional_relu"):
        raise GateError(f"{name} has an attribute functional_relu already: rename it")
    caller.functional_relu = UngatedReLU()
    _adapt(caller, _redirected, name)


def own(owner: nn.Module, shared: list[SharedGates], *, compiles: bool) -> None:
    """Let an owner's forward say when a pass begins and ends; with functional ReLUs, torch.compile leaves it alone."""
    owner.__dict__["_shared_gates"] = shared
    _adapt(owner, _one_pass if compiles else _one_eager_pass, shared[0].owner)
