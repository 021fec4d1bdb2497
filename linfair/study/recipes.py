"""How each stage is trained, by network, data set and profile.

`paper` are the paper's settings (SGD 0.1 for 160 epochs, SNL as released, 100 epochs of fine-tuning), `fast` those of a
GPU in bf16 and TF32, `fast_float32` the same in float32. On a CPU, `thin` and `cpu` (bf16, where that is fast) take the
paper's data to narrow networks, `small` takes bundled data; `quick` is far from converged, and `smoke` means nothing.
"""

from dataclasses import dataclass, field, replace

from linfair.device import bf16_is_fast, device_name
from linfair.linearizers import FINETUNE
from linfair.linearizers.finetuning import under
from linfair.linearizers.registry import find, methods
from linfair.models import NETWORKS
from linfair.names import unknown
from linfair.schedule import SMALL, Schedule

CURVATURE = ("none", "original", "all")
"""Networks whose top Hessian eigenvalues a study computes: none, the original ones, the linearized ones too."""


@dataclass(frozen=True)
class Recipe:
    """The training of one cell."""

    base: Schedule  #: The teacher's training
    finetune: Schedule  #: Fine-tuning of every student
    options: dict[str, object] = field(default_factory=dict)  #: Options of each method
    width: int | None = None  #: The network's width; None is the full network
    init: str = "torch"  #: How networks start, one of `linfair.models.INITS`
    private: Schedule | None = None  #: The teacher's training under a rule of `linfair.rules`, whichever it is
    curvature: str = "original"  #: Whose Hessians are looked at, one of `CURVATURE`

    def method(self, name: str) -> object:
        """The options of a method."""
        return self.options[find(name).name]


_PAPER = Schedule(epochs=160, batch_size=256, lr=0.1, weight_decay=5e-4, decay="step", milestones=(80, 120))
_SHORT = replace(_PAPER, epochs=40, decay="cosine", milestones=())
_CNN = Schedule(epochs=60, lr=0.05, weight_decay=5e-4, decay="cosine")
_THIN = replace(_CNN, lr=0.1)
_BASE = {
    "smoke": replace(_CNN, epochs=3),
    "smoke, mlp": replace(SMALL, epochs=40),
    "small": _CNN,
    "small, mlp": SMALL,
    "quick": replace(_THIN, epochs=4),
    "thin": replace(_THIN, epochs=15),
    "cpu": replace(_THIN, epochs=20),
    "fast": _SHORT,
    "paper": _PAPER,
}
# Under every rule of a comparison, `sgd` included, so that rules differ by the rule alone. A private batch holds each
# image with probability batch_size / n. Those of digits were chosen on validation images of seeds 100 to 102, which no
# row has; `paper` is De et al.'s (2022) for (8, 1e-5): 208 epochs of 12 steps are 2,496 of their 2,500.
_PRIVATE_BASE = Schedule(epochs=40, batch_size=128, lr=0.05)
_PRIVATE = {
    "smoke": replace(_PRIVATE_BASE, epochs=2),
    "small": _PRIVATE_BASE,
    "thin": replace(_PRIVATE_BASE, epochs=20, batch_size=512),
    "paper": replace(_PRIVATE_BASE, epochs=208, batch_size=4096, lr=2.0, momentum=0.0),
}
_WIDTH = {"smoke": 8, "small": 8, "quick": 8, "thin": 8, "smoke, mlp": None, "small, mlp": None}
_WIDTH |= dict.fromkeys([f"{profile}, cnn" for profile in ("smoke", "small", "quick", "thin")])  # thin already
_CURVATURE = {"paper": "all", "fast": "all", "cpu": "none"}
_CURVATURE |= {"smoke": "none", "smoke, mlp": "original", "quick": "none", "quick, mlp": "original"}
PROFILES = ("smoke", "small", "quick", "thin", "cpu", "fast", "fast_float32", "paper")
"""All profiles; `figures/profiles.toml` says which a study takes and how large it is."""


def in_every_stage(plan: Recipe, **changed: object) -> Recipe:
    """A recipe with some fields of `Schedule` changed in every stage."""
    options = dict(plan.options)
    for name, one in options.items():
        if hasattr(one, "schedule"):
            options[name] = replace(one, schedule=replace(one.schedule, **changed))
    stages = {name: replace(getattr(plan, name), **changed) for name in ("base", "finetune", "private")}
    return replace(plan, options=options, **stages)


def check_precision(profile: str, precision: str | None, device: str) -> None:
    """Refuse bf16 that a profile brings along, but the device computes no faster than float32."""
    if profile == "cpu" and precision is None and not bf16_is_fast(device):
        text = f"profile cpu trains in bf16, and {device_name(device)} has no hardware for it (AMX or AVX-512 BF16), "
        text += "so that it would be slow. Add --precision float32, or --precision bf16 to compute in it nevertheless"
        raise ValueError(text)


def recipe(network: str, profile: str) -> Recipe:
    """The recipe of a network under a profile."""
    if profile not in PROFILES:
        raise ValueError(unknown("no profile", profile, PROFILES))
    base, tuned, width, curvature = (under(one, profile, network) for one in (_BASE, FINETUNE, _WIDTH, _CURVATURE))
    options = {name: one.settings(profile, network) for name, one in methods().items()}
    private = under(_PRIVATE, profile, network) or _PRIVATE["paper" if "fast" in profile else "thin"]
    plan = Recipe(base, tuned, options, width, private=private, curvature=curvature or "original")
    fast = {"channels_last": True, "fused": True}
    if profile == "cpu":
        width = None if network == "cnn" else NETWORKS[network][2] // 4
        return replace(in_every_stage(plan, precision="bf16", **fast), width=width)
    if profile == "fast":
        return in_every_stage(plan, precision="bf16", tf32=True, **fast)
    return in_every_stage(plan, **fast) if profile == "fast_float32" else plan
