"""CIFAR-10 from the official batches: `cifar-10-batches-py/data_batch_1` to `_5` and `test_batch`.

The batches are Python pickles, and a pickle can run any code when it is loaded. They are read with an unpickler that
knows no more than what they are made of: dicts, lists, tuples, bytes, text, numbers and plain numpy arrays.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import io
import pickle
from pathlib import Path

import numpy as np

from linfair.data.collection import Collection, DataError
from linfair.data.images import content_digest

FOLDER = "cifar-10-batches-py"
BATCHES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The files, and the MD5 each has in the official release (as torchvision gives them)."""
IMAGES = 60_000


def read_cifar10(folder: str | Path) -> Collection:
    """Read the official batches.

    Args:
        folder: `cifar-10-batches-py`.

    Returns:
        The collection: `label`, and `official` 0 for the five training batches, 1 for the test batch.

    Raises:
        DataError: If a batch is missing, cut short, holds what a batch does not hold, or does not fit together.
    """
    folder = Path(folder)
    missing = [name for name in BATCHES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} missing; run `linfair data fetch cifar10`, or copy the batches again"
        )
    parts = [_batch(folder / name) for name in BATCHES]
    images = np.concatenate([images for images, _ in parts])
    label = np.concatenate([label for _, label in parts])
    official = np.repeat([0, 0, 0, 0, 0, 1], [len(label) for _, label in parts])
    images.flags.writeable = False
    count = f"{len(images):,}" if len(images) == IMAGES else f"{len(images):,} of {IMAGES:,}"
    return Collection(
        "cifar10",
        images,
        {"label": label},
        same=np.arange(len(images)),
        official=official,
        origin=f"official batches, {count} images",
        sha256=content_digest(images, {"label": label}),
    )


def unpickle(content: bytes) -> object:
    """Load a pickle that holds nothing but dicts, lists, tuples, bytes, text, numbers and plain numpy arrays.

    Text of Python 2 becomes bytes, as in the official batches (`b"data"`).

    Raises:
        DataError: For a pickle that names anything else, or that is damaged.

    >>> unpickle(pickle.dumps({"labels": [1, 2]}))
    {'labels': [1, 2]}
    >>> unpickle(pickle.dumps(pow))
    Traceback (most recent call last):
    linfair.data.collection.DataError: the pickle asks for builtins.pow, which no CIFAR batch does; not loaded
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails in any way, MemoryError and IndexError among them
        raise DataError(f"damaged or cut short ({type(error).__name__})") from error


class _Unpickler(pickle.Unpickler):
    """Answers the few names in a batch by functions of its own, so that none does more than a batch needs."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        asked = repr(f"{module}.{name}"[:80])[1:-1]
        raise DataError(f"the pickle asks for {asked}, which no CIFAR batch does; not loaded")


_NDARRAY = object()  # stands for numpy.ndarray, so that a pickle cannot call it


def _empty_array(kind: object, *_: object) -> np.ndarray:
    """For numpy's `_reconstruct`: an empty array, whose content the pickle then sets."""
    if kind is not _NDARRAY:
        raise DataError("the pickle builds something else than a numpy array; not loaded")
    return np.empty(0, np.uint8)


def _dtype(code: object, *_: object) -> np.dtype:
    """For numpy.dtype: numbers only, no Python objects."""
    text = code.decode("ascii") if isinstance(code, bytes) else str(code)
    if text.lstrip("<>=|") not in ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8"):
        raise DataError(f"the pickle holds an array of {text[:20]!r}, a CIFAR batch holds integers; not loaded")
    return np.dtype(text)


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """For _codecs.encode: how Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError("the pickle asks for an encoding, which no CIFAR batch does; not loaded")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
}


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels of one batch."""
    try:
        batch = unpickle(path.read_bytes())
    except (DataError, OSError) as error:
        raise DataError(f"{path}: {error}; run `linfair data fetch cifar10`, or copy the batches again") from error
    if not isinstance(batch, dict):
        raise DataError(f"{path}: a batch is a dict, this is a {type(batch).__name__}")
    batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    images, labels = batch.get("data"), batch.get("labels")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (3072,):
        given = f"{images.dtype} of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{path}: data must be uint8 of shape (n, 3072), got {given}")
    if not isinstance(labels, list) or len(labels) != len(images):
        given = f"{len(labels)} of them" if isinstance(labels, list) else type(labels).__name__
        raise DataError(f"{path}: {len(images)} images need a list of as many labels, got {given}")
    wrong = [label for label in labels if type(label) is not int or not 0 <= label <= 9]
    if wrong:
        raise DataError(f"{path}: labels are integers 0..9, found {wrong[0]!r}")
    return images.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)
