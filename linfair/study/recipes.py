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
from linfair.linearizers import LINEARIZERS, PAPER_FINETUNE, SMALL_FINETUNE
from linfair.linearizers.registry import find
from linfair.models import NETWORKS
from linfair.schedule import SMALL, Schedule

CURVATURE = ("none", "original", "all")
"""Networks whose top Hessian eigenvalues a study computes: none, the original ones, the linearized ones too."""


@dataclass(frozen=True)
class Recipe:
    """The training of one cell.

    Attributes:
        base: The teacher's training.
        finetune: Fine-tuning of every student.
        options: Options of each method.
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
        return self.options[find(name).name]


_PAPER = Recipe(
    base=Schedule(
        epochs=160, batch_size=256, lr=0.1, momentum=0.9, weight_decay=5e-4, decay="step", milestones=(80, 120)
    ),
    finetune=PAPER_FINETUNE,
    curvature="all",
)
_SMALL_MLP = Recipe(base=SMALL, finetune=SMALL_FINETUNE)
_SMALL_CNN = Recipe(
    base=Schedule(epochs=60, lr=0.05, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=40, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    width=8,
)
_QUICK_CNN = Recipe(
    base=Schedule(epochs=4, batch_size=128, lr=0.1, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=2, batch_size=128, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    width=8,
    curvature="none",  # a search costs about a hundred epochs
)
_SHORT = Recipe(
    base=replace(_PAPER.base, epochs=40, decay="cosine", milestones=()),
    finetune=replace(PAPER_FINETUNE, epochs=25),
    curvature="all",
)
_THIN = Recipe(
    base=Schedule(epochs=15, batch_size=128, lr=0.1, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=5, batch_size=128, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    width=8,
)
_CPU = Recipe(
    base=Schedule(epochs=20, batch_size=128, lr=0.1, weight_decay=5e-4, decay="cosine"),
    finetune=Schedule(epochs=10, batch_size=128, lr=1e-2, weight_decay=5e-4, decay="cosine"),
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
    plan = replace(
        _stages(network, profile), options={n: one.settings(profile, network) for n, one in LINEARIZERS.items()}
    )
    if profile == "cpu":
        plan = in_every_stage(plan, precision="bf16", channels_last=True, fused=True)
        return replace(plan, width=NETWORKS[network][2] // 4)
    if profile in ("fast", "fast_float32"):
        fast = profile == "fast"
        options = {"precision": "bf16" if fast else "float32", "tf32": fast, "channels_last": True, "fused": True}
        return in_every_stage(plan, **options)
    return plan


def _stages(network: str, profile: str) -> Recipe:
    """Training and fine-tuning; what a method does in between, its options say for each profile."""
    known = {"paper": _PAPER, "thin": _THIN, "cpu": _CPU, "fast": _SHORT, "fast_float32": _SHORT}
    if profile in known:
        return known[profile]
    if profile == "quick" and network != "mlp":
        return _QUICK_CNN
    small = _SMALL_MLP if network == "mlp" else _SMALL_CNN
    if profile in ("small", "quick"):
        return small
    base, tuned = (40, 5) if network == "mlp" else (3, 2)
    return replace(
        small,
        base=replace(small.base, epochs=base),
        finetune=replace(small.finetune, epochs=tuned),
        curvature="original" if network == "mlp" else "none",
    )
