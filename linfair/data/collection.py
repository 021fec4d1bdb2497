"""A collection: all images of a source with their fields, before any split."""

from dataclasses import dataclass, field

import numpy as np


class DataError(ValueError):
    """Data that cannot be used; the message says what was found and what to do."""


@dataclass(frozen=True)
class Skipped:
    """One file that was left out, and why; `kind` is `unreadable`, `missing`, `conflict`, `identical` or `other`."""

    name: str
    why: str
    kind: str = field(default="other", compare=False)


@dataclass(frozen=True)
class Collection:
    """Images of one source and what is known of each.

    Attributes:
        name: `cifar10`, `svhn`, `utkface`, or a user's name.
        images: uint8, shape (n, channels, height, width).
        fields: Integer arrays of shape (n,), for example `label`, `age`, `race`.
        same: Images with the same number must never straddle splits (identical images, digits of one photograph),
            int64, shape (n,).
        official: 0 for the source's training images, 1 for its test images, 2 for its validation images; None where
            the source has no split.
        origin: Where it was read from, for people.
        sha256: Of the file it was read from, or of the images and fields.
        skipped: Files left out on the way.
        names: Names of a field's values, where the source has them.
        notes: What else was met on the way, where there is any: `duplicates` (lines that name a file again, as pairs of
            file and reason), `rotated` (images turned upright), `copies` (images identical to an earlier one),
            `copies_differ` (how many of them have other values), `lookalikes` (sentences on values that look alike),
            `found_as` (files found under another spelling).

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
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(
                f"{self.origin}: images must be uint8 of shape (n, channels, height, width), "
                f"got {self.images.dtype} of shape {self.images.shape}"
            )
        if len(self.images) == 0:
            raise DataError(f"{self.origin}: there are no images")
        arrays = self.fields | {"same": self.same} | ({} if self.official is None else {"official": self.official})
        for name, values in arrays.items():
            if values.shape != (len(self.images),):
                raise DataError(f"{self.origin}: {len(self.images)} images, but {name} has shape {values.shape}")

    def __len__(self) -> int:
        return len(self.images)
