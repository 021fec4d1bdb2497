"""`linfair cost`: the prediction of `linfair.cost` as its oracle, and with the engine what the parties sent."""

import json

import pytest
import torch

from linfair import build, load_data
from linfair.checkpoints import Header, save_network
from linfair.cli.main import main
from linfair.cost import predicted
from linfair.inference import EngineMissing, spu


@pytest.fixture
def teacher(tmp_path):
    data = load_data("digits", seed=0)
    torch.manual_seed(0)
    network = build("mlp", data.input_shape, data.classes, width=8)
    header = Header("mlp", 8, data.input_shape, data.classes, "digits", 0, content=data.content)
    return save_network(tmp_path / "teacher.safetensors", network, header), network, data


def test_cost_prints_the_prediction(teacher, capsys):
    path, network, data = teacher
    assert main(["cost", "--teacher", str(path), "--protocol", "aby3", "--json", "--rtt", "0.05"]) == 0
    found, expected = json.loads(capsys.readouterr().out), predicted(network, data.input_shape, "aby3", rtt=0.05)
    assert found["predicted"]["bytes"] == expected.bytes and found["predicted"]["seconds"] == expected.seconds
    assert main(["cost", "--teacher", str(path)]) == 0
    assert f"{predicted(network, data.input_shape).bytes:,}" in capsys.readouterr().out


@pytest.mark.slow
def test_cost_measures_a_private_answer_beside_its_prediction(teacher, capsys):
    try:
        spu.engine()
    except EngineMissing as error:
        pytest.skip(str(error))
    path, network, data = teacher
    assert main(["cost", "--measure", "--teacher", str(path), "--images", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measured"]["sent_bytes"] == found["predicted"]["bytes"]
    assert found["measured"]["rounds"] == found["predicted"]["rounds"]
    x = data.normalise(data.splits["test"].x[data.splits["test"].a == 0][:1])
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["measured"]["logits"]), network.eval()(x), atol=1e-3, rtol=0)
    assert [one["n"] for one in found["measured"]["groups"]] == [1] * len(data.group_names)
    assert {one["flips"] for one in found["measured"]["groups"]} == {0}


@pytest.mark.parametrize(
    ("words", "said"), [(["--protocol", "delphi"], "cheetah"), (["--engine", "crypten"], "spu"), ([], "make mpc")]
)
def test_what_cannot_be_measured_is_one_line(teacher, capsys, monkeypatch, words, said):
    monkeypatch.setenv("LINFAIR_MPC", "/no/such/python")
    assert main(["cost", "--measure", "--teacher", str(teacher[0]), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
