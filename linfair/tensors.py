"""Files of tensors from outside, as safetensors, which hold no code; what a header says is checked before its use."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from linfair.names import some, unknown
from linfair.paths import unfit

LARGEST = 2**24  #: Bytes of a header; that of ResNet34 has 20,000
TEXT = r'"([^"\\]|\\["\\]){1,4096}"'  #: A string in JSON, without control characters
_CONVERT = (
    "import torch; from safetensors.torch import save_file; sets = lambda d: [d] + [s for k, v in d.items() "
    "if isinstance(v, dict) and 'optim' not in str(k) for s in sets(v)]; all = sets(torch.load(open({!r}, 'rb'), "
    "map_location='cpu', weights_only=True)); s = max(all, key=lambda d: sum(map(torch.is_tensor, d.values()))); "
    "save_file({{k: v.clone().contiguous() for k, v in s.items() if torch.is_tensor(v)}}, {!r})"
)
"""Writes the largest set of tensors in a pickle, wherever it lies."""


@contextmanager
def refusing(path: str | Path, kind: type[ValueError]) -> Iterator[None]:
    """Say of which file something is wrong, as an error of one kind; what is said of it follows its path."""
    try:
        yield
    except ValueError as error:
        refusal = kind(f"{path} {error}")
        refusal.__notes__ = getattr(error, "__notes__", [])
        raise refusal from error


def read(path: str | Path, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The notes in the header of a safetensors file, and its tensors; a ValueError says why it is none."""
    if why := unfit(path):
        raise ValueError(f"{why}; a {what} is needed")
    with open(path, "rb") as file:
        start = file.read(8)
        size = int.from_bytes(start, "little")
        content = file.read(min(size, LARGEST))
    try:
        if size > LARGEST:
            raise ValueError(f"its header would have {size:,} bytes, and at most {LARGEST:,} are read")
        with safe_open(path, framework="pt") as file:  # refuses a header that does not fit the bytes
            notes = parsed(content).get("__metadata__", {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        ending = Path(path).suffix.lower()
        if ending in (".pt", ".pth", ".bin", ".ckpt", ".pkl") or start.startswith((b"PK", b"\x80")):
            new = Path(path).with_suffix(".tensors.safetensors" if ending == ".safetensors" else ".safetensors")
            script = _CONVERT.format(str(path), str(new))
            refusal = ValueError(f"may hold code that runs when it is read; convert it as above, and give {new}")
            refusal.add_note(f"  python -c {shlex.quote(script) if set(script) & set('!$`') else json.dumps(script)}")
            raise refusal from None
        raise ValueError(f"is truncated or no {what} ({error})") from error
    for name, one in tensors.items():
        if one.dtype == torch.bool and bool((one.view(torch.uint8) > 1).any()):
            raise ValueError(f"holds bytes in {name} that are neither true nor false")
    return notes, tensors


def parsed(content: str | bytes) -> dict[str, object]:
    """An object in JSON, each key once and no number of another kind; a ValueError says what is wrong with it."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        ((name, count), *_) = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
        if count > 1:
            raise ValueError(f"its header has {name!r} twice")
        return dict(pairs)

    def never(name: str) -> None:
        raise ValueError(f"its header holds {name}, which is no number of JSON")

    try:
        found = json.loads(content, object_pairs_hook=once, parse_constant=never)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"its header is {json.dumps(found)[:80]}, not an object")
    return found


def typed(
    given: dict[str, object], fields: Mapping[str, tuple[str, str]], *, needed: int, what: str = "header"
) -> dict[str, object]:
    """The fields of a header, of which the first so many are needed, each written as a pattern has it, and in words."""
    for name, value in given.items():
        if name not in fields:
            raise ValueError(unknown(f"has a {what} with the unknown field", name, fields))
        pattern, words = fields[name]
        if not re.fullmatch(pattern, written := json.dumps(value, ensure_ascii=False), re.ASCII):
            raise ValueError(f"has {name} = {written[:80]} in its {what}; {name} takes {words}")
    if missing := [name for name in list(fields)[:needed] if name not in given]:
        raise ValueError(f"has a {what} without {some(missing)}")
    return given


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a file takes them: contiguous on the CPU, and one that has several names once for each."""
    found, places = {}, set()
    for name, value in tensors.items():
        one = value.detach().cpu().contiguous()
        found[name] = one.clone() if one.data_ptr() in places else one
        places.add(one.data_ptr())
    return found


def kinds(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Number format and shape of each tensor, in words."""
    return {name: f"{str(one.dtype).removeprefix('torch.')} {tuple(one.shape)}" for name, one in tensors.items()}


def check_kinds(given: Mapping[str, str], wanted: Mapping[str, str], whose: str) -> None:
    """Refuse the tensors of a file that differ from those of a network in name, shape or number format."""
    unlike = [name for name in wanted if given.get(name, wanted[name]) != wanted[name]]
    parts = {
        "missing in the file: ": [name for name in wanted if name not in given],
        "unknown to the network: ": [name for name in given if name not in wanted],
        "": [f"{name} is {given[name]} in the file and {wanted[name]} in the network" for name in unlike],
    }
    if said := [words + some(names) for words, names in parts.items() if names]:
        raise ValueError(f"holds the weights of another network than {whose}; {'; '.join(said)}")


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors with numbers that are not finite, by name."""
    if odd := [name for name, one in tensors.items() if not bool(one.isfinite().all())]:
        raise ValueError(f"holds numbers that are not finite, in {some(odd)}")
