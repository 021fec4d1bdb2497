"""`linfair mitigate`: what it prints and writes, and what it refuses before anything is trained."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from linfair.audit.linearize import linearize_to
from linfair.checkpoints import load_network
from linfair.cli import main
from linfair.cli.options import split_arms
from linfair.engine import stages
from linfair.masks import Mask, masks_of
from linfair.study import ResultStore, grid


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `linfair linearize` writes: a smoke run at 20 %, and the mask of a wider network."""
    folder = tmp_path_factory.mktemp("linearized")
    for place, width in ((folder, 16), (folder / "wider", 24)):
        (cell,) = grid("digits", "mlp", method="random", budgets=(0.2,), seeds=(3,), profile="smoke", width=width)
        linearize_to(place, cell, with_control=False, store=ResultStore(folder / "store"), progress=False)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))


def typed(files: Path, *more: str) -> list[str]:
    teacher, mask = files / "teacher.safetensors", files / "random-0.2.mask.safetensors"
    start = ["mitigate", "--data", "digits", "--teacher", str(teacher), "--mask", str(mask), "--profile", "smoke"]
    return [*start, "--max-accuracy-loss", "50", *more]


def test_prints_arms_choice_and_reason_and_writes_what_can_be_diagnosed(
    files: Path, capsys: pytest.CaptureFixture
) -> None:
    arms = "plain,balanced_sampling,lagrangian(one_sided=True, clip=5.0)"
    assert main.main(typed(files, "--arms", arms, "--mu", "0.01,0.1")) == 0
    text = capsys.readouterr().out
    expected = ["plain", "balanced_sampling"]
    expected += [f"lagrangian(mu={mu}, one_sided=True, clip=5.0)" for mu in (0.01, 0.1)]
    for words in (*expected, "Chosen: ", "Reason: ", "test_balanced, looked at", "judged together", "--weights"):
        assert words in text
    out = files / "random-0.2-mitigated"
    table = pd.read_parquet(out / "report.parquet")
    assert list(dict.fromkeys(table["arm"])) == expected
    (chosen,) = table[table["chosen"]]["arm"].unique()
    assert f"Chosen: {chosen}\n" in text
    weights = out / "chosen.weights.safetensors"
    (mask,) = masks_of(load_network(weights)[0])
    given = Mask.load(files / "random-0.2.mask.safetensors")
    assert f"{100 * given.kept / given.total:.3g} % of the ReLUs left ({given.kept} of {given.total})" in text
    assert all(torch.equal(units, given.units[site]) for site, units in mask.units.items())
    rest = typed(files)[1:7]
    assert (
        main.main(["diagnose", *rest, "--weights", str(weights), "--no-curvature", "--out", str(out / "d.parquet")])
        == 0
    )
    diagnosed = pd.read_parquet(out / "d.parquet").query("arm == 'linearized'")
    ours = table[(table["arm"] == chosen) & (table["split"] == "test")]
    assert diagnosed["accuracy"].tolist() == pytest.approx(ours["accuracy"].tolist())


def test_starts_from_given_weights(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    weights, out = str(files / "random-0.2.weights.safetensors"), tmp_path / "out"
    assert main.main(typed(files, "--arms", "plain", "--weights", weights, "--out", str(out))) == 0
    assert "Chosen: plain\n" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["chosen.weights.safetensors", "report.parquet"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--arms", "lagrangain"], ["no mitigation 'lagrangain'", "did you mean 'lagrangian'"]),
        (["--arms", "none,group_dro"], ["the arm of plain fine-tuning is called 'plain'"]),
        (["--arms", "lagrangian(mu=-1)"], ["mu must not be negative"]),
        (["--mu", "-1"], ["mu must not be negative"]),
        (["--mask", "nowhere.safetensors"], ["no mask at nowhere.safetensors"]),
        (["--teacher", "nowhere.safetensors"], ["no network at nowhere.safetensors"]),
        (["--mask", "WIDER"], ["does not fit", "teacher.safetensors"]),
        (["--data", "toy"], ["--data toy", "trained with data digits"]),
        (["--max-accuracy-loss", "-1"], ["--max-accuracy-loss", "0 to 100", "got -1"]),
        (["--significance", "2"], ["at most 1", "got 2"]),
        (["--profile", "smal"], ['"smal" for --profile', '"small"?']),
        (["--mu", "much"], ["--mu", "'much'"]),
        (["--out", "FILE"], ["is a file"]),
    ],
)
def test_a_wrong_request_exits_2_before_anything_is_trained(
    more: list[str], words: list[str], files: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(stages, "finetune", fail)
    places = {"WIDER": files / "wider" / "random-0.2.mask.safetensors", "FILE": files / "groups.parquet"}
    assert main.main(typed(files, *(str(places.get(word, word)) for word in more))) == 2
    out, err = capsys.readouterr()
    assert "Chosen" not in out
    assert all(word in err for word in words), err


def test_arms_are_split_outside_brackets() -> None:
    three = split_arms("plain, lagrangian(mu=0.005, clip=5.0),group_dro")
    assert three == ("plain", "lagrangian(mu=0.005, clip=5.0)", "group_dro")
    assert split_arms("lagrangian(mu=0.1, groups=(0, 1)), plain") == ("lagrangian(mu=0.1, groups=(0, 1))", "plain")
