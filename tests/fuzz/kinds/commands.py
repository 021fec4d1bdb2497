"""Every command of the tree with words that are right, and every option of every command."""

from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from cyclopts import App

from linfair.cli.main import app

NET = ["--teacher", "WORLD/net/teacher.safetensors", "--mask", "WORLD/net/random-0.2.mask.safetensors"]
USER = "--model WORLD/user/mymodel.py:build --weights WORLD/user/w.safetensors --data folder:WORLD/user/images"
IMAGES = ["--data", "folder:WORLD/user/images", "--label", "kind", "--group", "light"]
IMAGES += ["--profile", "smoke", "--method", "random"]
RIGHT = {
    "networks": [],
    "linearizers": [],
    "mitigations": [],
    "pruners": [],
    "train": [*IMAGES[:-2], "--epochs", "1"],
    "linearize": IMAGES,
    "reduce": IMAGES,
    "diagnose": NET,
    "expose": NET[:2],
    "mitigate": [*NET, "--profile", "smoke"],
    "audit": f"{USER} --label kind --group light --size 8 --profile smoke".split(),
    "export": [*NET, "--out", "network.onnx"],
    "cost": NET,
    "data status": [],
    "data describe": ["folder:WORLD/user/images", "--label", "kind", "--group", "light"],
    "data fetch": ["cifar10"],
    "data pack": ["cifar10", "--root", "WORLD/data/cifar10", "--out", "pack.npz"],
    "study list": [],
    "study show": ["fig15"],
    "study status": ["fig15", "--profile", "smoke", "--seeds", "1"],
    "study run": ["fig15", "--profile", "smoke", "--out", "results"],
    "study merge": ["--out", "WORLD/results", "--into", "merged"],
    "study table": ["fig15", "--profile", "small", "--seeds", "2", "--out", "WORLD/results"],
    "study compare": [
        "fig15",
        "--profile",
        "small",
        "--seeds",
        "2",
        "--out",
        "WORLD/results",
        "--other",
        "WORLD/results",
    ],
    "notebook list": ["--notebooks", "WORLD/notebooks"],
    "notebook run": ["01_small", "--notebooks", "WORLD/notebooks"],
}


def leaves(tree: App = app, path: str = "") -> Iterator[tuple[str, App]]:
    """Every command that does something, by the words that call it."""
    for name in tree:
        if name.startswith("-"):
            continue
        one = tree[name]
        if one.default_command:
            yield f"{path}{name}", one
        else:
            yield from leaves(one, f"{path}{name} ")


def options() -> Iterator[tuple[str, str, str]]:
    """Command, option, and what it takes (a number, numbers, a choice, ...)."""
    for command, one in leaves():
        for argument in one.assemble_argument_collection(parse_docstring=False):
            if argument.parse and not argument.children:
                yield command, argument.names[0], takes(argument.hint)


def takes(hint: object) -> str:
    """What an annotation takes, in a word."""
    inner = [one for one in get_args(hint) if one is not NoneType]
    if get_origin(hint) in (Union, UnionType):
        return takes(inner[0])
    if get_origin(hint) is Literal:
        return "choice"
    if get_origin(hint) in (tuple, list):
        return "floats" if inner[0] is float else "texts"
    return {int: "int", float: "float", bool: "switch", str: "text", Path: "text"}[hint]
