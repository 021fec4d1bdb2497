"""What all methods share: where a student starts, fine-tuning, and the control arm every comparison carries."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from linfair.ensemble import Ensemble, member_of
from linfair.ledger import STEPS, UNDESCRIBED, Guarantee, after
from linfair.linearizers.record import LinearizedModel, record
from linfair.mitigation import Plain, resolve
from linfair.resume import weights_of, with_weights
from linfair.training import Data, Distill, Schedule, fit, seed_of

PAPER_FINETUNE = Schedule(epochs=100, lr=1e-3, momentum=0.9, weight_decay=5e-4, decay="cosine")
"""SNL's fine-tuning as released: SGD 1e-3, cosine, 100 epochs."""
_MLP = Schedule(epochs=100, optimizer="adamw", lr=1e-3, decay="cosine")
_CNN = Schedule(epochs=40, lr=1e-2, weight_decay=5e-4, decay="cosine")
FINETUNE = {
    "smoke": replace(_CNN, epochs=2),
    "smoke, mlp": replace(_MLP, epochs=5),
    "small": _CNN,
    "small, mlp": _MLP,
    "quick": replace(_CNN, epochs=2),
    "thin": replace(_CNN, epochs=5),
    "cpu": replace(_CNN, epochs=10),
    "fast": replace(PAPER_FINETUNE, epochs=25),
    "paper": PAPER_FINETUNE,
}
"""Fine-tuning under each profile. On `cpu` it has a tenth of the paper's epochs: `lagrangian(mu=0.01)` takes the
multipliers as far as the paper's 0.001."""
_SAME = {"fast_float32": "fast", "quick, mlp": "small, mlp"}  # where a table has nothing for these


def under(profiles: Mapping[str, Any], profile: str, network: str = "") -> Any:
    """What a table has for a profile, or for one network under it; None if it has nothing."""
    names = [one for name in (f"{profile}, {network}", profile) for one in (name, _SAME.get(name))]
    return next((profiles[name] for name in names if name in profiles), None)


def finetune(
    linearized: LinearizedModel,
    teacher: nn.Module,
    data: Data,
    *,
    seeds: Sequence[int],
    schedule: Schedule = PAPER_FINETUNE,
    mitigation: str | object | None = None,
    progress: bool = True,
) -> LinearizedModel:
    """Fine-tune the weights of a linearized network on CE + KD (T = 4), its mask frozen; `Plain(kd=0)` is CE alone.

    Data sets and `seeds` are one for each member; all budgets and arms of a seed see the same batches. A mitigation
    (name or options of one of `MITIGATIONS`) changes the objective alone. A mitigated member of an ensemble that
    diverges is set back and named in the record's `diverged`; a privacy guarantee ends. A ValueError refuses an unknown
    mitigation, `TrainingDiverged` says that a network on its own diverged (a loss or multiplier not finite, or too
    large).
    """
    options = resolve(mitigation)
    model = linearized.reduction.fixed(copy.deepcopy(linearized.model))
    label = f"{linearized.method}: fine-tuning at {100 * linearized.budget:g} %"
    plain = isinstance(options, Plain)
    objective = options.start(model, teacher, data)
    how = {"seeds": seeds, "stage": "finetune", "label": label if plain else f"{label}, {options.name}"}
    history = fit(model, data, objective, schedule, isolate=not plain, progress=progress, **how, **objective.hooks)
    rows = objective.logged(history)
    diverged = tuple(rows[-1].get("diverged", [None] * len(linearized.masks)))
    about = {"mitigation": None if options == Plain() else options, "finetuning": rows, "diverged": diverged}
    return replace(linearized, model=model, guarantee=tuned_guarantee(linearized.guarantee, options), **about)


def tuned_guarantee(guarantee: Guarantee | None, mitigation: object) -> Guarantee | None:
    """What fine-tuning under a mitigation leaves of a privacy guarantee."""
    return after(after(guarantee, getattr(mitigation, "privacy", UNDESCRIBED)), STEPS["fine-tuning"])


def control(
    teacher: nn.Module,
    data: Data,
    linearized: Sequence[LinearizedModel],
    *,
    seeds: Sequence[int],
    schedule: Schedule | None,
    objective: Distill | None = None,
    start: nn.Module | None = None,
    progress: bool = True,
) -> list[LinearizedModel]:
    """The 100 % control: one network, all its ReLUs kept, that trains exactly as the linearized ones do.

    It follows the method's mask phase (same epochs, batches, optimizer and distillation, alphas frozen at 1) and is
    copied at the step at which each budget's mask was taken: a record for each, before fine-tuning. What changes in it
    is training drift; what changes beyond it is linearization. Without a schedule, as after a one-shot method, it is
    the teacher.
    """
    source = data[0] if isinstance(teacher, Ensemble) else data
    reduction = linearized[0].reduction
    model = reduction.fixed(reduction.install(start or teacher, source.input_shape))
    each = schedule.steps(len(source.splits["train"])) if schedule else 0
    stops = [one.steps or tuple(each * epoch for epoch in one.epochs) for one in linearized]
    copies = _Copies(model, stops)
    epochs = max(stop for one in linearized for stop in one.epochs)
    if epochs > (schedule.epochs if schedule else 0):
        raise ValueError(f"a mask was taken after {epochs} epochs: pass the method's own schedule, not {schedule}")
    copies.take(0)
    if epochs:
        hooks = {"after_epoch": lambda epoch: epoch + 1 >= epochs, "after_step": copies.take, "parts": (copies,)}
        how = {"seeds": seeds, "stage": "masks", "label": "control", "progress": progress}
        fit(model, data, objective or Distill(teacher, data), schedule, **how, **hooks)
    found, about = [], {"single": not isinstance(model, Ensemble), "reduction": reduction}
    for number, (one, steps) in enumerate(zip(linearized, stops, strict=True)):
        networks = [copies.taken[number, member] for member in range(len(one.epochs))]
        found.append(record("control", one.budget, one.budget_units, networks, one.epochs, [], steps=steps, **about))
    return found


class _Copies:
    """Copies of a network, or of an ensemble's members, at the steps at which masks were taken."""

    def __init__(self, model: nn.Module, stops: Sequence[Sequence[int]]) -> None:
        self.model, self.stops = model, stops
        self.taken: dict[tuple[int, int], nn.Module] = {}

    def take(self, done: int) -> None:
        for number, steps in enumerate(self.stops):
            for member in (member for member, stop in enumerate(steps) if stop == done):
                self.taken[number, member] = member_of(self.model, member)

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        networks = {f"{number}/{member}": network for (number, member), network in self.taken.items()}
        return weights_of(networks), {"taken": list(self.taken)}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        for number, member in notes["taken"]:
            self.taken[number, member] = with_weights(member_of(self.model, member), tensors, f"{number}/{member}")


STARTS = ("teacher", "fresh")


def starting(teacher: nn.Module, start: str, seeds: Sequence[int]) -> nn.Module:
    """A copy of a teacher (or ensemble) from which its students are trained, its weights those of the start.

    A member's fresh weights depend on its seed alone and are not those from which its teacher started.
    """
    if start == "teacher":
        return copy.deepcopy(teacher)
    if isinstance(teacher, Ensemble):
        return Ensemble([fresh(network, seed) for network, seed in zip(teacher.networks(), seeds, strict=True)])
    return fresh(teacher, seeds[0])


def fresh(network: nn.Module, seed: int) -> nn.Module:
    """A copy with fresh weights, as torch draws them for each layer, leaving the global random state alone.

    >>> layer = nn.Linear(1, 1)
    >>> fresh(layer, 0).weight == fresh(layer, 0).weight, fresh(layer, 0).weight == layer.weight
    (tensor([[True]]), tensor([[False]]))
    """
    place = next(network.parameters(), torch.empty(0)).device
    drawn = copy.deepcopy(network).cpu()  # the same weights on every device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(f"{seed}/student"))
        for name, module in drawn.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif list(module.parameters(recurse=False)):
                text = f"module {name or type(module).__name__!r} holds weights and has no reset_parameters(), which a "
                raise ValueError(f"{text}fresh start needs; give it that method, or use start='teacher'")
    return drawn.to(place)
