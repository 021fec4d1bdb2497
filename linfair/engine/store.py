"""Where results and checkpoints live: whole files, named by what determines them, that know what they hold.

Every file carries its own name and a SHA-256 over that name and its content. What is read and does not match (flipped
bytes, another file copied over it, rows cut off by another tool, a file without a digest) is *damaged*: it is set aside
as `FILE.damaged-1`, said in one line, and counts as missing, so that it is computed anew.
"""

import errno
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from linfair.engine.damage import MARK, checked_rows, rows_digest, set_aside, tensors_digest, unlike_digest
from linfair.linearizers.registry import ALIASES
from linfair.paths import cache_folder, whole


@cache
def code_hash() -> str:
    """SHA-256 (12 hex digits) over the modules that decide a result: a change in them starts a fresh cache."""
    package = Path(__file__).parent.parent
    names = ["callsites", "device", "gates", "functional", "nonlinear", "masks", "ensemble", "models"]
    names += ["names", "resume", "schedule", "training"]
    measured = ("accuracy", "curvature", "distance", "gradients", "margin", "measure", "risk")
    names += [*(f"metrics/{name}" for name in measured), "engine/stages", "study/arms", "study/cell", "study/grids"]
    files = [path for name in ("data", "linearizers", "mitigation") for path in sorted((package / name).glob("*.py"))]
    files = [path for path in files if path.stem not in ("choose", "describe", "torchvision")]
    files += [package / f"{name}.py" for name in names]
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

    A damaged file is named, set aside and counts as missing. A table that carries a digest must match it. A table
    without one, written by an older linfair or another tool, is damaged where its name is an arm's, made by `key`;
    under any other name, as those of `book/results`, it is read as it is.
    """

    def __init__(self, place: str | Path) -> None:
        system, root = fsspec.core.url_to_fs(str(place))
        self.folder = Path(root) if isinstance(system, LocalFileSystem) else None
        self.system, self.root, self.place = system, root.rstrip("/"), str(place)

    def _files(self) -> list[str]:
        found = self.system.ls(self.root, detail=False) if self.system.exists(self.root) else []
        return sorted(name for path in found if not (name := str(path).rpartition("/")[2]).startswith("."))

    def names(self) -> list[str]:
        """The names of all tables there, sorted."""
        return [name.removesuffix(".parquet") for name in self._files() if name.endswith(".parquet")]

    def read(self, name: str, *, strict: bool | None = None) -> pd.DataFrame | None:
        """The rows stored under a name; None if there are none, or they are damaged (`strict`: have no digest)."""
        try:
            content = self.system.cat_file(f"{self.root}/{name}.parquet")
        except FileNotFoundError:
            return None
        strict = re.fullmatch("[0-9a-f]{16}", name) is not None if strict is None else strict
        problem, rows = checked_rows(name, content, strict=strict)
        if problem:
            self.set_aside(name, problem)
        if rows is not None and "method" in rows and rows["method"].isin(ALIASES).any():
            rows["method"] = rows["method"].replace(ALIASES)
        return rows

    def write(self, name: str, rows: pd.DataFrame) -> str:
        """Store rows under a name, with their digest, whole or not at all; returns where."""
        marked = rows.copy(deep=False)
        arrow = pyarrow.Table.from_pandas(rows, preserve_index=False)
        marked.attrs = rows.attrs | {MARK: {"name": name, "sha256": rows_digest(name, arrow)}}
        self._put(file := f"{name}.parquet", lambda part: marked.to_parquet(part, index=False))
        return self._path(file)

    def set_aside(self, name: str, problem: str) -> None:
        """Give a table that is no result another name, `NAME.parquet.damaged-1`, and say why."""
        set_aside(self._path(f"{name}.parquet"), problem, None if self.folder else self.system)

    def put(self, file: str, content: bytes) -> None:
        """Write a small file beside the tables."""
        self._put(file, lambda part: part.write_bytes(content) if self.folder else part.write(content))

    def _path(self, file: str) -> str:
        return str(self.folder / file) if self.folder else f"{self.place}/{file}"

    def _put(self, file: str, write: Callable[[Path | io.BytesIO], object]) -> None:
        if self.folder is None:
            write(content := io.BytesIO())
            self.system.pipe_file(f"{self.root}/{file}", content.getvalue())
            return
        with room(self.folder / file), whole(self.folder / file) as part:
            write(part)

    def drop(self, file: str) -> None:
        """Remove such a file, if there is one."""
        with suppress(FileNotFoundError):
            self.system.rm_file(f"{self.root}/{file}")

    def texts(self, start: str) -> dict[str, str]:
        """The text files whose names start so, by name."""
        chosen = [file for file in self._files() if file.startswith(start) and file.endswith(".txt")]
        return {file: self.system.cat_file(f"{self.root}/{file}").decode() for file in chosen}


@dataclass(frozen=True)
class ResultStore:
    """Result tables (Parquet) and checkpoints (safetensors); every file appears whole or not at all.

    Checkpoints lie in `checkpoints` in the folder; tables in `results`, a folder or fsspec address, or there as well.
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
        return self.tables.read(name, strict=True)

    def write(self, name: str, rows: pd.DataFrame) -> Path:
        """Store rows under a name."""
        return Path(self.tables.write(name, rows))

    def load(self, name: str, build: Callable[[dict, dict], Any] = lambda tensors, notes: (tensors, notes)) -> Any:
        """What `build` makes of the tensors and notes of a checkpoint; None if there is none, or it is damaged.

        A checkpoint that does not match its digest, or of which nothing can be built, is set aside.
        """
        try:
            with safe_open(self._checkpoint(name), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118
            if problem := unlike_digest(name, tensors, about):
                raise ValueError(problem)
            return build(tensors, json.loads(about["notes"]))
        except FileNotFoundError:
            return None
        except Exception as error:  # bytes that were flipped can make a reader raise anything
            set_aside(self._checkpoint(name), f"cannot be read ({error})")
            return None

    def save(self, name: str, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, object]) -> None:
        """Store a checkpoint: tensors, and notes that JSON can hold, with a digest of both and the name."""
        path, text = self._checkpoint(name), json.dumps(notes)
        clean = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        about = {"notes": text, "name": name, "sha256": tensors_digest(name, clean, text)}
        with room(path), whole(path) as part:
            save_file(clean, part, metadata=about)

    def discard(self, name: str) -> None:
        """Remove a checkpoint, if there is one."""
        self._checkpoint(name).unlink(missing_ok=True)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"
