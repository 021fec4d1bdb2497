"""Claims: two runners on one folder do not do the same work, and what a dead one had claimed is free at once.

A claim is a small file with the owner's process, host and start; the owner touches it every few seconds. It is taken
over when its process is gone (same host), or when it has not been touched for two minutes (another host). All changes
happen under one lock of the operating system, so that a claim has one owner at any time.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BEAT = 10.0  # seconds between touches
STALE = 120.0  # seconds without one after which another host's claim is void


class Claimed(RuntimeError):
    """Somebody else is at it; the message says who."""


@dataclass(frozen=True)
class Claim:
    """One claim of this process; release it when the work is done."""

    path: Path

    def release(self) -> None:
        """Give it up, if it is still this process's."""
        with _exclusive(self.path.parent):
            if _owner(self.path).get("pid") == os.getpid():
                self.path.unlink(missing_ok=True)


def claim(folder: str | Path, name: str) -> Claim:
    """Claim a piece of work.

    Args:
        folder: Where claims lie.
        name: The work's name.

    Raises:
        Claimed: If a living process has claimed it.
    """
    path = Path(folder) / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(path.parent):
        owner = _owner(path)
        if owner and _alive(owner, path):
            raise Claimed(f"process {owner['pid']} on {owner['host']}")
        pid = os.getpid()
        path.write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "started": started(pid)}))
    return Claim(path)


@contextmanager
def held(folder: str | Path, name: str) -> Iterator[Claim]:
    """A claim that is touched while the block runs, and released after it.

    Raises:
        Claimed: If a living process has claimed it.
    """
    mine, over = claim(folder, name), threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with suppress(OSError):
                os.utime(mine.path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield mine
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            mine.release()


def started(pid: int) -> str | None:
    """When a process of this host started, as the system counts it; None if it is gone (a zombie is).

    Numbers are used again: a process that started at another time is another one. Where the system has no /proc, the
    answer is the same for every living process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"


def _alive(owner: dict, path: Path) -> bool:
    if owner["host"] == socket.gethostname():
        return started(owner["pid"]) == owner["started"] is not None
    return time.time() - path.stat().st_mtime < STALE


def _owner(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
        return found if {"pid", "host", "started"} <= set(found) else {}
    except (OSError, ValueError):  # none, or one that was cut off while it was written
        return {}


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    import fcntl  # not on every system; only runners need it

    with (folder / "mutex").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
