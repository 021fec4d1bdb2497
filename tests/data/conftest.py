"""Small generated sources in the true on-disk formats, and a place without any data of the user."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def no_user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whatever data and settings the user has, these tests see none of them (those with real packs excepted)."""
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
