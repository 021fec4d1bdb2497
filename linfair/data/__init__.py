"""Data sets with groups: `load_data(name)` returns a `GroupedData`, split by one seed.

`toy`, `digits` and `digits_s` need no download; `linfair data status` says which of the others are there. Start with
`load_data`; `DATASETS` lists the names.
"""

import inspect
from collections.abc import Callable
from functools import partial

from linfair.data.biased import cifar_s, digits_s
from linfair.data.bundled import BOUNDARIES, digits, toy
from linfair.data.core import Collection, DataError, GroupedData, Skipped, Split, ensure, move
from linfair.data.named import celeba, cifar10, folder, svhn, utkface
from linfair.names import closest, unknown

DATASETS: dict[str, Callable[..., GroupedData]] = {"toy": toy, "digits": digits, "digits_s": digits_s}
DATASETS |= {"cifar10": cifar10} | {name: partial(cifar_s, name) for name in ("cifar10s", "cifar100s")}
DATASETS |= {name: partial(svhn, name) for name in ("mnist", "svhn")}
DATASETS |= {f"utkface_{one}": partial(utkface, f"utkface_{one}", label=one) for one in ("age", "race", "gender")}
DATASETS |= {"celeba": celeba, "folder": folder}
EMBEDDED = ("toy", "digits", "digits_s")  #: Whose content the package itself determines; of all others it is the user's


def check_name(name: str) -> None:
    """Refuse a name that `load_data` does not take, with the closest that it takes."""
    if name not in DATASETS and not name.startswith("folder:"):
        known = DATASETS if closest(name, DATASETS) else [*DATASETS, "folder:PATH"]
        raise DataError(unknown("There is no data set", name, known))


def load_data(name: str, *, seed: int = 0, scale: str = "own", **options: object) -> GroupedData:
    """Load a data set by name: in its splits, on the CPU; `provenance["sha256"]` identifies its content.

    `name` is one of `DATASETS`; `folder:PATH` is `folder` with `root=PATH`. `seed` decides the sample and the split,
    for teacher and students alike. Options are those of its function in `linfair.data.named`, `linfair.data.bundled` or
    `linfair.data.biased`, for example `fractions`, `group`, `merge`, `root`, `skew`; and `scale`, with which `fixed`
    normalises as a privacy guarantee needs, see `GroupedData.fixed`.

    Raises:
        DataError: For an unknown name or option (with those there are), for files that are missing or damaged (with
            what to do), and for groups or labels that a split would lack.

    >>> load_data("digits", seed=1).counts.count(10)
    5
    """
    check_name(name)
    ensure(scale in ("own", "fixed"), f"scale = {scale!r} is not allowed; it is own or fixed")
    name, colon, place = name.partition(":")
    options = {"root": place} | options if colon else options
    known = inspect.signature(DATASETS[name]).parameters
    wrong = [option for option in options if option not in known]
    allowed = ", ".join(option for option in (*known, "scale") if option != "seed")
    ensure(not wrong, f"{name} has no option {', '.join(map(repr, wrong))}; there are {allowed}")
    data = DATASETS[name](seed=seed, **options)
    return data if scale == "own" else data.fixed()


def input_shape(name: str, **options: object) -> tuple[int, ...]:
    """Shape of one input of a data set, without reading the images of those that lie in files."""
    if name in EMBEDDED:
        return load_data(name, **options).input_shape
    return (1, 28, 28) if name == "mnist" else (3,) + 2 * (int(options.get("size", 32)),)


__all__ = ["BOUNDARIES", "DATASETS", "EMBEDDED", "Collection", "DataError", "GroupedData", "Skipped", "Split"]
__all__ += ["check_name", "digits", "input_shape", "load_data", "move", "toy"]
