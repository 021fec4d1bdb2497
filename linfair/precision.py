"""Float32 means float32: what is measured never runs in TF32, bfloat16 products or autocast.

A GPU's convolutions take TF32, ten bits of mantissa, unless told otherwise; on a CPU `set_float32_matmul_precision` may
choose bfloat16. Curvatures and small differences between groups drown in that rounding, so metrics, exact gradients and
theory switch it off by `full_precision`; training uses TF32 only where its `Schedule` says so.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import backends

_OPERATIONS = (
    *(backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn),
    *(backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
)


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """Compute products of float32 numbers in float32, or on a GPU in TF32; the settings before come back at the end.

    >>> with products(tf32=False):
    ...     torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    (False, 'highest')
    """
    old = [operation.fp32_precision for operation in _OPERATIONS]
    try:
        legacy = torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    except RuntimeError:  # set by operation: then `old` says it all
        legacy = None
    try:
        _set("high" if tf32 else "highest", tf32, tf32)
        for operation in () if tf32 else _OPERATIONS:
            operation.fp32_precision = "ieee"  # whatever torch.backends.fp32_precision says
        yield
    finally:
        if legacy is not None:
            _set(*legacy)
        for operation, value in zip(_OPERATIONS, old, strict=True):
            operation.fp32_precision = value


def _set(products: str, matmul: bool, convolutions: bool) -> None:
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = matmul, convolutions
    torch.set_float32_matmul_precision(products)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in the precision of the tensors: no TF32, no autocast. Also a decorator, `@full_precision()`."""
    with products(tf32=False), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
