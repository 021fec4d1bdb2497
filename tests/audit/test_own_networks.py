"""Files, networks and weights as users bring them to an audit: taken, or refused in one line that says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from linfair.audit import AuditError, read_user
from linfair.audit.network import Subject
from linfair.gates import GateError

HEAD = """
import sys
import torch
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, k=2):
        super().__init__()
        self.a, self.b = nn.Linear(192, 8), nn.Linear(8, k)

    def forward(self, x):
        y = self.b(F.relu(self.a(x.flatten(1))))
        LAST


"""
WEIGHTS = {
    "a.weight": torch.ones(8, 192),
    "a.bias": torch.ones(8),
    "b.weight": torch.ones(2, 8),
    "b.bias": torch.ones(2),
}
PLAIN = "build = Net"
Read = Callable[..., Subject]


@pytest.fixture
def own(inside: Path, tmp_path: Path, chosen: dict) -> Read:
    """Reads a file with a function `build`, the given end of its forward pass and weights."""

    def read(
        text: str = PLAIN,
        *,
        last: str = "return y",
        weights: dict | None = None,
        raw: bytes | None = None,
        size: int = 8,
    ) -> Subject:
        (tmp_path / "mine.py").write_bytes(raw or (HEAD.replace("LAST", last) + text).encode())
        save_file(WEIGHTS if weights is None else weights, tmp_path / "mine.safetensors")
        given = {**chosen, "size": size}
        return read_user(f"{tmp_path / 'mine.py'}:build", tmp_path / "mine.safetensors", "folder:images", **given)

    return read


def refused(own: Read, *words: str, **given: object) -> str:
    with pytest.raises((AuditError, GateError)) as caught:
        own(**given)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert len(text) < 1000 and "\n" not in text
    return text


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "def build(): return Net()",
        "def build(num_classes=2): return Net(num_classes)",
        "def build(input_shape, classes): return Net(classes)",
        "def build(input_shape, classes, /): return Net(classes)",
        "def build(*, input_shape, classes): return Net(classes)",
        "def build(classes, input_shape): return Net(classes)",
        "def build(*args, **kwargs): return Net()",
        "def build(): return nn.DataParallel(Net())",
        "def build(): return torch.compile(Net())",
        "def build(): return Net().double()",
        "def build():\n    net = Net()\n    net.a = nn.LazyLinear(8)\n    return net",
    ],
)
def test_a_function_is_called_as_its_signature_says(text: str, own: Read) -> None:
    subject = own(text)
    assert [tuple(one.shape) for one in subject.model.parameters()] == [(8, 192), (8,), (2, 8), (2,)]
    assert {one.dtype for one in subject.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def build(num_classes): return Net()", ["takes (num_classes)", "(input_shape, classes)"]),
        ("def build(in_channels, num_classes): return Net()", ["takes (in_channels, num_classes)", "(input_shape, cl"]),
        ("def build(*, width): return Net()", ["takes (*, width)", "(input_shape, classes)"]),
        ("build = Net()", ["build", "of type Net", "a function"]),
        ("build = 3", ["build", "of type int", "a function"]),
        ("async def build(): return Net()", ["build", "a function"]),
        ("def build(): pass", ["must return a torch.nn.Module", "NoneType"]),
        ("def build(): return Net", ["must return a torch.nn.Module", "type"]),
        ("def build(): yield Net()", ["must return a torch.nn.Module", "generator"]),
        ("def build(): raise RuntimeError('no\\n' * 9999)", ["build", "RuntimeError: no no"]),
        ("def build(): sys.exit(0)", ["build", "SystemExit", "__main__"]),
        ("def build(): raise KeyboardInterrupt", ["build", "KeyboardInterrupt"]),
        ("sys.exit(0)", ["mine.py", "SystemExit", "__main__"]),
        ("import warnings\nwarnings.simplefilter('ignore')\nbuild = lambda: torch.jit.script(Net())", ["TorchScript"]),
        ("def build():\n    with torch.device('meta'): return Net()", ["meta", "on the CPU"]),
    ],
)
def test_a_function_that_gives_no_network_says_what_is_wanted(text: str, words: list[str], own: Read) -> None:
    refused(own, *words, text=text)


@pytest.mark.parametrize("raw", [b"\0", HEAD.encode("utf-16"), b"x = '\xe9'", b"def build(:", b"if 1:\n\tx\n        y"])
def test_a_file_that_is_no_python_is_one_line(raw: bytes, own: Read) -> None:
    refused(own, "mine.py", "Error", raw=raw)


def test_an_empty_file_has_no_function_and_a_byte_order_mark_is_read(own: Read) -> None:
    refused(own, "mine.py has no function 'build'", raw=b"\n")
    assert own(raw=b"\xef\xbb\xbf" + (HEAD.replace("LAST", "return y") + PLAIN).encode()).data.classes == 2


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("return (y, y)", ["one tensor", "tuple", "evaluation"]),
        ("return (y, y) if self.training else y", ["one tensor", "tuple", "training"]),
        ("return {'out': y} if self.training else y", ["one tensor", "dict", "training"]),
        ("import collections; return collections.namedtuple('Scores', 'out')(y)", ["one tensor", "Scores"]),
        ("pass", ["one tensor", "NoneType"]),
        ("return y.argmax(1)", ["int64", "(18,)", "(18, 2)"]),
        ("return y.to(torch.complex64)", ["complex64"]),
        ("return y.to_sparse()", ["sparse"]),
        ("return y.T", ["(2, 18)", "(18, 2)"]),
        ("return y.squeeze()", ["1 of them", "(2,)", "(1, 2)"]),
        ("return y * float('nan')", ["not finite"]),
        ("return y.detach()", ["gradient"]),
        ("raise SystemExit(0)", ["does not take", "SystemExit"]),
        ("assert not self.training; return y", ["training mode", "AssertionError"]),
        ("return self.b(x.flatten(1)[:, :8].long())", ["does not take", "dtype"]),
    ],
)
def test_outputs_that_are_no_scores_say_what_they_are(last: str, words: list[str], own: Read) -> None:
    refused(own, *words, last=last)


@pytest.mark.parametrize("start", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "student.net."])
def test_prefixes_of_weights_are_left_out_and_said(start: str, own: Read) -> None:
    wrapped = {start + name: value for name, value in WEIGHTS.items()}
    subject = own(weights=wrapped)
    assert f"'{start}'" in subject.warnings[0]
    assert all(torch.equal(value, WEIGHTS[name]) for name, value in subject.model.state_dict().items())
    said = own(weights=wrapped | {"n_averaged": torch.tensor(3)}).warnings[0]
    assert "n_averaged" in said
    refused(own, f"{start}c.bias", weights=wrapped | {f"{start}c.bias": torch.ones(1)})
    refused(own, "several networks", weights=wrapped | {f"ema.{name}": one.clone() for name, one in WEIGHTS.items()})


def test_tied_weights_are_loaded_from_one_name(own: Read) -> None:
    text = "class Tied(Net):\n    def __init__(self):\n        super().__init__(); self.c = nn.Linear(192, 8)\n"
    text += "        self.c.weight = self.a.weight\n\n    def forward(self, x):\n"
    text += "        return self.b(F.relu(self.a(x.flatten(1))) + self.c(x.flatten(1)))\nbuild = Tied"
    weights = WEIGHTS | {"c.bias": torch.zeros(8)}
    model = own(text, weights=weights).model
    assert model.c.weight is model.a.weight and torch.equal(model.c.weight, WEIGHTS["a.weight"])
    own(text, weights=weights | {"c.weight": WEIGHTS["a.weight"].clone()})
    refused(own, "a.weight, c.weight", text=text, weights=weights | {"c.weight": torch.zeros(8, 192)})


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.uint8, torch.complex64])
def test_weights_of_another_number_format_are_named(kind: torch.dtype, own: Read) -> None:
    refused(own, "a.weight", str(kind)[6:], "float32", weights=WEIGHTS | {"a.weight": WEIGHTS["a.weight"].to(kind)})


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_in_other_floats_are_read(kind: torch.dtype, own: Read) -> None:
    assert torch.equal(own(weights={name: one.to(kind) for name, one in WEIGHTS.items()}).model.a.bias, torch.ones(8))


def test_weights_that_are_not_finite_are_named(own: Read) -> None:
    refused(own, "mine.safetensors", "b.bias", "not finite", weights=WEIGHTS | {"b.bias": torch.tensor([1, torch.inf])})


def test_what_a_file_sets_for_the_process_is_set_back(own: Read) -> None:
    text = "import os\nos.chdir('/')\ntorch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
    text += "torch.set_default_device('meta')\n"
    before = torch.get_rng_state(), Path.cwd()
    own(text + "def build(): return Net().to_empty(device='cpu')")
    assert torch.equal(torch.get_rng_state(), before[0]) and Path.cwd() == before[1]
    assert torch.empty(0).dtype == torch.float32 and torch.empty(0).device.type == "cpu" and torch.is_grad_enabled()


IMAGES = (
    "class Own(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.core, self.head = {}, "
)
IMAGES += "nn.Linear({}, 2)\n\n    def forward(self, x):\n        return self.head(self.core({}){})\nbuild = Own"
ROWS = "x.reshape(len(x), 8, 24)"


@pytest.mark.parametrize(
    "parts",
    [
        ("nn.TransformerEncoderLayer(24, 2, 32, batch_first=True)", 24, ROWS, ".mean(1)"),
        ("nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 2, 32, batch_first=True), 2)", 24, ROWS, ".mean(1)"),
        ("nn.TransformerDecoderLayer(24, 2, 32, batch_first=True)", 24, f"{ROWS}, {ROWS}", ".mean(1)"),
        ("nn.RNN(24, 16, nonlinearity='relu', batch_first=True)", 16, ROWS, "[0][:, -1]"),
        ("nn.RNNCell(192, 16, nonlinearity='relu')", 16, "x.flatten(1)", ""),
    ],
    ids=["encoder layer", "encoder", "decoder layer", "rnn", "rnn cell"],
)
def test_relus_inside_torchs_own_code_are_said(parts: tuple, own: Read) -> None:
    text = IMAGES.format(*parts)
    space: dict[str, object] = {}
    exec(HEAD.replace("LAST", "return y") + text, space)
    refused(own, "inside torch's own code", "core", text=text, weights=space["build"]().state_dict())


@pytest.mark.parametrize(("name", "size"), [("googlenet", 32), ("inception_v3", 80)])
def test_torchvisions_networks_are_built_and_auxiliary_scores_say_what_to_set(name: str, size: int, own: Read) -> None:
    text = f"from torchvision.models import {name}\ndef build(): return {name}(num_classes=2, init_weights=False)"
    space: dict[str, object] = {}
    exec(text, space)
    weights = space["build"]().state_dict()
    refused(own, "aux_logits=False", "training", text=text, weights=weights, size=size)
