"""`linfair diagnose`: what it prints and writes, and what it refuses before anything is measured."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from linfair.audit import linearize_to
from linfair.cli import main
from linfair.masks import Mask
from linfair.study import ResultStore, grid


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `linfair linearize` writes: a smoke run at 20 %."""
    folder = tmp_path_factory.mktemp("linearized")
    (cell,) = grid("digits", "mlp", budgets=(0.2,), seeds=(3,), profile="smoke", width=16)
    linearize_to(folder, cell, with_control=False, store=ResultStore(folder / "store"), progress=False)
    return folder


def typed(files: Path, *more: str) -> list[str]:
    teacher, mask = files / "teacher.safetensors", files / "snl-0.2.mask.safetensors"
    return ["diagnose", "--data", "digits", "--teacher", str(teacher), "--mask", str(mask), *more]


def test_prints_every_group_and_says_whose_weights(files: Path, capsys: pytest.CaptureFixture) -> None:
    weights = files / "snl-0.2.weights.safetensors"
    assert main.main(typed(files)) == 0
    text = capsys.readouterr().out
    assert "teacher's own weights, not fine-tuned" in text
    mask = Mask.load(files / "snl-0.2.mask.safetensors")
    assert f"{100 * mask.kept / mask.total:.3g} % of the ReLUs left ({mask.kept} of {mask.total})" in text
    assert f"--weights {weights}" in text
    for words in (
        "Wilson",
        "R(a)",
        "margin",
        "|g| original",
        "absolute",
        "fairness violation",
        "parameter distance 0,",
    ):
        assert words in text
    assert main.main(typed(files, "--weights", str(weights), "--no-curvature")) == 0
    text = capsys.readouterr().out
    assert f"the weights of {weights}" in text
    assert "lie beside" not in text
    assert "parameter distance 0," not in text
    assert "absolute" not in text


def test_json_and_parquet_hold_the_same_rows(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Oracle: one output against the other, and the accuracies that `linfair linearize` wrote."""
    out, weights = tmp_path / "diagnosis.parquet", str(files / "snl-0.2.weights.safetensors")
    assert main.main(typed(files, "--weights", weights, "--no-curvature", "--json", "--out", str(out))) == 0
    plain, table = json.loads(capsys.readouterr().out), pd.read_parquet(out)
    assert plain["kept"] == table["kept"].min() < plain["total"] == table["kept"].max()
    for name in ("accuracy", "excess", "gradient_norm", "margin"):
        assert [row[name] for row in plain["groups"]] == table[name].tolist()
    written = pd.read_parquet(files / "groups.parquet").query("arm == 'plain' and split == 'test'")
    ours = table[table["arm"] == "linearized"]
    for name in ("accuracy", "risk", "excess", "margin", "churn", "gradient_norm", "distance"):
        assert ours[name].tolist() == pytest.approx(written[name].tolist(), rel=1e-5, abs=1e-9), name
    assert set(table["teacher"]) == set(written["teacher"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--split", "tset"], ["no split 'tset'", "test_balanced"]),
        (["--group", "race"], ["--group race", "leave --group out"]),
        (["--data", "toy"], ["--data toy", "trained with data digits"]),
        (["--mask", "nowhere.safetensors"], ["no mask at nowhere.safetensors"]),
        (["--teacher", "nowhere.safetensors"], ["no network at nowhere.safetensors"]),
        (["--weights", "nowhere.safetensors"], ["no network at nowhere.safetensors"]),
        (["--out", "table.csv"], ["--out table.csv", ".parquet"]),
        (["--batch-size", "0"], ["--batch-size", "got 0"]),
    ],
)
def test_a_wrong_request_exits_2_before_anything_is_measured(
    more: list[str], words: list[str], files: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(sys.modules["linfair.audit.diagnose"], "measure", fail)
    assert main.main(typed(files, *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(word in err for word in words), err


def test_teacher_and_mask_are_required(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["diagnose"]) == 2
    assert "--teacher" in capsys.readouterr().err
