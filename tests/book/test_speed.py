"""Floors against counts by hand, torch's own layers and what a run visits; the page against its table and both."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from bench_training import ASKED, KEPT, STEPS, Asking, ceilings, generated, in_turns, ladder, side_by_side, stages
from floors import (
    H200,
    SHAPE,
    Machine,
    Work,
    arithmetic,
    cell_floors,
    grid_floors,
    image_cost,
    paper_cost,
    table_of,
    training_work,
)
from linfair_book import speed
from linfair_book.speed import TABLE, blocks
from torch import nn

from linfair.data import load_data
from linfair.linearizers import PAPER_CONFIGURATIONS, DeepReDuce, deepreduce
from linfair.models import build
from linfair.study import recipe
from linfair.training import Distill, Schedule, Source, fit, predict, supervised

ROOT = Path(__file__).resolve().parents[2]
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
    assert training_work(cost, plain, 10, teacher="never") == Work(20, 2 * 20 * 12, 4 * 20 * 13 + weights)
    cached = training_work(cost, plain, 10, teacher="once")
    assert cached == Work(20, 2 * (20 * 12 + 10 * 6), 4 * (20 * 13 + 10 * 5) + weights)
    every = training_work(cost, plain, 10, teacher="every step")
    assert every == Work(20, 2 * (20 * 12 + 20 * 6), 4 * (20 * 13 + 20 * 5) + weights)
    half = training_work(cost, replace(plain, precision="bf16"), 10, teacher="never")
    assert half.bytes - weights == (4 * 20 * 13) / 2
    adam = training_work(cost, replace(plain, optimizer="adam"), 10, teacher="never")
    assert adam.bytes - 4 * 20 * 13 == weights * 10 / 8


def test_unknown_ways_to_ask_the_teacher_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of never, once, every step; got 'sometimes'"):
        training_work(image_cost(nn.Linear(3, 2), (3,)), Schedule(epochs=1), 10, teacher="sometimes")


def test_the_papers_cell_takes_157_pflop_and_199_seconds_on_an_h200_by_operations() -> None:
    """Oracle: 47.1 million images, (160 + 2 * 300 + 4 * 5 * 100) epochs of 17,067, of 3.33 GFLOP each."""
    work = cell_floors(paper_cost("resnet18"), recipe("resnet18", "paper"), images=17_067)
    total = sum(work.values(), Work())
    assert total.images == (160 + 2 * 300 + 4 * 5 * 100) * 17_067
    assert total.operations == pytest.approx(total.images * 3.329e9 + 22 * 17_067 * 1.111e9, rel=1e-3)
    by_operations, by_bytes = total.seconds(H200)
    assert round(by_operations) == 199 == round(total.operations / 790e12)
    assert sum(one.seconds(H200)[1] for one in work.values()) == pytest.approx(by_bytes)


def test_methods_arms_and_budgets_enter_the_stages() -> None:
    cost, plan = paper_cost("resnet18"), recipe("resnet18", "paper")
    work = cell_floors(cost, plan, images=100, method="random", budgets=3, arms=("original", "plain"))
    assert work["path"] == work["control"] == Work()
    assert work["finetune"].images == 3 * plan.finetune.epochs * 100
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
    assert len(trained) == brief.own_training(1, stages=4)[0] == 11


def test_a_run_visits_as_many_images_as_counted() -> None:
    """Oracle: the batches that an objective sees."""
    data, seen = load_data("digits", seed=0), []
    network, schedule = build("mlp", data.input_shape, data.classes, width=4), Schedule(epochs=2, batch_size=100)

    def counted(model: nn.Module, batch: object) -> torch.Tensor:
        seen.append(len(batch.y))
        return supervised(model, batch)

    fit(network, data, counted, schedule, seeds=[0], stage="base", progress=False)
    n = len(data.splits["train"])
    assert sum(seen) == training_work(image_cost(network, data.input_shape), schedule, n, teacher="never").images
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


# The page


@pytest.fixture(scope="module")
def committed() -> pd.DataFrame:
    return pd.read_parquet(ROOT / TABLE)


def test_a_changed_number_changes_the_page(committed: pd.DataFrame) -> None:
    """One number of each part."""
    made = blocks(committed)
    for key, part in (
        ("cell/paper/all/by bytes", "cell"),
        ("ceiling/bf16/operations", "ceilings"),
        ("stage/base/seconds", "stages"),
        ("step/masks/bf16/ratio", "steps"),
        ("logits/bf16/decisions", "logits"),
        ("ladder/bf16/gain", "ladder"),
        ("ensemble/gain", "ensemble"),
        ("gpu/full width/seconds", "gpu"),
        ("replay/distillation/replayed", "replay"),
        ("gpu/in bf16/decisions", "gpu errors"),
        ("grid/fast/all/hours", "grid"),
    ):
        changed = blocks(committed.assign(value=committed["value"].where(committed["key"] != key, 77.0)))
        assert "77" in changed[part] and {name for name in made if changed[name] != made[name]} == {part}


def test_precisions_are_compared_seed_by_seed_and_an_interval_beyond_the_margin_shows_nothing() -> None:
    """Oracle: a gain of half a point in every seed has an interval of no width; a seed far off widens it."""
    row = {"data": "d", "network": "n", "method": "snl", "arm": "plain", "budget": 0.2, "split": "test", "seconds": 1.0}
    row |= {"teacher": "t", "device": "CPU", "torch": "2", "linfair": "0", "n": 200}
    seeds = pd.DataFrame({"seed": range(6), "accuracy": [0.5, 0.6, 0.7, 0.5, 0.6, 0.7]})
    names = pd.DataFrame({"group_name": ["all", "a", "b"]})
    slow = seeds.merge(names, how="cross").assign(precision="float32", **row)
    fast = slow.assign(precision="bf16", accuracy=slow["accuracy"] + 0.005)
    alike = speed.precision_part(pd.concat([slow, fast]))
    assert "| plain at 20 % | 0.50 [0.50, 0.50] | 2 of 2 | 0.5 | yes |" in alike
    fast.loc[(fast["seed"] == 0) & (fast["group_name"] == "b"), "accuracy"] += 0.09
    unlike = speed.precision_part(pd.concat([slow, fast]))
    assert "| 1 of 2 |" in unlike and "| not shown |" in unlike


def test_the_page_itself_states_no_measured_number() -> None:
    """In the prose: the H200's two ceilings, from the module, counts of seeds, points, assumed epochs, a switch's 0."""
    prose = re.sub(r"% generated: .*", "", (ROOT / "book/performance.md").read_text())
    numbers = set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?: [TG]\S+/s)?", prose))
    assert f"{H200.operations / 1e12:g} TFLOP/s" in numbers and f"{H200.bytes / 1e12:g} TB/s" in numbers
    assert numbers <= {"790 TFLOP/s", "4.3 TB/s", "300", "95", "2", "1", "0"}, numbers


def test_the_committed_floors_are_those_of_the_present_code(committed: pd.DataFrame) -> None:
    """Oracle: the arithmetic done again."""
    again = table_of(arithmetic(ROOT)).set_index("key")["value"]
    before = committed.set_index("key")["value"]
    assert set(again.index) == {key for key in before.index if key.startswith(("cell/", "grid/"))}
    for key, value in again.items():
        assert before[key] == pytest.approx(value, rel=1e-9), f"{key}: run python tests/benchmarks/floors.py"


def test_only_the_section_on_a_gpu_claims_to_be_measured_on_one(committed: pd.DataFrame) -> None:
    """Elsewhere: either this CPU, or a GPU's ceilings with the word that nothing ran on it."""
    on_gpu = committed["key"].str.startswith(("gpu/", "replay/"))
    assert committed.loc[on_gpu, "device"].str.startswith("NVIDIA H100").all() and on_gpu.any()
    for device in committed.loc[~on_gpu, "device"].unique():
        assert device.startswith("CPU") or device == "H200's ceilings, not run"


def test_in_turns_warms_up_once_and_then_times_every_run_in_every_turn() -> None:
    called: list[str] = []
    seconds = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_asking_the_teacher_gives_the_logits_that_are_kept() -> None:
    """Oracle: the cache of `Distill`."""
    data, teacher = generated(8), build("resnet18", SHAPE, 10, width=2)
    batch = Source(data, "train").take(torch.arange(8).unsqueeze(0))
    asked, kept = Asking(teacher, data), Distill(teacher, data)
    torch.testing.assert_close(asked.teacher_logits(batch), kept.teacher_logits(batch))
    assert asked._cache is None and torch.equal(kept._cache, predict(teacher, data, "train"))


def test_the_ladder_has_seconds_and_a_floor_for_every_step_and_a_gain_for_all_but_the_first() -> None:
    steps = [name for name in STEPS if name not in ("torch.compile", "channels last")]
    values = {one.key: one.value for one in ladder(width=2, images=8, batch_size=4, turns=1, steps=steps)}
    for name in steps:
        assert values[f"ladder/{name}/seconds"] > 0 and values[f"ladder/{name}/floor"] > 0
        assert (f"ladder/{name}/gain" in values) is (name != ASKED)
    first, kept = (values[f"ladder/{name}/floor"] for name in (ASKED, KEPT))
    assert first > kept  # the teacher's forward passes


def test_networks_side_by_side_and_the_stages_of_a_cell_are_timed() -> None:
    values = {one.key: one.value for one in side_by_side(members=2, epochs=1, turns=1)}
    ratio = values["ensemble/one by one/seconds"] / values["ensemble/ensemble/seconds"]
    assert values["ensemble/gain"] == pytest.approx(ratio)
    values = {one.key: one.value for one in stages(profile="smoke", seeds=2, budgets=(0.4,))}
    for stage in ("base", "path", "control", "finetune"):
        assert values[f"stage/{stage}/floor"] > 0 and values[f"stage/{stage}/seconds"] > 0
    assert "stage/measure/floor" not in values
