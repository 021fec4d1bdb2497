"""The one engine: whatever is trained is a stage, computed once and read from then on.

A stage is known by what determines it: the images and labels it learns from, seeds, settings, the digest of the teacher
it starts from, and how this machine computes. Studies, audits, repairs and pages call the same four:

    stages = Stages(data, seeds=[0], store=store)
    teacher = stages.teacher("mlp", schedule)      # or given(model), for a network that somebody has trained
    path = stages.path(teacher, "snl", (0.5, 0.1))
    control = stages.control(teacher, path)
    student = stages.student(teacher, path.records[0], schedule, Lagrangian(mu=0.005))
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from linfair import rules
from linfair.data import GroupedData
from linfair.engine.store import ResultStore, key, weights_digest
from linfair.ensemble import Ensemble
from linfair.ledger import STEPS, Guarantee, after
from linfair.linearizers import control, finetune
from linfair.linearizers.finetuning import tuned_guarantee
from linfair.linearizers.record import LinearizedModel, budget_units
from linfair.linearizers.registry import find
from linfair.mitigation import PLAIN, Plain, resolve
from linfair.models import build
from linfair.resume import Unfit, resumable, under, weights_of
from linfair.training import Data, Distill, Schedule, TrainingDiverged, supervised, threads

_TOLD = ("epochs", "steps", "configurations", "finetuning", "diverged")


@dataclass(frozen=True)
class Teacher:
    """A trained network (or ensemble), and what it is known by."""

    model: nn.Module  #: Without gates, in evaluation mode
    digest: str  #: Of its weights
    computes: str = ""  #: Digest of what it computes (`linfair.audit`), for a network whose code is a user's
    loss: tuple[float, ...] = (torch.nan,)  #: Last training loss of each member; nan where it was not trained here
    seconds: float = 0.0
    guarantee: Guarantee | None = None  #: Of privacy; what follows hands on what is left of it


@dataclass(frozen=True)
class Path:
    """A method's records before fine-tuning, one for each budget; `name` and `seconds` are those of the stage."""

    method: str
    options: object
    records: list[LinearizedModel]
    name: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Student:
    """A record after fine-tuning; one that diverged has the weights it started from, and its `diverged` says so."""

    record: LinearizedModel
    name: str
    seconds: float = 0.0
    said: str = ""  #: What `TrainingDiverged` said
    read: bool = False  #: It was in the store


@dataclass(eq=False)
class Stages:
    """The stages of one data set, or of one for each seed of an ensemble, over one store."""

    data: Data  #: A data set, or one for each seed
    seeds: Sequence[int] = (0,)  #: Several are trained as one ensemble
    store: ResultStore | None = None  #: Where stages are kept; the user's cache by default
    _: KW_ONLY
    count: int | None = None  #: CPU threads; None is the present number. A sum's order depends on it
    keep: bool = True  #: Keep students too
    progress: bool = True  #: Show progress bars
    before: Callable[[str], None] | None = None  #: Told `base`, `path` or `finetune`; it may raise to stop there

    def __post_init__(self) -> None:
        self.sets = [self.data] if isinstance(self.data, GroupedData) else list(self.data)
        self.data = self.sets if len(self.sets) > 1 else self.sets[0]
        self.seeds, self.store = tuple(self.seeds), self.store or ResultStore.default()
        self.threads = self.count or torch.get_num_threads()

    def _stage(self, stage: str, name: str, read: Callable, train: Callable, *, keep: bool = True) -> Any:
        """What `read` makes of a stage's checkpoint, or what `train` returns beside the tensors and notes for one."""
        if keep and (found := self.store.load(name, lambda *one: (read(*one), float(one[1]["seconds"])))) is not None:
            return replace(found[0], seconds=found[1])
        if self.before is not None:
            self.before(stage)
        (self.store.folder / "checkpoints").mkdir(parents=True, exist_ok=True)  # an error now, not after the training
        with threads(self.threads), resumable(self.store, name=name) as watch:
            try:
                made, tensors, notes = train()
            except Unfit:  # what was kept of it was set aside
                made, tensors, notes = train()
        if keep:
            self.store.save(name, tensors, notes | {"seconds": watch.seconds})
        return replace(made, seconds=watch.seconds)

    @contextmanager
    def measuring(self, model: nn.Module) -> Iterator[None]:
        """The threads of a network that is measured; an eigenvalue that took long is kept if the next is stopped."""
        (self.store.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        with threads(self.threads), resumable(self.store, name=self._name("measure", weights=weights_digest(model))):
            yield

    @cached_property
    def content(self) -> list[str]:
        """SHA-256 of what is learned from and chosen on: images, labels and groups of each set's `train` and `val`."""
        found = []
        for one in self.sets:
            digest = hashlib.sha256(repr((one.mean, one.std, one.shift, *[one.crop] * bool(one.crop))).encode())
            for part in (one.splits[name] for name in ("train", "val") if name in one.splits):
                for field in (part.x, part.y, part.a):
                    digest.update(field.cpu().contiguous().numpy().tobytes())
            found.append(digest.hexdigest())
        return found

    def _name(self, stage: str, **settings: object) -> str:
        """The name of a stage: every key of a checkpoint is made here."""
        device = self.sets[0].splits["train"].y.device.type
        where = machine(device, self.threads) | {"device": device}
        return key(where | {"stage": stage, "content": self.content, "seeds": self.seeds} | settings)

    def given(self, model: nn.Module, *, computes: str = "", guarantee: Guarantee | None = None) -> Teacher:
        """A teacher that was trained elsewhere."""
        return Teacher(model.eval(), weights_digest(model), computes, guarantee=guarantee)

    def untrained(self, network: str, **how: object) -> nn.Module:
        """A network (an ensemble for several seeds) as it is before training; options are those of `models.build`."""
        first = self.sets[0]
        networks = [build(network, first.input_shape, first.classes, seed=seed, **how) for seed in self.seeds]
        return (Ensemble(networks) if len(networks) > 1 else networks[0]).to(first.splits["train"].y.device)

    def teacher(
        self,
        network: str,
        schedule: Schedule,
        *,
        width: int | None = None,
        init: str = "torch",
        norm: str = "batch",
        standardised: bool = False,
        mitigation: object | None = None,
        rule: str | object | None = None,
    ) -> Teacher:
        """The trained teacher; a mitigation's objective (without KD) and a rule's gradients go before the usual."""
        how, fair = {"width": width, "init": init}, {}
        how |= {"norm": norm} if norm != "batch" else {}
        how |= {"standardised": True} if standardised else {}
        if mitigation is not None:
            fair = {"mitigation": [type(mitigation).__qualname__, mitigation_settings(mitigation)]}
        if rule is not None:
            chosen = rules.resolve(rule)
            fair["rule"] = [chosen.name, asdict(chosen)]
        name = self._name("teacher", network=network, base=asdict(schedule), **how, **fair)

        def read(tensors: dict, notes: dict) -> Teacher:
            model = _filled(self.untrained(network, **how), tensors)
            if weights_digest(model) != notes["digest"]:
                raise ValueError("does not hold the weights that its notes name")
            loss, given = _listed(notes["loss"], len(self.seeds), float), notes.get("guarantee")
            return Teacher(model.eval(), notes["digest"], loss=loss, guarantee=Guarantee(**given) if given else None)

        def train() -> tuple[Teacher, dict, dict]:
            model = self.untrained(network, **how)
            options = {"seeds": self.seeds, "stage": "base", "label": "base training", "progress": self.progress}
            objective, hooks = supervised, {"parts": ()}
            if mitigation is not None:
                start = copy.deepcopy(model)
                objective = mitigation.start(model, start, self.data, distill=Distill(start, self.data, kd=0.0))
                hooks = objective.hooks
            options |= hooks | {"objective": objective, "rule": rule}
            history, guarantee = rules.train(model, self.data, schedule, **options)
            found = Teacher(model.eval(), weights_digest(model), loss=tuple(history[-1]["loss"]), guarantee=guarantee)
            notes = {"loss": found.loss, "digest": found.digest}
            return found, model.state_dict(), notes | ({"guarantee": asdict(guarantee)} if guarantee else {})

        return self._stage("base", name, read, train)

    def path_name(
        self, digest: str, method: str, budgets: Sequence[float], options: object, *, computes: str = ""
    ) -> str:
        """The name of the mask path that a teacher's digest and a method's options determine."""
        about = {"method": method, "options": settings_of(options), "budgets": tuple(budgets)}
        return self._name("path", teacher=digest, computes=computes, **about)

    def path(self, teacher: Teacher, method: str, budgets: Sequence[float], options: object | None = None) -> Path:
        """A method's record of each budget, before fine-tuning."""
        linearizer = find(method)
        options = linearizer.options() if options is None else options
        name = self.path_name(teacher.digest, method, budgets, options, computes=teacher.computes)
        how = {"seeds": self.seeds, "options": options, "progress": self.progress}
        run = partial(linearizer.run, teacher.model, self.data, budgets, **how)
        found = self._path(teacher, Path(method, options, [], name), budgets, run)
        left = after(teacher.guarantee, linearizer.does(options))
        return replace(found, records=[replace(one, guarantee=left) for one in found.records])

    def control(self, teacher: Teacher, path: Path) -> Path:
        """The 100 % control of a path: its training, with every unit kept."""

        def run() -> list[LinearizedModel]:
            how = find(path.method).phase(path.options, teacher.model, self.data, self.seeds)
            return control(teacher.model, self.data, path.records, seeds=self.seeds, progress=self.progress, **how)

        budgets, wanted = [one.budget for one in path.records], replace(path, name=key({"control": path.name}))
        found = self._path(teacher, wanted, budgets, run)
        left = [after(teacher.guarantee, STEPS["retraining" if any(one.epochs) else "export"]) for one in found.records]
        records = [replace(one, method="control", guarantee=g) for one, g in zip(found.records, left, strict=True)]
        return replace(found, method="control", records=records)

    def _path(self, teacher: Teacher, path: Path, budgets: Sequence[float], run: Callable) -> Path:
        reduction = find(path.method).reduces(path.options)

        def read(tensors: dict, notes: dict) -> Path:
            switched, records = reduction.install(teacher.model, self.sets[0].input_shape), []
            if (count := len({place.partition("/")[0] for place in tensors})) != len(budgets):
                raise ValueError(f"holds {count} networks, not {len(budgets)}")
            for number, budget in enumerate(budgets):
                told = _told({name: notes[name][number] for name in _TOLD}, len(self.seeds))
                model = reduction.fixed(_filled(copy.deepcopy(switched), under(tensors, str(number))))
                units, masks = budget_units(budget, reduction.total(model)), reduction.masks(model)
                about = {"history": notes["history"], "reduction": reduction} | told
                records.append(LinearizedModel(path.method, budget, units, model, masks, **about))
            return replace(path, records=records)

        def train() -> tuple[Path, dict, dict]:
            records = run()
            notes = {told: [getattr(one, told) for one in records] for told in _TOLD}
            tensors = weights_of({str(number): one.model for number, one in enumerate(records)})
            return replace(path, records=records), tensors, notes | {"history": records[0].history}

        return self._stage("path", path.name, read, train)

    def student(
        self, teacher: Teacher, one: LinearizedModel, schedule: Schedule, mitigation: str | object | None = None
    ) -> Student:
        """A record fine-tuned, plainly or under a mitigation, under which a single network that diverges says so."""
        options = resolve(mitigation)
        plain = options.name == PLAIN
        left = one.guarantee
        if options.kd and not (teacher.guarantee and teacher.guarantee.holds):
            left = after(left, STEPS["distillation from a non-private teacher"])
        about = {"mitigation": [type(options).__qualname__, mitigation_settings(options)], "finetune": asdict(schedule)}
        about |= {"teacher": teacher.digest, "computes": teacher.computes, "start": weights_digest(one.model)}
        name = self._name("student", **about)

        def read(tensors: dict, notes: dict) -> Student:
            fate = _told({told: notes[told] for told in ("diverged", "finetuning")}, len(self.seeds))
            model = _filled(copy.deepcopy(one.model), tensors)
            tuned = replace(one, model=model, mitigation=None if options == Plain() else options, **fate)
            return Student(tuned, name, said=notes["said"], read=True)

        def train() -> tuple[Student, dict, dict]:
            how = {"seeds": self.seeds, "schedule": schedule, "mitigation": options, "progress": self.progress}
            try:
                tuned, said = finetune(one, teacher.model, self.data, **how), ""
            except TrainingDiverged as error:
                if plain or len(self.seeds) > 1:
                    raise
                tuned, said = replace(one, mitigation=options, diverged=(0,)), str(error)
            notes = {"diverged": tuned.diverged, "finetuning": tuned.finetuning, "said": said}
            return Student(tuned, name, said=said), tuned.model.state_dict(), notes

        found = self._stage("finetune", name, read, train, keep=self.keep)
        return replace(found, record=replace(found.record, guarantee=tuned_guarantee(left, options)))


def machine(device: str, count: int) -> dict[str, object]:
    """What decides how this machine rounds."""
    where = (count, torch.backends.cpu.get_cpu_capability()) if device == "cpu" else (0, "")
    return {"torch": torch.__version__} | dict(zip(("threads", "processor"), where, strict=True))


def settings_of(options: object) -> dict[str, object]:
    """Options of a method for the name of a result; a mitigation among them by its name and options."""
    found = asdict(options)
    if getattr(options, "mitigation", None) is not None:
        mitigation = resolve(options.mitigation)
        found["mitigation"] = [type(mitigation).__qualname__, mitigation_settings(mitigation)]
    return found


def mitigation_settings(options: object) -> dict[str, object]:
    """A mitigation's options for the name of a result; names from before there was `kd` stay as they were."""
    return {name: value for name, value in asdict(options).items() if (name, value) != ("kd", 1.0)}


def _told(notes: dict[str, object], members: int) -> dict[str, object]:
    """What a record says beside its network, as it was before it became JSON."""
    kinds = {"epochs": int, "steps": int, "configurations": str, "diverged": lambda one: one and int(one)}
    there = {name: value for name, value in notes.items() if name in kinds}
    found = {n: value if value is None else _listed(value, members, kinds[n]) for n, value in there.items()}
    return found | {"finetuning": [dict(row) for row in notes["finetuning"]]}


def _listed(values: list, length: int, kind: Callable[[object], object]) -> tuple:
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"has the note {values!r}, not a list of {length}")
    return tuple(map(kind, values))


def _filled(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    for name, value in model.state_dict().items():
        if name in tensors and (found := tensors[name]).dtype != value.dtype:
            raise ValueError(f"has {name} as {found.dtype}, not {value.dtype}")
        if name in tensors and not found.isfinite().all():
            raise ValueError(f"has weights in {name} that are not finite")
    model.load_state_dict(tensors)
    return model
