"""One input and the answer it must get, values of every kind that nobody should type, and damage to a file's bytes."""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import copytree

SEED = 20241015
WRONG, WRONG_OR_USED = (2,), (0, 2)
"""Exit codes: a wrong request, and one that may also be answered."""

Prepare = Callable[[Path, Path], object]


@dataclass(frozen=True)
class Case:
    """Words after `linfair`, in which `WORLD` is the folder of valid files and `IN` that of this input."""

    kind: str
    name: str
    words: tuple[str, ...]
    says: tuple[str, ...]  # stderr names one of these: the value or the file
    prepare: Prepare = lambda world, place: None
    codes: tuple[int, ...] = WRONG
    env: Mapping[str, str] = field(default_factory=dict)
    definitions: bool = False  # figures are read from `IN/figures`

    @property
    def title(self) -> str:
        """How pytest calls it."""
        return f"{self.kind}: {self.name}"


ESCAPE, LONG, BYTES = "\x1b[31mred\x07\x9b2J", "long" * 1500, "raw\udcffbytes"
HUNDRED = "9" * 100
NOWHERE = {"empty": "", "escape": ESCAPE, "long": LONG, "bytes": BYTES}
"""Text that is no name, file or folder, by what it is; what of it a message must show is in `shown`."""


def shown(value: str) -> str:
    """The part of a value that a message shows, whatever way it is escaped and cut."""
    return {ESCAPE: "red", BYTES: "raw", LONG: LONG[:24]}.get(value, value[:24])


def damaged(content: bytes) -> dict[str, bytes]:
    """Damage that a disk, a copy or an attacker does to a file's bytes, the same every time."""
    luck, size = random.Random(SEED), len(content)
    flipped = {f"bit flipped, {name}": _flip(content, luck.randrange(size)) for name in ("one", "another")}
    half = size // 2
    return {
        "empty": b"",
        "first byte": content[:1],
        "cut in half": content[:half],
        "last byte missing": content[:-1],
        "head flipped": _flip(content, 0),
        **flipped,
        "zeros": bytes(size),
        "middle zeroed": content[: size // 3] + bytes(size // 3) + content[2 * (size // 3) :],
        "halves swapped": content[half:] + content[:half],
        "twice": content + content,
        "noise": luck.randbytes(min(size, 4096)),
        "text": b"This is no such file.\n" * 5,
        "html": b"<!doctype html><html><body>404 Not Found</body></html>",
    }


def _flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


def written(file: str, content: bytes | str | Callable[[bytes], bytes], *, like: str = "", beside: str = "") -> Prepare:
    """Writes a file into `IN`: what is given, or what it makes of a valid file; `beside` is a folder around it."""

    def prepare(world: Path, place: Path) -> None:
        if beside:
            copytree(world / beside, place, dirs_exist_ok=True)
        path = place / file
        raw = content((world / like if like else path).read_bytes()) if callable(content) else content
        path.write_bytes(raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw)

    return prepare


def damages(size: int = 1000) -> dict[str, Callable[[bytes], bytes]]:
    """Kinds of damage, each a function of a file's bytes."""
    return {name: partial(_damage, name) for name in damaged(bytes(size))}


def _damage(name: str, content: bytes) -> bytes:
    return damaged(content)[name]


THINGS = ("folder", "pipe", "loop", "dangling link", "device", "link out")
"""What may have the name of a file."""


def not_a_file(thing: str, file: str, *, beside: str = "") -> Prepare:
    """Puts one of `THINGS` where a file should be."""
    links = {"loop": Path(file).name, "dangling link": "nowhere", "device": "/dev/zero", "link out": "../outside"}

    def prepare(world: Path, place: Path) -> None:
        if beside:
            copytree(world / beside, place, dirs_exist_ok=True)
        path = place / file
        (path.parent.parent / "outside").write_text("somebody else's")
        path.unlink(missing_ok=True)
        if thing in links:
            path.symlink_to(links[thing])
        else:
            {"folder": Path.mkdir, "pipe": os.mkfifo}[thing](path)

    return prepare
