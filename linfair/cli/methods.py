"""`linfair networks`, `linfair linearizers` and `linfair mitigations`: what there is."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from linfair import gates
from linfair.linearizers import LINEARIZERS
from linfair.linearizers.configurations import stage_units
from linfair.linearizers.registry import Linearizer
from linfair.mitigation.registry import MITIGATIONS, Mitigation
from linfair.models import NETWORKS, build


def networks() -> None:
    """Show the networks and their ReLU units, at full width on 32x32 images: in all and by stage."""
    head = f"{'network':10s} {'width':>5s} {'parameters':>12s} {'ReLU units':>11s}"
    print(f"{head}  by stage; other nonlinearities   (3x32x32, 10 classes)")
    for name, (_, _, width) in NETWORKS.items():
        network = build(name, (3, 32, 32), 10)
        weights = sum(parameter.numel() for parameter in network.parameters())
        units = stage_units(gates.install(network, (3, 32, 32)))
        stages = "; ".join([" + ".join(f"{n:,}" for n in units), *map(str, gates.nonlinearities(network, (3, 32, 32)))])
        print(f"{name:10s} {width:5d} {weights:12,d} {sum(units):11,d}  {stages}")


def linearizers() -> None:
    """Show the methods that choose which ReLUs stay: source, options, defaults."""
    _show(LINEARIZERS)


def mitigations() -> None:
    """Show the ways of fine-tuning, plain and mitigated: source, options, defaults."""
    _show(MITIGATIONS)


def _show(registry: Mapping[str, Linearizer | Mitigation]) -> None:
    for name, one in registry.items():
        print(f"{name}: {one.summary}\n    source: {one.source}")
        described = dict(re.findall(r"^ {8}(\w+): (.+?)(?=^ {8}\w+: |^ {4}\S|\Z)", one.options.__doc__, re.S | re.M))
        for option in fields(one.options):
            value = getattr(one.options(), option.name)
            text = " ".join(described.get(option.name, "").split())
            print(f"    {option.name}: {text}" if is_dataclass(value) else f"    {option.name} = {value!r}: {text}")
            if is_dataclass(value):
                print("        " + ", ".join(f"{f.name}={getattr(value, f.name)!r}" for f in fields(value)))
        print()
