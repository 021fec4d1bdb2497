"""Other gradients and other batches in the one loop, against loops written out."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.models import build
from linfair.schedule import Loss, plain
from linfair.training import Batch, Schedule, Source, fit

SGD = Schedule(epochs=2, batch_size=100, lr=0.05, momentum=0.9)
RHO, NORM = 0.05, 0.5


def mlp(data: GroupedData, seed: int = 0) -> nn.Module:
    return build("mlp", data.input_shape, data.classes, width=8, seed=seed)


def sharpness_aware(model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
    """SAM (Foret et al., ICLR 2021): the gradient where the loss is largest within `RHO`, to first order."""
    values = plain(model, loss, batch)
    before = [weight.detach().clone() for weight in model.parameters()]
    norm = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()
    with torch.no_grad():
        for weight in model.parameters():
            weight += RHO * weight.grad / norm
    plain(model, loss, batch)
    with torch.no_grad():
        for weight, old in zip(model.parameters(), before, strict=True):
            weight.copy_(old)
    return values


def clipped_by_sample(model: nn.Module, loss: Loss, batch: Batch) -> Tensor:
    """The mean of each input's own gradient, shortened to `NORM`: what DP-SGD adds its noise to."""
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def of_one(given: dict[str, Tensor], *fields: Tensor) -> Tensor:
        alone = Batch(*(field.unsqueeze(0) for field in fields), augmented=batch.augmented)
        return loss(alone, lambda x: functional_call(model, given, (x,)))

    each = vmap(grad(of_one), (None, 0, 0, 0, 0))(weights, batch.x, batch.y, batch.a, batch.index)
    norms = torch.stack([one.flatten(1).norm(dim=1) for one in each.values()]).norm(dim=0)
    for name, weight in model.named_parameters():
        shortened = each[name] * (NORM / norms).clamp(max=1).view(-1, *[1] * weight.ndim)
        weight.grad = shortened.mean(dim=0)
    return loss(batch).detach()


def by_hand(model: nn.Module, data: GroupedData, gradients: Callable[[nn.Module, Tensor, Tensor], None]) -> nn.Module:
    """The loop written out, on the batches of `fit`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    source = Source(data, "train")
    for epoch in range(2):
        for index, shifts in source.epoch([f"3/base/{epoch}"], 100, augment=True):
            batch = source.take(index, shifts)
            optimizer.zero_grad()
            gradients(model, batch.x, batch.y)
            optimizer.step()
    return model


def ascended(model: nn.Module, x: Tensor, y: Tensor) -> None:
    up = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    norm = torch.sqrt(sum((one**2).sum() for one in up))
    there = copy.deepcopy(model)
    with torch.no_grad():
        for weight, one in zip(there.parameters(), up, strict=True):
            weight += RHO * one / norm
    F.cross_entropy(there(x), y).backward()
    for weight, other in zip(model.parameters(), there.parameters(), strict=True):
        weight.grad = other.grad


def one_by_one(model: nn.Module, x: Tensor, y: Tensor) -> None:
    total = [torch.zeros_like(weight) for weight in model.parameters()]
    for image, label in zip(x, y, strict=True):
        own = torch.autograd.grad(F.cross_entropy(model(image[None]), label[None]), list(model.parameters()))
        norm = torch.sqrt(sum((one**2).sum() for one in own)).item()
        total = [before + one * min(1.0, NORM / norm) / len(y) for before, one in zip(total, own, strict=True)]
    for weight, one in zip(model.parameters(), total, strict=True):
        weight.grad = one


@pytest.mark.parametrize(("rule", "gradients"), [(sharpness_aware, ascended), (clipped_by_sample, one_by_one)])
def test_a_rule_trains_as_a_loop_written_out_with_it(
    rule: Callable[..., Tensor], gradients: Callable[..., None], digits: GroupedData
) -> None:
    """To rounding after two epochs; and plain gradients end elsewhere."""
    model, other = mlp(digits), mlp(digits)
    history = fit(model, digits, schedule=SGD, seeds=[3], gradient=rule, progress=False)
    fit(other, digits, schedule=SGD, seeds=[3], progress=False)
    expected = by_hand(mlp(digits), digits, gradients).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
        assert (value - other.state_dict()[name]).abs().max() > 1e-3
    assert history[1]["loss"] < history[0]["loss"]


def in_order(groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
    """Every image once, in the order of the data set; the last batch is the rest."""
    return torch.arange(len(groups)).split(batch_size)


def drawn_at_random(groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
    """Poisson batches: each image is in each batch with the same probability."""
    hits = torch.rand(4, len(groups), generator=generator) < batch_size / len(groups)
    return [hit.nonzero().flatten() for hit in hits]


@pytest.mark.parametrize("plan", [in_order, drawn_at_random])
def test_a_plan_trains_as_a_loop_written_out_on_its_batches(plan: Callable[..., Sequence[Tensor]]) -> None:
    """Bit for bit, with batches of any sizes; an epoch's loss is the mean over what was visited, steps are counted."""
    data = load_data("digits", seed=3, shift=0)
    train, seen, steps = data.splits["train"], [], []
    schedule = replace(SGD, batch_size=150)

    def noted(groups: Tensor, batch_size: int | None, generator: torch.Generator) -> Sequence[Tensor]:
        seen.append(plan(groups, batch_size, generator))
        return seen[-1]

    model, other = mlp(data), mlp(data)
    history = fit(model, data, schedule=schedule, seeds=[3], batches=noted, after_step=steps.append, progress=False)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    for row, batches in zip(history, seen, strict=True):
        losses = []
        for index in batches:
            loss = F.cross_entropy(other(data.normalise(train.x[index])), train.y[index], reduction="none")
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
            losses.append(loss.detach())
        assert row["loss"][0] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert steps == list(range(1, 1 + sum(map(len, seen))))
    assert len({len(index) for batches in seen for index in batches}) > 1


def test_members_of_an_ensemble_need_batches_of_one_size(digits: GroupedData) -> None:
    pair = Ensemble([mlp(digits, 0), mlp(digits, 1)])
    with pytest.raises(ValueError, match="train one network at a time"):
        fit(pair, [digits, digits], schedule=SGD, seeds=[3, 4], batches=drawn_at_random, progress=False)
