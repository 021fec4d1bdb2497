"""`linfair audit`: one report on a user's own network."""

import inspect
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from linfair import audit as audits
from linfair.audit import AuditError, Plan
from linfair.audit.repair import arm_list
from linfair.cli import options
from linfair.cli.options import Arms, Budgets, Choices, Device, Method, Training, commas, numbers, says, tell
from linfair.data.describe import notes
from linfair.models import NETWORKS

Floats = tuple[float, ...] | None
OURS = "Or one of linfair's"
MODEL = (
    "Python file and function, FILE:FUNCTION, that returns the network, called without arguments or with (input_shape, "
    "classes); the file is run."
)
_SAID = re.findall(r"^    (\w+): .+  #: (.+)$", inspect.getsource(Plan), re.MULTILINE)


@Parameter(name="*", group="What is asked")
@dataclass(frozen=True, kw_only=True)
class Asked(Plan):
    """The plan, with what may be typed for it."""

    __doc__ = "\n".join(["What is asked.\n\nAttributes:", *(f"    {name}: {text}." for name, text in _SAID)])
    method: Method = Plan.method
    budgets: Budgets = Plan.budgets
    repair_at: Annotated[float | None, says("Which budget is explained and repaired; by default the smallest.")] = None
    arms: Arms = Plan.arms
    profile: Training = Plan.profile
    lr: Annotated[float | None, says("Learning rate of fine-tuning; by default the profile's.")] = None


@Parameter(name="*", group="Your own network")
@dataclass(kw_only=True)
class Network(Choices):
    """A user's network and data, or a teacher of linfair's, which knows its data."""

    model: Annotated[str | None, says(MODEL)] = None
    weights: Annotated[str | None, says("Its state dict, as safetensors.")] = None
    data: Annotated[str | None, says(f"{options.DATA}.")] = None
    size: Annotated[int | None, says("Side of a folder's images in pixels; by default 32.")] = None
    mean: Annotated[Floats, commas(numbers, "Of each channel, images on [0, 1]; by default the data's.")] = None
    std: Annotated[Floats, commas(numbers, "What channels are divided by; by default the data's.")] = None
    seed: Annotated[int | None, says("Decides the split and the training; by default 0.")] = None
    teacher: Annotated[str | None, says("teacher.safetensors of linfair linearize.", group=OURS)] = None
    network: Annotated[Literal[*NETWORKS] | None, says("Checked against the teacher's.", group=OURS)] = None


def audit(
    *,
    network: Network = Network(),
    asked: Asked = Asked(),
    device: Device = "cpu",
    out: Annotated[Path, says("Folder to write to.")] = Path("report"),
    words: Annotated[tuple[str, ...], Parameter(parse=False)],
) -> None:
    """Write one report on your own model: who pays, why, repair, cost."""
    options.folder_at(out)
    arm_list(asked.arms)
    choices = network.given() | ({} if network.size is None else {"size": network.size})
    scale = {"mean": network.mean, "std": network.std, "seed": network.seed}
    own = {"model": network.model, "weights": network.weights, **scale, **choices}
    given = [f"--{name.replace('_', '-')}" for name, value in own.items() if value is not None]
    missing = ", ".join(f"--{name}" for name in ("model", "weights", "data") if getattr(network, name) is None)
    if network.teacher and given:
        raise AuditError(f"--teacher knows its network, data and split: leave out {', '.join(given)}")
    if not network.teacher and (missing or network.network):
        why = f"missing: {missing}" if missing else "--network goes with --teacher"
        yours = "name your own network with --model FILE:FUNCTION --weights FILE.safetensors --data NAME"
        raise AuditError(f"{yours}, or one of linfair's with --teacher FILE ({why})")
    if network.teacher:
        subject = audits.read_own(network.teacher, network=network.network, data=network.data, device=device)
    else:
        own |= {"seed": network.seed or 0, "device": device}
        subject = audits.read_user(data=network.data, **own)
    tell(*(f"data: {line}" for line in notes(subject.data.provenance).values()))
    tell(*(f"warning: {text}" for text in subject.warnings))
    found = audits.audit(subject, Plan(**vars(asked)), announce=tell)
    page = audits.write_report(found, out, command=shlex.join(["linfair", *words]))
    print("\n".join([*audits.answer(found), audits.words(found, "besides")]))
    print(f"\nwrote {page}, and beside it the tables, masks and weights; one seed, see its section on limits")
