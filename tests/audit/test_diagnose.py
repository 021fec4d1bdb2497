"""A diagnosis against the metrics asked one by one, and files that do not belong together."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from of_networks import excess_of, margin_of
from torch import nn

from linfair import gates
from linfair.audit.diagnose import WORST, Diagnosis, Pair, diagnose, diagnosis_text, read_pair
from linfair.audit.linearize import linearize_to
from linfair.audit.shown import change_text, drop_between, interval
from linfair.checkpoints import CheckpointError, Header, load_network, save_network
from linfair.data import GroupedData, load_data
from linfair.masks import Mask
from linfair.metrics import closeness_of, disparity, group_gradient_norms, parameter_distance
from linfair.metrics.margin import normalised
from linfair.metrics.measure import DIAGNOSTICS
from linfair.models import build
from linfair.study import ResultStore, grid
from linfair.training import Schedule, fit, supervised


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `linfair linearize` writes: a smoke run at 50 % and 20 %."""
    folder = tmp_path_factory.mktemp("linearized")
    (cell,) = grid("digits", "mlp", budgets=(0.5, 0.2), seeds=(3,), profile="smoke", width=16)
    linearize_to(folder, cell, with_control=False, store=ResultStore(folder / "store"), progress=False)
    return folder


def read(files: Path, *, budget: float = 0.2, tuned: bool = False, **options: object) -> Pair:
    weights = files / f"snl-{budget:g}.weights.safetensors" if tuned else None
    return read_pair(
        files / "teacher.safetensors", files / f"snl-{budget:g}.mask.safetensors", **({"weights": weights} | options)
    )


@pytest.fixture(scope="module")
def pair(files: Path) -> Pair:
    return read(files, tuned=True)


@pytest.fixture(scope="module")
def found(pair: Pair) -> Diagnosis:
    return diagnose(pair.linearized, pair.original, pair.data, "test", seed=3)


def arm(found: Diagnosis, name: str) -> pd.DataFrame:
    return found.table[found.table["arm"] == name].reset_index(drop=True)


# What is read


def test_the_written_network_is_read_back_with_its_mask(files: Path, pair: Pair) -> None:
    """Oracle: the files read one by one."""
    mask = Mask.load(files / "snl-0.2.mask.safetensors")
    model, _ = load_network(files / "snl-0.2.weights.safetensors")
    assert int(gates.kept_units(pair.linearized)[0]) == mask.kept
    assert all(torch.equal(a, b) for a, b in zip(pair.linearized.parameters(), model.parameters(), strict=True))
    assert not gates.sites(pair.original)
    assert pair.beside is None
    assert torch.equal(pair.data.splits["test"].x, load_data("digits", seed=3).splits["test"].x)


def test_without_weights_the_mask_is_put_on_the_teachers_own(files: Path) -> None:
    """The distance is 0, and the fine-tuned weights beside the mask are named."""
    bare = read(files)
    assert parameter_distance(bare.linearized, bare.original).distance == 0
    assert int(gates.kept_units(bare.linearized)[0]) == Mask.load(files / "snl-0.2.mask.safetensors").kept
    assert bare.beside == files / "snl-0.2.weights.safetensors"


def test_files_that_do_not_belong_together_are_refused(files: Path, tmp_path: Path) -> None:
    teacher, mask = files / "teacher.safetensors", files / "snl-0.2.mask.safetensors"
    weights, header = files / "snl-0.2.weights.safetensors", load_network(teacher)[1]
    wide = tmp_path / "wide.safetensors"
    save_network(wide, build("mlp", (1, 12, 12), 10, width=20, seed=3), Header("mlp", 20, (1, 12, 12), 10, "digits", 3))
    other = tmp_path / "other.safetensors"
    save_network(other, load_network(weights)[0], Header(**(vars(header) | {"seed": 4, "gated": True})))
    cases = [
        ((tmp_path / "none", mask), {}, CheckpointError, "no network at .*none"),
        ((mask, mask), {}, CheckpointError, "is no network written by linfair"),
        ((teacher, tmp_path / "none"), {}, gates.GateError, "no mask at .*none"),
        ((teacher, weights), {}, gates.GateError, "is no mask"),
        ((weights, mask), {}, CheckpointError, "holds a linearized network; give its original"),
        ((wide, mask), {}, gates.GateError, r"snl-0.2.* does not fit .*wide.*shapes differ: .*\(16,\)"),
        ((teacher, mask), {"weights": teacher}, CheckpointError, "holds the weights of the original network"),
        ((teacher, mask), {"weights": other}, CheckpointError, "not made from this teacher: it has seed 4, not 3"),
        (
            (teacher, files / "snl-0.5.mask.safetensors"),
            {"weights": weights},
            CheckpointError,
            "others than the .* of one budget",
        ),
        ((teacher, mask), {"data": "toy"}, ValueError, "--data toy, but .* trained with data digits"),
        ((teacher, mask), {"group": "race"}, ValueError, "--group race, but .* the data's own group"),
        ((teacher, mask), {"device": "cuda"}, ValueError, "torch sees no GPU"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for paths, options, error, message in cases:
            with pytest.raises(error, match=message):
                read_pair(*paths, **options)
    assert read_pair(teacher, mask, data="digits").header == header


# What is measured


def test_columns_equal_the_metrics_asked_one_by_one(pair: Pair, found: Diagnosis) -> None:
    original, student = arm(found, "original"), arm(found, "linearized")
    for row, before in zip(student.itertuples(), original["accuracy"], strict=True):
        assert row.original == before
        assert row.drop == pytest.approx(100 * (before - row.accuracy))
        assert row.drop_low <= row.drop <= row.drop_high
        if before:
            assert row.relative_drop == pytest.approx(100 * (before - row.accuracy) / before)
    margins = margin_of(pair.linearized, pair.data, "test")
    assert student["margin_normalised"].tolist() == pytest.approx(
        normalised([row.mean for row in margins], pair.data.counts)
    )
    for table, model in ((original, pair.original), (student, pair.linearized)):
        norms = [row.norm for row in group_gradient_norms(model, pair.data, "test")]
        assert table["gradient_norm"].tolist() == pytest.approx(norms, rel=1e-6)
    assert (original[["drop", "drop_low", "drop_high"]] == 0).all().all()
    assert set(DIAGNOSTICS) <= set(found.table.columns)
    assert found.table[list(DIAGNOSTICS)].notna().all().all()
    assert found.table["closeness"].isna().all()


def test_fairness_violation_worst_groups_and_distance(pair: Pair, found: Diagnosis) -> None:
    """Oracles: `disparity` of `excess_of`, maxima of the table's columns, `parameter_distance`."""
    expected = disparity(excess_of(pair.linearized, pair.original, pair.data, "test"), worst="high")
    assert found.disparities["excess"].worst == expected.worst
    assert found.disparities["excess"].gap == pytest.approx(expected.gap, abs=1e-9)
    student = arm(found, "linearized")
    for name, worst in WORST.items():
        one, values = found.disparities[name], student[name]
        assert one.gap == pytest.approx(values.max() - values.min())
        assert values[one.worst] == (values.min() if worst == "low" else values.max())
        assert (one.n_worst, one.n_best) == (student["n"][one.worst], student["n"][one.best])
    assert found.distance == parameter_distance(pair.linearized, pair.original)
    assert set(student["distance"]) == {found.distance.distance}


def test_a_binary_task_has_a_closeness() -> None:
    """Oracle: `closeness_of`, on the toy with its two labels."""
    data = load_data("toy", seed=0)
    network = build("mlp", data.input_shape, data.classes, width=4, seed=0)
    fit(network, data, supervised, Schedule(epochs=3, lr=0.1), seeds=[0], stage="base", progress=False)
    student = gates.binarise(gates.set_alphas(gates.install(network, data.input_shape), lambda _, a: 0 * a))
    found = diagnose(student, network, data, "test", curvature=False)
    expected = [row.mean for row in closeness_of(student, data, "test")]
    assert arm(found, "linearized")["closeness"].tolist() == pytest.approx(expected)
    assert found.table["top_eigenvalue"].isna().all()
    assert "closeness" in diagnosis_text(found)
    assert "top original" not in diagnosis_text(found)


def test_as_json_is_plain_and_complete(found: Diagnosis) -> None:
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert len(plain["groups"]) == 20
    assert plain["groups"][3]["group_name"] == "3"
    assert plain["groups"][3]["closeness"] is None
    assert plain["groups"][3]["top_eigenvalue_converged"] is True
    assert plain["disparities"]["excess"]["gap"] == found.disparities["excess"].gap
    assert plain["parameter_distance"]["distance"] == found.distance.distance


def test_text_has_a_line_per_group_and_marks_what_did_not_converge(found: Diagnosis) -> None:
    text = diagnosis_text(found)
    for name in arm(found, "linearized")["group_name"]:
        assert sum(line.split()[:1] == [name] for line in text.splitlines()) == 3
    assert "*" not in text
    assert max(map(len, text.splitlines())) <= 150
    table = found.table.copy()
    table.loc[table.index[0], "absolute_eigenvalue_converged"] = False
    marked = Diagnosis(table, found.split, found.estimator, found.disparities, found.distance)
    assert "(* not converged)" in diagnosis_text(marked)


def test_per_batch_is_passed_on(pair: Pair) -> None:
    """Oracle: `group_gradient_norms` with the same batches."""
    options = {"estimator": "per_batch", "batch_size": 20}
    found = diagnose(pair.linearized, pair.original, pair.data, "val", curvature=False, **options)
    expected = [row.norm for row in group_gradient_norms(pair.linearized, pair.data, "val", **options)]
    assert arm(found, "linearized")["gradient_norm"].tolist() == pytest.approx(expected, rel=1e-6)
    assert set(found.table["estimator"]) == {"per_batch"}


def test_an_unknown_split_names_those_there_are(pair: Pair, digits: GroupedData, teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match="no split 'tset'; there are train, val, test, test_balanced"):
        diagnose(pair.linearized, pair.original, pair.data, "tset")
    deeper = build("mlp", digits.input_shape, digits.classes, width=17)
    with pytest.raises(ValueError, match="networks differ in structure"):
        diagnose(gates.install(deeper, digits.input_shape), teacher, digits)


def test_intervals_and_changes_are_written_and_drops_have_mover_ends() -> None:
    """By hand; MOVER of two intervals of half widths 0.3 and 0.4 has 0.5 on either side."""
    written = interval(20.571, 8.1, 33.04), interval(20.571, 8.1, 33.04, ends=0), interval(0.5, math.nan, math.nan)
    assert written == ("20.6 [8.1, 33.0]", "20.6 [8, 33]", "0.5 [no interval]")
    one, two = ({"accuracy": a, "low": a - 0.3, "high": a + 0.4} for a in (0.5, 0.4))
    assert drop_between(one, two) == pytest.approx({"drop": 10, "drop_low": -40, "drop_high": 60})
    assert change_text(5.0, -1.0, 11.0) == "+5.0 points [-1.0, +11.0], within test noise"
    assert change_text(-5.0, -9.0, -1.0) == "-5.0 points [-9.0, -1.0], a loss"
    assert change_text(-0.01, -0.04, 0.02) == "+0.0 points [+0.0, +0.0], within test noise"
