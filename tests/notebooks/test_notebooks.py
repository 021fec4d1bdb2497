"""The notebooks as files and as programs: parameters as papermill reads them, refusals, a smoke run."""

import ast
from pathlib import Path

import nbformat
import papermill
import pytest
from linfair_book.parameters import NOTEBOOKS
from papermill.exceptions import PapermillExecutionError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))
QUIET = {"progress_bar": False, "cwd": FOLDER, "extra_arguments": ["--log-level=CRITICAL"]}

each_notebook = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_every_notebook_is_specified_and_every_specified_notebook_exists():
    assert {path.stem for path in FILES} == set(NOTEBOOKS)


@each_notebook
def test_papermill_reads_the_specified_parameters(path):
    found = papermill.inspect_notebook(str(path))
    spec = NOTEBOOKS[path.stem]
    assert list(found) == [p.name for p in spec.parameters]
    for p in spec.parameters:
        seen = found[p.name]
        assert ast.literal_eval(seen["default"]) == p.default
        assert seen["inferred_type_name"] == p.type
        assert seen["help"] == p.description


@each_notebook
def test_the_first_code_cell_holds_the_parameters_and_the_second_checks_them(path):
    first, second, *_ = code_cells(path)
    assert first.metadata.tags == ["parameters"]
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
def test_it_runs_under_plain_papermill_and_every_figure_has_caption_name_and_alt_text(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path))  # no results of an earlier run
    values = {"profile": "smoke", "n_seeds": 2}
    if any(p.name == "minutes" for p in NOTEBOOKS[path.stem].parameters):
        values["minutes"] = 15.0  # by default it reads what is committed, and of profile smoke nothing is
    done = papermill.execute_notebook(path, tmp_path / "out.ipynb", values, **QUIET)
    pictures = 0
    for cell in done.cells:
        shown = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        pictures += len(shown)
        assert len(shown) <= 1, "one figure a cell, shown once"
        if shown:
            meta = cell.metadata.mystnb
            assert meta.figure.caption and meta.figure.name.startswith("fig-") and len(meta.image.alt) > 40
    assert pictures >= 1


def test_the_page_on_faces_runs_on_each_data_set_that_it_offers(tmp_path):
    """By age there are no eigenvalues: the page says so, and has the rest."""
    [offered] = [one.choices for one in NOTEBOOKS["12_faces"].parameters if one.name == "data"]
    assert set(offered) == {"utkface_race", "utkface_age"}  # the test above takes the first
    done = papermill.execute_notebook(
        FOLDER / "12_faces.ipynb", tmp_path / "out.ipynb", {"data": "utkface_age", "n_seeds": 2}, **QUIET
    )
    shown = [
        str(output.get("data", {}).get("text/markdown")) for cell in done.cells for output in cell.get("outputs", [])
    ]
    assert "These rows have no eigenvalues." in shown


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_seeds": 1}, "n_seeds = 1 is not allowed. Allowed: 2 to"),
        ({"n_seed": 5}, "Did you mean 'n_seeds'?"),
    ],
)
@each_notebook
def test_plain_papermill_stops_at_the_second_cell_with_the_same_message(path, values, words, tmp_path):
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(path, tmp_path / "out.ipynb", values, **QUIET)
    assert caught.value.ename == "ParameterError" and words in caught.value.evalue
    assert caught.value.exec_count == 3  # the parameters, papermill's own cell, the check
