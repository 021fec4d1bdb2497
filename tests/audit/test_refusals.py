"""What `linfair audit` refuses, before anything is trained, and whether the message says what to do."""

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from linfair.audit import AuditError, Plan, audit, network, read_user
from linfair.cli import main

BODIES = {
    "raises": ("def build():\n    raise RuntimeError('no layers today')", "raised RuntimeError: no layers today"),
    "needs": (
        "def build(width, depth, heads):\n    pass",
        "takes (width, depth, heads); it must be a function that takes no arguments, or (input",
    ),
    "none": ("def build():\n    return 3", "must return a torch.nn.Module, it returned int"),
    "broken": ("import nothing_of_that_name", "cannot be run: ModuleNotFoundError"),
    "other": ("def builds():\n    pass", "has no function 'build'; did you mean 'builds'?"),
    "classes": (
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 5))",
        "shape (18, 5); the data have 2 labels (across, down): scores of shape (18, 2) are needed",
    ),
    "shape": (
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(100, 4), nn.ReLU(), nn.Linear(4, 2))",
        "does not take inputs of shape 3x8x8",
    ),
    "relus": (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Tanh(), "
        "nn.Linear(4, 2))",
        "computes no ReLU",
    ),
    "softmax": (
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), "
        "nn.Linear(4, 2), nn.Softmax(dim=1))",
        "returns probabilities, not scores: its last step is the Softmax of 4",
    ),
    "dictionary": (
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return {'scores': x}\n"
        "def build():\n    return Net()",
        "class scores as one tensor, it returned dict",
    ),
}


@pytest.fixture(autouse=True)
def nothing_is_trained(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("a request that is wrong must not train")

    monkeypatch.setattr("linfair.audit.run.Stages", refuse)


def refused(words: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main.main(words) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", BODIES)
def test_a_function_that_builds_no_network_for_these_data(
    name: str, tmp_path: Path, typed: Callable, capsys: pytest.CaptureFixture
) -> None:
    body, expected = BODIES[name]
    (tmp_path / "mine.py").write_text(body)
    weights = {}
    if name in ("classes", "shape", "relus", "softmax"):
        space: dict[str, object] = {}
        exec(body, space)
        weights = space["build"]().state_dict()
    save_file(weights, tmp_path / "mine.safetensors")
    changed = {"model": f"{tmp_path / 'mine.py'}:build", "weights": str(tmp_path / "mine.safetensors")}
    assert expected in refused(typed(**changed, out=str(tmp_path / "out")), capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": "mymodel.py"}, "write FILE:FUNCTION, for example mymodel.py:build"),
        ({"model": "yours.py:build"}, "there is no file yours.py"),
        ({"model": "w.safetensors:build"}, "is not a Python file"),
        ({"weights": "none.safetensors"}, "none.safetensors does not exist"),
        ({"weights": "mymodel.py"}, "is truncated or no safetensors file"),
        ({"data": "folder:image"}, "no labels.csv in image"),
        ({"group": "shade"}, "has no column shade; there are kind, light"),
        ({"mean": "0.5"}, "needs 3 numbers, one for each channel"),
        ({"std": "1,0,1"}, "above 0"),
        ({"size": "16"}, "does not take inputs of shape 3x16x16"),
        ({"budgets": "0.1,0.5"}, "descend"),
        ({"repair_at": "0.3"}, "0.3, is not one of the budgets: name one of 0.5, 0.1"),
        ({"method": "snll"}, "snl"),
        ({"method": "deepreduce(finetuning=False)"}, "finetuning = False is not for it"),
        ({"profile": "tiny"}, '"tiny" for --profile'),
        ({"arms": "fairness"}, "no mitigation 'fairness'"),
        ({"max_accuracy_loss": "-1"}, "got -1"),
        ({"bandwidth": "0"}, "--bandwidth: give a number above 0"),
        ({"lr": "0"}, "--lr: give a number above 0"),
        ({"network": "mlp"}, "--network goes with --teacher"),
        ({"out": "w.safetensors"}, "is a file; name a folder"),
    ],
)
def test_an_option_that_is_wrong(
    changed: dict[str, str], expected: str, typed: Callable, capsys: pytest.CaptureFixture
) -> None:
    assert expected in refused(typed(**changed), capsys)


def test_all_units_are_no_budget(chosen: dict) -> None:
    """Its rows would take the place of the original's in the report."""
    subject = read_user("mymodel.py:build", "w.safetensors", "folder:images", **chosen)
    with pytest.raises(AuditError, match="a budget of 1 is the original network"):
        audit(subject, Plan(budgets=(1.0, 0.5)))


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture) -> None:
    text = refused(["audit", "--model", "mymodel.py:build"], capsys)
    assert "missing: --weights, --data" in text and "--teacher FILE" in text


def test_weights_of_another_network_name_what_differs(
    place: Path, tmp_path: Path, typed: Callable, capsys: pytest.CaptureFixture
) -> None:
    tensors = load_file(place / "w.safetensors")
    tensors["final.bias"], tensors["last.weight"] = tensors.pop("last.bias"), torch.zeros(2, 7)
    save_file(tensors, tmp_path / "other.safetensors")
    text = refused(typed(weights=str(tmp_path / "other.safetensors")), capsys)
    for words in ("missing in the file: last.bias", "unknown to the network: final.bias"):
        assert words in text
    assert "last.weight is float32 (2, 7) in the file and float32 (2, 128) in the network" in text


STEP = {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}}
WRAPPINGS = {
    "bare": lambda t: t,
    "state_dict": lambda t: {"state_dict": t, "epoch": 3},
    "model": lambda t: {"model": t, "optimizer": STEP, "lr": 0.1},
    "net": lambda t: {"net": t, "acc": 91.2, "epoch": 3},
    "nested": lambda t: {"ema": {"module": t}, "args": {"lr": torch.ones(1)}},
    "Lightning": lambda t: {"state_dict": t, "callbacks": {}, "optimizer_states": [STEP], "hyper_parameters": {"a": 1}},
    "timm": lambda t: {"arch": "x", "state_dict": t, "state_dict_ema": {k: 2 * v for k, v in t.items()}},
    "numbers beside": lambda t: t | {"epoch": 3},
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the command leaves a file open
@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".PTH"])
@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_pickle_is_refused_with_a_command_that_converts_it(
    name: str, ending: str, place: Path, tmp_path: Path, typed: Callable, capsys: pytest.CaptureFixture
) -> None:
    """Oracle: the command that the message names, run as it stands, writes the same tensors."""
    tensors = load_file(place / "w.safetensors")
    torch.save(WRAPPINGS[name](tensors), tmp_path / f"it's w{ending}")
    if ending != ".pth" and name != "model":
        return
    text = refused(typed(weights=str(tmp_path / f"it's w{ending}")), capsys)
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("python -c")]
    (python, option, script) = shlex.split(line)
    space: dict[str, object] = {}
    exec(script, space)
    new = tmp_path / ("it's w.tensors.safetensors" if ending == ".safetensors" else "it's w.safetensors")
    assert str(new) in text.splitlines()[-1]
    written = load_file(new)
    assert written.keys() == tensors.keys() and all(torch.equal(written[name], tensors[name]) for name in tensors)


def test_outputs_that_are_not_finite(
    place: Path, tmp_path: Path, typed: Callable, capsys: pytest.CaptureFixture
) -> None:
    tensors = load_file(place / "w.safetensors")
    tensors["last.bias"][0] = float("inf")
    save_file(tensors, tmp_path / "inf.safetensors")
    assert "numbers that are not finite" in refused(typed(weights=str(tmp_path / "inf.safetensors")), capsys)


def test_one_group_has_nobody_to_compare_with(
    place: Path, tmp_path: Path, typed: Callable, capsys: pytest.CaptureFixture
) -> None:
    lines = (place / "images" / "labels.csv").read_text().splitlines()
    only = tmp_path / "only"
    only.mkdir()
    for file in (place / "images").glob("bright-*.png"):
        shutil.copy(file, only)
    (only / "labels.csv").write_text("\n".join(line for line in lines if not line.endswith(",dim")))
    text = refused(typed(data=f"folder:{only}"), capsys)
    assert "has one group only (bright)" in text and "--group" in text


def test_a_network_that_has_not_learned_is_warned_of(place: Path, tmp_path: Path, chosen: dict) -> None:
    """All weights zero: it always gives one answer, as often right as that answer is."""
    save_file(
        {name: torch.zeros_like(one) for name, one in load_file("w.safetensors").items()}, tmp_path / "0.safetensors"
    )
    (text,) = read_user("mymodel.py:build", tmp_path / "0.safetensors", "folder:images", **chosen).warnings
    assert "right on 50.0 %" in text and "most frequent label would be right on 50.0 %" in text
    assert read_user("mymodel.py:build", "w.safetensors", "folder:images", **chosen).warnings == ()


def test_the_function_may_import_its_neighbours_and_take_no_arguments(tmp_path: Path, chosen: dict) -> None:
    (tmp_path / "layers_of_mine.py").write_text("from torch import nn\nHEAD = nn.Linear(4, 2)")
    text = "from layers_of_mine import HEAD\nfrom torch import nn\n"
    text += "def make(width=4):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.ReLU(), HEAD)"
    (tmp_path / "mine.py").write_text(text)
    path = list(sys.path)
    data = read_user("mymodel.py:build", "w.safetensors", "folder:images", **chosen).data
    assert len(network._built(tmp_path / "mine.py", "make", data)) == 4
    assert sys.path == path
    with pytest.raises(AuditError, match="has no function 'HEADS'"):
        network._built(tmp_path / "mine.py", "HEADS", data)
