"""Files of masks: damaged bytes, sites and counts of other types, values that are neither kept nor removed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from kinds.case import ESCAPE, HUNDRED, LONG, WRONG, WRONG_OR_USED, Case, damages, written
from kinds.networks import DEEP, NOTES, RAW, changed, first

FILE, NAME = "net/random-0.2.mask.safetensors", "IN/broken.safetensors"
TEACHER = ("--teacher", "WORLD/net/teacher.safetensors", "--mask", NAME)
READERS = [("diagnose", *TEACHER), ("mitigate", *TEACHER, "--profile", "smoke")]
SITES = {
    "null": None,
    "text": "x",
    "number": 1,
    "list": ["a"],
    "empty": {},
    "names": {"nowhere": [8]},
    "texts": {"SITE": "8"},
    "shape": {"SITE": [9]},
    "huge": {"SITE": [int(HUNDRED)]},
    "null shape": {"SITE": None},
    "negative": {"SITE": [-8]},
    "colour": {ESCAPE: [8]},
    "long": {LONG: [8]},
}
KEPT = {
    "null": "null",
    "text": "x",
    "negative": "-1",
    "half": "1.5",
    "other": "1",
    "huge": HUNDRED,
    "nan": "NaN",
    "list": "[]",
}
STRUCTURE = {"empty": "", "text": "x", "other": "0" * 16, "long": LONG, "colour": ESCAPE}
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": lambda one: one.float(),
    "float64": lambda one: one.double(),
    "int64": lambda one: one.long(),
    "bytes": lambda one: one.to(torch.uint8),
    "halves": lambda one: one * 0.5,
    "twos": lambda one: one.long() * 2,
    "negative": lambda one: -one.long(),
    "nan": lambda one: one * torch.nan,
    "infinite": lambda one: torch.full(one.shape, torch.inf),
    "another shape": lambda one: torch.ones(3, dtype=torch.bool),
    "a number": lambda one: torch.tensor(True),
    "nothing": lambda one: torch.ones(0, dtype=torch.bool),
    "one axis more": lambda one: one[None],
}


def sites(notes: dict, value: object) -> dict:
    """Notes with other sites; SITE stands for the first there is."""
    known = next(iter(json.loads(notes["sites"])))
    return notes | {"sites": json.dumps(value).replace('"SITE"', json.dumps(known))}


def cases() -> Iterator[Case]:
    """Each kind of damage, read by one of the commands in turn."""
    made: list[tuple[str, Callable, str]] = []
    file = Path(NAME).name
    made += [(f"bytes, {name}", written(file, change, like=FILE), "") for name, change in damages().items()]
    made += [(f"bytes, {name}", written(file, content), "") for name, content in RAW.items()]
    for name, value in SITES.items():
        made.append((f"sites, {name}", changed(FILE, NAME, notes=lambda notes, value=value: sites(notes, value)), ""))
    for name, text in {"no JSON": "{", "deep": DEEP, "twice": '{"a": [8], "a": [8]}'}.items():
        made.append((f"sites, {name}", changed(FILE, NAME, notes=lambda notes, text=text: notes | {"sites": text}), ""))
    for key, values in {"kept": KEPT, "structure": STRUCTURE}.items():
        for name, text in values.items():
            made.append(
                (
                    f"{key}, {name}",
                    changed(FILE, NAME, notes=lambda notes, key=key, text=text: notes | {key: text}),
                    key,
                )
            )
    for key in ("format", "sites", "kept", "structure"):
        without = changed(FILE, NAME, notes=lambda notes, key=key: {k: v for k, v in notes.items() if k != key})
        made.append((f"{key}, missing", without, key))
    made.append(("no notes", changed(FILE, NAME, notes=NOTES["no notes"]), ""))
    for name, change in VALUES.items():
        one = changed(
            FILE, NAME, tensors=lambda own, change=change: own | {first(own): change(own[first(own)]).clone()}
        )
        made.append((f"values, {name}", one, ""))
    made.append(("another tensor", changed(FILE, NAME, tensors=lambda own: own | {ESCAPE: torch.ones(2).bool()}), ""))
    made.append(
        (
            "a tensor missing",
            changed(FILE, NAME, tensors=lambda own: {k: v for k, v in own.items() if k != first(own)}),
            "",
        )
    )
    made.append(("a network", written(file, bytes, like="net/teacher.safetensors"), ""))
    made.append(("a folder", lambda _, place: (place / Path(NAME).name).mkdir(), ""))
    for number, (name, prepare, key) in enumerate(made):
        words, said = READERS[number % 2], (key,) if key in ("kept", "structure") else ("broken.safetensors",)
        codes = WRONG_OR_USED if name.startswith("bytes, bit") else WRONG
        yield Case("mask files", f"{name}, {words[0]}", words, said, prepare, codes)
