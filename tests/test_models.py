"""Networks against the counts in the literature and their seeds."""

import random

import numpy as np
import pytest
import torch

from linfair import gates
from linfair.models import NETWORKS, build

IMAGE = (3, 32, 32)


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "units", "stages", "weights"),
    [
        ("resnet18", 491_520, [262_144, 131_072, 65_536, 32_768], 11_173_962),
        ("resnet34", 901_120, [393_216, 262_144, 196_608, 49_152], 21_282_122),
    ],
)
def test_resnets_have_the_papers_relu_units_and_the_known_parameter_counts(
    name: str, units: int, stages: list[int], weights: int
) -> None:
    """Units: SNL's and DeepReDuce's tables, no ReLU after the stem. Parameters: the CIFAR ResNets with 10 classes."""
    network = build(name, IMAGE, 10)
    assert parameters(network) == weights
    gated = gates.install(network, IMAGE)
    assert gates.total_units(gated) == gates.kept_units(gated).item() == units == sum(stages)
    found = [0] * 4
    for site, gate in gates.sites(gated).items():
        _, stage, *_ = site.split(".")
        found[int(stage)] += gate.alpha.numel()
    assert found == stages


@pytest.mark.parametrize("width", [2, 8])
def test_a_thin_resnet_has_units_in_proportion_to_its_width(width: int) -> None:
    gated = gates.install(build("resnet18", IMAGE, 10, width=width), IMAGE)
    assert gates.total_units(gated) == 491_520 * width // 64


@pytest.mark.parametrize(("inputs", "classes", "width"), [((2,), 2, 16), ((1, 12, 12), 10, 64), ((3, 4, 5), 3, 1)])
def test_mlp_has_the_parameters_of_three_matrices(inputs: tuple[int, ...], classes: int, width: int) -> None:
    n = int(np.prod(inputs))
    network = build("mlp", inputs, classes, width=width)
    assert parameters(network) == (n + 1) * width + (width + 1) * width + (width + 1) * classes
    assert gates.total_units(gates.install(network, inputs)) == 2 * width


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("inputs", [(1, 12, 12), (3, 16, 24)])
def test_any_input_size_and_number_of_classes_gives_logits(name: str, inputs: tuple[int, ...]) -> None:
    network = build(name, inputs, 7, width=2).eval()
    logits = network(torch.randn(4, *inputs))
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seed_alone_decides_the_weights_and_global_generators_are_left_alone(name: str) -> None:
    def state(seed: int) -> list[bytes]:
        return [value.numpy().tobytes() for value in build(name, IMAGE, 10, width=2, seed=seed).state_dict().values()]

    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    first = state(5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before[1:]  # noqa: NPY002
    torch.manual_seed(2)
    assert state(5) == first
    assert state(6) != first


def test_wrong_requests_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="no network 'resnet'; there are mlp, resnet18, resnet34"):
        build("resnet", IMAGE, 10)
    with pytest.raises(ValueError, match=r"images .* got inputs of shape \(2,\)"):
        build("resnet18", (2,), 10)
    with pytest.raises(ValueError, match="classes=1"):
        build("mlp", (2,), 1)
    with pytest.raises(ValueError, match="width=0"):
        build("mlp", (2,), 2, width=0)
