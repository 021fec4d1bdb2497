"""Gradient norms against closed forms, finite differences, autograd on the whole group, and Jensen's inequality."""

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
from random_groups import grouped, network
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from linfair.data import GroupedData, Split
from linfair.ensemble import Ensemble
from linfair.gates import freeze, sites
from linfair.metrics.gradients import ParameterRisk, group_gradient_norm_pairs, group_gradient_norms
from linfair.models import build


def reordered(data: GroupedData, order: Tensor) -> GroupedData:
    part = data.splits["train"]
    return replace(data, splits={"train": Split(part.x[order], part.y[order], part.a[order])})


def norms(*args: object, **options: object) -> list[float]:
    return [row.norm for row in group_gradient_norms(*args, **options)]


# exact


@given(st.integers(0, 1000))
def test_gradient_of_a_linear_classifier_equals_its_closed_form(seed: int) -> None:
    """Logistic regression: grad_W = mean (p - onehot(y)) x', grad_b = mean (p - onehot(y))."""
    data, model = grouped(seed), nn.Linear(3, 3).double()
    part = data.splits["train"]
    for row in group_gradient_norms(model, data):
        x, y = part.x[part.a == row.group], part.y[part.a == row.group]
        error = model(x).softmax(1).detach() - F.one_hot(y, 3)
        expected = torch.cat([(error.T @ x).flatten(), error.sum(0)]) / len(x)
        assert (row.n, row.batches) == (len(x), 1)
        assert row.norm == pytest.approx(expected.norm().item(), rel=1e-12)


@pytest.mark.parametrize("alpha", [False, True])
def test_gradient_equals_finite_differences_of_the_groups_risk(alpha: bool) -> None:
    """Central differences along every coordinate, weights first and alphas last, away from ReLU kinks."""
    data, model = grouped(1), network(2)
    part = data.splits["train"]
    gates = [gate.alpha for gate in sites(model).values()]
    weights = [p for p in model.parameters() if all(p is not gate for gate in gates)]
    parameters = weights + (gates if alpha else [])
    start = parameters_to_vector(parameters).detach()
    risk = ParameterRisk(model, data, "train", alpha=alpha)
    assert risk.size == len(start)
    for group in range(3):
        (index,) = risk.positions(group, "exact")
        probe = copy.deepcopy(start)
        expected = torch.zeros_like(start)
        for coordinate in range(len(start)):
            for sign in (1, -1):
                probe[coordinate] = start[coordinate] + sign * 1e-6
                vector_to_parameters(probe, parameters)
                loss = F.cross_entropy(model(part.x[index]), part.y[index]).item()
                expected[coordinate] += sign * loss / 2e-6
            probe[coordinate] = start[coordinate]
        vector_to_parameters(start, parameters)
        torch.testing.assert_close(risk.gradient(index), expected, rtol=0, atol=1e-8)


@given(st.integers(0, 1000), st.integers(1, 30), st.booleans())
def test_exact_norm_depends_neither_on_batch_size_nor_on_order(seed: int, batch_size: int, alpha: bool) -> None:
    data, model = grouped(seed), network(seed)
    shuffled = reordered(data, torch.randperm(23, generator=torch.Generator().manual_seed(seed)))
    expected = norms(model, data, alpha=alpha)
    assert norms(model, shuffled, alpha=alpha, batch_size=batch_size) == pytest.approx(expected, rel=1e-11)


def test_batch_norm_runs_on_its_running_statistics() -> None:
    """Oracle: autograd on the group alone, in evaluation mode; with batch statistics the value is another one."""
    data = grouped(3, features=(1, 6, 6))
    model = build("resnet18", (1, 6, 6), 3, width=2, seed=0).double()
    with torch.no_grad():
        model.train()(3 + 2 * torch.randn(8, 1, 6, 6, dtype=torch.float64))
    part = data.splits["train"]
    expected = []
    for training in (False, True):
        reference = copy.deepcopy(model).train(training)
        for group in range(3):
            pick = part.a == group
            loss = F.cross_entropy(reference(part.x[pick]), part.y[pick])
            gradient = torch.autograd.grad(loss, list(reference.parameters()))
            expected.append(parameters_to_vector(gradient).norm().item())
    found = norms(model, data, batch_size=5)
    assert found == pytest.approx(expected[:3], rel=1e-10)
    assert found[0] != pytest.approx(expected[3], rel=1e-2)


def test_float32_network_in_float64_arithmetic_equals_the_same_network_in_float64() -> None:
    data, model = grouped(4), network(4).float()
    expected = norms(copy.deepcopy(model).double(), data)
    assert norms(model, data, dtype=torch.float64) == pytest.approx(expected, rel=1e-14)
    assert norms(model, data) == pytest.approx(expected, rel=1e-5)
    assert norms(model, data) != expected


def test_alphas_installed_in_float32_are_raised_to_the_precision_of_the_weights() -> None:
    """A gradient is rounded to the precision of its parameter; oracle: the same network, all of it in float64."""
    data, model = grouped(8), network(8)
    for gate in sites(model).values():
        gate.alpha.data = gate.alpha.data.float()
    assert norms(model, data, alpha=True) == norms(copy.deepcopy(model).double(), data, alpha=True)


def test_images_are_normalised_and_groups_can_be_chosen(digits: GroupedData, teacher: nn.Module) -> None:
    """Oracle: autograd on the normalised images of one group."""
    part = digits.splits["test"]
    pick = part.a == 7
    loss = F.cross_entropy(teacher(digits.normalise(part.x[pick])), part.y[pick])
    expected = parameters_to_vector(torch.autograd.grad(loss, list(teacher.parameters()))).norm().item()
    (row,) = group_gradient_norms(teacher, digits, "test", groups=[7])
    assert (row.group, row.n) == (7, int(pick.sum()))
    assert row.norm == pytest.approx(expected, rel=1e-4)


def test_network_is_left_as_it_is() -> None:
    data, model = grouped(5), freeze(network(5)).train()
    next(model.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert not all(flags)
    group_gradient_norms(model, data, alpha=True)
    group_gradient_norms(model, data, estimator="per_batch", batch_size=4)
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_parameters_count() -> None:
    data, model = grouped(5), network(5)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert norms(frozen, data, alpha=True) == norms(model, data, alpha=True)


def test_inside_no_grad_it_works_as_outside() -> None:
    data, model = grouped(5), network(5)
    expected = norms(model, data)
    with torch.no_grad():
        assert norms(model, data) == expected


def test_alphas_enlarge_the_norm_by_their_own_part() -> None:
    """|(g_theta, g_alpha)|^2 = |g_theta|^2 + |g_alpha|^2, alphas last."""
    data, model = grouped(6), network(6)
    risk = ParameterRisk(model, data, "train", alpha=True)
    units = sum(gate.alpha.numel() for gate in sites(model).values())
    (index,) = risk.positions(0, "exact")
    slopes = risk.gradient(index)[-units:].norm().item()
    with_alpha, without = norms(model, data, alpha=True)[0], norms(model, data)[0]
    assert slopes > 0
    assert with_alpha == pytest.approx(math.hypot(without, slopes), rel=1e-12)


def test_parameters_that_the_output_does_not_use_have_gradient_zero() -> None:
    data, model = grouped(7), network(7, gated=False)
    assert norms(_Extra(model), data) == pytest.approx(norms(model, data), rel=1e-14)


class _Extra(nn.Module):
    """A network beside a parameter that it does not use."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        return self.inner(x)


@pytest.mark.parametrize("estimator", ["exact", "per_batch"])
def test_pairs_equal_the_two_norms_computed_apart(estimator: str) -> None:
    """Oracle: `group_gradient_norms` without and with the alphas."""
    data, model = grouped(8), network(8)
    options = {"estimator": estimator, "batch_size": 5}
    pairs = group_gradient_norm_pairs(model, data, **options)
    for number, alpha in enumerate((False, True)):
        for pair, row in zip(pairs, group_gradient_norms(model, data, alpha=alpha, **options), strict=True):
            assert (pair[number].group, pair[number].n, pair[number].batches) == (row.group, row.n, row.batches)
            assert pair[number].norm == pytest.approx(row.norm, rel=1e-12)
    assert all(both.norm > weights.norm > 0 for weights, both in pairs)


def test_pairs_need_gates() -> None:
    with pytest.raises(ValueError, match="MLP has no gates"):
        group_gradient_norm_pairs(network(0, gated=False), grouped(0))


# per_batch


@given(st.integers(0, 1000), st.integers(1, 30))
def test_per_batch_equals_the_released_loop_written_out(seed: int, batch_size: int) -> None:
    """Oracle: cut the split as stored, norm of each batch's group-mean gradient, mean over batches with the group."""
    data, model = grouped(seed), network(seed)
    part, parameters = data.splits["train"], list(model.parameters())
    weights = [p for p in parameters if all(p is not gate.alpha for gate in sites(model).values())]
    for row in group_gradient_norms(model, data, estimator="per_batch", batch_size=batch_size):
        seen = []
        for first in range(0, 23, batch_size):
            x, y, a = (v[first : first + batch_size] for v in (part.x, part.y, part.a))
            if (a == row.group).any():
                loss = F.cross_entropy(model(x[a == row.group]), y[a == row.group])
                seen.append(parameters_to_vector(torch.autograd.grad(loss, weights)).norm().item())
        assert (row.n, row.batches) == (int((part.a == row.group).sum()), len(seen))
        assert row.norm == pytest.approx(np.mean(seen), rel=1e-10)


@given(st.integers(0, 1000), st.integers(23, 100))
def test_per_batch_with_one_batch_equals_exact(seed: int, batch_size: int) -> None:
    data, model = grouped(seed), network(seed)
    expected = group_gradient_norms(model, data)
    assert group_gradient_norms(model, data, estimator="per_batch", batch_size=batch_size) == expected


@given(st.integers(0, 1000), st.sampled_from([4, 12]))
def test_per_batch_is_at_least_exact_where_batches_hold_equally_many_of_a_group(seed: int, batch_size: int) -> None:
    """Jensen: the mean of norms is at least the norm of the mean."""
    data, model = grouped(seed, n=24), network(seed)
    part = data.splits["train"]
    groups = torch.tensor(
        [0, 0, 1, 2] * 6
    )  # batches of 4 hold 2, 1 and 1 of the groups, batches of 12 three times that
    balanced = replace(data, splits={"train": Split(part.x, part.y, groups)})
    exact = norms(model, balanced)
    for biased, true in zip(norms(model, balanced, estimator="per_batch", batch_size=batch_size), exact, strict=True):
        assert biased >= true * (1 - 1e-12)


def test_on_digits_small_batches_inflate_the_norm_and_the_minoritys_most(
    digits: GroupedData, teacher: nn.Module
) -> None:
    """Jensen, on real images in random order: per_batch / exact is above 1, and falls as batches grow."""
    order = torch.randperm(digits.splits["train"].y.numel(), generator=torch.Generator().manual_seed(0))
    shuffled = reordered(digits, order)
    exact = np.array(norms(teacher, shuffled))
    minority = np.array(digits.roles) == "minority"
    ratios = {
        size: np.array(norms(teacher, shuffled, estimator="per_batch", batch_size=size)) / exact
        for size in (8, 64, 256)
    }
    for size in (8, 64):
        assert (ratios[size][minority] > 1.02).all()
    assert ratios[64][minority].mean() > ratios[64][~minority].mean() + 0.05
    for group in (minority, ~minority):
        assert ratios[8][group].mean() > ratios[64][group].mean() > ratios[256][group].mean() > 0.999


# errors


def empty_group() -> GroupedData:
    data = grouped(0)
    return replace(data, group_names=("0", "1", "2", "3"))


class _BatchStatistics(nn.Sequential):
    """Batch norm without running statistics."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: Ensemble([network(0), network(1)]), {}, r"ensemble of 2: use member\(index\)"),
        (lambda: network(0), {"split": "tset"}, "random has no split 'tset'; there are train"),
        (lambda: network(0), {"estimator": "batch"}, "no estimator 'batch'; there are exact, per_batch"),
        (lambda: network(0), {"groups": [0, 3]}, r"no groups \[3\]; they are numbered 0 to 2"),
        (lambda: network(0), {"groups": [-1]}, r"no groups \[-1\]"),
        (lambda: network(0), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (lambda: network(0, gated=False), {"alpha": True}, "MLP has no gates"),
        (lambda: nn.Flatten(), {}, "Flatten has no parameters"),
        (_BatchStatistics, {}, "1 normalises with the statistics of the batch"),
    ],
)
def test_refusals_say_what_was_given_and_what_is_allowed(
    make: Callable[[], nn.Module], options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        group_gradient_norms(make(), grouped(0), **options)


def test_groups_without_inputs_are_refused_unless_left_out() -> None:
    with pytest.raises(ValueError, match=r"groups \[3\] have no inputs in split 'train'"):
        group_gradient_norms(network(0), empty_group())
    assert len(group_gradient_norms(network(0), empty_group(), groups=[0, 2])) == 2


@pytest.mark.parametrize("estimator", ["exact", "per_batch"])
def test_a_loss_that_is_not_finite_is_refused_and_placed(estimator: str) -> None:
    data = grouped(0)
    data.splits["train"].x[11] = math.nan
    with pytest.raises(ValueError, match=r"loss of 1 inputs of split 'train' is not finite \(first: input 11\)"):
        group_gradient_norms(network(0), data, estimator=estimator)
