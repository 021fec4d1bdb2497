"""Nonlinearities as operators: which of torch's operators are ReLUs, and what the others cost private inference.

Linear layers are cheap on secret shares; whatever compares, divides, takes roots or exponentials is paid for by each
scalar. `_TABLE` is the closed list of operators that are counted, by their names in torch's own library (`aten`), to
which modules, functions and methods all come down. Sums, products, averages and batch norm with running statistics are
not in it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Nonlinearity:
    """All operators of one kind in one network.

    Attributes:
        kind: `LeakyReLU`, `MaxPool`, `Softmax`, ...
        units: Scalars it computes for one input; the outputs of a pooling layer.
        comparisons: Comparisons for one input, k - 1 for the largest of k values; smooth functions count none.
        modules: Names of the modules that compute it.

    >>> str(Nonlinearity("MaxPool", 512, 1536, ("2",)))
    '512 MaxPool outputs (3 comparisons each) in 2'
    """

    kind: str
    units: int
    comparisons: int
    modules: tuple[str, ...]

    def __str__(self) -> str:
        each = self.comparisons / max(self.units, 1)
        noun = " outputs" if self.kind in _POOLS else ""
        more = f" ({each:.3g} comparisons each)" if noun else ""
        names = ", ".join(self.modules[:3]) + (f" and {len(self.modules) - 3} more" if len(self.modules) > 3 else "")
        return f"{self.units:,} {self.kind}{noun}{more} in {names}"


Found = tuple[str, int, int]
"""Kind, units and comparisons of one operator."""
_POOLS = ("MaxPool", "AdaptiveMaxPool", "Max", "Min")
_INFINITY = (math.inf, None)


def _size(value: object) -> int:
    return value.numel() if isinstance(value, Tensor) else 0


def _each(kind: str, comparisons: int = 0) -> Callable[..., Found]:
    """So many comparisons for every scalar of the input."""
    return lambda args, out: (kind, _size(args[0]), comparisons * _size(args[0]))


def _pair(kind: str) -> Callable[..., Found]:
    """One comparison for every scalar of the output."""
    return lambda args, out: (kind, _size(out), _size(out))


def _extreme(kind: str) -> Callable[..., Found]:
    """The largest or smallest of several values."""

    def found(args: Sequence[object], out: object) -> Found:
        result = out[0] if isinstance(out, tuple) else out
        return kind, _size(result), _size(args[0]) - _size(result)

    return found


def _window(args: Sequence[object], out: tuple[Tensor, ...]) -> Found:
    """Max pooling: a window of k values for each output."""
    sides = out[0].ndim - (2 if out[0].ndim > 3 else 1)
    kernel = list(args[1]) if isinstance(args[1], list | tuple) else [args[1]]
    size = math.prod(kernel * sides if len(kernel) == 1 else kernel)
    return "MaxPool", _size(out[0]), _size(out[0]) * (size - 1)


def _adaptive(args: Sequence[object], out: tuple[Tensor, ...]) -> Found:
    """Adaptive max pooling: of n values along a side, output i of m sees floor(i n / m) to ceil((i + 1) n / m)."""
    sides, compared = len(args[1]), 1
    for n, m in zip(args[0].shape[-sides:], out[0].shape[-sides:], strict=True):
        compared *= sum(-(-(i + 1) * n // m) - i * n // m for i in range(m))
    planes = math.prod(out[0].shape[:-sides])
    return "AdaptiveMaxPool", _size(out[0]), planes * compared - _size(out[0])


def _batch_norm(args: Sequence[object], out: object) -> Found:
    """Only with the statistics of the batch or the instance: with running ones it is linear."""
    training = next((value for value in args[3:] if isinstance(value, bool)), False)
    return "BatchStatistics", _size(args[0]) * training, 0


def _attention(args: Sequence[object], out: object) -> Found:
    query, key = args[0], args[1]
    return "Softmax", math.prod(query.shape[:-1]) * key.shape[-2], 0


def _heads(args: Sequence[object], out: object) -> Found:
    query, key, heads = args[0], args[1], args[4]
    return "Softmax", query.shape[0] * heads * query.shape[1] * key.shape[1], 0


def _gelu_layer(args: Sequence[object], out: object) -> Found:
    return "TransformerEncoderLayer", _size(args[0]), 0


def _recurrent(args: Sequence[object], out: tuple[Tensor, ...]) -> Found:
    return "LSTM", 5 * _size(out[0]), 0  # three sigmoids and two tanhs for each output


def _power(args: Sequence[object], out: Tensor) -> Found:
    whole = isinstance(args[1], int | float) and args[1] >= 0 and float(args[1]).is_integer()
    return "Power", 0 if whole else _size(out), 0


def _division(args: Sequence[object], out: Tensor) -> Found:
    """One reciprocal for each scalar of the divisor, an expanded one once."""
    divisor = args[1]
    if not isinstance(divisor, Tensor):
        return "Division", 0, 0
    sides = zip(divisor.shape, divisor.stride(), strict=True)
    return "Division", math.prod(side for side, stride in sides if stride), 0


def _clamp(args: Sequence[object], out: Tensor) -> Found:
    bounds = sum(value is not None for value in args[1:3])
    return "Clamp", _size(out), bounds * _size(out)


def _hardtanh(args: Sequence[object], out: Tensor) -> Found:
    return "ReLU6" if is_relu6("hardtanh", args) else "Hardtanh", _size(out), 2 * _size(out)


def _elu(args: Sequence[object], out: Tensor) -> Found:
    return "SELU" if len(args) > 2 and args[2] != 1 else "ELU", _size(out), _size(out)


_COMPARE = ("gt", "ge", "lt", "le", "eq", "ne", "isclose", "logical_not")
_ROUND = ("floor", "ceil", "round", "trunc", "frac", "fmod", "remainder")
_SMOOTH = (
    *("sqrt", "rsqrt", "reciprocal", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan"),
    *("sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv", "digamma", "lgamma"),
)
_TABLE: dict[str, Callable[..., Found]] = {
    "leaky_relu": _each("LeakyReLU", 1),
    "_prelu_kernel": _each("PReLU", 1),
    "rrelu_with_noise": _each("RReLU", 1),
    "elu": _elu,
    "celu": _each("CELU", 1),
    "gelu": _each("GELU"),
    "silu": _each("SiLU"),
    "mish": _each("Mish"),
    "hardswish": _each("Hardswish", 2),
    "hardsigmoid": _each("Hardsigmoid", 2),
    "hardtanh": _hardtanh,
    "hardshrink": _each("Hardshrink", 2),
    "softshrink": _each("Softshrink", 2),
    "threshold": _each("Threshold", 1),
    "clamp": _clamp,
    "clamp_min": _each("Clamp", 1),
    "clamp_max": _each("Clamp", 1),
    "sigmoid": _each("Sigmoid"),
    "tanh": _each("Tanh"),
    "softplus": _each("Softplus"),
    "log_sigmoid_forward": _each("LogSigmoid"),
    "glu": lambda args, out: ("GLU", _size(out), 0),
    "_softmax": _each("Softmax"),
    "_safe_softmax": _each("Softmax"),
    "_log_softmax": _each("LogSoftmax"),
    "logsumexp": _each("LogSumExp"),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention": _attention,
    "_scaled_dot_product_efficient_attention": _attention,
    "_scaled_dot_product_cudnn_attention": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_native_multi_head_attention": _heads,
    "_transformer_encoder_layer_fwd": _gelu_layer,
    "mkldnn_rnn_layer": _recurrent,
    "_thnn_fused_lstm_cell": _recurrent,
    "native_layer_norm": _each("LayerNorm"),
    "_fused_rms_norm": _each("RMSNorm"),
    "native_group_norm": _each("GroupNorm"),
    "native_batch_norm": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_batch_norm_with_update": _batch_norm,
    "abs": _each("Abs", 1),
    "sign": _each("Sign", 1),
    "sgn": _each("Sign", 1),
    "heaviside": _each("Comparison", 1),
    "maximum": _pair("Maximum"),
    "fmax": _pair("Maximum"),
    "minimum": _pair("Minimum"),
    "fmin": _pair("Minimum"),
    "max": _extreme("Max"),
    "amax": _extreme("Max"),
    "argmax": _extreme("Max"),
    "min": _extreme("Min"),
    "amin": _extreme("Min"),
    "argmin": _extreme("Min"),
    "aminmax": _extreme("Max"),
    "sort": _each("Sort"),
    "topk": _each("Sort"),
    "median": _each("Sort"),
    "kthvalue": _each("Sort"),
    "cummax": _each("Max", 1),
    "cummin": _each("Min", 1),
    "max_pool2d_with_indices": _window,
    "max_pool3d_with_indices": _window,
    "fractional_max_pool2d": _window,
    "fractional_max_pool3d": _window,
    "adaptive_max_pool2d": _adaptive,
    "adaptive_max_pool3d": _adaptive,
    "linalg_vector_norm": lambda args, out: ("Norm", _size(out), 0),
    "std": lambda args, out: ("Norm", _size(out), 0),
    "_cdist_forward": lambda args, out: ("Norm", _size(out), 0),
    "pow": _power,
    "div": _division,
    "atan2": lambda args, out: ("Smooth", _size(out), 0),
    **{name: _pair("Comparison") for name in _COMPARE},
    **{name: _each(name) for name in _SMOOTH},
    **{name: _each("Rounding", 1) for name in _ROUND},
}


def name_of(operator: object) -> str:
    """An operator's name without library, overload and the mark of working in place.

    >>> import torch
    >>> name_of(torch.ops.aten.relu_.default)
    'relu'
    """
    name = operator._schema.name.partition("::")[2]
    return name.rstrip("_") if not name.endswith("__") else name


def counted(operator: object, args: Sequence[object], out: object) -> Found | None:
    """Kind, units and comparisons of one operator, or None for one that private inference does not pay for."""
    rule = _TABLE.get(name_of(operator))
    if rule is None or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None
    return rule(args, out)


def is_relu(name: str, args: Sequence[object]) -> bool:
    """Whether an operator, by its name and arguments, is the ReLU: max(x, 0) in whatever spelling.

    >>> import torch
    >>> is_relu("clamp", [torch.ones(1), 0]), is_relu("clamp", [torch.ones(1), 0, 6])
    (True, False)
    """
    x, *rest = [*args, None, None]
    if name == "relu":
        return True
    if name == "clamp":
        return _zero(rest[0]) and not isinstance(rest[1], Tensor) and rest[1] in _INFINITY
    if name == "hardtanh":
        return len(args) > 2 and _zero(rest[0]) and rest[1] == math.inf
    if name in ("clamp_min", "leaky_relu"):
        return len(args) > 1 and _zero(rest[0])
    if name == "elu":
        return _zero(rest[0]) and rest[1] in (None, 1)
    if name == "threshold":
        return _zero(rest[0]) and _zero(rest[1])
    if name in ("maximum", "fmax"):
        return isinstance(rest[0], Tensor) and (_zero(x) or _zero(rest[0]))
    return False


def is_relu6(name: str, args: Sequence[object]) -> bool:
    """Whether an operator is the ReLU6, min(max(x, 0), 6)."""
    if name not in ("clamp", "hardtanh") or len(args) < 3:
        return False
    return _zero(args[1]) and not isinstance(args[2], Tensor) and args[2] == 6


def _zero(value: object) -> bool:
    """The number 0, or a tensor of nothing else."""
    if isinstance(value, Tensor):
        return value.numel() > 0 and not bool(value.any())
    return value is not None and value == 0
