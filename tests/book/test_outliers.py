"""Oracle: a network that remembers every point, and planted points with wrong labels, which only it can know."""

import numpy as np
import pytest
import torch
from linfair_book.outliers import removal, without
from torch import nn

from linfair.data import GroupedData, Split

PLANTED = 12


class Nearest(nn.Module):
    """Scores a class by minus the distance to its nearest training point."""

    def __init__(self, data: GroupedData) -> None:
        super().__init__()
        self.x, self.y = data.splits["train"].x, data.splits["train"].y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (n, 2)."""
        away = torch.cdist(x, self.x)
        return -torch.stack([away[:, self.y == label].min(1).values for label in (0, 1)], dim=1)


def train(sets: list[GroupedData], seeds: list[int]) -> nn.Module:
    (one,) = sets
    return Nearest(one)


@pytest.fixture(scope="module")
def data() -> GroupedData:
    """Two clouds, far apart; the first twelve training points have the other cloud's label."""
    draw = torch.Generator().manual_seed(0)
    y, domain = torch.arange(240) % 2, torch.arange(240) // 2 % 2
    x = torch.randn(240, 2, generator=draw) + 6.0 * y[:, None]
    known = torch.where(torch.arange(120) < PLANTED, 1 - y[:120], y[:120])
    splits = {"train": Split(x[:120], known, domain[:120]), "test": Split(x[120:], y[120:], domain[120:])}
    return GroupedData("made", splits, ("a", "b"), ("one", "two"))


def test_wrong_labels_are_what_is_most_exposed_and_without_them_accuracy_rises(data: GroupedData) -> None:
    rows = removal(data, train, share=PLANTED / 120, count=16, repeats=2, at_once=1)
    found = rows.set_index(["removed", "who"])
    accuracy, auc = found["accuracy"].unstack()["all"], found["auc"].unstack()
    assert accuracy["exposed"] > 0.98 > accuracy["nothing"] and accuracy["exposed"] > accuracy["random"]
    assert (
        auc.loc["exposed", "all"] < auc.loc["random", "all"] and auc.loc["exposed", "all"] < auc.loc["nothing", "all"]
    )
    n = found["n"].unstack()
    assert (n.loc["nothing", "rest"], n.loc["exposed", "rest"], n.loc["exposed", "next"]) == (108, 108, 12)
    assert found.loc["exposed", "n_train"].eq(108).all() and found.loc["nothing", "n_train"].eq(120).all()
    assert found["mean_bias"].unstack()["all"].between(0, 0.5).all()


def test_what_is_left_is_what_was_not_taken(data: GroupedData) -> None:
    gone = np.arange(120) < PLANTED
    left = without(data, gone).splits
    assert torch.equal(left["train"].x, data.splits["train"].x[PLANTED:])
    assert left["test"] is data.splits["test"]
