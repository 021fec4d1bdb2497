"""What a cell's stored stages must hold: the rows of an arm, and the notes of a teacher, a path and a student."""

import warnings
from collections.abc import Callable, Sequence

import pandas as pd

from linfair.data import GroupedData
from linfair.study.arms import canonical
from linfair.study.base_data import found_words
from linfair.study.damage import is_number, is_text, list_of
from linfair.study.grids import Cell

Notes = dict[str, Callable[[object], bool]]
"""Name of each note of a checkpoint -> whether a value can be."""

TUNED: Notes = {"arm": is_text, "seconds": is_number, "diverged": is_text}
"""The notes of an arm that `linfair.audit.repair` has fine-tuned."""


class OtherTeacher(UserWarning):
    """Rows of several original networks lie under the same settings; the message says which are used."""


def say_other_teacher(what: str, other: str, digest: str) -> None:
    """Warn that stored rows are of another original network than this cell's, by the digests of both."""
    text = f"{what} was computed from the original network {other}, not from {digest} as here; both are kept apart"
    warnings.warn(text, OtherTeacher, stacklevel=4)


def rows_problem(rows: pd.DataFrame, cell: Cell, arm: str, sets: Sequence[GroupedData]) -> str:
    """What keeps stored rows from being those of an arm; empty if nothing does.

    Args:
        rows: The stored table.
        cell: The cell.
        arm: The arm.
        sets: The cell's data, one for each seed.
    """
    first, original = sets[0], arm == "original"
    missing = sorted({"arm", "method", "data", "network", "teacher", "budget", "seed", "split", "group"} - set(rows))
    if missing or rows.empty:
        return f"has no {'rows' if rows.empty else 'column ' + missing[0]}"
    said = {"data": found_words(cell, sets), "network": cell.network, "method": "original" if original else cell.method}
    for column, value in said.items():
        if set(rows[column]) != {value}:
            return f"holds the {column} {_some(rows[column])}, not {value}"
    if {canonical(one) for one in set(rows["arm"])} != {canonical(arm)}:
        return f"holds the arm {_some(rows['arm'])}, not {arm}"
    wanted = {
        "budget": [1.0] if original else cell.budgets,
        "seed": cell.seeds,
        "split": list(first.splits),
        "group": range(len(first.group_names)),
    }
    for column, values in wanted.items():
        if set(rows[column]) != set(values):
            return f"holds the {column} {_some(rows[column])}, not {', '.join(map(str, values))}"
    count = pd.MultiIndex.from_product(wanted.values()).size
    if len(rows) != count or rows.duplicated(list(wanted)).any():
        return f"holds {len(rows)} rows, not {count}"
    return (
        "" if rows["teacher"].nunique() == 1 else f"holds rows of several original networks ({_some(rows['teacher'])})"
    )


def _some(values: pd.Series) -> str:
    return ", ".join(map(str, values.unique()[:5]))


def teacher_notes(members: int) -> Notes:
    """The notes of a teacher's checkpoint."""
    return {"seconds": is_number, "loss": list_of(is_number, members), "digest": is_text}


def path_notes(budgets: int, members: int) -> Notes:
    """The notes of a mask path's checkpoint."""
    counts = list_of(list_of(_is_count, members), budgets)
    return {
        "epochs": counts,
        "steps": lambda value: value == [None] * budgets or counts(value),
        "seconds": is_number,
        "configurations": list_of(_or_none(list_of(is_text, members)), budgets),
        "diverged": list_of(_or_none(list_of(_or_none(_is_count), members)), budgets),
        "finetuning": list_of(list_of(lambda row: isinstance(row, dict)), budgets),
    }


def student_notes(members: int, *, budget: float, teacher: str) -> Notes:
    """The notes of a student's checkpoint, for one budget and one teacher's digest."""
    return {
        "budget": lambda value: value == budget,
        "teacher": lambda value: value == teacher,
        "seconds": is_number,
        "diverged": _or_none(list_of(_or_none(_is_count), members)),
        "finetuning": list_of(lambda row: isinstance(row, dict)),
    }


def _or_none(allowed: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or allowed(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
