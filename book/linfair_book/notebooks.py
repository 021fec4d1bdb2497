"""Run a notebook from the command line: checked first, into an ignored folder, with plain progress."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linfair_book import parameters
from linfair_book.parameters import ParameterError

OUTPUT = Path("_build") / "notebooks"


class NotebookError(RuntimeError):
    """A notebook that could not be run to its end; the message says where it stopped and what to look at."""


def source(name: str, folder: str | Path | None = None) -> Path:
    """The file of one notebook.

    Args:
        name: The notebook's name.
        folder: Where the notebooks are; by default the repository's folder, beside the package (an editable install).

    Returns:
        The file's absolute path.

    Raises:
        ParameterError: If it does not exist.
    """
    parameters.find(name)
    place = Path(folder) if folder is not None else Path(__file__).resolve().parents[2] / "notebooks"
    path = place.resolve() / f"{name}.ipynb"
    if not path.is_file():
        raise ParameterError(
            f"{path} does not exist: notebooks come with the repository, not with an installed package. "
            "Clone it and run there, or say where they are with --notebooks DIR."
        )
    return path


def run(
    name: str,
    values: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    notebooks: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Execute one notebook with papermill.

    Everything that can be checked is checked before the kernel starts. The notebook runs in its own folder,
    as it does when the book is built. While it runs, the output grows under a name of its own
    (`NAME.running-PID.ipynb`); `NAME.ipynb` appears only when it is complete.

    Args:
        name: The notebook's name.
        values: Some of its parameters by name.
        out: Output folder, made if missing; `_build/notebooks` under the current directory by default.
        notebooks: Folder of the notebooks; the repository's by default.
        progress: Show papermill's progress bar on stderr.

    Returns:
        The path of the executed notebook.

    Raises:
        ParameterError: If a name or value is wrong, or the notebook is not there.
        NotebookError: If papermill is missing or a cell fails; the partial notebook is kept as
            `NAME.failed.ipynb`.
    """
    parameters.check(name, values)
    notebook = source(name, notebooks)
    try:
        import papermill
    except ImportError as error:
        raise NotebookError(
            f"running a notebook needs papermill ({error}). Install it with: pip install 'linfair[book]'"
        ) from error

    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    target_folder = (Path(out) if out is not None else OUTPUT).resolve()
    target_folder.mkdir(parents=True, exist_ok=True)
    running = target_folder / f"{name}.running-{os.getpid()}.ipynb"
    try:
        papermill.execute_notebook(
            notebook,
            running,
            parameters=dict(values),
            progress_bar=progress,
            cwd=notebook.parent,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own log, not the notebook's output
        )
        target = target_folder / f"{name}.ipynb"
        os.replace(running, target)
    except (PapermillExecutionError, DeadKernelError) as error:
        failed = target_folder / f"{name}.failed.ipynb"
        os.replace(running, failed)
        raise NotebookError(f"{name}: {_what_failed(error)}\n  as far as it came: {failed}") from error
    finally:
        running.unlink(missing_ok=True)
    return target


def _what_failed(error: Exception) -> str:
    if not hasattr(error, "exec_count"):
        return f"the kernel died ({error}); not enough memory?"
    code = next((line for line in error.source.splitlines() if line.strip()), "")
    return f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}\n  it starts with: {code}"
