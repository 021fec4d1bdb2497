"""UTKFace from the original files, whose names carry the labels: `[age]_[gender]_[race]_[date].jpg.chip.jpg`.

Source: Z. Zhang, Y. Song, H. Qi, "Age Progression/Regression by Conditional Adversarial Autoencoder", CVPR 2017.
"""

import re
from pathlib import Path

import numpy as np

from linfair.data.collection import Collection, Skipped
from linfair.data.images import SUFFIXES, check_skips, content_digest, numbered, pictures

SIZE = 32
LIMITS = {"age": 116, "gender": 1, "race": 4}
"""Largest value of each field; the smallest is 0."""
AGE_ONLY = "used for age only"
_DATE = re.compile(r"\d{8}")


def fields_of(name: str) -> dict[str, int]:
    """Age, gender and race from a file's name; a name with fewer than three fields keeps its age, the others are -1.

    With two fields before the date nobody can say whether gender or race is the missing one: both are -1.

    Raises:
        ValueError: If the age is missing, the name has another form, or a value is absurd; says which.

    >>> fields_of("26_1_3_20170116174525125.jpg.chip.jpg")
    {'age': 26, 'gender': 1, 'race': 3}
    >>> fields_of("39_1_20170116174525125.jpg.chip.jpg")
    {'age': 39, 'gender': -1, 'race': -1}
    """
    before = []
    for token in name.split("_"):
        if _DATE.match(token):
            break
        before.append(token)
    else:
        raise ValueError("the name is not [age]_[gender]_[race]_[date]: no date")
    if not before or not before[0]:
        raise ValueError("the name has no age")
    if len(before) > 3:
        raise ValueError(f"the name has {len(before)} fields before the date, not 3")
    values = dict.fromkeys(LIMITS, -1)
    for field, token in zip(LIMITS, before, strict=False):
        if token and not re.fullmatch(r"-?\d{1,6}", token, re.ASCII):
            raise ValueError(f"{field} is {token[:20]!r}, not a number")
        if token and not 0 <= int(token) <= LIMITS[field]:
            raise ValueError(f"{field} is {int(token)}, not in 0..{LIMITS[field]}")
        values[field] = int(token) if token else -1
    return values if len(before) == 3 else dict.fromkeys(LIMITS, -1) | {"age": values["age"]}


def files_of(folder: str | Path) -> list[Path]:
    """The image files of a folder and its subfolders, by extension in any case, in order of their names."""
    found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


def read_utkface(folder: str | Path, *, strict: bool = False) -> Collection:
    """Read the original files, resized to 32x32.

    Identical pictures (at full size) get one number in `same`. A file that is there twice, with one name and one
    picture in two subfolders, counts once. What cannot be used is skipped, counted and listed; so are names that lack
    gender or race, which are used for age only (the missing fields are -1).

    Args:
        folder: Holds the files, also in subfolders.
        strict: Make every skip an error.

    Returns:
        The collection: `age` (years), `gender`, `race`; no official split.

    Raises:
        DataError: If no file can be used, or one was skipped and `strict` is set.
    """
    folder = Path(folder)
    skipped, wanted, values = [], [], []
    for path in files_of(folder):
        name = path.relative_to(folder).as_posix()
        try:
            values.append(fields_of(path.name))
        except ValueError as error:
            skipped.append(Skipped(name, str(error)))
            continue
        wanted.append((name, path))
    read = pictures(wanted, SIZE, what="reading UTKFace")
    skipped += read.skipped
    kept: list[int] = []
    seen: set[tuple[str, bytes]] = set()
    for row, digest in enumerate(read.digests):
        name, path = wanted[read.kept[row]]
        if (path.name, digest) in seen:
            skipped.append(Skipped(name, "the same file is in another subfolder"))
            continue
        seen.add((path.name, digest))
        kept.append(row)
        lacking = [field for field, value in values[read.kept[row]].items() if value < 0]
        if lacking:
            skipped.append(Skipped(name, f"no {' and '.join(lacking)} in the name; {AGE_ONLY}"))
    check_skips(f"UTKFace in {folder}", tuple(skipped), len(kept), strict=strict)
    images = read.images if len(kept) == len(read.images) else read.images[kept]
    images.flags.writeable = False
    rows = [values[read.kept[row]] for row in kept]
    fields = {field: np.array([row[field] for row in rows], dtype=np.int64) for field in LIMITS}
    return Collection(
        "utkface",
        images,
        fields,
        same=numbered(read.digests[row] for row in kept),
        official=None,
        origin=f"original files, {len(images):,} images",
        sha256=content_digest(images, fields),
        skipped=tuple(skipped),
        notes={"rotated": read.rotated} if read.rotated else {},
    )


def holds_faces(folder: str | Path) -> bool:
    """Whether a folder, or a folder in it, has a file with a name of UTKFace's form."""
    folder = Path(folder)
    if not folder.is_dir():
        return False
    return any(
        re.match(r"\d{1,3}_\d_.*\d{8}", path.name) and path.suffix.lower() in SUFFIXES
        for pattern in ("*", "*/*")
        for path in folder.glob(pattern)
    )
