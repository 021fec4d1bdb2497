"""Batch norm in evaluation mode as a scale and a shift.

With running mean m and variance v fixed,

    gamma (x - m) / sqrt(v + eps) + beta = s x + t,    s = gamma / sqrt(v + eps),    t = beta - s m.

The Taylor expansion of Theorem 4.4 (Das et al., ICML 2024) sees parameters only; m and v are not parameters, though
fine-tuning moves them and with them the function. Folded into s and t, they are.
"""

import copy

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from linfair.gates import ReLUGate, SharedGates

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Affine(nn.Module):
    """One scale and one shift for each channel, x of shape (n, channels, ...) -> scale x + shift."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift the channels."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return self.scale.view(shape) * x + self.shift.view(shape)


class _Vectors(nn.Identity):  # stands where a norm was that is folded into a linear layer
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:  # tracing does not see shapes
            text = f"a linear layer and its batch norm were folded for inputs (n, features), not {tuple(x.shape)}: "
            raise ValueError(f"{text}here the norm scales axis 1, the layer's features are the last")
        return x


class _Tracer(fx.Tracer):  # records calls of layers and gates without looking inside
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ReLUGate | SharedGates) or super().is_leaf_module(module, name)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Copy a network, gated or not, in evaluation mode, with every batch norm folded; it computes the same.

    A batch norm goes into the convolution or linear layer before it where that layer's output goes nowhere else, nobody
    reads its weights and torch.fx can trace the network; any other becomes an `Affine` layer under its name. A norm
    without running statistics or with a forward of its own, which is no fixed scale and shift, raises a ValueError.

    >>> folded = fold_batch_norm(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)))
    >>> [name for name, _ in folded.named_parameters()]
    ['0.weight', '0.bias']
    """
    folded = copy.deepcopy(network).eval()
    norms = {name: module for name, module in folded.named_modules() if isinstance(module, _NORMS)}

    def put(old: nn.Module, new: nn.Module) -> None:  # under all names that a module has
        for name in [name for name, one in folded.named_modules(remove_duplicate=False) if one is old]:
            folded.set_submodule(name, new)

    before = _layers_before(folded) if norms else {}
    for name, norm in norms.items():
        if norm.running_mean is None:
            text = f"{name or type(norm).__name__} normalises with the statistics of the batch, so it has no fixed "
            raise ValueError(f"{text}scale and shift to fold; use track_running_stats=True")
        if type(norm).forward is not nn.modules.batchnorm._BatchNorm.forward:
            text = f"{name or 'it'} is a batch norm with a forward of its own, {type(norm).__name__}, and a scale and "
            raise ValueError(f"{text}a shift need not compute the same; use nn.BatchNorm2d and other layers")
        if (layer := before.get(name)) is None:
            scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.detach())
            shift = -norm.running_mean * scale + (0 if norm.bias is None else norm.bias.detach())
            put(norm, Affine(scale, shift))
        else:
            module = folded.get_submodule(layer)
            linear = isinstance(module, nn.Linear)
            put(module, (fuse_linear_bn_eval if linear else fuse_conv_bn_eval)(module, norm))
            put(norm, _Vectors() if linear else nn.Identity())
    return folded


def _layers_before(network: nn.Module) -> dict[str, str]:
    """Name of a batch norm -> name of the layer it can be folded into."""
    try:
        graph = _Tracer().trace(network)
    except Exception:  # tracing runs the user's forward: anything can be raised; Affine is right for every network
        return {}
    modules = dict(network.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    called, found = [node.target for node in calls], {}
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}  # by their weights
    for node in calls:
        norm, source = modules[node.target], next(iter(node.args), None)
        if not isinstance(norm, _NORMS) or source not in calls or len(source.users) > 1:
            continue
        layer = modules[source.target]
        kind = type(layer)  # a subclass may use its weights in another way
        linear = kind is nn.Linear and isinstance(norm, nn.BatchNorm1d) and layer.out_features == norm.num_features
        alone = source.target not in read and called.count(source.target) == 1 == called.count(node.target)
        if alone and (kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d) or linear):
            found[node.target] = source.target
    return found
