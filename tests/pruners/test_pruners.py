"""Pruners: every method on two networks, and what all must hold; retraining, control, batch norm, rounds."""

import copy
from dataclasses import replace

import pytest
import torch
from thin import WIDTHS
from torch import nn
from torch.nn.utils import prune

from linfair import weights
from linfair.data import GroupedData, Split, load_data
from linfair.ensemble import Ensemble
from linfair.linearizers import LinearizedModel, control, linearize
from linfair.linearizers.registry import find
from linfair.models import NETWORKS, build
from linfair.pruners import PRUNERS, Iterative, Pruning, oneshot
from linfair.training import Schedule, fit, predict, supervised

ON = {
    "prune_magnitude": ("two mlps", "resnet18", "resnet34"),
    "prune_layerwise": ("mlp", "vgg19", "resnet50"),
    "prune_random": ("two mlps", "wrn22_8", "vgg19_imagenet"),
    "prune_snip": ("mlp", "resnet18", "cnn", "wrn16_4"),
    "prune_iterative": ("two mlps", "resnet18"),
}
CASES = [(network, method) for method, networks in ON.items() for network in networks]
BUDGETS = (0.5, 0.1)
TUNE = Schedule(epochs=2, batch_size=32, lr=0.02, momentum=0.9, weight_decay=1e-3)
ROUNDS = Iterative(rate=0.5, epochs=1, schedule=replace(TUNE, epochs=20))


def digits(seed: int) -> GroupedData:
    data = load_data("digits", seed=seed)
    cut = {name: Split(one.x[:96], one.y[:96], one.a[:96]) for name, one in data.splits.items()}
    return replace(data, splits=cut, shift=0)


def taught(name: str) -> tuple[nn.Module, object, tuple[int, ...]]:
    kind, seeds = ("mlp", (5, 6)) if name == "two mlps" else (name, (3,))
    sets = [digits(seed) for seed in seeds]
    networks = [build(kind, (1, 12, 12), 10, width=WIDTHS[kind], seed=seed) for seed in seeds]
    model, data = (Ensemble(networks), sets) if len(seeds) > 1 else (networks[0], sets[0])
    fit(model, data, supervised, replace(TUNE, epochs=4), seeds=seeds, progress=False)
    return model.eval(), data, seeds


def run(name: str, method: str, **options: object) -> tuple[nn.Module, object, tuple[int, ...], list[LinearizedModel]]:
    model, data, seeds = taught(name)
    chosen = ROUNDS if method == "prune_iterative" else Pruning(**options)
    how = {"budgets": BUDGETS, "method": method, "seeds": seeds, "options": chosen, "finetuning": TUNE}
    return model, data, seeds, linearize(model, data, **how, progress=False)


def test_the_table_has_every_pruner_and_every_network() -> None:
    assert set(ON) == set(PRUNERS)
    assert {"mlp" if name == "two mlps" else name for name, _ in CASES} == set(NETWORKS)
    assert all(find(name).reduction.kind == "weight" for name in PRUNERS)


@pytest.mark.parametrize(("network", "method"), CASES)
def test_the_count_is_exact_and_removed_weights_are_zero_after_retraining(
    network: str, method: str, one_thread: None
) -> None:
    model, _, seeds, records = run(network, method)
    before = copy.deepcopy(model.state_dict())
    single = model.networks()[0] if isinstance(model, Ensemble) else model
    total = sum(one.weight.numel() for one in single.modules() if isinstance(one, nn.Conv2d | nn.Linear))
    assert [one.kept for one in records] == [(round(budget * total),) * len(seeds) for budget in BUDGETS]
    for one in records:
        networks = one.model.networks() if isinstance(one.model, Ensemble) else [one.model]
        for pruned, mask in zip(networks, one.masks, strict=True):
            assert mask.total == total
            used = dict(weights.named(pruned))
            for site, unit in mask.units.items():
                assert (used[site][~unit] == 0).all()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    if method in ("prune_magnitude", "prune_iterative"):  # one order, so masks are nested
        for large, small in zip(records[0].masks, records[1].masks, strict=True):
            assert method == "prune_iterative" or all((large.units[s] | ~unit).all() for s, unit in small.units.items())


def test_magnitude_keeps_the_largest_and_random_depends_on_the_seed() -> None:
    model, data, _ = taught("mlp")
    one = find("prune_magnitude").run(model, data, [0.3], seeds=[0], progress=False)[0]
    values = dict(model.named_parameters())
    kept = torch.cat([values[site][unit].abs() for site, unit in one.mask.units.items()])
    lost = torch.cat([values[site][~unit].abs() for site, unit in one.mask.units.items()])
    assert kept.min() >= lost.max()
    first, again, other = (
        find("prune_random").run(model, data, [0.3], seeds=[s], progress=False)[0] for s in (0, 0, 1)
    )
    assert first.mask.jaccard(again.mask) == 1 > first.mask.jaccard(other.mask)


@pytest.mark.parametrize("method", ["prune_magnitude", "prune_layerwise", "prune_iterative"])
def test_of_equal_weights_those_stay_that_torchs_own_pruning_keeps(method: str) -> None:
    """Weights on a coarse grid, so that many are equal where the cut falls; the first round trains nothing."""
    model, data, _ = taught("cnn")
    layers = {path: one for path, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    for one in layers.values():
        one.weight.data = (20 * one.weight.data).round() / 20
    records = find(method).run(model, data, [0.8], seeds=[0], progress=False)
    theirs = copy.deepcopy(model)
    layers = [theirs.get_submodule(path) for path in layers]
    mask = records[0].mask
    if method == "prune_layerwise":
        for path, one in zip(mask.units, layers, strict=True):
            prune.l1_unstructured(one, "weight", amount=one.weight.numel() - mask.per_site[path])
    else:
        cut = {"pruning_method": prune.L1Unstructured, "amount": mask.total - mask.kept}
        prune.global_unstructured([(one, "weight") for one in layers], **cut)
    assert all(torch.equal(unit, one.weight_mask.bool()) for unit, one in zip(mask.units.values(), layers, strict=True))


def test_snip_scores_are_the_loss_lost_to_first_order() -> None:
    """|w dL/dw| against the difference of losses when a weight is made slightly smaller, in float64."""
    model, data, _ = taught("mlp")
    data = replace(data, splits={n: Split(s.x.double(), s.y, s.a) for n, s in data.splits.items()})
    switched = weights.install(model.double()).eval()
    scores = oneshot.snip_scores(switched, data, 0, Pruning(batch_size=40))
    site, (_, weight) = next(iter(weights.switches(switched).items()))
    x, y = data.normalise(data.splits["train"].x), data.splits["train"].y
    best = int(scores[site].argmax())
    losses, step = [], 1e-5
    with torch.no_grad():
        for factor in (1 - step, 1 + step):
            kept = weight.flatten()[best].clone()
            weight.view(-1)[best] *= factor
            losses.append(nn.functional.cross_entropy(switched(x), y).item())
            weight.view(-1)[best] = kept
    assert scores[site].flatten()[best].item() == pytest.approx(abs(losses[1] - losses[0]) / (2 * step), rel=1e-4)


def test_the_control_keeps_every_weight_and_trains_as_long() -> None:
    for method, options in (("prune_magnitude", Pruning()), ("prune_iterative", ROUNDS)):
        model, data, seeds = taught("mlp")
        one = find(method)
        records = one.run(model, data, BUDGETS, seeds=seeds, options=options, progress=False)
        arm = control(model, data, records, seeds=seeds, progress=False, **one.phase(options, model, data, seeds))
        assert [c.kept for c in arm] == [(mask.total,) for mask in (records[0].mask,) * 2]
        assert [c.epochs for c in arm] == [r.epochs for r in records]
        assert [c.steps for c in arm] == [r.steps for r in records]
        assert all(c.reduction is r.reduction for c, r in zip(arm, records, strict=True))


def test_batch_norm_is_re_estimated_on_the_training_split_when_asked_for() -> None:
    """Oracle: the mean and variance of the first batch norm's inputs over the training split, computed here."""
    model, data, _ = taught("resnet18")
    stale, fresh = (
        find("prune_magnitude").run(model, data, [0.1], seeds=[0], options=Pruning(reestimate=on), progress=False)[0]
        for on in (False, True)
    )
    assert stale.mask.jaccard(fresh.mask) == 1
    norm, old = fresh.model.stem[1], model.stem[1]
    assert torch.equal(stale.model.stem[1].running_mean, old.running_mean)
    inputs = fresh.model.stem[0](data.normalise(data.splits["train"].x)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, inputs.mean(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, inputs.var(dim=1), rtol=1e-4, atol=1e-5)
    assert not fresh.model.training


def test_an_ensemble_of_one_is_pruned_in_rounds_as_its_network() -> None:
    model, data, seeds = taught("mlp")
    how = {"seeds": seeds, "options": ROUNDS, "progress": False}
    runs = (find("prune_iterative").run(*both, BUDGETS, **how) for both in ((model, data), (Ensemble([model]), [data])))
    for alone, member in zip(*runs, strict=True):
        assert all(torch.equal(unit, member.mask.units[site]) for site, unit in alone.mask.units.items())


def test_the_rounds_are_geometric_and_stop_at_every_budget() -> None:
    assert Iterative(rate=0.2).rounds([0.64]) == pytest.approx([0.8, 0.64])
    assert Iterative(rate=0.5).rounds([0.9, 0.1]) == pytest.approx([0.9, 0.45, 0.225, 0.1125, 0.1])
    model, data, seeds = taught("mlp")
    with pytest.raises(ValueError, match="need 3 epochs"):
        short = replace(ROUNDS, schedule=replace(TUNE, epochs=2))
        find("prune_iterative").run(model, data, [0.1], seeds=seeds, options=short, progress=False)
    with pytest.raises(ValueError, match="rate is a share"):
        Iterative(rate=1.0)
    with pytest.raises(ValueError, match="kd = -1"):
        Iterative(kd=-1.0)


def test_predictions_of_a_record_are_those_of_its_plain_network() -> None:
    _, data, _, records = run("resnet18", "prune_magnitude")
    one = records[-1].model
    assert torch.equal(predict(one, data, "test"), predict(weights.plain(one), data, "test"))
