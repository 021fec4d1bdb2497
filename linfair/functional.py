"""Functional ReLUs: `F.relu(x)` written in a forward pass, where no module stands for a gate to replace.

They are seen at run time (every ReLU the network computes passes by), and turned into `nn.ReLU` modules with torch.fx
where the network can be traced. Where it cannot, an error names the module whose forward hides them.
"""

import copy
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from linfair.errors import GateError

_FUNCTIONS = {F.relu, F.relu_, torch.relu, torch.relu_}
_METHODS = {"relu", "relu_"}
_RELU_OPS = {torch.ops.aten.relu.default, torch.ops.aten.relu_.default}
_CLAMP_OPS = {torch.ops.aten.hardtanh.default, torch.ops.aten.hardtanh_.default}


@dataclass
class Watched:
    """What one forward pass computed.

    Attributes:
        calls: Input shapes, without the batch, of every `nn.ReLU` module that was called, in order.
        hidden: Names of the modules whose own forward called a functional ReLU.
        capped: Names of the modules that computed a ReLU6.
        output: What the network returned.
    """

    calls: dict[nn.Module, list[tuple[int, ...]]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    capped: list[str] = field(default_factory=list)
    output: object = None


def watch(network: nn.Module, x: Tensor) -> Watched:
    """Run a network once, in evaluation mode and without gradients, and note every ReLU it computes.

    Torch's generator is left as it was: a second run draws the same numbers.
    """
    seen = Watched()
    names = {module: name or type(network).__name__ for name, module in network.named_modules()}
    stack: list[nn.Module] = []

    class Dispatch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            inside = stack[-1] if stack else None
            if func in _RELU_OPS and inside is not None and not isinstance(inside, nn.ReLU):
                seen.hidden.append(names[inside])
            if func in _CLAMP_OPS and inside is not None and tuple(args[1:]) == (0.0, 6.0):
                seen.capped.append(names[inside])
            return func(*args, **(kwargs or {}))

    def enter(module: nn.Module, args: tuple) -> None:
        stack.append(module)
        if isinstance(module, nn.ReLU):
            seen.calls.setdefault(module, []).append(tuple(args[0].shape[1:]))

    def leave(_module: nn.Module, _args: tuple, _output: object) -> None:
        stack.pop()

    modes = {module: module.training for module in network.modules()}
    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), Dispatch():
            seen.output = network.eval()(x.clone())
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen


def with_relu_modules(network: nn.Module, hidden: list[str]) -> nn.Module:
    """A traced copy of a network in which every functional ReLU is an `nn.ReLU` module, one for each call.

    Args:
        network: The network; it is left as it is.
        hidden: Names of the modules that hide functional ReLUs, for the error.

    Returns:
        A `torch.fx.GraphModule` that computes the same; parameters and their names are kept.

    Raises:
        GateError: If torch.fx cannot trace the network, or traces it differently in training and evaluation mode.
    """
    where = ", ".join(sorted(set(hidden)))
    advice = f"functional ReLUs are called in the forward of {where}; use nn.ReLU modules there (one for each call)"
    try:
        traced, other = (fx.symbolic_trace(copy.deepcopy(network).train(mode)) for mode in (True, False))
    except Exception as error:  # tracing runs the user's code: anything can be raised
        raise GateError(f"{advice}: torch.fx cannot trace this network ({type(error).__name__}: {error})") from error
    for one, two in zip_longest(traced.graph.nodes, other.graph.nodes):
        if _line(one) != _line(two):
            step = getattr(one.target, "__name__", one.target) if one else "its end"
            raise GateError(
                f"{advice}: its forward depends on the training mode at {step}, which tracing would fix; use a module "
                "there too (nn.Dropout for F.dropout)"
            )
    number = 0
    for node in list(traced.graph.nodes):
        known = {"call_function": _FUNCTIONS, "call_method": _METHODS}.get(node.op, ())
        if node.target in known:
            name = f"functional_relu_{number}"
            number += 1
            traced.add_submodule(name, nn.ReLU())
            with traced.graph.inserting_after(node):
                module = traced.graph.call_module(name, (node.args[0] if node.args else node.kwargs["input"],))
            node.replace_all_uses_with(module)
            traced.graph.erase_node(node)
    traced.recompile()
    modes = {name: module.training for name, module in network.named_modules(remove_duplicate=False)}
    for name, module in traced.named_modules():
        module.training = modes.get(name, network.training)
    return traced


def _line(node: fx.Node | None) -> tuple[object, ...] | None:
    """A step of a traced forward pass, comparable between two traces of one network."""
    return node and (node.op, node.target, str(node.args), str(node.kwargs))
