"""Data sets with groups: `load_data(name)` returns a `GroupedData`, split by one seed.

`toy` and `digits` need no download. Start with `load_data`; `DATASETS` lists the names.
"""

from collections.abc import Callable

from linfair.data.bundled import BOUNDARIES, DIGITS_PER_CLASS, digits, toy
from linfair.data.core import GroupedData, Split, move

DATASETS: dict[str, Callable[..., GroupedData]] = {"toy": toy, "digits": digits}


def load_data(name: str, *, seed: int = 0, **options: object) -> GroupedData:
    """Load a data set by name.

    Args:
        name: One of `DATASETS`.
        seed: Decides the sample and the split, for teacher and students alike.
        **options: Options of that data set.

    Raises:
        ValueError: For an unknown name.

    >>> load_data("digits", seed=1).counts.count(10)
    5
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name](seed=seed, **options)


__all__ = ["BOUNDARIES", "DATASETS", "DIGITS_PER_CLASS", "GroupedData", "Split", "digits", "load_data", "move", "toy"]
