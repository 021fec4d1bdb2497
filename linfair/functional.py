"""What a network computes: its ReLUs, where each is called, and every other nonlinearity, seen as it runs.

Modules, functions and methods all come down to torch's operators, so a network is run on random inputs and its
operators are watched. It is run on 2 and on 3 inputs: what belongs to one input is what the third adds, so that
operators on weights alone count nothing, and patches folded into the batch axis are seen.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from linfair.names import some
from linfair.nonlinear import Nonlinearity, counted, is_relu, is_relu6, name_of

_SQUASHES = dict(_softmax="Softmax", _log_softmax="LogSoftmax", sigmoid="Sigmoid", log_sigmoid_forward="LogSigmoid")
_CARRIES = ("log", "clone", "_to_copy", "clamp", "clamp_min", "add")
Types = tuple[type[nn.Module], ...]


class GateError(ValueError):
    """A network, shape or mask that gates cannot work with; the message says what to change."""


class Watched(TorchDispatchMode):
    """What one forward pass computed: each operator is noted under the module that runs it."""

    def __init__(self, network: nn.Module, skip: Types) -> None:
        super().__init__()
        self.network, self.skip, self.stack = network, (nn.ReLU, *skip), []
        self.names = {module: name or type(network).__name__ for name, module in network.named_modules()}
        # the calls of each `nn.ReLU` module, in order: its input, and the modules that were running, outermost first
        self.calls: dict[nn.Module, list[tuple[Tensor, tuple[nn.Module, ...]]]] = {}
        self.hidden: dict[nn.Module, str] = {}  # modules that computed a ReLU otherwise: the operator
        self.capped: set[nn.Module] = set()  # modules that computed a ReLU6
        self.entered: Counter[nn.Module] = Counter()  # how often each module was called
        self.units: Counter[tuple[nn.Module, str]] = Counter()  # of the others, by module and kind
        self.comparisons: Counter[tuple[nn.Module, str]] = Counter()
        self.output: object = None
        # `survey` adds the shape of one input of each call (None on weights alone, which the server computes by itself)
        self.sites: dict[nn.Module, list[tuple[int, ...] | None]] = {}
        self.others: tuple[Nonlinearity, ...] = ()
        self._positive: dict[int, tuple[Tensor, int]] = {}  # a mask x > 0 and where x lies
        self.squashes: dict[int, tuple[Tensor, str]] = {}  # by where the result lies: it, kind and module

    def named(self, modules: dict[nn.Module, str] | set[nn.Module]) -> str:
        """Names of modules, sorted."""
        return some(sorted({self.names[module] for module in modules}))

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.entered[module] += 1
        if isinstance(module, nn.ReLU):
            value = args[0] if args else kwargs["input"]
            self.calls.setdefault(module, []).append((value.clone(), tuple(self.stack)))
        self.stack.append(module)

    def _leave(self, *_: object) -> None:
        self.stack.pop()

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        inside = self.stack[-1] if self.stack else self.network
        if isinstance(inside, self.skip):
            return func(*args, **(kwargs or {}))
        name = name_of(func)
        fused = name == "_transformer_encoder_layer_fwd" and not args[7]  # with ReLU, not GELU
        relu = is_relu(name, args) or self._masked(name, args) or fused
        if relu and isinstance(args[0], Tensor):
            self.hidden[inside] = name
        elif is_relu6(name, args):
            self.capped.add(inside)
        out = func(*args, **(kwargs or {}))
        self._follow(name, args, out, self.names[inside])
        if not relu and (found := counted(name, args, out)) is not None:
            kind, units, comparisons = found
            self.units[inside, kind] += units
            self.comparisons[inside, kind] += comparisons
        return out

    def _masked(self, name: str, args: tuple) -> bool:
        """Whether this is `x * (x > 0)` or `where(x > 0, x, 0)`."""
        pairs = [args[:2], args[1::-1]] if name == "mul" else []
        if name == "where" and len(args) > 2 and not bool(torch.as_tensor(args[2]).any()):
            pairs = [args[:2]]
        known = [(self._positive[id(mask)][1], x) for mask, x in pairs if id(mask) in self._positive]
        return any(isinstance(x, Tensor) and x.data_ptr() == place for place, x in known)

    def _follow(self, name: str, args: tuple, out: object, module: str) -> None:
        """Follow masks `x > 0` through changes of type, and results to the step that squashed them."""
        if name in ("gt", "ge") and len(args) > 1 and not isinstance(args[1], Tensor) and args[1] == 0:
            self._positive[id(out)] = out, args[0].data_ptr()
        elif name == "_to_copy" and id(args[0]) in self._positive:
            self._positive[id(out)] = out, self._positive[id(args[0])][1]
        if name in _SQUASHES:
            result = out[0] if isinstance(out, tuple) else out
            self.squashes[result.data_ptr()] = result, f"{_SQUASHES[name]} of {module}"
        alone = name in _CARRIES and not any(isinstance(one, Tensor) for one in args[1:])
        if alone and isinstance(out, Tensor) and args[0].data_ptr() in self.squashes:
            self.squashes[out.data_ptr()] = out, self.squashes[args[0].data_ptr()][1]


@contextmanager
def in_mode(network: nn.Module, training: bool = False) -> Iterator[None]:
    """Within it a network is in evaluation (or training) mode, after it each module is in its own again."""
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def by_products() -> Iterator[None]:
    """Within it attention is products of matrices, not one operator, which hides them and has no second derivative."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def watch(
    network: nn.Module, input_shape: tuple[int, ...], n: int = 3, *, training: bool = False, skip: Types = ()
) -> Watched:
    """Run a network once on random inputs; note every nonlinearity but those in modules of `skip`."""
    like = next(network.parameters(), torch.empty(0))  # inputs have its number format and place
    x = torch.randn(n, *input_shape, generator=torch.Generator().manual_seed(n)).to(like)
    seen, modules = Watched(network, skip), list(network.modules())
    handles = [module.register_forward_pre_hook(seen._enter, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(seen._leave) for module in modules]
    try:
        with in_mode(network, training), torch.no_grad(), torch.random.fork_rng(devices=[]), seen:
            seen.output = network(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def survey(network: nn.Module, input_shape: tuple[int, ...], *, skip: Types = ()) -> Watched:
    """Watch a network on 2 and on 3 inputs, to see what belongs to each; a GateError names what it cannot tell."""
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise GateError(f"{name or type(module).__name__} is a TorchScript module; give the Python module it is of")
    passes = []
    for n in (2, 3):
        try:
            passes.append(watch(network, input_shape, n, skip=skip))
        except GateError:
            raise
        except Exception as error:  # the user's code can raise anything
            shape = "x".join(map(str, input_shape))
            text = f"{type(network).__name__} fails on a batch of {n} inputs of shape {shape} ({type(error).__name__}: "
            text += f"{error}); it must take any number of inputs, the batch as the first axis"
            raise GateError(text) from error
    two, three = passes
    for relu in {**two.calls, **three.calls}:
        one, other = (seen.calls.get(relu, []) for seen in passes)
        if len(one) != len(other):
            text = f"{three.names[relu]} is called {len(one)} times on 2 inputs and {len(other)} times on 3: a gate "
            raise GateError(f"{text}belongs to one call on the whole batch, so call it once on all inputs")
        three.sites[relu] = [_site(three.names[relu], a, b) for (a, _), (b, _) in zip(one, other, strict=True)]
    units, comparisons = three.units - two.units, three.comparisons - two.comparisons  # what a third input adds
    for kind in dict.fromkeys(kind for _, kind in units):
        places = [module for module, one in units if one == kind]
        compared = sum(count for (_, one), count in comparisons.items() if one == kind)
        names = tuple(three.names[module] for module in places)
        three.others += (Nonlinearity(kind, sum(units[module, kind] for module in places), compared, names),)
    return three


def _site(name: str, two: Tensor, three: Tensor) -> tuple[int, ...] | None:
    """The shape of one input of a call, from its calls on 2 and on 3 inputs."""
    a, b = tuple(two.shape), tuple(three.shape)
    if a[:1] == (2,) and b[:1] == (3,) and a[1:] == b[1:]:
        return a[1:]
    if a == b and torch.equal(two, three):
        return None
    if a and b and a[1:] == b[1:] and 3 * a[0] == 2 * b[0]:
        rows = a[0] // 2
        text = f"{name} sees {rows} rows for each input ({a[0]} for 2 inputs): they are folded into the batch axis, "
        text += f"and a gate for each of the {two.numel() // 2:,} units needs an axis of its own; keep the batch as "
        raise GateError(f"{text}the first axis, (n, {rows}, ...), as nn.Linear can, or unfold before the ReLU")
    text = f"the input of {name} has shape {a} for 2 inputs and {b} for 3: its first axis must be the batch, so that "
    raise GateError(f"{text}each unit of an input can have a gate")


def check_scores(network: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Refuse a network that returns probabilities, by a GateError that names the module: a loss applies the softmax."""
    seen = watch(network, input_shape)
    output = seen.output if isinstance(seen.output, Tensor) else torch.zeros(0)
    _, step = seen.squashes.get(output.data_ptr(), (output, ""))
    scores = output.ndim == 2 and output.shape[1] > 1 and output.is_floating_point()
    for kind, rows in (("Softmax", output), ("LogSoftmax", output.exp())) if scores and not step else ():
        sums = rows.sum(1).cpu().float()
        if bool((rows >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            step = kind
    if step:
        text = f"{type(network).__name__} returns probabilities, not scores: its last step is the {step}, and training "
        text += "applies a softmax itself; return what goes into that step, the weights stay as they are"
        raise GateError(text)
