"""Private rules against Opacus, against gradients image by image, and by what theory says of noise and of batches."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_by_image import STEP, batch_of, fitted, flat, image_gradients, loss_on, mlp, same, shortened
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from scipy import stats
from torch import Tensor, nn

from linfair import gates, weights
from linfair.data import GroupedData, Split, load_data
from linfair.engine.store import ResultStore
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.resume import resumable
from linfair.rules import DPSAT, DPSGD, SGD
from linfair.rules.private import poisson
from linfair.training import Batch, Source, supervised

SURE = 1e-9
"""Probability below which chance is no explanation; seeds are fixed besides."""


def rule(options: DPSGD, model: nn.Module, data: GroupedData | list, seeds: Sequence[int] = (3,), size: int = 40):
    return options.start(model, data, replace(STEP, batch_size=size), seeds=seeds).gradient


@pytest.mark.parametrize(("name", "width"), [("mlp", 16), ("cnn", 6), ("resnet18", 8)])
def test_clipped_gradients_are_those_of_opacus(name: str, width: int, images: GroupedData) -> None:
    """To 1e-6, in pieces of 7 images, where some images are clipped and some are not."""
    model = build(name, images.input_shape, images.classes, width=width, norm="group", seed=1).train()
    batch = batch_of(images, torch.arange(40))
    theirs = GradSampleModule(copy.deepcopy(model))
    supervised(theirs, replace(batch, x=batch.x.clone().requires_grad_())).backward()
    norms = torch.stack([one.grad_sample.flatten(1).norm(dim=1) for one in theirs.parameters()]).norm(dim=0)
    clip = norms.median().item()
    assert norms.min() < 0.99 * clip < 1.01 * clip < norms.max()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.0)
    DPOptimizer(optimizer, noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=40).pre_step()
    loss = rule(DPSGD(noise=0, clip=clip, physical=7), model, images)(model, loss_on(model), batch)
    torch.testing.assert_close(loss, supervised(model, batch).detach())
    torch.testing.assert_close(flat(model), flat(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "gated", "pruned", "frozen", "shared", "tied"])
@pytest.mark.parametrize("physical", [1, 16, 256])
def test_clipped_gradients_are_those_of_images_one_by_one(kind: str, physical: int, toy: GroupedData) -> None:
    """With gates that are trained, switched weights, frozen layers and those used twice, in pieces of any size."""
    model = mlp(toy)
    if kind == "gated":
        model = gates.install(model, toy.input_shape).double()
        with torch.no_grad():
            for one in gates.sites(model).values():
                one.alpha.copy_(torch.linspace(0, 1, 8))
    if kind == "pruned":
        model = weights.install(model, toy.input_shape)
        for switch, _ in weights.switches(model).values():
            switch.kept.copy_(torch.arange(switch.kept.numel()).view_as(switch.kept) % 3 > 0)
    if kind == "frozen":
        next(model.parameters()).requires_grad_(False)
    if kind in ("shared", "tied"):
        again = nn.Linear(8, 8).double() if kind == "tied" else model[3]
        model = nn.Sequential(*list(model)[:5], again, nn.ReLU(), model[5])
        again.weight = model[3].weight
    own = list(model.parameters())
    batch = batch_of(toy, torch.arange(30))
    every = image_gradients(model, batch.x[:, None], batch.y)
    clip = torch.stack([one.norm() for one in every]).median().item()
    rule(DPSGD(noise=0, clip=clip, physical=physical), model, toy)(model, loss_on(model), batch)
    expected = sum(shortened(one, clip) for one in every) / 40
    torch.testing.assert_close(flat(model), expected, rtol=1e-9, atol=1e-12)
    assert all(one is other for one, other in zip(own, model.parameters(), strict=True))


def test_an_image_is_clipped_once_whatever_its_shifts(toy: GroupedData) -> None:
    """The gradients of its shifts are averaged first."""
    model, index = mlp(toy), torch.arange(20)
    batch = batch_of(toy, index.repeat_interleave(3))
    moved = batch.x + torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    shifts = moved.unflatten(0, (20, 3))
    every = image_gradients(model, shifts, batch.y[::3])
    clip = torch.stack([one.norm() for one in every]).median().item()
    gradient = rule(DPSGD(noise=0, clip=clip, physical=7), model, toy)
    gradient.options = replace(gradient.options, multiplicity=3)  # start() asks for data with shifts
    gradient(model, loss_on(model), replace(batch, x=moved))
    torch.testing.assert_close(flat(model), sum(shortened(one, clip) for one in every) / 40, rtol=1e-9, atol=1e-12)


@given(
    scale=st.floats(1e-3, 1e3),
    clip=st.floats(1e-3, 10.0),
    out=st.integers(0, 19),
    physical=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_an_image_moves_what_is_released_by_no_more_than_clip(
    toy: GroupedData, scale: float, clip: float, out: int, physical: int, seed: int
) -> None:
    """The sensitivity on which epsilon is counted, for inputs of any size: with an image or without it."""
    model, sums = mlp(toy, seed), []
    index = torch.randperm(200, generator=torch.Generator().manual_seed(seed))[:20]
    for some in (index, index[torch.arange(20) != out]):
        batch = batch_of(toy, some)
        gradient = rule(DPSGD(noise=0, clip=clip, physical=physical), model, toy)
        gradient(model, loss_on(model), replace(batch, x=batch.x * scale))
        sums.append(flat(model) * 40)
    assert (sums[0] - sums[1]).norm() <= clip * (1 + 1e-9)
    assert sums[0].norm() <= 20 * clip * (1 + 1e-9)


def test_noise_is_gaussian_of_the_stated_scale_and_fresh_in_each_step_and_member(toy: GroupedData) -> None:
    """Chi-square for the scale, Kolmogorov's test for the form, correlations for independence, at `SURE`."""
    pair, steps, noise, clip = Ensemble([mlp(toy, 0, 64)] * 2), 8, 1.7, 0.3
    empty = Batch(
        *(
            one.new_zeros(2, 0, *one.shape[1:])
            for one in vars(batch_of(toy, torch.arange(2))).values()
            if isinstance(one, Tensor)
        ),
        augmented=False,
    )
    gradient, drawn = rule(DPSGD(noise=noise, clip=clip), pair, [toy] * 2, (3, 4)), []
    for _ in range(steps):
        gradient(pair, loss_on(pair), empty)
        flats = torch.cat([one.grad.flatten(1) for one in pair.parameters()], dim=1)
        drawn += [one * 40 / (noise * clip) for one in flats]
    values = torch.cat(drawn)
    assert values.dtype == torch.float64
    assert SURE / 2 < stats.chi2.cdf(values.square().sum().item(), len(values)) < 1 - SURE / 2
    assert stats.kstest(values.numpy(), "norm").pvalue > SURE
    most = stats.norm.isf(SURE / len(drawn) ** 2) / math.sqrt(len(drawn[0])) * 1.5
    products = torch.corrcoef(torch.stack(drawn)).fill_diagonal_(0)
    assert products.abs().max() < most < 0.2


def test_the_same_seed_stage_and_step_draw_the_same_noise_and_others_draw_other(toy: GroupedData) -> None:
    def noise_of(seed: int, stage: str, steps: int) -> Tensor:
        model = mlp(toy)
        gradient = DPSGD(noise=1).start(model, toy, STEP, seeds=[seed], stage=stage).gradient
        gradient.steps = steps
        gradient(model, loss_on(model), batch_of(toy, torch.arange(0)))
        return flat(model)

    first = noise_of(3, "base", 0)
    assert torch.equal(first, noise_of(3, "base", 0))
    for other in ((4, "base", 0), (3, "finetune", 0), (3, "base", 1)):
        assert not torch.equal(first, noise_of(*other))


def one_epoch(data: GroupedData, batch_size: int, key: str = "3/base/0") -> list[Tensor]:
    return [index[0] for index, _ in Source(data, "train").epoch([key], batch_size, True, poisson)]


def test_each_image_is_in_each_batch_by_a_coin_of_its_own(toy: GroupedData) -> None:
    """200 images, rate 1/4, 400 steps: hits of images and sizes of batches are binomial (chi-square at `SURE`).

    No image knows of another or of the step before, and nothing beside seed, stage and epoch decides.
    """
    rate, epochs = 0.25, 100
    batches = [one for epoch in range(epochs) for one in one_epoch(toy, 50, f"3/base/{epoch}")]
    assert len(batches) == 4 * epochs
    hits = torch.stack([torch.bincount(one, minlength=200) for one in batches]).double()
    assert hits.max() == 1
    z = (hits - rate) / math.sqrt(rate * (1 - rate))
    for sums, n in ((z.sum(0) / math.sqrt(len(z)), 200), (z.sum(1) / math.sqrt(200), len(z))):
        assert SURE < stats.chi2.cdf(sums.square().sum().item(), n) < 1 - SURE
    pairs = (z.T @ z / math.sqrt(len(z))).triu(1).abs().max().item()
    later = (z[:-1] * z[1:]).sum().item() / math.sqrt(z[1:].numel())
    assert max(pairs, abs(later)) < 7
    assert all(torch.equal(a, b) for a, b in zip(one_epoch(toy, 50), batches[:4], strict=True))
    for other in ("4/base/0", "3/finetune/0", "3/base/1"):
        assert not torch.equal(one_epoch(toy, 50, other)[0], batches[0])


def test_members_of_an_ensemble_are_trained_as_each_alone(toy: GroupedData) -> None:
    """Batches of different sizes, noise of their own; the losses too."""
    other = replace(
        toy, splits=toy.splits | {"train": Split(*(one.flip(0) for one in vars(toy.splits["train"]).values()))}
    )
    alone, sets = [mlp(toy, seed) for seed in range(3)], [toy, other, toy]
    together = Ensemble(alone)
    options, schedule = (
        DPSAT(noise=0.8, clip=0.5, rho=0.1, average=0.9, physical=16),
        replace(STEP, epochs=3, momentum=0.9),
    )
    rows, _ = fitted(together, sets, options, schedule, seeds=[3, 4, 5])
    for member, one in enumerate(alone):
        row, _ = fitted(one, sets[member], options, schedule, seeds=[3 + member])
        for name, value in together.member(member).state_dict().items():
            torch.testing.assert_close(value, one.state_dict()[name], rtol=1e-9, atol=1e-12)
        assert [each["loss"][member] for each in rows] == pytest.approx([each["loss"][0] for each in row], rel=1e-6)


def test_an_empty_batch_is_a_step_of_noise_alone(toy: GroupedData) -> None:
    """One image expected of 4: some batches are empty; the divisor is what is expected."""
    few = replace(toy, splits=toy.splits | {"train": Split(*(one[:4] for one in vars(toy.splits["train"]).values()))})
    sizes = [len(one) for epoch in range(3) for one in one_epoch(few, 1, f"3/base/{epoch}")]
    assert 0 in sizes
    assert max(sizes) > 1
    model = mlp(toy)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    rows, guarantee = fitted(model, few, DPSGD(noise=1.0), replace(STEP, batch_size=1, epochs=3))
    assert (guarantee.rate, guarantee.steps) == (0.25, 12)
    assert all(math.isfinite(row["loss"][0]) for row in rows)
    assert all((one - before[name]).abs().min() > 0 for name, one in model.state_dict().items())
    gradient = rule(DPSGD(noise=2.0, clip=0.5), model, few, size=1)
    assert gradient(model, loss_on(model), batch_of(few, torch.arange(0))) == 0
    assert SURE < stats.chi2.cdf(flat(model).square().sum().item(), flat(model).numel()) < 1 - SURE


def test_dp_sat_ascends_along_the_last_noisy_gradient(toy: GroupedData) -> None:
    """Not in the first step; then the gradient is that of images one by one at w + rho g / |g|, and the loss at w."""
    model, clip = mlp(toy), 0.2
    gradient = rule(DPSAT(noise=0.7, clip=clip, rho=0.3, physical=7), model, toy)
    free = rule(DPSGD(noise=0.7, clip=clip), copy.deepcopy(model), toy)
    there = copy.deepcopy(model)
    for step in range(3):
        batch = batch_of(toy, torch.arange(step, 30 + step))
        loss = gradient(model, loss_on(model), batch)
        released = flat(model)
        noise = copy.deepcopy(model)
        free(noise, loss_on(noise), batch_of(toy, torch.arange(0)))
        every = image_gradients(there, batch.x[:, None], batch.y)
        expected = sum(shortened(one, clip) for one in every) / 40 + flat(noise)
        torch.testing.assert_close(released, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(loss, supervised(model, batch).detach())
        sizes = [one.numel() for one in model.parameters()]
        up = (0.3 * released / released.norm()).split(sizes)
        there = copy.deepcopy(model)
        with torch.no_grad():
            for one, way in zip(there.parameters(), up, strict=True):
                one += way.view_as(one)


@pytest.mark.parametrize("members", [1, 2])
def test_weights_do_not_move_without_a_learning_rate(members: int, toy: GroupedData) -> None:
    """With several pieces in a batch, where the released loop of DP-SAT leaves its step uphill in the weights."""
    model = mlp(toy) if members == 1 else Ensemble([mlp(toy, 0), mlp(toy, 1)])
    before = {name: one.clone() for name, one in model.state_dict().items()}
    data, still = toy if members == 1 else [toy, toy], replace(STEP, epochs=2, lr=0.0)
    fitted(model, data, DPSAT(rho=0.5, physical=8), still, seeds=range(members))
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    fitted(model, data, DPSAT(rho=0.5, physical=8), replace(still, lr=0.1), seeds=range(members))
    assert all(not torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_dp_sat_without_a_step_is_dp_sgd(images: GroupedData) -> None:
    """Bit for bit."""
    models = [mlp(images) for _ in range(3)]
    for model, options in zip(models, (DPSGD(), DPSAT(rho=0.0), DPSAT(rho=0.1)), strict=True):
        fitted(model, images, options, replace(STEP, epochs=2, batch_size=200))
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_the_history_has_the_loss_before_clipping_and_noise(toy: GroupedData) -> None:
    """At a learning rate of 0 the mean cross entropy of what was drawn."""
    model = mlp(toy)
    rows, _ = fitted(model, toy, DPSGD(noise=5.0, clip=0.01), replace(STEP, lr=0.0))
    every = batch_of(toy, torch.cat(one_epoch(toy, 40)))
    assert rows[0]["loss"][0] == pytest.approx(supervised(model, every).item(), rel=1e-6)


def test_momentum_and_decay_come_after_the_noise(toy: GroupedData) -> None:
    """The schedule's optimizer on gradients image by image, on the batches and with the noise of the rule."""
    schedule = replace(STEP, epochs=2, momentum=0.9, weight_decay=0.1, decay="cosine")
    model, by_hand = mlp(toy), mlp(toy)
    fitted(model, toy, DPSGD(noise=0.5, clip=0.3), schedule)
    optimizer, noise = schedule.make_optimizer(by_hand), rule(DPSGD(noise=0.5, clip=0.3), by_hand, toy)
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 0.5 * schedule.rate(epoch)
        for index in one_epoch(toy, 40, f"3/base/{epoch}"):
            batch = batch_of(toy, index)
            total = sum(shortened(one, 0.3) for one in image_gradients(by_hand, batch.x[:, None], batch.y)) / 40
            noise(by_hand, loss_on(by_hand), batch_of(toy, torch.arange(0)))
            parts = total.split([one.numel() for one in by_hand.parameters()])
            for one, part in zip(by_hand.parameters(), parts, strict=True):
                one.grad += part.view_as(one)
            optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name], rtol=1e-9, atol=1e-12)


def test_a_guarantee_says_how_it_was_reached(images: GroupedData) -> None:
    n = len(images.splits["train"])
    schedule = replace(STEP, epochs=3, batch_size=n // 4)
    _, guarantee = fitted(mlp(images), images, DPSGD(epsilon=3, delta=1e-4, clip=0.7), schedule)
    assert 0.99 * 3 <= guarantee.epsilon <= 3
    assert guarantee.holds
    assert (guarantee.delta, guarantee.clip, guarantee.steps) == (1e-4, 0.7, 12)
    assert guarantee.rate == (n // 4) / n
    with pytest.raises(ValueError, match="epsilon must be above 0 and finite, got inf"):
        DPSGD(epsilon=math.inf)
    assert fitted(mlp(images), images, DPSGD(noise=0.0), schedule)[1] is None
    with pytest.raises(ValueError, match=f"delta must be below 1 / {n}.*0.01"):
        fitted(mlp(images), images, DPSGD(delta=0.01), schedule)
    own = load_data("digits", seed=3)
    assert not fitted(mlp(own), own, DPSGD(epsilon=3), schedule)[1].holds, "normalised by the training images"


def test_dropout_is_drawn_for_each_image(images: GroupedData) -> None:
    """Its own mask, in training: two equal images get different gradients; trained twice, the network is the same."""

    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))

    models = made(), made()
    for model in models:
        fitted(model, images, DPSGD(noise=0.5))
    assert same(*models)
    seen = []
    model = made().train()
    model[4].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    gradient, index = rule(DPSGD(noise=0, clip=1e9), model, images), torch.zeros(2, dtype=torch.int64)
    gradient(model, loss_on(model), batch_of(images, index))
    both = flat(model)
    gradient(model, loss_on(model), batch_of(images, index[:1]))
    assert (both - 2 * flat(model)).abs().max() > 1e-6


class Stopped(Exception):
    """The machine is taken away."""


@pytest.mark.parametrize("options", [DPSAT(noise=0.5, average=0.9), SGD(average=0.9)])
def test_a_training_goes_on_where_it_was_stopped(options, images: GroupedData, tmp_path) -> None:
    """Noise, the last noisy gradient and averages included: bit for bit as without an interruption."""
    schedule, whole, resumed = replace(STEP, epochs=4, momentum=0.9), mlp(images), mlp(images)
    rows, _ = fitted(whole, images, options, schedule)

    def stop(epoch: int) -> None:
        if epoch == 2:
            raise Stopped

    store = ResultStore(tmp_path)
    with pytest.raises(Stopped), resumable(store, name="stage", every=0):
        fitted(resumed, images, options, schedule, after_epoch=stop)
    resumed = mlp(images)
    with resumable(store, name="stage", every=0) as kept:
        again, _ = fitted(resumed, images, options, schedule)
    assert kept.earlier > 0
    assert again == rows
    assert same(whole, resumed)
