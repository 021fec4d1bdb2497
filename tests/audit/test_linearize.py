"""One network linearized into a folder: the files hold what the table measures, and a second call trains nothing."""

import importlib
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from linfair import gates, training
from linfair.audit.linearize import group_table, linearize_to
from linfair.checkpoints import CheckpointError, Header, load_network, save_network
from linfair.data import GroupedData, load_data
from linfair.engine.store import weights_digest
from linfair.gates import install
from linfair.linearizers.record import budget_units
from linfair.masks import Mask, apply_mask, masks_of
from linfair.models import build
from linfair.rules import registry
from linfair.study import ResultStore, grid
from linfair.study.cell import TIMING, Cell
from linfair.study.recipes import recipe

SEED = 4
BUDGETS = (0.5, 0.1)
UNITS = 2 * 16
TRAINERS = [registry] + [importlib.import_module(f"linfair.linearizers.{name}") for name in ("snl", "finetuning")]
"""Modules that call `fit`: base training, mask paths, controls and fine-tunings."""
STEMS = [f"snl-{budget:g}" for budget in BUDGETS]


def cell(**changes: object) -> Cell:
    (one,) = grid("digits", "mlp", budgets=BUDGETS, seeds=[SEED], profile="smoke", width=16)
    return replace(one, **changes)


@pytest.fixture(scope="module")
def data() -> GroupedData:
    return load_data("digits", seed=SEED)


@pytest.fixture(scope="module")
def done(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ResultStore, pd.DataFrame]:
    """Folder, store and table of one run; tests must leave them as they are."""
    place = tmp_path_factory.mktemp("single")
    store = ResultStore(place / "store")
    return place / "out", store, linearize_to(place / "out", cell(), store=store, progress=False)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training raises."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    for module in TRAINERS:
        monkeypatch.setattr(module, "fit", refuse)


def accuracy(model: nn.Module, data: GroupedData, split: str, group: int) -> float:
    """Share of right predictions over the data set's views, by a plain forward pass."""
    part, shares = data.splits[split], []
    model.eval()
    for down, right in data.views:
        x = torch.zeros_like(part.x)
        rows, columns = (slice(max(0, s), 12 + min(0, s)) for s in (down, right))
        from_rows, from_columns = (slice(max(0, -s), 12 - max(0, s)) for s in (down, right))
        x[..., rows, columns] = part.x[..., from_rows, from_columns]
        with torch.no_grad():
            shares.append((model(data.normalise(x)).argmax(1) == part.y).float())
    return torch.stack(shares).mean(0)[part.a == group].mean().item()


# What is written


def test_all_files_are_there_and_nothing_else(done: tuple[Path, ResultStore, pd.DataFrame]) -> None:
    expected = {"teacher.safetensors", "groups.parquet"}
    expected |= {f"{stem}.{kind}.safetensors" for stem in STEMS for kind in ("mask", "weights")}
    assert {path.name for path in done[0].iterdir()} == expected


def test_the_table_is_the_file_and_holds_every_arm(done: tuple[Path, ResultStore, pd.DataFrame]) -> None:
    folder, _, table = done
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "groups.parquet"), table)
    arms = set(zip(table["arm"], table["budget"], strict=True))
    assert arms == {("original", 1.0)} | {(arm, budget) for arm in ("plain", "control") for budget in BUDGETS}
    assert set(table["seed"]) == {SEED}
    assert set(table["split"]) == {"train", "val", "test", "test_balanced"}


def test_masks_and_weights_are_those_of_the_table(done: tuple[Path, ResultStore, pd.DataFrame]) -> None:
    folder, _, table = done
    for stem, budget in zip(STEMS, BUDGETS, strict=True):
        mask = Mask.load(folder / f"{stem}.mask.safetensors")
        model, header = load_network(folder / f"{stem}.weights.safetensors")
        content = load_data("digits", seed=SEED).content
        known = {"content": content, "schedule": recipe("mlp", "smoke").base}
        assert header == Header("mlp", 16, (1, 12, 12), 10, "digits", SEED, gated=True, **known)
        assert masks_of(model)[0].jaccard(mask) == 1.0
        rows = table[(table["arm"] == "plain") & (table["budget"] == budget)]
        assert set(rows["kept"]) == {mask.kept} == {int(gates.kept_units(model))}
        assert mask.kept <= budget_units(budget, UNITS) == rows["budget_units"].iloc[0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_table_equals_plain_forward_passes_of_the_files(
    split: str, done: tuple[Path, ResultStore, pd.DataFrame], data: GroupedData
) -> None:
    """Teacher and students as loaded from the folder; every group, accuracies averaged over shifts made by slicing."""
    folder, _, table = done
    files = {("original", 1.0): "teacher.safetensors"}
    files |= {("plain", b): f"{stem}.weights.safetensors" for stem, b in zip(STEMS, BUDGETS, strict=True)}
    for (arm, budget), name in files.items():
        model, _ = load_network(folder / name)
        rows = table[(table["arm"] == arm) & (table["budget"] == budget) & (table["split"] == split)]
        assert len(rows) == 10
        for row in rows.itertuples():
            assert row.accuracy == pytest.approx(accuracy(model, data, split, row.group), abs=1e-6)
    drop = table[table["split"] == split].groupby("arm")["accuracy"].mean()
    assert drop["original"] > 0.2


def test_a_mask_fits_the_written_teacher(done: tuple[Path, ResultStore, pd.DataFrame]) -> None:
    teacher, header = load_network(done[0] / "teacher.safetensors")
    assert not header.gated
    gated = install(teacher, header.input_shape)
    mask = Mask.load(done[0] / f"{STEMS[1]}.mask.safetensors")
    assert int(gates.kept_units(apply_mask(gated, mask))) == mask.kept
    assert set(done[2]["teacher"]) == {weights_digest(teacher)}


def test_group_table_shows_each_arm_with_the_counts_of_the_rows(done: tuple[Path, ResultStore, pd.DataFrame]) -> None:
    table = done[2]
    text = group_table(table, split="test")
    rows = table[table["split"] == "test"]
    for row in rows.itertuples():
        assert f"{100 * row.accuracy:.1f} [{100 * row.low:.0f}, {100 * row.high:.0f}]" in text
    for row in rows[rows["arm"] == "plain"].itertuples():
        assert f"({row.kept:,} of {rows['kept'].max():,}" in text
    header = text.splitlines()[1]
    assert all(word in header for word in ("original", "plain 50 %", "plain 10 %", "control 50 %", "control 10 %"))
    assert f"last training loss {table['base_loss'].iloc[0]:.3f}" in text


def test_group_table_says_when_each_mask_was_taken_and_which_budget_was_missed(
    done: tuple[Path, ResultStore, pd.DataFrame],
) -> None:
    """Of 2,000: 940 are 6 % below a budget of half and miss it, 190 are 5 % below a tenth and do not."""
    table = done[2]
    counts = {1.0: (2000, 2000, 0, 0), 0.5: (940, 1000, 3, 11), 0.1: (190, 200, 0, 0)}
    for name, values in zip(
        ("kept", "budget_units", "mask_epochs", "mask_steps"), zip(*counts.values(), strict=True), strict=True
    ):
        table = table.assign(**{name: table["budget"].map(dict(zip(counts, values, strict=True))).astype(int)})
    lines = group_table(table, split="test").splitlines()
    half = "47 % of the ReLUs left (940 of 2,000; the budget of 50 % was missed)"
    assert f"  {half}, mask taken after 3 epochs, 11 steps" in lines
    assert "  9.5 % of the ReLUs left (190 of 2,000)" in lines


def test_without_the_control_its_arm_is_left_out(
    done: tuple[Path, ResultStore, pd.DataFrame], tmp_path: Path, no_training: None
) -> None:
    table = linearize_to(tmp_path, cell(), store=done[1], with_control=False, progress=False)
    assert set(table["arm"]) == {"original", "plain"}
    rest = done[2][done[2]["arm"] != "control"].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, rest)


# Resuming


def test_a_second_call_trains_nothing_and_writes_the_same(
    done: tuple[Path, ResultStore, pd.DataFrame], tmp_path: Path, no_training: None
) -> None:
    folder, store, table = done
    told: list[str] = []
    again = linearize_to(tmp_path, cell(), store=store, progress=False, announce=told.append)
    pd.testing.assert_frame_equal(again, table)
    assert [line.rpartition(": ")[2] for line in told[:3]] == ["read"] * 3
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            ours, theirs = load_file(tmp_path / path.name), load_file(path)
            assert list(ours) == list(theirs)
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert any(str(tmp_path / path.name) in line for line in told) or path.name.endswith("weights.safetensors")


def test_interrupted_after_any_stage_the_next_call_ends_with_the_same_table(
    done: tuple[Path, ResultStore, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings a call: no base training, mask path or fine-tuning is done twice, and the rows are the same."""
    store, finished, left = ResultStore(tmp_path / "store"), [], [0]
    originals = {module: module.fit for module in TRAINERS}

    def limited(module: object) -> object:
        def run(*arguments: object, **options: object) -> object:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            found = originals[module](*arguments, **options)
            finished.append(options["label"])
            return found

        return run

    for module in originals:
        monkeypatch.setattr(module, "fit", limited(module))
    table = None
    for _ in range(5):
        left[0] = 2
        try:
            table = linearize_to(tmp_path / "out", cell(), store=store, progress=False)
            break
        except KeyboardInterrupt:
            continue
    assert table is not None
    timing = list(TIMING)
    pd.testing.assert_frame_equal(table.drop(columns=timing), done[2].drop(columns=timing))
    tuned = [f"{arm}: fine-tuning at {100 * budget:g} %" for arm in ("snl", "control") for budget in BUDGETS]
    assert sorted(finished) == sorted(["base training", "snl: mask path", "control", *tuned])


# A teacher from a file


@pytest.fixture(scope="module")
def own_teacher(
    one_thread: None, data: GroupedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, nn.Module]:
    """A network of another width than the recipe's, trained for a moment, as a file."""
    model = build("mlp", data.input_shape, 10, width=12, seed=SEED)
    schedule = training.Schedule(epochs=10, optimizer="adamw", lr=3e-3)
    training.fit(model, data, training.supervised, schedule, seeds=[SEED], stage="base", progress=False)
    header = Header("mlp", 12, data.input_shape, 10, "digits", SEED)
    return save_network(tmp_path_factory.mktemp("teacher") / "own.safetensors", model, header), model


def test_a_teachers_file_is_used_instead_of_training(
    own_teacher: tuple[Path, nn.Module], data: GroupedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is in every row, its weights are written out again, and base training would raise."""
    path, model = own_teacher
    monkeypatch.setattr(registry, "fit", None)
    store = ResultStore(tmp_path / "store")
    one = cell(width=None, teacher=str(path))
    table = linearize_to(tmp_path / "out", one, store=store, with_control=False, progress=False)
    assert set(table["teacher"]) == {weights_digest(model)}
    assert set(table["width"]) == {12}
    assert set(table["budget_units"]) == {24, 12, 2}
    written, header = load_network(tmp_path / "out" / "teacher.safetensors")
    assert header.width == 12
    assert weights_digest(written) == weights_digest(model)
    student, _ = load_network(tmp_path / "out" / f"{STEMS[0]}.weights.safetensors")
    assert gates.total_units(student) == 24
    row = table[(table["arm"] == "original") & (table["split"] == "test")].iloc[0]
    assert row["accuracy"] == pytest.approx(accuracy(model, data, "test", row["group"]), abs=1e-6)
    assert "training loss" not in group_table(table, split="test")


def test_runs_with_and_without_a_teachers_file_are_kept_apart(
    done: tuple[Path, ResultStore, pd.DataFrame], own_teacher: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    one = cell(width=None, teacher=str(own_teacher[0]))
    table = linearize_to(tmp_path / "out", one, store=done[1], with_control=False, progress=False)
    assert not set(table["teacher"]) & set(done[2]["teacher"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seeds": (SEED + 1,)}, rf"seeds \({SEED},\), not \({SEED + 1},\)"),
        ({"seeds": (SEED, SEED + 1)}, rf"seeds \({SEED},\), not \({SEED}, {SEED + 1}\)"),
        ({"network": "resnet18"}, "network mlp, not resnet18"),
        ({"data": "toy"}, "data digits, not toy"),
        ({"width": 16}, "width 12, not 16"),
        ({"init": "kaiming_normal"}, "init torch, not kaiming_normal"),
    ],
)
def test_a_teacher_of_another_cell_is_refused(
    changes: dict[str, object], named: str, own_teacher: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    """Another seed has another split: what this teacher was trained on would be tested on."""
    one = cell(**{"width": None, "teacher": str(own_teacher[0])} | changes)
    with pytest.raises(CheckpointError, match=named):
        linearize_to(tmp_path / "out", one, store=ResultStore(tmp_path / "store"), progress=False)


def test_a_linearized_network_is_no_teacher(done: tuple[Path, ResultStore, pd.DataFrame], tmp_path: Path) -> None:
    one = cell(width=None, teacher=str(done[0] / f"{STEMS[0]}.weights.safetensors"))
    with pytest.raises(CheckpointError, match="a linearized network"):
        linearize_to(tmp_path / "out", one, store=ResultStore(tmp_path / "store"), progress=False)


def test_a_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no network at .*none.safetensors"):
        linearize_to(
            tmp_path / "out",
            cell(teacher=str(tmp_path / "none.safetensors")),
            store=ResultStore(tmp_path / "store"),
            progress=False,
        )
