"""The records of a method as a checkpoint keeps them, and its options as names of results are made of them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble
from linfair.linearizers.record import LinearizedModel, budget_units, record
from linfair.mitigation import resolve
from linfair.study.grids import Cell

_TOLD = ("epochs", "steps", "configurations", "finetuning", "diverged")
_LISTS = ("epochs", "steps", "configurations", "diverged")


def settings_of(options: object) -> dict[str, object]:
    """Options of a method for a name that determines a result; a mitigation among them by its name and options."""
    found = asdict(options)
    if getattr(options, "mitigation", None) is not None:
        mitigation = resolve(options.mitigation)
        found["mitigation"] = [mitigation.name, asdict(mitigation)]
    return found


def numbered(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The tensors of several networks under one roof: `0/head.weight`."""
    return {f"{number}/{name}": value for number, one in enumerate(models) for name, value in one.state_dict().items()}


def notes_of(records: Sequence[LinearizedModel]) -> dict[str, object]:
    """What records say beside their networks, a list with one entry for each."""
    return {name: [getattr(one, name) for one in records] for name in _TOLD}


def records_of(
    tensors: Mapping[str, Tensor], notes: Mapping[str, list], cell: Cell, gated: nn.Module
) -> list[LinearizedModel]:
    """The records of a cell's budgets from what was kept of them.

    Args:
        tensors: From `numbered`.
        notes: From `notes_of`.
        cell: Whose they are.
        gated: A network (or ensemble) of the teacher's structure, with gates.
    """
    found = []
    for number, budget in enumerate(cell.budgets):
        told = {name: notes[name][number] for name in _TOLD}
        told |= {name: tuple(told[name]) for name in _LISTS if told[name] is not None}
        model, start = copy.deepcopy(gated), f"{number}/"
        model.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
        single = not isinstance(model, Ensemble)
        networks = [gates.freeze(network) for network in ([model] if single else model.networks())]
        units = budget_units(budget, gates.total_units(model))
        one = record(cell.method, budget, units, networks, told["epochs"], [], single=single)
        found.append(replace(one, **told))
    return found
