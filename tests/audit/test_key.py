"""An audit's cache knows what the network computes and what the groups are called now, not what files were called."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from linfair.audit import read_user
from linfair.audit.network import _built, behaviour
from linfair.cli import main
from linfair.data import load_data
from linfair.engine.store import weights_digest

MODEL = """
import torch
from torch import nn
from layers import SCALE, activation


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.drop = nn.Dropout(0.1)
        self.r1, self.r2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        h = self.r1(self.a(x.flatten(1)))
        return self.c(self.r2(self.b(self.drop(h))))


def build():
    return Net()
"""
LAYERS = "from torch import nn\n\nSCALE = 1.0\n\n\ndef activation():\n    return nn.ReLU()\n"
LAST = "return self.c(self.r2(self.b(self.drop(h))))"
CHANGES = {
    "forward": (LAST, "return self.c(self.r2(self.b(self.drop(h))) + h - 5 * h.mean(1, keepdim=True))"),
    "a constant that an imported file holds": (LAST, "return self.c(SCALE * self.r2(self.b(self.drop(h))))"),
    "the dropout rate, in training alone": ("Dropout(0.1)", "Dropout(0.2)"),
    "a branch of training": (LAST, f"h = 2 * h if self.training else h\n        {LAST}"),
    "what gradients pass": (LAST, "return self.c(self.r2(self.b(self.drop(h.detach()))))"),
    "a limit that only large inputs meet": (LAST, LAST.replace("(h)", "(h.clamp(max=9.0))")),
    "a batch of one": (LAST, f"h = h + 1 if len(x) == 1 else h\n        {LAST}"),
    "a weight that is not trained": ("        self.r1", "        self.a.weight.requires_grad_(False)\n        self.r1"),
}


@pytest.fixture
def folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, a file of two linear layers that imports another, and weights; a cache of the test's own."""
    shutil.copytree(place / "images", tmp_path / "images")
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "layers.py").write_text(LAYERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    data = load_data("folder:images", seed=0, label="kind", group="light", size=8)
    network = _built(Path("net.py"), "build", data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (network.a, network.b, network.c):
            layer.reset_parameters()
    save_file(network.state_dict(), "w.safetensors")
    return tmp_path


def read() -> tuple[str, str]:
    found = read_user("net.py:build", "w.safetensors", "folder:images", label="kind", group="light", size=8)
    return behaviour(found.model, found.data), weights_digest(found.model)


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_that_computes_something_else_has_another_key_with_the_same_weights(
    folder: Path, change: str
) -> None:
    before = read()
    assert read() == before, "the same network has the same key"
    path = folder / "net.py"
    path.write_text(path.read_text().replace(*CHANGES[change]))
    if "SCALE" in CHANGES[change][1]:
        assert read() == before
        (folder / "layers.py").write_text(LAYERS.replace("1.0", "2.0"))
    after = read()
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_a_network_of_any_number_format_computes_is_in_its_key(dtype: torch.dtype) -> None:
    """ReLU and ELU differ at negative numbers."""
    data, keys = load_data("digits"), []
    for bend in (nn.ReLU(), nn.ELU()):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(data.input_shape), 4), bend, nn.Linear(4, 10))
        keys.append(behaviour(network.to(dtype), data))
    assert keys[0] != keys[1]


def test_a_comment_and_another_name_of_the_file_change_nothing(folder: Path) -> None:
    before = read()
    path = folder / "net.py"
    path.write_text("# what it is\n" + path.read_text().replace("h = self.r1", "hidden = h = self.r1"))
    assert read() == before


def test_the_network_stays_as_it_is(folder: Path) -> None:
    found = read_user("net.py:build", "w.safetensors", "folder:images", label="kind", group="light", size=8)
    state, mode = weights_digest(found.model), found.model.training
    random = torch.random.get_rng_state()
    behaviour(found.model, found.data)
    assert (weights_digest(found.model), found.model.training) == (state, mode)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(one.grad is None for one in found.model.parameters())


def audited(typed: Callable[..., list[str]], out: str) -> pd.DataFrame:
    words = typed("--no-mitigate", "--no-curvature", "--out", out, model="net.py:build", budgets="0.5")
    assert main.main(words) == 0
    return pd.read_parquet(f"{out}/groups.parquet")


def test_after_a_changed_forward_an_audit_gives_the_numbers_of_a_fresh_one(
    folder: Path, typed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the changed file audited with an empty cache."""
    path = folder / "net.py"
    path.write_text(MODEL.replace("Dropout(0.1)", "Dropout(0.0)"))  # drawn anew each time
    old = audited(typed, "old")
    path.write_text(path.read_text().replace(*CHANGES["forward"]))
    new = audited(typed, "new")
    monkeypatch.setenv("LINFAIR_CACHE", str(folder / "empty"))
    fresh = audited(typed, "fresh")
    pd.testing.assert_frame_equal(new, fresh, check_exact=True)
    risks = [table.loc[table["arm"] == "original", "risk"].tolist() for table in (old, new)]
    assert risks[0] != risks[1]


def test_after_groups_were_renamed_all_four_commands_print_the_new_names(
    folder: Path, typed: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same cache before and after; 0, 1 sort as female, male do, so that nothing but the names has changed."""
    table = folder / "images" / "labels.csv"
    text = table.read_text()
    made = ["linearize", "--network", "mlp", "--data", "folder:images", "--label", "kind", "--group", "light"]
    made += ["--method", "random", "--budgets", "0.5", "--profile", "smoke", "--no-control", "--out", "made"]
    pair = ["--teacher", "made/teacher.safetensors", "--mask", "made/random-0.5.mask.safetensors"]
    repair = ["mitigate", *pair, "--arms", "balanced_sampling", "--profile", "smoke", "--out", "repaired"]
    said = {}
    for names in (("0", "1"), ("female", "male")):
        new = text.replace(",bright", f",{names[0]}").replace(",dim", f",{names[1]}")
        table.write_text(new)
        for words in (made, ["diagnose", *pair, "--no-curvature"], repair):
            assert main.main(words) == 0, words
            said[names, words[0]] = capsys.readouterr().out
        groups = audited(typed, "report")
        said[names, "audit"] = Path("report/index.html").read_text() + capsys.readouterr().out
        assert set(groups["group_name"]) == set(names)
        assert set(pd.read_parquet("made/groups.parquet")["group_name"]) == set(names)
    for (names, command), out in said.items():
        assert all(re.search(rf"\b{name}\b", out) for name in names), (command, names)
    assert not any("female" in out for (names, _), out in said.items() if names == ("0", "1"))
