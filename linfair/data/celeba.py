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
import pandas as pd

from linfair.data.core import Collection, DataError, ensure, shown
from linfair.data.images import check_skips, content_digest, pictures
from linfair.data.official import LISTS
from linfair.paths import unfit

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
FILES = (ATTRIBUTES, PARTITION, f"{IMAGES}.zip")
FACES = 202_599  #: Images of the whole set


def read_celeba(folder: str | Path, *, size: int = 32, strict: bool = False) -> Collection:
    """Read the published files at size x size: a field of 0 or 1 for each attribute, and the official split.

    An image that cannot be read is skipped and listed, or with `strict` an error.
    """
    folder = Path(folder)
    fields, parts = read_attributes(folder), _lines(folder / PARTITION, 0, 1, {"0": 0, "1": 2, "2": 1})
    names = fields.pop("file").tolist()
    apart = sorted(parts.keys() ^ set(names))
    ensure(not apart, f"{folder}: {apart[:1]} is in one of {ATTRIBUTES} and {PARTITION} only; copy both files again")
    zipped, place = folder / f"{IMAGES}.zip", folder / IMAGES
    if not place.is_dir():
        try:
            place = zipfile.Path(zipped, f"{IMAGES}/")
        except (OSError, zipfile.BadZipFile) as error:
            why = f"no folder {IMAGES}, and no readable {zipped.name} ({type(error).__name__})"
            raise DataError(f"{folder}: {why}; copy one of them again") from error
    files = [(name, place / name) for name in names]
    images, digests, kept, skipped, _ = pictures(files, size, what="reading CelebA")
    check_skips(f"CelebA in {folder}", [(one.name, one.why) for one in skipped], len(kept), strict=strict)
    fields = {name: values[kept] for name, values in fields.items()}
    return Collection(
        "celeba",
        images,
        fields,
        same=pd.factorize(pd.Series(digests, dtype=object))[0],
        official=np.array([parts[names[number]][0] for number in kept], dtype=np.int64),
        origin=f"official files, {len(kept):,} of {FACES:,} images",
        sha256=content_digest(images, fields),
        skipped=tuple(skipped),
    )


def read_attributes(folder: Path) -> dict[str, np.ndarray]:
    """The attributes, 0 or 1, shape (n,), and the names of the images in `file`; no image is opened."""
    rows = _lines(folder / ATTRIBUTES, 2, len(LISTS["celeba"]), {"-1": 0, "1": 1})
    values = np.array(list(rows.values()), dtype=np.int64).T
    return {
        "file": np.array(list(rows)),
        **{name: one.copy() for name, one in zip(LISTS["celeba"], values, strict=True)},
    }


def _lines(path: Path, head: int, cells: int, allowed: Mapping[str, int]) -> dict[str, list[int]]:
    """A list of CelebA by image, after the two lines that head one of them: what each of its cells stands for."""
    again = "copy the published file again"
    why = unfit(path, 2**26)
    ensure(why is None, f"{path} {why}; {again}")
    lines, found = path.read_text(encoding="ascii", errors="replace").splitlines(), {}
    for number, line in enumerate(lines[head:], head + 1):
        name, *given = line.split() or [""]
        wanted = f"a new name such as 000001.jpg and {cells} of {', '.join(allowed)}"
        right = re.fullmatch(r"\d{6}\.jpg", name, re.ASCII) and name not in found and len(given) == cells
        right = right and allowed.keys() >= set(given)
        ensure(right, f"{path}, line {number}: {shown(line, 60)!r} must be {wanted}; {again}")
        found[name] = [allowed[cell] for cell in given]
    counted = [str(len(found)), " ".join(LISTS["celeba"])]
    for number, (line, wanted) in enumerate(zip(lines[:head], counted[:head], strict=False), 1):
        right = line.split() == wanted.split()
        ensure(right, f"{path}, line {number}: {shown(line, 60)!r} must be {wanted[:60]!r}...; {again}")
    ensure(found, f"{path} lists no image; {again}")
    return found
