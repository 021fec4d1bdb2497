"""In which order the cells of all figures are computed: see `figures/queue.toml`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from linfair.data import DATASETS
from linfair.linearizers import LINEARIZERS
from linfair.models import NETWORKS
from linfair.study.sourcefile import Source


@dataclass(frozen=True)
class Queue:
    """The order of cells.

    Attributes:
        first_seeds: So many seeds of every entry come before the others.
        profiles: Profiles, run one after the other.
        entries: Names of panels; what an entry leaves out matches anything.
    """

    first_seeds: int
    profiles: tuple[str, ...]
    entries: tuple[Mapping[str, str], ...]

    def entry(self, figure: str, panel: object) -> int:
        """Number of the entry that names a panel: one that names its figure, else the first that matches it."""
        named = [number for number, entry in enumerate(self.entries) if entry.get("figure") == figure]
        matching = [
            number
            for number, entry in enumerate(self.entries)
            if "figure" not in entry and all(getattr(panel, name) == value for name, value in entry.items())
        ]
        return min(named or matching, default=len(self.entries))


def read_queue(path: str | Path, figures: Collection[str]) -> Queue:
    """The queue.

    Args:
        path: Its file.
        figures: Names of figures that entries may name.

    Raises:
        DefinitionError: With file and line, for a key or value that is not allowed.
    """
    source = Source(Path(path))
    kinds = {"first_seeds": int, "profiles": list, "entry": list}
    source.check(source.content, kinds, "", 0, needed=kinds)
    for index, values in enumerate(source.content["entry"]):
        source.check(values, dict.fromkeys(("data", "network", "method", "figure"), str), "entry", index, needed=())
        for key, known in (("data", DATASETS), ("network", NETWORKS), ("method", LINEARIZERS), ("figure", figures)):
            source.one_of(values, key, known, "entry", index)
    content = source.content
    return Queue(content["first_seeds"], tuple(content["profiles"]), tuple(content["entry"]))
