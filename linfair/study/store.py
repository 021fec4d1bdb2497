"""Where results and checkpoints live: whole files, named by what determines them."""

import errno
import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from linfair.paths import cache_folder, whole


@cache
def code_hash() -> str:
    """SHA-256 (12 hex digits) over the modules that decide a result: a change in them starts a fresh cache."""
    package = Path(__file__).parent.parent
    core = ("gates", "functional", "masks", "ensemble", "models", "training", "divergence")
    measured = ("accuracy", "curvature", "distance", "gradients", "margin", "risk")
    flat = [package / f"{name}.py" for name in core] + [package / "metrics" / f"{name}.py" for name in measured]
    folders = [path for name in ("data", "linearizers", "mitigation") for path in sorted((package / name).glob("*.py"))]
    folders = [path for path in folders if path.stem not in ("counts", "sheets")]  # facts for people
    files = [*flat, *folders, *(package / "study" / f"{name}.py" for name in ("arms", "cells", "grids", "measure"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def key(settings: dict[str, object]) -> str:
    """SHA-256 (16 hex digits) of settings, by their JSON form."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 (16 hex digits) of a network's weights and buffers, names included."""
    content = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        content.update(name.encode())
        content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


class DiskFull(OSError):
    """No space is left for a result or checkpoint; the message says where, and what to free."""


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Turn what the system says when a disk (or a quota) is full into a `DiskFull` that helps."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = getattr(error, "errno", None)
        if code not in (errno.ENOSPC, errno.EDQUOT) and f"os error {errno.ENOSPC}" not in str(error):
            raise
        near = next(folder for folder in (path.parent, *path.parents) if folder.exists())
        free = shutil.disk_usage(near).free / 2**20
        raise DiskFull(
            f"no space left for {path} ({free:.1f} MiB free there). Free some, or set LINFAIR_CACHE to a larger disk "
            f"({cache_folder()} holds checkpoints and may be deleted: they are computed again), then run the same again"
        ) from error


class Tables:
    """Result tables in a folder, or at any fsspec address (`s3://...`, `memory://...`): one Parquet file a name.

    A file that cannot be read is named, moved aside (`.corrupt`) and counts as missing.

    Args:
        place: A folder, `file://` included, or an fsspec address.
    """

    def __init__(self, place: str | Path) -> None:
        system, root = fsspec.core.url_to_fs(str(place))
        self.folder = Path(root) if "file" in _protocols(system) else None
        self.system, self.root, self.place = system, root.rstrip("/"), str(place)

    def names(self) -> list[str]:
        """The names of all tables there, sorted."""
        if self.folder is not None:
            return sorted(path.stem for path in self.folder.glob("*.parquet") if not path.name.startswith("."))
        found = self.system.ls(self.root, detail=False) if self.system.exists(self.root) else []
        files = [str(path).rpartition("/")[2] for path in found]
        return sorted(name.removesuffix(".parquet") for name in files if name.endswith(".parquet"))

    def read(self, name: str, columns: list[str] | None = None) -> pd.DataFrame | None:
        """The rows stored under a name; None if there are none."""
        file = f"{name}.parquet"
        try:
            if self.folder is not None:
                return pd.read_parquet(self.folder / file, columns=columns)
            return pd.read_parquet(io.BytesIO(self.system.cat_file(f"{self.root}/{file}")), columns=columns)
        except FileNotFoundError:
            return None
        except (pyarrow.ArrowInvalid, OSError) as error:
            if self.folder is not None:
                _aside(self.folder / file, error)
            else:
                self.system.mv(f"{self.root}/{file}", f"{self.root}/{file}.corrupt")
                warnings.warn(_set_aside(f"{self.place}/{file}", error), stacklevel=2)
            return None

    def write(self, name: str, rows: pd.DataFrame) -> str:
        """Store rows under a name, whole or not at all; returns where."""
        if self.folder is None:
            content = io.BytesIO()
            rows.to_parquet(content, index=False)
            self.system.pipe_file(f"{self.root}/{name}.parquet", content.getvalue())
            return f"{self.place}/{name}.parquet"
        path = self.folder / f"{name}.parquet"
        with room(path), whole(path) as part:
            rows.to_parquet(part, index=False)
        return str(path)

    def put(self, file: str, content: bytes) -> None:
        """Write a small file beside the tables."""
        if self.folder is None:
            self.system.pipe_file(f"{self.root}/{file}", content)
            return
        with room(self.folder / file), whole(self.folder / file) as part:
            part.write_bytes(content)

    def drop(self, file: str) -> None:
        """Remove such a file, if there is one."""
        if self.folder is not None:
            (self.folder / file).unlink(missing_ok=True)
        elif self.system.exists(f"{self.root}/{file}"):
            self.system.rm_file(f"{self.root}/{file}")

    def texts(self, start: str) -> dict[str, str]:
        """The text files whose names start so, by name."""
        if self.folder is not None:
            return {path.name: path.read_text() for path in sorted(self.folder.glob(f"{start}*.txt"))}
        found = self.system.ls(self.root, detail=False) if self.system.exists(self.root) else []
        files = sorted(str(path).rpartition("/")[2] for path in found)
        chosen = [file for file in files if file.startswith(start) and file.endswith(".txt")]
        return {file: self.system.cat_file(f"{self.root}/{file}").decode() for file in chosen}


def _protocols(system: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


@dataclass(frozen=True)
class ResultStore:
    """Result tables (Parquet) and checkpoints (safetensors); every file appears whole or not at all.

    A file that cannot be read is named, moved aside (`.corrupt`) and counts as missing: its cell is computed again.

    Attributes:
        folder: Where checkpoints lie, in `checkpoints`.
        results: Where tables lie: a folder or fsspec address; None is `results` in the folder.
    """

    folder: Path
    results: str | Path | None = None

    @classmethod
    def default(cls) -> "ResultStore":
        """The store of the present code in the user's cache folder."""
        return cls(cache_folder() / code_hash())

    @property
    def tables(self) -> Tables:
        """The tables of this store."""
        return Tables(self.folder / "results" if self.results is None else self.results)

    def read(self, name: str) -> pd.DataFrame | None:
        """The rows stored under a name; None if there are none."""
        return self.tables.read(name)

    def write(self, name: str, rows: pd.DataFrame) -> Path:
        """Store rows under a name."""
        return Path(self.tables.write(name, rows))

    def load(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, object]] | None:
        """The tensors and notes of a checkpoint; None if there is none."""
        path = self.folder / "checkpoints" / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                notes = json.loads(file.metadata()["notes"])
                return {tensor: file.get_tensor(tensor) for tensor in file.keys()}, notes  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            _aside(path, error)
            return None

    def save(self, name: str, tensors: dict[str, torch.Tensor], notes: dict[str, object]) -> None:
        """Store a checkpoint: tensors, and notes that JSON can hold."""
        path = self.folder / "checkpoints" / f"{name}.safetensors"
        with room(path), whole(path) as part:
            clean = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(clean, part, metadata={"notes": json.dumps(notes)})

    def discard(self, name: str) -> None:
        """Remove a checkpoint, if there is one."""
        (self.folder / "checkpoints" / f"{name}.safetensors").unlink(missing_ok=True)


def _aside(path: Path, error: Exception) -> None:
    path.replace(path.with_name(path.name + ".corrupt"))
    warnings.warn(_set_aside(str(path), error), stacklevel=4)


def _set_aside(path: str, error: Exception) -> str:
    return f"{path} cannot be read ({error}); moved aside, its cell is computed again"
