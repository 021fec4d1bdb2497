"""The `linfair` command: exit codes, messages, and what is left on disk."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from linfair_book import notebooks
from linfair_book.notebooks import NotebookError
from linfair_book.parameters import NOTEBOOKS
from nbformat.v4 import new_code_cell, new_notebook

from linfair.cli import main

TOY = NOTEBOOKS["01_toy_boundary"]


def write(folder: Path, *sources: str) -> Path:
    """A stand-in for notebook 01: its parameters cell, then the given cells."""
    cells = [new_code_cell(TOY.cell(), metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{TOY.name}.ipynb")
    return folder


@pytest.fixture
def nothing_runs(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("papermill was called")

    monkeypatch.setattr("papermill.execute_notebook", fail)


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == f"linfair {version('linfair')}"


def test_list_shows_each_parameter_with_type_default_range_and_description(capsys):
    assert main.main(["notebook", "list"]) == 0
    text = capsys.readouterr().out
    for notebook in NOTEBOOKS.values():
        assert f"{notebook.name}  {notebook.title}  (about {notebook.minutes:g} min)" in text
        for p in notebook.parameters:
            assert f"{p.name}: {p.type} = " in text and f"[{p.allowed}]" in text and p.description in text


def test_list_as_json_equals_the_specification(capsys):
    assert main.main(["notebook", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == list(NOTEBOOKS)
    for entry, notebook in zip(listed, NOTEBOOKS.values(), strict=True):
        assert [p["name"] for p in entry["parameters"]] == [p.name for p in notebook.parameters]
        assert [p["default"] for p in entry["parameters"]] == [p.default for p in notebook.parameters]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "relu_budgt=0.25"], ["'relu_budget'"]),
        (["-p", "relu_budget=7"], ["relu_budget = 7 ", "0 to 1"]),
        (["-p", "relu_budget=many"], ["'many'", "wrong type", "float"]),
        (["-p", "n_seeds=2.5"], ["'2.5'", "wrong type", "int"]),
        (["-p", "relu_budget"], ["-p relu_budget=VALUE"]),
        (["-p", "seed=1", "-p", "seed=2"], ["seed is given more than once"]),
        (["--profile", "smal"], ["smoke | small", "'small'"]),
        (["--notebooks", "/nowhere"], ["/nowhere", "--notebooks DIR"]),
    ],
)
def test_a_wrong_request_exits_2_before_anything_runs(arguments, words, capsys, nothing_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(["notebook", "run", TOY.name, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("linfair: ")
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_notebook_exits_2_and_names_the_closest(capsys, nothing_runs):
    assert main.main(["notebook", "run", "01_toy_boundry"]) == 2
    assert "'01_toy_boundary'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["notebook"], ["notebok"], ["notebook", "run"]])
def test_argparse_refuses_an_incomplete_command_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2


def test_a_missing_papermill_names_the_extra(monkeypatch, tmp_path, capsys):
    folder = write(tmp_path / "nb", "pass")
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert main.main(["notebook", "run", TOY.name, "--notebooks", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert "pip install 'linfair[book]'" in capsys.readouterr().err


def test_a_run_from_anywhere_prints_one_path_and_leaves_one_file(tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "nb", "print('budget', relu_budget, 'of', n_seeds, 'seeds')")
    monkeypatch.chdir(tmp_path)
    code = main.main(["notebook", "run", TOY.name, "-p", "relu_budget=0.25", "--notebooks", str(folder)])
    out, err = capsys.readouterr()
    assert code == 0, err
    target = tmp_path / "_build" / "notebooks" / f"{TOY.name}.ipynb"
    assert out.strip() == str(target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    text = nbformat.read(target, 4).cells[-1].outputs[0].text
    assert text == "budget 0.25 of 20 seeds\n"


def test_a_failing_cell_exits_1_names_it_and_keeps_the_earlier_result(tmp_path, capsys):
    folder = write(tmp_path / "nb", "x = 1", "raise RuntimeError('no luck')")
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{TOY.name}.ipynb").write_text("an earlier result")
    code = main.main(["notebook", "run", TOY.name, "--notebooks", str(folder), "--out", str(out)])
    err = capsys.readouterr().err
    assert code == 1
    failed = out / f"{TOY.name}.failed.ipynb"
    for word in ("cell [3]", "RuntimeError: no luck", "raise RuntimeError", str(failed)):
        assert word in err
    assert (out / f"{TOY.name}.ipynb").read_text() == "an earlier result"
    assert sorted(path.name for path in out.iterdir()) == sorted([f"{TOY.name}.ipynb", failed.name])
    assert nbformat.read(failed, 4).cells


def test_an_interrupted_run_leaves_no_half_written_file(tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "nb", "pass")

    def interrupted(source, target, **options):
        Path(target).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    out = tmp_path / "out"
    assert main.main(["notebook", "run", TOY.name, "--notebooks", str(folder), "--out", str(out)]) == 130
    assert list(out.iterdir()) == []


def test_a_dead_kernel_is_reported_as_such(tmp_path):
    folder = write(tmp_path / "nb", "import os\nos._exit(1)")
    with pytest.raises(NotebookError, match="the kernel died"):
        notebooks.run(TOY.name, {}, out=tmp_path / "out", notebooks=folder, progress=False)


def test_python_dash_m_is_the_same_command_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "linfair", "notebook", "run", TOY.name, "-p", "relu_budgt=0.25"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Did you mean 'relu_budget'?" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As in `linfair linearizers | head -1`: no traceback, and the shell's code for a closed pipe, 128 + SIGPIPE."""
    command = [sys.executable, "-m", "linfair", "linearizers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in said and "BrokenPipe" not in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["linearise"], "did you mean linearize?"),
        (["linearize", "--budget", "0.5"], "unrecognized arguments: --budget 0.5; did you mean --budgets?"),
        (["linearize", "--device", "cudo"], "did you mean cuda?"),
        (["study", "runn", "fig06"], "did you mean run?"),
    ],
)
def test_a_misspelt_command_or_option_names_the_closest_one(typed, said, capsys) -> None:
    """Options by their full names only: `--budget` would otherwise be taken for `--budgets`."""
    with pytest.raises(SystemExit) as left:
        main.main(typed)
    assert left.value.code == 2
    assert said in capsys.readouterr().err
