"""Networks as files: what comes back is what was written, bit for bit, and a bad file says what is wrong with it."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from network_files import HEADER, MLP, SHAPE, refused, trained, written
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from linfair import checkpoints, gates
from linfair.checkpoints import FORMAT, CheckpointError, Header, load_network, save_network
from linfair.data import GroupedData
from linfair.gates import GateError
from linfair.masks import Mask, masks_of
from linfair.models import NETWORKS, build


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_bit_for_bit_with_its_header(name: str, gated: bool, tmp_path: Path) -> None:
    """Weights, batch-norm statistics and gates, and so its function."""
    header = Header(name, 2, SHAPE, 10, "digits", 3, gated=gated, init="kaiming_normal")
    model = trained(header)
    path = save_network(tmp_path / "made" / "network.safetensors", model, header)
    loaded, found = load_network(path)
    assert found == header
    assert bits(loaded) == bits(model)
    assert bits(loaded) != bits(header.build())
    x = torch.randn(4, *SHAPE)
    assert torch.equal(loaded.eval()(x), model(x))
    assert bool(gates.sites(loaded)) == gated
    assert [file.name for file in path.parent.iterdir()] == ["network.safetensors"]


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("name", NETWORKS)
def test_norm_and_standardised_weights_come_back(name: str, gated: bool, tmp_path: Path) -> None:
    header = Header(name, 8, SHAPE, 10, "digits", 3, gated=gated, norm="group", standardised=True)
    model = trained(header)
    loaded, found = load_network(save_network(tmp_path / "network.safetensors", model, header))
    assert found == header and bits(loaded) == bits(model)
    x = torch.randn(4, *SHAPE)
    assert torch.equal(loaded.eval()(x), model(x))


def test_a_file_from_before_there_was_group_norm_loads(tmp_path: Path) -> None:
    header = {
        name: value
        for name, value in HEADER.items()
        if name not in ("norm", "standardised", "rule", "guarantee", "schedule")
    }
    loaded = load_network(written(tmp_path / "n.safetensors", notes={"format": FORMAT, "header": json.dumps(header)}))
    assert loaded[1] == MLP


def test_gates_come_back_frozen_with_their_mask(tmp_path: Path) -> None:
    header = replace(MLP, gated=True)
    model = trained(header)
    loaded, _ = load_network(save_network(tmp_path / "network.safetensors", model, header))
    assert not any(gate.alpha.requires_grad for gate in gates.sites(loaded).values())
    (ours,), (theirs,) = masks_of(loaded), masks_of(model)
    assert (ours.structure, ours.kept) == (theirs.structure, theirs.kept)
    assert ours.jaccard(theirs) == 1.0
    assert 0 < ours.kept < ours.total


def test_width_zero_is_the_full_network() -> None:
    """Compared with `build` without a width, on the seed of the header."""
    header = replace(MLP, width=0)
    assert bits(header.build()) == bits(build("mlp", SHAPE, 10, seed=3))


def test_the_file_is_plain_safetensors_with_a_readable_header(tmp_path: Path) -> None:
    model = trained(MLP)
    with safe_open(save_network(tmp_path / "network.safetensors", model, MLP), framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert file.metadata()["format"] == FORMAT
        assert json.loads(file.metadata()["header"]) == asdict(MLP) | {"input_shape": list(SHAPE), "data_options": []}


def test_writing_again_replaces_the_file_and_a_failure_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure comes in the middle of the file."""

    def fail(_tensors: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half a file")
        raise KeyboardInterrupt

    path = tmp_path / "network.safetensors"
    save_network(path, MLP.build(), MLP)
    model = trained(MLP)
    save_network(path, model, MLP)
    assert bits(load_network(path)[0]) == bits(model)
    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        save_network(path, MLP.build(), MLP)
    assert bits(load_network(path)[0]) == bits(model)


def test_saving_moves_and_changes_nothing(tmp_path: Path, teacher: nn.Module, digits: GroupedData) -> None:
    before = bits(teacher)
    header = Header("mlp", 16, digits.input_shape, digits.classes, digits.name, 3)
    path = save_network(tmp_path / "network.safetensors", teacher, header)
    assert bits(teacher) == before
    assert bits(load_network(path)[0]) == before


# Bad files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    assert f"no network at {path}" in refused(path)


def test_a_folder_is_no_network_file(tmp_path: Path) -> None:
    assert str(tmp_path) in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no tensors at all", bytes(64), b"\x10" + bytes(7) + b"{" * 16])
def test_another_kind_of_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert f"{path} is truncated or no network file" in refused(path)


@pytest.mark.parametrize("share", [0.0005, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_named_wherever_it_ends(share: float, tmp_path: Path) -> None:
    path = save_network(tmp_path / "network.safetensors", MLP.build(), MLP)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert f"{path} is truncated or no network file" in refused(path)


def test_safetensors_of_someone_else_are_no_network(tmp_path: Path) -> None:
    path = written(tmp_path / "other.safetensors", notes={"format": "pt"})
    assert f"{path} is no network written by linfair" in refused(path)
    save_file(MLP.build().state_dict(), path)
    assert f"{path} is no network written by linfair" in refused(path)


def test_a_mask_is_no_network_and_a_network_no_mask(tmp_path: Path) -> None:
    model = trained(replace(MLP, gated=True))
    (mask,) = masks_of(model)
    path = mask.save(tmp_path / "mask.safetensors")
    assert "is no network written by linfair" in refused(path)
    path = save_network(tmp_path / "network.safetensors", model, replace(MLP, gated=True))
    with pytest.raises(GateError, match="is no mask"):
        Mask.load(path)


def test_an_unknown_network_is_named_with_those_there_are(tmp_path: Path) -> None:
    message = refused(written(tmp_path / "new.safetensors", notes=None, network="resnet19"))
    assert 'network = "resnet19"' in message
    assert all(name in message for name in NETWORKS)


@pytest.mark.parametrize(
    "changes",
    [{"network": "resnet18"}, {"width": 9}, {"classes": 3}, {"input_shape": [1, 8, 8]}, {"gated": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_weights_of_another_network_are_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path / "network.safetensors", notes=None, **changes)
    message = refused(path)
    assert f"{path} holds the weights of another network than {changes.get('network', 'mlp')}" in message
    assert len(message) < 1000 and "\n" not in message


WRONG = {
    "network": [None, 1, ["mlp"], {}, "resnet19", "MLP", "mlp\n"],
    "width": [None, True, "8", 8.0, -1, 10**9, 10**100, [8], {}],
    "input_shape": [
        None,
        "123",
        [],
        [[1]],
        ["1"],
        [1.0, 12, 12],
        [True, 12, 12],
        [-1, 12, 12],
        [0, 12],
        [10**9] * 3,
        {},
    ],
    "classes": [None, True, "10", 10.0, 0, -10, 10**9, 10**100, [10]],
    "data": [None, True, 1.5, "", ["digits"], {}, "a\x1b[31m", "a" * 5000],
    "seed": [None, True, "0", 1.5, -1, 10**100, [0]],
    "gated": [None, "x", 0, 1, [True], {}],
    "data_options": [None, True, "x", {}, [1], [["size"]], [[1, 2]], [["size", [8]]], [["size", None]]],
    "init": [None, "he", 1, []],
    "content": [None, True, 1, "xyz", ["0"]],
    "norm": [None, True, "layer", "Batch", 1, ["group"]],
    "standardised": [None, "x", 0, 1, [True], {}],
    "rule": [None, True, "x" * 99, "DP-SGD", "dp_sgd(", "dp_sgd(epsilon=3", "a\x1b[31m", ["sgd"]],
    "guarantee": [True, 1, "", "holds", [], [1]],
    "schedule": [True, 1, "", "smoke", [], {}, [1]],
    "colour": ["red"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(name, one) for name, values in WRONG.items() for one in values], ids=lambda one: str(one)[:20]
)
def test_a_field_of_another_type_or_range_is_named_with_its_value(field: str, value: object, tmp_path: Path) -> None:
    """Nothing is built: ten to the ninth in a field would take hundreds of gigabytes."""
    path = written(tmp_path / "network.safetensors", notes=None, **{field: value})
    message = refused(path)
    assert str(path) in message and field in message and len(message) < 600 and message.isprintable()
    assert json.dumps(value)[:20].strip('"') in message or not message.isascii() or field == "colour"


@pytest.mark.parametrize("field", [name for name in HEADER if name in WRONG][:6])
def test_a_field_that_is_missing_is_named(field: str, tmp_path: Path) -> None:
    header = json.dumps({name: value for name, value in HEADER.items() if name != field})
    assert field in refused(written(tmp_path / "n.safetensors", notes={"format": FORMAT, "header": header}))


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("{", "delimiter|property name"),
        ("[]", "not an object"),
        ("null", "not an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"width": 8, "width": 9}', "'width' twice"),
        ('{"seed": NaN}', "NaN"),
        ('{"seed": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_a_header_that_is_no_json_object_is_named(header: str, named: str, tmp_path: Path) -> None:
    message = refused(written(tmp_path / "network.safetensors", notes={"format": FORMAT, "header": header}))
    assert re.search(named, message) and "network.safetensors" in message and len(message) < 600


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 4096, 4096), (4096, 12, 12), (1, 1, 2**24), (99_999_999,) * 5])
def test_a_shape_larger_than_the_file_takes_no_memory(
    name: str, gated: bool, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shape needs is compared with what the file holds, before a network is built or run."""
    if name in ("resnet34", "wrn22_8") or not (gated or name == "mlp"):
        return  # a plain convolutional network is of one size for all images, and is not run here
    header = Header(name, 2, SHAPE, 10, "digits", 3, gated=gated)
    tensors = header.build().state_dict()
    notes = {"format": FORMAT, "header": json.dumps(asdict(header) | {"input_shape": shape})}
    save_file(tensors, tmp_path / "large.safetensors", metadata=notes)
    monkeypatch.setattr(Header, "build", lambda *_: pytest.fail("this shape must not be built"))
    refused(tmp_path / "large.safetensors")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda one: one.double(), "float64"),
        (lambda one: one.long(), "int64"),
        (lambda one: one > 0, "bool"),
        (lambda one: one.bfloat16(), "bfloat16"),
        (lambda one: one.half(), "float16"),
        (lambda one: one.to(torch.complex64), "complex64"),
        (lambda one: one.to(torch.uint8), "uint8"),
        (lambda one: one[:-1], "(7, 144)"),
        (lambda one: one[0, 0], "()"),
        (lambda one: one / 0, "not finite"),
        (lambda one: one * float("nan"), "not finite"),
    ],
)
def test_a_tensor_of_another_kind_is_named(change: Callable, named: str, tmp_path: Path) -> None:
    tensors = MLP.build().state_dict()
    tensors["1.weight"] = change(tensors["1.weight"]).contiguous()
    path = tmp_path / "network.safetensors"
    save_file(tensors, path, metadata={"format": FORMAT, "header": json.dumps(asdict(MLP))})
    message = refused(path)
    assert str(path) in message and "1.weight" in message and named in message


def test_thousands_of_extra_tensors_are_one_line(tmp_path: Path) -> None:
    tensors = MLP.build().state_dict() | {f"extra.{i}": torch.zeros(1) for i in range(3000)}
    save_file(tensors, tmp_path / "n.safetensors", metadata={"format": FORMAT, "header": json.dumps(asdict(MLP))})
    message = refused(tmp_path / "n.safetensors")
    assert "extra.0" in message and "... 2994 more" in message and len(message) < 600


def test_gates_that_are_half_open_are_named(tmp_path: Path) -> None:
    header = replace(MLP, gated=True)
    model = gates.set_alphas(header.build(), lambda _, alpha: alpha / 2)
    assert "2.alpha" in refused(save_network(tmp_path / "half.safetensors", model, header))


def test_headers_that_lie_about_their_length_or_tensors_are_refused(tmp_path: Path) -> None:
    """100 MB of header, a tensor twice, tensors on the same bytes, behind the end, and of overflowing shapes."""
    path = save_network(tmp_path / "network.safetensors", MLP.build(), MLP)
    content, size = path.read_bytes(), int.from_bytes(path.read_bytes()[:8], "little")
    header, data = content[8 : 8 + size].decode(), content[8 + size :]
    known = json.loads(header)
    again = header.rstrip()[:-1] + f', "1.bias": {json.dumps(known["1.bias"])}}}'
    same = json.dumps(known | {"1.bias": known["3.bias"]})
    behind = json.dumps(known | {"1.bias": known["1.bias"] | {"data_offsets": [0, 2**40]}})
    large = json.dumps(known | {"1.bias": known["1.bias"] | {"shape": [2**62, 2**62]}})
    for text in (again, same, behind, large, header.ljust(100_000_000), "[" * 100_000, '{"__metadata__": 1}'):
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)
        assert len(refused(path)) < 600
    path.write_bytes((2**63).to_bytes(8, "little") + content[8:])
    assert "9,223,372,036,854,775,808 bytes" in refused(path)


def test_a_file_without_a_header_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "network.safetensors", notes={"format": FORMAT})
    assert f"{path} " in refused(path)


def test_a_pickle_is_named_as_one_and_never_read(tmp_path):
    """torch.save's own file: refused by its name, with what to do instead."""
    path = tmp_path / "w.pt"
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="may hold code that runs when it is read; .* give .*safetensors"):
        load_network(path)


def test_data_that_changed_since_training_are_refused_and_renamed_groups_are_not(digits: GroupedData) -> None:
    """Labels in another order, one other image, another split: a network would be tested on what it never learned."""
    header = replace(MLP, content=digits.content)
    header.check_data(digits, "teacher.safetensors")
    header.check_data(replace(digits, group_names=tuple(f"g{name}" for name in digits.group_names)), "x")
    train, test = digits.splits["train"], digits.splits["test"]
    pixel = train.x.clone()
    pixel[0, 0, 0, 0] += 1
    changed = {
        "label order": {"train": replace(train, y=9 - train.y)},
        "one pixel": {"train": replace(train, x=pixel)},
        "splits": {"train": test, "test": train},
    }
    for splits in changed.values():
        with pytest.raises(CheckpointError, match="has changed.*train anew"):
            header.check_data(replace(digits, splits=digits.splits | splits), "teacher.safetensors")
    replace(MLP, content="").check_data(digits, "a file of an earlier version")
    with pytest.raises(CheckpointError, match="of 9 labels"):
        header.check_data(replace(digits, label_names=digits.label_names[:9]), "x")
