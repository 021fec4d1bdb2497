"""Image files of any size and mode -> equally large RGB arrays, with the pictures that are identical found."""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from linfair.data.collection import DataError, Skipped

MANY = 5_000
"""From more images than this on, reading shows a progress bar."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""Ends of file names that are taken for images, in lower case."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_DEEP = ("I", "F")  # more than 8 bits a pixel: converting to RGB would clip


class Unreadable(Exception):
    """An image file that cannot be used; the message says why."""


@dataclass(frozen=True)
class Pictures:
    """What a list of image files gave.

    Attributes:
        images: uint8, shape (n, 3, size, size).
        digests: For each image, what identifies it: SHA-256 of its full-size RGB pixels.
        kept: Position of each image in the list of files.
        skipped: The others.
        rotated: Images whose EXIF orientation said that they lie on a side or are mirrored, and were turned upright.
    """

    images: np.ndarray
    digests: tuple[bytes, ...]
    kept: np.ndarray
    skipped: tuple[Skipped, ...]
    rotated: int = 0


def picture(path: Path, size: int) -> tuple[np.ndarray, bytes, bool]:
    """Read one image file.

    Grey, palette and RGBA images become RGB. An image is turned as its EXIF orientation says. Resizing is Pillow's
    antialiased bilinear filter, which is what torchvision's `Resize((size, size))` does to a PIL image.

    Args:
        path: The file.
        size: Side of the result in pixels.

    Returns:
        The image, uint8 of shape (3, size, size); the SHA-256 of its full-size RGB pixels (and their shape); whether it
        was turned.

    Raises:
        Unreadable: If there is no such file, it is empty, no image, cut short, or has more than 8 bits a channel.
    """
    try:
        if path.stat().st_size == 0:
            raise Unreadable("the file is empty")
        with warnings.catch_warnings(action="ignore", category=UserWarning), Image.open(path, formats=FORMATS) as file:
            if file.mode.split(";")[0] in _DEEP:
                raise Unreadable(f"mode {file.mode} has more than 8 bits a pixel; save it with 8")
            turned, upright = _upright(file)
            full = upright.convert("RGB")
    except FileNotFoundError:
        raise Unreadable("there is no such file") from None
    except Unreadable:
        raise
    except Exception as error:  # Pillow's decoders fail in many ways on damaged files
        raise Unreadable(f"no readable image ({_short(error, path)})") from error
    pixels = np.asarray(full)
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    small = full if full.size == (size, size) else full.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1), digest, turned


def _upright(file: Image.Image) -> tuple[bool, Image.Image]:
    """Whether the EXIF orientation is another than upright, and the image turned by it."""
    try:
        turned = file.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # damaged EXIF data fail in many ways; the picture may be sound
        return False, file
    file.load()  # Pillow turns TIFF files here; the tag is then gone
    return turned, ImageOps.exif_transpose(file)


def pictures(files: Iterable[tuple[str, Path]], size: int, *, what: str) -> Pictures:
    """Read many image files; those that cannot be read are listed.

    Args:
        files: For each file the name it is reported by, and its path.
        size: Side of the results in pixels.
        what: Shown in the progress bar.
    """
    files = list(files)
    images, digests, kept, skipped, rotated = [], [], [], [], 0
    bar = tqdm(files, desc=what, unit="image", disable=len(files) <= MANY, leave=False)
    for number, (name, path) in enumerate(bar):
        try:
            image, digest, turned = picture(path, size)
        except Unreadable as error:
            skipped.append(Skipped(name, str(error), "unreadable"))
            continue
        rotated += turned
        images.append(image)
        digests.append(digest)
        kept.append(number)
    stacked = np.stack(images) if images else np.empty((0, 3, size, size), np.uint8)
    return Pictures(stacked, tuple(digests), np.array(kept, dtype=np.int64), tuple(skipped), rotated)


def numbered(keys: Iterable[object]) -> np.ndarray:
    """Number equal keys alike, in order of first appearance: int64, shape (n,).

    >>> numbered(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def content_digest(images: np.ndarray, fields: dict[str, np.ndarray]) -> str:
    """SHA-256 of images and fields, for sources that are not one file."""
    content = hashlib.sha256(repr(images.shape).encode() + np.ascontiguousarray(images).data)
    for name in sorted(fields):
        content.update(name.encode() + fields[name].astype(np.int64).tobytes())
    return content.hexdigest()


def check_skips(origin: str, skipped: tuple[Skipped, ...], left: int, *, strict: bool) -> None:
    """Refuse skips where they were made errors, and a source of which nothing is left.

    Raises:
        DataError: With the number of skipped files and the first of them.
    """
    if left and not (strict and skipped):
        return
    listed = "; ".join(f"{one.name}: {one.why}" for one in skipped[:5])
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    if not left:
        raise DataError(f"{origin}: no image can be used, {len(skipped)} skipped{': ' if listed else ''}{listed}{more}")
    raise DataError(
        f"{origin}: {len(skipped)} skipped ({listed}{more}); mend or remove them, "
        "or read without --strict (LINFAIR_STRICT), which skips and lists them"
    )


def _short(error: Exception, path: Path) -> str:
    """An error in a few words, without the path it was about."""
    text = str(error).replace(f" {str(path)!r}", " it").splitlines()
    return (text[0] if text else type(error).__name__)[:100]
