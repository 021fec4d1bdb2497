"""The check of a notebook's parameters before anything is computed.

`linfair_book.notebook_table` says what each notebook takes. `linfair notebook` reads it, every notebook's second code
cell calls `from_namespace`, and a test holds each notebook's parameters cell against it.

>>> check("01_toy_boundary", {"relu_budget": 0.25})["relu_budget"]
0.25
>>> check("01_toy_boundary", {"relu_budgt": 0.25})
Traceback (most recent call last):
...
linfair_book.parameter.ParameterError: 01_toy_boundary has no parameter 'relu_budgt'. Did you mean 'relu_budget'?
Show all parameters with: linfair notebook list
"""

import ast
import os
from collections.abc import Iterable, Mapping
from typing import Any

from linfair_book.notebook_table import NOTEBOOKS, SWEEPS, shares_kept
from linfair_book.parameter import TYPES, Notebook, Parameter, ParameterError, closest, unknown

__all__ = [
    "NOTEBOOKS",
    "TYPES",
    "Notebook",
    "Parameter",
    "SWEEPS",
    "ParameterError",
    "check",
    "closest",
    "find",
    "from_namespace",
    "shares_kept",
    "unknown",
]

PROFILE = "LINFAIR_PROFILE"


def check(notebook: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check a notebook's parameters before anything runs.

    Args:
        notebook: The notebook's name, for example `01_toy_boundary`.
        values: Some of its parameters by name.

    Returns:
        Every parameter's value: the given one, in its type, or the default. Where the profile limits a
        parameter (`Notebook.limits`), the limited value.

    Raises:
        ParameterError: For an unknown notebook or name (with the closest known one), a wrong type, a value
            out of range or not among the choices, or `device="cuda"` on a machine without a usable GPU.
    """
    return find(notebook).check(values)


def find(notebook: str) -> Notebook:
    """The notebook of that name.

    Raises:
        ParameterError: If there is none; the message gives the closest name.
    """
    if notebook not in NOTEBOOKS:
        raise unknown("There is no notebook", notebook, NOTEBOOKS)
    return NOTEBOOKS[notebook]


def from_namespace(notebook: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Check a notebook's parameters from inside it, as its second code cell does with `globals()`.

    The environment variable `LINFAIR_PROFILE` replaces `profile` in every notebook that has it: so a plain run
    of all notebooks, which can pass no parameters, takes seconds with `LINFAIR_PROFILE=smoke`.

    Papermill puts the values it was given in a cell of their own and only warns about names the notebook does
    not know. IPython keeps the source of each cell in `In`; the names set by that cell are checked too, so a
    misspelt name fails here rather than passing unnoticed.

    Args:
        notebook: The notebook's name.
        namespace: The notebook's variables.

    Returns:
        The checked values by name, as `check` returns them.

    Raises:
        ParameterError: As `check`, and if the parameters cell was not run.
    """
    spec = find(notebook)
    values = {p.name: namespace[p.name] for p in spec.parameters if p.name in namespace}
    missing = [p.name for p in spec.parameters if p.name not in values]
    if missing:
        raise ParameterError(f"{', '.join(missing)} not set: run the cell tagged 'parameters' first.")
    for name in _set_by_papermill(namespace.get("In", ())):
        spec[name]
    if PROFILE in os.environ and "profile" in values:
        values["profile"] = os.environ[PROFILE]
    return spec.check(values)


def _set_by_papermill(cells: Iterable[str]) -> list[str]:
    """Names set in papermill's cell, which starts with the comment `# Parameters`."""
    return [
        target.id
        for source in cells
        if source.startswith("# Parameters\n")
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
