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


def _made(kind: str, comparisons: int = 0) -> Callable[..., Found]:
    """So many comparisons for every scalar of the output."""
    return lambda args, out: (kind, _size(out), comparisons * _size(out))


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
    return "Softmax", math.prod(args[0].shape[:-1]) * args[1].shape[-2], 0


def _heads(args: Sequence[object], out: object) -> Found:
    query, key, heads = args[0], args[1], args[4]
    return "Softmax", query.shape[0] * heads * query.shape[1] * key.shape[1], 0


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


def _named(rule: Callable[..., Callable[..., Found]], *comparisons: int, **kinds: str) -> dict[str, Callable]:
    """The same rule for several kinds, each with the names of its operators."""
    return {name: rule(kind, *comparisons) for kind, names in kinds.items() for name in names.split()}


_SMOOTH = (
    "sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh asin acos atan asinh acosh atanh "
    "erf erfc erfinv digamma lgamma"
)
_SDPA = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
_TABLE: dict[str, Callable[..., Found]] = {
    **_named(_each, 1, LeakyReLU="leaky_relu", PReLU="_prelu_kernel", RReLU="rrelu_with_noise", CELU="celu"),
    **_named(_each, 1, Threshold="threshold", Clamp="clamp_min clamp_max", Abs="abs", Sign="sign sgn"),
    **_named(_each, 1, Comparison="heaviside", Max="cummax", Min="cummin"),
    **_named(_each, 1, Rounding="floor ceil round trunc frac fmod remainder"),
    **_named(_each, 2, Hardswish="hardswish", Hardsigmoid="hardsigmoid", Hardshrink="hardshrink"),
    **_named(_each, 2, Softshrink="softshrink"),
    **_named(_each, GELU="gelu", SiLU="silu", Mish="mish", Sigmoid="sigmoid", Tanh="tanh", Softplus="softplus"),
    **_named(_each, LogSigmoid="log_sigmoid_forward", Softmax="_softmax _safe_softmax", LogSoftmax="_log_softmax"),
    **_named(_each, LogSumExp="logsumexp", LayerNorm="native_layer_norm", RMSNorm="_fused_rms_norm"),
    **_named(_each, GroupNorm="native_group_norm", Sort="sort topk median kthvalue"),
    **_named(_each, TransformerEncoderLayer="_transformer_encoder_layer_fwd", **{one: one for one in _SMOOTH.split()}),
    **_named(_made, 1, Maximum="maximum fmax", Minimum="minimum fmin"),
    **_named(_made, 1, Comparison="gt ge lt le eq ne isclose logical_not"),
    **_named(_made, GLU="glu", Norm="linalg_vector_norm std _cdist_forward", Smooth="atan2"),
    **_named(_extreme, Max="max amax argmax aminmax", Min="min amin argmin"),
    **{f"max_pool{end}_with_indices": _window for end in ("2d", "3d")},
    **{f"fractional_max_pool{end}": _window for end in ("2d", "3d")},
    **{f"adaptive_max_pool{end}": _adaptive for end in ("2d", "3d")},
    **{f"_scaled_dot_product_{end}": _attention for end in (*_SDPA, "fused_attention_overrideable")},
    **{name: _batch_norm for name in ("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit")},
    "_batch_norm_with_update": _batch_norm,
    "_native_multi_head_attention": _heads,
    # three sigmoids and two tanhs for each output
    **{
        name: lambda args, out: ("LSTM", 5 * _size(out[0]), 0) for name in ("mkldnn_rnn_layer", "_thnn_fused_lstm_cell")
    },
    "elu": lambda args, out: ("SELU" if len(args) > 2 and args[2] != 1 else "ELU", _size(out), _size(out)),
    "hardtanh": lambda args, out: ("ReLU6" if is_relu6("hardtanh", args) else "Hardtanh", _size(out), 2 * _size(out)),
    "clamp": lambda args, out: ("Clamp", _size(out), _size(out) * sum(value is not None for value in args[1:3])),
    "pow": _power,
    "div": _division,
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
