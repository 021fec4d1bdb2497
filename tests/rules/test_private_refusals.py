"""What private rules refuse: networks, objectives and batches for which their guarantee would not hold."""

import copy
from dataclasses import replace

import pytest
import torch
from image_by_image import STEP, fitted, mlp
from torch import nn

from linfair.data import GroupedData
from linfair.mitigation import resolve
from linfair.rules import DPSGD
from linfair.training import Distill, fit


def convolutional(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4, track_running_stats=True)],
)
def test_batch_norm_is_refused_by_name_in_any_mode(norm: nn.Module, mode: str, images: GroupedData) -> None:
    model = convolutional(copy.deepcopy(norm))
    getattr(model, mode)()
    with pytest.raises(ValueError, match='dp_sgd.* 1 .*Norm2d.*norm="group"'):
        fitted(model, images, DPSGD(noise=1.0))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"objective": "lagrangian"}, "cross entropy"),
        ({"objective": "distill"}, "teacher"),
        ({"schedule": replace(STEP, precision="bf16")}, "bf16"),
        ({"schedule": replace(STEP, compile=True)}, "compile"),
        ({"schedule": replace(STEP, tf32=True)}, "tf32=False"),
        ({"batches": lambda groups, size, generator: [torch.arange(5)]}, "batches of its own"),
        ({"gradient": lambda model, loss, batch: None}, "gradient of its own"),
    ],
)
def test_what_would_not_be_private_is_refused_before_anything_is_trained(
    how: dict[str, object], said: str, images: GroupedData
) -> None:
    model, given = mlp(images), dict(how)
    if given.get("objective") == "lagrangian":
        given["objective"] = resolve("lagrangian").start(model, mlp(images), images)
    if given.get("objective") == "distill":
        given["objective"] = Distill(mlp(images), images)
    schedule = given.pop("schedule", STEP)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"dp_sgd.*{said}"):
        fitted(model, images, DPSGD(noise=1.0), schedule, **given)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.half])
def test_weights_that_round_beyond_the_clipping_norm_are_refused(kind: torch.dtype, images: GroupedData) -> None:
    """In bfloat16, of eight bits, an image's clipped gradient had a norm of 1.0046 at a clip of 1; float32 has 1e-7."""
    with pytest.raises(ValueError, match="dp_sgd.*clip.*float32"):
        fitted(mlp(images).to(kind), images, DPSGD(noise=1.0))


def test_other_batches_in_fit_itself_are_refused(images: GroupedData) -> None:
    """A rule that was started with Poisson batches, handed to `fit` without them."""
    model = mlp(images)
    started = DPSGD(noise=1.0).start(model, images, STEP, seeds=[3])
    with pytest.raises(ValueError, match="no others"):
        fit(model, images, schedule=STEP, seeds=[3], gradient=started.gradient, progress=False)
