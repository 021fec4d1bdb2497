"""How each stage is trained, by network, data set and profile.

`paper` are the paper's settings (SGD 0.1 for 160 epochs, SNL as released, 100 epochs of fine-tuning). `small` is for
bundled data on a CPU: an MLP on shifted digits, or a thin ResNet. `smoke` is `small` cut to seconds; its numbers mean
nothing.
"""

from dataclasses import dataclass, replace

from linfair.linearizers.finetuning import PAPER_FINETUNE
from linfair.linearizers.snl import SNL
from linfair.training import Schedule


@dataclass(frozen=True)
class Recipe:
    """The training of one cell: teacher, mask phase, fine-tuning, and the network's width (None = full)."""

    base: Schedule
    snl: SNL
    finetune: Schedule
    width: int | None = None


_PAPER = Recipe(
    base=Schedule(
        epochs=160, batch_size=256, lr=0.1, momentum=0.9, weight_decay=5e-4, decay="step", milestones=(80, 120)
    ),
    snl=SNL(),
    finetune=PAPER_FINETUNE,
)
_SMALL_MLP = Recipe(
    base=Schedule(epochs=400, optimizer="adamw", lr=3e-3),
    snl=SNL(lasso=1e-3, schedule=Schedule(epochs=1000, optimizer="adam", lr=1e-3, alpha_lr=3e-3)),
    finetune=Schedule(epochs=100, optimizer="adamw", lr=1e-3, decay="cosine"),
)
_SMALL_CNN = Recipe(
    base=Schedule(epochs=60, lr=0.05, weight_decay=5e-4, decay="cosine"),
    snl=SNL(lasso=1e-4, growth=1.2, schedule=Schedule(epochs=1000, optimizer="adam", lr=1e-3, alpha_lr=5e-3)),
    finetune=Schedule(epochs=40, lr=1e-2, weight_decay=5e-4, decay="cosine"),
    width=8,
)
PROFILES = ("smoke", "small", "paper")


def recipe(network: str, profile: str) -> Recipe:
    """The recipe of a network under a profile.

    Raises:
        ValueError: For an unknown profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"no profile {profile!r}; there are {', '.join(PROFILES)}")
    if profile == "paper":
        return _PAPER
    small = _SMALL_MLP if network == "mlp" else _SMALL_CNN
    if profile == "small":
        return small
    hasty = replace(small.snl, growth=1.3, warmup=0, schedule=replace(small.snl.schedule, alpha_lr=6e-3))
    return Recipe(
        replace(small.base, epochs=40 if network == "mlp" else 3),
        hasty,
        replace(small.finetune, epochs=5 if network == "mlp" else 2),
        small.width,
    )
