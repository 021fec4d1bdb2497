"""The paper's data sets, and a user's own, as `GroupedData`: label, group, what is kept and how it is split.

The test split is the paper's (with the training's imbalance), and CIFAR-10 has the balanced test beside it. Of several
sets: `seed` decides all that is drawn; `root` is where the files are; `validation` is the share of the training images
held out, `test` of all images, where the source has no such split; `merge` makes one group of several, `a+b`, or
`a+b;c+d`; groups with fewer images than `min_images` are left out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from linfair.data.core import Collection, DataError, GroupedData, Split, ensure, provenance_of, upsample
from linfair.data.official import CELEBRITIES, CIFAR10, CIFAR100, CLASSES, MNIST, SVHN, utkface_field
from linfair.data.sources import read
from linfair.data.splits import joint_part, part, thin
from linfair.data.values import Groups, cleaned, columns_of, intersect, regroup
from linfair.names import hint, some, unknown

FULL = {one.name: one.images for one in (CIFAR10, SVHN, MNIST)} | {"celeba": CELEBRITIES}
FULL |= {f"{one.name}s": 2 * one.images for one in (CIFAR10, CIFAR100)}
"""With fewer images, results are those on a subset."""
VALIDATION = 0.1  #: Share of the training images held out for validation
PAPERS = (0.9,) * 5 + (0.1,) * 5  #: The fraction that each class of CIFAR-10 keeps in the paper
_OPTIONAL = ("merge", "min_images", "conflicts", "links")
Root, Shares = str | Path | None, Sequence[float]
Parts = dict[str, np.ndarray]


def cifar10(
    *, seed: int = 0, root: Root = None, fractions: Shares = PAPERS, validation: float = VALIDATION, crop: int = 0
) -> GroupedData:
    """CIFAR-10 made imbalanced: classes 0-4 keep 90 %, classes 5-9 keep 10 %, of the training and the test images.

    Before validation is taken 22,500 + 2,500 images are left to train on; `test` has 4,500 + 500, `test_balanced` the
    official 10,000. Group and label coincide. `fractions` are what each class keeps. With a
    `crop` training images are moved by up to so many pixels each way and mirrored half of the time.
    """
    source = read("cifar10", root)
    label, train, test = source.fields["label"], source.official == 0, source.official == 1
    ensure(len(fractions) == 10, f"cifar10 needs 10 fractions, one for each class, got {len(fractions)}")
    rng = np.random.default_rng([seed, 10])
    kept = thin(label, fractions, rng, among=train)
    val = part(label, source.same, validation, rng, among=kept)
    parts = {"train": kept & ~val, "val": val, "test": thin(label, fractions, rng, among=test), "test_balanced": test}
    ensure(0 <= crop < 32, f"cifar10 takes a crop of 0 to 31 pixels, got {crop}")
    options = {"fractions": tuple(fractions), "validation": validation} | ({"crop": crop} if crop else {})
    classes = label, CLASSES["cifar10"]
    return replace(grouped("cifar10", source, classes, seed, options, groups=Groups(*classes), parts=parts), crop=crop)


def svhn(
    name: str, *, seed: int = 0, root: Root = None, fractions: Shares | None = None, validation: float = VALIDATION
) -> GroupedData:
    """SVHN's cropped digits, or MNIST's, with their natural imbalance; group and label coincide.

    Digits cut from one photograph stay together where the source says which they are. A pack that holds a part of SVHN
    has its own split. With `fractions` each digit keeps that part of its training images (validation and test stay the
    same); None, the paper's, keeps all; the released code linearizes on (0.9,) * 5 + (0.3,) * 5.
    """
    source = read(name, root)
    label = source.fields["label"]
    val = part(label, source.same, validation, np.random.default_rng([seed, 11]), among=source.official == 0)
    train, options = (source.official == 0) & ~val, {"validation": validation}
    if fractions is not None:
        ensure(len(fractions) == 10, f"{name} needs 10 fractions, one for each digit, got {len(fractions)}")
        train = thin(label, fractions, np.random.default_rng([seed, 14]), among=train)
        options |= {"fractions": tuple(fractions)}
    parts = {"train": train, "val": val, "test": source.official == 1}
    classes = label, CLASSES[name]
    return grouped(name, source, classes, seed, options, groups=Groups(*classes), parts=parts)


def utkface(
    name: str = "utkface",
    *,
    seed: int = 0,
    root: Root = None,
    label: str = "race",
    group: str | None = None,
    test: float = 0.2,
    validation: float = VALIDATION,
    merge: str = "",
    min_images: int = 0,
    upsampled: str = "",
    times: int = 1,
) -> GroupedData:
    """UTKFace at 32x32, split by the seed, stratified by label and group, identical images together.

    The label is `age` (4 groups, ages 0-1 dropped), `age5` (the released code's 5), `age9` (nine bins), `race` or
    `gender`. The group is one of these, or two joined by `x` (`racexgender`) or a comma; by default it is the label, as
    in the paper. Each training image of the group `upsampled` is there `times` times.
    """
    source = read("utkface", root)
    group = "x".join(columns_of(group)) if group else label
    labels, (a, group_names) = (utkface_field(source.fields, field) for field in (label, group))
    groups = regroup(a, group_names, merge=merge, min_images=min_images, usable=labels[0] >= 0)
    options = {"label": label, "group": group, "test": test, "validation": validation}
    options |= {"merge": merge, "min_images": min_images}
    found = grouped(name, source, labels, seed, options, groups=groups)
    if not upsampled and times == 1:
        return found
    ensure(upsampled in groups.names, unknown(f"{name}: upsampled names no group:", upsampled, groups.names))
    return upsample(found, groups.names.index(upsampled), times)


def celeba(
    *, seed: int = 0, root: Root = None, label: str = "Smiling", group: str = "Male", size: int = 32
) -> GroupedData:
    """CelebA in its official split: an attribute is the label, another one the group, by default Smiling and Male.

    Which attribute the third paper predicts is not in its abstract; the choice is ours. Images of 178x218 pixels are
    resized to size x size.
    """
    source, options = read("celeba", root, size=size), {"label": label, "group": group, "size": size}
    for name in (label, group):
        ensure(name in source.fields, f"celeba has no attribute {name!r}; {hint(name, list(source.fields))}")
    (labels, (a, names)) = ((source.fields[one], (f"not {one}", one)) for one in (label, group))
    return grouped("celeba", source, labels, seed, options, groups=Groups(a, names))


def folder(
    *,
    seed: int = 0,
    root: Root = None,
    label: str = "label",
    group: str | None = None,
    size: int = 32,
    test: float = 0.2,
    validation: float = VALIDATION,
    merge: str = "",
    min_images: int = 0,
    conflicts: str = "leave-out",
    links: str = "inside",
) -> GroupedData:
    """A folder of images with a `labels.csv` (columns `file`, a label, any groups), or with a folder for each label.

    Label and group are columns; the group may be several, `a,b`: each combination that occurs is one. By default it is
    the label. A column `split` (train, val, test) goes before `test` and `validation`. Images are resized to size x
    size. A file that is listed with different values is left out, or its `first` or `last` line counts (`conflicts`).
    A link out of the folder is skipped, unless `links` may lead `anywhere`.
    """
    columns, label = columns_of(group or label), cleaned(label)
    source = read("folder", root, size=size, columns=(label, *columns), conflicts=conflicts, links=links)
    a, group_names = intersect(columns, *zip(*((source.fields[c], source.names[c]) for c in columns), strict=True))
    groups = regroup(a, group_names, merge=merge, min_images=min_images)
    usable = groups.numbers >= 0
    there, numbers = np.unique(source.fields[label][usable], return_inverse=True)
    y = np.full(len(a), -1)
    y[usable] = numbers  # a label that only left-out groups have is dropped
    labels = y, tuple(source.names[label][number] for number in there)
    options = {"label": label, "group": ",".join(columns), "size": size, "test": test, "validation": validation}
    options |= {"merge": merge, "min_images": min_images, "conflicts": "" if conflicts == "leave-out" else conflicts}
    options["links"] = "" if links == "inside" else links
    return grouped("folder", source, labels, seed, options, groups=groups)


def grouped(
    name: str, source: Collection, labels: tuple, seed: int, options: dict, groups: Groups, parts: Parts | None = None
) -> GroupedData:
    """Cut a collection into splits; every group must be in each of them, and every label in `train`.

    Without `parts` a split that the source has is kept, and the others are drawn out of its training images; the
    provenance says for each of these which groups were drawn without their labels (`drawn`).
    """
    (y, label_names), a, drawn, splits = labels, groups.numbers, None, {}
    if parts is None:
        official = np.zeros(len(y), dtype=np.int64) if source.official is None else source.official
        rng = np.random.default_rng([seed, {"utkface": 12, "folder": 13, "celeba": 15}[source.name]])
        usable, parts, drawn = (y >= 0) & (a >= 0), {"train": None, "val": None}, {}
        left = usable & (official == 0)
        for split, number, share in (("test", 1, "test"), ("val", 2, "validation")):
            parts[split] = usable & (official == number)
            if not parts[split].any():
                parts[split], alone = joint_part(y, a, source.same, options.get(share, VALIDATION), rng, among=left)
                drawn[split] = [groups.names[one] for one in alone]
                left = left & ~parts[split]
        parts["train"] = left
    counts = {split: np.bincount(y[chosen], minlength=len(label_names)) for split, chosen in parts.items()}
    classes = (counts["train"] > 0).sum()
    ensure(classes > 1, f"{name}: the training split has one class only; add images of another label")
    for number, label in enumerate(label_names):
        there = " and ".join(f"{n[number]} in {split}" for split, n in counts.items() if n[number])
        why = f"has no image in train, but {there}, so that nothing can learn it"
        learnt = counts["train"][number] or not there
        ensure(learnt, f"{name}: label {label} {why}; give it training images, or remove its images")
    for split, chosen in parts.items():
        if empty := np.flatnonzero(np.bincount(a[chosen], minlength=len(groups.names)) == 0).tolist():
            raise DataError(f"{name}: {_nowhere(split, empty, source, parts, groups, drawn)}")
        index = np.flatnonzero(chosen)
        splits[split] = Split(*map(torch.from_numpy, (source.images[index], y[index], a[index])))
    # in another order numpy would add all pixels of a channel one by one, which float32 cannot
    pixels = np.ascontiguousarray(source.images[parts["train"]]).astype(np.float32) / 255
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    blank = "a colour channel is the same everywhere in the training images"
    ensure((std > 0).all(), f"{name}: {blank}; check that the images are not blank")
    untested = [label_names[n] for n in np.flatnonzero((counts["train"] > 0) & (counts["test"] == 0))]
    met = {"merged": list(groups.merged), "left_out": list(groups.left_out), "untested": untested}
    known = {"subset": len(source) < FULL.get(name, 0), "source_sha256": source.sha256}
    known["skipped"] = [(one.name, one.why) for one in source.skipped]
    known["skipped_kinds"] = dict(Counter(one.kind for one in source.skipped))
    known |= source.notes | {name: found for name, found in met.items() if found}
    known |= {} if drawn is None else {"drawn": drawn}
    options = {name: value for name, value in options.items() if value or name not in _OPTIONAL}
    known = provenance_of(source.origin, seed, options, splits) | known
    scale = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    return GroupedData(name, splits, tuple(label_names), groups.names, **scale, provenance=known)


def _nowhere(split: str, empty: list[int], source: Collection, parts: Parts, groups: Groups, drawn: dict | None) -> str:
    """Why groups have no image in a split, and what to do."""
    names = [groups.names[number] for number in empty]
    head = f"group{'s' * (len(names) > 1)} {some(names)} {'has' if len(names) == 1 else 'have'} no image in {split}"
    if drawn is None:
        return f"{head}; use another seed, larger fractions, or fewer groups"
    needed, pool = 1 + len(drawn), np.any([parts[one] for one in ("train", *drawn)], axis=0)
    images = [len(np.unique(source.same[pool & (groups.numbers == number)])) for number in empty]
    why = "the column split gives it nothing there"
    if split in ("train", *drawn):
        if min(images) >= needed:
            return f"{head}; use another seed, larger shares, or fewer groups"
        counts = some(f"{name} {n}" for name, n in zip(names, images, strict=True))
        why = f"different images to draw from: {counts}; {needed} are needed"
    most = max(int((groups.numbers == number).sum()) for number in empty)
    rest = next((one for one in groups.names if one not in names), "OTHER")
    merge = f"merge a small group with another (--merge '{names[0]}+{rest}')"
    leave = f"leave small groups out (--min-images {max(needed, most + 1)})"
    return f"{head}, and no seed can help ({why}); {merge}, {leave}, or add images"
