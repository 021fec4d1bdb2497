"""Recorded steps: the driver, with a recorder that computes anew. Oracle: the same training without it, to the bit.

What a GPU replays is compared on one by `tests/benchmarks/bench_replay.py`.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from linfair import replay, training
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.gates import freeze, install
from linfair.linearizers.snl import SNL, snl
from linfair.mitigation import MITIGATIONS, MitigatedObjective, MitigationOptions, resolve
from linfair.models import build
from linfair.rules import train
from linfair.training import Schedule, fit, supervised

HOW = Schedule(epochs=3, batch_size=90, lr=0.02)  # batches of two sizes
QUIET = {"seeds": [0], "progress": False}


@pytest.fixture(scope="module")
def data() -> GroupedData:
    return load_data("digits", seed=0)


@pytest.fixture(scope="module")
def teacher(data: GroupedData) -> nn.Module:
    network = build("mlp", data.input_shape, data.classes, seed=0)
    fit(network, data, schedule=HOW, **QUIET)
    return network


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Replay on this processor: a record holds its inputs, its loss and its gradients in tensors of its own."""
    counted: Counter[str] = Counter()

    def record(self: replay.Replay, given: Sequence[Tensor]) -> tuple:
        counted["recorded"] += 1
        inputs, loss = [one.clone() for one in given], torch.zeros(1)
        weights = [one for one in self.model.parameters() if one.requires_grad]
        gradients = [(one, torch.zeros_like(one)) for one in weights]

        def again() -> None:
            counted["replayed"] += 1
            loss.copy_(self.step(*inputs))
            for weight, gradient in gradients:
                gradient.copy_(weight.grad)

        return again, inputs, loss, gradients

    monkeypatch.setattr(replay.Replay, "_record", record)
    monkeypatch.setattr(training, "worthwhile", lambda _device: True)
    return counted


def same(make: Callable[[], Sequence[nn.Module]], recorded: Counter, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Train with and without records, and see that all weights are equal; what was counted."""
    found = make()
    counted = recorded.copy()
    monkeypatch.setattr(training, "worthwhile", lambda _device: False)
    for one, two in zip(found, make(), strict=True):
        for name, value in two.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name
    assert recorded == counted
    return counted


def test_base_training_is_the_same_and_each_size_is_recorded_once_an_epoch(data, recorded, monkeypatch) -> None:
    """The first step of every epoch and the first of each size are computed; all others are replayed."""

    def make() -> list[nn.Module]:
        network = build("resnet18", data.input_shape, data.classes, width=2, seed=0)
        fit(network, data, schedule=HOW, **QUIET)
        return [network]

    counted = same(make, recorded, monkeypatch)
    n = len(data.splits["train"])
    sizes = [len(one) for one in training.evenly(torch.arange(n), HOW.batch_size)]
    assert len(set(sizes)) == 2 and sizes.count(sizes[0]) > 1 < sizes.count(sizes[-1])
    assert counted["recorded"] == HOW.epochs * len(set(sizes))
    assert counted["replayed"] == HOW.epochs * (len(sizes) - 1) - 1


@pytest.mark.parametrize("name", sorted(MITIGATIONS))
def test_every_mitigation_trains_the_same(name: str, data, teacher, recorded, monkeypatch) -> None:
    """Multipliers and weights change between epochs, exponents at every step; what cannot repeat is not recorded."""

    def make() -> list[nn.Module]:
        student = freeze(install(teacher, data.input_shape))
        objective = resolve(name).start(student, teacher, data)
        fit(student, data, objective, HOW, stage="finetune", **QUIET, **objective.hooks)
        return [student]

    counted = same(make, recorded, monkeypatch)
    assert bool(counted["replayed"]) == (name != "equal_gradients")


@pytest.mark.parametrize("mitigation", [None, "lagrangian"])
def test_a_mask_path_that_looks_at_every_step_is_the_same(mitigation, data, teacher, recorded, monkeypatch) -> None:
    how = replace(HOW, epochs=60, optimizer="adam", lr=1e-3, alpha_lr=2e-2)
    options = SNL(lasso=1e-3, growth=1.5, warmup=0, check_every=1, mitigation=mitigation, schedule=how)

    def make() -> list[nn.Module]:
        return [one.model for one in snl(teacher, data, [0.5, 0.2], seeds=[0], options=options, progress=False)]

    assert same(make, recorded, monkeypatch)["replayed"]


class Own(MitigatedObjective):
    """A loss that says nothing of whether it repeats."""

    steps = 0

    def __call__(self, model: nn.Module, batch: training.Batch) -> Tensor:
        """Twice the loss at every other step."""
        self.steps += 1
        return super().__call__(model, batch) * (1 + self.steps % 2)


def test_what_does_not_say_that_it_repeats_is_computed_step_by_step(data, teacher, recorded) -> None:
    """An objective with a loss of its own, a plain function, an ensemble, and another rule of gradients."""

    class Options(MitigationOptions):
        name, objective = "own", Own

    student = copy.deepcopy(teacher)
    objective = Options().start(student, teacher, data)
    fit(student, data, objective, HOW, **QUIET, **objective.hooks)
    assert objective.steps == HOW.epochs * HOW.steps(len(data.splits["train"]))
    fit(copy.deepcopy(teacher), data, lambda model, batch: supervised(model, batch), HOW, **QUIET)
    train(copy.deepcopy(teacher), data, HOW, rule="sam", **QUIET)
    fit(Ensemble([copy.deepcopy(teacher) for _ in range(2)]), [data, data], schedule=HOW, progress=False)
    assert not recorded


def test_a_step_that_cannot_be_recorded_is_computed_and_said(data, recorded, monkeypatch) -> None:
    """Oracle: the training without records."""

    def refuse(self: replay.Replay, given: Sequence[Tensor]) -> tuple:
        recorded["asked"] += 1
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(replay.Replay, "_record", refuse)
    first, second = (build("mlp", data.input_shape, data.classes, seed=0) for _ in range(2))
    with pytest.warns(RuntimeWarning, match="one operation at a time, slowly.*operation not permitted"):
        fit(first, data, schedule=HOW, **QUIET)
    monkeypatch.setattr(training, "worthwhile", lambda _device: False)
    fit(second, data, schedule=HOW, **QUIET)
    assert recorded["asked"] == 1
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))


def test_steps_are_replayed_on_a_gpu_alone_and_can_be_launched_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINFAIR_REPLAY", raising=False)
    assert replay.worthwhile("cuda") and not replay.worthwhile("cpu")
    monkeypatch.setenv("LINFAIR_REPLAY", "0")
    assert not replay.worthwhile("cuda")
