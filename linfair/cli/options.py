"""Options that several commands share: lists typed with commas, devices, profiles, choices of a data set."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token

from linfair.audit.repair import arm_list
from linfair.cli.main import HELD
from linfair.data import DATASETS
from linfair.data.folder import CONFLICTS, LINKS
from linfair.linearizers import LINEARIZERS
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import Linearizer, of_kind
from linfair.masks import WORDS
from linfair.mitigation.registry import MITIGATIONS, PLAIN
from linfair.names import number, shown
from linfair.paths import cache_folder, writable
from linfair.pruners import PRUNERS
from linfair.study.jobs import Claimed, held
from linfair.study.plan import PROFILE_NAMES
from linfair.study.recipes import PROFILES


def says(text: str | None, **more: object) -> Parameter:
    """An option and what its help says; a switch with this has no `--no-NAME`."""
    return Parameter(negative=(), **({"help": text} if text else {}) | more)


def several(text: str, **more: object) -> Parameter:
    """An option that may be repeated."""
    return says(f"{text}; may be repeated.", show_default=False, **more)


def commas(read: Callable[[str], object], text: str, **more: object) -> Parameter:
    """One word that `read` makes a list of; its default is shown as it would be typed."""
    how = {"converter": lambda _, tokens: read(tokens[-1].value), "n_tokens": 1}
    return says(text, **how | {"show_default": lambda value: ",".join(map(str, value))} | more)


def ranged(
    kind: type, low: float, high: float, text: str | None = None, *, above: bool = False, **more: object
) -> Parameter:
    """A whole number or a float from `low`, or `above` it, to `high`."""
    ends = (" and at most " if above else " to ").join(f"{end:,}" if kind is int else f"{end:g}" for end in (low, high))
    allowed = f"a {'whole ' * (kind is int)}number {'above' if above else 'from'} {ends}, in plain digits"

    def read(_: type, tokens: Sequence[Token]) -> float:
        with suppress(ValueError):
            value = number(tokens[-1].value, kind)
            if low < value <= high or (value == low and not above):
                return value
        raise ValueError(f"give {allowed}; got {tokens[-1].value}")

    return says(text, converter=read, **more)


def tell(*lines: str) -> None:
    """Say at once, on stderr, what goes on."""
    print(*map(shown, lines), sep="\n", end="\n" * bool(lines), file=sys.stderr, flush=True)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers as they are typed, `0.005,0.01`."""
    try:
        return tuple(map(number, text.split(",")))
    except ValueError as error:
        raise ValueError(f"{text!r} has the wrong type, {error}: give numbers with commas between, 0.5,0.2") from None


def shares(text: str) -> tuple[float, ...]:
    """Budgets; a count is refused later, by its command, which knows of how many."""
    found = numbers(text)
    return found if max(found) > 100 else check_budgets(found, ends=False)


def split_arms(text: str) -> tuple[str, ...]:
    """Arms as they are typed, split at the commas that stand outside brackets; each is an arm, and given once."""
    depth = list(accumulate((one in "([{") - (one in ")]}") for one in text))
    ends = [-1, *(at for at, one in enumerate(text) if one == "," and depth[at] == 0), len(text)]
    arms = tuple(text[start + 1 : end].strip() for start, end in pairwise(ends))
    if len(arm_list(arms)) < len(arms) + (PLAIN not in arms):
        raise ValueError(f"{text!r} names an arm twice; name each once")
    return arms


def output(option: str, path: str | Path, *suffixes: str, alone: bool = True) -> Path:
    """The folder, or with `suffixes` the file, that an option names, its own (`alone`) until the command ends."""
    place = HELD.enter_context(writable(path, option, suffixes))
    folder, name = (place.parent, place.name) if suffixes else (place, "linfair")
    try:
        if alone and os.name == "posix":
            HELD.enter_context(held(folder, f".{name}"))
    except Claimed as owner:
        raise ValueError(f"{owner} writes to {option} {place}; wait until it ends, or name another place") from None
    return place


def cache(folder: str | Path | None = None) -> Path:
    """The cache folder, by default the user's, where writing was tried."""
    return output("--cache" if folder else "the cache, see LINFAIR_CACHE,", folder or cache_folder(), alone=False)


def run_folder(out: str | None, called: str, data: str, *about: object) -> Path:
    """The folder `--out`, by default CALLED/DATA-ABOUT-..., and with it the cache, where writing was tried."""
    kind, colon, place = data.partition(":")
    label = f"{kind}-{Path(place).absolute().name}" if colon else kind
    folder = output("--out", out or f"{called}/{'-'.join(map(str, (label, *about)))}")
    cache()
    return folder


def chosen(kind: str, method: str | None) -> Linearizer:
    """The method that `--method` names, of those that remove units of a kind."""
    try:
        return of_kind(kind, method)
    except ValueError as error:
        raise ValueError(f"--method {method}: {error}") from None


DATA = f"folder:PATH, or {', '.join(DATASETS)}"
SHARES = "Shares kept, below 1, descending."
REPAIRS = f"Which repairs, options in brackets, lagrangian(mu=0.005); of {', '.join(MITIGATIONS)}."
METHODS = f"How the ReLUs to keep are chosen, options in brackets, snl(exact=True); of {', '.join(LINEARIZERS)}."
EITHER = f"{METHODS[:-1]}; or the weights, magnitude(everything=True): {', '.join(PRUNERS)}, also without prune_."
Budgets = Annotated[tuple[float, ...], commas(shares, SHARES)]
Arms = Annotated[tuple[str, ...], commas(split_arms, REPAIRS)]
Device = Annotated[Literal["cpu", "cuda"], says("Where to compute.")]
Method = Annotated[str, says(METHODS)]
Kind = Annotated[Literal[*WORDS], says("What is removed, ReLUs or weights.")]
Named = Annotated[str | None, says(EITHER)]
Training = Annotated[Literal[*PROFILES], says("How long to train.")]
Profile = Annotated[Literal[*PROFILE_NAMES], says("How large.")]
Seed = partial(ranged, int, 0, 2**32 - 1)
Points, Significance = partial(ranged, float, 0, 100), partial(ranged, float, 0, 1, above=True)
Json = Annotated[bool, says("Print JSON instead of text.", name="--json")]


@Parameter(name="*")
@dataclass(kw_only=True)
class Choices:
    """Labels and groups of a data set."""

    label: Annotated[str | None, says("What is predicted, for data that let you choose.")] = None
    group: Annotated[str | None, says("What is compared, A,B for combinations; by default the label.")] = None
    merge: Annotated[list[str] | None, several("Make one group of these, A+B")] = None
    min_images: Annotated[int | None, ranged(int, 1, 10**9, "Leave out groups with fewer images than this.")] = None
    conflicts: Annotated[Literal[*CONFLICTS] | None, says("For files whose lines differ; by default leave-out.")] = None
    links: Annotated[Literal[*LINKS] | None, says("Where links among the images may lead; by default inside.")] = None

    def given(self) -> dict[str, object]:
        """What was typed, as options of `load_data`."""
        known = {one.name: getattr(self, one.name) for one in fields(Choices)}
        known["merge"] = ";".join(self.merge) if self.merge else None
        return {name: value for name, value in known.items() if value is not None}
