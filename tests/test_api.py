"""What a user imports: ten names, and a linearizer or a mitigation added in one file."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import linfair
from linfair.cli import main
from linfair.linearizers import LINEARIZERS
from linfair.mitigation import MITIGATIONS
from linfair.study import ResultStore
from linfair.study.jobs import compute
from linfair.study.plan import plan, read_figure

NAMES = {"load_data", "build", "fit", "install", "Mask", "linearize", "finetune", "measure", "run", "audit"}


def test_ten_names_are_there_and_no_other() -> None:
    assert set(linfair.__all__) == NAMES == {name for name in dir(linfair) if not name.startswith("_")}
    assert all(callable(getattr(linfair, name)) for name in NAMES)
    with pytest.raises(AttributeError, match=r"no 'linearise'; it has .*linearize"):
        _ = linfair.linearise


def test_names_are_found_in_a_fresh_process_whatever_is_imported_first() -> None:
    """`audit` is a package and a function: both ways of calling it, in both orders; importing alone loads no torch."""
    code = """
import sys, linfair
assert "torch" not in sys.modules
from linfair import audit
assert audit is linfair.audit and callable(audit)
from linfair.audit import Plan, audit as function
for call in (linfair.audit, function):
    try:
        call(None, Plan(max_accuracy_loss=-1.0))
    except ValueError as error:
        assert "-1.0" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_example_takes_these_names_alone_and_ten_lines() -> None:
    text = (Path(linfair.__file__).parent.parent / "book/use-it.md").read_text()
    block = re.search(r"in ten lines\?\n\n```python\n(.*?)```", text, re.DOTALL)[1]
    imports = [line for line in block.splitlines() if "import" in line]
    assert len(block.splitlines()) <= 10
    assert len(imports) == 1
    assert imports[0].startswith("from linfair import ")
    assert set(imports[0].removeprefix("from linfair import ").split(", ")) <= NAMES


LINEARIZER = '''
"""Keeps the units of the first layers."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from linfair import gates
from linfair.linearizers import LINEARIZERS, Linearizer, one_shot, top_units


@dataclass(frozen=True)
class FirstLayers:
    """Options: how much a layer further in counts less."""

    step: float = 1.0
    profiles: ClassVar = {"smoke": {"step": 2.0}}


def scores(network, data, seed, options):
    sites = gates.sites(network).items()
    return {site: torch.full(gate.alpha.shape, -options.step * at) for at, (site, gate) in enumerate(sites)}


LINEARIZERS["first_layers"] = Linearizer(
    "first_layers", "keeps the first layers", "a test", FirstLayers, one_shot("first_layers", scores, top_units)
)
'''

MITIGATION = '''
"""Weighs the worst group of a batch."""

from dataclasses import dataclass
from typing import ClassVar

from linfair.mitigation import MITIGATIONS, MitigatedObjective, Mitigation, MitigationOptions


class WorstGroupObjective(MitigatedObjective):
    def __call__(self, model, batch):
        mean, groups, _ = self.batch_losses(model(batch.x), batch)
        return mean + self.options.weight * groups.amax(dim=1)


@dataclass(frozen=True)
class WorstGroup(MitigationOptions):
    """Options: the weight of the worst group."""

    name: ClassVar = "worst_group"
    objective: ClassVar = WorstGroupObjective
    weight: float = 0.5


MITIGATIONS["worst_group"] = Mitigation("worst_group", "adds the worst group's loss", "a test", WorstGroup)
'''

GRID = """
figure = "Fig. 0"
title = "a test"
shows = "a test"
split = "test"
quantity = "accuracy"
claims = []

[[panel]]
data = "digits"
network = "mlp"
method = "first_layers"
budgets = [0.5]
arms = ["original", "plain", "control", "worst_group(weight=2.0)"]
options = { step = 3 }
"""


@pytest.fixture
def added(tmp_path: Path) -> Iterator[None]:
    """Both files, imported as a user's script would; the registries are as before afterwards."""
    before = dict(LINEARIZERS), dict(MITIGATIONS)
    for name, text in (("linearizer", LINEARIZER), ("mitigation", MITIGATION)):
        assert len(text.splitlines()) <= 60
        path = tmp_path / f"added_{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    for registry, known in zip((LINEARIZERS, MITIGATIONS), before, strict=True):
        for name in set(registry) - set(known):
            del registry[name]


def test_a_linearizer_and_a_mitigation_are_a_file_each_for_commands_audits_and_grids(
    added: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """`linearize`, `mitigate`, `audit` and a TOML grid take them by name; of two layers the first is kept."""
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    made = ["--method", "first_layers", "--budgets", "0.5", "--profile", "smoke"]
    assert main.main(["linearize", "--data", "digits", *made, "--out", "out"]) == 0
    mask = linfair.Mask.load(tmp_path / "out" / "first_layers-0.5.mask.safetensors")
    assert list(mask.per_site.values()) == [mask.total // 2, 0]
    teacher = tmp_path / "out" / "teacher.safetensors"
    repair = ["--mask", str(tmp_path / "out" / "first_layers-0.5.mask.safetensors"), "--arms", "worst_group"]
    assert main.main(["mitigate", "--teacher", str(teacher), *repair, "--profile", "smoke", "--out", "fixed"]) == 0
    assert "worst_group" in capsys.readouterr().out
    audited = ["audit", "--teacher", str(teacher), *made, "--arms", "worst_group", "--no-curvature", "--out", "report"]
    assert main.main(audited) == 0
    assert "first_layers" in (tmp_path / "report" / "index.html").read_text()

    (tmp_path / "grid.toml").write_text(GRID)
    said: list[str] = []
    store = ResultStore(tmp_path / "store")
    jobs = plan([read_figure(tmp_path / "grid.toml")], "smoke", seeds=2)
    for job in jobs:
        compute(job, store, lambda event: said.append(event.text))
    rows = pd.concat([store.read(name) for name in store.tables.names()])
    assert set(rows["arm"]) == {"original", "plain", "control", "worst_group(weight=2.0)"}, said
    assert set(rows.loc[rows["arm"] == "plain", "kept"]) == {64}
    assert set(rows.loc[rows["arm"] == "plain", "options"]) == {"step=3.0"}
    method = LINEARIZERS["first_layers"]
    assert (method.settings("smoke", "mlp").step, method.settings("small", "mlp").step) == (2.0, 1.0)
