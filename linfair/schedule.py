"""How a stage is trained: epochs, batches, optimizer, rates, precision; and the rule that computes its gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from linfair.device import has_amx

_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_KNOWN = {"precision": ("float32", "bf16"), "optimizer": _OPTIMIZERS, "decay": ("constant", "cosine", "step")}


@dataclass(frozen=True)
class Schedule:
    """How a stage is trained."""

    epochs: int  #: Passes over the training split
    batch_size: int | None = 128  #: Images of a batch, batches differ by one at most; None is the whole split
    optimizer: str = "sgd"  #: `sgd`, `adam` or `adamw`
    lr: float = 0.1  #: Learning rate of the weights
    momentum: float = 0.9  #: For `sgd`
    nesterov: bool = False  #: Nesterov's form of momentum
    weight_decay: float = 0.0  #: Of the weights; alphas have none
    decay: str = "constant"  #: `constant`, `cosine` (to 0 over the epochs) or `step`
    milestones: tuple[int, ...] = ()  #: Epochs at which `step` multiplies the rate by `gamma`
    gamma: float = 0.1
    alpha_lr: float | None = None  #: Learning rate of the alphas, where they are trained; None is `lr`
    augment: bool = True  #: Shift images at random where the data set says so
    compile: bool = False  #: Run the network through torch.compile; losses differ by rounding only
    precision: str = "float32"  #: Or `bf16`: networks, the teacher's too, train under autocast, losses stay float32
    tf32: bool = False  #: On a GPU, let products of float32 numbers run in TF32, ten bits of mantissa
    channels_last: bool = False  #: Train one network in channels-last memory, where that is sound (see below)
    fused: bool = False  #: The optimizer's fused form; rounding may differ

    def __post_init__(self) -> None:
        for name, known in _KNOWN.items():
            if (given := getattr(self, name)) not in known:
                raise ValueError(f"no {name} {given!r}; there are {', '.join(known)}")
        for name in ("epochs", "batch_size"):
            if (given := getattr(self, name)) is not None and given < 1:
                whole = "; None is the whole split" * (name == "batch_size")
                raise ValueError(f"{name} must be at least 1, got {given}{whole}")
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum > 0):
            got = f"{self.optimizer!r} and {self.momentum}"
            raise ValueError(f"nesterov=True needs optimizer='sgd' and momentum > 0, got {got}")

    def sound_channels_last(self, device: str) -> bool:
        """Whether channels-last memory is sound: on CPUs without AMX torch 2.13 writes beyond the end of an array."""
        return device != "cpu" or (self.precision == "bf16" and has_amx())

    def steps(self, n: int) -> int:
        """Steps of one epoch over n inputs."""
        return math.ceil(n / (self.batch_size or n))

    def rate(self, epoch: int) -> float:
        """Factor on the learning rates in an epoch (counted from 0)."""
        if self.decay == "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.gamma ** sum(epoch >= milestone for milestone in self.milestones) if self.decay == "step" else 1.0

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over what is trainable, the alphas in a group of their own."""
        alphas, weights = [], []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                (alphas if name.rpartition(".")[2] == "alpha" else weights).append(parameter)
        alpha_lr = self.lr if self.alpha_lr is None else self.alpha_lr
        own = {"params": weights, "lr": self.lr, "weight_decay": self.weight_decay}
        groups = [one for one in (own, {"params": alphas, "lr": alpha_lr, "weight_decay": 0.0}) if one["params"]]
        options = {"fused": self.fused or None}  # None leaves the choice to torch, False would not
        if self.optimizer == "sgd":
            options |= {"momentum": self.momentum, "nesterov": self.nesterov}
        return _OPTIMIZERS[self.optimizer](groups, **options)


SMALL = Schedule(epochs=400, optimizer="adamw", lr=3e-3)  #: What an MLP on bundled data takes seconds for, on a CPU

Loss = Callable[..., Tensor]
Gradient = Callable[[nn.Module, Loss, object], Tensor]
"""Network, `loss`, batch -> the batch's loss, one number for each member; gradients lie in the parameters' `grad`.
`loss(batch)` is the objective on that batch or any other, `loss(batch, network)` with a form of that network."""


def plain(model: nn.Module, loss: Loss, batch: object) -> Tensor:
    """Backpropagation of the batch's loss."""
    values = loss(batch)
    model.zero_grad(set_to_none=True)
    values.sum().backward()
    return values.detach()
