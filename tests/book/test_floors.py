"""Floors against counts by hand, against torch's own layers, and against what a run really visits."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from linfair_book.floors import (
    H200,
    SHAPE,
    Machine,
    Work,
    ceilings,
    cell_floors,
    configurations,
    grid_floors,
    image_cost,
    paper_cost,
    stage_table,
    training_work,
)
from torch import nn

from linfair.data import load_data
from linfair.linearizers import PAPER_CONFIGURATIONS, DeepReDuce, deepreduce
from linfair.models import build
from linfair.study import recipe
from linfair.training import Schedule, fit, supervised

ONE = Machine("one of each a second", 1.0, 1.0, "made up")
SIZES = {"cifar10": 22_500, "svhn": 7_465, "utkface_age": 16_260, "utkface_race": 17_067}


def test_resnet18_costs_0_556_gmac_forward_and_3_33_gflop_a_training_image() -> None:
    """By hand, layer by layer: three passes, but no gradient with respect to the image in the stem."""
    cost = image_cost(build("resnet18", SHAPE, 10), SHAPE)
    assert paper_cost("resnet18") == cost  # on meta tensors
    stem = 64 * 3 * 9 * 32 * 32
    same = 9 * 64 * 64 * 32 * 32  # every 3x3 convolution within a stage; the first of stages 2 to 4 is half of it
    shortcuts = 3 * 64 * 128 * 16 * 16
    forward = stem + 13 * same + 3 * same // 2 + shortcuts + 512 * 10
    assert cost.forward_macs == forward == 555_422_720
    assert cost.training_macs == 3 * forward - stem
    assert round(2 * cost.training_macs / 1e9, 2) == 3.33


def test_a_small_cnn_moves_what_a_hand_count_says() -> None:
    """8x8 images, 3 -> 4 channels: conv (192 in, 256 out), batch norm and ReLU (256, 256), linear (256, 10)."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cost = image_cost(network, (3, 8, 8))
    convolution, linear = 4 * 3 * 9 * 64, 256 * 10
    assert cost.forward_macs == convolution + linear
    assert cost.training_macs == 2 * convolution + 3 * linear
    inputs, outputs = 192 + 256 + 256 + 256, 256 + 256 + 256 + 10
    assert cost.forward_elements == inputs + outputs
    assert cost.training_elements == 3 * inputs + 2 * outputs
    assert cost.weights == 108 + 8 + 2570
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_work_of_a_stage_by_hand() -> None:
    """10 images in batches of 4 are 3 steps an epoch, of two; weights move 8 times a step, bf16 halves the rest."""
    cost = image_cost(nn.Linear(3, 2), (3,))
    plain = Schedule(epochs=2, batch_size=4)
    weights = 6 * 8 * 4 * 8
    assert training_work(cost, plain, 10, teacher="none") == Work(20, 2 * 20 * 12, 4 * 20 * 13 + weights)
    cached = training_work(cost, plain, 10, teacher="cached")
    assert cached == Work(20, 2 * (20 * 12 + 10 * 6), 4 * (20 * 13 + 10 * 5) + weights)
    every = training_work(cost, plain, 10, teacher="every step")
    assert every == Work(20, 2 * (20 * 12 + 20 * 6), 4 * (20 * 13 + 20 * 5) + weights)
    half = training_work(cost, replace(plain, precision="bf16"), 10, teacher="none")
    assert half.bytes - weights == (4 * 20 * 13) / 2
    adam = training_work(cost, replace(plain, optimizer="adam"), 10, teacher="none")
    assert adam.bytes - 4 * 20 * 13 == weights * 10 / 8


def test_unknown_ways_to_ask_the_teacher_are_refused() -> None:
    with pytest.raises(ValueError, match="must be none, cached or every step, got 'sometimes'"):
        training_work(image_cost(nn.Linear(3, 2), (3,)), Schedule(epochs=1), 10, teacher="sometimes")


def test_the_papers_cell_takes_157_pflop_and_199_seconds_on_an_h200_by_operations() -> None:
    """Oracle: 47.1 million images, (160 + 2 * 300 + 4 * 5 * 100) epochs of 17,067, of 3.33 GFLOP each."""
    stages = cell_floors(paper_cost("resnet18"), recipe("resnet18", "paper"), images=17_067)
    table = stage_table(stages, H200).set_index("stage")
    assert table.loc["all", "images"] == (160 + 2 * 300 + 4 * 5 * 100) * 17_067
    images = table.loc["all", "images"]
    assert table.loc["all", "operations"] == pytest.approx(images * 3.329e9 + 22 * 17_067 * 1.111e9, rel=1e-3)
    assert table.loc["all", "by_operations"] == pytest.approx(table.loc["all", "operations"] / 790e12)
    assert round(table.loc["all", "by_operations"]) == 199
    assert list(table["floor"]) == list(table[["by_operations", "by_bytes"]].max(axis=1))
    assert table.loc[["base", "path", "control", "finetune"], "by_bytes"].sum() == pytest.approx(
        table.loc["all", "by_bytes"]
    )


def test_methods_arms_and_budgets_enter_the_stages() -> None:
    cost, plan = paper_cost("resnet18"), recipe("resnet18", "paper")
    stages = cell_floors(cost, plan, images=100, method="random", budgets=3, arms=("original", "plain"))
    assert stages["path"] == stages["control"] == Work()
    assert stages["finetune"].images == 3 * plan.finetune.epochs * 100
    fixed = {"configurations": PAPER_CONFIGURATIONS, "finetuning": False}
    mitigated = {"method": "deepreduce", "arms": ("original", "plain", "lagrangian"), "budgets": 8}
    whole = cell_floors(cost, plan, images=100, options=fixed, **mitigated)
    assert (whole["path"].images, whole["finetune"]) == (2 * 8 * 200 * 100, Work()), (
        "the mitigated arm trains them anew"
    )
    searched = cell_floors(cost, plan, images=100, method="deepreduce", arms=("original", "plain", "control"))
    assert searched["path"].images == 11 * 200 * 100
    assert searched["control"].images == 200 * 100
    assert cell_floors(cost, plan, images=100, epochs=7)["path"].images == 700


def test_deepreduce_trains_as_many_networks_as_counted() -> None:
    """Oracle: the search itself, an epoch each, its history one row per trained network."""
    data = load_data("digits", seed=0)
    network = build("resnet18", data.input_shape, data.classes, width=2)
    brief = DeepReDuce(schedule=Schedule(epochs=1, batch_size=None))
    found = deepreduce(network, data, [0.5], seeds=[0], options=brief, progress=False)
    trained = [row["configuration"] for row in found[0].history if "configuration" in row]
    assert len(trained) == configurations(4)


def test_a_run_visits_as_many_images_as_counted() -> None:
    """Oracle: the batches that an objective sees."""
    data, seen = load_data("digits", seed=0), []
    network, schedule = build("mlp", data.input_shape, data.classes, width=4), Schedule(epochs=2, batch_size=100)

    def counted(model: nn.Module, batch: object) -> torch.Tensor:
        seen.append(len(batch.y))
        return supervised(model, batch)

    fit(network, data, counted, schedule, seeds=[0], stage="base", progress=False)
    n = len(data.splits["train"])
    assert sum(seen) == training_work(image_cost(network, data.input_shape), schedule, n, teacher="none").images
    assert len(seen) == 2 * math.ceil(n / 100)


def test_the_grid_adds_up_and_counts_a_shared_teacher_once() -> None:
    """Oracle: the same cells by `cell_floors`, the teachers of CIFAR-10 shared by both methods."""
    grid = grid_floors("fast", SIZES, ONE, seeds=1)
    total = grid[grid["data"] == "all"].iloc[0]
    parts = grid[grid["data"] != "all"]
    assert total["hours"] * 3600 == pytest.approx(max(parts["operations"].sum(), parts["bytes"].sum()))
    assert (total["cells"], total["arms"]) == (parts["cells"].sum(), parts["arms"].sum())
    cifar = grid[(grid["data"] == "cifar10") & (grid["network"] == "resnet18")].set_index("method")
    cost, plan, arms = paper_cost("resnet18"), recipe("resnet18", "fast"), ("original", "plain", "control")
    fixed = {"configurations": PAPER_CONFIGURATIONS, "finetuning": False}
    one = cell_floors(cost, plan, images=22_500, method="deepreduce", arms=arms, budgets=8, options=fixed)
    assert cifar.loc["deepreduce", "operations"] == pytest.approx(
        sum(work.operations for stage, work in one.items() if stage != "base")
    )


def test_ten_seeds_cost_ten_times_one() -> None:
    one, ten = (grid_floors("fast", SIZES, ONE, seeds=n).iloc[-1] for n in (1, 10))
    assert ten["operations"] == pytest.approx(10 * one["operations"])


def test_ceilings_are_those_of_this_machine() -> None:
    """No time is asserted: the rates are positive, named after the device, and enter floors as they are."""
    machine = ceilings(size=128, megabytes=4, turns=2)
    assert machine.operations > 0 and machine.bytes > 0 and machine.name.startswith("CPU")
    assert Work(1, 3.0, 5.0).seconds(machine) == (3.0 / machine.operations, 5.0 / machine.bytes)
    table = stage_table({"base": Work(1, 3.0, 5.0)}, ONE)
    assert isinstance(table, pd.DataFrame) and list(table["floor"]) == [5.0, 5.0]
