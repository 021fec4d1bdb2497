"""A user's own network: its Python file, and its weights as safetensors or pickles."""

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from kinds.case import ESCAPE, LONG, WRONG, WRONG_OR_USED, Case, damages, written
from kinds.commands import RIGHT
from kinds.networks import RAW, TENSORS, changed

NET = "from torch import nn\nimport torch\ndef build(input_shape, classes):\n    return "
FORWARD = (
    "from torch import nn\nimport torch\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
)
FORWARD += "        self.l = nn.Linear(192, 6)\n        self.r = nn.ReLU()\n        self.o = nn.Linear(6, 2)\n"
FORWARD += "    def forward(self, x):\n        {}\ndef build():\n    return Net()"
MODELS = {
    "empty": "",
    "no Python": "this is no Python",
    "indented": "  x = 1\n y = 2",
    "bytes": "\udcff\udcfe",
    "zero bytes": "x = 1\0",
    "raises": "raise RuntimeError('" + ESCAPE + "')",
    "raises much": f"raise ValueError('{LONG * 20}')",
    "raises lines": "raise ValueError('one\\ntwo\\nlinfair: three')",
    "exits": "import sys; sys.exit(3)",
    "exits by itself": "raise SystemExit('gone')",
    "is interrupted": "raise KeyboardInterrupt",
    "recursion": "def f(): f()\nf()",
    "import": "import nothing_of_that_name",
    "own import": "from .other import x",
    "deep": "x = " + "(" * 5000 + ")" * 5000,
    "build is a number": "build = 3",
    "build is a class": "class build:\n    pass",
    "build is a network": "from torch import nn\nbuild = nn.Linear(2, 2)",
    "build is a module": "import os as build",
    "build raises": f"def build():\n    raise ValueError('{ESCAPE}')",
    "build raises nothing": "def build():\n    assert False",
    "build exits": "def build():\n    raise SystemExit(0)",
    "build recursion": "def build():\n    return build()",
    "build needs three": "def build(a, b, c):\n    pass",
    "build needs names": "def build(*, depth):\n    pass",
    "build needs classes": "def build(num_classes):\n    pass",
    "build needs others": "from torch import nn\ndef build(in_channels, num_classes):\n    return nn.Linear(3, 3)",
    "build yields": "def build():\n    yield 1",
    "build waits": "async def build():\n    pass",
    "returns nothing": "def build():\n    pass",
    "returns a class": "from torch import nn\ndef build():\n    return nn.Linear",
    "returns weights": "import torch\ndef build():\n    return {'a': torch.ones(1)}",
    "no parameters": NET + "nn.ReLU()",
    "no ReLU": NET + "nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, 2))",
    "ReLU6": NET + "nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU6(), nn.Linear(6, 2))",
    "softmax": NET + "nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 2), nn.Softmax(1))",
    "three labels": NET + "nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 3))",
    "lazy": NET + "nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 2))",
    "on meta": NET + "nn.Sequential(nn.Flatten(), nn.Linear(192, 6, device='meta'), nn.ReLU(), nn.Linear(6, 2))",
    "doubles": NET + "nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 2)).half()",
    "scripted": NET + "torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 2)))",
    "encoder": NET
    + "nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, 8), nn.Flatten(), nn.Linear(192, 2))",
    "recurrent": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))), 1"),
    "tuple": FORWARD.format("return (self.o(self.r(self.l(x.flatten(1)))),)"),
    "tuple in training": FORWARD.format(
        "y = self.o(self.r(self.l(x.flatten(1)))); return (y, y) if self.training else y"
    ),
    "dictionary": FORWARD.format("return {'out': self.o(self.r(self.l(x.flatten(1))))}"),
    "number": FORWARD.format("return 3"),
    "nothing": FORWARD.format("pass"),
    "no batch": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))).sum()"),
    "no gradient": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))).detach()"),
    "whole numbers": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))).long()"),
    "complex": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))) * 1j"),
    "nan": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))) / 0"),
    "batch in training": FORWARD.format(
        "assert len(x) > 1 or not self.training; return self.o(self.r(self.l(x.flatten(1))))"
    ),
    "random": FORWARD.format("return self.o(self.r(self.l(x.flatten(1)))) + torch.randn(1)"),
    "raises in training": FORWARD.format(
        "assert not self.training, 'train'; return self.o(self.r(self.l(x.flatten(1))))"
    ),
    "exits in forward": FORWARD.format("raise SystemExit(1)"),
    "relu per image": FORWARD.format("return self.o(torch.stack([self.r(self.l(one.flatten())) for one in x]))"),
    "relu on weights": FORWARD.format("return self.o(self.l(x.flatten(1)) * self.r(self.l.bias))"),
    "relu in place twice": FORWARD.format("y = self.l(x.flatten(1)); y.relu_().relu_(); return self.o(y)"),
    "clamp": FORWARD.format("return self.o(self.l(x.flatten(1)).clamp(min=0))"),
    "data in forward": FORWARD.format("y = self.r(self.l(x.flatten(1))); return self.o(y if y.sum() > 0 else -y)"),
}
USED = {"doubles", "no gradient", "random", "batch in training", "relu in place twice", "clamp", "data in forward"} | {
    "relu on weights",
    "relu per image",
    "lazy",
}
"""Networks that may be read as well as be refused."""
PICKLES: dict[str, Callable[[dict], object]] = {
    "state dict": dict,
    "in a checkpoint": lambda own: {"state_dict": own, "epoch": 3},
    "of a parallel run": lambda own: {f"module.{name}": one for name, one in own.items()},
    "a list": lambda own: list(own.values()),
    "a number": lambda own: 3,
    "nothing": lambda own: {},
    "deep": lambda own: {"a": {"b": {"c": {"d": own}}}},
}


def pickle_of(change: Callable[[dict], object]) -> Callable[[Path, Path], None]:
    """Writes a pickle of weights."""

    def prepare(world: Path, place: Path) -> None:
        torch.save(change(torch.load(world / "user/w.pth", weights_only=True)), place / "broken.pth")

    return prepare


class Attack:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> tuple:
        return open, ("broken-into", "w")


def evil(_: Path, place: Path) -> None:
    """A pickle that runs code."""
    (place / "broken.pth").write_bytes(pickle.dumps(Attack(), 2))


def zipped(_: Path, place: Path) -> None:
    """A zip as torch writes it, with a pickle that runs code."""
    with zipfile.ZipFile(place / "broken.pth", "w") as archive:
        archive.writestr("broken/data.pkl", pickle.dumps(Attack(), 2))
        archive.writestr("broken/version", "3\n")


def model(text: str) -> Callable[[Path, Path], None]:
    """Writes the user's file, with weights beside it."""

    def prepare(world: Path, place: Path) -> None:
        written("mine.py", text)(world, place)
        written("w.safetensors", bytes, like="user/w.safetensors")(world, place)

    return prepare


def cases() -> Iterator[Case]:
    """The audit of a user's network, with one thing wrong."""
    start = ["audit", *RIGHT["audit"]]
    for name, text in MODELS.items():
        words = (*start, "--model=IN/mine.py:build", "--weights=IN/w.safetensors")
        codes = WRONG_OR_USED if name in USED else WRONG
        yield Case(
            "model files",
            name,
            words,
            ("mine.py", "build", "w.safetensors", "Sequential", "ReLU6"),
            model(text),
            codes,
        )
    file, other = "user/w.safetensors", (*start, "--weights=IN/broken.safetensors")
    fine = {"float64", "doubles", "renamed"}
    for name, change in damages().items():
        codes = WRONG_OR_USED if name.startswith("bit") or name == "middle zeroed" else WRONG
        write = written("broken.safetensors", change, like=file)
        yield Case("weight files", f"bytes, {name}", other, ("broken.safetensors",), write, codes)
    for name, content in RAW.items():
        yield Case("weight files", name, other, ("broken.safetensors",), written("broken.safetensors", content))
    for name, change in TENSORS.items():
        codes = WRONG_OR_USED if name in fine else WRONG
        yield Case(
            "weight files",
            f"tensors, {name}",
            other,
            ("broken.safetensors", "1.bias"),
            changed(file, "broken.safetensors", change),
            codes,
        )
    pickled = (*start, "--weights=IN/broken.pth")
    for name, change in PICKLES.items():
        yield Case("weight files", f"pickle, {name}", pickled, ("broken.pth",), pickle_of(change))
    for name, write in {"runs code": evil, "runs code, zipped": zipped}.items():
        yield Case("weight files", f"pickle, {name}", pickled, ("broken.pth",), write)
