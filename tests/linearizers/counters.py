"""Counters of ReLUs, and an accuracy, that know nothing of masks: oracles of the table of cases."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from linfair import gates
from linfair.data import GroupedData


def relu_elements(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Scalar ReLUs of one forward pass of an ungated network, counted by hooks on its ReLU modules."""
    found = []
    relus = [module for module in network.modules() if isinstance(module, nn.ReLU)]
    handles = [relu.register_forward_hook(lambda _m, _a, out: found.append(out.numel())) for relu in relus]
    with torch.no_grad():
        network(torch.randn(1, *shape))
    for handle in handles:
        handle.remove()
    return sum(found)


def evaluated_relus(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Units of one forward pass that turn -1 into 0; all others must return it. Every gate's input is set to -1."""
    found: dict[str, int] = {}

    def minus_one(_gate: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (torch.full_like(inputs[0], -1.0),)

    def count(site: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(_gate: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
            assert site not in found, "a site was called twice"
            assert ((output == 0) | (output == -1)).all()
            found[site] = int((output == 0).sum())

        return hook

    handles = []
    for site, gate in gates.sites(network).items():
        handles += [gate.register_forward_pre_hook(minus_one), gate.register_forward_hook(count(site))]
    with torch.no_grad():
        network(torch.randn(1, *shape))
    for handle in handles:
        handle.remove()
    return found


class NoReLU(TorchDispatchMode):
    """Fails on every ReLU that is computed as one, outside a gate."""

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        """Let everything else pass."""
        assert "relu" not in str(func).replace("prelu", ""), f"{func} outside a gate"
        return func(*args, **(kwargs or {}))


def share_right(network: nn.Module, data: GroupedData, split: str) -> float:
    """Accuracy by plain forward passes, averaged over the data set's shifts (by rolling: digits have an empty rim)."""
    part, right = data.splits[split], []
    with torch.no_grad():
        for shift in data.views:
            x = data.normalise(part.x.roll(shift, dims=(-2, -1)))
            right.append((network.eval()(x).argmax(1) == part.y).float().mean().item())
    return sum(right) / len(right)
