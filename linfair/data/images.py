"""Image files of any size and mode become equally large RGB arrays; identical pictures are found."""

import contextlib
import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from linfair.data.core import DataError, Skipped, ensure, shown
from linfair.names import some
from linfair.paths import unfit

MANY = 5_000  #: With more images than this, reading shows a progress bar on a terminal
MOST = 2_000_000  #: Files of all kinds below a folder, at most
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SUFFIXES += (".ppm", ".pgm", ".pbm", ".pnm")
PIXELS = 2**26  #: Of one image, at most
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def below(folder: Path, inside: Path | None = None) -> Iterator[Path]:
    """The files below a folder, through links to folders; a link that leads out of `inside` is given itself."""
    count = 0
    for place, folders, files in os.walk(folder, followlinks=True):
        count += len(files) + len(folders)
        ensure(count < MOST, f"{folder} holds {MOST:,} files or more; name the folder that has the images")
        here, ways = Path(place), {}
        for one in folders:
            real = Path(os.path.realpath(here / one))
            ways[one] = real, inside is None or real.is_relative_to(os.path.realpath(inside))
        above = {os.path.realpath(one) for one in (here, *here.parents) if one.is_relative_to(folder)}
        folders[:] = [one for one, (real, leads) in ways.items() if leads and str(real) not in above]
        yield from (here / one for one in [*files, *(one for one, (_, leads) in ways.items() if not leads)])


def files_of(folder: str | Path, inside: Path | None = None) -> list[Path]:
    """The images `below` a folder, in order of their paths, without hidden ones and those of archivers.

    Links to nothing, and links to folders out of `inside`, are among them: whoever reads them says so.
    """
    folder = Path(folder)
    found = sorted(path for path in below(folder, inside) if _is_image(path))
    return [p for p in found if not any(part.startswith((".", "__")) for part in p.relative_to(folder).parts)]


def _is_image(path: Path) -> bool:
    dead = path.is_symlink() and not path.exists()
    return path.is_dir() or (path.suffix.lower() in SUFFIXES and (dead or path.is_file())) or (dead and not path.suffix)


def small(image: Image.Image, size: int) -> np.ndarray:
    """An RGB image as (3, size, size), by Pillow's antialiased bilinear filter, as torchvision's `Resize` does it."""
    same = image.size == (size, size)
    return np.asarray(image if same else image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def check_size(size: int) -> None:
    """Refuse a side that images cannot be brought to."""
    ensure(1 <= size <= 1024, f"images can be brought to 1..1024 pixels, got size={size}")


def check_link(path: Path, inside: Path | None) -> None:
    """Refuse a path that a link leads out of a folder."""
    real = inside and Path(os.path.realpath(path))
    within = not inside or real.is_relative_to(os.path.realpath(inside))
    ensure(within, f"a link leads out of the folder, to {real}; --links anywhere reads it")


def picture(path: Path | zipfile.Path, size: int) -> tuple[np.ndarray, bytes, bool]:
    """The image as RGB of shape (3, size, size), the SHA-256 of its full-size pixels, and whether EXIF turned it."""
    packed = isinstance(path, zipfile.Path)
    why = (None if path.exists() else "does not exist") if packed else unfit(path, 2**30)
    missing = "there is no such file" + ", or its name is not UTF-8" * ("\ufffd" in path.name)
    ensure(why is None, missing if why == "does not exist" else f"the file {why}")
    try:
        ensure(packed or path.stat().st_size, "the file is empty")
        opened = path.open("rb") if packed else path
        with warnings.catch_warnings(action="ignore"), Image.open(opened, formats=FORMATS) as file:
            width, height = file.size
            large = f"it has {width}x{height} pixels, and at most {PIXELS:,} are decoded; make it smaller"
            ensure(width * height <= PIXELS, large)
            frames = file.format != "MPO" and getattr(file, "is_animated", False)  # MPO: a photograph and its preview
            ensure(not frames, "it has several frames; save the one that is meant")
            deep = file.mode.split(";")[0] in ("I", "F")  # converting to RGB would clip
            ensure(not deep, f"mode {file.mode} has more than 8 bits a pixel; save it with 8")
            turned = False
            with contextlib.suppress(Exception):  # damaged EXIF data fail in many ways; the picture may be sound
                turned = file.getexif().get(0x0112, 1) in range(2, 9)
            file.load()  # Pillow turns TIFF files here; the tag is then gone
            full = (ImageOps.exif_transpose(file) if turned else file).convert("RGB")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders fail in many ways on damaged files
        text = str(error).replace(f" {str(path)!r}", " it") or type(error).__name__
        raise DataError(f"no readable image ({shown(text)})") from error
    pixels = np.asarray(full)
    return small(full, size), hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest(), turned


def pictures(
    files: Sequence[tuple[str, Path | zipfile.Path]], size: int, *, what: str, inside: Path | None = None
) -> tuple:
    """Read files (name and path): images, their numbers (equal ones share), positions, the skipped, how many turned."""
    check_size(size)
    read, kept, skipped = [], [], []
    bar = tqdm(files, desc=what, unit="image", disable=len(files) <= MANY or None, leave=False)
    for number, (name, path) in enumerate(bar):
        try:
            check_link(path, inside)
            read.append(picture(path, size))
            kept.append(number)
        except DataError as error:
            skipped.append(Skipped(name, str(error), "unreadable"))
    images, digests, turned = zip(*read, strict=True) if read else ((), (), ())
    stacked = np.stack(images) if images else np.empty((0, 3, size, size), np.uint8)
    same = pd.factorize(pd.Series(digests, dtype=object))[0]
    return stacked, same, np.array(kept, dtype=np.int64), skipped, sum(turned)


def content_digest(images: np.ndarray, fields: dict[str, np.ndarray]) -> str:
    """SHA-256 of images and fields, for sources that are not one file."""
    content = hashlib.sha256(repr(images.shape).encode() + np.ascontiguousarray(images).data)
    for name in sorted(fields):
        content.update(name.encode() + fields[name].astype(np.int64).tobytes())
    return content.hexdigest()


def check_skips(origin: str, skipped: Sequence[tuple[str, str]], left: int, *, strict: bool) -> None:
    """Refuse skips (pairs of file and reason) where `strict` makes them errors, and a source with no image `left`."""
    listed = some((f"{name}: {why}" for name, why in skipped), joint="; ")
    ensure(left, f"{origin}: no image can be used, {len(skipped)} skipped{': ' if listed else ''}{listed}")
    mend = "mend or remove them, or read without --strict (LINFAIR_STRICT), which skips and lists them"
    ensure(not (strict and skipped), f"{origin}: {len(skipped)} skipped ({listed}); {mend}")
