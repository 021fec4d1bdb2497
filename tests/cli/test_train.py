"""`linfair train`: it writes what it prints, and what cannot be private is refused before anything is trained."""

import sys
from pathlib import Path

import pytest
import torch

from linfair.checkpoints import Header, load_network
from linfair.cli import main
from linfair.data import load_data
from linfair.engine.store import weights_digest
from linfair.ledger import Guarantee
from linfair.rules import accounting, spent

QUICK = ("--width", "8", "--epochs", "2", "--batch-size", "100")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def trained(*words: str) -> Header:
    assert main.main(["train", *QUICK, *words, "--out", "out"]) == 0
    return load_network("out/teacher.safetensors")[1]


@pytest.mark.parametrize("rule", ["dp-sgd", "dp_sgd", "dp_sgd(epsilon=3, clip=0.5)"])
def test_a_private_network_is_written_with_rule_and_guarantee_and_measured(
    rule: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    """Oracles: the accountant, and the written network on the test images, image by image."""
    header = trained("--rule", rule, *(() if "(" in rule else ("--epsilon", "3", "--clip", "0.5", "--delta", "1e-5")))
    assert (header.rule, header.norm, header.data_options) == (
        "dp_sgd(epsilon=3.0, clip=0.5)",
        "group",
        (("scale", "fixed"),),
    )
    one = header.guarantee
    assert one == Guarantee(one.epsilon, 1e-5, "rdp", one.noise, 0.5, 100 / 500, 2 * 5)
    assert one.epsilon == spent(one.noise, 1e-5, 0.2, 10) and 2.9 < one.epsilon <= 3
    out = capsys.readouterr().out
    assert one.text() in out and "holds" in one.text() and "not for release" in out
    data = load_data("digits", scale="fixed")
    model, part = load_network("out/teacher.safetensors")[0].eval(), data.splits["test_balanced"]
    views = [torch.roll(part.x, view, (2, 3)) for view in data.views]  # digits have a margin as wide as their shifts
    right = torch.stack([model(data.normalise(x)).argmax(1) == part.y for x in views]).float().mean(0)
    rows = [line.split() for line in out.partition("test_balanced")[2].splitlines()[2:12]]
    for group, words in enumerate(rows):
        assert float(words[4]) == pytest.approx(100 * right[part.a == group].mean().item(), abs=0.051)
        assert (words[0], words[2], words[3]) == (str(group), str(data.counts[group]), "54")


@pytest.mark.parametrize("rule", ["sgd", "sam", "clipped(max_norm=0.5)"])
def test_other_rules_promise_nothing(rule: str, here: Path, capsys: pytest.CaptureFixture) -> None:
    header = trained("--rule", rule)
    assert (header.rule, header.norm, header.guarantee, header.data_options) == (rule, "batch", None, ())
    assert "privacy" not in capsys.readouterr().out


def test_noise_0_is_no_guarantee(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert trained("--rule", "dp_sgd(noise=0)").guarantee is None
    assert "no privacy guarantee" in capsys.readouterr().out


def test_networks_with_batch_norm_take_group_norm_under_a_private_rule(here: Path) -> None:
    header = trained("--network", "cnn", "--width", "4", "--epochs", "1", "--rule", "dp-sat", "--standardised")
    assert (header.norm, header.standardised, header.rule) == ("group", True, "dp_sat")
    assert header.guarantee.holds


def test_a_trained_teacher_is_read_again_and_taken_by_the_other_commands(here: Path) -> None:
    """The same command reads what it trained; `reduce` and `diagnose` take its file."""
    before = trained()
    files = ["--teacher", "out/teacher.safetensors"]
    weights = weights_digest(load_network("out/teacher.safetensors")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("linfair.rules.registry.fit", lambda *_, **__: pytest.fail("it is trained already"))
        assert trained() == before
    assert weights_digest(load_network("out/teacher.safetensors")[0]) == weights
    short = ("--keep", "0.5", "--no-control", "--profile", "smoke", "--out", "reduced")
    assert main.main(["reduce", *files, "--method", "random", *short]) == 0
    assert load_network("reduced/teacher.safetensors")[1] == before
    mask = ["--mask", "reduced/prune_random-0.5.mask.safetensors"]
    assert main.main(["diagnose", *files, *mask, "--no-curvature"]) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--network", "resnet18", "--norm", "batch"), ("resnet18", "batch norm", "--norm group")),
        (("--network", "wrn16_4", "--norm", "batch", "--rule", "dp-sat"), ("wrn16_4", "dp_sat", "--norm group")),
        (("--epsilon", "0"), ("epsilon", "above 0", "0")),
        (("--epsilon", "-1"), ("epsilon", "above 0", "-1")),
        (("--epsilon", "nan"), ("epsilon", "nan")),
        (("--rule", "dp_sgd(epsilon=0)"), ("epsilon", "above 0")),
        (("--delta", "0"), ("delta", "above 0")),
        (("--delta", "1"), ("delta",)),
        (("--delta", "0.002"), ("delta = 0.002", "500", "below 0.002")),
        (("--delta", "0.5"), ("delta = 0.5", "500", "below 0.002")),
        (("--clip", "0"), ("clip", "above 0")),
        (("--epsilon", "1e-6"), ("epsilon", "1e-06", "accountant")),
        (("--rule", "dpsgd"), ("dpsgd", "dp_sgd")),
        (("--rule", "dp-sgd("), ("dp", "epsilon=3")),
        (("--rule", "sgd", "--epsilon", "3"), ("--epsilon 3", "sgd", "leave --epsilon out")),
        (("--rule", "sam", "--clip", "1"), ("--clip 1", "sam")),
        (("--rule", "dp_sgd(mu=1)"), ("mu", "epsilon")),
        (("--data", "digts"), ("digts", "digits")),
        (("--norm", "layer"), ("layer",)),
        (("--width", "1"), ("width 1", "larger width")),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    words: tuple[str, ...],
    named: tuple[str, ...],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("linfair.rules.registry.fit", lambda *_, **__: pytest.fail("nothing may be trained"))
    assert main.main(["train", *QUICK, *words, "--out", "out"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert all(name in said for name in named), said
    assert not list(here.rglob("teacher.safetensors"))


def test_without_opacus_the_extra_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "opacus"] + ["opacus"]:
        monkeypatch.setitem(sys.modules, name, None)
    for cached in (accounting.noise_for, accounting.spent):
        cached.cache_clear()
    assert main.main(["train", *QUICK, "--out", "out"]) == 2
    assert "linfair[private]" in capsys.readouterr().err.splitlines()[-1]
    assert not list(here.rglob("teacher.safetensors"))
