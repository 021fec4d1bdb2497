"""What a network computes, as a digest: weights alone do not tell when the code around them has changed."""

import copy
import hashlib
import math

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from linfair.data import GroupedData


def behaviour(model: nn.Module, data: GroupedData) -> str:
    """SHA-256 (16 hex digits) of a network's outputs on fixed inputs, and of one step of training.

    The inputs are validation images, one of them alone, and noise at two scales. In evaluation mode the outputs count,
    in training mode (dropout drawn from a fixed seed) the outputs, the gradients of every parameter and the buffers
    afterwards. Computed on the CPU; another processor or number of threads rounds differently and gives another digest.
    The network stays as it is.
    """
    network, content = copy.deepcopy(model).cpu(), hashlib.sha256()
    x = data.normalise(data.splits["val"].x[:64].cpu()).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        noise = torch.randn(16, *x.shape[1:])
        network.eval()
        with torch.no_grad():
            for batch in (x, x[:1], noise, 8 * noise):
                _add(content, _outputs(network, batch))
        network.train().zero_grad()
        with torch.enable_grad():  # of a weighted sum of the outputs
            leaves = _outputs(network, torch.cat([x[:32], noise]))
            tensors = [one for one in leaves if isinstance(one, Tensor) and one.requires_grad]
            sums = [(one * torch.linspace(0, math.pi, one.numel()).cos().view_as(one)).sum() for one in tensors]
            if sums:
                torch.stack(sums).sum().backward()
        gradients = [part for name, one in network.named_parameters() for part in (name, one.grad)]
        _add(content, [*leaves, *gradients, *(part for named in network.named_buffers() for part in named)])
    return content.hexdigest()[:16]


def _outputs(network: nn.Module, x: Tensor) -> list[object]:
    torch.manual_seed(1)
    try:
        return tree_leaves(network(x))
    except Exception as error:  # whoever trains or measures the network meets it again, and says so
        return [type(error).__name__]


def _add(content: "hashlib._Hash", values: list[object]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            content.update(f"{value.dtype} {tuple(value.shape)}".encode())
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        content.update(value if isinstance(value, bytes) else repr(value).encode())
