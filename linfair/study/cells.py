"""Cells and arms: the unit of work, of resuming and of comparison.

A cell is everything that shares trained teachers: one data set, one network and one seed, or a fixed list of seeds
trained as an ensemble. An arm is one way through it at all budgets: the `original` network, a method with `plain`
fine-tuning, or its 100 % `control`. Each (cell, arm) ends in one table; arms are compared only within one teacher's
digest.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import linfair
from linfair import gates
from linfair.checkpoints import CheckpointError, load_network
from linfair.data import EMBEDDED, GroupedData, load_data
from linfair.ensemble import Ensemble, map_networks
from linfair.linearizers import control, finetune
from linfair.linearizers.record import LinearizedModel, budget_units, check_budgets, record
from linfair.linearizers.registry import find
from linfair.models import build
from linfair.study.measure import Original, device_name, measure
from linfair.study.recipes import CURVATURE, Recipe, recipe
from linfair.study.store import ResultStore, key, weights_digest
from linfair.training import Data, fit, supervised, threads

ARMS = ("original", "plain", "control")


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
        return f"{self.data} ({_pairs(self.data_options)})" if self.data_options else self.data


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


def run(
    cells: Sequence[Cell],
    *,
    arms: Sequence[str] = ARMS,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """The table of a study: stored arms are read, missing ones computed and stored one by one.

    Interrupted at any moment, nothing that was finished is lost: run it again.

    Args:
        cells: From `grid`.
        arms: Some of `ARMS`.
        store: Where; the user's cache by default.
        progress: Show progress bars.
        announce: Told each arm's name and whether it was read or computed.

    Returns:
        A row per (cell, arm, budget, seed, split, group), see `Worker.rows`.
    """
    unknown = sorted(set(arms) - set(ARMS))
    if unknown:
        raise ValueError(f"no arms {unknown}; there are {', '.join(ARMS)}")
    store = store or ResultStore.default()
    tables = []
    for cell in cells:
        worker = Worker(cell, store, progress)
        tables += [worker.table(arm, announce) for arm in arms]
    return pd.concat(tables, ignore_index=True)


class Worker:
    """Computes the arms of one cell; teacher and mask path are kept as checkpoints, with `keep` the students too.

    MLPs are computed on one thread: they are too small for more, and a sum's order depends on the number of threads.
    """

    def __init__(self, cell: Cell, store: ResultStore, progress: bool, *, keep: bool = False) -> None:
        self.cell, self.store, self.progress, self.keep = cell, store, progress, keep
        plan = recipe(cell.network, cell.profile)
        self.recipe: Recipe = replace(plan, width=_width_in_file(cell) if cell.teacher else cell.width or plan.width)
        self.linearizer = find(cell.method)
        self.options = replace(self.recipe.method(cell.method), **dict(cell.options))
        self._sets: list[GroupedData] | None = None
        self._teacher: tuple[nn.Module, dict] | None = None
        self._path: list[LinearizedModel] | None = None
        self.threads = 1 if cell.network == "mlp" else torch.get_num_threads()

    def name(self, arm: str) -> str:
        """Name of an arm's table: the hash of everything that determines it."""
        settings = self._settings("base") | {"arm": arm, "profile": self.cell.profile, "curved": self._curved(arm)}
        if arm != "original":
            settings |= {"budgets": self.cell.budgets, "finetune": asdict(self.recipe.finetune)}
            settings |= {"method": self.cell.method, "options": asdict(self.options)}
        return key(settings)

    def table(self, arm: str, announce: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
        """An arm's table from the store, computed and stored if it is missing."""
        name, cell = self.name(arm), self.cell
        found = self.store.read(name)
        how = "computed" if found is None else "read"
        announce(f"{name}: {arm} of {cell.method}, {cell.network} on {cell.data_text}: {how}")
        if found is None:
            with threads(self.threads):
                found = self.rows(arm)
            self.store.write(name, found)
        return found

    def _settings(self, stage: str) -> dict[str, object]:
        cell = self.cell
        return {
            "stage": stage,
            "data": cell.data,
            "data_options": cell.data_options,
            "content": None if cell.data in EMBEDDED else [one.provenance["sha256"] for one in self.sets],
            "network": cell.network,
            "seeds": cell.seeds,
            "device": cell.device,
            "base": asdict(self.recipe.base),
            "width": self.recipe.width,
            "teacher": sha256(Path(cell.teacher).read_bytes()).hexdigest() if cell.teacher else None,
            "torch": torch.__version__,
            "threads": self.threads if cell.device == "cpu" else 0,
        }

    @property
    def sets(self) -> list[GroupedData]:
        """The data, one split for each seed."""
        if self._sets is None:
            cell, options = self.cell, dict(self.cell.data_options)
            self._sets = [load_data(cell.data, seed=seed, **options).to(cell.device) for seed in cell.seeds]
        return self._sets

    @property
    def data(self) -> Data:
        """The data as training takes it."""
        return self.sets if len(self.sets) > 1 else self.sets[0]

    def teacher(self) -> tuple[nn.Module, dict]:
        """The trained teacher and its notes (digest, last loss of each seed, seconds), from the store if there."""
        if self._teacher is None:
            name = key(self._settings("teacher"))
            if self.cell.teacher:
                model = load_network(self.cell.teacher)[0].to(self.cell.device)
                notes = {"seconds": 0.0, "loss": [float("nan")], "digest": weights_digest(model)}
            elif (stored := self.store.load(name)) is not None:
                model, notes = self._untrained(), stored[1]
                model.load_state_dict(stored[0])
            else:
                model, start = self._untrained(), time.perf_counter()
                history = fit(
                    model,
                    self.data,
                    supervised,
                    self.recipe.base,
                    seeds=self.cell.seeds,
                    stage="base",
                    label="base training",
                    progress=self.progress,
                )
                notes = {"seconds": time.perf_counter() - start, "loss": history[-1]["loss"]}
                notes["digest"] = weights_digest(model)
                self.store.save(name, model.state_dict(), notes)
            self._teacher = model.eval(), notes
        return self._teacher

    def _untrained(self) -> nn.Module:
        first, cell = self.sets[0], self.cell
        networks = [
            build(cell.network, first.input_shape, first.classes, width=self.recipe.width, seed=seed)
            for seed in cell.seeds
        ]
        return (Ensemble(networks) if len(networks) > 1 else networks[0]).to(cell.device)

    def path(self) -> list[LinearizedModel]:
        """The method's record of each budget before fine-tuning, from the checkpoint if there is one."""
        if self._path is None:
            teacher, notes = self.teacher()
            settings = self._settings("path")
            settings |= {"method": self.cell.method, "options": asdict(self.options)}
            settings |= {"budgets": self.cell.budgets, "teacher": notes["digest"]}
            name = key(settings)
            stored = self.store.load(name)
            if stored is None:
                self._path = self.linearizer.run(
                    teacher,
                    self.data,
                    self.cell.budgets,
                    seeds=self.cell.seeds,
                    options=self.options,
                    progress=self.progress,
                )
                tensors = {
                    f"{number}/{tensor}": value
                    for number, one in enumerate(self._path)
                    for tensor, value in one.model.state_dict().items()
                }
                self.store.save(name, tensors, {"epochs": [one.epochs for one in self._path]})
            else:
                self._path = self._restore(*stored)
        return self._path

    def _restore(self, tensors: dict[str, torch.Tensor], notes: dict) -> list[LinearizedModel]:
        teacher, _ = self.teacher()
        records = []
        for number, (budget, epochs) in enumerate(zip(self.cell.budgets, notes["epochs"], strict=True)):
            model = map_networks(lambda network: gates.install(network, self.sets[0].input_shape), teacher)
            start = f"{number}/"
            model.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
            networks = model.networks() if isinstance(model, Ensemble) else [model]
            units = budget_units(budget, gates.total_units(model))
            networks = [gates.freeze(network) for network in networks]
            single = not isinstance(model, Ensemble)
            records.append(record(self.cell.method, budget, units, networks, epochs, [], single=single))
        return records

    def students(self, arm: str) -> Iterator[LinearizedModel]:
        """The fine-tuned record of each budget, in the `plain` or the `control` arm."""
        teacher, _ = self.teacher()
        path = self.path()
        if arm == "control":
            schedule, objective = self.linearizer.phase(self.options, teacher, self.data)
            path = control(
                teacher,
                self.data,
                path,
                seeds=self.cell.seeds,
                schedule=schedule,
                objective=objective,
                progress=self.progress,
            )
        for number, one in enumerate(path):
            name = f"{self.name(arm)}-{number}"
            stored = self.store.load(name) if self.keep else None
            if stored is not None:
                model = copy.deepcopy(one.model)
                model.load_state_dict(stored[0])
                yield replace(one, model=model)
                continue
            tuned = finetune(
                one,
                teacher,
                self.data,
                seeds=self.cell.seeds,
                schedule=self.recipe.finetune,
                progress=self.progress,
            )
            if self.keep:
                self.store.save(name, tuned.model.state_dict(), {"budget": one.budget})
            yield tuned

    def _curved(self, arm: str) -> tuple[str, ...]:
        """The splits on which an arm's Hessian eigenvalues are computed."""
        whose = self.cell.curvature or self.recipe.curvature
        return ("train",) if whose == "all" or whose == arm else ()

    def rows(self, arm: str) -> pd.DataFrame:
        """Compute an arm: a row per (budget, seed, split, group), see `measure`, with provenance."""
        teacher, notes = self.teacher()
        compared = {"original": Original(teacher, self.data), "curvature": self._curved(arm)}
        start = time.perf_counter()
        frames = []
        if arm == "original":
            gated = map_networks(lambda network: gates.install(network, self.sets[0].input_shape), teacher)
            total = gates.total_units(gated)
            each = len(self.cell.seeds)
            counts = 1.0, total, [total] * each, [0] * each
            frames.append(measure(teacher, self.data, self.cell.seeds, *counts, **compared))
        else:
            for one in self.students(arm):
                counts = one.budget, one.budget_units, one.kept, one.epochs
                frames.append(measure(one.model, self.data, self.cell.seeds, *counts, **compared))
        table = pd.concat(frames, ignore_index=True)
        cell = self.cell
        loss = dict(zip(cell.seeds, notes["loss"], strict=True))
        provenance = {
            "data": cell.data_text,
            "network": cell.network,
            "width": self.recipe.width or 0,
            "method": "original" if arm == "original" else cell.method,
            "arm": arm,
            "options": "" if arm == "original" else _pairs(cell.options),
            "profile": cell.profile,
            "teacher": notes["digest"],
            "device": device_name(cell.device),
            "torch": torch.__version__,
            "linfair": linfair.__version__,
            "seconds": time.perf_counter() - start + (notes["seconds"] if arm == "original" else 0.0),
        }
        return table.assign(base_loss=table["seed"].map(loss), **provenance)


def _width_in_file(cell: Cell) -> int | None:
    """The width of the network in a cell's teacher file, None if it is the full one.

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


def _pairs(options: tuple[tuple[str, object], ...]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options)
