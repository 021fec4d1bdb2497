"""Options that several commands share: lists typed with commas, devices, profiles, choices of a data set."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from linfair.data import DATASETS
from linfair.data.folder import CONFLICTS
from linfair.linearizers import LINEARIZERS
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import find
from linfair.mitigation.registry import MITIGATIONS
from linfair.study.plan import PROFILE_NAMES
from linfair.study.recipes import PROFILES


def says(text: str, **more: object) -> Parameter:
    """An option and what its help says; a switch with this has no `--no-NAME`."""
    return Parameter(help=text, negative=(), **more)


def several(text: str, **more: object) -> Parameter:
    """An option that may be repeated."""
    return says(f"{text}; may be repeated.", show_default=False, **more)


def commas(read: Callable[[str], object], text: str, **more: object) -> Parameter:
    """One word that `read` makes a list of; its default is shown as it would be typed."""
    how = {"converter": lambda _, tokens: read(tokens[-1].value), "n_tokens": 1}
    return says(text, **how | {"show_default": lambda value: ",".join(map(str, value))} | more)


def tell(*lines: str) -> None:
    """Say at once, on stderr, what goes on."""
    print(*lines, sep="\n", end="\n" * bool(lines), file=sys.stderr, flush=True)


def folder_at(out: str | Path) -> Path:
    """The folder that `--out` names; a file is refused."""
    if Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"--out {out} is a file; name a folder, it is made if missing")
    return Path(out)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers as they are typed, `0.005,0.01`."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        allowed = "numbers with commas between them are allowed, 0.5,0.2"
        raise ValueError(f"{text!r} has the wrong type: {allowed}") from None


def split_arms(text: str) -> tuple[str, ...]:
    """Arms as they are typed, split at the commas that stand outside brackets."""
    return tuple(arm.strip() for arm in re.findall(r"(?:\([^()]*(?:\([^()]*\)[^()]*)*\)|[^,(])+", text) if arm.strip())


DATA = f"folder:PATH, or {', '.join(DATASETS)}"
SHARES = "Shares of ReLUs kept, below 1, descending."
REPAIRS = f"Which repairs, options in brackets, lagrangian(mu=0.005); of {', '.join(MITIGATIONS)}."
METHODS = f"How the ReLUs to keep are chosen, one of {', '.join(LINEARIZERS)}."
Budgets = Annotated[tuple[float, ...], commas(lambda text: check_budgets(numbers(text), ends=False), SHARES)]
Arms = Annotated[tuple[str, ...], commas(split_arms, REPAIRS)]
Device = Annotated[Literal["cpu", "cuda"], says("Where to compute.")]
Method = Annotated[str, says(METHODS, converter=lambda _, tokens: find(tokens[-1].value).name)]  # or an older name
Training = Annotated[Literal[*PROFILES], says("How long to train.")]
Profile = Annotated[Literal[*PROFILE_NAMES], says("How large.")]
Json = Annotated[bool, says("Print JSON instead of text.", name="--json")]


@Parameter(name="*")
@dataclass(kw_only=True)
class Choices:
    """Labels and groups of a data set."""

    label: Annotated[str | None, says("What is predicted, for data that let you choose.")] = None
    group: Annotated[str | None, says("What is compared, A,B for combinations; by default the label.")] = None
    merge: Annotated[list[str] | None, several("Make one group of these, A+B")] = None
    min_images: Annotated[int | None, says("Leave out groups with fewer images than this.")] = None
    conflicts: Annotated[Literal[*CONFLICTS] | None, says("For files whose lines differ; by default leave-out.")] = None

    def given(self) -> dict[str, object]:
        """What was typed, as options of `load_data`."""
        known = {one.name: getattr(self, one.name) for one in fields(Choices)}
        known["merge"] = ";".join(self.merge) if self.merge else None
        return {name: value for name, value in known.items() if value is not None}
