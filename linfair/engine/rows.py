"""The columns of result rows and what each holds, in one place: every file of results is checked against it."""

import io
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet, types

_WORDS = {
    "text": "short text",
    "truth": "true or false",
    "count": "whole numbers from 0",
    "share": "numbers from 0 to 1",
    "seconds": "numbers from 0",
    "number": "numbers",
}
_NAMES = {
    "text": "data network method options arm profile teacher device torch linfair code split group_name role init "
    "precision configuration multipliers selection start what estimator order base rule guarantee",
    "truth": "diverged top_eigenvalue_converged absolute_eigenvalue_converged",
    "count": "seed group n n_train width kept total budget_units mask_epochs mask_steps times upsampled_group "
    "student_epochs",
    "share": "budget accuracy low high",
    "seconds": "seconds seconds_base seconds_path seconds_finetune seconds_measure peak_memory",
    "number": "risk risk_low risk_high excess excess_low excess_high margin margin_low margin_high churn churn_low "
    "churn_high gradient_norm gradient_norm_alpha top_eigenvalue top_eigenvalue_residual absolute_eigenvalue "
    "absolute_eigenvalue_residual distance relative_distance multiplier base_loss original drop relative_drop "
    "epsilon delta",
}
COLUMNS = {name: kind for kind, names in _NAMES.items() for name in names.split()}  #: The kind of each column
KNOWN = ("data", "network", "method", "arm", "profile", "seed", "budget", "split", "group", "group_name", "role")
KNOWN += ("n", "n_train", "teacher", "device")
NEEDED = {*KNOWN, "accuracy"}  #: What a study's rows have; in `KNOWN` no value is missing
_LONGEST = {"multipliers": 10**6}  #: Characters of a text; 10,000 of any other


def parsed(content: bytes) -> tuple[pd.DataFrame, pa.Table]:
    """A Parquet file's rows as pandas and as Arrow have them; sizes that no results have are refused unread."""
    if content[:4] != b"PAR1":
        raise ValueError("it does not begin as a Parquet file does")
    limits = {"thrift_string_size_limit": 10**7, "thrift_container_size_limit": 10**4}
    with parquet.ParquetFile(io.BytesIO(content), **limits) as file:
        about, names = file.metadata, file.schema_arrow.names
        held = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    if (values := about.num_rows * about.num_columns) > 10**8 or held > 2**31:
        raise ValueError(f"it holds {values:,} values in {held:,} bytes, which is too much for results")
    if len(names) > len(set(names)):
        raise ValueError(f"it has the column {Counter(names).most_common(1)[0][0]} twice")
    for column in parquet.read_table(io.BytesIO(content), read_dictionary=names, **limits).columns:
        texts = [chunk.dictionary for chunk in column.chunks if types.is_dictionary(chunk.type)]
        if (longest := max((pc.max(pc.binary_length(one)).as_py() or 0 for one in texts), default=0)) > 10**6:
            raise ValueError(f"it holds a text of {longest:,} bytes")  # once for each row it may fill the memory
    return pd.read_parquet(io.BytesIO(content), **limits), parquet.read_table(io.BytesIO(content), **limits)


def lacking(names: Iterable[object]) -> str:
    """Why a table with these columns holds no rows of a study; empty if it may."""
    there = set(names)
    missing = [name for name in (*KNOWN, "accuracy") if name not in there]
    what = f"column {missing[0]}" if missing and there else "columns"
    return f"holds no rows of a study: it has no {what}" if missing else ""


def problem_of(rows: pa.Table) -> str:
    """What keeps a table with all columns from being a study's rows; empty if nothing does."""
    if not rows.num_rows:
        return "has no rows"
    for name in filter(COLUMNS.get, rows.column_names):
        if wrong := _wrong(name, rows[name]):
            return f"has {wrong} in the column {name}, where {_WORDS[COLUMNS[name]]} must stand"
    by = ["data", "network", "arm", "budget", "seed", "split", "teacher"]
    named = rows.select([*by, "group", "group_name"]).to_pandas().drop_duplicates()
    if named.duplicated([*by, "group_name"]).any():
        return "has several groups of one name"
    lost = np.isnan(_numbers(rows["accuracy"]))
    if "diverged" in rows.column_names:
        lost &= ~np.array(rows["diverged"].to_pylist()).astype(bool)
    return "has a row without accuracy that did not diverge" if lost.any() else ""


def _wrong(name: str, column: pa.ChunkedArray) -> str:
    """The first thing in a column that must not stand there."""
    kind, held = COLUMNS[name], column.type
    if name in KNOWN and column.null_count:
        return "nothing"
    if kind == "text" and (types.is_string(held) or types.is_large_string(held)):
        longest = pc.max(pc.utf8_length(column)).as_py() or 0
        return f"a text of {longest:,} characters" if longest > _LONGEST.get(name, 10**4) else ""
    if types.is_null(held) or (kind == "truth" and types.is_boolean(held)):
        return ""
    if kind in ("text", "truth") or not (types.is_integer(held) or types.is_floating(held)):
        return str(held)[:60]
    values = _numbers(column)
    bad = np.isnan(values) & (name in KNOWN)
    if kind != "number":
        bad |= (values < 0) | np.isinf(values)
    if kind == "share":
        bad |= values > 1 + 1e-9
    if kind == "count":
        bad |= (np.floor(values) < values) | (values > 2**53)
    return f"{values[bad][0]:g}" if bad.any() else ""


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64(), safe=False).to_numpy()
