"""Released estimators against the batch size: plain loops, Jensen's inequality, hand-made means."""

import math

import pandas as pd
import pytest
import torch
from linfair_book import estimator_bias
from torch import nn

from linfair.data import GroupedData, load_data
from linfair.study import ResultStore, grid
from linfair.study.cell import Worker
from linfair.training import cross_entropy


@pytest.fixture(scope="module")
def data() -> GroupedData:
    return load_data("digits", seed=3)


@pytest.fixture(scope="module")
def linear(one_thread: None) -> nn.Module:
    """A linear classifier of digits, far from trained."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 10))


def test_shuffling_keeps_every_image_with_its_label_and_says_so(data: GroupedData) -> None:
    mixed = estimator_bias.shuffled(data, "train", seed=1)
    assert not torch.equal(mixed.splits["train"].y, data.splits["train"].y)
    pairs = [
        sorted((int(y), bytes(x.numpy().tobytes())) for x, y in zip(part.x, part.y, strict=True))
        for part in (mixed.splits["train"], data.splits["train"])
    ]
    assert pairs[0] == pairs[1] and mixed.splits["test"] is data.splits["test"]
    assert mixed.provenance["shuffled"] == {"split": "train", "seed": 1}
    assert mixed.provenance["sha256"] == data.provenance["sha256"]


def test_gradient_norms_are_those_of_a_plain_loop_over_the_shuffled_batches(
    linear: nn.Module, data: GroupedData
) -> None:
    found = estimator_bias.estimator_bias(linear, data, batch_sizes=[64], quantities=["gradient norm"], seed=7)
    part = estimator_bias.shuffled(data, "train", seed=7).splits["train"]
    norms: dict[int, list[float]] = {group: [] for group in range(10)}
    for x, y in zip(part.x.split(64), part.y.split(64), strict=True):
        for group in y.unique().tolist():
            loss = cross_entropy(linear(data.normalise(x[y == group])), y[y == group]).mean()
            gradient = torch.autograd.grad(loss, list(linear.parameters()))
            norms[group].append(math.sqrt(sum(float((piece**2).sum()) for piece in gradient)))
    rows = found[found["order"] == "shuffled"].sort_values("group")
    assert rows["value"].tolist() == pytest.approx([sum(n) / len(n) for n in norms.values()], rel=1e-5)
    assert rows["batches"].tolist() == [len(n) for n in norms.values()]


def test_a_batch_that_holds_the_whole_split_is_exact(linear: nn.Module, data: GroupedData) -> None:
    found = estimator_bias.estimator_bias(linear, data, batch_sizes=[500], tol=1e-4)
    assert found["ratio"].tolist() == pytest.approx([1.0] * len(found), rel=1e-3)
    assert set(found["batches"]) == {1}


def test_neither_estimator_can_be_too_small_where_every_batch_holds_one_image(
    linear: nn.Module, data: GroupedData
) -> None:
    """Jensen: equally many of the group in every batch, so mean |g_b| >= |g| and max lambda_b >= lambda."""
    few = estimator_bias.shuffled(data, "val", seed=0)
    found = estimator_bias.estimator_bias(linear, few, split="val", batch_sizes=[1], tol=1e-4)
    assert (found["ratio"] >= 1 - 1e-3).all()
    assert found[found["n"] > 2]["ratio"].min() > 1.01
    assert found.drop_duplicates("group")["batches"].tolist() == found.drop_duplicates("group")["n"].tolist()


def test_stored_order_hides_the_minoritys_bias_because_it_is_sorted_by_class(
    linear: nn.Module, data: GroupedData
) -> None:
    assert (data.splits["train"].y.diff() >= 0).all(), "what the docstring says of the digits"
    found = estimator_bias.estimator_bias(linear, data, batch_sizes=[32], quantities=["gradient norm"])
    ratio = found[found["role"] == "minority"].groupby("order")["ratio"].mean()
    assert ratio["shuffled"] - 1 > 5 * (ratio["stored"] - 1)


def test_the_study_measures_each_seeds_original_and_keeps_the_table(
    one_thread: None, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path)
    cells = grid("digits", "mlp", budgets=(0.2,), seeds=(0, 1), profile="smoke")
    options = {"batch_sizes": (64, 500), "quantities": ["gradient norm"], "store": store, "progress": False}
    found = estimator_bias.run_bias(cells, **options)
    teacher = Worker(cells[0], store, progress=False).teacher
    own = estimator_bias.estimator_bias(
        teacher.model.member(1), load_data("digits", seed=1), batch_sizes=(64, 500), quantities=["gradient norm"]
    )
    assert found[found["seed"] == 1]["value"].tolist() == own["value"].tolist()
    assert set(found["teacher"]) == {teacher.digest}
    monkeypatch.setattr(estimator_bias, "estimator_bias", None)
    pd.testing.assert_frame_equal(estimator_bias.run_bias(cells, **options), found)
    monkeypatch.undo()
    first = estimator_bias.run_bias(cells, networks=1, **options)
    pd.testing.assert_frame_equal(first, found[found["seed"] == 0])


def test_inflation_is_the_geometric_mean_over_groups_and_seeds() -> None:
    """sqrt(2 * 8) = 4 in one seed, 1 in the other: their geometric mean is 2."""
    ratios = [(0, 2.0), (0, 8.0), (1, 1.0), (1, 1.0)]
    table = pd.DataFrame(
        [
            {"quantity": "q", "order": "stored", "batch_size": 8, "role": "minority", "seed": seed, "ratio": ratio}
            for seed, ratio in ratios
        ]
    )
    [row] = estimator_bias.inflation(table).itertuples()
    assert row.mean == pytest.approx(2) and row.n_seeds == 2
    assert row.low * row.high == pytest.approx(4)  # symmetric in the logarithm


def test_gaps_are_paired_ratios_of_minority_to_majority() -> None:
    """Exactly 3 and 12 in two seeds (geometric mean 6); both estimates double the majority: distorted by 1 / 2."""
    table = pd.DataFrame(
        [
            {"quantity": "top eigenvalue", "order": order, "batch_size": 8, "role": role, "seed": seed}
            | {"exact": exact, "value": exact * (2 if role == "majority" else 1), "ratio": 1.0}
            for order in ("stored", "shuffled")
            for seed, minority in ((0, 3.0), (1, 12.0))
            for role, exact in (("majority", 1.0), ("minority", minority))
        ]
    )
    found = estimator_bias.gaps(table).set_index(["order", "of"])
    assert found.loc[("stored", "exact"), "mean"] == pytest.approx(6)
    assert found.loc[("stored", "estimate"), "mean"] == pytest.approx(3)
    assert found.loc[("stored", "estimate / exact"), ["mean", "low", "high"]].tolist() == pytest.approx([0.5] * 3)
