"""Folders of the user (the cache, and where data are looked for), and files that appear whole or not at all."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary name in the file's folder, made if missing; it becomes the file only when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unfit(path: str | Path, most: int = 2**40) -> str | None:
    """Why a user's path is not a regular file of at most so many bytes that may be read; None if it is one.

    >>> unfit("/dev/null"), unfit("/"), unfit("/no/such/file")
    ('is a device, not a file', 'is a folder, not a file', 'does not exist')
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            return f"is {_KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file"
        os.close(os.open(path, os.O_RDONLY))
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return f"has {found.st_size:,} bytes, and at most {most:,} are read" if found.st_size > most else None


def save_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as Parquet; the file appears whole or not at all."""
    with whole(path) as part:
        table.to_parquet(part, index=False)
    return Path(path)


def cache_folder() -> Path:
    """The user's cache for results and checkpoints: `LINFAIR_CACHE`, else `linfair` in `XDG_CACHE_HOME` or ~/.cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "linfair")
    return Path(os.environ.get("LINFAIR_CACHE") or usual).expanduser()


def data_folders(root: str | Path | None = None) -> list[Path]:
    """Where data are looked for: in a given folder alone, else in `LINFAIR_DATA`, then `data` in the cache folder."""
    folders = [os.environ.get("LINFAIR_DATA"), cache_folder() / "data"] if root is None else [root]
    return [Path(one).expanduser() for one in folders if one]
