"""`linfair networks`, `linfair linearizers`, `linfair linearize`: against known counts, the dataclasses, and files."""

import contextlib
import io
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from linfair.checkpoints import Header, load_network, save_network
from linfair.cli import main
from linfair.engine import stages
from linfair.linearizers import LINEARIZERS
from linfair.masks import Mask, apply_mask, masks_of
from linfair.mitigation.registry import MITIGATIONS
from linfair.models import NETWORKS, build
from linfair.rules import registry

UNITS = {"resnet18": "491,520", "resnet34": "901,120", "wrn22_8": "1,359,872", "vgg19": "303,104", "mlp": "128"} | {
    "resnet50": "2,875,392",
    "vgg19_imagenet": "311,296",
    "cnn": "10,444",
    "wrn16_4": "458,752",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; the cache would be in it, so a test sees if anything is written anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    return tmp_path


def smoke(*arguments: str) -> int:
    return main.main(["linearize", "--profile", "smoke", "--budgets", "0.5,0.2", *arguments])


# What there is


def test_networks_prints_the_papers_unit_counts_by_stage(capsys: pytest.CaptureFixture) -> None:
    """The counts are arithmetic on the architectures (channels x height x width, summed over ReLU calls)."""
    assert main.main(["networks"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert "3x32x32" in head
    found = {line.split()[0]: line for line in lines}
    assert set(found) == set(NETWORKS) == set(UNITS)
    for name, count in UNITS.items():
        line, _, others = found[name].partition("; ")
        assert bool(others) == (name in ("vgg19", "vgg19_imagenet", "cnn"))
        total, stages = re.fullmatch(r".* ([\d,]+)  ([\d,]+(?: \+ [\d,]+)*)", line).groups()
        assert total == count
        assert int(total.replace(",", "")) == sum(int(number.replace(",", "")) for number in stages.split(" + "))
    assert found["resnet18"].endswith(f"{UNITS['resnet18']}  262,144 + 131,072 + 65,536 + 32,768")
    weights = sum(p.numel() for p in build("resnet18", (3, 32, 32), 10).parameters())
    assert f" {weights:,} " in found["resnet18"]


@pytest.mark.parametrize(("command", "registry"), [("linearizers", LINEARIZERS), ("mitigations", MITIGATIONS)])
def test_a_registry_is_printed_with_sources_and_each_option_with_its_default(
    command: str, registry: dict, capsys: pytest.CaptureFixture
) -> None:
    """Against the dataclasses of the options themselves."""
    assert main.main([command]) == 0
    blocks = capsys.readouterr().out.strip().split("\n\n")
    assert [block.split(":")[0] for block in blocks] == list(registry)
    for block, (name, one) in zip(blocks, registry.items(), strict=True):
        lines = block.splitlines()
        assert lines[0] == f"{name}: {one.summary}"
        assert lines[1].strip() == f"source: {one.source}"
        for option in fields(one.options):
            default = getattr(one.options(), option.name)
            start = f"{option.name}:" if is_dataclass(default) else f"{option.name} = {default!r}:"
            (line,) = [line for line in lines if line.strip().startswith(start)]
            assert len(line.split(":", 1)[1].split()) >= 2, f"{name}: {option.name} is not described"
            if is_dataclass(default):
                after = lines[lines.index(line) + 1]
                assert all(f"{f.name}={getattr(default, f.name)!r}" in after for f in fields(default))


def test_snls_rewind_is_listed(capsys: pytest.CaptureFixture) -> None:
    main.main(["linearizers"])
    assert "rewind = False: Take only the mask from the path" in capsys.readouterr().out


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--network", "resnet81"], ['"resnet81" for --network', '"resnet18"?']),
        (["--data", "digts"], ["no data set 'digts'", "'digits'"]),
        (["--method", "snll"], ["--method", "no linearizer 'snll'", "'snl'"]),
        (["--method", "xyz"], ["--method", "no linearizer 'xyz'", "snl, deepreduce"]),
        (["--profile", "smal"], ['"smal" for --profile', '"small"?']),
        (["--budgets", "0.2,0.5"], ["budgets", "strictly descending"]),
        (["--budgets", "1.5"], ["budgets", "above 0 and below 1"]),
        (["--budgets", "half"], ["'half'", "wrong type"]),
        (["--teacher", "nowhere.safetensors"], ["no network at nowhere.safetensors"]),
    ],
)
def test_a_wrong_request_exits_2_says_what_is_allowed_and_writes_nothing(
    arguments: list[str], words: list[str], here: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(["linearize", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("linfair: ")
    assert err.count("\n") <= 2
    for word in words:
        assert word in err
    assert list(here.iterdir()) == []


def test_a_file_that_is_no_network_is_refused(here: Path, capsys: pytest.CaptureFixture) -> None:
    (here / "notes.txt").write_text("not a network")
    assert smoke("--teacher", "notes.txt") == 2
    assert "notes.txt" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("option", "given", "found"),
    [("network", "resnet18", "mlp"), ("seed", "4", "3"), ("width", "8", "16")],
)
def test_a_teacher_that_contradicts_an_option_is_refused(
    option: str, given: str, found: str, here: Path, teacher: nn.Module, capsys: pytest.CaptureFixture
) -> None:
    file = save_network(here / "teacher.safetensors", teacher, Header("mlp", 16, (1, 12, 12), 10, "digits", 3))
    assert smoke("--teacher", str(file), f"--{option}", given) == 2
    err = capsys.readouterr().err
    assert f"--{option} {given}, but {file} was trained with {option} {found}; leave --{option} out" in err
    assert [path.name for path in here.iterdir()] == [file.name]


# What it does


@pytest.fixture(scope="module")
def finished(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """One smoke run: its folder (the cache in it), what it printed, what it announced."""
    here = tmp_path_factory.mktemp("run")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("LINFAIR_CACHE", str(here / "cache"))
        assert smoke("--out", str(here / "out"), "--seed", "3") == 0
    return here, out.getvalue(), err.getvalue()


def test_a_run_writes_masks_weights_and_the_group_table(finished: tuple[Path, str, str]) -> None:
    """Nothing else lies there; the masks fit the teacher, and the weights hold the same masks."""
    folder = finished[0] / "out"
    names = {f"snl-{budget}.{kind}.safetensors" for budget in ("0.5", "0.2") for kind in ("mask", "weights")}
    assert {path.name for path in folder.iterdir()} == names | {"teacher.safetensors", "groups.parquet"}
    teacher, header = load_network(folder / "teacher.safetensors")
    assert (header.network, header.data, header.seed, header.gated) == ("mlp", "digits", 3, False)
    for budget, limit in (("0.5", 64), ("0.2", 26)):
        mask = Mask.load(folder / f"snl-{budget}.mask.safetensors")
        assert 0 < mask.kept <= limit
        student, header = load_network(folder / f"snl-{budget}.weights.safetensors")
        assert header.gated
        (own,) = masks_of(student)
        assert all(torch.equal(unit, mask.units[site]) for site, unit in own.units.items())
        assert apply_mask(student, mask) is student


def test_a_run_prints_the_table_it_wrote(finished: tuple[Path, str, str]) -> None:
    folder, out, err = finished[0] / "out", *finished[1:]
    table = pd.read_parquet(folder / "groups.parquet")
    assert set(table["arm"]) == {"original", "plain", "control"}
    for split in ("test", "test_balanced"):
        assert f"Accuracy in % on {split} with 95 % Wilson intervals" in out
    row = table.query("split == 'test_balanced' and arm == 'plain' and budget == 0.2 and group == 0").iloc[0]
    shown = f"{100 * row['accuracy']:.1f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    assert shown in out.split("on test_balanced")[1]
    assert f"Masks, weights and the table are in {folder}" in out
    assert f"({row['kept']} of 128" in out
    assert "computed" in err


def test_a_run_names_and_counts_the_nonlinearities_that_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VGG19 of width 2 on 1x12x12: pools to 6x6, 3x3 and 1x1 of 2, 4 and 8 channels are 72 + 36 + 8 outputs."""
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    words = "linearize --network vgg19 --width 2 --method uniform --budgets 0.5 --profile smoke --no-control --out"
    assert main.main([*words.split(), str(tmp_path / "out")]) == 0
    assert "stay, for one input: 116 MaxPool outputs (3 comparisons each) in stages.1.0" in capsys.readouterr().out


def test_the_same_run_again_computes_nothing(finished: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    here, before, _ = finished
    monkeypatch.setenv("LINFAIR_CACHE", str(here / "cache"))
    monkeypatch.setattr(registry, "fit", None)
    monkeypatch.setattr(stages, "finetune", None)
    monkeypatch.setattr(stages, "control", None)
    again = io.StringIO()
    with contextlib.redirect_stdout(again):
        assert smoke("--out", str(here / "out"), "--seed", "3") == 0
    assert again.getvalue() == before


def test_a_teacher_file_is_used_instead_of_training_and_no_control_leaves_the_arm_out(
    finished: tuple[Path, str, str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Network, data and seed come from the file; an empty cache, and base training is not called."""
    monkeypatch.setattr(registry, "fit", None)
    file = finished[0] / "out" / "teacher.safetensors"
    assert smoke("--teacher", str(file), "--method", "random", "--no-control") == 0
    folder = here / "linearized" / "digits-mlp-random-3"
    assert str(folder.relative_to(here)) in capsys.readouterr().out
    table = pd.read_parquet(folder / "groups.parquet")
    assert set(table["arm"]) == {"original", "plain"}
    assert set(table["seed"]) == {3}
    by = ["split", "group"]
    ours, theirs = (
        rows[rows["arm"] == "original"].set_index(by)["accuracy"]
        for rows in (table, pd.read_parquet(finished[0] / "out" / "groups.parquet"))
    )
    assert ours.equals(theirs)
    given, used = (load_network(path)[0].state_dict() for path in (file, folder / "teacher.safetensors"))
    assert all(torch.equal(value, used[name]) for name, value in given.items())
    assert {Mask.load(path).kept for path in folder.glob("*.mask.safetensors")} == {64, 26}


# Weights


def test_a_network_is_pruned_diagnosed_repaired_and_audited(
    finished: tuple[Path, str, str], here: Path, capsys: pytest.CaptureFixture
) -> None:
    """An MLP 144-64-64-10 has 13,952 weights and 138 biases; the option in brackets prunes both."""
    file = str(finished[0] / "out" / "teacher.safetensors")
    rest = ["--teacher", file, "--profile", "smoke"]
    how = ["--method", "magnitude(everything=True)", "--keep", "0.5", "--no-control", "--out", "pruned"]
    assert main.main(["reduce", *rest, *how]) == 0
    printed = capsys.readouterr().out
    assert "\n  50 % of the weights left (7,045 of 14,090)\n" in printed and "Nonlinearities" not in printed
    stem = "pruned/prune_magnitude-0.5"
    mask, (pruned, header) = Mask.load(f"{stem}.mask.safetensors"), load_network(f"{stem}.weights.safetensors")
    assert (mask.kind, mask.kept, header.pruned, header.reduced) == ("weight", 7045, 7045, "pruned")
    assert all((value[~mask.units[name]] == 0).all() for name, value in pruned.named_parameters())
    pair = ["--teacher", file, "--mask", f"{stem}.mask.safetensors", "--weights", f"{stem}.weights.safetensors"]
    assert main.main(["diagnose", *pair, "--no-curvature"]) == 0
    printed = capsys.readouterr().out
    assert "7,045 of 14,090" in printed and "|g| pruned" in printed and "with alpha" not in printed
    assert main.main(["mitigate", *pair, "--profile", "smoke", "--arms", "balanced_sampling"]) == 0
    assert "50 % of the weights left" in capsys.readouterr().out
    how = ["--kind", "weight", "--method", "magnitude(reestimate=True)", "--budgets", "0.5", "--no-curvature"]
    assert main.main(["audit", *rest, *how, "--no-mitigate", "--out", "report"]) == 0
    assert "With 50 % of the weights left (6,976 of 13,952)" in capsys.readouterr().out
    assert "prune_magnitude(reestimate=True)" in Path("report/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "method", "words"),
    [
        ("reduce", "magnitude(everythin=True)", ["everythin", "'everything'"]),
        ("reduce", "magnitude(everything=1)", ["everything = 1", "true or false"]),
        ("reduce", "prune_iterative(rate=2.0)", ["rate = 2.0", "below 1"]),
        ("reduce", "magnitude(", ["'magnitude('", "name(option=value)"]),
        ("audit", "snl(exct=True)", ["exct", "'exact'"]),
        ("linearize", "snl(pace=2)", ["pace", "2.0"]),
    ],
)
def test_wrong_options_of_a_method_are_refused(
    command: str, method: str, words: list[str], finished: tuple[Path, str, str], capsys: pytest.CaptureFixture
) -> None:
    teacher = ["--teacher", str(finished[0] / "out" / "teacher.safetensors")]
    assert main.main([command, "--method", method, *teacher]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(word in err for word in words)
