"""What a computation runs on: its name, its memory, and its precision.

What is measured never runs in TF32, bfloat16 products or autocast, in whose rounding small differences between groups
drown; training uses TF32 only where its `Schedule` says so.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import backends

_OPERATIONS = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
_OPERATIONS += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]


def has_amx() -> bool:
    """Whether torch uses a CPU's tile registers."""
    return torch.cpu._is_amx_tile_supported() and backends.cpu.get_cpu_capability() != "DEFAULT"


def bf16_is_fast(device: str) -> bool:
    """Whether hardware is built for products of bfloat16: a GPU from Ampere on, a CPU with AMX or AVX-512 BF16."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return has_amx() or (torch.cpu._is_avx512_bf16_supported() and backends.cpu.get_cpu_capability() != "DEFAULT")


def device_name(device: str) -> str:
    """The device in words: the GPU's name, or the CPU's kind, the instructions torch uses there, and the threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {count} thread{'s' * (count > 1)})"


def check_device(device: str) -> None:
    """Refuse a GPU where torch sees none."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use device='cpu'")


def watch_memory(device: str) -> None:
    """Start measuring the peak memory of a GPU anew."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> float:
    """Peak memory in MiB: of tensors on the GPU since `watch_memory`, or of the whole process on a CPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # on Windows
        return torch.nan
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """Compute products of float32 numbers in float32, or on a GPU in TF32; the settings before come back at the end."""
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
