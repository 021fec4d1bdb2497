"""Folders of the user: the cache, and where data are looked for."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache for results and checkpoints: `LINFAIR_CACHE`, else `linfair` in `XDG_CACHE_HOME` or ~/.cache."""
    if os.environ.get("LINFAIR_CACHE"):
        return Path(os.environ["LINFAIR_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "linfair"


def data_folders(root: str | Path | None = None) -> list[Path]:
    """Where data are looked for, in this order: a given folder, `LINFAIR_DATA`, `data` in the user's cache folder.

    A given folder is the only one.
    """
    if root is not None:
        return [Path(root).expanduser()]
    named = [Path(os.environ["LINFAIR_DATA"]).expanduser()] if os.environ.get("LINFAIR_DATA") else []
    return [*named, cache_folder() / "data"]
