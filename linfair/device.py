"""What a computation runs on: its name, its memory, and whether bfloat16 is fast there."""

import math
import platform

import torch


def bf16_is_fast(device: str) -> bool:
    """Whether hardware is built for products of bfloat16: a GPU from Ampere on, or a CPU with AMX."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() and torch.backends.cpu.get_cpu_capability() != "DEFAULT"


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
        return math.nan
    unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
