"""How each stage is trained, by network, data set and profile.

`paper` are the paper's settings (SGD 0.1 for 160 epochs, SNL as released, 100 epochs of fine-tuning). `fast` shortens
them for a GPU and trains in bf16 and TF32, channels last, with fused optimizers; `fast_float32` is `fast` in float32
(no TF32 either, like all other profiles; what is measured is float32 in all). Where one
may stand for another has to be shown (`linfair.study.equivalence`). `thin` is for the paper's data on a CPU: a network
of an eighth of the width, on which a seed takes an hour. `cpu` is for the same data in bf16 on a processor with AMX:
a quarter of the width by default, or more, on longer schedules. `small` is for bundled data
on a CPU: an MLP on shifted digits, or a thin ResNet. `quick` takes a thin network through real images in minutes, far
from converged. `smoke` is `small` cut to seconds; its numbers mean nothing.
"""

from dataclasses import dataclass, field, replace

from linfair.device import bf16_is_fast, device_name
from linfair.linearizers import LINEARIZERS, PAPER_FINETUNE, SNL, DeepReDuce
from linfair.models import NETWORKS
from linfair.training import Schedule

CURVATURE = ("none", "original", "all")
"""Networks whose top Hessian eigenvalues a study computes: none, the original ones, the linearized ones too."""


@dataclass(frozen=True)
class Recipe:
    """The training of one cell.

    Attributes:
        base: The teacher's training.
        finetune: Fine-tuning of every student.
        options: Options of methods that differ from the method's own settings.
        width: The network's width; None is the full network.
        init: How networks start, one of `linfair.models.INITS`.
        curvature: Whose Hessians are looked at: one of `CURVATURE`.
    """

    base: Schedule
    finetune: Schedule
    options: dict[str, object] = field(default_factory=dict)
    width: int | None = None
    init: str = "torch"
    curvature: str = "original"

    def method(self, name: str) -> object:
        """The options of a method."""
        return self.options.get(name) or LINEARIZERS[name].options()


_PAPER = Recipe(
    base=Schedule(
        epochs=160, batch_size=256, lr=0.1, momentum=0.9, weight_decay=5e-4, decay="step", milestones=(80, 120)
    ),
    finetune=PAPER_FINETUNE,
    options={"deepreduce": DeepReDuce(schedule=replace(DeepReDuce().schedule, batch_size=512, nesterov=True))},
    curvature="all",
)
_SMALL_MLP = Recipe(
    base=Schedule(epochs=400, optimizer="adamw", lr=3e-3),
    finetune=Schedule(epochs=100, optimizer="adamw", lr=1e-3, decay="cosine"),
    options={
        "snl": SNL(lasso=1e-3, schedule=Schedule(epochs=1000, optimizer="adam", lr=1e-3, alpha_lr=3e-3)),
        "deepreduce": DeepReDuce(schedule=Schedule(epochs=100, optimizer="adamw", lr=1e-3, decay="cosine")),
    },
)
_SMALL_CNN = Recipe(
    base=Schedule(epochs=60, lr=0.05, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=40, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    options={
        "snl": SNL(lasso=1e-4, growth=1.2, schedule=Schedule(epochs=1000, optimizer="adam", lr=1e-3, alpha_lr=5e-3)),
        "deepreduce": DeepReDuce(schedule=Schedule(epochs=40, lr=0.02, weight_decay=5e-4, decay="cosine")),
    },
    width=8,
)
STEPWISE = SNL(
    lasso=3e-5,
    growth=1.5,
    warmup=0,
    pace=0.3,
    check_every=1,
    schedule=Schedule(epochs=60, batch_size=128, optimizer="adam", lr=1e-3, alpha_lr=4e-3),
)
"""SNL through thin networks on real images: lambda starts so small that the units do not fall together, and grows with
the epochs; the count is checked after every step, so that each budget has its own point of the path."""
_QUICK_CNN = Recipe(
    base=Schedule(epochs=4, batch_size=128, lr=0.1, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=2, batch_size=128, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    options={
        "snl": replace(STEPWISE, growth=2.0, pace=0.4, schedule=replace(STEPWISE.schedule, alpha_lr=6e-3)),
        "deepreduce": DeepReDuce(schedule=Schedule(epochs=2, batch_size=128, lr=0.05, weight_decay=5e-4)),
    },
    width=8,
    curvature="none",  # a search costs about a hundred epochs
)
_SHORT = Recipe(
    base=replace(_PAPER.base, epochs=40, decay="cosine", milestones=()),
    finetune=replace(PAPER_FINETUNE, epochs=25),
    options={
        "snl": SNL(growth=1.4, schedule=replace(SNL().schedule, epochs=500, alpha_lr=4e-3)),
        "deepreduce": DeepReDuce(schedule=replace(DeepReDuce().schedule, epochs=40, batch_size=512, nesterov=True)),
    },
    curvature="all",
)
_THIN = Recipe(
    base=Schedule(epochs=15, batch_size=128, lr=0.1, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=5, batch_size=128, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    options={
        "snl": STEPWISE,
        "deepreduce": DeepReDuce(
            schedule=Schedule(epochs=5, batch_size=128, lr=0.05, weight_decay=5e-4, decay="cosine")
        ),
    },
    width=8,
)
_CPU = Recipe(
    base=Schedule(epochs=20, batch_size=128, lr=0.1, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=10, batch_size=128, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    options={
        "snl": STEPWISE,
        "deepreduce": DeepReDuce(
            schedule=Schedule(epochs=20, batch_size=128, lr=0.05, weight_decay=5e-4, decay="cosine", nesterov=True)
        ),
    },
    curvature="none",
)
"""Fine-tuning has a tenth of the paper's epochs: `lagrangian(mu=0.01)` takes the multipliers as far as its 0.001."""
PROFILES = ("smoke", "small", "quick", "paper")
STUDY_PROFILES = ("thin", "cpu", "fast", "fast_float32")
"""For studies only, of hours on a CPU or for a GPU; notebooks take the others."""


def in_every_stage(plan: Recipe, **changed: object) -> Recipe:
    """A recipe with some fields of `Schedule` changed in every stage.

    Args:
        plan: Any recipe.
        changed: The fields.
    """
    options = {
        name: replace(one, schedule=replace(one.schedule, **changed)) if hasattr(one, "schedule") else one
        for name, one in plan.options.items()
    }
    return replace(
        plan, base=replace(plan.base, **changed), finetune=replace(plan.finetune, **changed), options=options
    )


def in_precision(plan: Recipe, precision: str | None) -> Recipe:
    """A recipe whose trainings run in `float32` or `bf16`; None leaves it as it is."""
    return plan if precision is None else in_every_stage(plan, precision=precision)


def check_precision(profile: str, precision: str | None, device: str) -> None:
    """Refuse bf16 that a profile brings along, but the device computes no faster than float32.

    Raises:
        ValueError: Says what it would take.
    """
    if profile == "cpu" and precision is None and not bf16_is_fast(device):
        raise ValueError(
            f"profile cpu trains in bf16, for which {device_name(device)} has no hardware (AMX): a step would take "
            "longer than in float32. Add --precision float32, which takes longer than bf16 does with AMX; or "
            "--precision bf16 to compute slowly what such a processor computes"
        )


def recipe(network: str, profile: str) -> Recipe:
    """The recipe of a network under a profile.

    Raises:
        ValueError: For an unknown profile.
    """
    if profile not in (*PROFILES, *STUDY_PROFILES):
        raise ValueError(f"no profile {profile!r}; there are {', '.join((*PROFILES, *STUDY_PROFILES))}")
    if profile == "paper":
        return _PAPER
    if profile == "thin":
        return _THIN
    if profile == "cpu":
        plan = in_every_stage(_CPU, precision="bf16", channels_last=True, fused=True)
        return replace(plan, width=NETWORKS[network][2] // 4)
    if profile in STUDY_PROFILES:
        fast = profile == "fast"
        options = {"precision": "bf16" if fast else "float32", "tf32": fast, "channels_last": True, "fused": True}
        return in_every_stage(_SHORT, **options)
    if profile == "quick" and network != "mlp":
        return _QUICK_CNN
    small = _SMALL_MLP if network == "mlp" else _SMALL_CNN
    if profile in ("small", "quick"):
        return small
    snl, deepreduce = small.options["snl"], small.options["deepreduce"]
    hasty = replace(snl, growth=1.3, warmup=0, schedule=replace(snl.schedule, alpha_lr=6e-3))
    brief = replace(deepreduce, schedule=replace(deepreduce.schedule, epochs=2))
    return Recipe(
        base=replace(small.base, epochs=40 if network == "mlp" else 3),
        finetune=replace(small.finetune, epochs=5 if network == "mlp" else 2),
        options={"snl": hasty, "deepreduce": brief},
        width=small.width,
        curvature="original" if network == "mlp" else "none",
    )
