"""KD/C, balanced sampling, group DRO and the excess-drop constraint against their definitions, written out."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from linfair.data import GroupedData, Split
from linfair.linearizers import LinearizedModel, finetune
from linfair.mitigation import BalancedSampling, ExcessDrop, GroupDRO, KDOverC, resolve
from linfair.mitigation.balanced_sampling import balanced
from linfair.training import Distill, Schedule, Source, correctness, cross_entropy, fit, predict

SEED = 3
TUNE = Schedule(epochs=3, batch_size=100, optimizer="adamw", lr=1e-3, decay="cosine")
SGD = Schedule(epochs=4, batch_size=100, lr=1e-2)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def tuned(
    mitigation: object, student: LinearizedModel, teacher: nn.Module, data: GroupedData, schedule: Schedule = TUNE
) -> LinearizedModel:
    return finetune(student, teacher, data, seeds=[SEED], schedule=schedule, mitigation=mitigation, progress=False)


@pytest.mark.parametrize(
    "mitigation", ["group_dro", "lagrangian", "excess_drop", "equal_gradients", "balanced_sampling"]
)
def test_a_group_without_training_images_changes_nothing(
    mitigation: str, student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    more = replace(digits, group_names=(*digits.group_names, "nobody"))
    one, other = (tuned(mitigation, student, teacher, data, replace(TUNE, epochs=1)) for data in (digits, more))
    assert bits(one.model) == bits(other.model)
    for name in {"weights", "multipliers"} & set(one.finetuning[0]):
        assert other.finetuning[0][name][0] == [*one.finetuning[0][name][0], 0.0]


# KD / C


def test_kd_over_c_equals_distillation_with_kd_weighing_a_tenth_bit_for_bit(
    student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    models = [copy.deepcopy(student.model) for _ in range(2)]
    for model, kd in zip(models, (1 / 10, 1.0), strict=True):
        objective = Distill(teacher, digits, kd=kd)
        fit(model, digits, objective, TUNE, seeds=[SEED], stage="finetune", progress=False)
    assert bits(tuned("kd_over_c", student, teacher, digits).model) == bits(models[0]) != bits(models[1])


def test_kd_over_c_scales_the_stages_own_distillation(teacher: nn.Module, digits: GroupedData) -> None:
    """A method may weigh CE and KD its own way (DeepReDuce): only KD changes."""
    own = Distill(teacher, digits, temperature=2.0, ce=0.3, kd=0.9)
    found = KDOverC().start(teacher, teacher, digits, distill=own).distill
    assert (found.temperature, found.ce, found.kd, found.teacher) == (2.0, 0.3, pytest.approx(0.09), teacher)
    assert own.kd == 0.9


# Balanced sampling


def test_balanced_draws_are_uniform_over_groups_and_over_the_images_of_each() -> None:
    """Chi-squared at a fixed seed, 120,000 draws of 3 groups with 9 : 2 : 1 images, p above 1e-3; unbalanced fails."""
    groups = torch.cat([torch.zeros(90), torch.ones(20), torch.full((10,), 2)]).long().repeat(1000)
    [drawn] = balanced(groups, None, torch.Generator().manual_seed(0))
    assert drawn.shape == groups.shape
    assert chisquare(torch.bincount(groups[drawn])).pvalue > 1e-3
    for group in range(3):
        images = drawn[groups[drawn] == group] % 120
        assert chisquare(torch.bincount(images, minlength=120)[groups[:120] == group]).pvalue > 1e-3
    assert chisquare(torch.bincount(groups)).pvalue < 1e-3


def test_balanced_draws_leave_a_group_without_images_alone() -> None:
    groups = torch.tensor([0] * 500 + [2] * 500)
    drawn = groups[torch.cat(balanced(groups, 64, torch.Generator().manual_seed(0)))]
    assert set(drawn.tolist()) == {0, 2}


def test_balanced_draws_depend_on_seed_stage_and_epoch_alone(digits: GroupedData) -> None:
    """Whatever the other members are; as many images and batches as without."""
    plan = BalancedSampling().start(nn.Identity(), nn.Identity(), digits).batches
    source = Source([digits, digits], "train")

    def epoch(*keys: str) -> list[list[int]]:
        batches = source.epoch(keys, 64, True, plan)
        plain = source.epoch(keys, 64, True)
        assert [index.shape for index, _ in batches] == [index.shape for index, _ in plain]
        return torch.cat([index for index, _ in batches], dim=1).tolist()

    first, second = epoch("5/finetune/0", "6/finetune/0")
    assert epoch("6/finetune/0", "5/finetune/0") == [second, first]
    others = [epoch(key, key)[0] for key in ("5/finetune/1", "5/masks/0", "7/finetune/0")]
    assert first not in others
    assert len(set(first)) < len(first) == len(digits.splits["train"])


# Group DRO


def test_group_dro_weights_are_the_softmax_of_the_summed_losses_and_weigh_the_batch(
    student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    """Closed form: q_a = exp(step * sum_t L_a(B_t)) / sum_b ..., in numpy; a group absent from a batch adds 0."""
    step, logs = 0.3, np.zeros(10)
    objective = GroupDRO(step=step).start(student.model, teacher, digits)
    source, distill = Source(digits, "train"), Distill(teacher, digits)
    missing = np.zeros(10, dtype=int)
    for index, _ in source.epoch(["0"], 20, augment=False):
        batch = source.take(index)
        found = objective(student.model, batch).item()
        each = distill.per_input(student.model(batch.x), batch).detach().numpy()
        mine = [each[batch.a.numpy() == group] for group in range(10)]
        means = np.array([one.mean() if len(one) else 0.0 for one in mine])
        missing += [len(one) == 0 for one in mine]
        logs += step * means
        weights = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
        np.testing.assert_allclose(objective.weights[0].numpy(), weights, rtol=1e-4)
        assert found == pytest.approx((weights * means).sum(), rel=1e-4)
    assert objective.after_epoch(0) == {}
    assert objective.rows[0]["absent"] == [missing.tolist()]
    assert missing.max() > 0
    np.testing.assert_allclose(objective.rows[0]["weights"][0], weights, rtol=1e-4)


def test_group_dro_without_a_step_is_the_mean_over_groups(
    student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    """On one full batch: the mean of the ten group losses, each group's with the same gradient weight."""
    objective = GroupDRO(step=0.0).start(student.model, teacher, digits)
    (index, _), *_ = Source(digits, "train").epoch(["0"], None, augment=False)
    batch = Source(digits, "train").take(index)
    each = objective.distill.per_input(student.model(batch.x), batch)
    expected = torch.stack([each[batch.a == group].mean() for group in range(10)]).mean()
    torch.testing.assert_close(objective(student.model, batch)[0], expected)
    with pytest.raises(ValueError, match=r"step must not be negative, got -0.1; by default it is 0.01"):
        GroupDRO(step=-0.1)


# Excess drop


def errors(model: nn.Module, data: GroupedData) -> tuple[float, list[float]]:
    """Error on the training split and on its groups, by hand."""
    split = data.splits["train"]
    wrong = (predict(model, data, "train").argmax(1) != split.y).double()
    return wrong.mean().item(), [wrong[split.a == group].mean().item() for group in range(len(data.group_names))]


@pytest.mark.parametrize("push", [0.0, 1e3])
def test_excess_drop_multipliers_follow_the_projected_recursion_in_plain_python(
    push: float, toy_student: LinearizedModel, toy_teacher: nn.Module, two_groups: GroupedData
) -> None:
    """Also for a student that always answers with the majority's label: one multiplier grows, one stays at 0."""
    options, tolerance = ExcessDrop(mu=0.5, tolerance=0.02), 0.02
    model, current, expected = copy.deepcopy(toy_student.model), [0.0, 0.0], []
    with torch.no_grad():
        list(model.parameters())[-1][0] += push
    dense, dense_groups = errors(toy_teacher, two_groups)
    objective = options.start(model, toy_teacher, two_groups)

    def by_hand(epoch: int) -> bool:
        error, groups = errors(model, two_groups)
        for a in (0, 1):
            psi = (groups[a] - dense_groups[a]) - (error - dense) - tolerance
            current[a] = max(0.0, current[a] + 0.5 * psi)
        expected.append(list(current))
        return False

    fit(model, two_groups, objective, SGD, seeds=[SEED], stage="finetune", after_epoch=by_hand,
        check=objective.after_epoch, progress=False)  # fmt: skip
    found = [row["multipliers"][0] for row in objective.rows]
    assert np.array(found) == pytest.approx(np.array(expected), abs=1e-9)
    if push:
        assert found[-1][1] > 0 == found[-1][0]


def test_excess_drop_leaves_training_alone_bit_for_bit_when_no_group_is_worse_than_allowed(
    student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    """A tolerance of 100 points; without one, some group is worse and the weights differ."""
    plain = tuned(None, student, teacher, digits)
    allowed, strict = (tuned(ExcessDrop(tolerance=t), student, teacher, digits) for t in (1.0, 0.0))
    assert bits(allowed.model) == bits(plain.model) != bits(strict.model)
    assert all(value == 0 for row in allowed.finetuning for value in row["multipliers"][0])
    assert all(value < 0 for row in allowed.finetuning for value in row["violations"][0])
    assert max(strict.finetuning[-1]["multipliers"][0]) > 0


def test_excess_drop_of_the_dense_network_itself_is_zero(teacher: nn.Module, digits: GroupedData) -> None:
    objective = ExcessDrop().start(teacher, teacher, digits)
    assert (objective.violations() == 0).all()
    assert objective.dense[0].item() == pytest.approx(1 - correctness(teacher, digits, "train").mean().item())


def test_excess_drop_ignores_a_group_that_has_no_training_images(teacher: nn.Module, digits: GroupedData) -> None:
    split = digits.splits["train"]
    keep = split.a != 4
    data = replace(digits, splits={"train": Split(split.x[keep], split.y[keep], split.a[keep])})
    worse = copy.deepcopy(teacher)
    nn.init.zeros_(list(worse.modules())[-1].weight)
    for student, dense in ((worse, teacher), (teacher, worse)):
        objective = ExcessDrop().start(student, dense, data)
        objective.after_epoch(0)
        assert objective.multipliers[0, 4] == 0 < objective.multipliers[0].max()


def test_excess_drop_penalty_is_the_surrogate_written_out(
    student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    """L^KD + sum_a lambda_a (CE_a - CE) and its gradient, on one batch, a group absent from it adding 0."""
    objective = ExcessDrop().start(student.model, teacher, digits)
    multipliers = torch.linspace(0, 2, 10, dtype=torch.float64)
    objective.multipliers[0] = multipliers
    source = Source(digits, "train")
    index, _ = source.epoch(["0"], 20, augment=False)[0]
    batch, model = source.take(index), copy.deepcopy(student.model)
    present = batch.a.unique().tolist()
    assert len(present) < 10
    gradients = []
    for loss in (
        lambda: objective(model, batch).sum(),
        lambda: objective.distill(model, batch)
        + sum(
            multipliers[a].item() * (cross_entropy(model(batch.x), batch.y)[batch.a == a].mean()
                                     - cross_entropy(model(batch.x), batch.y).mean())
            for a in present
        ),
    ):  # fmt: skip
        model.zero_grad()
        value = loss()
        value.backward()
        found = [p.grad for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat([value.detach().view(1), *[g.flatten() for g in found]]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"mu": -1.0}, {"tolerance": 2.0}, {"tolerance": -0.1}, {"mu": math.nan}])
def test_excess_drop_options_that_mean_nothing_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"mu must not be negative, got|tolerance is a share in \[0, 1\]"):
        ExcessDrop(**options)


# Registry


def test_unknown_mitigations_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="no mitigation 'lagrange'; did you mean 'lagrangian'"):
        resolve("lagrange")
    with pytest.raises(ValueError, match="no mitigation 'zzz'; there are plain, lagrangian, kd_over_c"):
        resolve("zzz")
    for wrong in (3, ExcessDrop):
        with pytest.raises(ValueError, match="or its options, for example"):
            resolve(wrong)
