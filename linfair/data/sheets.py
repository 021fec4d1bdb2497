"""The facts of each data set, from `sheets.toml`: what `linfair data` and the data sheets of the book say."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Paper:
    """What the paper says of the groups of one data set."""

    shares: tuple[float, ...]  # per cent of each group, as printed
    splits: tuple[str, ...]  # the splits whose images together are to be compared with it
    compared: str  # what these splits are, in words
    why: str  # why ours differ
    where: str  # where the paper says it
    counts: tuple[int, ...] | None = None  # images of each group, where it gives them


@dataclass(frozen=True)
class Sheet:
    """A data sheet."""

    title: str  # its name for people
    what: str  # what one item is
    publication: str  # who published it
    terms: str  # what may be done with it
    obtain: str  # where to get it
    split: str  # how it is split here
    faults: tuple[str, ...]
    labels_are_not: str  # what the labels do not say
    shown: str  # whether items are shown in the book, and why
    paper: dict[str, Paper] = field(default_factory=dict)  # by the name that `load_data` takes

    def __post_init__(self) -> None:
        self.paper.update({name: Paper(**said) for name, said in self.paper.items()})


_FACTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
SHEETS = {name: Sheet(**facts) for name, facts in _FACTS.items()}


def sheet_of(name: str) -> Sheet:
    """The sheet of a data set by the name that `load_data` takes: `utkface_age`, `folder:PATH`, ..."""
    return SHEETS[name.partition(":")[0].partition("_")[0]]
