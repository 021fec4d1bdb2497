"""UTKFace from the original files, whose names carry the labels: `[age]_[gender]_[race]_[date].jpg.chip.jpg`.

Source: Z. Zhang, Y. Song, H. Qi, "Age Progression/Regression by Conditional Adversarial Autoencoder", CVPR 2017.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from linfair.data.core import Collection, Skipped, ensure
from linfair.data.images import SUFFIXES, check_skips, content_digest, files_of, pictures
from linfair.names import hint

LIMITS = {"age": 116, "gender": 1, "race": 4}
"""Largest value of each field; the smallest is 0."""
NAMES = {
    "race": ("White", "Black", "Asian", "Indian", "Others"),
    "gender": ("male", "female"),
    "age": ("2-12", "13-17", "18-64", "65+"),
    "age5": ("0-1", "2-12", "13-17", "18-64", "65+"),
}
AGE_EDGES = (2, 13, 18, 65)
"""First year of each of the paper's age groups; ages 0 and 1 are dropped."""


def fields_of(name: str) -> dict[str, int]:
    """Age, gender and race from a file's name; a name with fewer than three fields keeps its age, the others are -1.

    With two fields before the date nobody can say whether gender or race is missing. A `ValueError` names what is
    missing or absurd.
    """
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

    Identical pictures (at full size) get one number in `same`; a file that is in two subfolders counts once. Names that
    lack gender or race are used for age only (the missing fields are -1), and listed among the skipped files.
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
    read = pictures(wanted, 32, what="reading UTKFace")
    skipped += read.skipped
    rows: dict[tuple[str, bytes], int] = {}
    for row, (number, digest) in enumerate(zip(read.kept, read.digests, strict=True)):
        name, path = wanted[number]
        if rows.setdefault((path.name, digest), row) != row:
            skipped.append(Skipped(name, "the same file is in another subfolder"))
            continue
        lacking = [field for field, value in values[number].items() if value < 0]
        if lacking:
            skipped.append(Skipped(name, f"no {' and '.join(lacking)} in the name; used for age only"))
    check_skips(f"UTKFace in {folder}", [(one.name, one.why) for one in skipped], len(rows), strict=strict)
    kept = list(rows.values())
    images = read.images if len(kept) == len(read.images) else read.images[kept]
    fields = {field: np.array([values[read.kept[row]][field] for row in kept], dtype=np.int64) for field in LIMITS}
    return Collection(
        "utkface",
        images,
        fields,
        same=pd.factorize(pd.Series([digest for _, digest in rows], dtype=object))[0],
        official=None,
        origin=f"original files, {len(images):,} images",
        sha256=content_digest(images, fields),
        skipped=tuple(skipped),
        notes={"rotated": read.rotated} if read.rotated else {},
    )


def holds_faces(folder: Path) -> bool:
    """Whether a folder, or a folder in it, has a file with a name of UTKFace's form."""
    files = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return any(re.match(r"\d{1,3}_\d_.*\d{8}", path.name) and path.suffix.lower() in SUFFIXES for path in files)


def utkface_field(fields: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers (-1 for an image that is left out) and names of a way to label or group UTKFace.

    `name` is `age`, `age5`, `race`, `gender`, or several joined by `x`; `fields` holds years, gender and race.
    """
    if "x" in name:
        (one, names), (two, more) = (utkface_field(fields, part) for part in name.split("x", 1))
        joined = np.where((one >= 0) & (two >= 0), one * len(more) + two, -1)
        return joined, tuple(f"{a}, {b}" for a in names for b in more)
    problem = f"utkface has no label or group {name!r} (two are joined as racexgender)"
    ensure(name in NAMES, f"{problem}; {hint(name, NAMES)}")
    if name.startswith("age"):
        return np.searchsorted(AGE_EDGES, fields["age"], side="right") - (name == "age"), NAMES[name]
    return fields[name], NAMES[name]
