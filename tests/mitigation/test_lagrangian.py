"""Algorithm 1 against finite differences, a recursion in plain Python, and runs without it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from linfair.data import GroupedData
from linfair.linearizers import LinearizedModel, finetune
from linfair.mitigation import RELEASED, KDOverC, Lagrangian, MitigatedObjective, means_by_group
from linfair.models import build
from linfair.training import Batch, Distill, Schedule, Source, cross_entropy, distillation, fit, predict

SEED = 3
TUNE = Schedule(epochs=3, batch_size=100, optimizer="adamw", lr=1e-3, decay="cosine")
SGD = Schedule(epochs=3, batch_size=100, lr=1e-2)


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


class Example:
    """A student, a teacher and a batch in float64, and the loss of the whole batch as a function of its weights."""

    def __init__(self, two_groups: GroupedData, options: Lagrangian, multipliers: tuple[float, float]) -> None:
        self.student, self.teacher = (build("mlp", (2,), 2, width=4, seed=seed).double() for seed in (0, 1))
        split = two_groups.splits["train"]
        index = torch.cat([torch.arange(12), torch.arange(len(split) - 6, len(split))])
        self.batch = Batch(split.x[index].double(), split.y[index], split.a[index], index, augmented=True)
        self.objective = options.start(self.student, self.teacher, two_groups)
        self.objective.multipliers[:] = torch.tensor(multipliers)

    def gradient(self) -> Tensor:
        """Of the mitigated loss, by autograd."""
        self.student.zero_grad()
        self.objective(self.student, self.batch).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in self.student.parameters()])

    def plain_gradient(self) -> Tensor:
        """Of L^KD, by autograd."""
        self.student.zero_grad()
        self.objective.distill(self.student, self.batch).backward()
        return torch.cat([parameter.grad.flatten() for parameter in self.student.parameters()])

    def losses(self) -> tuple[Tensor, Tensor]:
        """L^KD of the batch and of its two groups, without the package's group means."""
        x, y, a = self.batch.x, self.batch.y, self.batch.a
        with torch.no_grad():
            logits = self.student(x)
            each = cross_entropy(logits, y) + distillation(logits, self.teacher(x), 4.0)
        return each.mean(), torch.stack([each[a == group].mean() for group in (0, 1)])

    def by_finite_differences(self, multipliers: tuple[float, float], *, one_sided: bool = False) -> Tensor:
        """Central differences of the loss, weight by weight."""

        def value() -> float:
            mean, groups = self.losses()
            gaps = (groups - mean).clamp(min=0) if one_sided else (groups - mean).abs()
            return (mean + (torch.tensor(multipliers) * gaps).sum()).item()

        found, h = [], 1e-6
        for parameter in self.student.parameters():
            flat = parameter.detach().view(-1)
            for i in range(len(flat)):
                before = flat[i].item()
                flat[i] = before + h
                up = value()
                flat[i] = before - h
                found.append((up - value()) / (2 * h))
                flat[i] = before
        return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("multipliers", [(0.0, 0.0), (0.7, 0.0), (0.0, 1.3), (0.7, 1.3)])
def test_gradient_equals_finite_differences_of_the_sum_written_out(
    multipliers: tuple[float, float], one_sided: bool, two_groups: GroupedData
) -> None:
    example = Example(two_groups, Lagrangian(one_sided=one_sided), multipliers)
    expected = example.by_finite_differences(multipliers, one_sided=one_sided)
    torch.testing.assert_close(example.gradient(), expected, rtol=1e-5, atol=1e-8)


def test_gradient_is_the_sum_of_its_parts_and_the_detached_penalty_has_none(two_groups: GroupedData) -> None:
    """Linear in the multipliers, so parts add up; the detached penalty has the value and exactly no gradient."""
    example = Example(two_groups, Lagrangian(), (0.7, 1.3))
    whole, plain = example.gradient(), example.plain_gradient()
    parts = []
    for one in ((0.7, 0.0), (0.0, 1.3)):
        part = Example(two_groups, Lagrangian(), one)
        parts.append(part.gradient() - part.plain_gradient())
    torch.testing.assert_close(whole, plain + sum(parts), rtol=1e-12, atol=1e-14)
    assert all(part.norm() > 1e-3 for part in parts)

    detached = Example(two_groups, Lagrangian(detached=True), (0.7, 1.3))
    assert torch.equal(detached.gradient(), detached.plain_gradient())
    with torch.no_grad():
        values = [one.objective(one.student, one.batch).item() for one in (example, detached)]
        assert values[0] == values[1] > example.losses()[0].item()


def test_a_group_absent_from_a_batch_adds_nothing_and_is_counted(two_groups: GroupedData) -> None:
    """Only group 0 is in the batch, whose mean is then the batch's: the loss is L^KD."""
    example = Example(two_groups, Lagrangian(mu=0.0), (50.0, 50.0))
    b = example.batch
    example.batch = Batch(b.x[:12], b.y[:12], b.a[:12], b.index[:12], augmented=True)
    for _ in range(3):
        loss = example.objective(example.student, example.batch)
        assert loss.item() == pytest.approx(example.losses()[0].item(), rel=1e-12)
    example.objective.rows.clear()
    example.objective.log()
    assert example.objective.rows == [{"absent": [[0, 3]]}]


@pytest.mark.parametrize("accumulate", ["epoch", "batches"])
def test_a_group_without_training_images_has_no_violation(two_groups: GroupedData, accumulate: str) -> None:
    """A third name without an image leaves the other two as they are, and its multiplier at 0."""
    found = []
    for names in (two_groups.group_names, (*two_groups.group_names, "nobody")):
        student, teacher = (build("mlp", (2,), 2, width=4, seed=seed) for seed in (0, 1))
        data = replace(two_groups, group_names=names)
        objective = Lagrangian(mu=0.5, accumulate=accumulate).start(student, teacher, data)
        objective(student, Source(data, "train").take(torch.arange(len(data.splits["train"]))[None]))
        objective.after_epoch(0)
        found += objective.rows
    for name in ("multipliers", "violations"):
        assert found[1][name][0] == [*found[0][name][0], 0.0] and min(found[0][name][0]) > 0


def test_batches_mode_skips_groups_with_one_image(two_groups: GroupedData) -> None:
    """As in the released code; the default takes part with one image."""
    for accumulate, expected in (("epoch", [[0, 0]]), ("batches", [[0, 1]])):
        example = Example(two_groups, Lagrangian(accumulate=accumulate), (1.0, 1.0))
        b = example.batch
        example.batch = Batch(b.x[:13], b.y[:13], b.a[:13], b.index[:13], augmented=True)
        assert example.batch.a.tolist() == [0] * 12 + [1]
        example.objective(example.student, example.batch)
        example.objective.log()
        assert example.objective.rows[-1]["absent"] == expected


@pytest.mark.parametrize("schedule", [TUNE, SGD])
def test_mu_0_equals_no_mitigation_bit_for_bit(
    schedule: Schedule, toy_student: LinearizedModel, toy_teacher: nn.Module, two_groups: GroupedData
) -> None:
    found = [
        finetune(toy_student, toy_teacher, two_groups, seeds=[SEED], schedule=schedule, mitigation=one, progress=False)
        for one in (None, "plain", Lagrangian(mu=0.0), Lagrangian(mu=0.05))
    ]
    states = [bits(one.model) for one in found]
    assert states[0] == states[1] == states[2] != states[3]
    assert all(row["multipliers"] == [[0.0, 0.0]] for row in found[2].finetuning)
    assert [one.mitigation for one in found] == [None, None, Lagrangian(mu=0.0), Lagrangian(mu=0.05)]


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("groups", [None, (1,)])
def test_multipliers_follow_the_recursion_in_plain_python(
    groups: tuple[int, ...] | None,
    one_sided: bool,
    toy_student: LinearizedModel,
    toy_teacher: nn.Module,
    two_groups: GroupedData,
) -> None:
    """Each epoch's network is measured on the training split by hand, the multipliers are lists of floats."""
    options, mu = Lagrangian(mu=0.3, groups=groups, one_sided=one_sided), 0.3
    model = copy.deepcopy(toy_student.model)
    objective = options.start(model, toy_teacher, two_groups)
    split, expected, current = two_groups.splits["train"], [], [0.0, 0.0]
    taught = predict(toy_teacher, two_groups, "train")

    def by_hand(epoch: int) -> bool:
        logits = predict(model, two_groups, "train")
        each = (cross_entropy(logits, split.y) + distillation(logits, taught, 4.0)).tolist()
        overall = sum(each) / len(each)
        for group in (0, 1) if groups is None else groups:
            mine = [loss for loss, a in zip(each, split.a.tolist(), strict=True) if a == group]
            gap = sum(mine) / len(mine) - overall
            current[group] += mu * (max(0.0, gap) if one_sided else abs(gap))
        expected.append(list(current))
        return False

    fit(model, two_groups, objective, SGD, seeds=[SEED], stage="finetune", after_epoch=by_hand,
        check=objective.after_epoch, progress=False)  # fmt: skip
    found = [row["multipliers"][0] for row in objective.rows]
    assert len(found) == SGD.epochs
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)
    assert found[-1][1] > 0
    steps = [row["violations"][0][1] for row in objective.rows]
    assert found[-1][1] == pytest.approx(mu * sum(steps))


def test_batches_mode_adds_up_the_violations_of_the_batches_as_they_were_trained_on(
    toy_student: LinearizedModel, toy_teacher: nn.Module, two_groups: GroupedData
) -> None:
    """Rate 0, so that the sum can be replayed afterwards batch by batch; it grows with the number of batches."""
    source, found = Source(two_groups, "train"), {}
    for size in (300, 60):
        still = Schedule(epochs=1, batch_size=size, lr=0.0)
        tuned = finetune(toy_student, toy_teacher, two_groups, seeds=[SEED], schedule=still,
                         mitigation=Lagrangian(mu=0.1, accumulate="batches"), progress=False)  # fmt: skip
        expected, distill = [0.0, 0.0], Distill(toy_teacher, two_groups)
        for index, _ in source.epoch([f"{SEED}/finetune/0"], size, augment=True):
            batch = source.take(index)
            each = distill.per_input(toy_student.model(batch.x), batch).detach()
            for group in (0, 1):
                if (batch.a == group).sum() > 1:
                    expected[group] += 0.1 * abs(each[batch.a == group].mean() - each.mean()).item()
        found[size] = tuned.finetuning[0]["multipliers"][0]
        assert found[size] == pytest.approx(expected, rel=1e-4)
    assert found[60][1] > 3 * found[300][1] > 0


def test_each_epoch_sums_its_own_batches_and_counts_its_own_absences(
    student: LinearizedModel, teacher: nn.Module, digits: GroupedData
) -> None:
    """Rate 0: two epochs in one run against each epoch's batches taken alone."""
    options, still = Lagrangian(mu=0.1, accumulate="batches"), Schedule(epochs=2, batch_size=20, lr=0.0, augment=False)
    tuned = finetune(student, teacher, digits, seeds=[SEED], schedule=still, mitigation=options, progress=False)
    source, total = Source(digits, "train"), torch.zeros(10, dtype=torch.float64)
    for epoch, row in enumerate(tuned.finetuning):
        alone = options.start(student.model, teacher, digits)
        for index, _ in source.epoch([f"{SEED}/finetune/{epoch}"], 20, augment=False):
            alone(student.model, source.take(index))
        alone.after_epoch(0)
        assert row["absent"] == alone.rows[0]["absent"]
        total += alone.multipliers[0]
        assert row["multipliers"][0] == pytest.approx(total.tolist(), rel=1e-5)
    assert max(tuned.finetuning[1]["absent"][0]) > 0


def test_released_equals_kd_over_c_bit_for_bit(
    teacher: nn.Module, digits: GroupedData, student: LinearizedModel
) -> None:
    """Its multipliers grow, for the first five classes only, and move no weight."""
    released, weaker, penalised = (
        finetune(student, teacher, digits, seeds=[SEED], schedule=TUNE, mitigation=one, progress=False)
        for one in (RELEASED, KDOverC(), replace(RELEASED, detached=False))
    )
    assert bits(released.model) == bits(weaker.model) != bits(penalised.model)
    last = released.finetuning[-1]["multipliers"][0]
    assert min(last[:5]) > 0 == max(last[5:])


def test_group_means_equal_those_of_each_member_and_group_selected_by_hand() -> None:
    values, groups = torch.rand(2, 9, dtype=torch.float64), torch.randint(3, (2, 9))
    groups[0, groups[0] == 2] = 0
    means, counts = means_by_group(values, groups, 3)
    for member in range(2):
        for group in range(3):
            mine = values[member][groups[member] == group]
            assert counts[member, group] == len(mine)
            assert means[member, group].item() == pytest.approx(mine.mean().item() if len(mine) else 0.0)
    assert counts[0, 2] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": -1.0}, "mu must not be negative, got -1.0"),
        ({"mu": float("nan")}, "mu must not be negative, got nan"),
        ({"accumulate": "step"}, "accumulate is 'epoch' .* or 'batches' .*, got 'step'"),
        ({"groups": ()}, "at least one, or None for all"),
        ({"groups": (-1,)}, "numbers from 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lagrangian(**options)


def test_groups_the_data_does_not_have_are_refused(two_groups: GroupedData, toy_teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"groups \(0, 5\) were asked for, the data has groups 0 to 1"):
        Lagrangian(groups=(0, 5)).start(toy_teacher, toy_teacher, two_groups)


def test_data_sets_with_other_groups_make_no_ensemble(two_groups: GroupedData, toy_teacher: nn.Module) -> None:
    other = replace(two_groups, group_names=("a", "b", "c"))
    with pytest.raises(ValueError, match=r"equally many groups, got \[2, 3\]"):
        MitigatedObjective(toy_teacher, toy_teacher, [two_groups, other], options=None)
