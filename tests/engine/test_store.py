"""The store: whole files or none, damaged ones named and set aside, keys that follow what they hash."""

import ast
import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from linfair.engine import store as module
from linfair.engine.store import DamagedFile, ResultStore, Tables, cache_folder, code_hash, key, weights_digest

ROWS = pd.DataFrame({"seed": [0, 1], "accuracy": [0.1, 1 / 3], "arm": ["plain", "control"]})
TENSORS = {"0/weight": torch.randn(3, 4), "0/mask": torch.tensor([True, False]), "steps": torch.tensor(7)}
NOTES = {"epochs": [[3, 5], [7, 9]], "digest": "abc", "loss": [0.1, 1 / 3]}


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "cache")


def files(store: ResultStore) -> set[str]:
    return {path.name for path in store.folder.rglob("*") if path.is_file()}


def fail_after_writing(path: Path) -> None:
    Path(path).write_text("half a file")
    raise KeyboardInterrupt


# Round trips


def test_rows_come_back_bit_for_bit_and_pandas_alone_reads_them(store: ResultStore) -> None:
    assert store.read("table") is None
    path = store.write("table", ROWS)
    pd.testing.assert_frame_equal(store.read("table"), ROWS, check_exact=True)
    pd.testing.assert_frame_equal(pd.read_parquet(path), ROWS, check_exact=True)
    assert files(store) == {"table.parquet"}


def test_methods_of_older_rows_have_their_present_names(store: ResultStore) -> None:
    store.write("older", pd.DataFrame({"method": ["original", "magnitude"], "kept": [4, 2]}))
    assert store.read("older")["method"].tolist() == ["original", "negative_part"]


def test_a_checkpoint_comes_back_bit_for_bit_with_its_notes(store: ResultStore) -> None:
    assert store.load("teacher") is None
    column = torch.arange(12.0).view(3, 4)[:, 1]
    store.save("teacher", TENSORS | {"column": column}, NOTES)
    tensors, notes = store.load("teacher")
    assert notes == NOTES
    assert set(tensors) == {*TENSORS, "column"}
    for name, value in (TENSORS | {"column": column}).items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)
    assert files(store) == {"teacher.safetensors"}


def test_stores_in_different_folders_share_nothing(tmp_path: Path) -> None:
    ResultStore(tmp_path / "a").write("table", ROWS)
    assert ResultStore(tmp_path / "b").read("table") is None


# Whole or not at all


def test_an_interrupted_table_leaves_no_file_and_keeps_the_old_one(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("old", ROWS)
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: fail_after_writing(self))
    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            store.write(name, ROWS.assign(seed=9))
    assert files(store) == {"old.parquet"}
    pd.testing.assert_frame_equal(store.read("old"), ROWS)


def test_an_interrupted_checkpoint_leaves_no_file_and_keeps_the_old_one(
    store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("old", TENSORS, NOTES)
    monkeypatch.setattr(module, "save_file", lambda tensors, path, metadata: fail_after_writing(path))
    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            store.save(name, {}, {})
    assert files(store) == {"old.safetensors"}
    assert store.load("old")[1] == NOTES


def test_what_a_killed_process_left_is_no_result(store: ResultStore) -> None:
    """A temporary file that nobody could remove is never read under the result's name."""
    path = store.write("old", ROWS)
    path.with_name(".new.parquet.123.part").write_bytes(b"half a file")
    assert store.read("new") is None


# Damaged files


@pytest.mark.parametrize("damage", ["empty", "cut", "last byte", "text"])
@pytest.mark.parametrize("kind", ["table", "checkpoint"])
def test_a_damaged_file_is_named_set_aside_and_counts_as_missing(store: ResultStore, damage: str, kind: str) -> None:
    store.write("one", ROWS)
    store.save("one", TENSORS, NOTES)
    (path,) = store.folder.glob("*/one." + {"table": "parquet", "checkpoint": "safetensors"}[kind])
    content = path.read_bytes()
    content = {"empty": b"", "cut": content[: len(content) // 2], "last byte": content[:-1], "text": b"x" * 500}[damage]
    path.write_bytes(content)
    get = store.read if kind == "table" else store.load
    with pytest.warns(UserWarning, match=rf"{path.name} cannot be read .*; set aside as .*damaged-1, computed anew"):
        assert get("one") is None
    assert not path.exists()
    assert path.with_name(path.name + ".damaged-1").read_bytes() == content
    assert get("one") is None
    store.write("one", ROWS)
    store.save("one", TENSORS, NOTES)
    assert get("one") is not None


def test_a_checkpoint_without_notes_is_damaged(store: ResultStore) -> None:
    store.save("one", TENSORS, NOTES)
    (path,) = store.folder.glob("*/one.safetensors")
    module.save_file({"x": torch.ones(1)}, path)
    with pytest.warns(DamagedFile, match=r"carries no digest.*; set aside as one.safetensors.damaged-1"):
        assert store.load("one") is None


# Names


def test_key_is_the_sha_256_of_the_settings_as_json_whatever_their_order() -> None:
    settings = {"network": "mlp", "seeds": (0, 1), "lr": 0.1, "schedule": {"epochs": 3, "decay": "cosine"}}
    text = '{"lr": 0.1, "network": "mlp", "schedule": {"decay": "cosine", "epochs": 3}, "seeds": [0, 1]}'
    assert json.loads(text) == json.loads(json.dumps(settings))
    assert key(settings) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert key(dict(reversed(settings.items()))) == key(settings)


def test_key_changes_with_every_setting() -> None:
    base = {"network": "mlp", "seeds": (0, 1), "lr": 0.1, "schedule": {"epochs": 3}}
    variants = [
        base,
        base | {"network": "resnet18"},
        base | {"seeds": (1, 0)},
        base | {"seeds": (0,)},
        base | {"lr": 0.1 + 1e-15},
        base | {"lr": None},
        base | {"schedule": {"epochs": 4}},
        base | {"schedule": {"epoch": 3}},
        base | {"more": 1},
    ]
    assert len({key(one) for one in variants}) == len(variants)


def test_weights_digest_follows_values_buffers_and_names_only() -> None:
    def network() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    digest = weights_digest(network())
    assert weights_digest(network().eval()) == digest
    changed = network()
    changed[0].weight.data[2, 1] = torch.nextafter(changed[0].weight.data[2, 1], torch.tensor(9.0))
    assert weights_digest(changed) != digest
    moved = network()
    moved[1].running_var[0] = 2.0
    assert weights_digest(moved) != digest
    renamed = nn.Sequential(*network(), nn.Identity())
    assert weights_digest(renamed) == digest
    assert weights_digest(nn.Sequential(nn.Identity(), *network())) != digest


NOT_IN_THE_HASH = {
    "__init__": "names only",
    "paths": "decides where files lie, not what is in them",
    "data/describe": "says what is known of a data set, whose content is in the key",
    "data/torchvision": "imports torchvision, for downloads only",
    "checkpoints": "reads files whose content is in the key",
    "tensors": "reads files whose content is in the key",
    "engine/__init__": "names only",
    "engine/rows": "checks rows, and changes none",
    "study/__init__": "names only",
    "study/recipes": "its values are in the key",
    "engine/store": "decides where a result lies",
}


def imported(package: Path, start: str) -> set[str]:
    """Modules of the package that a module imports, directly or through others, by path without suffix."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((package / f"{name}.py").read_text())):
            targets = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "linfair":
                targets = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name.split(".")[0] == "linfair"]
            for target in targets:
                path = "/".join(target.split(".")[1:])
                waiting += [one for one in (path, f"{path}/__init__".lstrip("/")) if (package / f"{one}.py").exists()]
    return found


def test_code_hash_follows_every_module_a_cell_imports_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(module.__file__).parent.parent
    copied = shutil.copytree(package, tmp_path / "linfair", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "__file__", str(copied / "engine" / "store.py"))
    before = code_hash.__wrapped__()
    assert len(before) == 12
    deciding = imported(copied, "study/cell")
    assert {"gates", "functional", "training", "linearizers/snl"} <= deciding
    for path in copied.rglob("*.py"):
        name = path.relative_to(copied).with_suffix("").as_posix()
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        expected = name in deciding and name not in NOT_IN_THE_HASH
        assert (code_hash.__wrapped__() != before) == expected, name
        path.write_bytes(content)


def test_the_cache_folder_follows_its_two_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "mine"
    assert ResultStore.default().folder == tmp_path / "mine" / code_hash()
    monkeypatch.delenv("LINFAIR_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "linfair"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "linfair"


@pytest.mark.parametrize("place", ["folder", "file", "memory"])
def test_tables_at_any_fsspec_address_come_back_whole_and_damaged_ones_are_set_aside(
    place: str, tmp_path: Path
) -> None:
    address = {"folder": str(tmp_path / "x"), "file": f"file://{tmp_path}/x", "memory": f"memory://{tmp_path}"}[place]
    tables, frame = Tables(address), pd.DataFrame({"seed": [0, 1], "accuracy": [0.1, 1 / 3]})
    assert tables.names() == [] and tables.read("one") is None
    tables.write("one", frame)
    tables.put("FAILED-one.txt", b"why")
    assert tables.names() == ["one"] and tables.texts("FAILED-") == {"FAILED-one.txt": "why"}
    pd.testing.assert_frame_equal(Tables(address).read("one"), frame, check_exact=True)
    tables.drop("FAILED-one.txt")
    tables.drop("FAILED-one.txt")
    assert tables.texts("FAILED-") == {}
    tables.put("one.parquet", b"PAR1 and no more")
    with pytest.warns(UserWarning, match=r"one.parquet cannot be read .*; it is passed over, and stays"):
        assert tables.read("one") is None
    with pytest.warns(UserWarning, match=r"one.parquet cannot be read .*; set aside"):
        assert tables.read("one", own=True) is None
    assert tables.names() == []
