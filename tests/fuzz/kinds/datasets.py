"""Data sets in files: packs, the publishers' files, their names, and where they lie."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import numpy as np
from scipy.io import savemat

from kinds.case import ESCAPE, LONG, WRONG, WRONG_OR_USED, Case, Prepare, damages, not_a_file, written

Arrays = dict[str, np.ndarray]
PACKS: dict[str, Callable[[Arrays], Arrays]] = {
    "no arrays": lambda own: {},
    "no labels": lambda own: {name: one for name, one in own.items() if name != "label"},
    "no blob": lambda own: {name: one for name, one in own.items() if name != "blob"},
    "labels of halves": lambda own: own | {"label": own["label"] + 0.5},
    "labels of text": lambda own: own | {"label": own["label"].astype(str)},
    "labels out of range": lambda own: own | {"label": own["label"] + 100},
    "labels negative": lambda own: own | {"label": own["label"].astype(int) - 50},
    "labels missing one": lambda own: own | {"label": own["label"][1:]},
    "labels of two axes": lambda own: own | {"label": own["label"][:, None]},
    "labels of dates": lambda own: own | {"label": np.zeros(120, "datetime64[s]")},
    "labels of 2^63": lambda own: own | {"label": np.full(120, 2**63, np.uint64)},
    "offsets rising too far": lambda own: own | {"offsets": own["offsets"] * 2},
    "offsets falling": lambda own: own | {"offsets": own["offsets"][::-1].copy()},
    "offsets negative": lambda own: own | {"offsets": own["offsets"] - 1},
    "offsets of one": lambda own: own | {"offsets": own["offsets"][:1]},
    "offsets of halves": lambda own: own | {"offsets": own["offsets"] + 0.5},
    "offsets nan": lambda own: own | {"offsets": own["offsets"] * np.nan},
    "no images": lambda own: own | {"offsets": np.zeros(1, int), "blob": own["blob"][:0]},
    "blob of noise": lambda own: own | {"blob": own["blob"] ^ 85},
    "blob of wide numbers": lambda own: own | {"blob": own["blob"].astype(int)},
    "blob of one number": lambda own: own | {"blob": np.array(1, np.uint8)},
    "split of three": lambda own: own | {"split": own["split"] + 3},
    "split of training alone": lambda own: own | {"split": own["split"] * 0},
    "groups of text": lambda own: own | {"group": np.array(["g"] * 120)},
    "notes no JSON": lambda own: own | {"notes": np.array("{")},
    "notes a list": lambda own: own | {"notes": np.array("[1]")},
    "notes deep": lambda own: own | {"notes": np.array("[" * 100_000)},
    "notes of numbers": lambda own: own | {"notes": np.array(3)},
    "skipped of one": lambda own: own | {"skipped": np.array("x")},
    "skipped of two": lambda own: own | {"skipped": np.array([["a", "b"]])},
    "skipped of five": lambda own: own | {"skipped": np.array([["a", "b", "c", "d", "e"]])},
    "skipped coloured": lambda own: own | {"skipped": np.array([[ESCAPE, ESCAPE, ESCAPE]])},
    "origin coloured": lambda own: own | {"origin": np.array(ESCAPE)},
    "origin long": lambda own: own | {"origin": np.array(LONG)},
    "origin of many": lambda own: own | {"origin": np.array([["x"] * 3] * 3)},
    "another field": lambda own: own | {f"more{ESCAPE}": own["label"]},
    "another field of text": lambda own: own | {f"more{ESCAPE}": own["label"].astype(str)[:3].astype(float)},
    "objects": lambda own: own | {"label": np.array([{}] * 120, dtype=object)},
}
BATCHES: dict[str, object] = {
    "a list": [],
    "a number": 3,
    "empty": {},
    "no labels": {b"data": np.zeros((5, 3072), np.uint8)},
    "no data": {b"labels": [1]},
    "labels of text": {b"labels": ["a"] * 5, b"data": np.zeros((5, 3072), np.uint8)},
    "labels of ten": {b"labels": [10] * 5, b"data": np.zeros((5, 3072), np.uint8)},
    "labels of halves": {b"labels": [0.5] * 5, b"data": np.zeros((5, 3072), np.uint8)},
    "labels of yes": {b"labels": [True] * 5, b"data": np.zeros((5, 3072), np.uint8)},
    "labels too few": {b"labels": [1] * 4, b"data": np.zeros((5, 3072), np.uint8)},
    "labels an array": {b"labels": np.zeros(5, int), b"data": np.zeros((5, 3072), np.uint8)},
    "labels nested": {b"labels": [[1]] * 5, b"data": np.zeros((5, 3072), np.uint8)},
    "data of halves": {b"labels": [1] * 5, b"data": np.zeros((5, 3072))},
    "data of two axes too few": {b"labels": [1] * 5, b"data": np.zeros(5, np.uint8)},
    "data of another width": {b"labels": [1] * 5, b"data": np.zeros((5, 3071), np.uint8)},
    "data of three axes": {b"labels": [1] * 5, b"data": np.zeros((5, 3072, 1), np.uint8)},
    "data of nothing": {b"labels": [], b"data": np.zeros((0, 3072), np.uint8)},
    "data of bytes": {b"labels": [1], b"data": bytes(3072)},
    "keys of numbers": {1: [1], 2: np.zeros((1, 3072), np.uint8)},
}
PICKLES = {
    "system": b"cos\nsystem\n(S'touch broken-into'\ntR.",
    "getattr": b"c__builtin__\ngetattr\n(c__builtin__\n__import__\nS'x'\ntR.",
    "build on a helper": b"c_codecs\nencode\n(N(dV__defaults__\n(Vx\ntsb.",
    "build on an array": b"cnumpy\nndarray\n(dVx\nI1\nsb.",
    "memo": b"(lp1000000000\n.",
    "long memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "deep": b"(" * 200_000 + b"t" * 200_000 + b".",
    "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "laughs": b"(lp0\n" + b"".join(b"(g%d\ng%d\nlp%d\n" % (n, n, n + 1) for n in range(60)) + b".",
    "a large number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a large text": b"\x80\x02T\xff\xff\xff\x7f.",
    "a frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "persistent": b"Pmodule\n.",
    "extension": b"\x80\x02\x82\x01.",
    "dup without end": b"\x80\x02]" + b"2" * 1_000_000 + b".",
    "a shape of 10^12": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01b"
    b"tR(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89U\x03abctb.",
}
MATS: dict[str, Callable[[], dict]] = {
    "no images": lambda: {"y": np.ones((5, 1), np.uint8)},
    "no labels": lambda: {"X": np.zeros((32, 32, 3, 5), np.uint8)},
    "labels of 11": lambda: {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.full((5, 1), 11, np.uint8)},
    "labels of 200": lambda: {"X": np.zeros((32, 32, 3, 200), np.uint8), "y": np.arange(200, dtype=np.uint8)[:, None]},
    "labels of halves": lambda: {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.full((5, 1), 1.5)},
    "labels nan": lambda: {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.full((5, 1), np.nan)},
    "labels of text": lambda: {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.array([["a"]] * 5)},
    "labels in a row": lambda: {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.ones((1, 5), np.uint8)},
    "images of halves": lambda: {"X": np.zeros((32, 32, 3, 5)), "y": np.ones((5, 1), np.uint8)},
    "images of another size": lambda: {"X": np.zeros((28, 28, 3, 5), np.uint8), "y": np.ones((5, 1), np.uint8)},
    "one image": lambda: {"X": np.zeros((32, 32, 3), np.uint8), "y": np.ones((1, 1), np.uint8)},
    "images in a cell": lambda: {"X": np.array([{}], object), "y": np.ones((1, 1), np.uint8)},
    "images in a struct": lambda: {"X": {"a": 1}, "y": np.ones((1, 1), np.uint8)},
}
FACES = {
    "no date": "20_0_1.jpg",
    "text": "abc_0_1_20170116174525125.jpg",
    "age of 999": "999_0_1_20170116174525125.jpg",
    "negative": "-5_0_1_20170116174525125.jpg",
    "many fields": "20_0_1_2_3_20170116174525125.jpg",
    "gender of 9": "20_9_1_20170116174525125.jpg",
    "other digits": "٢٠_0_1_20170116174525125.jpg",
    "hundred digits": "9" * 100 + "_0_1_20170116174525125.jpg",
    "colour": "20_0_\x1b[31mred_20170116174525125.jpg",
    "bytes": "20_0_\udcff_20170116174525125.jpg",
    "two lines": "20_0_1\nlinfair: x_20170116174525125.jpg",
}


def pack(change: Callable[[Arrays], Arrays]) -> Callable[[Path, Path], None]:
    """A pack with other arrays, and no checksum."""

    def prepare(world: Path, place: Path) -> None:
        with np.load(world / "data/packs/cifar10.npz") as own:
            np.savez(place / "cifar10.npz", **change({name: own[name] for name in own.files}))

    return prepare


def mat(file: str, arrays: Callable[[], dict]) -> Callable[[Path, Path], None]:
    """SVHN's files, one with other arrays."""

    def prepare(world: Path, place: Path) -> None:
        copytree(world / "data/svhn", place, dirs_exist_ok=True)
        savemat(place / file, arrays())

    return prepare


def face(name: str) -> Callable[[Path, Path], None]:
    """The faces and one more, whose name is odd."""

    def prepare(world: Path, place: Path) -> None:
        copytree(world / "data/utkface", place, dirs_exist_ok=True)
        some = next((place / "UTKFace").iterdir())
        (place / "UTKFace" / name).write_bytes(some.read_bytes())

    return prepare


READERS = (
    ("data", "describe", "NAME", "--root", "IN/"),
    ("data", "pack", "NAME", "--root", "IN/", "--out", "x.npz"),
    ("data", "status", "--root", "IN/"),
)
FINE = {
    "packs": {f"bytes without a checksum, {name}" for name in ("bit flipped, one", "bit flipped, another", "twice")}
    | {"origin coloured", "origin long", "origin of many", "skipped coloured", "skipped of two", "another field"}
    | {"groups of text", "split of training alone", "folder", "pipe", "loop", "device"},
    "batches": {f"bytes, {name}" for name in ("bit flipped, one", "bit flipped, another", "middle zeroed", "twice")},
    "mats": {f"bytes, {name}" for name in ("bit flipped, one", "bit flipped, another", "head flipped", "twice")},
}
"""What cannot be known to be damaged, or is found elsewhere."""


def made() -> Iterator[tuple[str, str, Prepare, str]]:
    """Kind, name, what writes it, and the file that must be named."""
    packed, batch, matlab = "cifar10.npz", "cifar-10-batches-py/data_batch_3", "train_32x32.mat"
    for name, change in damages().items():
        yield "packs", f"bytes, {name}", written(packed, change, beside="data/packs"), packed
        yield "packs", f"bytes without a checksum, {name}", written(packed, change, like=f"data/packs/{packed}"), packed
        yield "batches", f"bytes, {name}", written(batch, change, beside="data/cifar10"), batch
        yield "mats", f"bytes, {name}", written(matlab, change, beside="data/svhn"), matlab
    for name, change in PACKS.items():
        yield "packs", name, pack(change), packed
    sums = {"empty": "", "text": ESCAPE, "short": "abc  cifar10.npz", "other": "0" * 64, "long": "0" * 100_000}
    for name, text in sums.items():
        yield "packs", f"checksum, {name}", written("cifar10.npz.sha256", text, beside="data/packs"), packed
    for name, content in BATCHES.items():
        yield "batches", name, written(batch, pickle.dumps(content, 2), beside="data/cifar10"), batch
    for name, content in PICKLES.items():
        yield "batches", f"pickle, {name}", written(batch, content, beside="data/cifar10"), batch
    for name, arrays in MATS.items():
        yield "mats", name, mat(matlab, arrays), matlab
    for thing in ("folder", "pipe", "loop", "device"):
        yield "packs", thing, not_a_file(thing, packed, beside="data/packs"), packed
        yield "batches", thing, not_a_file(thing, batch, beside="data/cifar10"), batch


def cases() -> Iterator[Case]:
    """Each file, read by one of the commands in turn."""
    for number, (kind, name, prepare, file) in enumerate(made()):
        reader = READERS[number % (2 if "notes" in name or "skipped" in name else 3)]  # `status` reads no notes
        words = tuple(word.replace("NAME", "svhn" if kind == "mats" else "cifar10") for word in reader)
        codes = WRONG_OR_USED if name in FINE[kind] else WRONG
        said = (Path(file).name, *["cifar10: "] * (codes == WRONG_OR_USED))  # too few images to split
        yield Case(kind, f"{name}, {words[1]}", words, said, prepare, codes)
    for name, file in FACES.items():
        words = ("data", "describe", "utkface_race", "--root", "IN/")
        yield Case("faces", f"{name}, describe", words, ("UTKFace", file[:3]), face(file), WRONG_OR_USED)
        yield Case("faces", f"{name}, strict", (*words, "--strict"), ("UTKFace", file[:3]), face(file))
