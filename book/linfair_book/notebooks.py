"""The book's notebooks: what there is, and a run of one with other parameters, into an ignored folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linfair.paths import named
from linfair_book.parameters import FOLDER, Notebook, ParameterError, load, unknown_name

OUTPUT = Path("_build") / "notebooks"


class NotebookError(RuntimeError):
    """A notebook that could not be run to its end; the message says where it stopped and what to look at."""


def listed(folder: str | Path | None = None) -> dict[str, Notebook]:
    """The notebooks of a folder by name; by default the repository's."""
    return {name: load(path) for name, path in _files(folder).items()}


def _files(folder: str | Path | None) -> dict[str, Path]:
    place = named(folder or FOLDER, "--notebooks").absolute()
    found = {path.stem: path for path in sorted(place.glob("*.ipynb"))}
    if not found:
        text = f"{place} holds no notebooks: they come with the repository, not with an installed package. Clone it "
        raise ParameterError(f"{text}and run there, or say where they are with --notebooks DIR.")
    return found


def find(name: str, folder: str | Path | None = None) -> Notebook:
    """The notebook of that name; ParameterError gives the closest one."""
    known = _files(folder)
    if name not in known:
        raise unknown_name("there is no notebook", name, known)
    return load(known[name])


def run(notebook: Notebook, values: Mapping[str, Any], *, out: str | Path | None = None, progress: bool = True) -> Path:
    """Execute one notebook with papermill in its own folder, and return the executed one, in the folder `out`."""
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    notebook.check(values)
    folder = Path(OUTPUT if out is None else out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / f"{notebook.name}.running-{os.getpid()}.ipynb"
    quiet = {"progress_bar": progress, "extra_arguments": ["--log-level=CRITICAL"]}  # the kernel's own log
    try:
        papermill.execute_notebook(notebook.path, running, parameters=dict(values), cwd=notebook.path.parent, **quiet)
        return running.replace(folder / f"{notebook.name}.ipynb")
    except (PapermillExecutionError, DeadKernelError) as error:
        failed = running.replace(folder / f"{notebook.name}.failed.ipynb")
        why = f"the kernel died ({error}); not enough memory?"
        if hasattr(error, "exec_count"):
            code = next((line for line in error.source.splitlines() if line.strip()), "")
            why = f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}\n  it starts with: {code}"
        raise NotebookError(f"{notebook.name}: {why}\n  as far as it came: {failed}") from error
    except NoSuchKernel as error:
        text = f"{notebook.path} asks for the kernel {error.name!r}, which is not installed here"
        raise ParameterError(text) from error
    finally:
        running.unlink(missing_ok=True)
