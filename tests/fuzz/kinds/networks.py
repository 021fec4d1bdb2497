"""Files of linfair's networks: damaged bytes, headers of other types, tensors that are no weights of the network."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinds.case import ESCAPE, HUNDRED, LONG, WRONG, WRONG_OR_USED, Case, damages, written
from linfair.checkpoints import Header

FILE, NAME = "net/teacher.safetensors", "IN/broken.safetensors"
MASK = ("--mask", "WORLD/net/random-0.2.mask.safetensors")
READERS = [
    ("diagnose", "--teacher", NAME, *MASK),
    ("linearize", "--teacher", NAME, "--method", "random", "--profile", "smoke"),
    ("audit", "--teacher", NAME, "--profile", "smoke"),
    ("mitigate", "--teacher", NAME, *MASK, "--profile", "smoke"),
    ("diagnose", "--teacher", f"WORLD/{FILE}", *MASK, "--weights", NAME),
]
OTHER = {"null": None, "text": "x", "yes": True, "half": 1.5, "list": [[1]], "object": {"a": 1}, "huge": int(HUNDRED)}
VALUES = {
    "network": [*OTHER.items(), ("path", "../../etc/passwd"), ("colour", ESCAPE), ("long", LONG)],
    "width": [*OTHER.items(), ("negative", -1), ("large", 10**9), ("digits", "8")],
    "input_shape": [
        *OTHER.items(),
        ("empty", []),
        ("negative", [-1, 12, 12]),
        ("zero", [0, 12, 12]),
        ("large", [10**6] * 3),
    ]
    + [
        ("texts", ["1", "12", "12"]),
        ("halves", [1, 12.0, 12]),
        ("many", [1] * 50),
        ("nulls", [None] * 3),
        ("digits", "123"),
    ],
    "classes": [*OTHER.items(), ("zero", 0), ("negative", -10), ("large", 10**9), ("whole", 10.0)],
    "data": [*OTHER.items(), ("colour", ESCAPE), ("folder", "folder:/nowhere"), ("long", LONG)],
    "seed": [*OTHER.items(), ("negative", -1), ("digits", "0")],
    "gated": [*OTHER.items(), ("number", 1)],
    "data_options": [*OTHER.items(), ("pair", [["root", "/"]]), ("short", [["size"]]), ("unknown", [["nothing", 1]])]
    + [("names", [[1, 2]]), ("nested", [["label", ["a"]]])],
    "init": [*OTHER.items(), ("colour", ESCAPE)],
    "content": [*OTHER.items(), ("other", "0" * 64)],
}
OPTIONAL = ("gated", "data_options", "init", "content", "pruned", "norm", "standardised", "rule", "guarantee")
OPTIONAL += ("schedule",)
UNSEEN = {f"header, {name}, missing" for name in OPTIONAL} | {"header, guarantee, null", "bytes, middle zeroed"}
UNSEEN |= {"header, schedule, null"}
"""What is optional, and what still is a network."""
DEEP = "[" * 100_000
NOTES: dict[str, Callable[[dict], dict]] = {
    "no notes": lambda notes: {},
    "another format": lambda notes: notes | {"format": "linfair-network-9"},
    "no header": lambda notes: {"format": notes["format"]},
    "header is no JSON": lambda notes: notes | {"header": "{"},
    "header is a list": lambda notes: notes | {"header": "[]"},
    "header is null": lambda notes: notes | {"header": "null"},
    "header is deep": lambda notes: notes | {"header": DEEP},
    "header is empty": lambda notes: notes | {"header": "{}"},
    "header is nan": lambda notes: notes | {"header": "NaN"},
    "header has more": lambda notes: notes | {"header": json.dumps(json.loads(notes["header"]) | {ESCAPE: 1})},
}
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
TENSORS: dict[str, Change] = {
    "float64": lambda own: {name: one.double() for name, one in own.items()},
    "int64": lambda own: {name: one.long() for name, one in own.items()},
    "bool": lambda own: {name: one.bool() for name, one in own.items()},
    "complex": lambda own: {name: one.to(torch.complex64) for name, one in own.items()},
    "one of bytes": lambda own: own | {first(own): own[first(own)].to(torch.uint8)},
    "nan": lambda own: own | {first(own): own[first(own)] * torch.nan},
    "infinite": lambda own: own | {first(own): own[first(own)] + torch.inf},
    "another": lambda own: own | {f"more{ESCAPE}": torch.ones(2)},
    "none": lambda own: {},
    "one missing": lambda own: {name: one for name, one in own.items() if name != first(own)},
    "another shape": lambda own: own | {first(own): torch.ones(3, 5)},
    "a number": lambda own: own | {first(own): torch.tensor(1.0)},
    "no numbers": lambda own: own | {first(own): torch.ones(0)},
    "renamed": lambda own: {f"module.{name}": one for name, one in own.items()},
    "many more": lambda own: own | {f"extra{number}": torch.ones(1) for number in range(3000)},
}


def first(own: dict[str, Tensor]) -> str:
    """A weight to change."""
    return sorted(own)[0]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and notes of a file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def changed(file: str, name: str, tensors: Change = dict, notes: Callable[[dict], dict] = dict) -> Callable:
    """Writes a copy of a valid file with other tensors or notes."""

    def prepare(world: Path, place: Path) -> None:
        own, about = read(world / file)
        save_file(tensors(own), place / Path(name).name, metadata=notes(about))

    return prepare


def header_with(key: str, value: object) -> Callable[[dict], dict]:
    """Notes whose header has another value."""
    return lambda notes: notes | {"header": json.dumps(json.loads(notes["header"]) | {key: value})}


def header_without(key: str) -> Callable[[dict], dict]:
    """Notes whose header lacks a field."""
    return lambda notes: (
        notes | {"header": json.dumps({k: v for k, v in json.loads(notes["header"]).items() if k != key})}
    )


RAW = {
    "a header of 2^63 bytes": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "a header of 4 GB": (2**32).to_bytes(8, "little") + b"{}" * 100,
    "a header that is a list": (2).to_bytes(8, "little") + b"[]",
    "a header that is deep": (100_000).to_bytes(8, "little") + DEEP.encode(),
    "a pickle": b"\x80\x02cos\nsystem\nU\x10touch broken-intoq\x01\x85q\x02R.",
    "a zip": b"PK\x03\x04" + bytes(100),
}


def cases() -> Iterator[Case]:
    """Each kind of damage, read by one of the commands in turn."""
    made: list[tuple[str, Callable, tuple[str, ...]]] = []
    file = Path(NAME).name
    made += [(f"bytes, {name}", written(file, change, like=FILE), ()) for name, change in damages().items()]
    made += [(f"bytes, {name}", written(file, content), ()) for name, content in RAW.items()]
    made += [(f"notes, {name}", changed(FILE, NAME, notes=change), ()) for name, change in NOTES.items()]
    for one in fields(Header):
        for name, value in VALUES.get(one.name, OTHER.items()):
            if (one.name, name) not in {("content", "text"), ("gated", "yes"), ("standardised", "yes")}:
                said = (
                    (one.name,)
                    if name in OTHER
                    else (one.name, "broken.safetensors", "/nowhere", "root", "nothing", "label")
                )
                made.append(
                    (f"header, {one.name}, {name}", changed(FILE, NAME, notes=header_with(one.name, value)), said)
                )
        made.append((f"header, {one.name}, missing", changed(FILE, NAME, notes=header_without(one.name)), (one.name,)))
    made += [(f"tensors, {name}", changed(FILE, NAME, tensors=change), ()) for name, change in TENSORS.items()]
    made.append(("a folder", lambda _, place: (place / Path(NAME).name).mkdir(), ()))
    for number, (name, prepare, more) in enumerate(made):
        words = READERS[number % 4]
        fine = name in UNSEEN or name.startswith("bytes, bit")
        codes = WRONG_OR_USED if fine else WRONG
        yield Case(
            "network files", f"{name}, {words[0]}", words, more or ("broken.safetensors", "1.bias"), prepare, codes
        )
