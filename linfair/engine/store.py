"""Where results and checkpoints live: whole files, named by what determines them, that know what they hold.

Every file carries its own name and a SHA-256 over that name and its content. What does not match is *damaged*: it is
set aside as `FILE.damaged-1`, said in one line, and counts as missing, so that it is computed anew. Files under names
that the store does not give are a user's: what cannot be used of them is said and passed over, and stays where it is.
"""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow
import pyarrow.parquet
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from linfair.engine.rows import COLUMNS, NEEDED, lacking, parsed, problem_of
from linfair.linearizers.registry import ALIASES
from linfair.names import shown
from linfair.paths import cache_folder, unfit, whole
from linfair.tensors import apart


@cache
def code_hash() -> str:
    """SHA-256 (12 hex digits) over the modules that decide a result: a change in them starts a fresh cache."""
    package = Path(__file__).parent.parent
    names = ["callsites", "device", "gates", "functional", "nonlinear", "masks", "ensemble", "models"]
    names += ["ledger", "names", "replay", "resume", "schedule", "training", "weights"]
    measured = ("accuracy", "curvature", "distance", "gradients", "margin", "measure", "risk")
    names += [*(f"metrics/{name}" for name in measured), "engine/stages", "study/arms", "study/cell", "study/grids"]
    folders = [package / name for name in ("data", "linearizers", "mitigation", "pruners", "rules")]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
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


class DamagedFile(UserWarning):
    """A file did not hold what its name and digest say; the message names it and where it was set aside."""


MARK = "linfair"  #: Where a table's own name and digest stand in its Parquet metadata: in the attributes of pandas


def rows_digest(name: str, rows: pyarrow.Table) -> str:
    """SHA-256 (hex) of a table's name, columns and values, whatever tool wrote them in whatever order of bytes."""
    about = rows.schema.pandas_metadata or {}  # how pandas reads them
    how = [about.get(part) for part in ("index_columns", "column_indexes", "columns")]
    content = hashlib.sha256(json.dumps([name, rows.num_rows, how], sort_keys=True).encode())
    for column, values in zip(rows.column_names, rows.columns, strict=True):
        content.update(json.dumps([column, values.to_pylist()], default=str).encode())
    return content.hexdigest()


def tensors_digest(name: str, tensors: Mapping[str, torch.Tensor], notes: str) -> str:
    """SHA-256 (hex) of a checkpoint's name, notes and tensors with their names, types and shapes."""
    content = hashlib.sha256(json.dumps([name, notes]).encode())
    for tensor, value in sorted(tensors.items()):
        value = value.detach().cpu().contiguous()
        content.update(json.dumps([tensor, str(value.dtype), list(value.shape)]).encode())
        content.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def set_aside(
    path: str | Path, problem: str, system: Any = None, then: str = "computed anew where it is needed"
) -> None:
    """Give a file another name, `FILE.damaged-1`, and say so in one line; one that cannot be renamed stays."""
    exists, move = (os.path.exists, os.replace) if system is None else (system.exists, system.mv)
    number = next(number for number in itertools.count(1) if not exists(f"{path}.damaged-{number}"))
    try:
        move(str(path), f"{path}.damaged-{number}")
        what = f"set aside as {str(path).rpartition('/')[2]}.damaged-{number}"
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:
        what = f"it cannot be set aside ({error})"
    say_damaged(path, problem, f"{what}, {then}")


def say_damaged(path: str | Path, problem: str, what: str = "it is passed over, and stays where it is") -> None:
    """Say in one line what is wrong with a file, and what becomes of it."""
    line = " ".join(f"{path} {problem[:300]}; {what}".split())
    warnings.warn(shown(line), DamagedFile, stacklevel=4)


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
        free = shutil.disk_usage(next(folder for folder in path.parents if folder.exists())).free / 2**20
        text = f"no space left for {path} ({free:.1f} MiB free there). Free some, or set LINFAIR_CACHE to a larger "
        text += f"disk ({cache_folder()} holds checkpoints and may be deleted: they are computed again), then run the "
        raise DiskFull(f"{text}same again") from error


class Tables:
    """Result tables in a folder, or at any fsspec address (`s3://...`, `memory://...`): one Parquet file a name.

    One whose name is an arm's, made by `key`, must have a digest; a user's file under another name is read without.
    """

    def __init__(self, place: str | Path) -> None:
        (self.system, root), self.place = fsspec.core.url_to_fs(str(place)), str(place)
        self.folder = Path(root) if isinstance(self.system, LocalFileSystem) else None
        self.root = root.rstrip("/")

    def _files(self) -> list[str]:
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.place} is no folder; results lie in folders: name the one that it is in")
        found = self.system.ls(self.root, detail=False) if self.system.exists(self.root) else []
        return sorted(name for path in found if not (name := str(path).rpartition("/")[2]).startswith("."))

    def names(self) -> list[str]:
        """The names of all tables there, sorted."""
        return [name.removesuffix(".parquet") for name in self._files() if name.endswith(".parquet")]

    def megabytes(self) -> float:
        """What the tables take there."""
        found = self.system.ls(self.root, detail=True) if self.system.exists(self.root) else []
        return sum(one["size"] or 0 for one in found if one["name"].endswith(".parquet")) / 1e6

    def read(self, name: str, *, strict: bool | None = None, own: bool | None = None) -> pd.DataFrame | None:
        """The rows stored under a name; None if there are none, or they are damaged (`strict`: have no digest)."""
        strict = _by_key(name) if strict is None else strict
        rows, _, problem = self._load(name, strict=strict)
        if not problem:
            return rows
        if strict if own is None else own:
            self.set_aside(name, problem)
        else:
            say_damaged(self._path(f"{name}.parquet"), problem)
        return None

    def results(self, *, said: bool = True) -> Iterator[tuple[str, pd.DataFrame]]:
        """Every table of a study's rows, by name, its columns those of `COLUMNS`; others are passed over, `said`."""
        for name in self.names():
            rows, marked, problem = self._load(name, strict=_by_key(name))
            if problem and _by_key(name):
                self.set_aside(name, problem)
            elif problem or (rows is not None and (problem := lacking(rows.columns)) and said and not marked):
                say_damaged(self._path(f"{name}.parquet"), problem)
            elif rows is not None and not problem:
                yield name, rows[[column for column in rows if column in COLUMNS]]

    def _load(self, name: str, *, strict: bool) -> tuple[pd.DataFrame | None, bool, str]:
        """The rows under a name, whether they carry a digest, and what is wrong with the file."""
        path = f"{self.root}/{name}.parquet"
        if problem := self._unfit(path):
            return None, False, problem
        try:
            content = self.system.cat_file(path)
        except FileNotFoundError:
            return None, False, ""
        try:
            rows, arrow = parsed(content)
            mark, problem = rows.attrs.pop(MARK, None), ""
            if mark is None:
                problem = "carries no digest" if strict else ""
            elif rows_digest(str(mark["name"]), arrow) != mark.get("sha256"):
                problem = "does not match its digest"
            elif mark["name"] != name and strict:
                problem = f"holds the rows of {mark['name']}"
            if not problem and set(rows) >= NEEDED:
                problem = problem_of(arrow)
            if not problem and "method" in rows and rows["method"].isin(ALIASES).any():
                rows["method"] = rows["method"].replace(ALIASES)
            return rows, mark is not None, problem
        except MemoryError:
            raise
        except Exception as error:  # bytes that were flipped can make a reader raise anything
            return None, False, f"cannot be read ({error})"

    def _unfit(self, path: str, most: int = 2**30) -> str:
        """Why a file of a folder must not be opened; empty if it may be, or is not there."""
        problem = self.folder is not None and unfit(path, most)
        if problem == "does not exist":
            return "is a link to what does not exist" if os.path.islink(path) else ""
        return problem or ""

    def write(self, name: str, rows: pd.DataFrame) -> str:
        """Store rows under a name, with their digest, whole or not at all; returns where."""
        marked, arrow = rows.copy(deep=False), pyarrow.Table.from_pandas(rows, preserve_index=False)
        marked.attrs = rows.attrs | {MARK: {"name": name, "sha256": rows_digest(name, arrow)}}
        self.put(file := f"{name}.parquet", marked.to_parquet(index=False))
        return self._path(file)

    def set_aside(self, name: str, problem: str) -> None:
        """Give a table that is no result another name, `NAME.parquet.damaged-1`, and say why."""
        set_aside(self._path(f"{name}.parquet"), problem, None if self.folder else self.system)

    def put(self, file: str, content: bytes) -> None:
        """Write a file beside the tables, whole or not at all."""
        if self.folder is None:
            self.system.pipe_file(f"{self.root}/{file}", content)
            return
        with room(self.folder / file), whole(self.folder / file) as part:
            part.write_bytes(content)

    def _path(self, file: str) -> str:
        return str(self.folder / file) if self.folder else f"{self.place}/{file}"

    def drop(self, file: str) -> None:
        """Remove such a file, if there is one; what cannot be removed stays."""
        with suppress(OSError):
            self.system.rm_file(f"{self.root}/{file}")

    def texts(self, start: str) -> dict[str, str]:
        """The text files whose names start so, by name; what is no small file is said and passed over."""
        found = {}
        for file in self._files():
            if file.startswith(start) and file.endswith(".txt"):
                if problem := self._unfit(f"{self.root}/{file}", 2**20):
                    say_damaged(self._path(file), problem)
                else:
                    found[file] = self.system.cat_file(f"{self.root}/{file}").decode(errors="replace")
        return found


def _by_key(name: str) -> bool:
    """Whether a name is one that `key` makes."""
    return re.fullmatch("[0-9a-f]{16}", name) is not None


@dataclass(frozen=True)
class ResultStore:
    """Result tables (Parquet) and checkpoints (safetensors); every file appears whole or not at all.

    Checkpoints lie in `checkpoints` in the folder; tables in `results`, a folder or fsspec address, or there as well.
    """

    folder: Path
    results: str | Path | None = None

    @classmethod
    def default(cls, folder: str | Path | None = None, results: str | Path | None = None) -> "ResultStore":
        """The store in a folder, by default that of the present code in the user's cache folder."""
        return cls(Path(folder) if folder else cache_folder() / code_hash(), results)

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
        """What `build` makes of the tensors and notes of a checkpoint; None if there is none, or it is set aside."""
        path = self._checkpoint(name)
        if (problem := unfit(path)) == "does not exist":
            return None
        try:
            if problem:
                raise ValueError(problem)
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118
            if "sha256" not in about:
                raise ValueError("carries no digest")
            if tensors_digest(about["name"], tensors, about["notes"]) != about["sha256"]:
                raise ValueError("does not match its digest")
            if about["name"] != name:
                raise ValueError(f"holds the checkpoint {about['name']}")
            return build(tensors, json.loads(about["notes"]))
        except (FileNotFoundError, MemoryError):
            raise
        except Exception as error:  # bytes that were flipped can make a reader raise anything
            set_aside(path, problem or f"cannot be read ({error})")
            return None

    def save(self, name: str, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, object]) -> None:
        """Store a checkpoint: tensors, and notes that JSON can hold, with a digest of both and the name."""
        path, text = self._checkpoint(name), json.dumps(notes)
        clean = apart(tensors)
        about = {"notes": text, "name": name, "sha256": tensors_digest(name, clean, text)}
        with room(path), whole(path) as part:
            save_file(clean, part, metadata=about)

    def discard(self, name: str) -> None:
        """Remove a checkpoint, if there is one."""
        self._checkpoint(name).unlink(missing_ok=True)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"
