"""The notebooks as files: parameters as papermill reads them, the check in the second cell, no outputs, no functions.

`make test` executes each of them once, with nbval. Here a small stand-in runs, and among the slow tests what a notebook
does with other parameters.
"""

import ast
from pathlib import Path

import nbformat
import papermill
import pytest
from linfair_book import notebooks
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))
QUIET = {"progress_bar": False, "extra_arguments": ["--log-level=CRITICAL"]}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}

each_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@each_notebook
def test_papermill_reads_the_same_parameters(path):
    """Oracle: papermill's own inspection of the file."""
    found = papermill.inspect_notebook(str(path))
    spec = notebooks.find(path.stem)
    assert list(found) == [p.name for p in spec.parameters]
    for p in spec.parameters:
        seen = found[p.name]
        assert ast.literal_eval(seen["default"]) == p.default
        assert seen["inferred_type_name"] == p.type
        assert seen["help"].startswith(p.description)


@each_notebook
def test_the_first_code_cell_holds_the_parameters_and_the_second_checks_them(path):
    first, second, *_ = code_cells(path)
    assert "parameters" in first.metadata.tags
    assert f'from_namespace("{path.stem}", globals())' in second.source


@each_notebook
def test_the_committed_notebook_has_no_outputs_and_the_plain_kernel(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(path):
        assert cell.outputs == [] and cell.execution_count is None


@each_notebook
def test_notebooks_define_no_functions_or_classes(path):
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), cell.source


@each_notebook
def test_every_figure_has_caption_name_and_alt_text(path):
    figures = [cell.metadata.mystnb for cell in code_cells(path) if "mystnb" in cell.metadata]
    figures = [one for one in figures if "figure" in one]
    assert figures or any("explorer" in cell.source for cell in code_cells(path))
    for one in figures:
        assert one.figure.caption and one.figure.name.startswith("fig-") and len(one.image.alt) > 40


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_seeds": 1}, "n_seeds = 1 is not allowed. Allowed: 2 to"),
        ({"n_seed": 5}, "did you mean 'n_seeds'?"),
    ],
)
def test_plain_papermill_stops_at_the_second_cell_with_the_same_message(values, words, tmp_path):
    parameters, _, *_ = code_cells(FILES[0])
    check = 'from linfair_book import parameters\nparameters.from_namespace("01_toy_boundary", globals())["n_seeds"]'
    file = tmp_path / "01_toy_boundary.ipynb"
    nbformat.write(new_notebook(cells=[parameters, new_code_cell(check)], metadata=KERNEL), file)
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(file, tmp_path / "out.ipynb", values, cwd=tmp_path, **QUIET)
    assert caught.value.ename == "ParameterError" and words in caught.value.evalue
    assert caught.value.exec_count == 3  # the parameters, papermill's own cell, the check


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("08_gpu_sweeps", {"profile": "smoke", "n_seeds": 2, "minutes": 15.0}),  # by default it only reads
        ("07_which_linearizer", {"profile": "smoke", "n_seeds": 2, "rows": "run"}),
        ("12_faces", {"data": "utkface_age", "n_seeds": 2}),
        ("15_two_reductions", {"profile": "smoke", "n_seeds": 2, "rows": "run"}),
    ],
)
def test_a_notebook_runs_with_other_parameters_than_its_own(name, values, tmp_path, monkeypatch):
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path))  # no results of an earlier run
    done = papermill.execute_notebook(FOLDER / f"{name}.ipynb", tmp_path / "out.ipynb", values, cwd=FOLDER, **QUIET)
    shown = [output.get("data", {}) for cell in done.cells for output in cell.get("outputs", [])]
    assert any("image/png" in data for data in shown)
