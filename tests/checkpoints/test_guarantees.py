"""The guarantee of privacy in a network's file: it comes back as it was, and one that makes no sense is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from network_files import HEADER, MLP, refused, trained, written

from linfair.checkpoints import FORMAT, load_network, save_network
from linfair.ledger import STEPS, Guarantee, after

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
