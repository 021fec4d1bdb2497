"""bf16, channels last and fused optimizers against plain float32 training of the same networks on the same batches."""

import copy
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData, Split, load_data
from linfair.device import has_amx
from linfair.ensemble import Ensemble
from linfair.linearizers import LINEARIZERS
from linfair.models import build
from linfair.study import recipe
from linfair.study.recipes import in_every_stage
from linfair.training import (
    Batch,
    Distill,
    Schedule,
    Source,
    cross_entropy,
    distillation,
    fit,
    predict,
    supervised,
)

QUIET = {"seeds": [0], "stage": "base", "progress": False}
PLAIN = Schedule(epochs=2, batch_size=100, lr=0.02, weight_decay=1e-3)
BF16 = replace(PLAIN, precision="bf16")


@pytest.fixture(scope="module")
def data() -> GroupedData:
    return load_data("digits", seed=0)


def cnn(data: GroupedData, seed: int = 0) -> nn.Module:
    return build("resnet18", data.input_shape, data.classes, width=4, seed=seed)


def trained(network: nn.Module, data: GroupedData, schedule: Schedule, objective: Callable = supervised) -> tuple:
    """A trained copy and its losses."""
    model = copy.deepcopy(network)
    history = fit(model, data, objective, schedule, **QUIET)
    return model, torch.tensor([row["loss"] for row in history])


def dtypes(model: nn.Module) -> set[torch.dtype]:
    return {value.dtype for value in model.state_dict().values() if value.is_floating_point()}


def test_bf16_runs_products_in_bfloat16_and_keeps_weights_losses_and_gradients_in_float32(data: GroupedData) -> None:
    """Oracle: the dtypes seen by the objective and, by a hook, behind the first convolution."""
    network, inside, losses = cnn(data), set(), set()
    hook = network.stem[0].register_forward_hook(lambda _module, _inputs, out: inside.add(out.dtype))

    def watched(model: nn.Module, batch: Batch) -> Tensor:
        loss = supervised(model, batch)
        losses.add(loss.dtype)
        return loss

    fit(network, data, watched, replace(BF16, epochs=1), **QUIET)
    hook.remove()
    assert inside == {torch.bfloat16} and losses == {torch.float32}
    assert dtypes(network) == {torch.float32}
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_bf16_losses_are_those_of_float32_within_two_per_cent_and_not_the_same(data: GroupedData) -> None:
    """bfloat16 has 8 bits: rounding of 0.4 %. Equal losses would mean that nothing ran in it.

    Steps on all images: with small batches the roundings of one step move the next.
    """
    network = cnn(data)
    exact, rough = (trained(network, data, replace(one, batch_size=None))[1] for one in (PLAIN, BF16))
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.0)


def test_bf16_of_an_ensemble_keeps_float32_weights_and_the_losses_of_its_members(data: GroupedData) -> None:
    """Oracle: the members trained alone."""
    networks = [cnn(data, seed) for seed in (0, 1)]
    model = Ensemble(networks)
    options = {"stage": "base", "progress": False}
    together = fit(model, [data, data], supervised, replace(BF16, epochs=1), seeds=[0, 1], **options)
    alone = [fit(n, data, supervised, replace(BF16, epochs=1), seeds=[s], **options) for s, n in enumerate(networks)]
    assert dtypes(model) == {torch.float32}
    losses = torch.tensor([one[0]["loss"][0] for one in alone])
    torch.testing.assert_close(torch.tensor(together[0]["loss"]), losses, rtol=0.02, atol=0.0)


def test_predictions_are_float32_and_the_same_inside_and_outside_of_autocast(data: GroupedData) -> None:
    network = cnn(data)
    outside = predict(network, data, "val")
    with torch.autocast("cpu", torch.bfloat16):
        inside = predict(network, data, "val")
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_cached_teacher_logits_are_float32_also_when_the_student_trains_in_bf16(data: GroupedData) -> None:
    """Oracle: `predict` outside of the training."""
    network = cnn(data)
    teacher, student = copy.deepcopy(network), gates.install(network, data.input_shape)
    distill = Distill(teacher, data)
    fit(student, data, distill, replace(BF16, epochs=1, augment=False), **QUIET)
    assert torch.equal(distill._cache, predict(teacher, data, "train"))


def test_bf16_distillation_with_trained_alphas_is_that_of_float32_within_two_per_cent(data: GroupedData) -> None:
    network = cnn(data)
    gated = gates.install(network, data.input_shape)
    whole = (replace(one, batch_size=None) for one in (PLAIN, BF16))
    exact, rough = (trained(gated, data, one, Distill(network, data)) for one in whole)
    torch.testing.assert_close(rough[1], exact[1], rtol=0.02, atol=1e-3)
    assert dtypes(rough[0]) == {torch.float32}


def test_losses_of_bfloat16_logits_are_computed_in_float32_and_float64_stays() -> None:
    """Oracle: the same logits widened by hand."""
    logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    y, rough = torch.tensor([0, 1, 2, 3, 0, 1, 2]), logits.bfloat16()
    assert torch.equal(cross_entropy(rough, y), cross_entropy(rough.float(), y))
    assert torch.equal(distillation(rough, rough + 1, 4.0), distillation(rough.float(), (rough + 1).float(), 4.0))
    assert cross_entropy(logits.double(), y).dtype == torch.float64


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fused_optimizers_take_the_steps_of_the_plain_ones(optimizer: str, data: GroupedData) -> None:
    network = build("mlp", data.input_shape, data.classes, width=16, seed=0)
    plain = replace(PLAIN, optimizer=optimizer, lr=1e-3)
    one, two = (trained(network, data, schedule)[0] for schedule in (plain, replace(plain, fused=True)))
    assert replace(plain, fused=True).make_optimizer(network).param_groups[0]["fused"] is True
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_channels_last_takes_the_same_step_and_leaves_the_memory_as_it_was(
    fused: bool, data: GroupedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: one contiguous step; after several a perturbation of 1e-6 has grown to 1e-3, so more would say less.

    While it runs the convolutions lie channels last, afterwards no more.
    """
    monkeypatch.setattr(Schedule, "sound_channels_last", lambda self, device: True)  # on one thread it is sound
    network, seen, step = cnn(data), [], replace(PLAIN, epochs=1, batch_size=None)
    hook = network.stages[1][0].conv1.register_forward_hook(
        lambda module, _inputs, out: seen.append(
            all(t.is_contiguous(memory_format=torch.channels_last) for t in (module.weight, out))
        )
    )
    first = trained(network, data, step)
    assert not any(seen)
    seen.clear()
    second = trained(network, data, replace(step, channels_last=True, fused=fused))
    hook.remove()
    assert seen and all(seen)
    torch.testing.assert_close(second[1], first[1], rtol=1e-5, atol=1e-5)
    logits = [predict(model, data, "val") for model in (first[0], second[0])]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    assert all(value.is_contiguous() for value in second[0].state_dict().values())


def test_float32_on_a_cpu_is_never_channels_last_where_torch_writes_beyond_arrays(data: GroupedData) -> None:
    network, seen = cnn(data), []
    hook = network.stages[1][0].conv1.register_forward_hook(lambda _m, _i, out: seen.append(out.is_contiguous()))
    one = trained(network, data, replace(PLAIN, epochs=1, channels_last=True))
    hook.remove()
    assert seen and all(seen)
    two = trained(network, data, replace(PLAIN, epochs=1))
    assert all(torch.equal(a, b) for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True))
    assert replace(PLAIN, precision="bf16").sound_channels_last("cpu") == has_amx()
    assert PLAIN.sound_channels_last("cuda")


@pytest.mark.parametrize("shape", [(6, 12, 12, 1), (6, 12, 12, 3)], ids=["one channel", "three"])
def test_no_network_runs_channels_last_because_its_images_were_stored_so(shape: tuple[int, ...]) -> None:
    """Oracle: strides of a new array. Images are permuted views, as digits are and shifted ones."""
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    part = Split(x, torch.arange(6) % 2, torch.arange(6) % 3)
    values = (0.5,) * x.shape[1]
    images = GroupedData("x", {"train": part}, ("a", "b"), ("r", "s", "t"), mean=values, std=values, shift=2)
    index, shifts = torch.arange(6).view(1, -1), torch.ones(2, 1, 6, dtype=torch.int64)
    taken = [Source(images, "train").take(index, how).x for how in (None, shifts)]
    for one in (images.normalise(part.x), images.normalise(part.x.float()), *taken):
        assert one.stride() == torch.empty(one.shape).stride()
        assert nn.Conv2d(x.shape[1], 4, 1)(one.float()).is_contiguous()


def test_channels_last_changes_nothing_for_ensembles_and_flat_networks(data: GroupedData) -> None:
    """Oracle: bitwise equality with the plain schedule."""
    network = build("mlp", data.input_shape, data.classes, width=8, seed=0)
    for start, sets in ((network, data), (Ensemble([network]), [data])):
        one, two = copy.deepcopy(start), copy.deepcopy(start)
        fit(one, sets, supervised, PLAIN, **QUIET)
        fit(two, sets, supervised, replace(PLAIN, channels_last=True), **QUIET)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_an_unknown_precision_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no precision 'fp16'; there are float32, bf16"):
        Schedule(epochs=1, precision="fp16")


def schedules(profile: str) -> list[Schedule]:
    """Every schedule of a profile, those of methods with a default one included."""
    plan = recipe("resnet18", profile)
    methods = [plan.method(name) for name in LINEARIZERS]
    return [plan.base, plan.finetune, *(one.schedule for one in methods if "schedule" in {f.name for f in fields(one)})]


@pytest.mark.parametrize("profile", ["smoke", "small", "quick", "paper"])
def test_profiles_that_a_cpu_takes_train_in_plain_float32(profile: str) -> None:
    for schedule in schedules(profile):
        assert (schedule.precision, schedule.tf32, schedule.fused) == ("float32", False, False)


def test_the_gpu_profiles_differ_in_precision_alone_and_from_each_other_in_nothing_else() -> None:
    """Every stage of `fast` is tuned; `fast_float32` is what its bf16 has to be compared with."""
    for fast, reference in zip(schedules("fast"), schedules("fast_float32"), strict=True):
        assert (fast.precision, fast.tf32, fast.channels_last, fast.fused) == ("bf16", True, True, True)
        assert replace(fast, precision="float32", tf32=False) == reference
    assert in_every_stage(recipe("resnet18", "paper"), fused=True).base.epochs == 160
