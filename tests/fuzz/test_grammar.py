"""Texts that hypothesis makes, for the grammars of options and the fields of a network's header."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kinds.case import HUNDRED
from kinds.networks import changed, header_with

from linfair.checkpoints import CheckpointError, Header, load_network
from linfair.cli.main import parse
from linfair.models import build

NUMBERLIKE = st.text("0123456789.,-+_eE[]() nainfx%", max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
OPTIONS = {"--width": int, "--seed": int, "--budgets": tuple, "--min-images": int}


@given(option=st.sampled_from(sorted(OPTIONS)), text=NUMBERLIKE)
@example("--budgets", "0.5,,")
@example("--budgets", "[0.5")
@example("--seed", "0.1_5")
@example("--width", HUNDRED)
def test_an_option_is_a_number_or_refused(option: str, text: str) -> None:
    """Oracle: Python's own reading of plain digits."""
    try:
        _, bound = parse(["linearize", f"{option}={text}"])
    except ValueError as error:  # cyclopts' own errors are among them
        assert str(error)
        return
    except Exception as error:
        assert type(error).__module__.startswith("cyclopts"), error
        return
    (value,) = bound.arguments.values()
    if option == "--min-images" or OPTIONS[option] is int:
        value = getattr(value, option.lstrip("-").replace("-", "_"))
        assert type(value) is int and str(value) == text.strip().lstrip("+0").rjust(1, "0")
    else:
        assert all(math.isfinite(one) and 0 < one < 1 for one in value) and "_" not in text


@given(field=st.sampled_from([one.name for one in fields(Header)]), value=VALUES)
@example("input_shape", [1, 12.0, 12])
@example("classes", True)
@example("seed", -1)
def test_a_header_is_read_or_refused(
    world: Path, tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    """A value that is read builds the network whose weights are there."""
    place = tmp_path_factory.mktemp("in")
    changed("net/teacher.safetensors", "x.safetensors", notes=header_with(field, value))(world, place)
    try:
        model, header = load_network(place / "x.safetensors")
    except CheckpointError as error:
        assert "x.safetensors" in str(error)
        return
    assert getattr(header, field) == (tuple(value) if field == "input_shape" else getattr(header, field))
    again = build(header.network, header.input_shape, header.classes, width=header.width or None)
    assert [one.shape for one in model.parameters()] == [one.shape for one in again.parameters()]
    json.dumps(value)
