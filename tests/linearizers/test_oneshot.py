"""One-shot scores against loops, finite differences and autograd; choices against brute force; seeds."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from linfair import gates
from linfair.data import GroupedData, Split, load_data
from linfair.ensemble import Ensemble
from linfair.gates import install
from linfair.linearizers import oneshot
from linfair.linearizers.oneshot import OneShot, even_units, negative_part_scores, snip_scores, top_units
from linfair.linearizers.registry import find
from linfair.models import build

METHODS = ("random", "uniform", "negative_part", "snip")
BUDGETS = (0.9, 0.5, 0.1)


@pytest.fixture(scope="module")
def small() -> GroupedData:
    """37 points of four features, three labels, in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 4, dtype=torch.float64, generator=generator)
    y = torch.randint(0, 3, (37,), generator=generator)
    split = Split(x, y, y % 2)
    return GroupedData("points", {"train": split, "val": split, "test": split}, ("a", "b", "c"), ("even", "odd"))


@pytest.fixture
def points(small: GroupedData) -> nn.Module:
    """An MLP 5-5 in float64, away from its initial biases."""
    torch.manual_seed(1)
    network = build("mlp", (4,), 3, width=5).double()
    for parameter in network.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture(scope="module")
def images(digits: GroupedData) -> GroupedData:
    """60 training images."""
    part = digits.splits["train"]
    return replace(digits, splits=digits.splits | {"train": Split(part.x[::8], part.y[::8], part.a[::8])})


@pytest.fixture(scope="module")
def thin() -> nn.Module:
    """A ResNet18 of width 2, batch-norm statistics not the initial ones."""
    network = build("resnet18", (1, 12, 12), 10, width=2, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        network(1 + 2 * torch.randn(16, 1, 12, 12))
    return network.eval()


def run(method: str, teacher: nn.Module, data: object, budgets: tuple[float, ...] = BUDGETS, seed: int = 0, **options):
    seeds = [seed] if not isinstance(teacher, Ensemble) else [seed, seed + 1]
    return getattr(oneshot, method)(teacher, data, budgets, seeds=seeds, options=OneShot(**options), progress=False)


# Scores


def test_negative_part_equals_a_loop_over_recorded_pre_activations(thin: nn.Module, images: GroupedData) -> None:
    """One image at a time through the ungated network, whose ReLUs write down what they are given."""
    recorded: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _m, args, name=name: recorded.setdefault(name, []).append(args[0][0].clone())
        )
        for name, module in thin.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    with torch.no_grad():
        for image in images.splits["train"].x:
            thin(images.normalise(image[None]))
    for handle in handles:
        handle.remove()
    scores = negative_part_scores(install(thin, images.input_shape), images, 0, OneShot())
    assert set(scores) == set(recorded)
    for site, inputs in recorded.items():
        total = torch.zeros_like(inputs[0], dtype=torch.float64)
        for x in inputs:
            total += (x.relu() - x).abs().double()
        torch.testing.assert_close(scores[site], total / len(inputs), rtol=1e-4, atol=1e-6)


def mean_loss(network: nn.Module, data: GroupedData) -> Tensor:
    part = data.splits["train"]
    return F.cross_entropy(network(part.x), part.y)


def test_snip_equals_finite_differences(points: nn.Module, small: GroupedData) -> None:
    """Central differences of the loss in each alpha, one at a time, around 1; float64."""
    gated = install(points, (4,)).double()
    scores = snip_scores(gated, small, 0, OneShot(batch_size=10))
    step = 1e-6
    for site, gate in gates.sites(gated).items():
        for unit in range(5):
            losses = []
            for side in (1 + step, 1 - step):
                gate.alpha.data[unit] = side
                losses.append(mean_loss(gated, small).item())
            gate.alpha.data[unit] = 1.0
            assert scores[site][unit].item() == pytest.approx(abs(losses[0] - losses[1]) / (2 * step), abs=1e-8)
    assert all((score > 1e-4).any() for score in scores.values())


def test_snip_equals_autograd_through_the_two_term_formula(points: nn.Module, small: GroupedData) -> None:
    """Alpha relu(x) + (1 - alpha) x written out for this network, without linfair's gates."""
    _, one, _, two, _, head = points
    alphas = [torch.ones(5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    x = one(small.splits["train"].x)
    x = two(alphas[0] * torch.relu(x) + (1 - alphas[0]) * x)
    logits = head(alphas[1] * torch.relu(x) + (1 - alphas[1]) * x)
    found = torch.autograd.grad(F.cross_entropy(logits, small.splits["train"].y), alphas)
    scores = snip_scores(install(points, (4,)).double(), small, 0, OneShot())
    for score, gradient in zip(scores.values(), found, strict=True):
        torch.testing.assert_close(score, gradient.abs())


@pytest.mark.parametrize("score", [negative_part_scores, snip_scores])
@pytest.mark.parametrize("batch_size", [1, 7, 59, 1000])
def test_the_batch_size_changes_no_score(
    score: object, batch_size: int, thin: nn.Module, images: GroupedData, small: GroupedData, points: nn.Module
) -> None:
    """To rounding: a network with batch norm, and one in float64."""
    for network, data, tolerance in ((thin, images, 1e-3), (points, small, 1e-10)):
        gated = install(network, data.input_shape).to(next(network.parameters()).dtype)
        expected, found = (score(gated, data, 0, OneShot(batch_size=size)) for size in (64, batch_size))
        for site, values in expected.items():
            torch.testing.assert_close(found[site], values, rtol=tolerance, atol=tolerance * values.max().item())


def test_snip_leaves_no_gradient_and_the_gates_frozen(points: nn.Module, small: GroupedData) -> None:
    gated = gates.freeze(install(points, (4,)))
    snip_scores(gated, small, 0, OneShot())
    assert all(parameter.grad is None for parameter in gated.parameters())
    assert not any(gate.alpha.requires_grad for gate in gates.sites(gated).values())


# Choices


@given(st.lists(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=5), min_size=1, max_size=4), st.data())
def test_top_units_have_the_largest_sum_of_all_choices_of_that_many(scores: list[list[float]], data: object) -> None:
    total = sum(map(len, scores))
    count = data.draw(st.integers(0, total))
    tensors = {str(site): torch.tensor(values) for site, values in enumerate(scores)}
    chosen = top_units(tensors, count)
    assert sum(int(unit.sum()) for unit in chosen.values()) == count
    flat = [value for values in scores for value in values]
    best = sum(sorted(flat, reverse=True)[:count])
    assert sum(tensors[site][unit].double().sum().item() for site, unit in chosen.items()) == pytest.approx(best)


def nearest_counts(sizes: list[int], count: int) -> float:
    """Least sum of squared distances to the exact shares over all ways of keeping `count` units, by trying them all."""
    total = sum(sizes)
    return min(
        sum((n - count * size / total) ** 2 for n, size in zip(counts, sizes, strict=True))
        for counts in product(*(range(size + 1) for size in sizes))
        if sum(counts) == count
    )


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_even_units_are_the_counts_nearest_to_equal_shares(sizes: list[int], data: object) -> None:
    """Largest remainders minimise the distance to the exact shares; within a site the best scores stay."""
    count = data.draw(st.integers(0, sum(sizes)))
    generator = torch.Generator().manual_seed(count)
    scores = {str(site): torch.rand(size, generator=generator) for site, size in enumerate(sizes)}
    chosen = even_units(scores, count)
    counts = [int(unit.sum()) for unit in chosen.values()]
    assert sum(counts) == count
    distance = sum((n - count * size / sum(sizes)) ** 2 for n, size in zip(counts, sizes, strict=True))
    assert distance == pytest.approx(nearest_counts(sizes, count), abs=1e-9)
    for site, unit in chosen.items():
        kept, dropped = scores[site][unit], scores[site][~unit]
        assert not len(kept) or not len(dropped) or kept.min() > dropped.max()


def test_even_units_of_the_full_resnet18s_sites_are_within_one_of_the_share() -> None:
    """16 sites of 65,536 to 8,192 units at 12.3 %, too many for brute force."""
    sizes = [65_536] * 4 + [32_768] * 4 + [16_384] * 4 + [8_192] * 4
    scores = {str(site): torch.arange(size, dtype=torch.float32) for site, size in enumerate(sizes)}
    count = round(0.123 * sum(sizes))
    counts = [int(unit.sum()) for unit in even_units(scores, count).values()]
    assert sum(counts) == count
    assert all(abs(n - count * size / sum(sizes)) < 1 for n, size in zip(counts, sizes, strict=True))


# Masks


@pytest.mark.parametrize("method", METHODS)
def test_every_budget_is_met_exactly_and_smaller_masks_lie_in_larger_ones(
    method: str, thin: nn.Module, images: GroupedData
) -> None:
    records = run(method, thin, images)
    total = gates.total_units(install(thin, images.input_shape))
    assert [one.kept for one in records] == [(round(budget * total),) for budget in BUDGETS]
    assert all((one.method, one.epochs, one.history) == (method, (0,), []) for one in records)
    for larger, smaller in zip(records, records[1:], strict=False):
        for site, unit in smaller.mask.units.items():
            assert not (unit & ~larger.mask.units[site]).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_masks_whatever_the_global_generator(
    method: str, thin: nn.Module, images: GroupedData
) -> None:
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        found.append([one.mask for one in run(method, thin, images, seed=5)])
    assert all(one.jaccard(other) == 1.0 for one, other in zip(*found, strict=True))


def test_another_seed_draws_another_mask_and_the_scored_methods_ignore_it(thin: nn.Module, images: GroupedData) -> None:
    """Two random halves share a third of their union: Jaccard 1/3, sd below 0.01 for 2,272 units."""
    for method in METHODS:
        one, other = (run(method, thin, images, (0.5,), seed=seed)[0].mask for seed in (5, 6))
        if method in ("random", "uniform"):
            assert one.jaccard(other) == pytest.approx(1 / 3, abs=0.05)
        else:
            assert one.jaccard(other) == 1.0


def test_random_keeps_sites_in_proportion_only_on_average_and_uniform_exactly(
    thin: nn.Module, images: GroupedData
) -> None:
    """Uniform is within one unit of the share everywhere; random's counts are hypergeometric: within 5 deviations."""
    (even,), (drawn,) = (run(method, thin, images, (0.3,)) for method in ("uniform", "random"))
    total = even.mask.total
    away = []
    for site, unit in even.mask.units.items():
        n, share = unit.numel(), even.kept[0] / total
        deviation = (n * share * (1 - share) * (total - n) / (total - 1)) ** 0.5
        assert abs(even.mask.per_site[site] - n * share) < 1
        away.append(abs(drawn.mask.per_site[site] - n * share) / deviation)
    assert max(away) < 5
    assert any(abs(drawn.mask.per_site[site] - unit.numel() * share) > 1 for site, unit in drawn.mask.units.items())


@pytest.mark.parametrize("method", ["negative_part", "snip"])
def test_kept_units_score_at_least_as_high_as_all_others(method: str, thin: nn.Module, images: GroupedData) -> None:
    score = {"negative_part": negative_part_scores, "snip": snip_scores}[method]
    scores = score(install(thin, images.input_shape), images, 0, OneShot())
    (one,) = run(method, thin, images, (0.4,))
    kept = torch.cat([scores[site][unit] for site, unit in one.mask.units.items()])
    rest = torch.cat([scores[site][~unit] for site, unit in one.mask.units.items()])
    assert kept.min() >= rest.max()
    assert kept.min() > 0


@pytest.mark.parametrize("method", METHODS)
def test_members_of_an_ensemble_get_the_masks_they_get_alone(method: str) -> None:
    """Each by its own weights, data and seed; and the weights are the teacher's."""
    ensemble = Ensemble([build("mlp", (1, 12, 12), 10, width=9, seed=seed).eval() for seed in (0, 1)])
    sets = [load_data("digits", seed=seed) for seed in (5, 6)]
    for number, record in enumerate(run(method, ensemble, sets, seed=5)):
        assert len(record.masks) == 2
        for member in range(2):
            alone = run(method, ensemble.member(member), sets[member], seed=5 + member)[number]
            assert record.masks[member].jaccard(alone.mask) == 1.0
        assert record.masks[0].jaccard(record.masks[1]) < 1.0
        state = record.model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in ensemble.state_dict().items())


@pytest.mark.parametrize("method", ["negative_part", "snip", "prune_magnitude", "prune_layerwise", "prune_snip"])
def test_scores_that_are_not_finite_are_refused(method: str, points: nn.Module, small: GroupedData) -> None:
    """Of a sort, nan is the largest: a network that diverged would keep just those units."""
    next(points.parameters()).data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=f"{method} cannot rank units whose scores are not finite, at .* diverged"):
        find(method).run(points, small, (0.5,), seeds=[0])
