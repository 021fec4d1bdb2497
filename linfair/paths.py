"""Folders of the user (the cache, and where data are looked for), and files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd


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
