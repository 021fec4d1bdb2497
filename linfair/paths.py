"""Folders of the user (the cache, and where data are looked for), and files that appear whole or not at all."""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def named(path: str | Path, what: str) -> Path:
    """A path as it was typed, with `~` expanded; a ValueError says what stands for it if it can be none."""
    text = str(path).removeprefix("file://")
    with suppress(RuntimeError):  # `~` before the name of nobody
        if text.strip() and "\0" not in text and "://" not in text:
            return Path(text).expanduser()
    raise ValueError(f"{what} {text!r} names no place on this machine; give a path, such as ./results or ~/results")


@contextmanager
def writable(path: str | Path, what: str, suffixes: Sequence[str] = ()) -> Iterator[Path]:
    """A folder, or a file with one of these endings, where writing was tried; new folders go with an error."""
    place = named(path, what)
    folder, name = (place.parent, place.name) if suffixes else (place, "")
    if suffixes and place.suffix not in suffixes:
        raise ValueError(f"{what} {place}: the name must end in {' or '.join(suffixes)}")
    if os.path.lexists(place) and not (place.is_file() if suffixes else place.is_dir()):
        why = (unfit(place) or "is a file").replace("does not exist", "is a link to nothing")
        raise ValueError(f"{what} {place} {why}; name a {'file' if suffixes else 'folder, it is made if missing'}")
    made = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("wb", 0, prefix=f".{name}", suffix=".sha256.part", dir=folder) as file:
                file.write(bytes(4096))
        except OSError as error:
            raise ValueError(f"{what} {place} cannot be written ({error.strerror}); name another place") from error
        yield place
    except Exception:
        for one in made:
            with suppress(OSError):  # it holds something
                one.rmdir()
        raise


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
    """Why a user's path is not a regular file of at most so many bytes that may be read; None if it is one."""
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
    """Write a table as Parquet, or to a name in `.csv` as text; the file appears whole or not at all."""
    with whole(path) as part:
        (table.to_csv if Path(path).suffix == ".csv" else table.to_parquet)(part, index=False)
    return Path(path)


def cache_folder() -> Path:
    """The user's cache for results and checkpoints: `LINFAIR_CACHE`, else `linfair` in `XDG_CACHE_HOME` or ~/.cache."""
    own, usual = os.environ.get("LINFAIR_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return named(own, "LINFAIR_CACHE") if own else named(usual or "~/.cache", "XDG_CACHE_HOME") / "linfair"


def data_folders(root: str | Path | None = None) -> list[Path]:
    """Where data are looked for: in a given folder alone, else in `LINFAIR_DATA`, then `data` in the cache folder."""
    if root is not None:
        return [named(root, "the folder of the data,")]
    own = os.environ.get("LINFAIR_DATA")
    return [*([named(own, "LINFAIR_DATA")] if own else []), cache_folder() / "data"]
