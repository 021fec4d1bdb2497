"""Stages of a network, and DeepReDuce's configurations: which of them lose all their ReLUs, are the others thinned."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

import torch
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble, member_of
from linfair.models import build


def stages(model: nn.Module) -> list[list[str]]:
    """The sites of a gated network by stage, in order: the groups of ReLU sites that DeepReDuce removes together.

    linfair's convolutional networks name their stages. In any other network a stage is a run of sites of one spatial
    size (feature maps), or a single site (features).

    >>> from linfair.models import build
    >>> [len(s) for s in stages(gates.install(build("resnet18", (1, 8, 8), 2, width=4), (1, 8, 8)))]
    [4, 4, 4, 4]
    """
    stacked = isinstance(model, Ensemble)
    found = gates.sites(model.network if stacked else model)

    def stage(item: tuple[int, str]) -> object:  # a named stage is a text, which equals no number of a site
        number, site = item
        named = re.match(r"stages\.(\d+)\.", site)
        return named[1] if named else tuple(found[site].alpha.shape[stacked + 1 :]) or number

    return [[site for _, site in run] for _, run in groupby(enumerate(found), key=stage)]


def stage_units(model: nn.Module) -> list[int]:
    """ReLU units of each stage (of one member)."""
    found = gates.sites(network := member_of(model, 0))
    return [sum(found[site].alpha.numel() for site in stage) for stage in stages(network)]


@dataclass(frozen=True, order=True)
class Configuration:
    """Which stages are culled (numbered from 1, as in the paper) and whether the rest is thinned.

    >>> str(Configuration.parse("1,4+thin"))
    '1,4+thin'
    """

    culled: tuple[int, ...]
    thinned: bool = False

    @classmethod
    def parse(cls, text: str) -> "Configuration":
        """Read `1,4` or `1,4+thin`; an empty list of stages culls nothing."""
        found = re.fullmatch(r"([1-9]\d*(?:,[1-9]\d*)*)?(\+thin)?", text.replace(" ", ""))
        if not found:
            raise ValueError(f"a DeepReDuce configuration reads '1,4' or '1,4+thin' (stages from 1), got {text!r}")
        numbers = found[1].split(",") if found[1] else []
        return cls(tuple(sorted({int(number) for number in numbers})), bool(found[2]))

    def __str__(self) -> str:
        return ",".join(map(str, self.culled)) + "+thin" * self.thinned

    def units(self, model: nn.Module) -> dict[str, Tensor]:
        """The kept units of one network, a boolean tensor per site."""
        found, kept = gates.sites(model), {}
        for number, group in enumerate(stages(model), start=1):
            for position, site in enumerate(group):
                stays = number not in self.culled and not (self.thinned and position % 2 == 1)
                kept[site] = torch.full(found[site].alpha.shape, stays)
        return kept

    def count(self, model: nn.Module) -> int:
        """Number of ReLUs it keeps in one network."""
        return sum(int(unit.sum()) for unit in self.units(model).values())


PAPER_CONFIGURATIONS = ("2,3", "1", "1,4", "1,3", "1,3,4", "1,2", "1,2,4", "1,2,3")
"""The eight networks that the paper reports, by the stages they cull."""


def kept_counts(model: nn.Module, configurations: Sequence[str]) -> dict[Configuration, int]:
    """The units that each configuration of a fixed list (`1,4`, `1,4+thin`) keeps in a gated network, descending."""
    if not configurations:
        raise ValueError("configurations is an empty list; name at least one, for example '1,4'")
    listed = list(dict.fromkeys(map(Configuration.parse, configurations)))
    there = possible(model, listed)
    if missing := " / ".join(str(one) for one in listed if one not in there):
        others = f"it can have {' / '.join(map(str, there)) or 'none'} of the list"
        count = len(stages(model))
        raise ValueError(f"this network has {count} stages, configuration {missing} culls another one; {others}")
    counts = {one: one.count(model) for one in listed}
    alike = {count: [str(one) for one in listed if counts[one] == count] for count in counts.values()}
    if same := "; ".join(f"{' / '.join(names)} ({count:,})" for count, names in alike.items() if len(names) > 1):
        text = "some configurations keep equally many units in this network, and a ReLU budget cannot tell them apart"
        raise ValueError(f"{text}: {same}; leave all but one of each out")
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def possible(model: nn.Module, configurations: Iterable[Configuration]) -> list[Configuration]:
    """Those whose culled stages a network with gates has."""
    count = len(stages(model))
    return [one for one in configurations if all(number <= count for number in one.culled)]


@cache
def fixed_list(
    network: str, shape: tuple[int, ...], width: int | None, configurations: tuple[str, ...]
) -> tuple[tuple[str, int, int], ...]:
    """What a fixed list keeps of a network of that width (None is full): (configuration, kept units, all units)."""
    gated = _gated(network, shape, width)
    try:
        counts = kept_counts(gated, configurations).items()
    except ValueError as error:
        raise ValueError(f"{network}: {error}") from None
    return tuple((str(one), count, gates.total_units(gated)) for one, count in counts)


def stand_in_list(network: str, shape: tuple[int, ...], configurations: Sequence[str]) -> tuple[str, ...]:
    """Of a list made for another network those that a stand-in can have: with some units left, each count once."""
    gated = _gated(network, shape, None)
    found: dict[int, str] = {}
    for one in possible(gated, map(Configuration.parse, configurations)):
        found.setdefault(one.count(gated), str(one))
    if listed := tuple(one for count, one in found.items() if 0 < count < gates.total_units(gated)):
        return listed
    raise ValueError(f"{network} cannot stand in: it has none of the configurations {' / '.join(configurations)}")


@cache
def _gated(network: str, shape: tuple[int, ...], width: int | None) -> nn.Module:
    return gates.install(build(network, shape, 2, width=width), shape)
