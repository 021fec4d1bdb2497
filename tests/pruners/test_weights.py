"""Weight switches: against `torch.nn.utils.prune`, through training, copies, ensembles, gates and files."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from thin import WIDTHS as THIN
from torch import nn
from torch.nn.utils import parametrizations, prune

from linfair import gates, weights
from linfair.ensemble import Ensemble
from linfair.gates import GateError
from linfair.linearizers import even_units, top_units
from linfair.masks import Mask, apply_mask, masks_of
from linfair.metrics import parameter_distance
from linfair.models import NETWORKS, build

SHAPE = (1, 12, 12)
WIDTHS = THIN | {"resnet18": 4}


def network(name: str = "resnet18", seed: int = 0) -> nn.Module:
    return build(name, SHAPE, 3, width=WIDTHS[name], seed=seed).eval()


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def smallest_removed(model: nn.Module, kept: int, choose=top_units) -> Mask:
    """The mask of the largest weights of a network with switches."""
    scores = {site: weight.detach().abs() for site, (_, weight) in weights.switches(model).items()}
    (mask,) = weights.masks_of(model)
    return Mask(choose(scores, kept), mask.structure, "weight")


def pruned(model: nn.Module, share: float = 0.3, *, everything: bool = False) -> nn.Module:
    switched = weights.install(model, everything=everything)
    kept = round(share * weights.WEIGHTS.total(switched))
    return weights.apply_mask(switched, smallest_removed(switched, kept))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_of_convolutions_and_linear_layers_is_a_unit_and_nothing_changes(name: str) -> None:
    model = network(name)
    switched = weights.install(model, SHAPE)
    layers = {path: one for path, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    assert list(weights.switches(switched)) == [f"{path}.weight" for path in layers]
    assert weights.WEIGHTS.total(switched) == sum(one.weight.numel() for one in layers.values())
    assert torch.equal(switched(images()), model(images()))
    assert weights.switches(model) == {}


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.05])
def test_the_mask_is_that_of_torchs_global_and_layerwise_pruning(share: float) -> None:
    model, theirs = network(), network()
    layers = {path: one for path, one in theirs.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    switched = weights.install(model)
    kept = round(share * weights.WEIGHTS.total(switched))
    left = weights.WEIGHTS.total(switched) - kept
    prune.global_unstructured([(one, "weight") for one in layers.values()], prune.L1Unstructured, amount=left)
    mask = smallest_removed(switched, kept)
    assert mask.kept == kept
    for path, one in layers.items():
        assert torch.equal(mask.units[f"{path}.weight"], one.weight_mask.bool())
    weights.apply_mask(switched, mask)
    assert torch.equal(switched(images()), theirs(images()))


def test_the_layerwise_mask_is_that_of_torchs_own_in_each_layer() -> None:
    switched = weights.install(network())
    total = weights.WEIGHTS.total(switched)
    mask = smallest_removed(switched, round(0.3 * total), even_units)
    for site, (_, weight) in weights.switches(switched).items():
        layer = nn.Linear(1, 1)
        layer.weight = nn.Parameter(weight.detach().clone())
        prune.l1_unstructured(layer, "weight", amount=weight.numel() - mask.per_site[site])
        assert torch.equal(mask.units[site], layer.weight_mask.bool())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_removed_weights_stay_exactly_zero_through_momentum_and_weight_decay(optimizer: str) -> None:
    model = pruned(network()).train()
    (before,) = weights.masks_of(model)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    options = {"momentum": 0.9} if optimizer == "sgd" else {}
    step = kinds[optimizer](model.parameters(), lr=0.05, weight_decay=0.01, **options)
    start = copy.deepcopy(model.state_dict())
    for _ in range(3):
        step.zero_grad()
        model(images()).square().sum().backward()
        step.step()
    for site, weight in weights.named(model):
        if site in before.units:
            assert (weight[~before.units[site]] == 0).all()
    assert any(not torch.equal(start[name], value) for name, value in model.state_dict().items())
    assert weights.masks_of(model)[0].jaccard(before) == 1


def test_a_removed_weight_has_no_gradient_and_a_kept_one_that_of_the_plain_network() -> None:
    model = pruned(network())
    flat = weights.plain(model)
    for one in (model, flat):
        one(images()).square().sum().backward()
    theirs = dict(flat.named_parameters())
    for site, (switch, weight) in weights.switches(model).items():
        assert torch.equal(weight.grad, theirs[site].grad * switch.kept)


def test_copies_are_independent_and_the_plain_network_computes_the_same() -> None:
    """Torch's own pruned modules cannot be deep-copied after a forward pass."""
    model = pruned(network())
    x = images()
    expected = model(x)
    twin, flat = copy.deepcopy(model), weights.plain(model)
    assert list(flat.state_dict()) == list(network().state_dict())
    assert torch.equal(flat(x), expected)
    assert torch.equal(twin(x), expected)
    assert torch.equal(model(x), expected)
    weights.apply_mask(twin, smallest_removed(twin, 100))
    assert torch.equal(model(x), expected)


def test_a_shared_weight_is_one_parameter_before_and_after() -> None:
    """Oracle: the distance that the network has with its switches."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    switched = pruned(model)
    flat = weights.plain(switched)
    assert flat[0].weight is flat[2].weight
    assert parameter_distance(flat, model) == parameter_distance(switched, model)
    x = torch.randn(3, 4)
    assert torch.equal(flat(x), switched(x))


def test_an_ensemble_of_pruned_networks_computes_what_each_does() -> None:
    models = [pruned(network(seed=seed), share) for seed, share in ((0, 0.3), (1, 0.2))]
    both = Ensemble(models)
    x = images()
    torch.testing.assert_close(both(torch.stack([x, x])), torch.stack([one(x) for one in models]))
    for mask, one in zip(weights.masks_of(both), models, strict=True):
        assert mask.jaccard(weights.masks_of(one)[0]) == 1
        assert mask.structure == weights.masks_of(one)[0].structure
    assert torch.equal(both.member(1)(x), models[1](x))


@pytest.mark.parametrize("everything", [False, True])
def test_either_mask_fits_before_and_after_the_other_reduction(everything: bool) -> None:
    model, x = network(), images()
    gated = gates.install(model, SHAPE)
    gates.set_alphas(
        gated, lambda _, a: (torch.rand(a.shape, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    )
    (relus,), (kept,) = masks_of(gated), weights.masks_of(pruned(model, everything=everything))
    install = partial(weights.install, everything=everything)
    first = apply_mask(gates.install(weights.apply_mask(install(model), kept), SHAPE), relus)
    second = weights.apply_mask(install(apply_mask(gates.install(model, SHAPE), relus)), kept)
    assert torch.equal(first(x), second(x)) and torch.equal(weights.plain(first)(x), first(x))
    for one in (first, second):
        assert masks_of(one)[0].jaccard(relus) == 1
        assert weights.masks_of(one)[0].jaccard(kept) == 1
    assert torch.equal(weights.masked(model, SHAPE, kept)(x), pruned(model, everything=everything)(x))
    with pytest.raises(GateError, match="weights are kept, not which ReLUs"):
        apply_mask(gates.install(model, SHAPE), kept)
    with pytest.raises(GateError, match="ReLUs are kept, not which weights"):
        weights.apply_mask(weights.install(model), relus)


def test_a_mask_file_says_its_kind(tmp_path: Path) -> None:
    (mask,) = weights.masks_of(pruned(network()))
    read = Mask.load(mask.save(tmp_path / "one.mask.safetensors"))
    assert (read.kind, read.kept, read.structure) == ("weight", mask.kept, mask.structure)
    assert read.jaccard(mask) == 1
    weights.apply_mask(weights.install(network(seed=5)), read)
    with pytest.raises(GateError, match="another network"):
        weights.apply_mask(weights.install(network("vgg19")), read)


def test_everything_means_biases_and_batch_norm_too() -> None:
    model = network()
    every = weights.install(model, everything=True)
    assert set(weights.switches(every)) == {name for name, _ in model.named_parameters()}
    (mask,) = weights.masks_of(every)
    weights.apply_mask(every, Mask({site: unit & False for site, unit in mask.units.items()}, mask.structure, "weight"))
    assert (every(images()) == 0).all()


class Back(nn.Module):
    """Uses the weight of another layer, transposed."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Back to the layer's input."""
        return x @ self.weight


def test_a_weight_that_another_module_uses_too_is_pruned_there_as_well() -> None:
    """The mask is the oracle, after a step that moves every entry; the plain network still shares it."""
    layer = nn.Linear(4, 3)
    switched = weights.install(nn.Sequential(layer, nn.ReLU(), Back(layer.weight)))
    (mask,) = weights.masks_of(switched)
    kept = {"0.weight": torch.arange(12).view(3, 4) % 3 == 0}
    weights.apply_mask(switched, Mask(kept, mask.structure, "weight"))
    switched(torch.ones(2, 4)).sum().backward()
    torch.optim.SGD(switched.parameters(), lr=0.1).step()
    plain = weights.plain(switched)
    assert plain[2].weight is plain[0].weight and torch.equal(plain[2].weight != 0, kept["0.weight"])
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x), switched(x))


def test_shared_and_otherwise_parametrised_weights() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    switched = weights.install(tied)
    assert list(weights.switches(switched)) == ["0.weight"]
    (mask,) = weights.masks_of(switched)
    weights.apply_mask(switched, Mask({"0.weight": torch.eye(3).bool()}, mask.structure, "weight"))
    assert torch.equal(switched[0].weight, switched[2].weight)
    assert int((switched[0].weight != 0).sum()) == 3
    normed = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    assert list(weights.switches(weights.install(normed))) == ["2.weight"]
    with pytest.raises(GateError, match="nothing to prune"):
        weights.install(nn.Sequential(nn.ReLU()))
    with pytest.raises(GateError, match="already"):
        weights.install(switched)


def test_the_distance_is_that_of_the_weights_as_they_are_used() -> None:
    model = network()
    smaller = pruned(model)
    theirs, ours = dict(weights.plain(smaller).named_parameters()), dict(model.named_parameters())
    moved = sum((theirs[name] - ours[name]).detach().double().square().sum().item() for name in ours) ** 0.5
    assert parameter_distance(smaller, model).distance == pytest.approx(moved, rel=1e-12)
