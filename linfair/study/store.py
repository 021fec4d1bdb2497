"""Where results and checkpoints live: whole files, named by what determines them."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    files = [*flat, *folders, package / "study" / "cells.py", package / "study" / "measure.py"]
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


@dataclass(frozen=True)
class ResultStore:
    """Result tables (Parquet) and checkpoints (safetensors) in one folder; every file appears whole or not at all.

    A file that cannot be read is named, moved aside (`.corrupt`) and counts as missing: its cell is computed again.
    """

    folder: Path

    @classmethod
    def default(cls) -> "ResultStore":
        """The store of the present code in the user's cache folder."""
        return cls(cache_folder() / code_hash())

    def read(self, name: str) -> pd.DataFrame | None:
        """The rows stored under a name; None if there are none."""
        path = self.folder / "results" / f"{name}.parquet"
        if not path.exists():
            return None
        try:
            return pd.read_parquet(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            self._aside(path, error)
            return None

    def write(self, name: str, rows: pd.DataFrame) -> Path:
        """Store rows under a name."""
        path = self.folder / "results" / f"{name}.parquet"
        with whole(path) as part:
            rows.to_parquet(part, index=False)
        return path

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
            self._aside(path, error)
            return None

    def save(self, name: str, tensors: dict[str, torch.Tensor], notes: dict[str, object]) -> None:
        """Store a checkpoint: tensors, and notes that JSON can hold."""
        with whole(self.folder / "checkpoints" / f"{name}.safetensors") as part:
            clean = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(clean, part, metadata={"notes": json.dumps(notes)})

    @staticmethod
    def _aside(path: Path, error: Exception) -> None:
        path.replace(path.with_name(path.name + ".corrupt"))
        warnings.warn(f"{path} cannot be read ({error}); moved aside, its cell is computed again", stacklevel=3)
