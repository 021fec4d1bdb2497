"""A collection: all images of a source with their fields, before any split."""

from dataclasses import dataclass, field

import numpy as np


class DataError(ValueError):
    """Data that cannot be used; the message says what was found and what to do."""


def ensure(ok: object, message: str) -> None:
    """Refuse data that are not `ok` with a `DataError`."""
    if not ok:
        raise DataError(message)


@dataclass(frozen=True)
class Skipped:
    """One file that was left out, and why; `kind` is one of `linfair.data.notes.KINDS`."""

    name: str
    why: str
    kind: str = field(default="other", compare=False)


@dataclass(frozen=True)
class Collection:
    """Images of one source and what is known of each.

    Attributes:
        name: `cifar10`, `svhn`, `utkface` or `folder`.
        images: uint8, shape (n, channels, height, width); made read-only.
        fields: int64 arrays of shape (n,), for example `label`, `age`, `race`; made read-only.
        same: Images with one number (identical images, digits of one photograph) must not straddle splits, shape (n,).
        official: 0 for the source's training images, 1 for test, 2 for validation; None where the source has no split.
        origin: Where the images were read from, for people.
        sha256: Of the file they were read from, or of the images and fields.
        skipped: Files that were left out on the way.
        names: Names of a field's values, where the source has them.
        notes: What else was met on the way; `linfair.data.notes` turns it into sentences.

    Raises:
        DataError: If shapes, types or lengths do not fit.
    """

    name: str
    images: np.ndarray
    fields: dict[str, np.ndarray]
    same: np.ndarray
    official: np.ndarray | None
    origin: str
    sha256: str
    skipped: tuple[Skipped, ...] = ()
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = f"got {self.images.dtype} of shape {self.images.shape}"
        right = self.images.ndim == 4 and self.images.dtype == np.uint8 and len(self.images)
        ensure(right, f"{self.origin}: images must be uint8 of shape (n > 0, channels, height, width), {given}")
        for name, values in (self.fields | {"same": self.same, "official": self.official}).items():
            fits = values is None or values.shape == (len(self),)
            ensure(fits, f"{self.origin}: {len(self)} images, but {name} has shape {np.shape(values)}")
        for values in (self.images, *self.fields.values()):
            values.flags.writeable = False

    def __len__(self) -> int:
        return len(self.images)
