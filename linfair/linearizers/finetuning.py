"""Fine-tuning, shared by all methods, and the control arm every comparison carries."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from linfair.ensemble import Ensemble, member_of
from linfair.linearizers.record import LinearizedModel, record
from linfair.mitigation import Plain, resolve
from linfair.resume import weights_of, with_weights
from linfair.training import Data, Distill, Schedule, fit

PAPER_FINETUNE = Schedule(
    epochs=100, batch_size=128, optimizer="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4, decay="cosine"
)
"""SNL's fine-tuning as released: SGD 1e-3, cosine, 100 epochs."""
_MLP = Schedule(epochs=100, optimizer="adamw", lr=1e-3, decay="cosine")
_CNN = Schedule(epochs=40, lr=1e-2, weight_decay=5e-4, decay="cosine")
FINETUNE = {
    "smoke": replace(_CNN, epochs=2),
    "smoke, mlp": replace(_MLP, epochs=5),
    "small": _CNN,
    "small, mlp": _MLP,
    "quick": replace(_CNN, epochs=2),
    "quick, mlp": _MLP,
    "thin": replace(_CNN, epochs=5),
    "cpu": replace(_CNN, epochs=10),
    "fast": replace(PAPER_FINETUNE, epochs=25),
    "fast_float32": replace(PAPER_FINETUNE, epochs=25),
    "paper": PAPER_FINETUNE,
}
"""Fine-tuning under each profile, of convolutional networks and of MLPs. On profile `cpu` it has a tenth of the paper's
epochs: `lagrangian(mu=0.01)` takes the multipliers as far as the paper's 0.001."""


def under(profiles: Mapping[str, Any], profile: str, network: str = "") -> Any:
    """What a table has for a profile, or for one network under it; None if it has nothing.

    >>> under(FINETUNE, "small", "mlp").optimizer, under(FINETUNE, "small", "resnet18").optimizer
    ('adamw', 'sgd')
    """
    return profiles.get(f"{profile}, {network}", profiles.get(profile))


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
    """Fine-tune the weights of a linearized network on CE + KD (T = 4), its mask frozen.

    With a mitigation (name or options), the same schedule and batches, on that mitigation's objective. All budgets and
    arms of a seed see the same batches. A mitigated member of an ensemble that diverges is set back, named in the
    record's `diverged`, and the others go on.

    Returns:
        A record with the fine-tuned network, the rows of its fine-tuning and the mitigation's options.

    Raises:
        ValueError: If there is no such mitigation.
        TrainingDiverged: If a network on its own diverges (a loss or multiplier that is not finite, or too large).
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
    return replace(linearized, model=model, mitigation=None if plain else options, finetuning=rows, diverged=diverged)


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
    copied at the step at which each budget's mask was taken. What changes in it is training drift; what changes beyond
    it is linearization.

    Args:
        teacher: Trained network or ensemble.
        data: Its data.
        linearized: The method's records, in the order of their budgets.
        seeds: One for each member.
        schedule: The method's mask phase; None for a one-shot method, whose control is the teacher.
        objective: The method's objective; CE + KD (T = 4) by default.
        start: The network from which the method starts (see `Linearizer.start`); the teacher by default.
        progress: Show a progress bar.

    Returns:
        One record per budget, before fine-tuning.
    """
    source = data[0] if isinstance(teacher, Ensemble) else data
    reduction = linearized[0].reduction
    model = reduction.fixed(reduction.install(start or teacher, source.input_shape))
    single = not isinstance(model, Ensemble)
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
    found = []
    for number, (one, steps) in enumerate(zip(linearized, stops, strict=True)):
        networks = [copies.taken[number, member] for member in range(len(one.epochs))]
        about = {"single": single, "steps": steps, "reduction": reduction}
        found.append(record("control", one.budget, one.budget_units, networks, one.epochs, [], **about))
    return found


class _Copies:
    """Copies of a network, or of an ensemble's members, at the steps at which masks were taken."""

    def __init__(self, model: nn.Module, stops: Sequence[Sequence[int]]) -> None:
        self.model, self.stops = model, stops
        self.taken: dict[tuple[int, int], nn.Module] = {}

    def take(self, done: int) -> None:
        """Copy the members of which a mask was taken after so many steps."""
        for number, steps in enumerate(self.stops):
            for member, stop in enumerate(steps):
                if stop == done:
                    self.taken[number, member] = member_of(self.model, member)

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """What has to be kept for a training that goes on later."""
        networks = {f"{number}/{member}": network for (number, member), network in self.taken.items()}
        return weights_of(networks), {"taken": list(self.taken)}

    def restore(self, tensors: dict[str, Tensor], notes: dict[str, object]) -> None:
        """Take what was kept."""
        for number, member in notes["taken"]:
            self.taken[number, member] = with_weights(member_of(self.model, member), tensors, f"{number}/{member}")
