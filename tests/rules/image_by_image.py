"""Gradients written out, image by image: the oracle of private rules."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.models import build
from linfair.rules import train
from linfair.training import Batch, Schedule, supervised


def mlp(data: GroupedData, seed: int = 0, width: int = 8) -> nn.Module:
    """A small network of the data's precision."""
    network = build("mlp", data.input_shape, data.classes, width=width, seed=seed)
    return network.to(torch.promote_types(torch.float32, data.splits["train"].x.dtype))


def loss_on(model: nn.Module):
    """What `fit` hands to a rule."""
    return lambda batch, network=model: supervised(network, batch)


def batch_of(data: GroupedData, index: Tensor) -> Batch:
    """Training images at positions (n,)."""
    train = data.splits["train"]
    return Batch(data.normalise(train.x[index]), train.y[index], train.a[index], index, augmented=False)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def image_gradients(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """Gradient of each image's cross entropy, flat; x (n, shifts, ...) is averaged over the shifts of an image."""
    own = list(weights_of(model).values())
    losses = [F.cross_entropy(model(image), label.expand(len(image))) for image, label in zip(x, y, strict=True)]
    return [torch.cat([one.flatten() for one in torch.autograd.grad(loss, own)]) for loss in losses]


def shortened(gradient: Tensor, clip: float) -> Tensor:
    """A gradient of norm `clip` at most."""
    return gradient * min(1.0, clip / (gradient.norm().item() + 1e-6))


def flat(model: nn.Module) -> Tensor:
    """The gradients that lie in a network."""
    return torch.cat([one.grad.flatten() for one in weights_of(model).values()])


STEP = Schedule(epochs=1, batch_size=40, lr=0.5, momentum=0.0)


def fitted(model: nn.Module, data, options, schedule: Schedule = STEP, **how: object):
    seeds = how.pop("seeds", [3])
    return train(model, data, schedule, rule=options, seeds=seeds, progress=False, **how)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
