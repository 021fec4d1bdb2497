"""Cells and arms: the unit of work, of resuming and of comparison.

A cell is everything that shares trained teachers: one data set, one network and one seed, or a fixed list of seeds
trained as an ensemble. An arm is one way through it at all budgets: the `original` network, a method with `plain`
fine-tuning, its 100 % `control`, or a mitigation (`linfair.study.arms`). Each (cell, arm) ends in one table; arms are
compared only within one teacher's digest.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import linfair
from linfair import gates
from linfair.checkpoints import load_network
from linfair.data import EMBEDDED, GroupedData
from linfair.device import device_name, peak_memory, watch_memory
from linfair.ensemble import Ensemble, map_networks
from linfair.linearizers import control
from linfair.linearizers.record import LinearizedModel
from linfair.linearizers.registry import find
from linfair.models import build
from linfair.resume import resumable
from linfair.study.arms import ARMS, canonical, fine_tuned, mitigation_of, with_fate
from linfair.study.base_data import found_words, load_sets
from linfair.study.checks import path_notes, rows_problem, say_other_teacher, student_notes, teacher_notes
from linfair.study.grids import Cell, built_as, grid, pairs
from linfair.study.measure import Original, measure
from linfair.study.recipes import Recipe, recipe
from linfair.study.records import notes_of, numbered, records_of, settings_of
from linfair.study.store import ResultStore, code_hash, key, weights_digest
from linfair.training import Data, fit, supervised, threads

STAGES = ("base", "path", "finetune", "measure")
"""What an arm's seconds are spent on: columns `seconds_*`. Arms of a cell share base training, and all but the control
the path: each row says what these cost once. `seconds` is the arm's own time, when it was computed."""

TIMING = ("seconds", *(f"seconds_{stage}" for stage in STAGES), "peak_memory")
"""Columns that differ when the same rows are computed again."""

__all__ = ["ARMS", "Cell", "Worker", "grid", "run"]


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
        arms: Some of `ARMS`, or mitigations: `lagrangian(mu=0.005)`.
        store: Where; the user's cache by default.
        progress: Show progress bars.
        announce: Told each arm's name and whether it was read or computed.

    Returns:
        A row per (cell, arm, budget, seed, split, group), see `Worker.rows`.
    """
    arms = [canonical(arm) for arm in arms]
    store = store or ResultStore.default()
    tables = []
    for cell in cells:
        worker = Worker(cell, store, progress)
        worker.settle(arms)
        tables += [worker.table(arm, announce) for arm in arms]
    return pd.concat(tables, ignore_index=True)


class Worker:
    """Computes the arms of one cell; teacher and mask path are kept as checkpoints, with `keep` the students too.

    MLPs are computed on one thread: they are too small for more, and a sum's order depends on the number of threads.

    Attributes:
        before: Called with the name of each stage (`base`, `path`, `finetune`) before it is trained; it may raise to
            stop there, and what is finished stays.
        spent: Seconds of each stage of the arm that is being computed, shared stages at what they once cost.
    """

    def __init__(self, cell: Cell, store: ResultStore, progress: bool, *, keep: bool = False) -> None:
        self.cell, self.store, self.progress, self.keep = cell, store, progress, keep
        self.before: Callable[[str], None] = lambda stage: None
        self.spent: Counter[str] = Counter()
        self.recipe: Recipe = built_as(cell, recipe(cell.network, cell.profile))
        self.linearizer = find(cell.method)
        self.options = replace(self.recipe.method(cell.method), **dict(cell.options))
        self._sets: list[GroupedData] | None = None
        self._base: list[GroupedData] | None = None
        self._teacher: tuple[nn.Module, dict] | None = None
        self._path: list[LinearizedModel] | None = None
        self._failed: Exception | None = None
        self._apart: dict[str, str] = {}
        self._digest: str | None = None
        self.path_seconds = 0.0
        self.threads = 1 if cell.network == "mlp" else torch.get_num_threads()

    def name(self, arm: str) -> str:
        """Name of an arm's table: the hash of everything that determines it."""
        settings = self._settings("base") | {"arm": arm, "profile": self.cell.profile, "curved": self._curved(arm)}
        if arm != "original":
            tuned = asdict(self.recipe.finetune) if self.linearizer.finetunes(self.options) else None
            settings |= {"budgets": self.cell.budgets, "finetune": tuned}
            settings |= {"method": self.cell.method, "options": settings_of(self.options)}
        if (mitigation := mitigation_of(arm)) is not None:
            settings |= {"arm": mitigation.name, "mitigation": asdict(mitigation)}
        name = key(settings)
        return self._apart.get(name, name)

    def settle(self, arms: Sequence[str]) -> None:
        """Make sure that these arms have one teacher, before the first of them is read.

        Where some are missing, or stored with two teachers, this cell's own is read or trained now. Arms stored with
        another one keep their files; this cell computes them under names that hold its teacher's digest.
        """
        found = [self._stored(arm) for arm in arms]
        digests = {one["teacher"].iloc[0] for one in found if one is not None}
        if len(digests) > 1 or (digests and any(one is None for one in found)):
            with threads(self.threads):
                self.teacher()
            for arm in arms:
                self._stored(arm)

    def _stored(self, arm: str) -> pd.DataFrame | None:
        """An arm's table from the store, checked, with the groups' present names; None if there is none of its own."""
        name = self.name(arm)
        if (found := self.store.read(name)) is None:
            return None
        if problem := rows_problem(found, self.cell, arm, self.sets):
            self.store.tables.set_aside(name, problem)
            return None
        digest = None if self._teacher is None else self._teacher[1]["digest"]
        if digest not in (None, other := found["teacher"].iloc[0]):
            self._apart[name] = key({"arm": name, "teacher": digest})
            say_other_teacher(f"{name}: {arm} of {self.cell.data_text}", other, digest)
            return self._stored(arm)
        self._digest = other
        names = found["group"].map(dict(enumerate(self.sets[0].group_names)))
        if not names.equals(found["group_name"]):  # they were renamed since
            found = found.assign(group_name=names)
            self.store.write(name, found)
        return found

    def table(self, arm: str, announce: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
        """An arm's table from the store, computed and stored if it is missing."""
        found, name, cell = self._stored(arm), self.name(arm), self.cell
        how = "computed" if found is None else "read"
        announce(f"{name}: {arm} of {cell.method}, {cell.network} on {cell.data_text}: {how}")
        if found is None:
            with threads(self.threads):
                found = self.rows(arm)
            self.store.write(name, found)
            if not self.keep:
                self.forget(arm)
        return found

    def _settings(self, stage: str) -> dict[str, object]:
        cell = self.cell
        sets, base = self.sets, {}
        if cell.base_data_options:
            content = [one.provenance["sha256"] for one in self._base or sets]
            base = {"base_data_options": cell.base_data_options, "base_content": content}
        return base | {
            "stage": stage,
            "data": cell.data,
            "data_options": cell.data_options,
            "content": None if cell.data in EMBEDDED else [one.provenance["sha256"] for one in sets],
            "network": cell.network,
            "seeds": cell.seeds,
            "device": cell.device,
            "base": asdict(self.recipe.base),
            "width": self.recipe.width,
            "init": self.recipe.init,
            "teacher": sha256(Path(cell.teacher).read_bytes()).hexdigest() if cell.teacher else None,
            "torch": torch.__version__,
            "threads": self.threads if cell.device == "cpu" else 0,
            "processor": torch.backends.cpu.get_cpu_capability() if cell.device == "cpu" else "",
        }

    @property
    def sets(self) -> list[GroupedData]:
        """The data, one split for each seed."""
        if self._sets is None:
            self._sets, self._base = load_sets(self.cell)
        return self._sets

    @property
    def data(self) -> Data:
        """The data as training takes it."""
        return self.sets if len(self.sets) > 1 else self.sets[0]

    def teacher(self) -> tuple[nn.Module, dict]:
        """The trained teacher and its notes (digest, last loss of each seed, seconds), from the store if there."""
        if self._teacher is None:
            model, notes = self._found_or_trained()
            self._teacher = model.eval(), notes
        return self._teacher

    def _found_or_trained(self) -> tuple[nn.Module, dict]:
        if self.cell.teacher:
            model, header = load_network(self.cell.teacher)
            header.check_data(self.sets[0], self.cell.teacher)
            model = model.to(self.cell.device)
            return model, {"seconds": 0.0, "loss": [float("nan")], "digest": weights_digest(model)}
        name, model = key(self._settings("teacher")), self._untrained()
        notes = teacher_notes(len(self.cell.seeds))
        if (stored := self.store.load(name, like=model.state_dict(), notes=notes)) is not None:
            model.load_state_dict(stored[0])
            if weights_digest(model) == stored[1]["digest"]:
                return model, stored[1]
            self.store.set_aside(name, "does not hold the weights that its notes name")
            model = self._untrained()
        if self._failed is not None:  # it would only fail again
            raise self._failed
        self.before("base")
        several = self._base or self.sets
        base = several if len(several) > 1 else several[0]
        options = {"stage": "base", "label": "base training", "parts": (), "progress": self.progress}
        try:
            with resumable(self.store, name=name) as stage:
                history = fit(model, base, supervised, self.recipe.base, seeds=self.cell.seeds, **options)
        except Exception as error:
            self._failed = error
            raise
        notes = {"seconds": stage.seconds, "loss": history[-1]["loss"]}
        notes["digest"] = weights_digest(model)
        self.store.save(name, model.state_dict(), notes)
        return model, notes

    def _untrained(self) -> nn.Module:
        first, cell, plan = self.sets[0], self.cell, self.recipe
        networks = [
            build(cell.network, first.input_shape, first.classes, width=plan.width, seed=seed, init=plan.init)
            for seed in cell.seeds
        ]
        return (Ensemble(networks) if len(networks) > 1 else networks[0]).to(cell.device)

    def path(self) -> list[LinearizedModel]:
        """The method's record of each budget before fine-tuning, from the checkpoint if there is one."""
        if self._path is None:
            self._path, self.path_seconds = self._run(self.options)
        return self._path

    def path_name(self, options: object | None = None, digest: str | None = None) -> str:
        """Name of the mask path's checkpoint, with the cell's options and teacher's digest or others."""
        settings = self._settings("path")
        settings |= {"method": self.cell.method, "options": settings_of(options or self.options)}
        return key(settings | {"budgets": self.cell.budgets, "teacher": digest or self.teacher()[1]["digest"]})

    def _gated(self) -> nn.Module:
        return map_networks(lambda network: gates.install(network, self.sets[0].input_shape), self.teacher()[0])

    def _run(self, options: object) -> tuple[list[LinearizedModel], float]:
        """The records of the method with some options, and the seconds it took."""
        how = {"seeds": self.cell.seeds, "options": options, "progress": self.progress}
        run = partial(self.linearizer.run, self.teacher()[0], self.data, self.cell.budgets, **how)
        return self._kept(self.path_name(options), run)

    def _kept(self, name: str, run: Callable[[], list[LinearizedModel]]) -> tuple[list[LinearizedModel], float]:
        """What `run` returns, from the checkpoint of that name if there is one, and the seconds it took."""
        count = len(self.cell.budgets)
        like = numbered([self._gated()] * count)
        stored = self.store.load(name, like=like, notes=path_notes(count, len(self.cell.seeds)))
        if stored is not None:
            return records_of(*stored, self.cell, self._gated()), stored[1]["seconds"]
        self.before("path")
        with resumable(self.store, name=name) as stage:
            records = run()
        seconds = stage.seconds
        self.store.save(name, numbered([one.model for one in records]), notes_of(records) | {"seconds": seconds})
        return records, seconds

    def students(self, arm: str) -> Iterator[LinearizedModel]:
        """The fine-tuned record of each budget, in the `plain`, the `control` or a mitigated arm."""
        teacher, _ = self.teacher()
        mitigation = mitigation_of(arm)
        whole = not self.linearizer.finetunes(self.options)
        if whole and mitigation is not None:  # it acts over the method's own training, which is all there is
            path, self.spent["path"] = self._run(replace(self.options, mitigation=mitigation))
            path = [replace(one, mitigation=mitigation) for one in path]
        else:
            path = self.path()
            self.spent["path"] = self.path_seconds
        if arm == "control":
            schedule, objective = self.linearizer.phase(self.options, teacher, self.data)
            how = {"schedule": schedule, "objective": objective, "progress": self.progress}
            how |= {"start": self.linearizer.start(self.options, teacher, self.cell.seeds), "seeds": self.cell.seeds}
            run = partial(control, teacher, self.data, path, **how)
            path, self.spent["path"] = self._kept(f"{self.path_name()}-control", run)
            path = [replace(one, method="control") for one in path]
        if whole:
            yield from path
            return
        for number, one in enumerate(path):
            name = f"{self.name(arm)}-{number}"
            known = student_notes(len(self.cell.seeds), budget=one.budget, teacher=self.teacher()[1]["digest"])
            stored = self.store.load(name, like=one.model.state_dict(), notes=known) if self.keep else None
            if stored is not None:
                model, notes = copy.deepcopy(one.model), stored[1]
                model.load_state_dict(stored[0])
                self.spent["finetune"] += notes["seconds"]
                fate = {"diverged": notes["diverged"], "finetuning": notes["finetuning"]}
                yield replace(one, model=model, mitigation=mitigation, **fate)
                continue
            self.before("finetune")
            how = {"seeds": self.cell.seeds, "schedule": self.recipe.finetune, "progress": self.progress}
            with resumable(self.store, name=name) as stage:
                tuned = fine_tuned(one, teacher, self.data, mitigation=mitigation, **how)
            self.spent["finetune"] += stage.seconds
            if self.keep:
                notes = {"budget": one.budget, "seconds": stage.seconds, "teacher": self.teacher()[1]["digest"]}
                notes |= {"diverged": tuned.diverged, "finetuning": tuned.finetuning}
                self.store.save(name, tuned.model.state_dict(), notes)
            yield tuned

    def forget(self, arm: str) -> None:
        """Remove the kept students of an arm whose table is stored."""
        for number in range(len(self.cell.budgets)):
            self.store.discard(f"{self.name(arm)}-{number}")
        if arm == "control":
            self.store.discard(f"{self.path_name()}-control")
        if (mitigation := mitigation_of(arm)) is not None and not self.linearizer.finetunes(self.options):
            self.store.discard(self.path_name(replace(self.options, mitigation=mitigation)))

    def forget_path(self) -> None:
        """Remove the mask path's checkpoint, which only missing arms need."""
        if (digest := self._teacher[1]["digest"] if self._teacher else self._digest) is not None:
            self.store.discard(self.path_name(digest=digest))

    def _curved(self, arm: str) -> tuple[str, ...]:
        """The splits on which an arm's Hessian eigenvalues are computed."""
        whose = self.cell.curvature or self.recipe.curvature
        return ("train",) if whose == "all" or whose == arm else ()

    def rows(self, arm: str) -> pd.DataFrame:
        """Compute an arm: a row per (budget, seed, split, group), see `measure`, with provenance."""
        teacher, notes = self.teacher()
        compared = {"original": Original(teacher, self.data), "curvature": self._curved(arm)}
        start = time.perf_counter()
        watch_memory(self.cell.device)
        self.spent = Counter(base=notes["seconds"])
        frames, total = [], gates.total_units(self._gated())
        if arm == "original":
            each = len(self.cell.seeds)
            counts = 1.0, total, [total] * each, [0] * each
            before = time.perf_counter()
            frames.append(measure(teacher, self.data, self.cell.seeds, *counts, **compared))
            nothing = {"configuration": "", "mask_steps": 0, "diverged": False, "multiplier": float("nan")}
            frames[0] = frames[0].assign(**nothing, multipliers="")
            self.spent["measure"] += time.perf_counter() - before
        else:
            for one in self.students(arm):
                counts = one.budget, one.budget_units, one.kept, one.epochs
                before = time.perf_counter()
                measured = measure(one.model, self.data, self.cell.seeds, *counts, **compared)
                self.spent["measure"] += time.perf_counter() - before
                frames.append(with_fate(measured, one, self.cell.seeds))
        table = pd.concat(frames, ignore_index=True)
        cell = self.cell
        loss = dict(zip(cell.seeds, notes["loss"], strict=True))
        provenance = {
            "data": found_words(cell, self.sets),
            "network": cell.network,
            "width": self.recipe.width or 0,
            "init": self.recipe.init,
            "total": total,
            "method": "original" if arm == "original" else cell.method,
            "arm": arm,
            "options": "" if arm == "original" else pairs(cell.options),
            "profile": cell.profile,
            "precision": self.recipe.base.precision,
            "teacher": notes["digest"],
            "device": device_name(cell.device),
            "torch": torch.__version__,
            "linfair": linfair.__version__,
            "code": code_hash(),
            "seconds": time.perf_counter() - start + (notes["seconds"] if arm == "original" else 0.0),
            **{f"seconds_{stage}": float(self.spent[stage]) for stage in STAGES},
            "peak_memory": peak_memory(cell.device),
        }
        return table.assign(base_loss=table["seed"].map(loss), **provenance)
