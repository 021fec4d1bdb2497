"""Cells: the units of a study. Everything that shares trained teachers is one cell; `grid` makes those of a panel."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from linfair.checkpoints import CheckpointError, load_network
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import find
from linfair.study.recipes import CURVATURE


@dataclass(frozen=True)
class Cell:
    """One unit of a study.

    Attributes:
        data: Name of the data set.
        network: Name of the network.
        method: Name of the linearizer.
        budgets: ReLU budgets below 1, descending.
        seeds: Several seeds are trained as one ensemble.
        profile: `smoke`, `small` or `paper`.
        device: `cpu` or `cuda`.
        width: Width of the network; None is the recipe's.
        teacher: File of a trained network to start from (one seed), instead of training one.
        options: Options of the method that differ from the recipe's, as (name, value) pairs.
        data_options: Options of the data set that differ from its own, likewise: `label`, `group`, ...
        curvature: Whose Hessian eigenvalues are computed: `none`, `original` or `all`; None is the recipe's.
    """

    data: str
    network: str
    method: str
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    profile: str = "small"
    device: str = "cpu"
    width: int | None = None
    teacher: str | None = None
    options: tuple[tuple[str, object], ...] = ()
    data_options: tuple[tuple[str, object], ...] = ()
    curvature: str | None = None

    @property
    def data_text(self) -> str:
        """The data set in words, options included: what the rows' column `data` says."""
        return f"{self.data} ({pairs(self.data_options)})" if self.data_options else self.data


def grid(
    data: str,
    network: str,
    *,
    method: str = "snl",
    budgets: Sequence[float],
    seeds: Sequence[int],
    profile: str = "small",
    device: str = "cpu",
    width: int | None = None,
    teacher: str | None = None,
    options: dict[str, object] | None = None,
    data_options: dict[str, object] | None = None,
    curvature: str | None = None,
) -> list[Cell]:
    """The cells of one panel: the seeds of an MLP in one ensemble, larger networks one seed a cell.

    Args:
        data: Name of the data set.
        network: Name of the network.
        method: Name of the linearizer.
        budgets: ReLU budgets below 1, descending.
        seeds: Seeds.
        profile: `smoke`, `small` or `paper`.
        device: `cpu` or `cuda`.
        width: Width of the network; None is the recipe's.
        teacher: File of a trained network, for one seed.
        options: Options of the method that differ from the recipe's, for example `{"exact": True}` for SNL.
        data_options: Options of the data set, for example `{"label": "age", "group": "race"}`.
        curvature: Whose Hessian eigenvalues are computed, see `Cell`.

    Raises:
        ValueError: For an unknown method or option, budgets that are none, or a device that is not there.
    """
    unknown = sorted(set(options or {}) - {field.name for field in fields(find(method).options)})
    if unknown:
        raise ValueError(f"{method} has no options {unknown}; `linfair linearizers` lists them")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use device='cpu'")
    if curvature not in (None, *CURVATURE):
        raise ValueError(f"no curvature={curvature!r}; there are {', '.join(CURVATURE)}")
    lists = [tuple(seeds)] if network == "mlp" else [(seed,) for seed in seeds]
    budgets = check_budgets(budgets)
    changed = tuple(sorted((options or {}).items()))
    chosen = tuple(sorted((data_options or {}).items()))
    return [
        Cell(data, network, method, budgets, one, profile, device, width, teacher, changed, chosen, curvature)
        for one in lists
    ]


def width_in_file(cell: Cell) -> int | None:
    """The width of the network in a cell's teacher file, None if it is the full one.

    Args:
        cell: A cell with a `teacher`.

    Raises:
        CheckpointError: If the file belongs to another cell. Another seed has another split: that teacher would be
            tested on what it was trained on.
    """
    header = load_network(cell.teacher)[1]
    if header.gated:
        raise CheckpointError(f"{cell.teacher} holds a linearized network; a teacher has no gates yet")
    asked = {"network": cell.network, "data": cell.data, "seeds": cell.seeds, "width": cell.width or header.width}
    found = {"network": header.network, "data": header.data, "seeds": (header.seed,), "width": header.width}
    asked["data options"], found["data options"] = cell.data_options, header.data_options
    other = [f"{name} {found[name]}, not {asked[name]}" for name in asked if asked[name] != found[name]]
    if other:
        raise CheckpointError(f"{cell.teacher} is the teacher of another cell: it has {'; '.join(other)}")
    return header.width or None


def pairs(options: tuple[tuple[str, object], ...]) -> str:
    """Options in words: `label=age, group=race`."""
    return ", ".join(f"{name}={value}" for name, value in options)
