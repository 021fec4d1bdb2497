"""Rows of a measured network against fairlearn, plain loops over autograd, and the metrics asked one by one."""

import copy
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fairlearn.metrics import MetricFrame
from of_networks import churn_of, excess_of, margin_of, risk_of
from torch import nn

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.ensemble import Ensemble
from linfair.metrics import group_gradient_norms, top_eigenvalues, wilson
from linfair.metrics.measure import DIAGNOSTICS, MEANS, Original, answers, measure
from linfair.study import ResultStore, grid, run
from linfair.study.recipes import recipe
from linfair.study.tables import by_role, drops
from linfair.training import correctness, predict

SEED = 3
EVIDENCE = {"budget": 0.5, "units": 16, "kept": [16], "epochs": [0]}


@pytest.fixture(scope="module")
def student(teacher: nn.Module, digits: GroupedData) -> nn.Module:
    """The teacher with every second unit linear and its weights moved a little."""
    model = copy.deepcopy(gates.install(teacher, digits.input_shape))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    gates.set_alphas(model, lambda _, alpha: torch.arange(alpha.numel()).view_as(alpha) % 2 * torch.ones_like(alpha))
    return gates.freeze(model).eval()


@pytest.fixture(scope="module")
def rows(student: nn.Module, teacher: nn.Module, digits: GroupedData) -> pd.DataFrame:
    """The student's rows, eigenvalues on the training split."""
    original = Original(teacher, digits)
    return measure(student, digits, [SEED], **EVIDENCE, original=original, curvature=("train",))


def on(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    return rows[rows["split"] == split].sort_values("group", ignore_index=True)


def splits_of(digits: GroupedData) -> Iterator[tuple[str, object]]:
    yield from digits.splits.items()


def test_means_equal_fairlearns_metric_frame(
    rows: pd.DataFrame, student: nn.Module, teacher: nn.Module, digits: GroupedData
) -> None:
    """Oracle: MetricFrame over logits from a plain forward pass; losses, margins and changes per input by torch."""
    for split, part in splits_of(digits):
        x = digits.normalise(part.x)
        with torch.no_grad():
            ours, theirs = student(x).double(), teacher(x).double()
        top = ours.softmax(1).topk(2, dim=1).values
        loss = F.cross_entropy(ours, part.y, reduction="none")
        values = {
            "risk": loss,
            "excess": loss - F.cross_entropy(theirs, part.y, reduction="none"),
            "margin": top[:, 0] - top[:, 1],
            "churn": (ours.argmax(1) != theirs.argmax(1)).double(),
            "accuracy": correctness(student, digits, split)[0].double(),
        }
        for name, value in values.items():
            frame = MetricFrame(
                metrics=lambda _, value: float(np.mean(value)),
                y_true=part.y.numpy(),
                y_pred=value.numpy(),
                sensitive_features=part.a.numpy(),
            )
            found = on(rows, split)[name].tolist()
            assert found == pytest.approx(frame.by_group.to_list(), abs=1e-6), (split, name)


def test_intervals_and_means_equal_the_metrics_asked_one_by_one(
    rows: pd.DataFrame, student: nn.Module, teacher: nn.Module, digits: GroupedData
) -> None:
    """Oracle: the functions that take a network and data."""
    for split in digits.splits:
        part = on(rows, split)
        expected = {
            "risk": risk_of(student, digits, split),
            "excess": excess_of(student, teacher, digits, split),
            "margin": margin_of(student, digits, split),
            "churn": churn_of(student, teacher, digits, split),
        }
        assert set(expected) == set(MEANS)
        for name, found in expected.items():
            for column, field in ((name, "mean"), (f"{name}_low", "low"), (f"{name}_high", "high")):
                assert part[column].tolist() == pytest.approx([getattr(one, field) for one in found], abs=1e-9)


def gradient_norms_by_hand(model: nn.Module, data: GroupedData, split: str, *, alpha: bool) -> list[float]:
    """Autograd on each whole group, one backward pass a group, no batches, no helpers of linfair's metrics."""
    model = copy.deepcopy(model).eval().double().requires_grad_(True)
    part, norms = data.splits[split], []
    x = data.normalise(part.x).double()
    chosen = [value for name, value in model.named_parameters() if alpha or not name.endswith("alpha")]
    for group in range(len(data.group_names)):
        loss = F.cross_entropy(model(x[part.a == group]), part.y[part.a == group])
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in torch.autograd.grad(loss, chosen))))
    return norms


def test_gradient_norms_equal_a_plain_loop(rows: pd.DataFrame, student: nn.Module, digits: GroupedData) -> None:
    """Oracle: autograd on each whole group in float64; without alphas and with them."""
    for split in ("train", "test"):
        part = on(rows, split)
        for column, alpha in (("gradient_norm", False), ("gradient_norm_alpha", True)):
            expected = gradient_norms_by_hand(student, digits, split, alpha=alpha)
            assert part[column].tolist() == pytest.approx(expected, rel=1e-4)
        assert (part["gradient_norm_alpha"] > part["gradient_norm"]).all()


def test_eigenvalues_equal_the_two_searches(rows: pd.DataFrame, student: nn.Module, digits: GroupedData) -> None:
    """Oracle: `top_eigenvalues` in float64, LA and LM."""
    part = on(rows, "train")
    for column, which in (("top_eigenvalue", "LA"), ("absolute_eigenvalue", "LM")):
        expected = top_eigenvalues(student, digits, which=which, dtype=torch.float64)
        assert part[column].tolist() == pytest.approx([row.value for row in expected], rel=1e-3)
        assert part[f"{column}_converged"].all()
        assert (part[f"{column}_residual"] <= 1e-4 * part[column].abs()).all()


def test_distance_is_one_number_for_all_rows(rows: pd.DataFrame, student: nn.Module, teacher: nn.Module) -> None:
    """Oracle: the norm of the difference of the flattened weights."""
    moved = dict(student.named_parameters())
    pairs = [(moved[name].detach(), value.detach()) for name, value in teacher.named_parameters()]
    distance = math.sqrt(sum(float((one - two).double().square().sum()) for one, two in pairs))
    norm = math.sqrt(sum(float(two.double().square().sum()) for _, two in pairs))
    assert rows["distance"].nunique() == 1
    assert rows["distance"][0] == pytest.approx(distance, rel=1e-6)
    assert rows["relative_distance"][0] == pytest.approx(distance / norm, rel=1e-6)


def test_only_what_was_not_computed_is_nan(rows: pd.DataFrame) -> None:
    """Gradients on train and test, eigenvalues on train, all else everywhere (every group here has two inputs)."""
    computed = {"gradient": ("train", "test"), "eigenvalue": ("train",)}
    assert (rows["n"] > 1).all()
    for column in rows.columns:
        where = next((splits for word, splits in computed.items() if word in column), None)
        expected = ~rows["split"].isin(where) if where else pd.Series(False, index=rows.index)
        assert rows[column].isna().equals(expected), column
    assert set(DIAGNOSTICS) <= set(rows.columns)
    assert not rows[[name for name in DIAGNOSTICS if "_converged" not in name]].isin([math.inf, -math.inf]).any().any()


def test_the_original_is_at_no_distance_from_itself(teacher: nn.Module, digits: GroupedData) -> None:
    """Excess, churn and distance are 0 with no width; its gradient with alphas is that of gates all at 1."""
    own = measure(teacher, digits, [SEED], **EVIDENCE, original=Original(teacher, digits))
    zero = [f"{name}{end}" for name in ("excess", "churn") for end in ("", "_low", "_high")]
    assert (own[[*zero, "distance", "relative_distance"]] == 0).all().all()
    gated = gates.install(teacher, digits.input_shape)
    expected = gradient_norms_by_hand(gated, digits, "train", alpha=True)
    assert on(own, "train")["gradient_norm_alpha"].tolist() == pytest.approx(expected, rel=1e-4)
    for row in own.itertuples():
        assert (row.low, row.high) == wilson(row.accuracy, row.n)


def test_answers_equal_correctness_and_predict(teacher: nn.Module, digits: GroupedData) -> None:
    """Oracle: the two passes that `answers` makes in one."""
    right, logits = answers(teacher, digits, "test")
    assert torch.equal(right, correctness(teacher, digits, "test"))
    assert torch.equal(logits[0], predict(teacher, digits, "test"))


def test_rows_of_an_ensemble_equal_those_of_its_members_alone(student: nn.Module, teacher: nn.Module) -> None:
    """Two members, each on a data set of its own: the same numbers as one network at a time, and in its own rows."""
    sets = [load_data("digits", seed=seed) for seed in (SEED, SEED + 1)]
    other = copy.deepcopy(student)
    with torch.no_grad():
        other[1].weight.mul_(1.3)
    two = {"budget": 0.5, "units": 16, "kept": [16, 16], "epochs": [0, 7]}
    options = {"gradients": ("test",), "curvature": ("test",), "split": ("test", "train")}
    both = Original(Ensemble([teacher, teacher]), sets)
    together = measure(Ensemble([student, other]), sets, [SEED, SEED + 1], **two, original=both, **options)
    for seed, model, data, epochs in zip((SEED, SEED + 1), (student, other), sets, (0, 7), strict=True):
        one = EVIDENCE | {"epochs": [epochs]}
        alone = measure(model, data, [seed], **one, original=Original(teacher, data), **options)
        part = together[together["seed"] == seed].reset_index(drop=True)
        residuals = [name for name in part if name.endswith("_residual")]
        pd.testing.assert_frame_equal(part.drop(columns=residuals), alone.drop(columns=residuals), rtol=2e-4)


def test_the_estimator_and_its_batches_are_passed_on(
    student: nn.Module, teacher: nn.Module, digits: GroupedData
) -> None:
    """Oracle: `group_gradient_norms` with the same options; exact does not depend on the batches."""
    options = {"original": Original(teacher, digits), "split": ("train",)}
    exact = measure(student, digits, [SEED], **EVIDENCE, **options)
    small = measure(student, digits, [SEED], **EVIDENCE, **options, batch_size=16)
    biased = measure(student, digits, [SEED], **EVIDENCE, **options, estimator="per_batch", batch_size=16)
    assert small["gradient_norm"].tolist() == pytest.approx(exact["gradient_norm"].tolist(), rel=1e-5)
    expected = group_gradient_norms(student, digits, estimator="per_batch", batch_size=16)
    assert biased["gradient_norm"].tolist() == pytest.approx([row.norm for row in expected], rel=1e-6)
    assert not np.allclose(biased["gradient_norm"], exact["gradient_norm"], rtol=1e-2)


# In studies


def test_a_studys_rows_carry_the_diagnostics_and_pool_as_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Oracle: the same table without the new columns; eigenvalues for the original alone, or for all when asked."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    options = {"budgets": (0.5,), "seeds": (0, 1), "profile": "smoke"}
    table = run(grid("digits", "mlp", **options), arms=("original", "plain"), store=store, progress=False)
    trained = table[table["split"] == "train"]
    assert trained[trained["arm"] == "original"]["top_eigenvalue"].notna().all()
    assert trained[trained["arm"] == "plain"]["top_eigenvalue"].isna().all()
    assert trained["gradient_norm"].notna().all()
    assert (table[table["arm"] == "plain"]["distance"] > 0).all()
    without = table.drop(columns=[*DIAGNOSTICS, "distance", "relative_distance"])
    ours = drops(by_role(table)).drop(columns=["distance", "relative_distance"])
    key = ["arm", "seed", "split", "group_name"]
    one, two = (frame.sort_values(key, ignore_index=True) for frame in (ours, drops(by_role(without))))
    pd.testing.assert_frame_equal(one, two, check_like=True)
    again = run(
        grid("digits", "mlp", **options, curvature="all"), arms=("original", "plain"), store=store, progress=False
    )
    curved = again[(again["split"] == "train") & (again["arm"] == "plain")]
    assert curved["top_eigenvalue_converged"].all()
    pd.testing.assert_frame_equal(again[again["arm"] == "original"], table[table["arm"] == "original"])


def test_whose_curvature_is_computed_is_the_recipes_and_can_be_overridden() -> None:
    found = {(net, name): recipe(net, name).curvature for net in ("mlp", "resnet18") for name in ("small", "paper")}
    assert found == {
        ("mlp", "small"): "original",
        ("resnet18", "small"): "original",
        ("mlp", "paper"): "all",
        ("resnet18", "paper"): "all",
    }
    assert grid("digits", "mlp", budgets=(0.5,), seeds=(0,), curvature="none")[0].curvature == "none"
    with pytest.raises(ValueError, match="no curvature='some'; there are none, original, all"):
        grid("digits", "mlp", budgets=(0.5,), seeds=(0,), curvature="some")


def test_a_network_on_its_own_is_measured_without_what_it_was_made_from(
    rows: pd.DataFrame, student: nn.Module, digits: GroupedData
) -> None:
    """Oracle: the rows with the original; what compares with it is nan, and kept units are counted."""
    own = measure(student, digits, split="test")
    other = on(rows, "test")
    compared = [name for name in own if name.startswith(("excess", "churn", "distance", "relative"))]
    assert own[compared].isna().all(axis=None)
    same = [name for name in own if name not in (*compared, "seed", "budget", "budget_units", "mask_epochs", "kept")]
    pd.testing.assert_frame_equal(own[same], other[same])
    kept = int(gates.kept_units(student))
    assert (own["kept"] == kept).all()
    assert own["budget"].unique().tolist() == [kept / gates.total_units(student)]
