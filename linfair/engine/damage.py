"""What stored files must hold: digests of tables and checkpoints, checks of both, and where damaged ones go."""

import hashlib
import io
import itertools
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import torch
from fsspec import AbstractFileSystem


class DamagedFile(UserWarning):
    """A file did not hold what its name and digest say; the message names it and where it was set aside."""


MARK = "linfair"
"""Where a table's own name and digest stand in its Parquet metadata: in the attributes of pandas."""


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


def checked_rows(name: str, content: bytes, *, strict: bool) -> tuple[str, pd.DataFrame | None]:
    """What is wrong with a table's bytes, or nothing and its rows."""
    try:
        arrow = pyarrow.parquet.read_table(io.BytesIO(content))
        rows = pd.read_parquet(io.BytesIO(content))
        mark = rows.attrs.pop(MARK, None)
        digest = None if mark is None else rows_digest(str(mark["name"]), arrow)
    except Exception as error:  # bytes that were flipped can make a reader raise anything
        return f"cannot be read ({error})", None
    if mark is None:
        return ("carries no digest" if strict else ""), (None if strict else rows)
    if digest != mark.get("sha256"):
        return "does not match its digest", None
    if mark["name"] != name and strict:
        return f"holds the rows of {mark['name']}", None
    return "", rows


def unlike_digest(name: str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> str:
    """What is wrong with a checkpoint's name or digest, or nothing."""
    if "sha256" not in about:
        return "carries no digest"
    if tensors_digest(about["name"], tensors, about["notes"]) != about["sha256"]:
        return "does not match its digest"
    return "" if about["name"] == name else f"holds the checkpoint {about['name']}"


def filled(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The network with these tensors as its weights and buffers.

    Raises:
        ValueError: If names, shapes or types are not the network's.
    """
    for name, value in model.state_dict().items():
        if name in tensors and (found := tensors[name]).dtype != value.dtype:
            raise ValueError(f"has {name} as {found.dtype}, not {value.dtype}")
    model.load_state_dict(tensors)
    return model


def set_aside(path: str | Path, problem: str, system: AbstractFileSystem | None = None) -> None:
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
    line = " ".join(f"{path} {problem[:300]}; {what}, computed anew where it is needed".split())
    warnings.warn(line, DamagedFile, stacklevel=3)
