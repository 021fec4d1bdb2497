"""Where a command writes: tried before anything is computed, and its own until the command ends."""

import os
from contextlib import ExitStack
from pathlib import Path

HELD = ExitStack()  #: What the running command holds; `linfair.cli.main` lets it go


def output(option: str, path: str | Path, *suffixes: str, alone: bool = True) -> Path:
    """The folder, or with `suffixes` the file, that an option names; refused where nothing can be written.

    With `alone` it is refused, too, while another command writes there.
    """
    from linfair.paths import writable
    from linfair.study.jobs import Claimed, held

    place = HELD.enter_context(writable(path, option, suffixes))
    folder, name = (place.parent, place.name) if suffixes else (place, "linfair")
    try:
        if alone and os.name == "posix":
            HELD.enter_context(held(folder, f".{name}"))
    except Claimed as owner:
        why = f"is being written by another command ({owner})"
        raise ValueError(f"{option} {place} {why}; wait until it ends, or name another place") from None
    return place


def cache(folder: str | Path | None = None) -> Path:
    """The cache folder, by default the user's, in the same way."""
    from linfair.paths import cache_folder

    return output("--cache" if folder else "the cache, see LINFAIR_CACHE,", folder or cache_folder(), alone=False)
