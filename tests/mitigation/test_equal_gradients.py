"""Eq. 7 against finite differences in float64, closed forms, the package's own metrics, and runs without it."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from linfair import gates, weights
from linfair.data import GroupedData, Split
from linfair.ensemble import Ensemble
from linfair.linearizers import finetune
from linfair.linearizers.registry import find
from linfair.metrics import group_gradient_norms, top_eigenvalues
from linfair.mitigation import EqualGradients, equal_gradients
from linfair.models import build
from linfair.training import Batch, Schedule, Source, cross_entropy, distillation

SEED = 3


def smooth(seed: int) -> nn.Module:
    """An MLP 2-3-2 with tanh, which every derivative of finite differences needs."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def kinked(seed: int) -> nn.Module:
    """An MLP with gates, some of them open and some shut, and frozen: `gates._Frozen`."""
    torch.manual_seed(seed)
    network = gates.install(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)), (2,))
    gates.set_alphas(network, lambda _, alpha: (torch.arange(4) % 2).float().expand_as(alpha))
    return gates.freeze(network).double()


def pruned(seed: int) -> nn.Module:
    """The smooth network with weight switches, half of them off."""
    network = weights.install(smooth(seed))
    (mask,) = weights.masks_of(network)
    half = {site: torch.arange(unit.numel()).view(unit.shape) % 2 == 0 for site, unit in mask.units.items()}
    return weights.apply_mask(network, replace(mask, units=half))


def normed(seed: int) -> nn.Module:
    """The smooth network with batch norm, in training mode."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2)).double()


def convolutional(seed: int) -> nn.Module:
    """Convolution, batch norm of images and max pooling, on a line of two pixels."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Tanh(), nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(3, 2)
    return nn.Sequential(nn.Unflatten(1, (1, 1, 2)), *layers).double()


NETWORKS = {"smooth": smooth, "gated": kinked, "pruned": pruned, "batch norm": normed, "images": convolutional}


class Example:
    """A student and a teacher on a batch of both groups in float64, both multipliers of each group set."""

    def __init__(self, two_groups: GroupedData, make: object, kd: float = 1.0, **options: object) -> None:
        self.student, self.teacher = make(0), smooth(1)
        split, self.kd = two_groups.splits["train"], kd
        index = torch.cat([torch.arange(12), torch.arange(len(split) - 6, len(split))])
        self.batch = Batch(split.x[index].double(), split.y[index], split.a[index], index, augmented=True)
        doubled = {name: replace(one, x=one.x.double()) for name, one in two_groups.splits.items()}
        data = replace(two_groups, splits=doubled)
        self.objective = EqualGradients(kd=kd, **options).start(self.student, self.teacher, data)

    def risks(self, network: nn.Module) -> list[Tensor]:
        """J of the batch and of both groups, without the package's group means."""
        b, logits = self.batch, network(self.batch.x)
        with torch.no_grad():
            taught = self.teacher(b.x)
        each = cross_entropy(logits, b.y) + self.kd * distillation(logits, taught, 4.0)
        return [each.mean(), each[b.a == 0].mean(), each[b.a == 1].mean()]

    def written_out(self, multipliers: Tensor, vectors: list[Tensor] | None) -> float:
        """The mitigated loss: gradients of each risk and products with vectors held constant."""
        trained = [one for one in self.student.parameters() if one.requires_grad]
        risks, norms, curved = self.risks(self.student), [], []
        for place, risk in enumerate(risks):
            g = torch.cat([one.flatten() for one in torch.autograd.grad(risk, trained, create_graph=True)])
            norms.append(g.norm().item())
            if vectors is not None:
                v = vectors[place]
                hv = torch.autograd.grad(g @ v, trained, retain_graph=True, materialize_grads=True)
                curved.append((torch.cat([one.flatten() for one in hv]) @ v).item())
        values = [norms] if vectors is None else [norms, curved]
        found = risks[0].item()
        for kind, (all_of_it, *groups) in enumerate(values):
            for group, value in enumerate(groups):
                scale = self.objective.scale[0, kind].item()
                found += multipliers[0, 2 * kind + group].item() * abs(value - all_of_it) / scale
        return found

    def vectors(self) -> list[Tensor]:
        """Ten power iterations with each Hessian, a dense matrix here, from the gradient."""
        trained = [one for one in self.student.parameters() if one.requires_grad]
        found = []
        for risk in self.risks(self.student):
            parts = torch.autograd.grad(risk, trained, create_graph=True)
            g = torch.cat([one.flatten() for one in parts])
            rows = [torch.autograd.grad(one, trained, retain_graph=True, materialize_grads=True) for one in g]
            hessian = torch.stack([torch.cat([one.flatten() for one in row]) for row in rows])
            v = g.detach() / g.norm().detach()
            for _ in range(10):
                v = hessian @ v
                v = v / v.norm()
            found.append(v)
        return found


@pytest.mark.parametrize("kd", [0.0, 1.0])
@pytest.mark.parametrize("eigenvalues", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_equals_finite_differences_of_the_loss_written_out(
    name: str, eigenvalues: bool, kd: float, two_groups: GroupedData
) -> None:
    """Central differences, weight by weight; the vectors of the power iterations are held constant, as documented."""
    example = Example(two_groups, NETWORKS[name], kd, eigenvalues=eigenvalues)
    multipliers = torch.tensor([[0.3, 0.7, 0.2, 0.4]], dtype=torch.float64)[:, : 4 if eigenvalues else 2]
    example.objective.multipliers = multipliers
    example.student.train()
    vectors = example.vectors() if eigenvalues else None
    loss = example.objective(example.student, example.batch)
    assert loss.item() == pytest.approx(example.written_out(multipliers, vectors), rel=1e-9)
    loss.sum().backward()
    trained = [one for one in example.student.parameters() if one.requires_grad]
    ours, start, h = torch.cat([one.grad.flatten() for one in trained]), parameters_to_vector(trained).detach(), 1e-5
    expected = []
    for place in range(len(start)):
        values = []
        for step in (h, -h):
            moved = start.clone()
            moved[place] += step
            vector_to_parameters(moved, trained)
            values.append(example.written_out(multipliers, vectors))
        expected.append((values[0] - values[1]) / (2 * h))
    torch.testing.assert_close(ours, torch.tensor(expected).to(ours), rtol=1e-4, atol=1e-6 * ours.abs().max().item())


def test_the_epochs_values_are_those_of_the_packages_metrics(two_groups: GroupedData, toy_teacher: nn.Module) -> None:
    """On cross entropy: exact gradient norms, and ARPACK's eigenvalues, which power iterations reach from below."""
    student = copy.deepcopy(toy_teacher)
    objective = EqualGradients(kd=0.0).start(student, toy_teacher, two_groups)
    found = objective._over_split(student)[0]
    norms = [one.norm for one in group_gradient_norms(student, two_groups)]
    tops = [one.value for one in top_eigenvalues(student, two_groups, which="LM")]
    assert found[0, 1:].tolist() == pytest.approx(norms, rel=1e-4)
    for ours, exact in zip(found[1, 1:].tolist(), tops, strict=True):
        assert 0.9 * exact < ours <= exact * (1 + 1e-4)
    own = [sum(norms) / 2, sum(found[1, 1:].tolist()) / 2]
    assert objective.scale[0, :, 0].tolist() == pytest.approx(own, rel=1e-4)


def test_multipliers_grow_by_the_scaled_violations_of_each_epoch(
    two_groups: GroupedData, toy_teacher: nn.Module
) -> None:
    """The recursion in plain Python: mu times |value of the group - value of all| / scale, from 0."""
    objective = EqualGradients(mu=0.5).start(copy.deepcopy(toy_teacher), toy_teacher, two_groups)
    expected = [[0.0, 0.0], [0.0, 0.0]]
    for epoch in range(2):
        assert objective.after_epoch(epoch) == {}
        for kind in (0, 1):
            whole, *groups = objective._over_split(objective.model)[0, kind].tolist()
            for group, one in enumerate(groups):
                expected[kind][group] += 0.5 * abs(one - whole) / objective.scale[0, kind, 0].item()
        row = objective.rows[-1]
        assert row["multipliers"][0] == pytest.approx(expected[0])
        assert row["eigenvalue_multipliers"][0] == pytest.approx(expected[1])
    assert min(expected[0] + expected[1]) > 0
    tight = EqualGradients(mu=0.5, limit=1e-9).start(copy.deepcopy(toy_teacher), toy_teacher, two_groups)
    (failure,) = tight.after_epoch(0).values()
    assert "equal_gradients" in failure.what and "lower mu (0.5)" in failure.advice


def test_a_group_absent_from_a_batch_takes_no_part(two_groups: GroupedData) -> None:
    """Only group 0 is in the batch, whose values are then the batch's: the loss is J."""
    example = Example(two_groups, smooth)
    b = example.batch
    example.batch = Batch(b.x[:12], b.y[:12], b.a[:12], b.index[:12], augmented=True)
    example.objective.multipliers[:] = 50.0
    plain = example.objective.distill(example.student, example.batch)
    assert example.objective(example.student, example.batch).item() == pytest.approx(plain.item(), rel=1e-12)
    example.objective.log()
    assert example.objective.rows == [{"absent": [[0, 1]]}]


def test_a_group_whose_gradient_is_0_takes_part_and_one_without_images_does_not() -> None:
    """A classifier that is its bias, 0: p = 1/2, so gradients are (1/2 - mean y) (-1, 1), 0 for labels 0 and 1.

    Norms are 0 and sqrt(1/2) of the groups, sqrt(1/8) of all; over the groups' mean, sqrt(1/8), both are off by 1.
    The Hessian by the bias is p (1 - p) ((1, -1), (-1, 1)) for every group, so that no eigenvalue is off.
    """
    part = Split(torch.zeros(4, 1), torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    data = GroupedData("bias", {"train": part}, ("no", "yes"), ("settled", "other", "empty"))
    network = nn.Linear(1, 2)
    network.load_state_dict({"weight": torch.zeros(2, 1), "bias": torch.zeros(2)})
    objective = EqualGradients(mu=1.0, kd=0.0).start(copy.deepcopy(network), network, data)
    assert objective.after_epoch(0) == {}
    assert objective.rows[0]["multipliers"][0] == pytest.approx([1, 1, 0])
    assert objective.rows[0]["eigenvalue_multipliers"][0] == pytest.approx([0, 0, 0], abs=1e-6)
    batch = Source(data, "train").take(torch.arange(4).unsqueeze(0))
    assert objective(objective.model, batch).item() == pytest.approx(math.log(2) + 1 + 1)


def few(digits: GroupedData, start: int = 0) -> GroupedData:
    """64 images of each split in two groups: digits from 0 to 4, and from 5 to 9."""
    cut = {}
    for name, one in digits.splits.items():
        at = torch.randperm(len(one), generator=torch.Generator().manual_seed(0))[start : start + 64]
        cut[name] = Split(one.x[at], one.y[at], (one.y[at] > 4).long())
    return replace(digits, splits=cut, shift=0, group_names=("low", "high"))


@pytest.mark.parametrize(("network", "width", "method"), [("mlp", 8, "random"), ("resnet18", 2, "prune_magnitude")])
def test_gated_and_pruned_networks_are_trained_and_a_step_of_0_is_plain_fine_tuning(
    network: str, width: int, method: str, digits: GroupedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch the penalties have a gradient: weights are finite and not those of plain fine-tuning."""
    monkeypatch.setattr(equal_gradients, "STEPS", 1)
    data, schedule = few(digits), Schedule(epochs=2, batch_size=64, lr=1e-3, momentum=0.0)
    teacher = build(network, data.input_shape, 10, width=width, seed=0).eval()
    (one,) = find(method).run(teacher, data, (0.5,), seeds=[0], options=None, progress=False)
    ways = None, EqualGradients(mu=0.0, eigenvalues=False), EqualGradients(mu=0.01, eigenvalues=False), EqualGradients()
    how, found = {"seeds": [0], "schedule": schedule, "progress": False}, []
    for way in ways:
        state = finetune(one, teacher, data, mitigation=way, **how).model.state_dict()
        found.append(torch.cat([value.flatten().double() for value in state.values()]))
    assert all(torch.isfinite(one).all() for one in found)
    assert torch.equal(found[0], found[1])
    assert not any(torch.equal(found[a], found[b]) for a, b in ((0, 2), (0, 3), (2, 3)))


def test_an_ensemble_has_the_values_and_gradients_of_its_members(digits: GroupedData) -> None:
    sets = [few(digits), few(digits, 64)]
    teachers = [build("mlp", sets[0].input_shape, 10, width=6, seed=seed).eval() for seed in (0, 1)]
    networks = [gates.freeze(gates.install(one, sets[0].input_shape)) for one in teachers]
    both = Ensemble(networks)
    together = EqualGradients().start(both, Ensemble(teachers), sets)
    together.multipliers[:] = 0.1
    index = torch.arange(32).expand(2, -1)
    loss = together(both, Source(sets, "train").take(index))
    loss.sum().backward()
    for m in range(2):
        alone = EqualGradients().start(networks[m], teachers[m], sets[m])
        alone.multipliers[:] = 0.1
        torch.testing.assert_close(together.scale[m], alone.scale[0], rtol=1e-3, atol=0)
        mine = alone(networks[m], Source(sets[m], "train").take(index[:1]))
        assert loss[m].item() == pytest.approx(mine.item(), rel=1e-4)
        mine.sum().backward()
        for ours, theirs in zip(both.parameters(), networks[m].parameters(), strict=True):
            if theirs.grad is not None:
                torch.testing.assert_close(ours.grad[m], theirs.grad, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("mu", [-1.0, float("nan")])
def test_a_step_that_means_nothing_is_refused(mu: float) -> None:
    with pytest.raises(ValueError, match=f"mu must not be negative, got {mu}"):
        EqualGradients(mu=mu)
