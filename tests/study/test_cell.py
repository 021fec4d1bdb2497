"""A study interrupted anywhere equals one that ran through; its rows equal a plain computation."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import linfair
from linfair.data import load_data
from linfair.engine import stages
from linfair.ensemble import Ensemble
from linfair.linearizers.snl import _Path
from linfair.metrics import wilson
from linfair.models import build
from linfair.rules import registry
from linfair.study import ARMS, ResultStore, cell, grid, recipe, run
from linfair.study.cell import Worker
from linfair.training import fit, predict, supervised

SEEDS = (0, 1)
BUDGETS = (0.8, 0.5)
COLUMNS = {
    "data": str,
    "network": str,
    "width": int,
    "init": str,
    "method": str,
    "arm": str,
    "profile": str,
    "teacher": str,
    "device": str,
    "torch": str,
    "linfair": str,
    "seconds": float,
    "base_loss": float,
    "budget": float,
    "budget_units": int,
    "kept": int,
    "mask_epochs": int,
    "mask_steps": int,
    "seed": int,
    "split": str,
    "group": int,
    "group_name": str,
    "role": str,
    "n_train": int,
    "n": int,
    "accuracy": float,
    "low": float,
    "high": float,
}


def panel(**changes: object) -> list[cell.Cell]:
    settings = {"budgets": BUDGETS, "seeds": SEEDS, "profile": "smoke"} | changes
    return grid("digits", "mlp", **settings)


def compute(store: ResultStore, **options: object) -> pd.DataFrame:
    return run(panel(), store=store, progress=False, **options)


@pytest.fixture(scope="module")
def finished(
    one_thread: None, light: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ResultStore, pd.DataFrame]:
    """The smoke panel, computed without interruption; tests work on copies of its store."""
    store = ResultStore(tmp_path_factory.mktemp("store"))
    return store, compute(store)


@pytest.fixture
def copied(finished: tuple[ResultStore, pd.DataFrame], tmp_path: Path) -> ResultStore:
    return ResultStore(shutil.copytree(finished[0].folder, tmp_path / "copy"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Counts what a study computes: teachers, mask paths, control runs, fine-tunings."""
    counts: Counter = Counter()

    def counted(owner: object, name: str, what: str) -> None:
        original = getattr(owner, name)

        def call(*args: object, **options: object) -> object:
            counts[what] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, name, call)

    counted(registry, "fit", "teacher")
    counted(_Path, "__init__", "path")
    counted(stages, "control", "control")
    counted(stages, "finetune", "finetune")
    return counts


def assert_same_rows(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Everything but the time it took, to the last bit."""
    one, other = (table.drop(columns=list(cell.TIMING)) for table in (one, other))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


# Interrupted


def stop_in_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def objective(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "supervised", objective)


def stop_in_the_mask_path(monkeypatch: pytest.MonkeyPatch) -> None:
    original = _Path.after_epoch

    def after_epoch(self: _Path, epoch: int) -> bool:
        if epoch == 5:
            raise KeyboardInterrupt
        return original(self, epoch)

    monkeypatch.setattr(_Path, "after_epoch", after_epoch)


def stop_in_the_second_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = stages.finetune, []

    def finetune(*args: object, **options: object) -> object:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(stages, "finetune", finetune)


def stop_in_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    def control(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "control", control)


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (stop_in_the_teacher, {"teacher": 1, "path": 1, "control": 1, "finetune": 4}),
        (stop_in_the_mask_path, {"path": 1, "control": 1, "finetune": 4}),
        (stop_in_the_second_fine_tuning, {"control": 1, "finetune": 4}),
        (stop_in_the_control, {"control": 1, "finetune": 2}),
    ],
)
def test_an_interrupted_study_computes_only_what_is_missing_and_ends_in_the_same_table(
    stop: Callable[[pytest.MonkeyPatch], None],
    left: dict[str, int],
    finished: tuple[ResultStore, pd.DataFrame],
    tmp_path: Path,
    calls: Counter,
) -> None:
    store = ResultStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch)
        compute(store)
    calls.clear()
    table = compute(store)
    assert calls == left
    assert_same_rows(table, finished[1])


def test_a_finished_study_is_only_read(
    copied: ResultStore, finished: tuple[ResultStore, pd.DataFrame], calls: Counter
) -> None:
    lines = []
    pd.testing.assert_frame_equal(compute(copied, announce=lines.append), finished[1], check_exact=True)
    assert not calls
    assert [line.rpartition(": ")[2] for line in lines] == ["read"] * 3
    for arm, line in zip(ARMS, lines, strict=True):
        assert arm in line


def test_an_arm_asked_for_later_costs_only_itself(
    finished: tuple[ResultStore, pd.DataFrame], tmp_path: Path, calls: Counter
) -> None:
    store, lines = ResultStore(tmp_path), []
    compute(store, arms=("original",))
    assert calls == {"teacher": 1}
    compute(store, arms=("original", "plain"))
    assert calls == {"teacher": 1, "path": 1, "finetune": 2}
    table = compute(store, announce=lines.append)
    assert calls == {"teacher": 1, "path": 1, "control": 1, "finetune": 4}
    assert [line.rpartition(": ")[2] for line in lines] == ["read", "read", "computed"]
    assert_same_rows(table, finished[1])


# Damaged


def test_a_truncated_table_is_named_and_only_its_arm_is_computed_again(
    copied: ResultStore, finished: tuple[ResultStore, pd.DataFrame], calls: Counter
) -> None:
    name = Worker(panel()[0], copied, progress=False).name("control")
    path = copied.folder / "results" / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=f"{name}.parquet cannot be read"):
        table = compute(copied)
    assert calls == {"control": 1, "finetune": 2}
    assert_same_rows(table, finished[1])
    assert path.with_name(path.name + ".damaged-1").exists()


def test_truncated_checkpoints_are_named_and_computed_again(
    copied: ResultStore, finished: tuple[ResultStore, pd.DataFrame], calls: Counter
) -> None:
    shutil.rmtree(copied.folder / "results")
    checkpoints = sorted((copied.folder / "checkpoints").glob("*.safetensors"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(UserWarning) as caught:
        table = compute(copied)
    named = "\n".join(str(one.message) for one in caught)
    assert all(path.name in named for path in checkpoints)
    assert calls == {"teacher": 1, "path": 1, "control": 1, "finetune": 4}
    assert_same_rows(table, finished[1])


# Rows


def test_rows_have_their_columns_and_evidence(finished: tuple[ResultStore, pd.DataFrame]) -> None:
    table = finished[1]
    assert set(COLUMNS) <= set(table.columns)
    assert not table[list(COLUMNS)].isna().any().any()
    for name, kind in COLUMNS.items():
        check = {
            int: pd.api.types.is_integer_dtype,
            float: pd.api.types.is_float_dtype,
            str: pd.api.types.is_string_dtype,
        }
        assert check[kind](table[name]), name
    identity = ["arm", "budget", "seed", "split", "group"]
    assert not table.duplicated(identity).any()
    assert len(table) == (1 + 2 + 2) * len(SEEDS) * 4 * 10
    assert set(table["torch"]) == {torch.__version__}
    assert set(table["linfair"]) == {linfair.__version__}
    assert set(table["profile"]) == {"smoke"}
    assert table["teacher"].nunique() == 1
    assert (table["seconds"] > 0).all()


def test_rows_count_images_groups_and_units_as_the_data_and_the_network_do(
    finished: tuple[ResultStore, pd.DataFrame],
) -> None:
    table = finished[1]
    for seed in SEEDS:
        data = load_data("digits", seed=seed)
        for (_, _, split), part in table[table["seed"] == seed].groupby(["arm", "budget", "split"]):
            part = part.sort_values("group")
            assert part["n"].tolist() == torch.bincount(data.splits[split].a).tolist()
            assert part["n_train"].tolist() == data.counts
            assert part["role"].tolist() == data.roles
            assert part["group_name"].tolist() == list(data.group_names)
    for row in table.itertuples():
        assert (row.low, row.high) == wilson(row.accuracy, row.n)
    original, plain, control = (table[table["arm"] == arm] for arm in ARMS)
    assert set(original["budget"]) == {1.0}
    assert set(original["method"]) == {"original"}
    assert set(original["mask_epochs"]) == {0}
    assert set(original["kept"]) == set(control["kept"]) == {128}
    assert set(plain["method"]) == set(control["method"]) == {"snl"}
    assert set(plain["budget"]) == set(control["budget"]) == set(BUDGETS)
    assert (plain["kept"] <= plain["budget_units"]).all()
    assert (plain["budget_units"] == (plain["budget"] * 128).round()).all()
    assert (table["mask_steps"] == 4 * table["mask_epochs"]).all()  # 500 images, at the end of an epoch
    stops = ["budget", "seed", "mask_epochs", "mask_steps"]
    ours, theirs = ({tuple(row) for row in part[stops].to_numpy()} for part in (plain, control))
    assert ours == theirs
    assert len(ours) == len(BUDGETS) * len(SEEDS)


def test_how_weights_start_is_part_of_a_cells_names_and_of_its_network(tmp_path: Path) -> None:
    own, other = (cell.Worker(one, ResultStore(tmp_path), False) for (one,) in (panel(), panel(init="kaiming_normal")))
    assert (own.recipe.init, other.recipe.init) == ("torch", "kaiming_normal")
    assert own.name("original") != other.name("original")
    weights = [
        worker.base.untrained("mlp", init=worker.recipe.init).state_dict()["network.1.weight"].std().item()
        for worker in (own, other)
    ]
    assert weights[1] / weights[0] == pytest.approx(6**0.5, rel=0.05)
    with pytest.raises(ValueError, match="no init='he'; there are torch, kaiming_normal"):
        panel(init="he")


def test_original_rows_equal_training_and_counting_by_hand(finished: tuple[ResultStore, pd.DataFrame]) -> None:
    """The teacher from `fit` alone; accuracy over the nine shifts, counted with pandas."""
    sets = [load_data("digits", seed=seed) for seed in SEEDS]
    teacher = Ensemble([build("mlp", (1, 12, 12), 10, seed=seed) for seed in SEEDS])
    base = recipe("mlp", "smoke").base
    history = fit(teacher, sets, supervised, base, seeds=SEEDS, stage="base", progress=False)
    original = finished[1].query("arm == 'original' and split == 'test_balanced'")
    right = sum(predict(teacher, sets, "test_balanced", view=view).argmax(2) == stack(sets) for view in sets[0].views)
    for member, (seed, data) in enumerate(zip(SEEDS, sets, strict=True)):
        frame = pd.DataFrame({"group": data.splits["test_balanced"].a.numpy(), "right": right[member].numpy() / 9})
        ours = original[original["seed"] == seed].set_index("group")
        assert ours["accuracy"].tolist() == pytest.approx(frame.groupby("group")["right"].mean().tolist(), abs=1e-6)
        assert set(ours["base_loss"]) == {history[-1]["loss"][member]}


def stack(sets: list) -> torch.Tensor:
    return torch.stack([data.splits["test_balanced"].y for data in sets])


# Grids, names and errors


def test_the_seeds_of_an_mlp_share_a_cell_and_other_networks_have_one_each() -> None:
    assert [cell.seeds for cell in panel(seeds=(4, 5, 6))] == [(4, 5, 6)]
    assert [cell.seeds for cell in grid("digits", "resnet18", budgets=(0.5,), seeds=(4, 5))] == [(4,), (5,)]
    assert panel()[0].budgets == BUDGETS


def test_names_follow_everything_that_determines_an_arm(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)

    def names(**changes: object) -> list[str]:
        worker = Worker(panel(**changes)[0], store, progress=False)
        return [worker.name(arm) for arm in ARMS]

    base = names()
    assert names() == base
    assert len(set(base)) == 3
    for changes in ({"seeds": (0, 2)}, {"profile": "small"}):
        assert not set(names(**changes)) & set(base)
    original, *others = names(budgets=(0.8, 0.3))
    assert not set(others) & set(base)
    assert original == base[0], "the original network does not depend on the budgets"


def test_another_thread_count_is_another_result_but_mlps_always_have_one(tmp_path: Path) -> None:
    """Sums are added in another order: a large network keeps the caller's threads, and the name says how many."""

    def names() -> list[str]:
        cells = [*panel(seeds=(0,)), *grid("digits", "resnet18", budgets=(0.5,), seeds=(0,))]
        return [Worker(cell, ResultStore(tmp_path), progress=False).name("plain") for cell in cells]

    one = names()
    torch.set_num_threads(2)
    try:
        two = names()
    finally:
        torch.set_num_threads(1)
    assert two[0] == one[0]
    assert two[1] != one[1]


def test_wrong_requests_quote_what_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    requests: list[tuple[Callable[[], object], str]] = [
        (lambda: panel(method="slim"), "'slim'; .*snl"),
        (lambda: panel(device="cuda"), "device 'cuda' .* use device='cpu'"),
        (lambda: panel(budgets=(0.2, 0.5)), r"descending order, got \[0\.2, 0\.5\]"),
        (lambda: compute(store, arms=("plain", "mitigated")), r"\['mitigated'\]; there are original, plain, control"),
        (lambda: run([replace(panel()[0], data="imagenet")], store=store, progress=False), "no data set 'imagenet'"),
        (lambda: run([replace(panel()[0], network="vgg")], store=store, progress=False), "no network 'vgg'"),
        (lambda: run(panel(profile="tiny"), store=store, progress=False), "no profile 'tiny'; did you mean 'thin'"),
    ]
    for call, message in requests:
        with pytest.raises(ValueError, match=message):
            call()
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_convolutional_cell_runs_one_seed_at_a_time(tmp_path: Path) -> None:
    """The thin ResNet of the smoke profile, its original arm: 8 channels, batch norm, one teacher a seed."""
    table = run(
        grid("digits", "resnet18", budgets=(0.5,), seeds=(0,), profile="smoke"),
        arms=("original",),
        store=ResultStore(tmp_path),
        progress=False,
    )
    network = build("resnet18", (1, 12, 12), 10, width=8)
    relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    sizes: list[int] = []
    for relu in relus:
        relu.register_forward_hook(lambda _m, _i, out: sizes.append(out[0].numel()))
    network.eval()(torch.zeros(1, 1, 12, 12))
    assert set(table["kept"]) == {sum(sizes)}
    assert len(table) == 4 * 10
