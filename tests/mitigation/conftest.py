"""Shared by the mitigation tests: a two-group toy and small linearized students."""

import pytest
import torch
from torch import nn

from linfair import gates
from linfair.data import GroupedData, toy
from linfair.linearizers import LinearizedModel
from linfair.linearizers.registry import LINEARIZERS
from linfair.models import build
from linfair.training import Schedule, fit, supervised

SEED = 3


@pytest.fixture(scope="session")
def two_groups() -> GroupedData:
    """The toy, 270 + 30 points to train on."""
    return toy(seed=SEED, majority=270, minority=30, test_per_group=50)


@pytest.fixture(scope="session")
def toy_teacher(one_thread: None, two_groups: GroupedData) -> nn.Module:
    """An MLP 8-8 trained on it; tests must leave it as it is."""
    network = build("mlp", two_groups.input_shape, 2, width=8, seed=SEED)
    schedule = Schedule(epochs=20, optimizer="adamw", lr=1e-2)
    fit(network, two_groups, supervised, schedule, seeds=[SEED], stage="base", progress=False)
    return network.eval()


@pytest.fixture(scope="session")
def toy_student(toy_teacher: nn.Module, two_groups: GroupedData) -> LinearizedModel:
    """A quarter of its ReLUs, at random; tests must leave it as it is."""
    run = LINEARIZERS["random"].run
    (one,) = run(toy_teacher, two_groups, (0.25,), seeds=[SEED], options=None, progress=False)
    assert not torch.cat([alpha.flatten() for alpha in gates.alphas(one.model).values()]).all()
    return one


@pytest.fixture(scope="session")
def student(teacher: nn.Module, digits: GroupedData) -> LinearizedModel:
    """The digits' teacher with half of its ReLUs, at random; tests must leave it as it is."""
    run = LINEARIZERS["random"].run
    return run(teacher, digits, (0.5,), seeds=[SEED], options=None, progress=False)[0]
