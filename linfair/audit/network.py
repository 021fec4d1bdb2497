"""The network of an audit: a user's own Python function with safetensors weights, or a network of linfair.

The user's file is run, like any import: audit code you trust. Weights are read from safetensors only, which can
hold no code. Everything that could go wrong later is tried here first, on the data's own images.
"""

import copy
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from linfair import gates
from linfair.checkpoints import CheckpointError, Header, load_network
from linfair.data import EMBEDDED, GroupedData, load_data
from linfair.data.torchvision import torchvision
from linfair.device import check_device
from linfair.functional import check_scores
from linfair.masks import Mask
from linfair.metrics import wilson
from linfair.names import some, unknown
from linfair.tensors import check_finite, check_kinds, kinds, read, refusing
from linfair.training import correctness


class AuditError(ValueError):
    """A network, its weights or its data cannot be audited; the message says what to change."""


@dataclass(frozen=True)
class Subject:
    """What is audited."""

    model: nn.Module  #: The trained network, without gates, in evaluation mode
    data: GroupedData  #: Its data, split, on its device
    header: Header  #: Names and options, as in linfair's own files; `network` is `FILE:FUNCTION` for a user's own
    own: bool  #: It is one of linfair's networks
    files: dict[str, str]  #: SHA-256 of each file it was read from, by name
    drawn: bool  #: The test images were drawn by linfair, so that the network may have been trained on some of them
    warnings: tuple[str, ...] = ()  #: What was found on validation images


def load_teacher(path: str | Path, device: str, **asked: str | None) -> tuple[nn.Module, GroupedData, Header]:
    """A `teacher.safetensors` with its data, split as in its training; another network, data, ... is refused."""
    check_device(device)
    model, header = load_network(path)
    if header.reduced:
        raise CheckpointError(f"{path} holds a {header.reduced} network; give its original, teacher.safetensors")
    header.check_asked(path, **asked)
    data = load_data(header.data, seed=header.seed, **dict(header.data_options))
    header.check_data(data, path)
    return model.to(device).eval(), data.to(device), header


def read_own(teacher: str | Path, *, device: str = "cpu", **asked: str | None) -> Subject:
    """A network of linfair, from its `teacher.safetensors`; another `network` or `data` than the file's is refused."""
    return _checked(*load_teacher(teacher, device, **asked), device, teacher, own=True, drawn=False)


def read_user(
    model: str,
    weights: str | Path,
    data: str,
    *,
    seed: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    device: str = "cpu",
    mask: Mask | None = None,
    **options: object,
) -> Subject:
    """A user's own network, its weights (a state dict, as safetensors) and its data, a name or `folder:PATH`.

    `model` is `FILE:FUNCTION`; the function returns the network, and may take `(input_shape, classes)`. `mean` and
    `std` are those of each channel on [0, 1] with which it was trained, by default the training images' own. The
    weights may be those of the network that a `mask` leaves.
    """
    place, colon, function = model.rpartition(":")
    file = Path(place)
    if not colon or not place or not function.isidentifier():
        raise AuditError(f"--model {model}: write FILE:FUNCTION, for example mymodel.py:build")
    if not file.is_file():
        raise AuditError(f"--model {model}: there is no file {file}")
    if file.suffix != ".py":
        raise AuditError(f"--model {model}: {file.name} is not a Python file (.py)")
    with refusing(f"--weights {weights}", AuditError):
        _, tensors = read(weights, "safetensors file")
        for site, kept in mask.units.items() if mask else ():
            if not torch.equal(tensors.pop(f"{site}.alpha", kept).float(), kept.float()):
                raise ValueError(f"keeps other ReLUs in {site} than the mask; give mask and weights of one budget")
    found = load_data(data, seed=seed, **options)
    scale = {name: tuple(given) for name, given in (("mean", mean), ("std", std)) if given is not None}
    for name, given in scale.items():
        if len(given) != len(found.mean) or (name == "std" and min(given) <= 0):
            channels = f"{len(found.mean)} numbers, one for each channel{' above 0' * (name == 'std')}"
            raise AuditError(f"--{name} {','.join(map(str, given))}: {data} needs {channels}, on the scale [0, 1]")
    found, options = replace(found, **scale), options | scale
    network = _built(file, function, found)
    with refusing(weights, AuditError):
        said = _load(network, tensors, f"{function} builds for inputs {'x'.join(map(str, found.input_shape))} (--size)")
    about = found.input_shape, found.classes, data, seed, False, tuple(sorted(options.items()))
    header = Header(f"{file.name}:{function}", 0, *about)
    drawn = data.startswith("utkface") or data in EMBEDDED or "test" in found.provenance.get("drawn", ())
    subject = _checked(network, found, header, device, file, weights, own=False, drawn=drawn)
    return replace(subject, warnings=(*said, *subject.warnings))


_imported: set[str] = set()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours as they are now; what it sets for the whole process is set back."""
    for name in _imported:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    before, written, kind, device = set(sys.modules), sys.dont_write_bytecode, torch.get_default_dtype(), torch.empty(0)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), chdir("."):
            yield
    finally:
        torch.set_default_dtype(kind)
        if torch.empty(0).device != device.device:
            torch.set_default_device(None)
        sys.path[:] = [one for one in sys.path if one != str(folder)]
        sys.dont_write_bytecode = written
        places = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}
        _imported.update(name for name, place in places.items() if place and Path(place).is_relative_to(folder))


@contextmanager
def _theirs(doing: str, advice: str = "") -> Iterator[None]:
    """Make one line of whatever a user's code raises, the SystemExit of a script among it."""
    try:
        yield
    except BaseException as error:
        text = " ".join(str(error).split())[:300]
        if isinstance(error, SystemExit):
            text += ' (a file that is also a script acts under `if __name__ == "__main__":`)'
        raise AuditError(f"{doing} {type(error).__name__}{': ' * bool(text)}{text}{advice}") from error


def _built(file: Path, function: str, data: GroupedData) -> nn.Module:
    name = f"linfair_audited_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    with suppress(ImportError):
        torchvision()  # repaired before the file imports it
    with _importable(file.resolve().parent):
        sys.modules[name] = module  # dataclasses and pickling look there
        with _theirs(f"{file} cannot be run:"):
            spec.loader.exec_module(module)
        if not hasattr(module, function):
            own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise AuditError(unknown(f"{file} has no function", function, own or ["no functions"]))
        build, given = getattr(module, function), {"input_shape": data.input_shape, "classes": data.classes}
        wanted = "it must be a function that takes no arguments, or (input_shape, classes), and returns the network"
        if not callable(build) or isinstance(build, nn.Module) or inspect.iscoroutinefunction(build):
            raise AuditError(f"{function} in {file} is of type {type(build).__name__}; {wanted}")
        try:
            signature = inspect.signature(build)
        except ValueError:  # some functions have none
            signature = inspect.Signature()
        given = given if given.keys() <= signature.parameters.keys() else {}
        first = [one.name for one in signature.parameters.values() if one.kind is not one.KEYWORD_ONLY][:2] == [*given]
        try:
            bound = signature.bind(*given.values()) if first else signature.bind(**given)
        except TypeError:
            raise AuditError(f"{function} in {file} takes {str(signature)[:200]}; {wanted}") from None
        with _theirs(f"{function} in {file}, called with {given or 'no arguments'}, raised"):
            network = build(*bound.args, **bound.kwargs)
        if not isinstance(network, nn.Module):
            what = type(network).__name__
            raise AuditError(f"{function} in {file} must return a torch.nn.Module, it returned {what}")
        while type(network).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel"):
            network = next(network.children())
        if any(map(is_lazy, network.parameters())):
            with _theirs(f"the lazy layers of {function} in {file} do not fit the data:"), torch.no_grad():
                network.eval()(torch.zeros(2, *data.input_shape))
    if any(isinstance(one, torch.jit.ScriptModule) for one in network.modules()):
        raise AuditError(f"{function} in {file} returns a TorchScript module; return the Python module that it is of")
    if any(one.is_meta for one in network.state_dict().values() if isinstance(one, Tensor)):
        raise AuditError(f"{function} in {file} builds on the device meta, which holds no numbers; build on the CPU")
    return network.float()


_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def _load(network: nn.Module, tensors: dict[str, Tensor], whose: str) -> tuple[str, ...]:
    """Load weights, whose names may have a prefix, and tied ones may be there once; returns what to say of it."""
    own = {name: one for name, one in network.state_dict().items() if isinstance(one, Tensor)}
    tensors = {name: one.float() if one.is_floating_point() else one for name, one in tensors.items()}
    plain, said, tied = partial(_WRAPPERS.sub, ""), (), {}
    for name, one in own.items():
        tied.setdefault((one.data_ptr(), one.shape) if one.numel() else name, []).append(name)
    if not all(tensors.keys() & set(names) for names in tied.values()):
        bare, ends = {plain(name): name for name in tensors}, [[*map(plain, names)] for names in tied.values()]
        starts = {key.removesuffix(end) for key in bare for end in ends[0] if f".{key}".endswith(f".{end}")}
        starts = sorted(start for start in starts if all(any(start + end in bare for end in names) for names in ends))
        if len(starts) > 1:
            raise ValueError(f"holds several networks, named {some(starts)}; keep the tensors of one of them")
        for start in starts:
            found = {name: bare[start + plain(name)] for name in own if start + plain(name) in bare}
            front = next(file.removesuffix(plain(name)) for name, file in found.items())
            rest = tensors.keys() - found.values()
            left = sorted(name for name in rest if not name.startswith(front))
            said = (f"weights: names begin with {front!r}, which is left out{'; not read: ' * bool(left)}{some(left)}",)
            tensors = {name: tensors[file] for name, file in (found | {one: one for one in rest - {*left}}).items()}
    for names in tied.values():
        there = [name for name in names if name in tensors]
        if any(not torch.equal(tensors[there[0]], tensors[name]) for name in there[1:]):
            raise ValueError(f"holds {some(there)} with different numbers, which are one tensor in the network")
        tensors |= {name: tensors[there[0]] for name in names if there}
    check_kinds(kinds(tensors), kinds(own), whose)
    check_finite({name: tensors[name] for name, _ in network.named_parameters()})
    network.load_state_dict(tensors, strict=False)
    return said


def _checked(
    model: nn.Module, data: GroupedData, header: Header, device: str, *paths: str | Path, own: bool, drawn: bool
) -> Subject:
    """Try a network on its data, both moved to the device."""
    check_device(device)
    data, name, model = data.to(device), header.network, model.to(device).eval()
    files = {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}
    if len(data.group_names) < 2:
        only = f"{header.data} has one group only ({data.group_names[0]})"
        raise AuditError(f"{only}: nobody to compare it with; name another column with --group")
    x = data.normalise(data.splits["val"].x[:64])
    for training in (False, True):
        for n in (len(x), 1)[: 2 - training]:
            _try(copy.deepcopy(model).train(training), x[:n], data, name)
    gates.install(model, data.input_shape)
    check_scores(model, data.input_shape)
    y = data.splits["val"].y
    accuracy, guess = correctness(model, data, "val")[0].mean().item(), torch.bincount(y).max().item() / len(y)
    low, high = wilson(min(accuracy, 1.0), len(y))
    weak = (
        f"{name} is right on {100 * accuracy:.1f} % [{100 * low:.0f}, {100 * high:.0f}] of {len(y)} validation images; "
        f"always saying the most frequent label would be right on {100 * guess:.1f} %. Either it was trained on "
        "differently prepared images (see --size, --mean, --std, and the order of labels), or it has not learned: what "
        "it then loses means nothing"
    )
    return Subject(model, data, header, own, files, drawn, () if low > guess else (weak,))


def _try(network: nn.Module, x: Tensor, data: GroupedData, name: str) -> None:
    """Run a network once, in its mode, and refuse what is no table of scores."""
    mode, n = ("evaluation", "training")[network.training], len(x)
    aux = "; set aux_logits=False" if any("aux" in one.lower() for one, _ in network.named_modules()) else ""
    shape, modes = "x".join(map(str, data.input_shape)), torch.set_grad_enabled(network.training)
    inputs = f"inputs of shape {shape} ({n} of them, in {mode} mode)"
    advice = f"; images are RGB at the side given with --size{aux}"
    with modes, torch.random.fork_rng(devices=[]), _theirs(f"{name} does not take {inputs}:", advice):
        outputs = network(x)
    needed = f"the data have {data.classes} labels ({some(data.label_names)}): scores of shape ({n}, {data.classes})"
    if not isinstance(outputs, Tensor):
        what = type(outputs).__name__
        raise AuditError(f"{name} must return class scores as one tensor, it returned {what} for {inputs}{aux}")
    if outputs.shape != (n, data.classes) or not outputs.is_floating_point() or outputs.layout != torch.strided:
        found = f"{outputs.dtype}, {outputs.layout}, of shape {tuple(outputs.shape)}".replace("torch.", "")
        raise AuditError(f"{name} answers {inputs} with {found}; {needed} are needed")
    if not torch.isfinite(outputs).all():
        raise AuditError(f"{name} answers with numbers that are not finite; are weights and --mean/--std its own?")
    if network.training and not outputs.requires_grad:
        raise AuditError(f"{name} cannot be trained: its scores depend on no parameter that a gradient reaches")


def behaviour(model: nn.Module, data: GroupedData) -> str:
    """SHA-256 (16 hex digits) of what a network computes on fixed inputs, and in one step of training, on the CPU.

    The inputs are validation images, one of them alone, and noise at two scales; dropout draws from a fixed seed.
    Another processor or number of threads gives another digest.
    """
    network, content = copy.deepcopy(model).cpu(), hashlib.sha256()
    like = next(network.parameters(), torch.empty(0))  # inputs have its number format
    x = data.normalise(data.splits["val"].x[:64].cpu()).to(like)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = torch.randn(16, *x.shape[1:]).to(like)
        network.eval()
        with torch.no_grad():
            for batch in (x, x[:1], noise, 8 * noise):
                _add(content, _outputs(network, batch))
        network.train().zero_grad()
        with torch.enable_grad():  # of a weighted sum of the outputs
            leaves = _outputs(network, torch.cat([x[:32], noise]))
            tensors = [one for one in leaves if isinstance(one, Tensor) and one.requires_grad]
            if sums := [(one * torch.linspace(0, torch.pi, one.numel()).cos().view_as(one)).sum() for one in tensors]:
                torch.stack(sums).sum().backward()
        gradients = [part for name, one in network.named_parameters() for part in (name, one.grad)]
        _add(content, [*leaves, *gradients, *(part for named in network.named_buffers() for part in named)])
    return content.hexdigest()[:16]


def _outputs(network: nn.Module, x: Tensor) -> list[object]:
    torch.manual_seed(1)
    try:
        return tree_leaves(network(x))
    except Exception as error:  # whoever trains or measures the network meets it again, and says so
        return [type(error).__name__]


def _add(content: "hashlib._Hash", values: list[object]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            content.update(f"{value.dtype} {tuple(value.shape)}".encode())
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        content.update(value if isinstance(value, bytes) else repr(value).encode())
