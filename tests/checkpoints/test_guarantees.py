"""The guarantee of privacy in a network's file: it comes back as it was, and one that makes no sense is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from network_files import HEADER, MLP, refused, trained, written

from linfair.checkpoints import FORMAT, load_network, save_network
from linfair.ledger import STEPS, Guarantee, after
from linfair.schedule import Schedule

PRIVATE = Guarantee(8.0, 1e-5, "rdp", 2.2, 1.0, 0.25, 160)


@pytest.mark.parametrize("guarantee", [None, PRIVATE, after(PRIVATE, STEPS["SNL"])], ids=["never", "holds", "ended"])
def test_a_guarantee_comes_back_with_the_rule(guarantee: Guarantee | None, tmp_path: Path) -> None:
    header = replace(MLP, rule="dp_sgd(epsilon=8.0, average=1e-05)", guarantee=guarantee)
    assert load_network(save_network(tmp_path / "network.safetensors", trained(header), header))[1] == header


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("epsilon", one) for one in (-1, -1.0, 0, 0.0, "8", None, True, [8], 10**400)],
        *[("delta", one) for one in (-1e-5, 0.0, 1, 1.0, 2.0, None)],
        *[("noise", one) for one in (0.0, -1.0, None)],
        *[("clip", one) for one in (0.0, -1.0, "1")],
        *[("rate", one) for one in (0.0, 1.5, -0.1)],
        *[("steps", one) for one in (0, -1, 1.5, True, "160", 10**30)],
        *[("accountant", one) for one in ("", "none", None, 1)],
        *[("unit", one) for one in ("", "group", None)],
        *[("ended", one) for one in (None, True, "magic", "snl", "averaging", "export", "x" * 200, "a\x1b[31m")],
        ("colour", "red"),
    ],
    ids=lambda one: str(one)[:20],
)
def test_a_guarantee_that_makes_no_sense_is_refused(field: str, value: object, tmp_path: Path) -> None:
    """Field and value are named, and nothing is taken for private."""
    path = written(tmp_path / "n.safetensors", notes=None, guarantee=asdict(PRIVATE) | {field: value})
    message = refused(path)
    assert str(path) in message and field in message and len(message) < 900 and message.isprintable()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-0.0", "1e-999"])
def test_a_guarantee_of_no_number_is_refused(number: str, tmp_path: Path) -> None:
    header = json.dumps(HEADER | {"guarantee": asdict(PRIVATE)}).replace("8.0", number)
    refused(written(tmp_path / "n.safetensors", notes={"format": FORMAT, "header": header}))


def test_a_guarantee_without_one_of_its_numbers_is_refused(tmp_path: Path) -> None:
    for name in asdict(PRIVATE):
        given = {key: value for key, value in asdict(PRIVATE).items() if key != name}
        assert name in refused(written(tmp_path / "n.safetensors", notes=None, guarantee=given))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *[({"rule": rule}, rule) for rule in ("sgd", "sam", "clipped(max_norm=2.0)", "dp_sgd(noise=0.0)")],
        ({"rule": ""}, "sgd"),
        *[({"network": name, "width": 2, "rule": "dp_sgd"}, "batch norm") for name in ("resnet18", "vgg19")],
    ],
    ids=str,
)
def test_a_guarantee_that_cannot_hold_is_refused(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    """Of a rule without noise, or of a network that mixes the images of a batch; one that has ended may be there."""
    header = replace(MLP, **changes)
    path = save_network(tmp_path / "network.safetensors", trained(header), replace(header, guarantee=PRIVATE))
    message = refused(path)
    assert said.partition("(")[0] in message and "guarantee" in message and len(message) < 500
    ended = replace(header, guarantee=after(PRIVATE, STEPS["batch-norm re-estimation"]))
    assert load_network(save_network(path, trained(header), ended))[1] == ended


def test_a_schedule_comes_back(tmp_path: Path) -> None:
    for one in (None, Schedule(epochs=3, batch_size=None, optimizer="adamw", lr=1e-3, milestones=(1, 2))):
        header = replace(MLP, schedule=one)
        assert load_network(save_network(tmp_path / "network.safetensors", trained(header), header))[1] == header


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("epochs", one) for one in (0, -1, 1.5, "3", None, True)],
        *[("batch_size", one) for one in (0, -1, "64")],
        *[("lr", one) for one in (0.0, -0.1, "0.1", None)],
        *[("momentum", one) for one in (-0.1, "0.9")],
        *[("optimizer", one) for one in ("lion", 1)],
        *[("milestones", one) for one in (3, ["1"])],
        ("colour", "red"),
    ],
    ids=lambda one: str(one)[:20],
)
def test_a_schedule_of_no_training_is_refused(field: str, value: object, tmp_path: Path) -> None:
    given = asdict(Schedule(epochs=3)) | {field: value}
    message = refused(written(tmp_path / "n.safetensors", notes=None, schedule=given))
    assert field in message and len(message) < 900 and message.isprintable()
    assert "epochs" in refused(written(tmp_path / "n.safetensors", notes=None, schedule={"lr": 0.1}))
