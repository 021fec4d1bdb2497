"""The network of an audit: a user's own Python function with safetensors weights, or a network of linfair.

**The user's file is run**, like any import: audit code you trust. Weights are read from safetensors only, which can
hold no code. Everything that could go wrong later is tried here first, on the data's own images.
"""

import copy
import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from linfair import gates
from linfair.checkpoints import PICKLES, CheckpointError, Header, load_network
from linfair.data import DataError, GroupedData, load_data
from linfair.device import check_device
from linfair.functional import check_scores
from linfair.metrics import wilson
from linfair.names import some, unknown
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
    if header.gated:
        raise CheckpointError(f"{path} holds a linearized network; give its original, teacher.safetensors")
    known = {"network": header.network, "data": header.data, **dict(header.data_options)}
    for name, value in asked.items():
        if value not in (None, known.get(name)):
            has = known.get(name, f"the data's own {name}")
            raise AuditError(
                f"--{name} {value}, but {path} was trained with {has}, and on another one its training images may be "
                f"tested; leave --{name} out, or give the teacher trained on it"
            )
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
    **options: object,
) -> Subject:
    """A user's own network, its weights (a state dict, as safetensors) and its data, a name or `folder:PATH`.

    `model` is `FILE:FUNCTION`, a Python file and a function in it that returns the network; it is called without
    arguments, or with `(input_shape, classes)` if it takes them. The seed decides the split, where the data have none.
    `mean` and `std` are those of each channel on the scale [0, 1] with which the network was trained, by default the
    training images' own. `options` are the data set's: `label`, `group`, `size`, ...

    Raises:
        ValueError: For a file, function, network, weights or data that do not fit each other; says which and why.
    """
    place, colon, function = model.rpartition(":")
    file = Path(place)
    if not colon or not place or not function.isidentifier():
        raise AuditError(f"--model {model}: write FILE:FUNCTION, for example mymodel.py:build")
    if not file.is_file():
        raise AuditError(f"--model {model}: there is no file {file}")
    if file.suffix != ".py":
        raise AuditError(f"--model {model}: {file.name} is not a Python file (.py)")
    tensors = _weights(Path(weights))
    found = load_data(data, seed=seed, **options)
    for name, given in {"mean": mean, "std": std}.items():
        if given is None:
            continue
        if len(given) != len(found.mean) or (name == "std" and min(given) <= 0):
            channels = f"{len(found.mean)} numbers, one for each channel{' above 0' * (name == 'std')}"
            raise AuditError(f"--{name} {','.join(map(str, given))}: {data} needs {channels}, on the scale [0, 1]")
        found, options[name] = replace(found, **{name: tuple(given)}), tuple(given)
    network = _built(file, function, found)
    _load(network, tensors, weights, found)
    about = found.input_shape, found.classes, data, seed, False, tuple(sorted(options.items()))
    header = Header(f"{file.name}:{function}", 0, *about)
    drawn = data.startswith("utkface") or data in ("toy", "digits") or "test" in found.provenance.get("drawn", ())
    return _checked(network, found, header, device, file, weights, own=False, drawn=drawn)


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix in PICKLES:
        new = path.with_suffix(".safetensors")
        error = AuditError(
            f"--weights {path} may hold code that runs when it is read; convert it once, from a source you trust, with "
            f"the command above, and give --weights {new}"
        )
        error.add_note(
            f"  python -c \"import torch; from safetensors.torch import save_file; s = torch.load('{path}', "
            "map_location='cpu', weights_only=True); s = s.get('state_dict', s); "
            f"save_file({{k: v.clone().contiguous() for k, v in s.items()}}, '{new}')\""
        )
        raise error
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise AuditError(f"there is no file {path}: give --weights a safetensors file") from None
    except (SafetensorError, OSError) as error:
        raise AuditError(f"{path} is truncated or not a safetensors file ({error})") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


_imported: set[str] = set()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours as they are now, not as an earlier call in this process has imported them."""
    for name in _imported:
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    before, written = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = written
        places = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}
        _imported.update(name for name, place in places.items() if place and Path(place).is_relative_to(folder))


def _built(file: Path, function: str, data: GroupedData) -> nn.Module:
    name = f"linfair_audited_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    with _importable(file.resolve().parent):
        sys.modules[name] = module  # dataclasses and pickling look there
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the user's code can raise anything
            raise AuditError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
        build = getattr(module, function, None)
        if not callable(build):
            own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise AuditError(unknown(f"{file} has no function", function, own or ["no functions"]))
        parameters = list(inspect.signature(build).parameters.values())
        places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        asks = [p.name for p in places[:2]] == ["input_shape", "classes"] or (len(needed) == 2 == len(places))
        if needed and not asks:
            names = ", ".join(needed)
            raise AuditError(f"{function} must take no arguments, or (input_shape, classes); it needs ({names})")
        arguments = (data.input_shape, data.classes) if asks else ()
        try:
            with torch.random.fork_rng(devices=[]):
                network = build(*arguments)
        except Exception as error:
            called = f"{function}({', '.join(map(str, arguments))})"
            raise AuditError(f"{called} in {file} raised {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise AuditError(f"{function} in {file} must return a torch.nn.Module, it returned {type(network).__name__}")
    return network.float()


def _load(network: nn.Module, tensors: dict[str, Tensor], path: str | Path, data: GroupedData) -> None:
    own = network.state_dict()
    unlike = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    shapes = [f"{n} is {tuple(tensors[n].shape)} in the file and {tuple(own[n].shape)} in the network" for n in unlike]
    missing, extra = [name for name in own if name not in tensors], [name for name in tensors if name not in own]
    parts = {"missing in the file: ": missing, "unknown to the network: ": extra, "": shapes}
    if said := [words + some(names) for words, names in parts.items() if names]:
        shape = "x".join(map(str, data.input_shape))
        hint = f" (the data's inputs are {shape}; a folder's images have the size of --size)" if shapes else ""
        raise AuditError(f"{path} holds the weights of another network; {'; '.join(said)}{hint}")
    network.load_state_dict(tensors)


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
    if "val" not in data.splits:
        raise DataError(f"{data.name} has no split 'val'; an audit chooses on validation images")
    x = data.normalise(data.splits["val"].x[:64])
    shape = "x".join(map(str, data.input_shape))
    try:
        with torch.no_grad():
            outputs = model(x)
    except Exception as error:  # the user's code can raise anything
        raise AuditError(
            f"{name} does not take inputs of shape {shape} ({type(error).__name__}: {error}); images are RGB at the "
            "side given with --size"
        ) from error
    if not isinstance(outputs, Tensor):
        raise AuditError(f"{name} must return class scores as one tensor, it returned {type(outputs).__name__}")
    if outputs.shape != (len(x), data.classes):
        labels = some(data.label_names)
        raise AuditError(
            f"{name} answers {len(x)} inputs with a tensor of shape {tuple(outputs.shape)}; {header.data} has "
            f"{data.classes} labels ({labels}): scores of shape ({len(x)}, {data.classes}) are needed"
        )
    if not torch.isfinite(outputs).all():
        raise AuditError(f"{name} answers with numbers that are not finite; are weights and --mean/--std its own?")
    check_scores(model, data.input_shape)
    gates.install(model, data.input_shape)
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


def behaviour(model: nn.Module, data: GroupedData) -> str:
    """SHA-256 (16 hex digits) of a network's outputs on fixed inputs, and of one step of training.

    The inputs are validation images, one of them alone, and noise at two scales. In evaluation mode the outputs count,
    in training mode (dropout drawn from a fixed seed) the outputs, the gradients of every parameter and the buffers
    afterwards. Computed on the CPU; another processor or number of threads rounds differently and gives another digest.
    The network stays as it is.
    """
    network, content = copy.deepcopy(model).cpu(), hashlib.sha256()
    x = data.normalise(data.splits["val"].x[:64].cpu()).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = torch.randn(16, *x.shape[1:])
        network.eval()
        with torch.no_grad():
            for batch in (x, x[:1], noise, 8 * noise):
                _add(content, _outputs(network, batch))
        network.train().zero_grad()
        with torch.enable_grad():  # of a weighted sum of the outputs
            leaves = _outputs(network, torch.cat([x[:32], noise]))
            tensors = [one for one in leaves if isinstance(one, Tensor) and one.requires_grad]
            sums = [(one * torch.linspace(0, math.pi, one.numel()).cos().view_as(one)).sum() for one in tensors]
            if sums:
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
