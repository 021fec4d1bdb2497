"""Stages of named, foreign and stacked networks, against the literature's counts and sizes worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from linfair import gates
from linfair.ensemble import Ensemble
from linfair.gates import install
from linfair.linearizers.configurations import stage_units, stages
from linfair.models import build

IMAGE = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "sites", "units"),
    [
        ("resnet18", [4, 4, 4, 4], [262_144, 131_072, 65_536, 32_768]),
        ("resnet34", [6, 8, 12, 6], [393_216, 262_144, 196_608, 49_152]),
        # 16-128-256-512 channels, 3 blocks of two ReLUs; the first of a stage comes before its stride and widening
        (
            "wrn22_8",
            [6, 6, 6],
            [
                (16 + 5 * 128) * 1024,
                128 * 1024 + 5 * 256 * 256,
                256 * 256 + 5 * 512 * 64,
            ],
        ),
        # 64, 128, 256, 512, 512 channels at 32, 16, 8, 4, 2 pixels; 2, 2, 4, 4, 4 convolutions
        ("vgg19", [2, 2, 4, 4, 4], [2 * 65_536, 2 * 32_768, 4 * 16_384, 4 * 8_192, 4 * 2_048]),
        ("mlp", [1, 1], [64, 64]),
    ],
)
def test_full_networks_have_the_sites_and_units_worked_out_by_hand(
    name: str, sites: list[int], units: list[int]
) -> None:
    gated = install(build(name, IMAGE, 10), IMAGE)
    assert [len(stage) for stage in stages(gated)] == sites
    assert stage_units(gated) == units
    assert sum(units) == gates.total_units(gated)


def test_stages_are_the_sites_in_order_each_once() -> None:
    gated = install(build("resnet34", (1, 8, 8), 3, width=2), (1, 8, 8))
    assert [site for stage in stages(gated) for site in stage] == list(gates.sites(gated))
    for number, stage in enumerate(stages(gated)):
        assert all(site.startswith(f"stages.{number}.") for site in stage)


def test_members_of_an_ensemble_have_the_stages_of_one_network() -> None:
    gated = [install(build("resnet18", (1, 8, 8), 3, width=2, seed=seed), (1, 8, 8)) for seed in (0, 1)]
    assert stages(Ensemble(gated)) == stages(gated[0])
    assert stage_units(Ensemble(gated)) == stage_units(gated[0])


class Foreign(nn.Module):
    """Runs of ReLUs at 8x8, 4x4, 8x8 again (channels differ), and two on features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 5, 3, padding=1)
        self.down, self.up = nn.Conv2d(5, 3, 3, 2, padding=1), nn.Upsample(scale_factor=2)
        self.relu = nn.ModuleList(nn.ReLU() for _ in range(6))
        self.one, self.two, self.head = nn.Linear(3 * 64, 7), nn.Linear(7, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        x = self.relu[1](self.b(self.relu[0](self.a(x))))
        x = self.relu[3](self.up(self.relu[2](self.down(x))))
        return self.head(self.relu[5](self.two(self.relu[4](self.one(x.flatten(1))))))


def test_another_networks_stages_are_runs_of_one_image_size_and_single_feature_layers() -> None:
    """Also in an ensemble, whose sites have one axis more."""
    gated = install(Foreign(), (1, 8, 8))
    expected = [["relu.0", "relu.1"], ["relu.2"], ["relu.3"], ["relu.4"], ["relu.5"]]
    units = [(2 + 5) * 64, 3 * 16, 3 * 64, 7, 7]
    for model in (gated, Ensemble([gated, gated])):
        assert stages(model) == expected
        assert stage_units(model) == units


class Numbered(nn.Module):
    """Stages 1 and 2 have ReLUs, stage 0 has none; the site on features comes third, as number 2."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Sequential(nn.Conv2d(1, 1, 1)) for _ in range(3)]
        self.stages = nn.Sequential(convolutions[0], *(one.append(nn.ReLU()) for one in convolutions[1:]))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        return self.head(self.stages(x))


def test_a_named_stage_ends_before_a_feature_layer_of_its_number() -> None:
    gated = install(Numbered(), (1, 2, 2))
    assert stages(gated) == [["stages.1.1"], ["stages.2.1"], ["head.2"]]
    assert stage_units(gated) == [4, 4, 3]


def test_feature_layers_of_one_width_are_stages_of_their_own() -> None:
    gated = install(build("mlp", (4,), 2, width=6), (4,))
    assert stages(gated) == [["2"], ["4"]]
    assert stages(Ensemble([gated] * 3)) == [["2"], ["4"]]
    assert torch.equal(torch.tensor(stage_units(gated)), torch.tensor([6, 6]))
