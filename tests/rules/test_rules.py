"""Rules that are not private, what all rules have, and how they are written."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from image_by_image import batch_of, flat, image_gradients, loss_on, mlp, shortened
from pytorch_optimizer import SAM as THEIRS  # noqa: N814
from torch import nn

from linfair.data import GroupedData, Split, load_data
from linfair.ensemble import Ensemble
from linfair.mitigation import GroupDRO, Lagrangian
from linfair.mitigation import resolve as mitigation
from linfair.models import build
from linfair.rules import ASAM, DPSAT, DPSGD, RULES, SAM, SGD, Clipped, canonical, resolve, train
from linfair.rules.options import Repeated
from linfair.rules.private import poisson
from linfair.training import Distill, Schedule, Source, fit, shuffled

STEP = Schedule(epochs=2, batch_size=40, lr=0.3, momentum=0.9)


def fitted(model: nn.Module, data, options, schedule: Schedule = STEP, **how: object):
    return train(model, data, schedule, rule=options, seeds=how.pop("seeds", [3]), progress=False, **how)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("adaptive", [False, True])
def test_sharpness_aware_training_is_that_of_pytorch_optimizer(adaptive: bool, toy: GroupedData) -> None:
    """Three epochs with momentum, to the rounding of float64; theirs has no eta."""
    model, other = mlp(toy), mlp(toy)
    fitted(model, toy, ASAM(rho=0.4, eta=0.0) if adaptive else SAM(rho=0.1))
    optimizer = THEIRS(
        other.parameters(), torch.optim.SGD, rho=0.4 if adaptive else 0.1, adaptive=adaptive, lr=0.3, momentum=0.9
    )
    for epoch in range(2):
        for index, _ in Source(toy, "train").epoch([f"3/base/{epoch}"], 40, augment=True):
            batch = batch_of(toy, index[0])

            def closure(batch=batch) -> torch.Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(other(batch.x), batch.y)
                loss.backward()
                return loss

            closure()
            optimizer.step(closure)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-6, atol=1e-7)  # their norms are float32


def test_adaptive_steps_are_scaled_by_the_sizes_of_the_weights_and_eta(toy: GroupedData) -> None:
    """The gradient at w + rho T^2 g / |T g|, T = |w| + eta, by hand."""
    model, batch = mlp(toy), batch_of(toy, torch.arange(30))
    there, weights = copy.deepcopy(model), list(model.parameters())
    up = torch.autograd.grad(F.cross_entropy(model(batch.x), batch.y), weights)
    sizes = [one.detach().abs() + 0.2 for one in weights]
    norm = torch.cat([(t * g).flatten() for t, g in zip(sizes, up, strict=True)]).norm()
    with torch.no_grad():
        for one, t, g in zip(there.parameters(), sizes, up, strict=True):
            one += 0.5 * t**2 * g / norm
    F.cross_entropy(there(batch.x), batch.y).backward()
    before = copy.deepcopy(model)
    loss = ASAM(rho=0.5, eta=0.2).start(model, toy, STEP).gradient(model, loss_on(model), batch)
    torch.testing.assert_close(flat(model), flat(there), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss, F.cross_entropy(before(batch.x), batch.y).detach())
    assert same(model, before)


@pytest.mark.parametrize("options", [SAM(rho=0.3), ASAM(), Clipped(max_norm=0.1)], ids=lambda one: one.name)
def test_members_of_an_ensemble_are_trained_as_each_alone(options: object, toy: GroupedData) -> None:
    alone = [mlp(toy, seed) for seed in range(3)]
    together = Ensemble(alone)
    fitted(together, [toy] * 3, options, seeds=[3, 4, 5])
    for member, one in enumerate(alone):
        fitted(one, toy, options, seeds=[3 + member])
        for name, value in together.member(member).state_dict().items():
            torch.testing.assert_close(value, one.state_dict()[name], rtol=1e-9, atol=1e-12)


def test_running_moments_are_those_at_the_weights_themselves(images: GroupedData) -> None:
    """Not those after a step uphill: at a learning rate of 0, those of plain training."""
    models = [build("resnet18", images.input_shape, images.classes, width=4, seed=0) for _ in range(2)]
    still = replace(STEP, epochs=1, batch_size=500, lr=0.0)
    for model, options in zip(models, (SGD(), SAM(rho=5.0)), strict=True):
        fitted(model, images, options, still)
    assert same(*models)


def test_a_mitigation_can_be_trained_with_sam(images: GroupedData) -> None:
    model = mlp(images)
    objective = mitigation("lagrangian").start(model, copy.deepcopy(model), images)
    rows, guarantee = fitted(model, images, "sam", objective=objective, check=objective.after_epoch)
    assert guarantee is None
    assert len(objective.rows) == len(rows) == 2


@pytest.mark.parametrize(
    "options", [GroupDRO(step=0.5), Lagrangian(accumulate="batches", mu=0.5)], ids=lambda o: o.name
)
def test_a_mitigation_counts_a_batch_once_in_a_step_of_sam(options: object, toy: GroupedData) -> None:
    """At a learning rate of 0 its weights, multipliers and absent groups are those of plain training."""
    logs = []
    for rule in ("sgd", "sam(rho=2.0)"):
        objective = options.start(model := mlp(toy), copy.deepcopy(model), toy, distill=Distill(model, toy, kd=0.0))
        how = {"objective": objective, "check": objective.after_epoch}
        fitted(model, toy, rule, replace(STEP, epochs=1, batch_size=8, lr=0.0), **how)
        logs.append(objective.rows)
    assert logs[0] == logs[1] and sum(map(sum, logs[0][0]["absent"]))


@pytest.mark.parametrize("members", [1, 2])
def test_plain_training_is_that_of_fit(members: int, images: GroupedData) -> None:
    """Bit for bit, by any way to say it."""
    data = images if members == 1 else [images] * 2
    made = [mlp(images) if members == 1 else Ensemble([mlp(images, 0), mlp(images, 1)]) for _ in range(4)]
    rows = fit(made[0], data, schedule=STEP, seeds=range(members), progress=False)
    for model, rule in zip(made[1:], (None, "sgd", SGD()), strict=True):
        again, guarantee = fitted(model, data, rule, seeds=range(members))
        assert again == rows
        assert guarantee is None
        assert same(model, made[0])


@pytest.mark.parametrize("options", [SGD(average=0.95), DPSGD(noise=0.5, average=0.5)])
def test_the_average_of_the_weights_becomes_the_network(options: object, toy: GroupedData) -> None:
    """The rule v <- d v + (1 - d) w, d = min(decay, (1 + t) / (10 + t)), v at first the initial weights; by hand."""
    model, seen = mlp(toy), []
    hand = {name: one.clone() for name, one in model.state_dict().items()}

    def note(steps: int) -> None:
        seen.append(steps)
        decay = min(options.average, (1 + steps - 1) / (10 + steps - 1))
        for name, one in model.state_dict().items():
            hand[name] = decay * hand[name] + (1 - decay) * one

    fitted(model, toy, options, after_step=note)
    assert seen == list(range(1, 11))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, hand[name], rtol=1e-9, atol=1e-12)
    bare = mlp(toy)
    fitted(bare, toy, replace(options, average=0.0))
    assert not same(model, bare)


def test_shifts_of_an_image_are_drawn_one_by_one(images: GroupedData) -> None:
    """Each image as often as was asked for, in a row, each time moved on its own."""
    keys, plan = ["3/base/0"], Repeated(4, shuffled)
    batches = Source(images, "train").epoch(keys, 100, True, plan)
    order = torch.cat([index[0] for index, _ in batches]).view(-1, 4)
    assert (order == order[:, :1]).all()
    assert sorted(order[:, 0].tolist()) == list(range(len(images.splits["train"])))
    moved = torch.cat([shifts[:, 0] for _, shifts in batches], dim=1).T.unflatten(0, (-1, 4))
    assert (moved != moved[:, :1]).any(dim=(1, 2)).float().mean() > 0.8


@pytest.mark.parametrize("rule", ["sgd(multiplicity=3)", "dp_sgd(multiplicity=3, noise=0, clip=0.5, physical=50)"])
def test_an_image_counts_by_the_mean_over_its_shifts(rule: str, images: GroupedData) -> None:
    """One step on all images, in float64; a private rule clips that mean; of members too."""
    parts = {name: Split(images.normalise(one.x).double(), one.y, one.a) for name, one in images.splits.items()}
    data, schedule = replace(images, splits=parts), replace(STEP, epochs=1, batch_size=None)
    model = mlp(data)
    plan = poisson if rule.startswith("dp") else shuffled
    ((index, shifts),) = Source(data, "train").epoch(["3/base/0"], None, True, Repeated(3, plan))
    batch = Source(data, "train").take(index, shifts)
    every = image_gradients(model, batch.x.unflatten(0, (-1, 3)), batch.y[::3])
    step = sum(shortened(one, 0.5 if rule.startswith("dp") else math.inf) for one in every) / len(every)
    before = torch.cat([one.detach().flatten() for one in model.parameters()])
    pair = Ensemble([mlp(data, 1), model])
    fitted(pair, [data] * 2, rule, schedule, seeds=[4, 3])
    fitted(model, data, rule, schedule)
    for one in (model, pair.member(1)):
        after = torch.cat([value.detach().flatten() for value in one.parameters()])
        torch.testing.assert_close(after, before - schedule.lr * step, rtol=1e-9, atol=1e-12)


def test_shifts_are_refused_where_there_are_none(images: GroupedData) -> None:
    fixed = load_data("digits", seed=3, shift=0)
    for data, schedule in ((fixed, STEP), (images, replace(STEP, augment=False))):
        for rule in ("sgd(multiplicity=2)", "dp_sgd(multiplicity=2)"):
            with pytest.raises(ValueError, match="multiplicity=2.*shift or crop above 0.*multiplicity=1"):
                fitted(mlp(data), data, rule, schedule)


@pytest.mark.parametrize("name", RULES)
def test_rules_are_written_in_one_way(name: str) -> None:
    options = RULES[name]()
    assert canonical(name) == canonical(options) == canonical(f"{name}()") == name
    assert resolve(canonical(replace(options, average=0.5))) == replace(options, average=0.5)
    assert options.name == name


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("dpsgd", "dp_sgd"),
        ("dp_sgd(epsilom=3)", "epsilon"),
        ("dp_sgd(epsilon=0)", "above 0.*0"),
        ("dp_sgd(epsilon='3')", "number"),
        ("dp_sgd(delta=1)", "between 0 and 1"),
        ("dp_sgd(noise=-1)", "-1"),
        ("dp_sgd(noise=1e-200)", "0.001.*1e-200"),
        ("dp_sgd(clip=0)", "above 0"),
        ("dp_sgd(physical=0)", "1 or more"),
        ("dp_sgd(multiplicity=0)", "1 or more"),
        ("dp_sat(rho=-0.1)", "-0.1"),
        ("sam(rho=-0.1)", "-0.1"),
        ("asam(eta=-1)", "-1"),
        ("clipped(max_norm=0)", "above 0"),
        ("sgd(average=1)", "decay"),
        ("sgd(3)", "name"),
        ("dp-sgd", "name"),
        ("__import__('os')", "name"),
        ("", "name"),
    ],
)
def test_what_is_no_rule_is_refused(rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resolve(rule)


@pytest.mark.parametrize("rule", [3, SGD, DPSAT])
def test_what_is_no_text_and_no_options_is_refused(rule: object) -> None:
    with pytest.raises(ValueError, match="a rule is one of"):
        resolve(rule)
