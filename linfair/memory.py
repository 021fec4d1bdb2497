"""Memory of a process that computes; without torch, whose import takes longer than a short command."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep what this process frees for the next tensor; whether it does, which it cannot on other systems.

    By default a block above 32 MiB goes back at once, and the next one is made of new, zeroed pages. The process holds
    its peak until it ends, so this is for the `linfair` command and for workers, never for an import.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
