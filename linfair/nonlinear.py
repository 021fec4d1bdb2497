"""Nonlinearities as operators: which of torch's operators are ReLUs, and what the others cost private inference.

Linear layers are cheap on secret shares; whatever compares, divides, takes roots or exponentials is paid for by each
scalar: `counted` has the closed list, by names in torch's own library (`aten`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from linfair.names import some


@dataclass(frozen=True)
class Nonlinearity:
    """All operators of one kind in one network, counted for one input, and the names of the modules that compute them.

    Units are the scalars computed, of a pooling layer its outputs; the largest of k values is k - 1 comparisons, smooth
    functions count none.
    """

    kind: str
    units: int
    comparisons: int
    modules: tuple[str, ...]

    def __str__(self) -> str:
        pools = self.kind in ("MaxPool", "AdaptiveMaxPool", "Max", "Min")
        more = f" outputs ({self.comparisons / max(self.units, 1):.3g} comparisons each)" if pools else ""
        return f"{self.units:,} {self.kind}{more} in {some(self.modules, 3)}"


def _table(*rows: tuple[int, dict[str, str]]) -> dict[str, tuple[str, int]]:
    """Operator -> kind and comparisons of each scalar."""
    return {name: (kind, n) for n, kinds in rows for kind, names in kinds.items() for name in names.split()}


_SMOOTH = (
    "sqrt rsqrt reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan sinh cosh asin acos atan asinh acosh atanh "
    "erf erfc erfinv digamma lgamma logit"
)
_GIVEN = _table(
    (1, {"LeakyReLU": "leaky_relu", "PReLU": "_prelu_kernel", "RReLU": "rrelu_with_noise", "CELU": "celu"}),
    (1, {"Threshold": "threshold", "Clamp": "clamp_min clamp_max", "Abs": "abs", "Sign": "sign sgn"}),
    (1, {"Comparison": "heaviside", "Max": "cummax", "Min": "cummin"}),
    (1, {"Rounding": "floor ceil round trunc frac fmod remainder"}),
    (2, {"Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid", "Hardtanh": "hardtanh"}),
    (2, {"Hardshrink": "hardshrink", "Softshrink": "softshrink"}),
    (0, {"GELU": "gelu", "SiLU": "silu", "Mish": "mish", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus"}),
    (0, {"LogSigmoid": "log_sigmoid_forward", "Softmax": "_softmax _safe_softmax", "LogSoftmax": "_log_softmax"}),
    (0, {"LogSumExp": "logsumexp", "LayerNorm": "native_layer_norm", "RMSNorm": "_fused_rms_norm"}),
    (0, {"GroupNorm": "native_group_norm", "Sort": "sort topk median kthvalue"}),
    (0, {"TransformerEncoderLayer": "_transformer_encoder_layer_fwd"} | {one: one for one in _SMOOTH.split()}),
)
"""What is counted by the scalars of the input; `_MADE`: by those of the output."""
_MADE = _table(
    (1, {"Maximum": "maximum fmax", "Minimum": "minimum fmin"}),
    (1, {"Comparison": "gt ge lt le eq ne isclose logical_not"}),
    (0, {"GLU": "glu", "Norm": "linalg_vector_norm std _cdist_forward", "Smooth": "atan2 xlogy logaddexp hypot"}),
)


def name_of(operator: object) -> str:
    """An operator's name without library, overload and the mark of working in place: `relu` of `aten::relu_`."""
    name = operator._schema.name.partition("::")[2]
    return name.rstrip("_") if not name.endswith("__") else name


def counted(name: str, args: Sequence[object], out: object) -> tuple[str, int, int] | None:
    """Kind, units and comparisons of one operator, or None for one that private inference does not pay for."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
        return None
    x, y, first = args[0], args[1] if len(args) > 1 else None, out[0] if isinstance(out, tuple) else out
    units = first.numel() if isinstance(first, Tensor) else 0
    for table, scalars in ((_GIVEN, x.numel()), (_MADE, units)):
        if name in table and not is_relu6(name, args):
            kind, comparisons = table[name]
            return kind, scalars, comparisons * scalars
    match name.removesuffix("_with_indices").replace("3d", "2d"):
        case "hardtanh":
            return "ReLU6", units, 2 * units
        case "elu":
            return "SELU" if len(args) > 2 and args[2] != 1 else "ELU", units, units
        case "clamp":
            return "Clamp", units, units * sum(bound is not None for bound in args[1:3])
        case "max" | "amax" | "argmax" | "aminmax":
            return "Max", units, x.numel() - units
        case "min" | "amin" | "argmin":
            return "Min", units, x.numel() - units
        case "max_pool2d" | "fractional_max_pool2d":  # a window of k values for each output
            kernel = y if isinstance(y, list | tuple) else [y]
            values = math.prod(kernel) ** ((3 if "3d" in name else 2) // len(kernel))
            return "MaxPool", units, units * (values - 1)
        case "adaptive_max_pool2d":  # of n values on a side, output i of m sees floor(i n / m) to ceil((i + 1) n / m)
            compared = math.prod(first.shape[: -len(y)])
            for n, m in zip(x.shape[-len(y) :], first.shape[-len(y) :], strict=True):
                compared *= sum(-(-(i + 1) * n // m) - i * n // m for i in range(m))
            return "AdaptiveMaxPool", units, compared - units
        case "native_batch_norm" | "cudnn_batch_norm" | "_native_batch_norm_legit" | "_batch_norm_with_update":
            training = next((value for value in args[3:] if isinstance(value, bool)), False)
            return "BatchStatistics", x.numel() * training, 0  # with running statistics it is linear
        case "_native_multi_head_attention":
            return "Softmax", x.shape[0] * args[4] * x.shape[1] * y.shape[1], 0
        case "mkldnn_rnn_layer" | "_thnn_fused_lstm_cell":  # three sigmoids and two tanhs for each output
            return "LSTM", 5 * units, 0
        case "pow":
            whole = isinstance(y, int | float) and y >= 0 and float(y).is_integer()
            return "Power", 0 if whole else units, 0
        case "div" if isinstance(y, Tensor):  # one reciprocal for each scalar of the divisor, an expanded one once
            return "Division", math.prod(n for n, stride in zip(y.shape, y.stride(), strict=True) if stride), 0
        case _ if name.startswith("_scaled_dot_product_"):
            return "Softmax", math.prod(x.shape[:-1]) * y.shape[-2], 0
    return None


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
