"""`linfair linearize`: from a network and a data set to masks, weights and a table of groups."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from linfair import audit, gates
from linfair.checkpoints import load_network
from linfair.cli.options import Budgets, Choices, Device, Method, Training, says, tell
from linfair.data import DATASETS, check_name, load_data
from linfair.data.describe import notes
from linfair.models import INITS, NETWORKS
from linfair.study import grid
from linfair.study.recipes import recipe


def linearize(
    *,
    network: Annotated[Literal[*NETWORKS] | None, says("By default mlp.")] = None,
    width: Annotated[int | None, says("Width of the first stage; by default the profile's.")] = None,
    init: Annotated[Literal[*INITS] | None, says("How weights start; by default torch's own way.")] = None,
    data: Annotated[str | None, says(f"{', '.join(DATASETS)} or folder:PATH; by default digits.")] = None,
    choices: Choices = Choices(),
    method: Method = "snl",
    budgets: Budgets = (0.5, 0.2, 0.1),
    seed: Annotated[int | None, says("Decides split, weights and training; by default 0.")] = None,
    profile: Training = "small",
    device: Device = "cpu",
    teacher: Annotated[str | None, says("A network written by linfair, instead of training one.")] = None,
    out: Annotated[str | None, says("Where to write; by default linearized/DATA-NETWORK-METHOD-SEED.")] = None,
    control: Annotated[bool, Parameter(help="Train the 100 % control arm too.")] = True,
) -> None:
    """Linearize a network and measure every group."""
    asked = {"network": network, "data": data, "width": width, "seed": seed}
    given = choices.given()
    if teacher:
        network, data, width, seed, given = _of_teacher(teacher, asked, given)
    network, data, seed = network or "mlp", data or "digits", seed or 0
    check_name(data)
    how = {"profile": profile, "device": device, "width": width, "teacher": teacher, "init": init}
    (cell,) = grid(data, network, method=method, budgets=budgets, seeds=[seed], data_options=given, **how)
    if data.startswith("folder"):
        for line in notes(load_data(data, seed=seed, **given).provenance):
            tell(f"data: {line}")
    if profile != "paper":
        used = recipe(network, profile).method(method)
        tell(f"Options of {method} in profile {profile} (not the paper's): {used}")
    kind, colon, place = data.partition(":")
    named = f"{kind}-{Path(place).resolve().name}" if colon else kind
    folder = Path(out or f"linearized/{named}-{network}-{method}-{seed}")
    table = audit.linearize_to(folder, cell, with_control=control, announce=tell)
    for split in [name for name in ("test", "test_balanced") if name in set(table["split"])]:
        print(audit.group_table(table, split=split) + "\n")
    original, header = load_network(folder / "teacher.safetensors")
    others = "; ".join(map(str, gates.nonlinearities(original, header.input_shape)))
    if others:
        print(f"Nonlinearities that stay, for one input: {others}")
    print(f"Masks, weights and the table are in {folder}")


def _of_teacher(teacher: str, asked: dict[str, object], given: dict[str, object]) -> tuple:
    """Network, data, width, seed and data options that a teacher was trained with, unless something else was asked."""
    header = load_network(teacher)[1]
    for name, value in asked.items():
        found = getattr(header, name)
        if value not in (None, found):
            raise ValueError(f"--{name} {value}, but {teacher} has {name} {found}; leave --{name} out")
    trained = dict(header.data_options)
    for name, value in given.items():
        if value != trained.get(name):
            option = f"--{name.replace('_', '-')}"
            how = trained or "no options of the data"
            raise ValueError(f"{option} {value}, but {teacher} was trained with {how}; leave {option} out")
    return header.network, header.data, header.width or None, header.seed, trained
