"""CIFAR, SVHN, MNIST, UTKFace, CelebA as their publishers (`sheets.toml`) give them: files of five kinds.

A pickle can run any code when it is loaded, so CIFAR's batches never are: their steps are read one by one, and only
those that such a batch is made of are known. UTKFace's labels are in the names of its files,
`[age]_[gender]_[race]_[date].jpg.chip.jpg`. CelebA's `img_align_celeba` (a folder, or the zip file as it is) lies
beside `list_attr_celeba.txt` (how many images, the attributes, then a line with 1 or -1 of each for every image) and
`list_eval_partition.txt` (0, 1 or 2 for every image: training, validation, test).
"""

import math
import pickletools
import re
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from linfair.data.core import Collection, DataError, Skipped, ensure, shown
from linfair.data.images import SUFFIXES, check_skips, content_digest, files_of, pictures
from linfair.data.torchvision import torchvision
from linfair.names import hint
from linfair.paths import unfit


@dataclass(frozen=True)
class Known:
    """What is known of a file that its publishers offer."""

    bytes: int
    md5: str  # as the publishers give it
    sha256: str


@dataclass(frozen=True)
class Release:
    """A data set as its publishers give it."""

    name: str
    folder: str  # the folder inside the archive that holds them
    files: dict[str, Known]  # in order
    urls: dict[str, Known]  # what to download: these files, or an archive of them
    images: int  # of the whole release; with fewer, results are results on a subset
    read_file: Callable[[Path], tuple[np.ndarray, np.ndarray]]  # images (n, channels, height, width) and labels

    def read(self, folder: str | Path, *, strict: bool = True) -> Collection:
        """Read the official files, which do not say what belongs together; no file is ever skipped."""
        folder = Path(folder)
        missing = [name for name in self.files if not (folder / name).is_file()]
        again = f"run `linfair data fetch {self.name}`, or copy the files again"
        ensure(not missing, f"{folder}: {', '.join(missing)} missing; {again}")
        parts = [name for name in self.files if "labels" not in name]  # these are read with their images
        images, labels = zip(*(self.read_file(folder / name) for name in parts), strict=True)
        images, fields, n = np.concatenate(images), {"label": np.concatenate(labels)}, sum(map(len, labels))
        found = f"{n:,} images" if n == self.images else f"{n:,} of {self.images:,} images"
        origin = f"official {'batches' if 'batches' in self.folder else 'files'}, {found}"
        official = np.repeat([int(name.startswith(("test", "t10k"))) for name in parts], list(map(len, labels)))
        return Collection(self.name, images, fields, np.arange(n), official, origin, content_digest(images, fields))


class _Name(str):
    """A name that a pickle asks for; it stands for what is meant, and nothing is ever looked up or called by it."""

    __slots__ = ()


def unpickle(content: bytes) -> object:
    """What a pickle of dicts, lists, tuples, bytes, text, numbers and uint8 arrays says; Python 2's text is bytes."""
    stack, marks, memo = [], [], {}
    try:
        for number, (step, value, _) in enumerate(pickletools.genops(content)):
            ensure(number < 300_000 and len(marks) < 100, "the pickle is longer or deeper than a CIFAR batch")
            if step.name in _STEPS:
                taken, make = _STEPS[step.name]
                start = len(stack) - taken if taken >= 0 else marks.pop() + 1 + taken
                stack[start:] = [make(*(stack[start:] if value is None else [value]))]
            elif step.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                place = len(memo) if value is None else value
                ensure(place < 200_000, f"the pickle numbers a value {place}, which no CIFAR batch does")
                memo[place] = stack[-1]
            elif step.name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[value])
            elif step.name == "MARK":
                marks.append(len(stack))
            else:
                known = step.name in ("PROTO", "FRAME", "STOP")
                ensure(known, f"the pickle holds {step.name}, which no CIFAR batch does; it was not loaded")
        (found,) = stack
        return found
    except DataError:
        raise
    except (ValueError, TypeError, LookupError) as error:
        raise DataError(f"damaged or cut short ({type(error).__name__})") from error


def _named(*words: str) -> _Name:
    name, asked = _Name(" ".join(words)), ascii(".".join(words).replace(" ", ".")[:80])[1:-1]
    ensure(name in _NAMES, f"the pickle asks for {asked}, which no CIFAR batch does; it was not loaded")
    return name


def _made(name: object, given: object) -> object:
    """What a call or a state means: bytes as Python 3 writes them for Python 2, an array, or its type."""
    what = "builds something else than an array of bytes"
    match name, given:
        case _Name("_codecs encode"), (str(text), "latin1" | b"latin1"):
            return text.encode("latin1")
        case _Name("numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct"), (_Name(kind), *_):
            return _Name(kind)
        case _Name("numpy ndarray"), (1, tuple(shape), _Name("u1"), False, bytes(content)):
            return np.frombuffer(content, np.uint8).reshape(shape)
        case (_Name("numpy dtype"), ("u1" | b"u1", *_)) | (_Name("u1"), tuple()):
            return _Name("u1")
        case _Name("numpy dtype"), (str() | bytes() as kind, *_):
            what = f"holds an array of {ascii(kind[:20]).removeprefix('b')}"
    raise DataError(f"the pickle {what}, which no CIFAR batch does; it was not loaded")


def _extended(items: object, *more: object) -> object:
    """A list with more items, or a dict with more keys and values."""
    if type(items) is list:
        items.extend(more)
        return items
    text = type(items) is dict and all(type(key) in (bytes, str) for key in more[::2])
    ensure(text, "the pickle fills something else than a list, or a dict with text for keys; it was not loaded")
    items.update(zip(more[::2], more[1::2], strict=True))
    return items


_NAMES = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")
_NAMES += ("_codecs encode",)
_VALUES = ("BININT", "BININT1", "BININT2", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE")
_STEPS: dict[str, tuple[int, Callable[..., object]]] = dict.fromkeys(_VALUES, (0, lambda value: value))
"""Steps of a pickle: how many values each takes (-1: all since a mark, -2: and the one before), and what it makes."""
_STEPS |= dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), (0, lambda text: text.encode("latin1")))
_STEPS |= {"NONE": (0, lambda: None), "NEWTRUE": (0, lambda: True), "NEWFALSE": (0, lambda: False)}
_STEPS |= {"EMPTY_DICT": (0, dict), "EMPTY_LIST": (0, list), "EMPTY_TUPLE": (0, tuple)}
_STEPS |= {f"TUPLE{n or ''}": (n or -1, lambda *items: items) for n in range(4)}
_STEPS |= {"APPEND": (2, _extended), "APPENDS": (-2, _extended), "SETITEM": (3, _extended), "SETITEMS": (-2, _extended)}
_STEPS |= {"GLOBAL": (0, _named), "STACK_GLOBAL": (2, _named), "REDUCE": (2, _made), "BUILD": (2, _made)}


def _batch(name: str, key: str, classes: int, mib: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One of CIFAR's batches, which has so many MiB."""
    try:
        ensure(path.stat().st_size < (2 * mib + 4) * 2**20, f"over {2 * mib + 4} MiB, and a batch has {mib}")
        batch = unpickle(path.read_bytes())
    except (DataError, OSError) as error:
        raise DataError(f"{path}: {error}; run `linfair data fetch {name}`, or copy the batches again") from error
    ensure(isinstance(batch, dict), f"{path}: a batch is a dict, this is a {type(batch).__name__}")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    images, labels = batch.get("data"), batch.get(key)
    array, many = isinstance(images, np.ndarray), isinstance(labels, list)
    given = f"{images.dtype} of shape {images.shape}" if array else type(images).__name__
    right = array and images.dtype == np.uint8 and images.shape[1:] == (3072,)
    ensure(right, f"{path}: data must be uint8 of shape (n, 3072), got {given}")
    given = f"{len(labels)} of them" if many else type(labels).__name__
    right = many and len(labels) == len(images)
    ensure(right, f"{path}: {len(images)} images need a list of as many labels, got {given}")
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < classes]
    found = "".join(repr(one) if type(one) in (int, str, bytes) else type(one).__name__ for one in wrong[:1])
    ensure(not wrong, f"{path}: labels are integers 0..{classes - 1}, found {found[:40]}")
    return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def _mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One of SVHN's files; digit 0, which they write as 10, becomes 0."""
    from scipy.io import loadmat, whosmat

    again = "copy the file again"
    try:
        most = max((math.prod(shape) for _, shape, _ in whosmat(path)), default=0)
        ensure(most < 2**28, f"an array says that it has {most:,} values")
        arrays = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # scipy fails in many ways on damaged files
        why = f"damaged, cut short, or no MATLAB file ({type(error).__name__}: {str(error)[:100]})"
        raise DataError(f"{path}: {why}; run `linfair data fetch svhn`, or {again}") from error
    missing = [name for name in ("X", "y") if name not in arrays]
    ensure(not missing, f"{path}: {' and '.join(missing)} missing; {again}")
    images, label = arrays["X"], arrays["y"]
    right = images.dtype == np.uint8 and images.ndim == 4 and images.shape[:3] == (32, 32, 3)
    ensure(right, f"{path}: X must be uint8 of shape (32, 32, 3, n), got {images.dtype} of shape {images.shape}")
    n = images.shape[3]
    ensure(label.shape == (n, 1), f"{path}: {n} images need y of shape ({n}, 1), got {label.shape}")
    wrong = np.setdiff1d(label, np.arange(1, 11)).tolist()
    ensure(not wrong, f"{path}: y holds digits 1..10 (10 is digit 0), found {wrong}")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), label[:, 0].astype(np.int64) % 10


def _idx(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training or the test half of MNIST, through torchvision's readers, which download nothing."""
    readers, labels = torchvision().datasets.mnist, path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    try:
        large = [file.name for file in (path, labels) if file.stat().st_size > 2**26]
        ensure(not large, f"{', '.join(large)} has over 64 MiB, and a half of MNIST at most 45")
        images, label = readers.read_image_file(path).numpy(), readers.read_label_file(labels).numpy()
        right = images.shape == (len(label), 28, 28) and len(label) and label.max() <= 9
        given = f"{len(label)} labels up to {label.max(initial=0)} for images of shape {images.shape}"
        ensure(right, f"{given}; there must be n labels up to 9 for (n, 28, 28)")
    except Exception as error:  # torchvision fails in many ways on damaged files
        why = f"damaged, cut short, or not MNIST's ({type(error).__name__}: {str(error)[:100]})"
        raise DataError(f"{path}: {why}; run `linfair data fetch mnist`, or copy the files again") from error
    return images[:, None], label


OFFERED = tomllib.loads(Path(__file__).with_name("releases.toml").read_text(encoding="utf-8"))
#: By source; CelebA's attributes too
CLASSES = {name: tuple(words.split()) for name, words in OFFERED["names"].items()}


def _release(name: str, folder: str, images: int, read_file: Callable) -> Release:
    offered = {kind: {file: Known(**one) for file, one in files.items()} for kind, files in OFFERED[name].items()}
    urls = offered["urls"]
    files = offered.get("files", {url.rpartition("/")[2]: known for url, known in urls.items()})
    return Release(name, folder, files, urls, images, read_file)


CIFAR10 = _release("cifar10", "cifar-10-batches-py", 60_000, partial(_batch, "cifar10", "labels", 10, 30))
CIFAR100 = _release("cifar100", "cifar-100-python", 60_000, partial(_batch, "cifar100", "fine_labels", 100, 148))
SVHN = _release("svhn", "", 99_289, _mat)
MNIST = _release("mnist", "MNIST/raw", 70_000, _idx)
LIMITS = {"age": 116, "gender": 1, "race": 4}  #: Largest value of each field; the smallest is 0
NAMES = {name: tuple(words) for name, words in OFFERED["utkface"].items()}
AGE_EDGES = (2, 13, 18, 65)  #: First year of each of the paper's age groups; ages 0 and 1 are dropped
AGE9_EDGES = (11, 16, 21, 26, 31, 41, 51, 61)  #: Of nine bins (Tran et al., 2022), whose edges are not printed: ours


def fields_of(name: str) -> dict[str, int]:
    """Age, gender and race from a file's name; of fewer than three fields only the age is sure, the others are -1."""
    tokens = name.split("_")
    date = next((i for i, token in enumerate(tokens) if re.match(r"\d{8}", token)), None)
    ensure(date is not None, "the name is not [age]_[gender]_[race]_[date]: no date")
    ensure(date and tokens[0], "the name has no age")
    ensure(date <= 3, f"the name has {date} fields before the date, not 3")
    values = dict.fromkeys(LIMITS, -1)
    for field, token in zip(LIMITS, tokens[:date], strict=False):
        ensure(re.fullmatch(r"(-?\d{1,6})?", token, re.ASCII), f"{field} is {token[:20]!r}, not a number")
        values[field] = int(token or -1)
        right = not token or 0 <= values[field] <= LIMITS[field]
        ensure(right, f"{field} is {values[field]}, not in 0..{LIMITS[field]}")
    return values if date == 3 else dict.fromkeys(LIMITS, -1) | {"age": values["age"]}


def read_utkface(folder: str | Path, *, strict: bool = False) -> Collection:
    """Read the original files below a folder at 32x32: `age` (years), `gender`, `race`; there is no official split.

    Pictures that are identical at full size get one number in `same`; a file that is in two subfolders counts once.
    Names without gender or race are used for age only (the missing fields are -1), and are among the skipped.
    """
    folder = Path(folder)
    skipped, wanted, values = [], [], []
    for path in files_of(folder):
        name = path.relative_to(folder).as_posix()
        try:
            values.append(fields_of(path.name))
            wanted.append((name, path))
        except ValueError as error:
            skipped.append(Skipped(name, str(error)))
    images, same, read, unread, rotated = pictures(wanted, 32, what="reading UTKFace")
    skipped += unread
    rows: dict[tuple[str, int], int] = {}
    for row, (number, picture) in enumerate(zip(read, same, strict=True)):
        name, path = wanted[number]
        if rows.setdefault((path.name, picture), row) != row:
            skipped.append(Skipped(name, "the same file is in another subfolder"))
            continue
        if lacking := [field for field, value in values[number].items() if value < 0]:
            skipped.append(Skipped(name, f"no {' and '.join(lacking)} in the name; used for age only"))
    check_skips(f"UTKFace in {folder}", [(one.name, one.why) for one in skipped], len(rows), strict=strict)
    kept = list(rows.values())
    images = images if len(kept) == len(images) else images[kept]
    fields = {field: np.array([values[number][field] for number in read[kept]], dtype=np.int64) for field in LIMITS}
    about = {"same": same[kept], "official": None, "origin": f"original files, {len(images):,} images"}
    about |= {"skipped": tuple(skipped), "notes": {"rotated": rotated} if rotated else {}}
    return Collection("utkface", images, fields, sha256=content_digest(images, fields), **about)


def utkface_fields(folder: Path) -> dict[str, np.ndarray]:
    """Age, gender and race of the original files, out of their names; names that say nothing are left out."""
    rows = []
    for file in files_of(folder):
        with suppress(ValueError):
            rows.append(fields_of(file.name))
    return {field: np.array([row[field] for row in rows], dtype=np.int64) for field in LIMITS}


def holds_faces(folder: Path) -> bool:
    """Whether a folder, or a folder in it, has a file with a name of UTKFace's form."""
    files = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return any(re.match(r"\d{1,3}_\d_.*\d{8}", path.name) and path.suffix.lower() in SUFFIXES for path in files)


def utkface_field(fields: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers (-1: left out) and names of a way to label UTKFace: one of `NAMES`, or several joined by `x`."""
    if "x" in name:
        (one, names), (two, more) = (utkface_field(fields, part) for part in name.split("x", 1))
        joined = np.where((one >= 0) & (two >= 0), one * len(more) + two, -1)
        return joined, tuple(f"{a}, {b}" for a in names for b in more)
    problem = f"utkface has no label or group {name!r} (two are joined as racexgender)"
    ensure(name in NAMES, f"{problem}; {hint(name, NAMES)}")
    if not name.startswith("age"):
        return fields[name], NAMES[name]
    edges = AGE9_EDGES if name == "age9" else AGE_EDGES
    return np.searchsorted(edges, fields["age"], side="right") - (name == "age"), NAMES[name]


IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
CELEBA = (ATTRIBUTES, PARTITION, f"{IMAGES}.zip")
CELEBRITIES = 202_599  #: Images of the whole set


def read_celeba(folder: str | Path, *, size: int = 32, strict: bool = False) -> Collection:
    """Read the files at size x size: a field of 0 or 1 for each attribute, and the official split."""
    folder = Path(folder)
    fields, parts = read_attributes(folder), _lines(folder / PARTITION, 1, {"0": 0, "1": 2, "2": 1})
    names = fields.pop("file").tolist()
    apart = sorted(parts.keys() ^ set(names))
    ensure(not apart, f"{folder}: {apart[:1]} is in one of {ATTRIBUTES} and {PARTITION} only; copy both files again")
    place = folder / IMAGES
    try:
        place = place if place.is_dir() else zipfile.Path(folder / f"{IMAGES}.zip", f"{IMAGES}/")
    except (OSError, zipfile.BadZipFile) as error:
        why = f"no folder {IMAGES}, and no readable {IMAGES}.zip ({type(error).__name__}); copy one of them again"
        raise DataError(f"{folder}: {why}") from error
    images, same, kept, skipped, _ = pictures([(name, place / name) for name in names], size, what="reading CelebA")
    check_skips(f"CelebA in {folder}", [(one.name, one.why) for one in skipped], len(kept), strict=strict)
    fields = {name: values[kept] for name, values in fields.items()}
    official = np.array([parts[names[number]][0] for number in kept], dtype=np.int64)
    origin, sha256 = f"official files, {len(kept):,} of {CELEBRITIES:,} images", content_digest(images, fields)
    return Collection("celeba", images, fields, same, official, origin, sha256, tuple(skipped))


def read_attributes(folder: Path) -> dict[str, np.ndarray]:
    """The attributes, 0 or 1, shape (n,), and the names of the images in `file`; no image is opened."""
    rows = _lines(folder / ATTRIBUTES, len(CLASSES["celeba"]), {"-1": 0, "1": 1})
    values = np.array(list(rows.values()), dtype=np.int64)
    return {"file": np.array(list(rows))} | {name: values[:, i].copy() for i, name in enumerate(CLASSES["celeba"])}


def _lines(path: Path, cells: int, allowed: Mapping[str, int]) -> dict[str, list[int]]:
    """What the cells of a list stand for, by image; the list of attributes begins with their number and names."""
    again, why = "copy the published file again", unfit(path, 2**26)
    ensure(why is None, f"{path} {why}; {again}")
    lines, found = path.read_text(encoding="ascii", errors="replace").splitlines(), {}
    heads = [str(len(lines) - 2), " ".join(CLASSES["celeba"])] if cells > 1 else []
    for number, line in enumerate(lines):
        head, (name, *given) = number < len(heads), line.split() or [""]
        wanted = heads[number] if head else f"a new name such as 000001.jpg and {cells} of {', '.join(allowed)}"
        right = re.fullmatch(r"\d{6}\.jpg", name, re.ASCII) and name not in found and len(given) == cells
        right = line.split() == wanted.split() if head else right and allowed.keys() >= set(given)
        ensure(right, f"{path}, line {number + 1}: {shown(line, 60)!r} must be {wanted[:60]}; {again}")
        found |= {} if head else {name: [allowed[cell] for cell in given]}
    ensure(found, f"{path} lists no image; {again}")
    return found
