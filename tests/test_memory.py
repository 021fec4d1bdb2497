"""Memory of a process that computes."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from linfair.memory import keep_freed_memory

kept = "keep" in sys.argv and keep_freed_memory()
torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(2**24)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*words: str) -> tuple[int, int]:
    """Whether memory is kept, and the pages that 40 tensors of 64 MiB need, in a process of their own."""
    command = [sys.executable, "-c", FAULTS, *words]
    kept, pages = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    return kept, pages


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has mallopt")
def test_freed_memory_is_used_again() -> None:
    """The oracle is the system's count: every tensor is made of new pages by default, a few of them if pages are kept.

    The sizes of pages, 4 KiB or 2 MiB, are the system's, so the two counts are compared.
    """
    (kept, few), (_, many) = faults("keep"), faults()
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert few < many / 2
