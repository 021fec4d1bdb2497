"""Networks as ONNX: ONNX Runtime against torch, the graph's ReLUs and zeros against the mask."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from linfair import gates, weights
from linfair.checkpoints import Header, save_network
from linfair.cli import main
from linfair.data import load_data
from linfair.ensemble import Ensemble
from linfair.inference import ExportError, difference, to_onnx
from linfair.ledger import Guarantee
from linfair.masks import RELUS, Mask
from linfair.models import NETWORKS, StandardisedConv2d, build
from linfair.theory import fold_batch_norm
from linfair.weights import WEIGHTS

onnx = pytest.importorskip("onnx", reason="onnx is missing: pip install 'linfair[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is missing: pip install 'linfair[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install 'linfair[export]'")
SHAPE = (3, 16, 16)


def used(network: nn.Module) -> nn.Module:
    """A network whose batch norms are not the identity."""
    draw = torch.Generator().manual_seed(0)
    for norm in [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]:
        for name, values in norm.state_dict().items():
            if values.is_floating_point():
                values.uniform_(-1 if name in ("running_mean", "bias") else 0.3, 2, generator=draw)
    return network.eval()


def gated(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    """A network with the first site's units all kept, the last one's none, and of the others a fifth."""
    network, draw = gates.install(network, shape), torch.Generator().manual_seed(1)
    ends = {list(gates.sites(network))[at]: share for at, share in ((-1, 0), (0, 1))}
    gates.set_alphas(network, lambda site, a: (torch.rand(a.shape, generator=draw) < ends.get(site, 0.2)).float())
    return gates.freeze(network)


def batch(n: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n))


def operators(file: bytes) -> Counter:
    onnx.checker.check_model(file)
    return Counter(node.op_type for node in onnx.load_from_string(file).graph.node)


def notes(file: bytes | Path) -> dict[str, str]:
    model = onnx.load_from_string(file) if isinstance(file, bytes) else onnx.load(file)
    return {one.key: one.value for one in model.metadata_props}


OTHERS = {"resnet34": ("batch", "multiply"), "wrn16_4": ("group", "gather"), "cnn": ("group", "multiply")}
CASES = [(name, *OTHERS.get(name, ("batch", "gather"))) for name in NETWORKS]
QUICK = [("mlp", "batch", "gather"), ("resnet18", "batch", "gather")]


@pytest.mark.parametrize(
    ("name", "norm", "execution"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_a_gated_network_answers_as_its_file(name: str, norm: str, execution: str) -> None:
    """Oracle: torch's network, with its batch norms and gates, on batches of another size than it was written with."""
    network = gated(used(build(name, SHAPE, 5, width=4, norm=norm, standardised=norm == "group" and name != "cnn")))
    file = to_onnx(network, SHAPE, execution=execution)
    assert max(difference(file, network, batch(n)) for n in (1, 7)) < 1e-5
    count, kept, total = operators(file), RELUS.kept(network)[0], RELUS.total(network)
    assert count["BatchNormalization"] == 0
    assert count["Relu"] == len(gates.sites(network)) - 1  # of the last site none is kept
    assert notes(file)["relus"] == f"{kept} of {total}"
    for node in onnx.load_from_string(file).graph.node:
        assert not node.metadata_props, "torch notes the paths of the machine"


def test_relus_compare_as_many_units_as_the_mask_keeps() -> None:
    """Oracle: shapes that onnx infers; `multiply` and `layer` compare whole sites, and `layer` is another function."""
    network = gated(build("mlp", (3, 4, 4), 5, width=8), (3, 4, 4))
    second = list(gates.sites(network))[-1]
    network.get_submodule(second).alpha.data[:3] = 1
    compared = {}
    for execution in ("gather", "multiply", "layer"):
        file = to_onnx(network, (3, 4, 4), execution=execution)
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(file)).graph
        shapes = {one.name: one.type.tensor_type.shape.dim for one in graph.value_info}
        compared[execution] = [shapes[node.output[0]][1].dim_value for node in graph.node if node.op_type == "Relu"]
        same = difference(file, network, batch(9, (3, 4, 4))) < 1e-5
        assert same == (execution != "layer")
    assert compared == {"gather": [8, 3], "multiply": [8, 8], "layer": [8, 8]}


def small() -> nn.Module:
    """Convolutions of both kinds, each with a batch norm."""
    convolutions = [nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), StandardisedConv2d(4, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(100, 5))


def test_weights_that_were_pruned_are_exact_zeros() -> None:
    """Oracle: the mask; batch norm is folded into what is left, standardised weights are baked."""
    network, draw = weights.install(used(small())), torch.Generator().manual_seed(2)
    mask = WEIGHTS.masks(network)[0]
    units = {site: torch.rand(kept.shape, generator=draw) < 0.3 for site, kept in mask.units.items()}
    weights.apply_mask(network, Mask(units, mask.structure, "weight"))
    file = to_onnx(network, SHAPE)
    assert difference(file, network, batch(7)) < 1e-5
    values = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(file).graph.initializer}
    for site, kept in units.items():
        assert (values[site][~kept.numpy()] == 0).all()
    assert notes(file)["weights"] == f"{sum(int(one.sum()) for one in units.values())} of {mask.total}"


def test_batch_norm_is_not_folded_into_weights_that_are_standardised_after_it() -> None:
    """Oracle: the network. Standardising would take off the scale that folding put in."""
    network = used(small())
    with torch.no_grad():
        assert torch.allclose(fold_batch_norm(network)(batch(3)), network(batch(3)), atol=1e-5)


class Own(nn.Module):
    """One ReLU module called twice, a functional one, dropout, and a pooling that ONNX has no operator for."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(shape[0], 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.drop, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.5), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d((7, 7)), nn.Linear(4 * 49, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of images."""
        x = F.relu(self.norm(self.first(x)))
        x = self.act(self.second(x)) + x
        return self.head(self.drop(self.pool(self.act(self.second(x))).flatten(1)))


class Strange(nn.Linear):
    """A layer whose answer is of one of several strange kinds."""

    def __init__(self, kind: str) -> None:
        super().__init__(48, 4)
        self.kind = kind

    def forward(self, x: torch.Tensor) -> object:
        """Scores, or what is none."""
        scores = super().forward(x.flatten(1))
        match self.kind:
            case "random":
                return F.dropout(scores, 0.5, training=True)
            case "branch":
                return scores if scores.sum() > 0 else -scores
            case "fixed":
                return scores.reshape(5, 4)[: len(x)]
            case _:
                return scores, scores


def test_a_users_network_with_shared_and_functional_relus_answers_as_its_file() -> None:
    network = gated(used(Own(SHAPE, 5)))
    file = to_onnx(network, SHAPE)
    assert max(difference(file, network, batch(n)) for n in (1, 7)) < 1e-5
    assert operators(file)["Relu"] == len(gates.sites(network)) - 1 == 2


def test_attention_is_written_as_products() -> None:
    """Torch's fused operator of a whole layer is none that ONNX knows."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=F.gelu, batch_first=True)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(32, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    file = to_onnx(gates.install(network, (4, 8)), (4, 8))
    assert difference(file, network, torch.randn(7, 4, 8, generator=torch.Generator().manual_seed(1))) < 1e-5
    assert operators(file)["Softmax"] == 1 and operators(file)["Relu"] == 1


@pytest.mark.parametrize(
    ("kind", "words"),
    [("random", "draws at random"), ("branch", "data-dependent"), ("fixed", "Strange"), ("two", "tuple")],
)
def test_a_network_that_is_no_fixed_graph_is_refused(kind: str, words: str, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ExportError, match=words) as refused:
        to_onnx(Strange(kind), (3, 4, 4))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_gates_between_0_and_1_ensembles_and_unknown_executions_are_refused() -> None:
    network = gated(build("mlp", (3, 4, 4), 5, width=8), (3, 4, 4))
    next(iter(gates.sites(network).values())).alpha.data[0] = 0.5
    with pytest.raises(ExportError, match="between 0 and 1.*binarise"):
        to_onnx(network, (3, 4, 4))
    with pytest.raises(ExportError, match="ensemble"):
        to_onnx(Ensemble([network, network]), (3, 4, 4))
    with pytest.raises(ExportError, match="'scatter'.*gather"):
        to_onnx(network, (3, 4, 4), execution="scatter")


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with a guarantee, masks of both kinds, weights; a user's own network with a mask and weights."""
    folder, data = tmp_path_factory.mktemp("export"), load_data("digits", seed=0)
    private = {"norm": "group", "rule": "dp_sgd(epsilon=3.0)"}
    header = Header("mlp", 8, data.input_shape, data.classes, "digits", 0, **private)
    promise = Guarantee(3.0, 1e-5, "rdp", 2.0, 1.0, 0.1, 100)
    teacher = build("mlp", data.input_shape, data.classes, width=8, norm="group")
    save_network(folder / "teacher.safetensors", teacher, Header(**{**vars(header), "guarantee": promise}))
    network = gated(teacher, data.input_shape)
    RELUS.masks(network)[0].save(folder / "snl-0.5.mask.safetensors")
    save_network(folder / "snl-0.5.weights.safetensors", network, header)
    pruned = weights.install(teacher)
    units = {site: torch.rand(one.shape) < 0.5 for site, one in WEIGHTS.masks(pruned)[0].units.items()}
    Mask(units, WEIGHTS.masks(pruned)[0].structure, "weight").save(folder / "pruned.mask.safetensors")
    (folder / "own.py").write_text(
        "from torch import nn\n\n\ndef build(input_shape, classes):\n    return nn.Sequential(nn.Conv2d(1, 2, 3), "
        "nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 8), nn.ReLU(), nn.Linear(8, classes))\n"
    )
    own = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 8), nn.ReLU())
    own = used(own.append(nn.Linear(8, data.classes)))
    save_file(own.state_dict(), folder / "own.safetensors")
    network = gated(own, data.input_shape)
    RELUS.masks(network)[0].save(folder / "own.mask.safetensors")
    save_network(folder / "own.weights.safetensors", network, Header(**{**vars(header), "network": "own.py:build"}))
    return folder


def typed(files: Path, **options: str) -> list[str]:
    """Words of a command; values that name one of the files become its path."""
    place = {one.name: str(one) for one in files.iterdir()} | {"own.py:build": f"{files / 'own.py'}:build"}
    return ["export", *(word for key, value in options.items() for word in (f"--{key}", place.get(value, value)))]


TEACHER, OWN = {"teacher": "teacher.safetensors"}, {"model": "own.py:build", "data": "digits"}


def test_a_teacher_with_its_mask_is_written_with_scaling_and_guarantee(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Oracle: the data's own mean, the mask's counts, and the file that stood there before."""
    out = tmp_path / "model.onnx"
    out.write_text("older")
    mask = {"mask": "snl-0.5.mask.safetensors", "weights": "snl-0.5.weights.safetensors"}
    assert main.main(typed(files, **TEACHER, **mask, out=str(out))) == 0
    text, said, data = capsys.readouterr().out, notes(out), load_data("digits", seed=0)
    assert json.loads(said["mean"]) == list(data.mean)
    assert json.loads(said["labels"]) == list(data.label_names)
    assert said["relus"] == "8 of 16"
    assert said["guarantee"].startswith("no privacy guarantee")
    assert "8 of 16" in text
    assert "1 x 12 x 12" in text
    assert str(out) in text
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
    assert main.main(typed(files, **TEACHER, out=str(out))) == 0
    assert "privacy guarantee holds: epsilon = 3" in notes(out)["guarantee"]
    assert main.main(typed(files, **TEACHER, mask="pruned.mask.safetensors", out=str(out))) == 0
    assert notes(out)["weights"].split()[0] == str(Mask.load(files / "pruned.mask.safetensors").kept)


def test_a_users_network_takes_its_own_weights_or_those_beside_the_mask(files: Path, tmp_path: Path) -> None:
    """Oracle: here both are the same numbers, so both files are the same bytes."""
    for weights_, out in (("own.safetensors", "a.onnx"), ("own.weights.safetensors", "b.onnx")):
        more = {"weights": weights_, "mask": "own.mask.safetensors", "out": str(tmp_path / out)}
        assert main.main(typed(files, **OWN, **more)) == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert notes(tmp_path / "a.onnx")["network"] == "own.py:build"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["--model", "--teacher"]),
        (TEACHER | {"mask": "own.mask.safetensors"}, ["own.mask", "does not fit", "another network"]),
        (TEACHER | {"mask": "teacher.safetensors"}, ["teacher.safetensors", "is no mask"]),
        (TEACHER | {"mask": "nowhere.safetensors"}, ["no mask at nowhere.safetensors"]),
        (TEACHER | {"weights": "snl-0.5.weights.safetensors"}, ["--weights", "--mask"]),
        (TEACHER | {"data": "toy"}, ["--data toy", "digits"]),
        (TEACHER | {"model": "own.py:build"}, ["leave out --model"]),
        (TEACHER | {"execution": "layer"}, ["layer", "gather", "multiply"]),
        (TEACHER | {"out": "model.pt"}, ["model.pt", ".onnx"]),
        ({"teacher": "snl-0.5.weights.safetensors"}, ["linearized", "teacher.safetensors"]),
        (OWN, ["missing: --weights"]),
        (OWN | {"weights": "own.weights.safetensors"}, ["alpha"]),
        (OWN | {"weights": "own.safetensors", "mask": "snl-0.5.mask.safetensors"}, ["does not fit", "another network"]),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    options: dict,
    words: list,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(typed(files, **options)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert not [word for word in words if word not in lines[-1]], lines
    assert list(tmp_path.iterdir()) == []


def test_another_masks_weights_and_folders_are_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    units = {site: ~kept for site, kept in Mask.load(files / "own.mask.safetensors").units.items()}
    other = Mask(units, Mask.load(files / "own.mask.safetensors").structure).save(tmp_path / "other.mask.safetensors")
    given = {"weights": "own.weights.safetensors", "mask": str(other), "out": str(tmp_path / "model.onnx")}
    assert main.main(typed(files, **OWN, **given)) == 2
    assert "give mask and weights of one budget" in capsys.readouterr().err
    (tmp_path / "folder.onnx").mkdir()
    assert main.main(typed(files, **TEACHER, out=str(tmp_path / "folder.onnx"))) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_without_the_extra_one_line_says_how_to_install_it(
    files: Path, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.capi.onnxruntime_pybind11_state", None)
    assert main.main(typed(files, **TEACHER, out=str(tmp_path / "model.onnx"))) == 2
    assert "linfair[export]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
