"""Groups as a user wants them compared: intersections of columns, groups merged, small groups left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linfair.data.collection import DataError
from linfair.data.values import cleaned

SHOWN = 5
"""Names that a message lists before it counts the rest."""


@dataclass(frozen=True)
class Groups:
    """The group of each image.

    Attributes:
        numbers: int64, shape (n,); -1 for an image that is left out.
        names: Name of each number.
        merged: Names of the groups that were made of others.
        left_out: Groups with too few images, as pairs of name and images.
    """

    numbers: np.ndarray
    names: tuple[str, ...]
    merged: tuple[str, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()


def columns_of(text: str) -> tuple[str, ...]:
    """The columns that `a,b` names.

    >>> columns_of("light, site")
    ('light', 'site')
    """
    columns = tuple(dict.fromkeys(cleaned(part) for part in text.split(",")))
    if "" in columns:
        raise DataError(f"group {text!r} names no column beside a comma; write one column, or several as a,b")
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
    shape = [len(values) for values in names]
    known = np.all([column >= 0 for column in numbers], axis=0)
    joint = np.where(known, np.ravel_multi_index([np.maximum(column, 0) for column in numbers], shape), -1)
    found = np.unique(joint[known])
    called = []
    for one in zip(*np.unravel_index(found, shape), strict=True):
        cells = zip(columns, names, one, strict=True)
        called.append(", ".join(f"{column}={values[number]}" for column, values, number in cells))
    return np.where(known, np.searchsorted(found, joint), -1), tuple(called)


def regroup(
    numbers: np.ndarray, names: Sequence[str], *, merge: str = "", min_images: int = 0, usable: np.ndarray | None = None
) -> Groups:
    """Merge groups (`a+b;c+d+e`), then leave out those with fewer than `min_images` of the `usable` images.

    A merged group is called by its parts and stands where the first of them stood.

    Raises:
        DataError: If `merge` names a group that is not there, or one twice, or no group is left.

    >>> found = regroup(np.array([0, 0, 1, 2, 2, 3]), ["a", "b", "c", "d"], merge="b+c", min_images=2)
    >>> found.names, found.numbers.tolist(), found.merged, found.left_out
    (('a', 'b+c'), [0, 0, 1, 1, 1, -1], ('b+c',), (('d', 1),))
    """
    if min_images < 0:
        raise DataError(f"min_images must be at least 0, got {min_images}")
    names, into, merged = list(names), np.arange(len(names)), {}
    for text in filter(None, (one.strip() for one in merge.split(";"))):
        parts = _parts(text, names)
        if set(parts) & {n for n in range(len(names)) if into[n] != n or n in merged}:
            raise DataError(f"merge names a group twice: {merge!r}; write all groups that become one as a+b+c")
        into[parts] = min(parts)
        merged[min(parts)] = "+".join(names[part] for part in parts)
        if merged[min(parts)] in names:
            raise DataError(f"merge {text!r}: there is a group {merged[min(parts)]!r} already; rename it in the table")
    called = dict(enumerate(names)) | merged
    found = np.where(numbers >= 0, into[numbers], -1)
    counted = found if usable is None else found[usable]
    images = np.bincount(counted[counted >= 0], minlength=len(names))
    all_of_them = np.unique(into)
    stay = [int(number) for number in all_of_them if not min_images or images[number] >= min_images]
    if not stay:
        raise DataError(f"no group has {min_images} images (min_images); the largest has {images.max()}")
    renumbered = np.full(len(names) + 1, -1)  # the last for -1
    renumbered[stay] = np.arange(len(stay))
    out = tuple((called[int(number)], int(images[number])) for number in all_of_them if number not in stay)
    return Groups(renumbered[found], tuple(called[number] for number in stay), tuple(merged.values()), out)


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are.

    >>> some(["a", "b"]), some([str(number) for number in range(120)])
    ('a, b', '0, 1, 2, 3, 4 and 115 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN + 1 else ""
    return ", ".join(names[:SHOWN] if more else names) + more


def _parts(text: str, names: Sequence[str]) -> list[int]:
    """The groups that `a+b` names; a name may have a plus of its own."""

    def read(pieces: list[str]) -> list[int] | None:
        if not pieces:
            return []
        for end in range(len(pieces), 0, -1):
            name = cleaned("+".join(pieces[:end]))
            rest = read(pieces[end:]) if name in names else None
            if rest is not None:
                return [names.index(name), *rest]
        return None

    found = read(text.split("+"))
    if found is None:
        raise DataError(f"merge {text!r} names a group that is not there; write a+b with groups of {some(names)}")
    if len(set(found)) < 2:
        raise DataError(f"merge {text!r} names one group; write at least two, as a+b")
    return found
