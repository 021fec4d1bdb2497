"""Oracles: a network that remembers all against one that learned nothing, shares that must be kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from linfair import audit, gates
from linfair.audit.expose import pool_of
from linfair.checkpoints import Header, save_network
from linfair.cli.main import main
from linfair.data import GroupedData, Split, load_data
from linfair.data.core import upsample
from linfair.engine.stages import Stages, Teacher
from linfair.engine.store import ResultStore
from linfair.ensemble import Ensemble
from linfair.ledger import Guarantee
from linfair.models import build
from linfair.schedule import Schedule
from linfair.study.recipes import recipe

QUICK = {"profile": "smoke", "count": 8, "progress": False}


def header_of(data: GroupedData) -> Header:
    return Header("mlp", 16, data.input_shape, data.classes, "digits", 3, content=data.content)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultStore:
    return ResultStore(tmp_path_factory.mktemp("store"))


class Nearest(nn.Module):
    """Scores a class by minus the distance to its nearest training image."""

    def __init__(self, data: GroupedData) -> None:
        super().__init__()
        self.x, self.y = data.normalise(data.splits["train"].x).flatten(1), data.splits["train"].y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (n, classes)."""
        away = torch.cdist(x.flatten(1), self.x)
        return -torch.stack([away[:, self.y == label].min(1).values for label in range(10)], dim=1)


def test_the_pool_is_the_training_images_and_others_like_them(digits: GroupedData) -> None:
    pool, members = pool_of(digits)
    x = pool.splits["train"].x
    assert torch.equal(x[:500], digits.splits["train"].x) and members.sum() == 500
    assert len(members) == 500 + 100 + 270 and set(pool.splits) == {"train"}


def test_others_keep_the_shares_of_a_synthetic_bias() -> None:
    """The test images are half in colour and half grey, so most of the conflicting ones are left out."""
    data = load_data("digits_s", skew=0.95)
    pool, members = pool_of(data)
    part, out = pool.splits["train"], torch.from_numpy(~members)
    aligned = torch.tensor(data.aligned)[part.y] == part.a
    assert aligned[~out].float().mean() == pytest.approx(0.95)
    assert aligned[out].float().mean() == pytest.approx(0.95, abs=0.02) and out.sum() > 500


def test_others_are_as_many_as_the_shares_allow() -> None:
    """Of 41 and 82 images in two cells 1 and 2 are matched, exactly: 41 times the float32 of 1 / 41 is below 1."""
    a = torch.tensor([0] * 41 + [1] * 82 + [0] + [1] * 50)
    x, y = torch.arange(len(a)).float().unsqueeze(1), torch.zeros(len(a), dtype=torch.int64)
    parts = {"train": slice(123), "test": slice(123, None)}
    splits = {name: Split(x[part], y[part], a[part]) for name, part in parts.items()}
    pool, members = pool_of(GroupedData("cells", splits, ("one", "two"), ("a", "b"), aligned=(0, 0)))
    assert pool.splits["train"].a[torch.from_numpy(~members)].bincount().tolist() == [1, 2]


def test_upsampled_images_are_refused(digits: GroupedData, teacher: nn.Module) -> None:
    """Of three copies in random halves a shadow that leaves one out mostly has another."""
    again = upsample(digits, 0, 3)
    with pytest.raises(ValueError, match="several times"):
        audit.expose(teacher, again, header_of(digits), **QUICK)


def test_who_learned_by_heart_is_found_out(digits: GroupedData) -> None:
    untrained = build("mlp", digits.input_shape, digits.classes, width=16, seed=5).eval()
    first, second = (audit.expose(one, digits, header_of(digits), kind="loss") for one in (Nearest(digits), untrained))
    row, nothing = (one.table.set_index("who").loc["all, within cells"] for one in (first, second))
    assert row["auc"] > 0.9 and nothing["low"] <= 0.5 <= nothing["high"]
    assert first.shadows == 0 and set(first.table["of"]) == {"this network"}
    assert sorted(first.points["index"]) == list(range(500)) and first.points["score"].is_monotonic_decreasing


@pytest.fixture(scope="module")
def attacked(digits: GroupedData, teacher: nn.Module, store: ResultStore) -> audit.Exposed:
    return audit.expose(teacher, digits, header_of(digits), store=store, **QUICK)


def test_shadows_are_attacked_as_well(attacked: audit.Exposed) -> None:
    table = attacked.table.set_index(["of", "who"])
    assert attacked.sizes == (500, 500) and attacked.shadows == 8
    ours, theirs = (table.loc[of] for of in ("this network", "networks trained alike"))
    assert list(ours.index) == list(theirs.index)
    assert list(ours.index[:4]) == ["all", "all, within cells", "majority", "minority"]
    assert (ours["targets"] == 1).all() and (theirs["targets"] == 8).all()
    assert (theirs.loc["all", "high"] - theirs.loc["all", "low"]) < (ours.loc["all", "high"] - ours.loc["all", "low"])


def test_shadows_are_trained_as_the_file_says(
    digits: GroupedData, teacher: nn.Module, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its schedule where it has one, else by the profile's; what is announced says which."""
    own, given, said = Schedule(epochs=2, batch_size=50, lr=0.03), [], []
    plain = Stages.teacher

    def seen(self: Stages, network: str, schedule: Schedule, **how: object) -> Teacher:
        given.append(schedule)
        return plain(self, network, schedule, **how)

    monkeypatch.setattr(Stages, "teacher", seen)
    for header in (replace(header_of(digits), schedule=own), header_of(digits)):
        audit.expose(teacher, digits, header, store=store, announce=said.append, **QUICK)
    assert given == [own, recipe("mlp", "smoke").base]
    assert "2 epochs, as the file" in said[0] and "profile smoke" in said[1]


def test_few_members_are_no_finding(attacked: audit.Exposed) -> None:
    few = attacked.table[attacked.table["smallest"] < 20]
    assert "minority" in set(few["who"]) and not few["finding"].any() and few["note"].str.contains("n < 20").all()


def test_the_same_shadows_serve_every_attack_and_reduced_networks(
    digits: GroupedData, teacher: nn.Module, attacked: audit.Exposed, store: ResultStore
) -> None:
    """None is trained again: the store has them."""
    trained, gated = [], gates.freeze(gates.install(teacher, digits.input_shape))
    kept = set(store.folder.rglob("*.safetensors"))
    for model, kind in ((teacher, "rmia"), (gated, "lira_online")):
        found = audit.expose(model, digits, header_of(digits), kind=kind, store=store, **QUICK)
        trained.append(found.table["auc"].to_numpy())
    assert set(store.folder.rglob("*.safetensors")) == kept
    assert np.allclose(trained[1], attacked.table["auc"], equal_nan=True)  # every ReLU is kept


def test_too_few_shadows_are_refused_before_any_is_trained(
    digits: GroupedData, teacher: nn.Module, tmp_path: Path
) -> None:
    for count in (1, 2):
        with pytest.raises(ValueError, match="train more"):
            audit.expose(teacher, digits, header_of(digits), count=count, store=ResultStore(tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_is_said(attacked: audit.Exposed) -> None:
    text, values = audit.exposed_text(attacked, most=3), json.loads(json.dumps(attacked.as_json(3)))
    for said in (text, values["guarantee"] + values["limits"]):
        assert "no privacy guarantee" in said and "never a guarantee" in said
    assert len(values["most_exposed"]) == 3 and values["exposure"][0]["who"] == "all"
    assert "minority *" in text


def test_the_command(digits: GroupedData, teacher: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file, out = tmp_path / "teacher.safetensors", tmp_path / "exposure.parquet"
    save_network(file, teacher, header_of(digits))
    words = ["expose", "--teacher", str(file), "--attack", "loss", "--most", "2"]
    assert main([*words, "--json", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["attack"] == "loss"
    assert out.is_file() and (tmp_path / "exposure-points.parquet").is_file()
    assert main([*words, "--weights", "w.safetensors"]) == 2
    assert "--mask" in capsys.readouterr().err


def test_an_audit_attacks_the_original_and_the_explained_network_on_request(
    digits: GroupedData, teacher: nn.Module, tmp_path: Path
) -> None:
    save_network(tmp_path / "teacher.safetensors", teacher, header_of(digits))
    subject, store = audit.read_own(tmp_path / "teacher.safetensors"), ResultStore(tmp_path / "store")
    light = {"budgets": (0.3,), "mitigate": False, "control": False, "curvature": False, "profile": "smoke"}
    plan = audit.Plan(method="random", exposure=True, **light)
    found = audit.audit(subject, plan, store=store, progress=False)
    assert list(found.exposed) == ["the original", "30 %"]
    page = audit.write_report(found, tmp_path / "report").read_text()
    assert page.count("Exposure of the") == 9 and "never a guarantee" in page  # caption, region and table of each
    rows = pd.read_parquet(tmp_path / "report/exposure.parquet")
    assert set(rows["network"]) == set(found.exposed)
    with pytest.raises(audit.AuditError, match="--teacher"):
        audit.audit(replace(subject, own=False), plan, store=store)


def test_shadows_are_trained_under_the_rule_of_the_network(
    digits: GroupedData, teacher: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: what the engine is asked for."""
    asked = []

    def training(self: Stages, network: str, schedule: Schedule, **how: object) -> Teacher:
        asked.append((network, schedule, how))
        return Teacher(Ensemble([teacher] * len(self.seeds)), "")

    monkeypatch.setattr(Stages, "teacher", training)
    guarantee = Guarantee(3.0, 1e-5, "rdp", 2.0, 1.0, 0.25, 160)
    header = replace(header_of(digits), rule="dp_sgd(epsilon=3.0)", guarantee=guarantee, norm="group")
    found = audit.expose(teacher, digits, header, **QUICK)
    ((network, schedule, how),) = asked
    assert (network, how["rule"], how["norm"], how["width"]) == ("mlp", "dp_sgd(epsilon=3.0)", "group", 16)
    assert schedule == recipe("mlp", "smoke").private
    assert found.guarantee == guarantee.text() and "holds" in audit.exposed_text(found)
    assert found.table["auc"][0] == 0.5  # shadows that do not depend on their images


def test_convolutional_networks_are_trained_one_by_one(
    digits: GroupedData, teacher: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = []

    def training(self: Stages, *_: object, **__: object) -> Teacher:
        alone.append(self.seeds)
        return Teacher(teacher, "")

    monkeypatch.setattr(Stages, "teacher", training)
    audit.expose(teacher, digits, replace(header_of(digits), network="resnet18"), seed=1, **QUICK)
    assert alone == [(2000 + k,) for k in range(8)]
