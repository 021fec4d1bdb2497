"""What `linfair networks`, `linfair linearizers` and `linfair linearize` print and run."""

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path

from linfair_book.parameters import closest, shares_kept

from linfair import gates
from linfair.cli import data as data_options
from linfair.data import DATASETS, check_name, load_data
from linfair.data.notes import notes
from linfair.linearizers import LINEARIZERS
from linfair.linearizers.stages import stage_units
from linfair.models import INITS, NETWORKS, build

BUDGETS = shares_kept([0.5, 0.2, 0.1], "Shares of ReLUs kept.")


def networks(options: Namespace) -> None:
    """Print each network at full width on 32x32 images: parameters and ReLU units, in all and per stage."""
    head = f"{'network':10s} {'width':>5s} {'parameters':>12s} {'ReLU units':>11s}"
    print(f"{head}  by stage; other nonlinearities   (3x32x32, 10 classes)")
    for name, (_, _, width) in NETWORKS.items():
        network = build(name, (3, 32, 32), 10)
        weights = sum(parameter.numel() for parameter in network.parameters())
        units = stage_units(gates.install(network, (3, 32, 32)))
        stages = " + ".join(f"{count:,}" for count in units)
        others = "".join(f"; {one}" for one in gates.nonlinearities(network, (3, 32, 32)))
        print(f"{name:10s} {width:5d} {weights:12,d} {sum(units):11,d}  {stages}{others}")


def linearizers(options: Namespace) -> None:
    """Print each method with its source, its options and their defaults."""
    for one in LINEARIZERS.values():
        print(f"{one.name}: {one.summary}\n    source: {one.source}")
        described = dict(re.findall(r"^ {8}(\w+): (.+?)(?=^ {8}\w+: |^ {4}\S|\Z)", one.options.__doc__, re.S | re.M))
        for option in fields(one.options):
            value = getattr(one.options(), option.name)
            text = " ".join(described.get(option.name, "").split())
            if is_dataclass(value):
                print(f"    {option.name}: {text}")
                print("        " + ", ".join(f"{f.name}={getattr(value, f.name)!r}" for f in fields(value)))
            else:
                print(f"    {option.name} = {value!r}: {text}")
        print()


def linearize(options: Namespace) -> None:
    """Check everything, then train (or load), linearize, fine-tune, measure and write."""
    from linfair.audit.linearize import group_table, linearize_to
    from linfair.checkpoints import load_network
    from linfair.study import grid
    from linfair.study.recipes import PROFILES, recipe

    network, data, width, seed = options.network, options.data, options.width, options.seed
    chosen = data_options.chosen(options)
    if options.teacher:
        header = load_network(options.teacher)[1]
        for name, given in {"network": network, "data": data, "width": width, "seed": seed}.items():
            found = getattr(header, name)
            if given not in (None, found):
                raise ValueError(
                    f"--{name.replace('_', '-')} {given}, but {options.teacher} has {name} {found}; leave --{name} out"
                )
        found = dict(header.data_options)
        for name, given in chosen.items():
            if given != found.get(name):
                raise ValueError(
                    f"--{name.replace('_', '-')} {given}, but {options.teacher} was trained with {found or 'none'}"
                )
        chosen = found
        network, data, width, seed = header.network, header.data, header.width or None, header.seed
    network, data, seed = network or "mlp", data or "digits", seed or 0
    _known("network", network, NETWORKS)
    check_name(data)
    _known("linearizer", options.method, LINEARIZERS)
    _known("profile", options.profile, PROFILES)
    (cell,) = grid(
        data,
        network,
        method=options.method,
        budgets=BUDGETS.check(options.budgets),
        seeds=[seed],
        profile=options.profile,
        device=options.device,
        width=width,
        teacher=options.teacher,
        data_options=chosen,
        init=options.init,
    )
    if data.startswith("folder"):
        for line in notes(load_data(data, seed=seed, **chosen).provenance):
            print(f"data: {line}", file=sys.stderr)
    if options.profile != "paper":
        used = recipe(network, options.profile).method(options.method)
        print(f"Options of {options.method} in profile {options.profile} (not the paper's): {used}", file=sys.stderr)
    out = Path(options.out or f"linearized/{_folder_name(data)}-{network}-{options.method}-{seed}")
    table = linearize_to(
        out, cell, with_control=options.control, announce=lambda line: print(line, file=sys.stderr, flush=True)
    )
    for split in [name for name in ("test", "test_balanced") if name in set(table["split"])]:
        print(group_table(table, split=split) + "\n")
    original, header = load_network(out / "teacher.safetensors")
    others = "; ".join(map(str, gates.nonlinearities(original, header.input_shape)))
    if others:
        print(f"Nonlinearities that stay, for one input: {others}")
    print(f"Masks, weights and the table are in {out}")


def _known(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        near = closest(name, known)
        hint = f"Did you mean {near!r}?" if near else f"There are {', '.join(known)}."
        raise ValueError(f"There is no {kind} {name!r}. {hint}")


def _folder_name(data: str) -> str:
    kind, colon, place = data.partition(":")
    return f"{kind}-{Path(place).resolve().name}" if colon else kind


def no_options(parser: ArgumentParser) -> None:
    """Add nothing."""


def linearize_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair linearize`."""
    parser.add_argument("--network", metavar="NAME", help=f"one of {', '.join(NETWORKS)} (default: mlp)")
    parser.add_argument("--width", type=int, help="width of the first stage (default: the profile's)")
    parser.add_argument("--init", choices=INITS, help="how weights start (default: torch's own way)")
    parser.add_argument("--data", metavar="NAME", help=f"{', '.join(DATASETS)} or folder:PATH (default: digits)")
    data_options.choice_options(parser)
    parser.add_argument("--method", default="snl", metavar="NAME", help=f"one of {', '.join(LINEARIZERS)}")
    parser.add_argument("--budgets", default="0.5,0.2,0.1", help="shares of ReLUs kept, descending: 0.5,0.2,0.1")
    parser.add_argument("--seed", type=int, help="decides split, weights and training (default: 0)")
    parser.add_argument("--profile", default="small", help="smoke, small, quick or paper")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--teacher", metavar="FILE", help="a network written by linfair, instead of training one")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: linearized/DATA-NETWORK-METHOD-SEED)")
    parser.add_argument("--no-control", dest="control", action="store_false", help="skip the 100 %% control arm")
