"""What `linfair audit` reads, prints and writes."""

import shlex
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from linfair_book.parameters import shares_kept

from linfair.cli.data import choice_options, chosen
from linfair.cli.mitigate import numbers, significance_option, split_arms
from linfair.data import DATASETS
from linfair.data.notes import notes
from linfair.linearizers import LINEARIZERS
from linfair.models import NETWORKS

if TYPE_CHECKING:
    from linfair.audit import Subject

BUDGETS = shares_kept([0.5, 0.2, 0.05], "Shares of ReLUs kept.")


def audit(options: Namespace) -> None:
    """Read network and data, check that they fit, audit, write the report, print the answer."""
    from linfair.audit import Plan, answer, audit, write_report
    from linfair.audit.findings import besides
    from linfair.audit.repair import DEFAULT_ARMS, arm_list
    from linfair.linearizers.registry import find
    from linfair.study.recipes import recipe

    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder, it is made if missing")
    arms = DEFAULT_ARMS if options.arms is None else tuple(split_arms(options.arms))
    plan = Plan(
        method=find(options.method).name,
        budgets=tuple(BUDGETS.check(BUDGETS.parse(options.budgets))),
        repair_at=options.repair_at,
        mitigate=options.mitigate,
        arms=arms,
        max_accuracy_loss=options.max_accuracy_loss,
        significance=options.significance,
        control=options.control,
        curvature=options.curvature,
        bandwidth=options.bandwidth,
        rtt=options.rtt,
        profile=options.profile,
        lr=options.lr,
    )
    arm_list(arms)
    recipe("", options.profile)
    subject = _subject(options)
    for line in notes(subject.data.provenance):
        print(f"data: {line}", file=sys.stderr)
    for text in subject.warnings:
        print(f"warning: {text}", file=sys.stderr)
    found = audit(subject, plan, announce=lambda line: print(line, file=sys.stderr, flush=True))
    page = write_report(found, out, command=shlex.join(["linfair", *options.typed]))
    print("\n".join([*answer(found), besides(found)]))
    print(f"\nwrote {page}, and beside it the tables, masks and weights; one seed, see its section on limits")


def _subject(options: Namespace) -> "Subject":
    from linfair.audit import AuditError, read_own, read_user

    given = chosen(options) | ({} if options.size is None else {"size": options.size})
    if options.teacher:
        also = [
            f"--{name}" for name in ("model", "weights", "seed", "mean", "std") if getattr(options, name) is not None
        ]
        also += [f"--{name.replace('_', '-')}" for name in given]
        if also:
            raise AuditError(f"--teacher knows its network, data and split: leave out {', '.join(also)}")
        return read_own(options.teacher, network=options.network, data=options.data, device=options.device)
    missing = [f"--{name}" for name in ("model", "weights", "data") if getattr(options, name) is None]
    if missing or options.network:
        what = f"missing: {', '.join(missing)}" if missing else "--network goes with --teacher"
        raise AuditError(
            "name your own network with --model FILE:FUNCTION --weights FILE.safetensors --data NAME, or one of "
            f"linfair's with --teacher FILE ({what})"
        )
    scale = {"mean": options.mean, "std": options.std}
    scale = {name: None if value is None else tuple(value) for name, value in scale.items()}
    return read_user(
        options.model,
        options.weights,
        options.data,
        seed=options.seed or 0,
        device=options.device,
        **scale,
        **given,
    )


def audit_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair audit`."""
    own = parser.add_argument_group("your own network")
    own.add_argument(
        "--model",
        metavar="FILE:FUNCTION",
        help="Python file and function that returns the network, called without arguments or with (input_shape, "
        "classes); the file is run",
    )
    own.add_argument("--weights", metavar="FILE", help="its state dict, as safetensors")
    own.add_argument("--data", metavar="NAME", help=f"folder:PATH, or {', '.join(DATASETS)}")
    choice_options(own)
    own.add_argument("--size", type=int, metavar="PIXELS", help="side of a folder's images (default: 32)")
    own.add_argument(
        "--mean", type=numbers, metavar="M,...", help="per channel, images on [0, 1] (default: the data's)"
    )
    own.add_argument("--std", type=numbers, metavar="S,...", help="likewise, what they are divided by")
    own.add_argument("--seed", type=int, help="decides the split and the training (default: 0)")
    ours = parser.add_argument_group("or one of linfair's")
    ours.add_argument("--teacher", metavar="FILE", help="teacher.safetensors of linfair linearize; knows its data")
    ours.add_argument("--network", metavar="NAME", help=f"checked against it: {', '.join(NETWORKS)}")
    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--method", default="snl", metavar="NAME", help=f"one of {', '.join(LINEARIZERS)}")
    asked.add_argument("--budgets", default="0.5,0.2,0.05", help="shares of ReLUs kept, descending: 0.5,0.2,0.05")
    asked.add_argument(
        "--repair-at", type=float, metavar="BUDGET", help="which one is explained and repaired (default: the smallest)"
    )
    asked.add_argument("--mitigate", action=BooleanOptionalAction, default=True, help="try repairs (default: yes)")
    asked.add_argument(
        "--arms", metavar="ARM,...", help="which repairs: 'lagrangian(mu=0.005),group_dro' (default: six)"
    )
    asked.add_argument(
        "--max-accuracy-loss",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="overall validation accuracy a repair may cost (default: 1.0)",
    )
    significance_option(asked)
    asked.add_argument("--control", action=BooleanOptionalAction, default=True, help="train the 100 %% control")
    asked.add_argument("--curvature", action=BooleanOptionalAction, default=True, help="compute Hessian eigenvalues")
    asked.add_argument("--bandwidth", type=float, default=1e8, metavar="BIT/S", help="of the link (default: 1e8)")
    asked.add_argument("--rtt", type=float, default=0.05, metavar="SECONDS", help="round trip time (default: 0.05)")
    asked.add_argument("--profile", default="small", help="of the training: smoke, small, quick or paper")
    asked.add_argument("--lr", type=float, metavar="RATE", help="learning rate of fine-tuning (default: the profile's)")
    asked.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    asked.add_argument("--out", default="report", metavar="DIR", help="where to write (default: report)")
