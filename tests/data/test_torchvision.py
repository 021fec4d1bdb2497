"""torchvision through its one door, and its networks behind gates."""

import ast
import copy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from linfair import gates
from linfair.data import torchvision as door
from linfair.gates import ReLUGate, SharedGates, install
from linfair.masks import Mask, apply_mask, masks_of

PACKAGE = Path(door.__file__).parents[1]


@pytest.fixture(scope="module")
def torchvision() -> ModuleType:
    return door.torchvision()


def python(code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)


# The door


def test_a_fresh_interpreter_imports_torchvision_whatever_its_build() -> None:
    """Twice the same module, its Python parts usable, and a plain import works afterwards."""
    done = python(
        "import torch\n"
        "from linfair.data.torchvision import torchvision as door\n"
        "tv = door()\n"
        "assert door() is tv\n"
        "import torchvision as plain\n"
        "assert plain is tv\n"
        "from torchvision.transforms import v2\n"
        "print(tuple(v2.Resize(4)(torch.zeros(3, 8, 8)).shape), tv.datasets.CIFAR10.__name__)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(3, 4, 4) CIFAR10"


BROKEN = """
import sys
import linfair.data.torchvision as tv

def fake(name):
    calls.append(name)
    if [name for name in sys.modules if name.startswith("torchvision")]:
        raise AssertionError("a half-imported module was left")
    sys.modules["torchvision"] = sys.modules["torchvision.half"] = object()
    raise error

tv.importlib.import_module = fake
for error in (
    RuntimeError("operator torchvision::nms does not exist"),
    RuntimeError("operator torchvision::roi_align does not exist"),
    ModuleNotFoundError("No module named 'torchvision'"),
    OSError("libcudart.so.13: cannot open shared object file"),
):
    calls = []
    try:
        print(tv.torchvision().models.resnet18.__name__)
    except ImportError as failed:
        left = [name for name in sys.modules if name.startswith("torchvision.half")]
        print(len(calls), left, type(failed.__cause__).__name__, failed)
"""


def test_any_other_failure_says_which_pair_to_install() -> None:
    """The mismatch that is repaired is tried twice, all others once; nothing half-imported is left."""
    done = python(BROKEN)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    starts = ["2 [] RuntimeError", "1 [] RuntimeError", "1 [] ModuleNotFoundError", "1 [] OSError"]
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"{start} torchvision cannot be imported next to torch {torch.__version__}")
        assert "torch 2.13 goes with torchvision 0.28, torch 2.11 with 0.26" in line


def test_no_other_module_imports_torchvision() -> None:
    """Read from the package's syntax trees."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [path.name for name in names if name.partition(".")[0] == "torchvision"]
    assert not found


# Its networks


NETWORKS = {"resnet18": 17, "vgg16_bn": 15}
"""Name -> calls of a ReLU in one forward pass: resnet18 has one after the stem and two in each of eight blocks."""


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, torchvision: ModuleType) -> nn.Module:
    """One of its networks, with batch-norm statistics that are not the initial ones; tests must leave it as it is."""
    torch.manual_seed(0)
    with torch.device("meta" if request.param == "vgg16_bn" else "cpu"):
        model = getattr(torchvision.models, request.param)(weights=None, num_classes=4)
    if request.param == "vgg16_bn":  # with a small classifier: its own has 120 million weights
        vgg = torchvision.models.vgg
        model.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
        for place, width, units in ((0, 512 * 49, 16), (3, 16, 16), (6, 16, 4)):
            model.classifier[place] = nn.Linear(width, units)
    with torch.no_grad():
        model(1 + 2 * torch.randn(4, 3, 32, 32))
    return model.eval()


def relu_calls(model: nn.Module, x: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of what each call of an `nn.ReLU` returns for one image, counted by forward hooks."""
    shapes: list[tuple[int, ...]] = []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    handles = [relu.register_forward_hook(lambda _m, _a, out: shapes.append(tuple(out.shape[1:]))) for relu in relus]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return shapes


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def half_masked(gated: nn.Module) -> Mask:
    """A random mask of about half the units."""
    generator = torch.Generator().manual_seed(1)
    gates.set_alphas(gated, lambda _, alpha: torch.randint(0, 2, alpha.shape, generator=generator).float())
    (mask,) = masks_of(gated)
    return mask


@pytest.mark.parametrize("side", [32, 96])
@torch.no_grad()
def test_fresh_gates_are_the_original_and_every_call_is_a_site_of_its_own(network: nn.Module, side: int) -> None:
    """The same logits; sites and units are those a hook counter sees in the original."""
    x = torch.randn(1, 3, side, side)
    gated = install(network, x.shape[1:])
    torch.testing.assert_close(gated(x), network(x))
    shapes = relu_calls(network, x)
    assert len(shapes) == NETWORKS[{"ResNet": "resnet18", "VGG": "vgg16_bn"}[type(network).__name__]]
    found = [tuple(gate.alpha.shape) for gate in gates.sites(gated).values()]
    assert sorted(found) == sorted(shapes)
    assert gates.total_units(gated) == sum(torch.Size(shape).numel() for shape in shapes)
    assert not relu_calls(gated, x)


def test_a_block_that_calls_one_relu_twice_gets_two_sites(torchvision: ModuleType) -> None:
    gated = install(torchvision.models.resnet18(weights=None), (3, 32, 32))
    blocks = [block for stage in (gated.layer1, gated.layer2, gated.layer3, gated.layer4) for block in stage]
    assert [type(block.relu) for block in blocks] == [SharedGates] * 8
    assert type(gated.relu) is ReLUGate
    assert [site for site in gates.sites(gated) if site.startswith("layer2.0")] == [
        "layer2.0.relu.calls.0",
        "layer2.0.relu.calls.1",
    ]


@torch.no_grad()
def test_the_two_calls_of_a_block_are_linearized_apart(torchvision: ModuleType) -> None:
    """The oracle is the block's forward pass written out, its first ReLU kept and its second not."""
    torch.manual_seed(2)
    block = torchvision.models.resnet.BasicBlock(4, 4).eval()
    gated, x = install(block, (4, 8, 8)), torch.randn(3, 4, 8, 8)
    gates.sites(gated)["relu.calls.1"].alpha.zero_()
    expected = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x))))) + x
    torch.testing.assert_close(gated(x), expected)
    assert (expected < 0).any()


@torch.no_grad()
def test_a_mask_saves_and_loads_into_the_same_network(network: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(1, 3, 32, 32)
    gated = install(network, (3, 32, 32))
    mask = half_masked(gated)
    expected = gated(x)
    assert not torch.allclose(expected, network(x))
    loaded = Mask.load(mask.save(tmp_path / "mask.safetensors"))
    again = apply_mask(install(network, (3, 32, 32)), loaded)
    assert torch.equal(again(x), expected)
    assert loaded.kept == mask.kept == int(gates.kept_units(again))


@torch.no_grad()
def test_copies_and_state_dicts_compute_the_same(network: nn.Module) -> None:
    x = torch.randn(1, 3, 32, 32)
    gated = install(network, (3, 32, 32))
    half_masked(gated)
    expected = gated(x)
    twin = copy.deepcopy(gated)
    fresh = install(type_of(network), (3, 32, 32)).eval()
    fresh.load_state_dict(gated.state_dict())
    gates.set_alphas(gated, lambda _, alpha: torch.ones_like(alpha))
    assert torch.equal(twin(x), expected)
    assert torch.equal(fresh(x), expected)


def type_of(network: nn.Module) -> nn.Module:
    """The same architecture with other weights."""
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        parameter.data.normal_()
    return other


def test_a_training_step_moves_weights_and_alphas_and_leaves_the_original(network: nn.Module) -> None:
    before = bits(network)
    gated = install(network, (3, 32, 32)).train()
    start = {name: parameter.detach().clone() for name, parameter in gated.named_parameters()}
    step = torch.optim.SGD(gated.parameters(), lr=0.1)
    x, y = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(4)
    F.cross_entropy(gated(x), y).backward()
    step.step()
    moved = {name for name, parameter in gated.named_parameters() if not torch.equal(parameter, start[name])}
    assert {name for name in moved if name.endswith("alpha")} == {f"{site}.alpha" for site in gates.sites(gated)}
    assert all(name in moved for name in start if name.endswith("weight"))
    assert bits(network) == before


def test_a_relu6_network_is_refused_and_its_layers_named(torchvision: ModuleType) -> None:
    with pytest.raises(gates.GateError, match=r"features\.0\.2, .* computes a ReLU6"):
        install(torchvision.models.mobilenet_v2(weights=None), (3, 32, 32))


def test_its_functional_relus_are_found_and_its_heads_for_training_left_alone(torchvision: ModuleType) -> None:
    """GoogLeNet calls F.relu after each batch norm; auxiliary heads run in training mode only and cost no inference."""
    torch.manual_seed(0)
    plain = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False).eval()
    x = torch.randn(1, 3, 32, 32)
    gated = install(plain, (3, 32, 32))
    assert len(gates.sites(gated)) == sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules()) > 0
    with torch.no_grad():
        assert torch.equal(gated(x), plain(x))
    heads = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    assert gates.sites(install(heads, (3, 32, 32))).keys() == gates.sites(gated).keys()
