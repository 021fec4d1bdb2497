"""Networks as ONNX: ONNX Runtime against torch, the graph's ReLUs against the mask."""

from collections import Counter

import pytest
import torch
from torch import nn

from linfair import gates
from linfair.inference import to_onnx
from linfair.inference.export import difference
from linfair.models import build

onnx = pytest.importorskip("onnx", reason="onnx is missing: pip install 'linfair[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install 'linfair[export]'")
SHAPE = (3, 16, 16)


def used(network: nn.Module) -> nn.Module:
    """A network whose batch norms are not the identity."""
    draw = torch.Generator().manual_seed(0)
    for norm in [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]:
        for values, low in (
            (norm.running_mean, -1),
            (norm.bias.data, -1),
            (norm.running_var, 0.2),
            (norm.weight.data, 0.5),
        ):
            values.uniform_(low, 2, generator=draw)
    return network.eval()


def gated(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    """A network with the first site's units all kept, the last one's none, and of the others a fifth."""
    network, draw = gates.install(network, shape), torch.Generator().manual_seed(1)
    ends = {list(gates.sites(network))[at]: share for at, share in ((-1, 0), (0, 1))}
    return gates.freeze(
        gates.set_alphas(network, lambda site, a: (torch.rand(a.shape, generator=draw) < ends.get(site, 0.2)).float())
    )


def batch(n: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("execution", ["gather", "multiply"])
@pytest.mark.parametrize("name", ["mlp", "resnet18"])
def test_a_gated_network_answers_as_its_file(name: str, execution: str) -> None:
    """Oracle: torch's network, with its batch norms and gates, on batches of another size than it was written with."""
    network = gated(used(build(name, SHAPE, 5, width=4)))
    file = to_onnx(network, SHAPE, execution=execution)
    assert max(difference(file, network, batch(n)) for n in (1, 7)) < 1e-5
    graph = onnx.load_from_string(file).graph
    onnx.checker.check_model(file)
    count = Counter(node.op_type for node in graph.node)
    assert count["BatchNormalization"] == 0
    assert count["Relu"] == len(gates.sites(network)) - 1
