"""Nonlinearities as operators: which of torch's operators are ReLUs, and what the others cost private inference.

Linear layers are cheap on secret shares; whatever compares, divides, takes roots or exponentials is paid for by each
scalar. `_TABLE` is the closed list of operators that are counted, by their names in torch's own library (`aten`), to
which modules, functions and methods all come down. Sums, products, averages and batch norm with running statistics are
not in it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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


def _each(kind: str, comparisons: int = 0) -> Callable[..., Found]:
    """So many comparisons for every scalar of the input."""
    return lambda args, out: (kind, args[0].numel(), comparisons * args[0].numel())


def _made(kind: str, comparisons: int = 0) -> Callable[..., Found]:
    """So many comparisons for every scalar of the output."""
    return lambda args, out: (kind, out.numel(), comparisons * out.numel())


def _extreme(kind: str) -> Callable[..., Found]:
    """The largest or smallest of several values."""

    def found(args: Sequence[object], out: object) -> Found:
        units = (out[0] if isinstance(out, tuple) else out).numel()
        return kind, units, args[0].numel() - units

    return found


def _window(sides: int, args: Sequence[object], out: tuple[Tensor, ...]) -> Found:
    """Max pooling: a window of k values for each output."""
    kernel = args[1] if isinstance(args[1], list | tuple) else [args[1]]
    size = math.prod(kernel) ** (sides // len(kernel))
    return "MaxPool", out[0].numel(), out[0].numel() * (size - 1)


def _adaptive(sides: int, args: Sequence[object], out: tuple[Tensor, ...]) -> Found:
    """Adaptive max pooling: of n values along a side, output i of m sees floor(i n / m) to ceil((i + 1) n / m)."""
    compared = math.prod(out[0].shape[:-sides])
    for n, m in zip(args[0].shape[-sides:], out[0].shape[-sides:], strict=True):
        compared *= sum(-(-(i + 1) * n // m) - i * n // m for i in range(m))
    return "AdaptiveMaxPool", out[0].numel(), compared - out[0].numel()


def _batch_norm(args: Sequence[object], out: object) -> Found:
    """Only with the statistics of the batch or the instance: with running ones it is linear."""
    training = next((value for value in args[3:] if isinstance(value, bool)), False)
    return "BatchStatistics", args[0].numel() * training, 0


def _attention(args: Sequence[object], out: object) -> Found:
    return "Softmax", math.prod(args[0].shape[:-1]) * args[1].shape[-2], 0


def _heads(args: Sequence[object], out: object) -> Found:
    return "Softmax", args[0].shape[0] * args[4] * args[0].shape[1] * args[1].shape[1], 0


def _power(args: Sequence[object], out: Tensor) -> Found:
    whole = isinstance(args[1], int | float) and args[1] >= 0 and float(args[1]).is_integer()
    return "Power", 0 if whole else out.numel(), 0


def _division(args: Sequence[object], out: Tensor) -> Found:
    """One reciprocal for each scalar of the divisor, an expanded one once."""
    sides = zip(args[1].shape, args[1].stride(), strict=True) if isinstance(args[1], Tensor) else [(0, 1)]
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
    **{f"max_pool{n}d_with_indices": partial(_window, n) for n in (2, 3)},
    **{f"fractional_max_pool{n}d": partial(_window, n) for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": partial(_adaptive, n) for n in (2, 3)},
    **{f"_scaled_dot_product_{end}": _attention for end in (*_SDPA, "fused_attention_overrideable")},
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    **{"_batch_norm_with_update": _batch_norm, "_native_multi_head_attention": _heads, "pow": _power, "div": _division},
    # three sigmoids and two tanhs for each output
    **dict.fromkeys(("mkldnn_rnn_layer", "_thnn_fused_lstm_cell"), lambda args, out: ("LSTM", 5 * out[0].numel(), 0)),
    "elu": lambda args, out: ("SELU" if len(args) > 2 and args[2] != 1 else "ELU", out.numel(), out.numel()),
    "hardtanh": lambda args, out: ("ReLU6" if is_relu6("hardtanh", args) else "Hardtanh", out.numel(), 2 * out.numel()),
    "clamp": lambda args, out: ("Clamp", out.numel(), out.numel() * sum(value is not None for value in args[1:3])),
}


def name_of(operator: object) -> str:
    """An operator's name without library, overload and the mark of working in place: `relu` of `aten::relu_`."""
    name = operator._schema.name.partition("::")[2]
    return name.rstrip("_") if not name.endswith("__") else name


def counted(operator: object, args: Sequence[object], out: object) -> Found | None:
    """Kind, units and comparisons of one operator, or None for one that private inference does not pay for."""
    rule = _TABLE.get(name_of(operator))
    if rule is None or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None
    return rule(args, out)


_RELUS: dict[str, Callable[..., bool]] = {
    "relu": lambda x, *_: True,
    "clamp": lambda x, low=None, high=None: _zero(low) and not isinstance(high, Tensor) and high in (math.inf, None),
    "clamp_min": lambda x, low=None: _zero(low),
    "hardtanh": lambda x, low=-1, high=1: _zero(low) and high == math.inf,
    "leaky_relu": lambda x, slope=0.01: _zero(slope),
    "elu": lambda x, alpha=1, scale=1, *_: _zero(alpha) and scale == 1,
    "threshold": lambda x, threshold=None, value=None: _zero(threshold) and _zero(value),
    **dict.fromkeys(("maximum", "fmax"), lambda x, y=None: isinstance(y, Tensor) and (_zero(x) or _zero(y))),
}


def is_relu(name: str, args: Sequence[object]) -> bool:
    """Whether an operator, by its name and arguments, is the ReLU: max(x, 0) in whatever spelling."""
    return name in _RELUS and _RELUS[name](*args)


def is_relu6(name: str, args: Sequence[object]) -> bool:
    """Whether an operator is the ReLU6, min(max(x, 0), 6)."""
    bounds = args[1:3] if name in ("clamp", "hardtanh") else ()
    return len(bounds) == 2 and _zero(bounds[0]) and not isinstance(bounds[1], Tensor) and bounds[1] == 6


def _zero(value: object) -> bool:
    """The number 0, or a tensor of nothing else."""
    if isinstance(value, Tensor):
        return value.numel() > 0 and not bool(value.any())
    return value is not None and value == 0
