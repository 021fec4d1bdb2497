"""Stages: the groups of ReLU sites that DeepReDuce removes together."""

import re
from itertools import groupby

from torch import nn

from linfair import gates
from linfair.ensemble import Ensemble


def stages(model: nn.Module) -> list[list[str]]:
    """The sites of a gated network by stage, in order, each a list of site names.

    linfair's convolutional networks name their stages. In any other network a stage is a run of sites of one spatial
    size (feature maps), or a single site (features).

    >>> from linfair.models import build
    >>> [len(s) for s in stages(gates.install(build("resnet18", (1, 8, 8), 2, width=4), (1, 8, 8)))]
    [4, 4, 4, 4]
    """
    stacked = isinstance(model, Ensemble)
    found = gates.sites(model.network if stacked else model)

    def stage(item: tuple[int, str]) -> object:
        number, site = item
        named = re.match(r"stages\.(\d+)\.", site)
        return int(named[1]) if named else tuple(found[site].alpha.shape[stacked + 1 :]) or number

    return [[site for _, site in run] for _, run in groupby(enumerate(found), key=stage)]


def stage_units(model: nn.Module) -> list[int]:
    """ReLU units of each stage (of one member)."""
    network = model.member(0) if isinstance(model, Ensemble) else model
    found = gates.sites(network)
    return [sum(found[site].alpha.numel() for site in stage) for stage in stages(network)]
