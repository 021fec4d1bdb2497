"""What a data set is: inputs, labels y and groups a, split once by one seed.

Everything of a data set lives on one device as it was stored (uint8 for images); it is normalised, and shifted where
asked, when a batch is taken.
"""

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from linfair import names


class DataError(ValueError):
    """Data that cannot be used; the message says what was found and what to do."""


def ensure(ok: object, message: str) -> None:
    """Refuse data that are not `ok` with a `DataError`."""
    if not ok:
        raise DataError(message)


def shown(text: str, most: int = 120) -> str:
    """Text out of a file or from a server, fit for one line: what is not printable as escapes, the end cut off."""
    return names.shown(text[:most]).replace("\n", r"\n")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Skipped:
    """One file that was left out, and why; `kind` is one of `linfair.data.describe.KINDS`."""

    name: str
    why: str
    kind: str = field(default="other", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", shown(self.name, 300))  # names of files may be anything


@dataclass(frozen=True)
class Collection:
    """All images of one source with what is known of each, before any split; the arrays are made read-only."""

    name: str  # `cifar10`, `svhn`, `utkface` or `folder`
    images: np.ndarray  # uint8, shape (n, channels, height, width)
    fields: dict[str, np.ndarray]  # int64, shape (n,), for example `label`, `age`, `race`
    same: np.ndarray  # images with one number (identical, or digits of one photograph) must not straddle splits
    official: np.ndarray | None  # 0 for the source's training images, 1 for test, 2 for validation, if it has a split
    origin: str  # where the images were read from, for people
    sha256: str  # of the file they were read from, or of the images and fields
    skipped: tuple[Skipped, ...] = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of a field's values, where the source has them
    notes: dict[str, object] = field(default_factory=dict)  # what else was met; `linfair.data.describe` says it

    def __post_init__(self) -> None:
        for values in (self.images, *self.fields.values()):
            values.flags.writeable = False

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Split:
    """One part of a data set."""

    x: Tensor  #: Inputs, shape (n, ...): images as uint8, or features as float32
    y: Tensor  #: Labels, int64, shape (n,)
    a: Tensor  #: Groups, int64, shape (n,)

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class GroupedData:
    """A data set with labels and groups, split."""

    name: str  #: Name it is loaded by
    #: `train`, `val`, `test` (the training's group shares) and, where there is one, `test_balanced`
    splits: dict[str, Split]
    label_names: tuple[str, ...]
    group_names: tuple[str, ...]
    #: Mean of the training images, one number for each channel, on the scale [0, 1]; empty for plain features
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()  #: Their standard deviation, in the same form
    #: Images are moved by up to this many pixels each way: at random in training, on a fixed grid for `views`
    shift: int = 0
    #: Training images alone are moved by up to this many pixels each way at random, and mirrored half of the time
    crop: int = 0
    #: Where a synthetic bias ties labels to groups: of each label the group that most of its training images are in
    aligned: tuple[int, ...] | None = None
    #: What decides the content: `source`, `seed`, `options`, `counts` of each split, `sha256` of all inputs, labels and
    #: groups; of images in files also what was skipped, merged or left out
    provenance: dict[str, object] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.splits["train"].x.shape[1:])

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.label_names)

    @property
    def counts(self) -> list[int]:
        """Training images of each group."""
        return torch.bincount(self.splits["train"].a.cpu(), minlength=len(self.group_names)).tolist()

    @property
    def roles(self) -> list[str]:
        """`majority` for groups with at least the mean group's training count, else `minority`."""
        counts = self.counts
        return ["majority" if count * len(counts) >= sum(counts) else "minority" for count in counts]

    @property
    def reach(self) -> int:
        """The most pixels that a training image is moved each way."""
        return max(self.shift, self.crop)

    @property
    def views(self) -> tuple[tuple[int, int], ...]:
        """The fixed shifts (down, right) over which test predictions are averaged; without `shift` only (0, 0)."""
        steps = (-self.shift, 0, self.shift) if self.shift else (0,)
        return tuple((down, right) for down in steps for right in steps)

    @property
    def content(self) -> str:
        """SHA-256 (16 hex digits) of what a network learns and is tested on: the images and labels of every split."""
        content = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            content.update(name.encode() + split.x.cpu().contiguous().numpy().tobytes())
            content.update(split.y.cpu().numpy().tobytes())
        return content.hexdigest()[:16]

    @property
    def fixed_scale(self) -> bool:
        """Whether no training image decides how images are normalised, see `fixed`."""
        return (self.mean, self.std) == (self.fixed().mean, self.fixed().std)

    def fixed(self) -> "GroupedData":
        """The same data set, its images normalised by a mean of 0.5 and a deviation of 0.25: no image decides these."""
        return replace(self, mean=(0.5,) * len(self.mean), std=(0.25,) * len(self.std))

    def to(self, device: str | torch.device) -> "GroupedData":
        """The same data set on another device."""
        moved = {k: Split(s.x.to(device), s.y.to(device), s.a.to(device)) for k, s in self.splits.items()}
        return replace(self, splits=moved)

    def normalise(self, x: Tensor) -> Tensor:
        """Stored images (..., channels, height, width) as float32, mean zero, deviation one; features as they are.

        In memory channels come before rows, however the images were stored: torch lets a network follow its input's
        order, and with channels last torch 2.13 writes beyond the end of arrays on some CPUs.
        """
        if x.dtype == torch.uint8:
            once = _by_channel if x.is_cuda else _by_channel.__wrapped__  # a copy to a GPU waits for it
            x = (x.float() / 255 - once(self.mean, x.device)) / once(self.std, x.device)
        rows = x.reshape(-1).view(x.shape)
        return x if x.stride() == rows.stride() else rows


@lru_cache(256)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)


def move(x: Tensor, down: Tensor, right: Tensor, reach: int) -> Tensor:
    """Move images (n, channels, height, width) by `down` and `right`, int64 (n,) in [-reach, reach], over zeros."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (reach,) * 4)
    rows = torch.arange(height, device=x.device) + reach - down.view(-1, 1)
    columns = torch.arange(width, device=x.device) + reach - right.view(-1, 1)
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def provenance_of(source: str, seed: int, options: dict, splits: dict[str, Split]) -> dict[str, object]:
    """What decides a data set: its source, seed and options, the counts of each split, a SHA-256 of all content."""
    content = hashlib.sha256()
    for _, split in sorted(splits.items()):
        for part in (split.x, split.y, split.a):
            content.update(part.numpy().tobytes())
    counts = {name: torch.bincount(split.a).tolist() for name, split in splits.items()}
    return {"source": source, "seed": seed, "options": options, "counts": counts, "sha256": content.hexdigest()}


def upsample(data: GroupedData, group: int, times: int) -> GroupedData:
    """The data set with each training image of one group `times` times, at the scale it had; the provenance says so."""
    counts = data.counts
    if times < 1 or not 0 <= group < len(counts) or not counts[group]:
        known = f"groups are numbered 0 to {len(counts) - 1} and have {counts} images"
        raise DataError(f"need times >= 1 and a group with images, got times={times}, group={group}; {known}")
    if times == 1:
        return data
    part = data.splits["train"]
    again = torch.where(part.a == group, times, 1)
    splits = data.splits | {"train": Split(*(field.repeat_interleave(again, 0) for field in (part.x, part.y, part.a)))}
    found, old = replace(data, splits=splits), data.provenance
    options = dict(old.get("options", {})) | {"upsampled_group": group, "times": times}
    new = provenance_of(old.get("source", data.name), old.get("seed", 0), options, found.to("cpu").splits)
    return replace(found, provenance=old | new | {"upsampled_from": old.get("sha256")})
