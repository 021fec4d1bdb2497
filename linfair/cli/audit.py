"""`linfair audit`: one report on a user's own network."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from linfair import audit as audits
from linfair.audit import AuditError, Plan, Subject
from linfair.audit.findings import besides
from linfair.audit.repair import arm_list
from linfair.cli.options import Arms, Budgets, Choices, Device, Method, Training, commas, numbers, says, switch
from linfair.data import DATASETS
from linfair.data.notes import notes
from linfair.models import NETWORKS

MODEL = (
    "Python file and function, FILE:FUNCTION, that returns the network, called without arguments or with (input_shape, "
    "classes); the file is run."
)


@Parameter(name="*", group="What is asked")
@dataclass(frozen=True, kw_only=True)
class Asked(Plan):
    """The plan, with what may be typed for it."""

    __doc__ = Plan.__doc__
    method: Method = Plan.method
    budgets: Budgets = Plan.budgets
    arms: Arms = Plan.arms
    profile: Training = Plan.profile
    mitigate: Annotated[bool, switch("mitigate", "Try repairs.")] = Plan.mitigate
    control: Annotated[bool, switch("control", "Train the 100 % control.")] = Plan.control
    curvature: Annotated[bool, switch("curvature", "Compute Hessian eigenvalues.")] = Plan.curvature


@Parameter(name="*", group="Your own network")
@dataclass(kw_only=True)
class Own:
    """A user's network and data."""

    model: Annotated[str | None, says(MODEL)] = None
    weights: Annotated[str | None, says("Its state dict, as safetensors.")] = None
    data: Annotated[str | None, says(f"folder:PATH, or {', '.join(DATASETS)}.")] = None
    size: Annotated[int | None, says("Side of a folder's images in pixels; by default 32.")] = None
    mean: Annotated[
        tuple[float, ...] | None, commas(numbers, "Of each channel, images on [0, 1]; by default the data's.")
    ] = None
    std: Annotated[
        tuple[float, ...] | None, commas(numbers, "What channels are divided by; by default the data's.")
    ] = None
    seed: Annotated[int | None, says("Decides the split and the training; by default 0.")] = None


@Parameter(name="*", group="Or one of linfair's")
@dataclass(kw_only=True)
class Ours:
    """A network that linfair trained."""

    teacher: Annotated[str | None, says("teacher.safetensors of linfair linearize; knows its data.")] = None
    network: Annotated[Literal[*NETWORKS] | None, says("Checked against the teacher's.")] = None


def audit(
    *,
    own: Own = Own(),
    choices: Annotated[Choices, Parameter(group="Your own network")] = Choices(),
    ours: Ours = Ours(),
    asked: Asked = Asked(),
    device: Device = "cpu",
    out: Annotated[Path, says("Folder to write to.")] = Path("report"),
    words: Annotated[tuple[str, ...], Parameter(parse=False)],
) -> None:
    """Write one report on your own model: who pays, why, repair, cost."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder, it is made if missing")
    arm_list(asked.arms)
    subject = _subject(own, choices.given(), ours, device)
    for line in notes(subject.data.provenance):
        print(f"data: {line}", file=sys.stderr)
    for text in subject.warnings:
        print(f"warning: {text}", file=sys.stderr)
    found = audits.audit(subject, Plan(**vars(asked)), announce=lambda line: print(line, file=sys.stderr, flush=True))
    page = audits.write_report(found, out, command=shlex.join(["linfair", *words]))
    print("\n".join([*audits.answer(found), besides(found)]))
    print(f"\nwrote {page}, and beside it the tables, masks and weights; one seed, see its section on limits")


def _subject(own: Own, choices: dict[str, object], ours: Ours, device: str) -> Subject:
    if ours.teacher:
        given = [name for name, value in vars(own).items() if value is not None and name != "data"] + [*choices]
        if given:
            also = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise AuditError(f"--teacher knows its network, data and split: leave out {also}")
        return audits.read_own(ours.teacher, network=ours.network, data=own.data, device=device)
    missing = [f"--{name}" for name in ("model", "weights", "data") if getattr(own, name) is None]
    if missing or ours.network:
        what = f"missing: {', '.join(missing)}" if missing else "--network goes with --teacher"
        raise AuditError(
            "name your own network with --model FILE:FUNCTION --weights FILE.safetensors --data NAME, or one of "
            f"linfair's with --teacher FILE ({what})"
        )
    given = choices | ({} if own.size is None else {"size": own.size})
    scale = {"mean": own.mean, "std": own.std, "seed": own.seed or 0}
    return audits.read_user(own.model, own.weights, own.data, device=device, **scale, **given)
