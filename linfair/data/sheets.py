"""The facts of each data set, from `sheets.toml`: what `linfair data` and the data sheets of the book say."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paper:
    """What the paper says of the groups of one data set.

    Attributes:
        shares: Per cent of each group, as printed.
        splits: The splits whose images together are to be compared with it.
        compared: What these splits are, in words.
        why: Why ours differ.
        where: Where the paper says it.
        counts: Images of each group, where it gives them.
    """

    shares: tuple[float, ...]
    splits: tuple[str, ...]
    compared: str
    why: str
    where: str
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Sheet:
    """A data sheet.

    Attributes:
        title: Its name for people.
        what: What one item is.
        publication: Who published it.
        terms: What may be done with it.
        obtain: Where to get it.
        split: How it is split here.
        faults: Known faults.
        labels_are_not: What the labels do not say.
        shown: Whether items are shown in the book, and why.
        paper: What the paper says, by the name that `load_data` takes.
    """

    title: str
    what: str
    publication: str
    terms: str
    obtain: str
    split: str
    faults: tuple[str, ...]
    labels_are_not: str
    shown: str
    paper: dict[str, Paper]


def _sheet(facts: dict) -> Sheet:
    paper = {name: Paper(**said) for name, said in facts.pop("paper", {}).items()}
    return Sheet(**facts, paper=paper)


SHEETS = {
    name: _sheet(facts)
    for name, facts in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}


def sheet_of(name: str) -> Sheet:
    """The sheet of a data set by the name that `load_data` takes: `utkface_age`, `folder:PATH`, ...

    >>> sheet_of("utkface_race").title
    'UTKFace: faces with age, gender and race'
    """
    return SHEETS[name.partition(":")[0].partition("_")[0]]
