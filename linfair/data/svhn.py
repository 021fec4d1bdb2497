"""SVHN's cropped digits from the official `train_32x32.mat` and `test_32x32.mat`.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", NIPS workshop, 2011.
"""

from pathlib import Path

import numpy as np

from linfair.data.collection import Collection, DataError
from linfair.data.images import content_digest

FILES = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""The files, and the MD5 each has in the official release (as torchvision gives them)."""
IMAGES = 99_289


def read_svhn(folder: str | Path) -> Collection:
    """Read the official files; digit 0, which they write as 10, becomes 0.

    The files do not say which digits were cut from one photograph, so nothing is kept together.

    Args:
        folder: Holds `train_32x32.mat` and `test_32x32.mat`.

    Returns:
        The collection: `label`, and `official` 0 for the training file, 1 for the test file.

    Raises:
        DataError: If a file is missing, cut short, or not what it should be.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} missing; run `linfair data fetch svhn`, or copy the files again"
        )
    parts = [_file(folder / name) for name in FILES]
    images = np.concatenate([images for images, _ in parts])
    label = np.concatenate([label for _, label in parts])
    images.flags.writeable = False
    count = f"{len(images):,}" if len(images) == IMAGES else f"{len(images):,} of {IMAGES:,}"
    return Collection(
        "svhn",
        images,
        {"label": label},
        same=np.arange(len(images)),
        official=np.repeat([0, 1], [len(label) for _, label in parts]),
        origin=f"official files, {count} images",
        sha256=content_digest(images, {"label": label}),
    )


def _file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and digits of one file."""
    from scipy.io import loadmat

    try:
        arrays = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # scipy fails in many ways on damaged files
        raise DataError(
            f"{path}: damaged, cut short, or no MATLAB file ({type(error).__name__}: {str(error)[:100]}); "
            "run `linfair data fetch svhn`, or copy the file again"
        ) from error
    missing = [name for name in ("X", "y") if name not in arrays]
    if missing:
        raise DataError(f"{path}: {' and '.join(missing)} missing; copy the file again")
    images, label = arrays["X"], arrays["y"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: X must be uint8 of shape (32, 32, 3, n), got {images.dtype} of shape {images.shape}")
    if label.shape != (images.shape[3], 1):
        raise DataError(f"{path}: {images.shape[3]} images need y of shape ({images.shape[3]}, 1), got {label.shape}")
    if not np.isin(label, np.arange(1, 11)).all():
        raise DataError(f"{path}: y holds digits 1..10 (10 is digit 0), found {label.min()}..{label.max()}")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), label[:, 0].astype(np.int64) % 10
