"""Groups as a user wants them compared: intersections of columns, groups merged, small groups left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linfair.data.core import ensure
from linfair.data.values import cleaned


@dataclass(frozen=True)
class Groups:
    """The group of each image."""

    numbers: np.ndarray  # int64, shape (n,); -1 for an image that is left out
    names: tuple[str, ...]
    merged: tuple[str, ...] = ()  # names of the groups that were made of others
    left_out: tuple[tuple[str, int], ...] = ()  # groups with too few images: name and images


def columns_of(text: str) -> tuple[str, ...]:
    """The columns that `a,b` names."""
    columns = tuple(dict.fromkeys(cleaned(part) for part in text.split(",")))
    ensure("" not in columns, f"group {text!r} names no column beside a comma; write one column, or several as a,b")
    return columns


def intersect(
    columns: Sequence[str], numbers: Sequence[np.ndarray], names: Sequence[Sequence[str]]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Groups of several columns together: those that occur, in the order of the columns' own values.

    `numbers` holds for each column the value of each image (-1 where it is missing), `names` the names of its values.

    >>> groups, names = intersect(["a", "b"], [np.array([0, 1, 1]), np.array([1, 0, 1])], [["x", "y"], ["u", "v"]])
    >>> groups.tolist(), names
    ([0, 1, 2], ('a=x, b=v', 'a=y, b=u', 'a=y, b=v'))
    """
    if len(columns) == 1:
        return numbers[0], tuple(names[0])
    known = np.all([column >= 0 for column in numbers], axis=0)
    found, joint = np.unique(np.stack(numbers)[:, known], axis=1, return_inverse=True)
    groups = np.full(len(known), -1)
    groups[known] = joint.ravel()
    called = ([f"{column}={of[i]}" for column, of, i in zip(columns, names, one, strict=True)] for one in found.T)
    return groups, tuple(map(", ".join, called))


def regroup(
    numbers: np.ndarray, names: Sequence[str], *, merge: str = "", min_images: int = 0, usable: np.ndarray | None = None
) -> Groups:
    """Merge groups (`a+b;c+d+e`), then leave out those with fewer than `min_images` of the `usable` images.

    A merged group is called by its parts and stands where the first of them stood.
    """
    ensure(min_images >= 0, f"min_images must be at least 0, got {min_images}")
    names, into, merged = list(names), np.arange(len(names)), {}
    for text in filter(None, map(str.strip, merge.split(";"))):
        parts = _parts(text.split("+"), names)
        known = f"write a+b with groups of {some(names)}"
        ensure(parts is not None, f"merge {text!r} names a group that is not there; {known}")
        ensure(len(set(parts)) > 1, f"merge {text!r} names one group; write at least two, as a+b")
        taken = any(into[part] != part or part in merged for part in parts)
        ensure(not taken, f"merge names a group twice: {merge!r}; write all groups that become one as a+b+c")
        into[parts], called = min(parts), "+".join(names[part] for part in parts)
        ensure(called not in names, f"merge {text!r}: there is a group {called!r} already; rename it in the table")
        merged[min(parts)] = called
    called = dict(enumerate(names)) | merged
    found = np.where(numbers >= 0, into[numbers], -1)
    counted = found if usable is None else found[usable]
    images = np.bincount(counted[counted >= 0], minlength=len(names))
    stay = [number for number in np.unique(into).tolist() if not min_images or images[number] >= min_images]
    most = f"the largest has {images.max()}; choose a smaller number"
    ensure(stay, f"no group has {min_images} images (min_images); {most}")
    renumbered = np.full(len(names) + 1, -1)  # the last for -1
    renumbered[stay] = np.arange(len(stay))
    out = tuple((called[number], int(images[number])) for number in np.unique(into).tolist() if number not in stay)
    return Groups(renumbered[found], tuple(called[number] for number in stay), tuple(merged.values()), out)


def some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names if len(names) <= 6 else names[:5]) + f" and {len(names) - 5} more" * (len(names) > 6)


def _parts(pieces: list[str], names: Sequence[str]) -> list[int] | None:
    """The groups that `a+b`, split at its pluses, names, or None; a name may have a plus of its own."""
    for end in range(len(pieces), 0, -1):
        name = cleaned("+".join(pieces[:end]))
        rest = _parts(pieces[end:], names) if name in names else None
        if rest is not None:
            return [names.index(name), *rest]
    return None if pieces else []
