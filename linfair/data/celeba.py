"""CelebA as its publishers give it: images with forty attributes of yes or no, and an official split by person.

The files lie side by side under their published names: `img_align_celeba` (a folder, or the zip file as it is),
`list_attr_celeba.txt` (how many images, the attributes, then a line with 1 or -1 of each for every image) and
`list_eval_partition.txt` (a line with 0, 1 or 2 for every image: training, validation, test).

Source: Z. Liu, P. Luo, X. Wang, X. Tang, "Deep Learning Face Attributes in the Wild", ICCV 2015.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from linfair.data.core import Collection, DataError, ensure, shown
from linfair.data.images import check_skips, content_digest, pictures
from linfair.data.official import LISTS
from linfair.paths import unfit

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
FILES = (ATTRIBUTES, PARTITION, f"{IMAGES}.zip")
FACES = 202_599  #: Images of the whole set


def holds(folder: Path) -> bool:
    """Whether a folder holds the files."""
    return (folder / ATTRIBUTES).is_file()


def read_celeba(folder: str | Path, *, size: int = 32, strict: bool = False) -> Collection:
    """Read the files at size x size: a field of 0 or 1 for each attribute, and the official split.

    An image that cannot be read is skipped and listed, or with `strict` an error.
    """
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
    files = [(name, place / name) for name in names]
    images, same, kept, skipped, _ = pictures(files, size, what="reading CelebA")
    check_skips(f"CelebA in {folder}", [(one.name, one.why) for one in skipped], len(kept), strict=strict)
    fields = {name: values[kept] for name, values in fields.items()}
    official = np.array([parts[names[number]][0] for number in kept], dtype=np.int64)
    origin, sha256 = f"official files, {len(kept):,} of {FACES:,} images", content_digest(images, fields)
    return Collection("celeba", images, fields, same, official, origin, sha256, tuple(skipped))


def read_attributes(folder: Path) -> dict[str, np.ndarray]:
    """The attributes, 0 or 1, shape (n,), and the names of the images in `file`; no image is opened."""
    rows = _lines(folder / ATTRIBUTES, len(LISTS["celeba"]), {"-1": 0, "1": 1})
    values = np.array(list(rows.values()), dtype=np.int64)
    return {"file": np.array(list(rows))} | {name: values[:, i].copy() for i, name in enumerate(LISTS["celeba"])}


def _lines(path: Path, cells: int, allowed: Mapping[str, int]) -> dict[str, list[int]]:
    """What the cells of a list stand for, by image; the list of attributes begins with their number and names."""
    again, why = "copy the published file again", unfit(path, 2**26)
    ensure(why is None, f"{path} {why}; {again}")
    lines, found = path.read_text(encoding="ascii", errors="replace").splitlines(), {}
    heads = [str(len(lines) - 2), " ".join(LISTS["celeba"])] if cells > 1 else []
    for number, line in enumerate(lines):
        head, (name, *given) = number < len(heads), line.split() or [""]
        wanted = heads[number] if head else f"a new name such as 000001.jpg and {cells} of {', '.join(allowed)}"
        right = re.fullmatch(r"\d{6}\.jpg", name, re.ASCII) and name not in found and len(given) == cells
        right = line.split() == wanted.split() if head else right and allowed.keys() >= set(given)
        ensure(right, f"{path}, line {number + 1}: {shown(line, 60)!r} must be {wanted[:60]}; {again}")
        found |= {} if head else {name: [allowed[cell] for cell in given]}
    ensure(found, f"{path} lists no image; {again}")
    return found
