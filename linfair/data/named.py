"""The paper's data sets, and a user's own, as `GroupedData`: label, group, what is kept and how it is split.

Validation images always come out of the training split; the test split is the paper's (with the training's imbalance),
and CIFAR-10 has the balanced test beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from linfair.data.collection import Collection, DataError
from linfair.data.core import GroupedData, Split, provenance_of
from linfair.data.sources import read
from linfair.data.splits import part, thin

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
UTKFACE_NAMES = {
    "race": ("White", "Black", "Asian", "Indian", "Others"),
    "gender": ("male", "female"),
    "age": ("2-12", "13-17", "18-64", "65+"),
    "age5": ("0-1", "2-12", "13-17", "18-64", "65+"),
}
AGE_EDGES = (2, 13, 18, 65)
"""First year of each of the paper's age groups; ages 0 and 1 are dropped."""
VALIDATION = 0.1
"""Share of the training images held out for validation."""


def cifar10(
    *,
    seed: int = 0,
    root: str | Path | None = None,
    fractions: Sequence[float] = (0.9,) * 5 + (0.1,) * 5,
    validation: float = VALIDATION,
) -> GroupedData:
    """CIFAR-10 made imbalanced: classes 0-4 keep 90 %, classes 5-9 keep 10 %, of the training and the test images.

    Before validation is taken 22,500 + 2,500 images are left to train on; `test` has 4,500 + 500, `test_balanced` the
    official 10,000. Group and label coincide.

    Args:
        seed: Decides which images stay and which validate.
        root: Where the data are; see `linfair data status`.
        fractions: Fraction to keep of each class.
        validation: Share of the training images held out.
    """
    source = read("cifar10", root)
    label = source.fields["label"]
    if len(fractions) != 10:
        raise DataError(f"cifar10 needs 10 fractions, one for each class, got {len(fractions)}")
    rng = np.random.default_rng([seed, 10])
    train, test = source.official == 0, source.official == 1
    kept = thin(label, fractions, rng, among=train)
    val = part(label, source.same, validation, rng, among=kept)
    parts = {"train": kept & ~val, "val": val, "test": thin(label, fractions, rng, among=test), "test_balanced": test}
    options = {"fractions": tuple(fractions), "validation": validation}
    return _grouped("cifar10", source, parts, (label, CIFAR10_NAMES), (label, CIFAR10_NAMES), seed, options)


def svhn(*, seed: int = 0, root: str | Path | None = None, validation: float = VALIDATION) -> GroupedData:
    """SVHN's cropped digits with their natural imbalance; group and label coincide.

    Digits cut from one photograph stay together where the source says which they are. A pack that holds a part of SVHN
    has its own split; results from it are results on an SVHN subset.
    """
    source = read("svhn", root)
    label, names = source.fields["label"], tuple(str(digit) for digit in range(10))
    val = part(label, source.same, validation, np.random.default_rng([seed, 11]), among=source.official == 0)
    parts = {"train": (source.official == 0) & ~val, "val": val, "test": source.official == 1}
    return _grouped("svhn", source, parts, (label, names), (label, names), seed, {"validation": validation})


def utkface(
    name: str = "utkface",
    *,
    seed: int = 0,
    root: str | Path | None = None,
    label: str = "race",
    group: str | None = None,
    test: float = 0.2,
    validation: float = VALIDATION,
) -> GroupedData:
    """UTKFace at 32x32, split by the seed, stratified by label and group, identical images together.

    Args:
        name: Name of the data set.
        seed: Decides the split.
        root: Where the data are.
        label: What is predicted: `age` (4 groups, ages 0-1 dropped), `age5` (the released code's 5), `race`, `gender`.
        group: What is compared: likewise, or two joined by `x` (`racexgender`); the label by default, as in the paper.
        test: Share of the images to test on.
        validation: Share of the rest to validate on.

    Raises:
        DataError: For an unknown label or group, or a group without images.
    """
    source = read("utkface", root)
    group = group or label
    (y, label_names), (a, group_names) = (utkface_field(source.fields, field) for field in (label, group))
    usable = (y >= 0) & (a >= 0)
    strata = y * len(group_names) + a
    rng = np.random.default_rng([seed, 12])
    held = part(strata, source.same, test, rng, among=usable)
    val = part(strata, source.same, validation, rng, among=usable & ~held)
    parts = {"train": usable & ~held & ~val, "val": val, "test": held}
    options = {"label": label, "group": group, "test": test, "validation": validation}
    return _grouped(name, source, parts, (y, label_names), (a, group_names), seed, options)


def utkface_field(fields: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers and names of one way to label or group UTKFace.

    Args:
        fields: `age` (years), `gender`, `race` of each image; -1 where unknown.
        name: `age`, `age5`, `race`, `gender`, or two joined by `x`.

    Returns:
        The number of each image, shape (n,), -1 for an image that is left out; the names of the numbers.

    Raises:
        DataError: For another name.

    >>> utkface_field({"age": np.array([1, 2, 64, 65])}, "age")[0].tolist()
    [-1, 0, 2, 3]
    """
    if "x" in name:
        (one, names), (two, more) = (utkface_field(fields, part) for part in name.split("x", 1))
        joined = np.where((one >= 0) & (two >= 0), one * len(more) + two, -1)
        return joined, tuple(f"{a}, {b}" for a in names for b in more)
    if name not in UTKFACE_NAMES:
        raise DataError(f"utkface has no {name!r}; there are {', '.join(UTKFACE_NAMES)}, and two joined: racexgender")
    if name.startswith("age"):
        values = np.searchsorted(AGE_EDGES, fields["age"], side="right")
        return values - (name == "age"), UTKFACE_NAMES[name]
    return fields[name], UTKFACE_NAMES[name]


def folder(
    *,
    seed: int = 0,
    root: str | Path | None = None,
    label: str = "label",
    group: str | None = None,
    size: int = 32,
    test: float = 0.2,
    validation: float = VALIDATION,
) -> GroupedData:
    """A folder of images with a `labels.csv`: columns `file`, a label, and any groups.

    Args:
        seed: Decides the split.
        root: The folder.
        label: Column of the label.
        group: Column of the group; the label by default.
        size: Images are resized to size x size.
        test: Share of the images to test on; a column `split` (train, test) takes its place where there is one.
        validation: Share of the rest to validate on.

    Raises:
        DataError: For missing or unknown columns, unreadable images, or an empty group.
    """
    source = read("folder", root, size=size, columns=(label, group or label))
    group = group or label
    rng = np.random.default_rng([seed, 13])
    y, a = source.fields[label], source.fields[group]
    names, group_names = source.names[label], source.names[group]
    strata = y * len(group_names) + a
    held = part(strata, source.same, test, rng) if source.official is None else source.official == 1
    val = part(strata, source.same, validation, rng, among=~held)
    parts = {"train": ~held & ~val, "val": val, "test": held}
    options = {"label": label, "group": group, "size": size, "test": test, "validation": validation}
    return _grouped("folder", source, parts, (y, names), (a, group_names), seed, options)


def _grouped(
    name: str,
    source: Collection,
    parts: dict[str, np.ndarray],
    labels: tuple[np.ndarray, tuple[str, ...]],
    groups: tuple[np.ndarray, tuple[str, ...]],
    seed: int,
    options: dict[str, object],
) -> GroupedData:
    """Cut a collection into splits and check that every group is in every one of them."""
    (y, label_names), (a, group_names) = labels, groups
    if len(set(y[parts["train"]].tolist())) < 2:
        raise DataError(f"{name}: the training split has one class only; there is nothing to learn")
    splits = {}
    for split, chosen in parts.items():
        missing = sorted(set(range(len(group_names))) - set(a[chosen].tolist()))
        if missing:
            raise DataError(
                f"{name}: group {', '.join(group_names[number] for number in missing)} has no image in {split}; "
                "use another seed, larger shares, or fewer groups"
            )
        index = np.flatnonzero(chosen)
        fields = source.images[index], y[index].astype(np.int64), a[index].astype(np.int64)
        splits[split] = Split(*(torch.from_numpy(value) for value in fields))
    pixels = source.images[parts["train"]].astype(np.float32) / 255
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    if (std == 0).any():
        raise DataError(f"{name}: a colour channel is the same everywhere in the training images")
    provenance = provenance_of(source.origin, seed, options, splits)
    provenance |= {"source_sha256": source.sha256, "skipped": [(one.name, one.why) for one in source.skipped]}
    return GroupedData(
        name,
        splits,
        tuple(label_names),
        tuple(group_names),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        provenance=provenance,
    )
