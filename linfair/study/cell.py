"""Computing a cell: each arm ends in one table, compared only within one teacher's digest; stages are the engine's."""

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch

import linfair
from linfair import rules
from linfair.checkpoints import load_network
from linfair.data import EMBEDDED, GroupedData
from linfair.device import device_name, peak_memory, watch_memory
from linfair.engine.rows import lacking
from linfair.engine.stages import Path as MaskPath
from linfair.engine.stages import Stages, Teacher, machine, mitigation_settings, settings_of
from linfair.engine.store import ResultStore, code_hash, key
from linfair.ledger import Guarantee
from linfair.linearizers.record import LinearizedModel
from linfair.linearizers.registry import find
from linfair.metrics.measure import Original, measure
from linfair.models import threads_of
from linfair.names import some
from linfair.schedule import Schedule
from linfair.study.arms import ARMS, canonical, mitigation_of, with_fate, word
from linfair.study.grids import Cell, built_as, grid, load_sets, pairs
from linfair.study.recipes import Recipe, recipe

STAGES = ("base", "path", "finetune", "measure")
"""What an arm's seconds are spent on: columns `seconds_*`, which say what shared stages cost once. `seconds` is the
arm's own time, when it was computed."""

TIMING = ("seconds", *(f"seconds_{stage}" for stage in STAGES), "peak_memory")
"""Columns that differ when the same rows are computed again."""

__all__ = ["ARMS", "Cell", "OtherTeacher", "Setting", "Worker", "grid", "run", "setting_of"]


class OtherTeacher(UserWarning):
    """Rows of several original networks lie under the same settings; the message says which are used."""


def run(
    cells: Sequence[Cell],
    *,
    arms: Sequence[str] = ARMS,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """The table of a study: stored arms are read, missing ones computed and stored one by one.

    A row per (cell, arm, budget, seed, split, group), see `linfair.metrics.measure`. `cells` are from `grid`, arms some
    of `ARMS`, or mitigations: `lagrangian(mu=0.005)`; `announce` is told each arm's name and whether it was read or
    computed. Interrupted at any moment, nothing that was finished is lost: run it again.
    """
    arms = [canonical(arm) for arm in arms]
    table = pd.concat([Worker(cell, store, progress).tables(arms, announce) for cell in cells], ignore_index=True)
    return table.assign(base=table["base"].fillna("")) if "base" in table else table


@dataclass(frozen=True)
class Setting:
    """What a cell stands for, resolved: change a field with `replace` to train it in another way."""

    recipe: Recipe  #: How every stage is trained.
    options: object  #: Of the method.
    sets: list[GroupedData]  #: The data on the cell's device, one split for each seed.
    base: list[GroupedData]  #: What the original network is trained on.
    named: tuple[tuple[str, object], ...] = ()  #: What is changed against the cell, for the names of its tables.


def setting_of(cell: Cell) -> Setting:
    """A cell's own setting; reads its data."""
    plan = built_as(cell, recipe(cell.network, cell.profile))
    return Setting(plan, replace(plan.method(cell.method), **dict(cell.options)), *load_sets(cell))


class Worker:
    """Computes the arms of one cell; teacher and mask path are kept as checkpoints, with `keep` the students too."""

    def __init__(
        self,
        cell: Cell,
        store: ResultStore | None = None,
        progress: bool = True,
        *,
        keep: bool = False,
        setting: Setting | None = None,
    ) -> None:
        self.cell, self.store, self.keep = cell, store or ResultStore.default(), keep
        self.setting = setting or setting_of(cell)
        self.recipe, self.options, self.sets = self.setting.recipe, self.setting.options, self.setting.sets
        self.linearizer = find(cell.method)
        how = {"count": threads_of(cell.network), "keep": keep, "progress": progress}
        self.stages = Stages(self.sets, cell.seeds, store, **how)
        self.base = Stages(self.setting.base, cell.seeds, store, **how)
        self.spent: Counter[str] = Counter()  # seconds of each stage, shared stages at what they once cost
        self._failed: Exception | None = None
        self._apart, self._digest = {}, None  # names of tables that hold another teacher's digest; the stored one
        self._kept: dict[str, list[str]] = {}
        self._taught: dict[float, MaskPath] = {}  # paths of arms with another weight of KD, of methods that have one

    def name(self, arm: str) -> str:
        """Name of an arm's table: the hash of everything that determines it."""
        cell, plan = self.cell, self.recipe
        settings, asked = dict(self.setting.named), ("data", "data_options", "network", "seeds", "device", "profile")
        if cell.base_data_options:
            settings |= {"base_data_options": cell.base_data_options, "base_content": _content(self.setting.base)}
        settings |= {name: getattr(cell, name) for name in asked} | {"arm": arm, "curved": self._curved(arm)}
        settings |= {"base": asdict(plan.base), "width": plan.width, "init": plan.init}
        later = ("base_mitigation", "norm", "standardised")
        settings |= {name: one for name, one in cell.known_by.items() if name in later}
        if cell.base_rule:
            settings |= {"base": asdict(plan.private), "base_rule": asdict(rules.resolve(cell.base_rule))}
        settings["content"] = None if cell.data in EMBEDDED else _content(self.sets)
        settings["teacher"] = sha256(Path(cell.teacher).read_bytes()).hexdigest() if cell.teacher else None
        if arm != "original":
            tuned = asdict(plan.finetune) if self.linearizer.finetunes(self.options) else None
            settings |= {"budgets": cell.budgets, "finetune": tuned}
            settings |= {"method": cell.method, "options": settings_of(self.options)}
        if (mitigation := mitigation_of(arm)) is not None:
            settings |= {"arm": word(arm), "mitigation": mitigation_settings(mitigation)}
        name = key(settings | machine(cell.device, self.stages.threads))
        return self._apart.get(name, name)

    def settle(self, arms: Sequence[str]) -> None:
        """Give these arms one teacher before the first is read; arms stored with another one are computed beside it."""
        found = [self.stored(arm) for arm in arms]
        if len({None if one is None else one["teacher"].iloc[0] for one in found}) > 1:
            self.teacher.digest  # noqa: B018
            for arm in arms:
                self.stored(arm)

    def stored(self, arm: str) -> pd.DataFrame | None:
        """An arm's table from the store, checked, with the groups' present names; None if there is none of its own."""
        name = self.name(arm)
        if (found := self.store.read(name)) is None:
            return None
        if problem := self._problem(found, arm):
            self.store.tables.set_aside(name, problem)
            return None
        digest, other = self._digest_here(), found["teacher"].iloc[0]
        if digest not in (None, other):
            self._apart[name] = key({"arm": name, "teacher": digest})
            text = f"{name}: {arm} of {self.cell.data_words()} was computed from the original network {other}, not "
            warnings.warn(f"{text}from {digest} as here; both are kept apart", OtherTeacher, stacklevel=4)
            return self.stored(arm)
        self._digest = other
        names = found["group"].map(dict(enumerate(self.sets[0].group_names)))
        if not names.equals(found["group_name"]):  # they were renamed since
            found = found.assign(group_name=names)
            self.store.write(name, found)
        return found

    def _problem(self, rows: pd.DataFrame, arm: str) -> str:
        """What keeps stored rows from being those of an arm; empty if nothing does."""
        cell, first, original = self.cell, self.sets[0], arm == "original"
        if problem := lacking(rows.columns):
            return problem
        try:
            same = {canonical(one) for one in set(rows["arm"])} == {canonical(arm)}
        except ValueError:  # it is none
            same = False
        if not same:
            return f"holds the arm {some(rows['arm'].unique())}, not {arm}"
        said = {"data": [cell.data_words(self.sets)], "network": [cell.network]}
        said["method"] = ["original" if original else cell.method]
        wanted = {"budget": [1.0] if original else cell.budgets, "seed": cell.seeds}
        wanted |= {"split": list(first.splits), "group": range(len(first.group_names))}
        for column, values in (said | wanted).items():
            if set(rows[column]) != set(values):
                return f"holds the {column} {some(rows[column].unique())}, not {some(values)}"
        count = math.prod(map(len, wanted.values()))
        if len(rows) != count or rows.duplicated(list(wanted)).any():
            return f"holds {len(rows)} rows, not {count}"
        several = f"holds rows of several original networks ({some(rows['teacher'].unique())})"
        return several if rows["teacher"].nunique() > 1 else ""

    def _digest_here(self) -> str | None:
        return self.teacher.digest if "teacher" in vars(self) else None

    def tables(self, arms: Sequence[str], announce: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
        """The tables of several arms of one teacher, in one."""
        self.settle(arms)
        return pd.concat([self.table(arm, announce) for arm in arms], ignore_index=True)

    def table(self, arm: str, announce: Callable[[str], None] = lambda line: None) -> pd.DataFrame:
        """An arm's table from the store, computed and stored if it is missing."""
        found, name, cell = self.stored(arm), self.name(arm), self.cell
        told = f"{name}: {arm} of {cell.method}, {cell.network} on {cell.data_words()}"
        announce(f"{told}: {'computed' if found is None else 'read'}")
        if found is None:
            found = self.rows(arm)
            self.store.write(name, found)
            if not self.keep:
                self.forget(arm)
        return found

    @property
    def taught(self) -> Schedule:
        """How a teacher without a file is trained."""
        return self.recipe.private if self.cell.base_rule else self.recipe.base

    @cached_property
    def teacher(self) -> Teacher:
        """The trained teacher, from the cell's file or the store if it is there."""
        if self._failed is not None:  # it would only fail again
            raise self._failed
        cell, plan = self.cell, self.recipe
        if cell.teacher:
            model, header = load_network(cell.teacher)
            header.check_data(self.sets[0], cell.teacher)
            return self.stages.given(model.to(cell.device), guarantee=header.guarantee)
        try:
            fair = mitigation_of(cell.base_mitigation) if cell.base_mitigation else None
            how = {"width": plan.width, "init": plan.init, "norm": cell.norm, "standardised": cell.standardised}
            how |= {"mitigation": fair, "rule": cell.base_rule or None}
            return self.base.teacher(cell.network, self.taught, **how)
        except Exception as error:
            self._failed = error
            raise

    @cached_property
    def path(self) -> MaskPath:
        """The method's records before fine-tuning."""
        return self._path(self.options)

    def _path(self, options: object) -> MaskPath:
        return self.stages.path(self.teacher, self.cell.method, self.cell.budgets, options)

    def students(self, arm: str) -> Iterator[LinearizedModel]:
        """The fine-tuned record of each budget, in the `plain`, the `control` or a mitigated arm."""
        mitigation, whole = mitigation_of(arm), not self.linearizer.finetunes(self.options)
        acts = whole and mitigation is not None and word(arm) != "control"
        kd, names = getattr(mitigation, "kd", 1.0), self._kept.setdefault(arm, [])
        if acts:  # over the method's own training, which is all there is
            path = self._path(replace(self.options, mitigation=mitigation))
            names.append(path.name)
        elif kd != 1.0 and hasattr(self.options, "kd"):  # it holds in the method's own training, too
            path = self._taught[kd] = self._taught.get(kd) or self._path(replace(self.options, kd=kd))
            names.append(path.name)
        else:
            path = self.path
        if word(arm) == "control":
            path = self.stages.control(self.teacher, path)
            names.append(path.name)
        elif acts:
            path = replace(path, records=[replace(one, mitigation=mitigation) for one in path.records])
        self.spent["path"] = path.seconds
        for one in path.records:
            if whole:
                yield one
                continue
            student = self.stages.student(self.teacher, one, self.recipe.finetune, mitigation)
            names.append(student.name)
            self.spent["finetune"] += student.seconds
            yield student.record

    def forget(self, arm: str) -> None:
        """Remove what was kept of an arm whose table is stored: its students, and a path that only it needs."""
        for name in self._kept.pop(arm, []):
            self.store.discard(name)

    def forget_path(self) -> None:
        """Remove the mask path's checkpoint, which only missing arms need."""
        if digest := self._digest_here() or self._digest:
            self.store.discard(self.stages.path_name(digest, self.cell.method, self.cell.budgets, self.options))

    def _curved(self, arm: str) -> tuple[str, ...]:
        """The splits on which an arm's Hessian eigenvalues are computed."""
        return ("train",) if (self.cell.curvature or self.recipe.curvature) in ("all", arm) else ()

    def _private(self, guarantee: Guarantee | None) -> dict[str, object]:
        """What rows say of the rule that trained the original network, and of a network's guarantee of privacy."""
        if not self.cell.base_rule:
            return {}
        options, said = rules.resolve(self.cell.base_rule), {"epsilon": math.inf, "delta": 0.0, "guarantee": ""}
        if guarantee is not None:
            epsilon = guarantee.epsilon if options.noise is not None else options.epsilon
            said = {"epsilon": epsilon, "delta": guarantee.delta, "guarantee": guarantee.ended or "holds"}
        return {"rule": options.name} | said

    def rows(self, arm: str) -> pd.DataFrame:
        """Compute an arm: a row per (budget, seed, split, group), see `measure`, with provenance."""
        cell, teacher = self.cell, self.teacher
        compared = {"original": Original(teacher.model, self.stages.data), "curvature": self._curved(arm)}
        start = time.perf_counter()
        watch_memory(cell.device)
        self.spent = Counter(base=teacher.seconds)
        reduction = self.linearizer.reduces(self.options)
        total = reduction.total(reduction.install(teacher.model, self.sets[0].input_shape))

        def measured(model: object, *counts: object) -> pd.DataFrame:
            before = time.perf_counter()
            with self.stages.measuring(model):
                found = measure(model, self.stages.data, cell.seeds, *counts, **compared)
            self.spent["measure"] += time.perf_counter() - before
            return found

        said = {"method": "original" if arm == "original" else cell.method, "arm": arm, "options": ""}
        if arm == "original":
            nothing = {"configuration": "", "mask_steps": 0, "diverged": False, "multipliers": ""}
            table = measured(teacher.model, 1.0, total, [total] * len(cell.seeds), [0] * len(cell.seeds))
            nothing |= self._private(teacher.guarantee)
            table, own = table.assign(multiplier=math.nan, **nothing), teacher.seconds
        else:
            frames = []
            for one in self.students(arm):
                frame = measured(one.model, one.budget, one.budget_units, one.kept, one.epochs)
                frame = frame.assign(**self._private(one.guarantee))
                frames.append(with_fate(frame, one, cell.seeds))
            table, own, said["options"] = pd.concat(frames, ignore_index=True), 0.0, pairs(cell.options)
        provenance = {"data": cell.data_words(self.sets), "network": cell.network, "width": self.recipe.width or 0}
        provenance |= {"init": self.recipe.init, "total": total} | said
        provenance |= {"base": cell.based} if cell.based else {}
        provenance |= {"profile": cell.profile, "precision": self.recipe.base.precision, "teacher": teacher.digest}
        provenance |= {"device": device_name(cell.device), "torch": torch.__version__, "linfair": linfair.__version__}
        provenance |= {"code": code_hash(), "seconds": time.perf_counter() - start + own}
        provenance |= {f"seconds_{stage}": float(self.spent[stage]) for stage in STAGES}
        provenance["peak_memory"] = peak_memory(cell.device)
        loss = dict(zip(cell.seeds, teacher.loss, strict=True))
        return table.assign(base_loss=table["seed"].map(loss), **provenance)


def _content(sets: Sequence[GroupedData]) -> list[object]:
    return [one.provenance["sha256"] for one in sets]
