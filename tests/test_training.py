"""The one loop against loops written out, and its losses and rates against torch's own."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from linfair import gates, training
from linfair.data import GroupedData, load_data, toy
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.training import (
    Batch,
    Distill,
    Schedule,
    Source,
    TrainingDiverged,
    correctness,
    cross_entropy,
    distillation,
    fit,
    predict,
    supervised,
)

QUIET = {"stage": "base", "progress": False}
SHORT = Schedule(epochs=2, batch_size=100, optimizer="sgd", lr=0.05, weight_decay=1e-3)


def mlp(data: GroupedData, seed: int = 0) -> nn.Module:
    return build("mlp", data.input_shape, data.classes, width=8, seed=seed)


def equal(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


# Losses


@given(st.integers(0, 1000), st.sampled_from([1.0, 2.0, 4.0, 20.0]))
def test_distillation_equals_torchs_kl_divergence_and_gives_the_teacher_no_gradient(seed: int, t: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (5 * torch.randn(7, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    student.requires_grad_(), teacher.requires_grad_()
    ours = distillation(student, teacher, t)
    assert ours.shape == (7,)
    p, q = F.softmax(teacher.detach() / t, 1), F.log_softmax(student / t, 1)
    expected = t**2 * nn.KLDivLoss(reduction="batchmean")(q, p)
    torch.testing.assert_close(ours.mean(), expected)
    (gradient,) = torch.autograd.grad(ours.mean(), student, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])
    ours.sum().backward()
    assert teacher.grad is None


def test_cross_entropy_equals_torchs_for_each_input_of_each_member() -> None:
    logits, y = torch.randn(3, 6, 4), torch.randint(4, (3, 6))
    expected = torch.stack(
        [F.cross_entropy(one, label, reduction="none") for one, label in zip(logits, y, strict=True)]
    )
    torch.testing.assert_close(cross_entropy(logits, y), expected)
    torch.testing.assert_close(cross_entropy(logits[0], y[0]), expected[0])


# Schedules


def rates(make: Callable[[torch.optim.Optimizer], object], epochs: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_rates_equal_torchs_schedulers() -> None:
    cosine = Schedule(epochs=100, decay="cosine")
    expected = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=100), 100)
    assert [cosine.rate(epoch) for epoch in range(100)] == pytest.approx(expected, abs=1e-12)
    step = Schedule(epochs=160, decay="step", milestones=(80, 120), gamma=0.2)
    expected = rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [80, 120], gamma=0.2), 160)
    assert [step.rate(epoch) for epoch in range(160)] == pytest.approx(expected)
    assert {Schedule(epochs=3).rate(epoch) for epoch in range(3)} == {1.0}


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.7}),
        ("adam", torch.optim.Adam, {"betas": (0.9, 0.999)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
    ],
)
@pytest.mark.parametrize("members", [None, 2])
def test_optimizers_give_alphas_their_own_rate_and_no_decay(
    name: str, kind: type, settings: dict, members: int | None
) -> None:
    networks = [gates.install(build("mlp", (5,), 3, width=4, seed=seed), (5,)) for seed in range(2)]
    model = Ensemble(networks) if members else networks[0]
    schedule = Schedule(epochs=1, optimizer=name, lr=0.3, alpha_lr=0.02, weight_decay=0.1, momentum=0.7)
    optimizer = schedule.make_optimizer(model)
    assert type(optimizer) is kind
    weights, alphas = optimizer.param_groups
    assert {key: weights[key] for key in settings} == settings
    assert {id(p) for p in alphas["params"]} == {id(gate.alpha) for gate in gates.sites(model).values()}
    assert len(weights["params"]) + len(alphas["params"]) == len(list(model.parameters()))
    assert (weights["lr"], weights["weight_decay"], alphas["lr"], alphas["weight_decay"]) == (0.3, 0.1, 0.02, 0.0)
    assert replace(schedule, alpha_lr=None).make_optimizer(model).param_groups[1]["lr"] == 0.3
    (only,) = schedule.make_optimizer(gates.freeze(model)).param_groups
    assert only["lr"] == 0.3


def test_unknown_optimizers_and_decays_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="no optimizer 'lion'; there are sgd, adam, adamw"):
        Schedule(epochs=1, optimizer="lion").make_optimizer(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="no decay 'linear'; there are constant, cosine, step"):
        Schedule(epochs=1, decay="linear").rate(0)


# fit


def test_global_generators_neither_matter_nor_move() -> None:
    data = load_data("digits", seed=5)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model = mlp(data)
        fit(model, data, supervised, SHORT, seeds=[5], **QUIET)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(model)
    assert equal(*found)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fit_equals_a_loop_written_out_bit_for_bit(optimizer: str, digits: GroupedData) -> None:
    """Same order and shifts; everything else (batches, loss, decay, steps, mean loss) is written anew."""
    schedule = Schedule(
        epochs=3, batch_size=100, optimizer=optimizer, lr=0.01, momentum=0.9, weight_decay=0.01, decay="cosine"
    )
    ours, theirs = mlp(digits), mlp(digits)
    history = fit(ours, digits, supervised, schedule, seeds=[5], **QUIET)

    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    }
    step = make[optimizer](theirs.parameters())
    cosine = torch.optim.lr_scheduler.LambdaLR(step, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 3)))
    source, means = Source(digits, "train"), []
    train = digits.splits["train"]
    mean, std = torch.tensor(digits.mean), torch.tensor(digits.std)
    for epoch in range(3):
        total, theirs = 0.0, theirs.train()
        for index, shifts in source.epoch([f"5/base/{epoch}"], 100, augment=True):
            images = []
            for i, down, right in zip(index[0], *shifts[:, 0].tolist(), strict=True):
                framed = F.pad(train.x[i], (2, 2, 2, 2))
                images.append(torch.roll(framed, (down, right), (1, 2))[:, 2:-2, 2:-2])
            x = (torch.stack(images).float() / 255 - mean) / std
            loss = F.cross_entropy(theirs(x), train.y[index[0]], reduction="none").mean()
            step.zero_grad()
            loss.backward()
            step.step()
            total += loss.item() * len(x)
        cosine.step()
        means.append(total / len(train))
    assert equal(ours, theirs)
    assert not equal(ours, mlp(digits))
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert [row["loss"][0] for row in history] == pytest.approx(means, rel=1e-5)


def test_fit_of_an_ensemble_equals_fit_of_each_network_alone() -> None:
    """A few steps in float32, to rounding."""
    data = [load_data("digits", seed=seed) for seed in (5, 6)]
    networks = [mlp(one, seed) for seed, one in zip((5, 6), data, strict=True)]
    ensemble = Ensemble(networks)
    history = fit(ensemble, data, supervised, SHORT, seeds=[5, 6], **QUIET)
    for member, (seed, network) in enumerate(zip((5, 6), networks, strict=True)):
        start = copy.deepcopy(network)
        alone = fit(network, data[member], supervised, SHORT, seeds=[seed], **QUIET)
        together = ensemble.member(member)
        for key, value in network.state_dict().items():
            torch.testing.assert_close(together.state_dict()[key], value, rtol=1e-4, atol=1e-5)
        assert not equal(network, start)
        assert [row["loss"][member] for row in history] == pytest.approx([row["loss"][0] for row in alone], rel=1e-4)


def test_fit_stops_when_the_hook_says_so_and_keeps_the_rows_until_then(digits: GroupedData) -> None:
    seen = []

    def hook(epoch: int) -> bool:
        seen.append(epoch)
        return epoch == 2

    model = mlp(digits)
    history = fit(model, digits, supervised, replace(SHORT, epochs=9), seeds=[5], after_epoch=hook, **QUIET)
    assert seen == [row["epoch"] for row in history] == [0, 1, 2]
    other = mlp(digits)
    fit(other, digits, supervised, replace(SHORT, epochs=3), seeds=[5], **QUIET)
    assert equal(model, other)


def test_fit_leaves_frozen_parameters_bit_for_bit(digits: GroupedData) -> None:
    model = gates.freeze(gates.install(mlp(digits), digits.input_shape))
    gates.set_alphas(model, lambda _, alpha: torch.full_like(alpha, 0.5))
    model[1].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    fit(model, digits, supervised, SHORT, seeds=[5], **QUIET)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"1.bias", "3.weight", "3.bias", "5.weight", "5.bias"}


def test_fit_trains_in_training_mode_whatever_mode_it_was_given(digits: GroupedData) -> None:
    """Batch norm's oracle: momentum 0.1 on the batch's own mean and unbiased variance, one full batch."""
    first = build("resnet18", digits.input_shape, 10, width=2).eval()
    convolution, norm = first.stem
    (index, _), *_ = Source(digits, "train").epoch(["5/base/0"], None, augment=False)
    out = convolution(Source(digits, "train").take(index).x).detach().transpose(0, 1).flatten(1)
    fit(first, digits, supervised, Schedule(epochs=1, batch_size=None, lr=0.0, augment=False), seeds=[5], **QUIET)
    torch.testing.assert_close(norm.running_mean, 0.1 * out.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * out.var(1), rtol=1e-4, atol=1e-5)


def test_a_diverging_member_is_named_by_its_seed_and_the_epoch() -> None:
    data = [load_data("digits", seed=seed) for seed in (50, 60, 70)]
    model = Ensemble([mlp(one, 0) for one in data])
    epochs = []

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        factor = torch.tensor([1.0, float("nan") if epochs else 1.0, 1.0])
        return factor * supervised(model, batch)

    def hook(epoch: int) -> bool:
        epochs.append(epoch)
        return False

    with pytest.raises(TrainingDiverged, match=r"a label: .* epoch 1 for seeds \[60\]; lower the learning rate"):
        fit(model, data, objective, replace(SHORT, epochs=5), seeds=[50, 60, 70], label="a label", after_epoch=hook,
            **QUIET)  # fmt: skip


def test_too_large_a_rate_diverges_with_an_error(digits: GroupedData) -> None:
    with pytest.raises(TrainingDiverged, match=r"base: .* seeds \[5\]; lower the learning rate \(1e\+20\)"):
        fit(mlp(digits), digits, supervised, replace(SHORT, epochs=5, lr=1e20), seeds=[5], **QUIET)


def test_as_many_networks_as_data_sets_and_seeds_or_an_error(digits: GroupedData) -> None:
    plain, pair = mlp(digits), Ensemble([mlp(digits), mlp(digits)])
    for model, data, seeds in [
        (plain, digits, [1, 2]),
        (plain, [digits], [1]),
        (pair, digits, [1, 2]),
        (pair, [digits], [1, 2]),
        (pair, [digits] * 2, [1]),
        (pair, [digits] * 3, [1, 2, 3]),
    ]:
        with pytest.raises(ValueError, match="networks need as many data sets and seeds"):
            fit(model, data, supervised, SHORT, seeds=seeds, **QUIET)
    with pytest.raises(ValueError, match=r"equally large train splits, got \[\(40, 2\), \(50, 2\)\]"):
        Source([toy(majority=20, minority=20), toy(majority=30, minority=20)], "train")


# Distillation from a teacher


@pytest.mark.parametrize("members", [None, 2])
def test_cached_teacher_logits_equal_fresh_ones_and_are_computed_once(members: int | None) -> None:
    sets = [load_data("digits", seed=seed, shift=0) for seed in (5, 6)]
    networks = [mlp(one, seed) for seed, one in enumerate(sets)]
    data, teacher = (sets, Ensemble(networks)) if members else (sets[0], networks[0])
    calls = []
    distill, source = Distill(teacher, data), Source(data, "train")
    handle = teacher.register_forward_hook(lambda *_: calls.append(1))
    batches = [
        source.take(*one) for _ in range(2) for one in source.epoch(["a", "b"][: members or 1], 64, augment=True)
    ]
    found = [distill.teacher_logits(batch) for batch in batches]
    handle.remove()
    assert len(calls) == 1
    for batch, logits in zip(batches, found, strict=True):
        assert not batch.augmented
        assert not logits.requires_grad
        torch.testing.assert_close(logits, teacher(batch.x).detach(), rtol=1e-5, atol=1e-5)


def test_shifted_batches_are_shown_to_the_teacher_as_the_student_sees_them(digits: GroupedData) -> None:
    teacher, source = mlp(digits).train(), Source(digits, "train")
    distill = Distill(teacher, digits)
    assert not teacher.training
    (index, shifts), *_ = source.epoch(["a"], 64, augment=True)
    batch = source.take(index, shifts)
    assert batch.augmented
    assert torch.equal(distill.teacher_logits(batch), teacher(batch.x))
    still = source.take(index)
    torch.testing.assert_close(distill.teacher_logits(still), teacher(still.x).detach(), rtol=1e-5, atol=1e-5)
    assert not torch.equal(batch.x, still.x)


def test_distill_is_cross_entropy_plus_kd_at_temperature_4(digits: GroupedData) -> None:
    teacher, student, source = mlp(digits, 1).eval(), mlp(digits, 2), Source(digits, "train")
    batch = source.take(torch.arange(30)[None])
    ours = Distill(teacher, digits)(student, batch)
    logits, p = student(batch.x), F.softmax(teacher(batch.x).detach() / 4, 1)
    expected = F.cross_entropy(logits, batch.y) + 16 * F.kl_div(F.log_softmax(logits / 4, 1), p, reduction="batchmean")
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    ours.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


# Prediction


@pytest.mark.parametrize("view", [(0, 0), (2, -1)])
def test_predict_equals_a_plain_loop_over_images_and_restores_the_mode(
    view: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    networks = [build("resnet18", one.input_shape, 10, width=2, seed=seed) for seed, one in enumerate(sets)]
    ensemble = Ensemble(networks).train()
    before = copy.deepcopy(ensemble.state_dict())
    with monkeypatch.context() as patch:
        patch.setattr(training, "AT_ONCE", 77)
        together = predict(ensemble, sets, "test", view=view)
    assert ensemble.training
    assert all(torch.equal(value, before[key]) for key, value in ensemble.state_dict().items())
    assert not together.requires_grad
    for member, (network, data) in enumerate(zip(networks, sets, strict=True)):
        alone = predict(network.eval(), data, "test", view=view)
        assert not network.training
        rows = []
        for image in data.splits["test"].x:
            moved = torch.roll(F.pad(image, (2, 2, 2, 2)), view, (1, 2))[:, 2:-2, 2:-2]
            with torch.no_grad():
                rows.append(network(data.normalise(moved[None])))
        torch.testing.assert_close(alone, torch.cat(rows), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[member], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [0, 1])
def test_correctness_is_the_share_of_views_predicted_right(shift: int, teacher: nn.Module) -> None:
    data = load_data("digits", seed=3, shift=shift)
    found = correctness(teacher, data, "test_balanced")
    split = data.splits["test_balanced"]
    right = np.zeros(len(split))
    steps = (-1, 0, 1) if shift else (0,)
    for down in steps:
        for right_by in steps:
            moved = torch.roll(F.pad(split.x, (2, 2, 2, 2)), (down, right_by), (2, 3))[:, :, 2:-2, 2:-2]
            with torch.no_grad():
                right += (teacher(data.normalise(moved)).argmax(1) == split.y).numpy()
    assert found.shape == (1, len(split))
    np.testing.assert_allclose(found[0].numpy(), right / len(steps) ** 2, rtol=1e-6)
    if shift:
        assert ((found > 0) & (found < 1)).any()


def test_correctness_of_an_ensemble_is_that_of_its_networks() -> None:
    sets = [toy(seed=seed) for seed in (5, 6)]
    networks = [mlp(one, seed) for seed, one in enumerate(sets)]
    together = correctness(Ensemble(networks), sets, "test")
    alone = [correctness(network, one, "test") for network, one in zip(networks, sets, strict=True)]
    assert torch.equal(together, torch.cat(alone))
    assert set(together.unique().tolist()) == {0.0, 1.0}


def test_a_network_that_draws_numbers_itself_is_trained_the_same_twice_and_leaves_the_callers_generator(digits) -> None:
    def trained(state: int) -> list[Tensor]:
        torch.manual_seed(state)
        network = nn.Sequential(build("mlp", digits.input_shape, digits.classes, width=8), nn.Dropout(0.5))
        before = torch.get_rng_state()
        fit(network, digits, supervised, Schedule(epochs=2), seeds=[0], stage="base", progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        return list(network.parameters())

    with torch.random.fork_rng():
        assert all(torch.equal(one, two) for one, two in zip(trained(1), trained(2), strict=True))
