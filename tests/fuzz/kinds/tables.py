"""A user's folder of images: its table, and the images themselves."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

from PIL import Image

from kinds.case import ESCAPE, LONG, THINGS, WRONG, WRONG_OR_USED, Case, damages, not_a_file, written

IMAGES = "user/images"
CHOICES = ("--label", "kind", "--group", "light")
READERS = [
    ("data", "describe", "folder:IN/", *CHOICES),
    ("linearize", "--data", "folder:IN/", *CHOICES, "--method", "random", "--profile", "smoke"),
    (
        "audit",
        "--model",
        "WORLD/user/mymodel.py:build",
        "--weights",
        "WORLD/user/w.safetensors",
        "--data",
        "folder:IN/",
        "--size",
        "8",
        *CHOICES,
    ),
    ("data", "pack", "folder:IN/", "--out", "x.npz"),
]
HEAD = "file,kind,light\n"
TABLES: dict[str, str | bytes] = {
    "empty": "",
    "a header": HEAD,
    "no header": "0.png,a,dim\n1.png,b,dim",
    "blank lines": "\n\n\n",
    "zero bytes": "file,kind,light\n\0\0\0,a,dim",
    "UTF-16 without a mark": (HEAD + "0.png,a,dim").encode("utf-16-le"),
    "UTF-16 cut": (HEAD + "0.png,a,dim").encode("utf-16")[:-1],
    "Latin 1": (HEAD + "0.png,ä,dim").encode("latin1"),
    "bytes": b"\xff\xfe\xfd" * 30,
    "an open quote": HEAD + '"0.png,a,dim\n1.png,b,dim',
    "quotes inside": HEAD + '0.png,"a"b,dim',
    "too few cells": HEAD + "0.png,a",
    "too many cells": HEAD + "0.png,a,dim,x,y",
    "a column twice": "file,kind,kind\n0.png,a,b",
    "a column without a name": "file,,light\n0.png,a,b",
    "a coloured column": f"{ESCAPE},kind,light\n0.png,a,b",
    "no column file": "image,kind,light\n0.png,a,dim",
    "no column kind": "file,light\n0.png,dim",
    "a million columns": ",".join(map(str, range(100_000))) + "\n0.png,a",
    "a long cell": HEAD + "0.png," + "a" * 200_000 + ",dim",
    "a cell of 10 MB": HEAD + "0.png," + "a" * 10_000_000 + ",dim",
    "a long name": HEAD + f"{LONG}.png,a,dim",
    "a path": HEAD + "/etc/passwd,a,dim",
    "a path up": HEAD + "../../secret.png,a,dim",
    "a path up inside": HEAD + "sub/../../x.png,a,dim",
    "a path of Windows": HEAD + "C:\\x.png,a,dim",
    "a path up of Windows": HEAD + "..\\..\\x.png,a,dim",
    "an address": HEAD + "https://127.0.0.1/x.png,a,dim",
    "coloured names": HEAD + "".join(f"{ESCAPE}{n}.png,a,dim\n" for n in range(50)),
    "the folder itself": HEAD + ".,a,dim",
    "no such files": HEAD + "".join(f"gone{n}.png,a,dim\n" for n in range(3000)),
    "all missing": HEAD + "".join(f"{n}.png,NA,nan\n" for n in range(80)),
    "conflicts only": HEAD + "".join(f"{n}.png,{k},dim\n" for n in range(80) for k in "ab"),
    "one label": HEAD + "".join(f"{n}.png,a,dim\n" for n in range(80)),
    "one group": HEAD + "".join(f"{n}.png,{'ab'[n % 2]},dim\n" for n in range(80)),
    "a label each": HEAD + "".join(f"{n}.png,{n},{'xy'[n % 2]}\n" for n in range(80)),
    "a group each": HEAD + "".join(f"{n}.png,{'ab'[n % 2]},g{n}\n" for n in range(80)),
    "one line": HEAD + "0.png,a,dim",
    "splits unknown": "file,kind,light,split\n"
    + "".join(f"{n}.png,{'ab'[n % 2]},{'xy'[n % 4 // 2]},{ESCAPE}\n" for n in range(80)),
    "splits of tests": "file,kind,light,split\n"
    + "".join(f"{n}.png,{'ab'[n % 2]},{'xy'[n % 4 // 2]},test\n" for n in range(80)),
    "a delimiter said": "sep=|\n" + HEAD + "0.png,a,dim",
    "old Mac": (HEAD + "0.png,a,dim").replace("\n", "\r") + "\r",
    "html": "<html><body>labels</body></html>",
    "a formula": HEAD + "=cmd|' /C calc'!A0,a,dim",
}
GOOD = {"one group"}
"""Tables that some commands can use: an audit needs two groups, `describe` does not."""


def png(width: int, height: int, content: bytes = b"", **chunks: bytes) -> bytes:
    """A PNG of any size that its content need not have."""
    parts = [(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))]
    parts += [(name.encode(), one) for name, one in chunks.items()]
    parts += [(b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    found = b"\x89PNG\r\n\x1a\n"
    for name, one in parts:
        found += struct.pack(">I", len(one)) + name + one + struct.pack(">I", zlib.crc32(name + one))
    return found


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


PICTURES: dict[str, Callable[[bytes], bytes]] = {
    "a bomb of 60,000 x 60,000": lambda _: png(60_000, 60_000),
    "a bomb of 2^31": lambda _: png(2**31 - 1, 2**31 - 1),
    "a bomb of one line": lambda _: png(2_000_000_000, 1),
    "a real bomb": lambda _: saved(Image.new("1", (20_000, 20_000)), "PNG"),
    "a GIF bomb": lambda _: (
        b"GIF89a"
        + struct.pack("<2H", 65535, 65535)
        + b"\xf7\0\0"
        + bytes(768)
        + b",\0\0\0\0"
        + struct.pack("<2H", 65535, 65535)
        + b"\0\x08\0;"
    ),
    "a BMP bomb": lambda _: (
        b"BM"
        + struct.pack("<IHHI", 60, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "no pixels": lambda _: png(0, 0),
    "a text of 50 MB": lambda _: png(8, 8, bytes(8 * 25), zTXt=b"x\0\0" + zlib.compress(bytes(50_000_000))),
    "a chunk too long": lambda _: png(8, 8)[:33] + b"\xff\xff\xff\xffIDAT",
    "a script": lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "postscript": lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) run",
    "an icon": lambda _: saved(Image.new("RGB", (16, 16)), "ICO"),
    "deep": lambda _: saved(Image.new("I;16", (8, 8)), "PNG"),
    "floats": lambda _: saved(Image.new("F", (8, 8)), "TIFF"),
    "many frames": lambda _: saved(
        Image.new("L", (8, 8)), "GIF", save_all=True, append_images=[Image.new("L", (8, 8), n) for n in range(250)]
    ),
    "EXIF of noise": lambda _: saved(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0MM\0*" + bytes(range(200))),
    "a directory that is a loop": lambda _: b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
}


def out_of_the_folder(world: Path, place: Path) -> None:
    """An image that lies outside: only a link leads to it."""
    copytree(world / IMAGES, place, dirs_exist_ok=True)
    (place / "0.png").unlink()
    (place / "0.png").symlink_to(world / IMAGES / "0.png")


def linked_folder(world: Path, place: Path) -> None:
    """A folder of a label that is a link to itself."""
    for label in "ab":
        (place / label).mkdir()
        for number in range(20):
            (place / label / f"{number}.png").write_bytes(
                (world / IMAGES / f"{2 * number + (label == 'b')}.png").read_bytes()
            )
    (place / "c").symlink_to(place)


def labelled(name: str) -> Callable[[Path, Path], None]:
    """Folders for labels, one with an odd name."""

    def prepare(world: Path, place: Path) -> None:
        for label, start in ((name, 0), ("b", 40)):
            (place / label).mkdir()
            for number in range(start, start + 40):
                (place / label / f"{number}.png").write_bytes((world / IMAGES / f"{number}.png").read_bytes())

    return prepare


def cases() -> Iterator[Case]:
    """Tables, read by each command in turn; images, by one that lists them and by one that is strict."""
    strict, somewhere = (*READERS[0], "--strict"), ("labels.csv", "folder", "/in")
    for number, (name, content) in enumerate(TABLES.items()):
        words = READERS[number % 4] if name != "one group" else READERS[2]
        codes = WRONG_OR_USED if words[1] == "pack" or name in ("one group", "a delimiter said") else WRONG
        write = written("labels.csv", content, beside=IMAGES)
        yield Case("tables", f"{name}, {' '.join(words[:2])}", words, somewhere, write, codes)
    for number, (name, change) in enumerate(damages().items()):
        table, image = (written(file, change, beside=IMAGES) for file in ("labels.csv", "0.png"))
        yield Case("tables", f"bytes, {name}", READERS[number % 4], somewhere, table, WRONG_OR_USED)
        yield Case("images", f"bytes, {name}", READERS[0], ("0.png",), image, WRONG_OR_USED)
    for name, content in PICTURES.items():
        fine = name in ("many frames", "EXIF of noise", "an icon", "a real bomb")
        for words, codes in ((READERS[0], WRONG_OR_USED), (strict, WRONG))[: 2 - fine]:
            title = f"{name}, {words[-1].strip('-')}"
            yield Case("images", title, words, ("0.png",), written("0.png", content, beside=IMAGES), codes)
    for thing in THINGS:
        yield Case("images", thing, strict, ("0.png",), not_a_file(thing, "0.png", beside=IMAGES))
        yield Case("tables", thing, READERS[0], somewhere, not_a_file(thing, "labels.csv", beside=IMAGES))
    yield Case("images", "a link to one outside", strict, ("0.png",), out_of_the_folder)
    yield Case("images", "a link to the folder", READERS[0][:3], ("",), linked_folder, WRONG_OR_USED)
    for what, name in {
        "colour": "\x1b[31mred.png",
        "bytes": "raw\udcff.png",
        "lines": "two\nlinfair: lines.png",
    }.items():
        write = written(name, b"noise", beside=IMAGES)
        yield Case("images", f"a name of {what}", READERS[0], ("",), write, WRONG_OR_USED)
        yield Case("images", f"a label of {what}", READERS[0][:3], ("",), labelled(name), WRONG_OR_USED)
