"""Small generated sources in the true on-disk formats, and a place without any data of the user."""

import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from linfair.data.official import CLASSES

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def no_user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whatever data and settings the user has, these tests see none of them (those with real packs excepted).

    Servers on this machine are reached past the user's proxy.
    """
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    if "real_data" in request.fixturenames:
        return
    monkeypatch.delenv("LINFAIR_DATA", raising=False)
    monkeypatch.delenv("LINFAIR_STRICT", raising=False)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write_batches() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Writes `cifar-10-batches-py` as the release has it: protocol 2, keys and file names bytes, rows of 3072."""

    def write(root: Path, each: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        folder = root / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        images = rng.integers(0, 256, (6 * each, 3072), dtype=np.uint8)
        labels = np.tile(np.arange(10), 6 * each)[: 6 * each]
        for i, name in enumerate(BATCHES):
            mine = slice(i * each, (i + 1) * each)
            batch = {
                b"batch_label": b"batch",
                b"labels": labels[mine].tolist(),
                b"data": images[mine],
                b"filenames": [b"image.png"] * each,
            }
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        return images.reshape(-1, 3, 32, 32), labels

    return write


@pytest.fixture
def write_hundred() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Writes `cifar-100-python` as the release has it: one file each to train and to test, two kinds of labels."""

    def write(root: Path, train: int = 1000, test: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        folder = root / "cifar-100-python"
        folder.mkdir(parents=True)
        images = rng.integers(0, 256, (train + test, 3072), dtype=np.uint8)
        labels = np.tile(np.arange(100), train + test)[: train + test]
        for name, mine in (("train", slice(train)), ("test", slice(train, None))):
            fine = labels[mine].tolist()
            batch = {b"filenames": [b"image.png"] * len(fine), b"batch_label": b"batch", b"fine_labels": fine}
            batch |= {b"coarse_labels": [label // 5 for label in fine], b"data": images[mine]}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        return images.reshape(-1, 3, 32, 32), labels

    return write


@pytest.fixture
def write_idx() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Writes MNIST's four unpacked files as the release has them: big-endian head, then the bytes."""

    def write(root: Path, train: int = 200, test: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        root.mkdir(parents=True, exist_ok=True)
        images = rng.integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
        labels = np.tile(np.arange(10, dtype=np.uint8), train + test)[: train + test]
        for name, mine in (("train", slice(train)), ("t10k", slice(train, None))):
            x, y = images[mine], labels[mine]
            (root / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, len(x), 28, 28) + x.tobytes())
            (root / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(y)) + y.tobytes())
        return images[:, None], labels

    return write


@pytest.fixture
def write_celeba(write_image: Callable) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Writes CelebA's lists and images under their published names, as a folder or a zip; no face is in them."""

    def write(root: Path, n: int = 60, seed: int = 0, *, zipped: bool = False) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        values, parts = rng.integers(0, 2, (n, 40)), np.arange(n) % 10
        values[:, [20, 31]] = np.stack([np.arange(n) // 10 % 2, np.arange(n) // 20 % 2], axis=1)  # Male and Smiling
        parts = np.select([parts == 8, parts == 9], [1, 2], 0)  # of ten images 8 train, one validates, one is tested
        names = [f"{number + 1:06}.jpg" for number in range(n)]
        for number, name in enumerate(names):
            write_image(root / "img_align_celeba" / name, number, size=(178, 218))
        lines = [
            f"{name} {' '.join('-1' if not v else ' 1' for v in row)}" for name, row in zip(names, values, strict=True)
        ]
        heads = [str(n), " ".join(CLASSES["celeba"]) + " "]
        (root / "list_attr_celeba.txt").write_text("\n".join([*heads, *lines]) + "\n")
        lines = [f"{name} {part}" for name, part in zip(names, parts, strict=True)]
        (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
        if zipped:
            with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
                for name in names:
                    archive.write(root / "img_align_celeba" / name, f"img_align_celeba/{name}")
            shutil.rmtree(root / "img_align_celeba")
        return values, parts

    return write


@pytest.fixture
def write_mats() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Writes `train_32x32.mat` and `test_32x32.mat` as the release has them: X (32, 32, 3, n), y (n, 1), 0 as 10."""

    def write(root: Path, train: int = 40, test: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        root.mkdir(parents=True, exist_ok=True)
        images = rng.integers(0, 256, (train + test, 3, 32, 32), dtype=np.uint8)
        digits = np.tile(np.arange(10), train + test)[: train + test]
        for name, mine in (("train_32x32.mat", slice(train)), ("test_32x32.mat", slice(train, None))):
            y = np.where(digits[mine] == 0, 10, digits[mine]).astype(np.uint8)[:, None]
            savemat(root / name, {"X": images[mine].transpose(2, 3, 1, 0), "y": y}, do_compression=True)
        return images, digits

    return write


@pytest.fixture
def write_image() -> Callable[..., np.ndarray]:
    """Writes one image file of any size and mode, and returns the pixels that were drawn."""

    def write(path: Path, seed: int, *, size: tuple[int, int] = (200, 200), mode: str = "RGB") -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (8, 8, {"RGB": 3, "RGBA": 4, "L": 1}[mode]), dtype=np.uint8)
        image = Image.fromarray(coarse.squeeze(), mode=None).resize(size, Image.Resampling.BICUBIC)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return np.asarray(image)

    return write
