"""The `linfair` command: exit codes, messages, and what is left on disk."""

import ast
import inspect
import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from linfair_book import notebooks
from linfair_book.notebooks import NotebookError
from nbformat.v4 import new_code_cell, new_notebook
from safetensors import SafetensorError

from linfair.cli import main
from linfair.linearizers import LINEARIZERS
from linfair.mitigation.registry import MITIGATIONS
from linfair.study.jobs import held
from linfair.study.recipes import PROFILES

NAME = "01_toy_boundary"
CELL = """relu_budget: float = 0.5  # Share of ReLUs kept. [0, 1]
n_seeds: int = 20  # Repetitions. [2, 200], smoke: 2
seed: int = 0  # First seed. [0, 1000000]
profile: str = "small"  # How large. {smoke, small}"""


def write(folder: Path, *sources: str) -> Path:
    """A stand-in for notebook 01: a parameters cell, then the given cells."""
    cells = [new_code_cell(CELL, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{NAME}.ipynb")
    return folder


@pytest.fixture
def nothing_runs(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("papermill was called")

    monkeypatch.setattr("papermill.execute_notebook", fail)


def test_version_is_the_packages(capsys):
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"linfair {version('linfair')}"


def test_list_shows_each_parameter_with_type_default_range_and_description(capsys):
    assert main.main(["notebook", "list"]) == 0
    text = capsys.readouterr().out
    for notebook in notebooks.listed().values():
        assert f"{notebook.name}  {notebook.title}  (about {notebook.minutes:g} min)" in text
        for p in notebook.parameters:
            assert f"{p.name}: {p.type} = " in text and f"[{p.allowed}]" in text and p.description in text


def test_list_as_json_holds_the_same(capsys):
    assert main.main(["notebook", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    for entry, notebook in zip(listed, notebooks.listed().values(), strict=True):
        assert entry["name"] == notebook.name
        assert [p["name"] for p in entry["parameters"]] == [p.name for p in notebook.parameters]
        assert [p["default"] for p in entry["parameters"]] == [p.default for p in notebook.parameters]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "relu_budgt=0.25"], ["'relu_budget'"]),
        (["-p", "relu_budget=7"], ["relu_budget = 7 ", "0 to 1"]),
        (["-p", "relu_budget=many"], ["'many'", "wrong type", "float"]),
        (["-p", "n_seeds=2.5"], ["2.5", "wrong type", "int"]),
        (["-p", "relu_budget"], ["-p relu_budget=VALUE"]),
        (["-p", "seed=1", "-p", "seed=2"], ["seed is given more than once"]),
        (["--profile", "smal"], ["smoke | small", "'small'"]),
        (["--notebooks", "/nowhere"], ["/nowhere", "--notebooks DIR"]),
    ],
)
def test_a_wrong_request_exits_2_before_anything_runs(arguments, words, capsys, nothing_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.main(["notebook", "run", NAME, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("linfair: ")
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_notebook_exits_2_and_names_the_closest(capsys, nothing_runs):
    assert main.main(["notebook", "run", "01_toy_boundry"]) == 2
    assert "'01_toy_boundary'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["notebook"], ["notebok"], ["notebook", "run"]])
def test_an_incomplete_command_exits_2(arguments):
    assert main.main(arguments) == 2


def test_without_the_books_package_its_commands_say_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "linfair_book", None)
    assert main.main(["notebook", "list"]) == 2
    assert 'pip install "linfair[book]"' in capsys.readouterr().err


def test_the_package_imports_the_books_package_in_one_function_only():
    """Oracle: the syntax trees. `linfair` works without `linfair_book`; only `linfair notebook` needs it."""
    root, found = Path(main.__file__).parents[1], {}
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in nodes:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            if any(name.partition(".")[0] == "linfair_book" for name in names):
                found[path.relative_to(root).as_posix()] = node in tree.body
    assert found == {"cli/notebook.py": False}


def test_a_run_from_anywhere_prints_one_path_and_leaves_one_file(tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "nb", "print('budget', relu_budget, 'of', n_seeds, 'seeds')")
    monkeypatch.chdir(tmp_path)
    code = main.main(["notebook", "run", NAME, "-p", "relu_budget=0.25", "--notebooks", str(folder)])
    out, err = capsys.readouterr()
    assert code == 0, err
    target = tmp_path / "_build" / "notebooks" / f"{NAME}.ipynb"
    assert out.strip() == str(target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    text = nbformat.read(target, 4).cells[-1].outputs[0].text
    assert text == "budget 0.25 of 20 seeds\n"


def test_a_failing_cell_exits_1_names_it_and_keeps_the_earlier_result(tmp_path, capsys):
    folder = write(tmp_path / "nb", "x = 1", "raise RuntimeError('no luck')")
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{NAME}.ipynb").write_text("an earlier result")
    code = main.main(["notebook", "run", NAME, "--notebooks", str(folder), "--out", str(out)])
    err = capsys.readouterr().err
    assert code == 1
    failed = out / f"{NAME}.failed.ipynb"
    for word in ("cell [3]", "RuntimeError: no luck", "raise RuntimeError", str(failed)):
        assert word in err
    assert (out / f"{NAME}.ipynb").read_text() == "an earlier result"
    assert sorted(path.name for path in out.iterdir()) == sorted([f"{NAME}.ipynb", failed.name])
    assert nbformat.read(failed, 4).cells


def test_an_interrupted_run_leaves_no_half_written_file(tmp_path, monkeypatch, capsys):
    folder = write(tmp_path / "nb", "pass")

    def interrupted(source, target, **options):
        Path(target).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    out = tmp_path / "out"
    assert main.main(["notebook", "run", NAME, "--notebooks", str(folder), "--out", str(out)]) == 130
    assert list(out.iterdir()) == []


def test_a_dead_kernel_is_reported_as_such(tmp_path):
    folder = write(tmp_path / "nb", "import os\nos._exit(1)")
    with pytest.raises(NotebookError, match="the kernel died"):
        notebooks.run(notebooks.find(NAME, folder), {}, out=tmp_path / "out", progress=False)


def test_python_dash_m_is_the_same_command_from_any_folder(tmp_path):
    """Without torch, which takes seconds to import: help does not need it."""
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('linfair', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "linearizers" in done.stdout


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
        (["linearise"], 'Did you mean "linearize"?'),
        (["linearize", "--budget", "0.5"], "--budget. Did you mean --budgets?"),
        (["linearize", "--device", "cudo"], 'Did you mean "cuda"?'),
        (["study", "runn", "fig06"], 'Did you mean "run"?'),
        (["data", "describe", "digits", "--sed=3"], "--sed"),
    ],
)
def test_a_misspelt_command_or_option_names_the_closest_one(typed, said, capsys) -> None:
    """Options by their full names only: `--budget` would otherwise be taken for `--budgets`."""
    assert main.main(typed) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("linfair: ") and err.count("\n") == 1 and said in err


def test_the_last_of_a_repeated_option_counts_and_values_may_follow_an_equals_sign() -> None:
    _, typed = main.parse(["linearize", "--seed", "1", "--seed=2", "--budgets=0.5,0.2", "--no-control"])
    trained = typed.arguments["trained"]
    assert (trained.seed, trained.control, typed.arguments["budgets"]) == (2, False, (0.5, 0.2))


@pytest.mark.parametrize(("command", "names"), [("mitigate", [*MITIGATIONS, *PROFILES]), ("linearize", LINEARIZERS)])
def test_help_names_every_arm_method_and_profile(command, names, capsys) -> None:
    assert main.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "/a/b"), 2, ["/a/b", "No such file"]),
        (PermissionError(13, "Permission denied", "/a/b"), 2, ["/a/b", "Permission denied"]),
        (OSError(28, "No space left on device"), 2, ["No space left"]),
        (OSError(40, "Too many levels of symbolic links", "x\x1b[31m"), 2, ["x\\x1b[31m"]),
        (SafetensorError("header too large"), 2, ["header too large", "damaged"]),
        (zipfile.BadZipFile("not a zip"), 2, ["not a zip"]),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 2, ["utf-8"]),
        (ModuleNotFoundError("No module named 'ray'", name="ray"), 2, ["linfair[cluster]"]),
        (ModuleNotFoundError("No module named 'papermill'", name="papermill"), 2, ["linfair[book]"]),
        (ImportError("Install s3fs to access S3"), 2, ["s3fs"]),
        (ImportError("cannot import name x", name="linfair.gates"), 1, ["fault of linfair", "--debug"]),
        (RecursionError("too deep"), 2, ["nested"]),
        (MemoryError("12 TB"), 1, ["memory", "12 TB"]),
        (RuntimeError("CUDA out of memory. Tried"), 1, ["memory", "ask for less"]),
        (TypeError("no\nint"), 1, ["fault of linfair", "TypeError: no\\nint", "--debug"]),
        (KeyError("column"), 1, ["KeyError: 'column'"]),
        (
            ValueError("b\u202ee\rl\x07l\x9b2J\udcff \u200b" + "x" * 10**6),
            2,
            ["b\\u202ee\\rl\\x07l\\x9b2J\\udcff", "characters left"],
        ),
    ],
)
def test_every_error_is_one_short_line_and_its_traceback_comes_with_debug(
    error, code, words, monkeypatch, capsys
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(main, "parse", lambda _: (fail, inspect.signature(fail).bind()))
    monkeypatch.setattr(fail, "__module__", "linfair.cli.network")
    assert main.main([]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("linfair: ") and err.count("\n") == 1 and len(err) <= 1000
    assert [word for word in words if word not in err] == []
    assert main.main(["--debug"]) == code
    traced = capsys.readouterr().err
    assert traced.startswith("Traceback") and "in fail" in traced and traced.endswith(err)
    assert set(traced) & set("\x1b\x07\x9b\r\u202e") == set()


def test_debug_may_stand_anywhere_and_is_no_word_of_the_command() -> None:
    for words in (
        ["--debug", "data", "status"],
        ["data", "--debug", "status", "--json"],
        ["data", "status", "--debug"],
    ):
        assert main.parse(words)[0].__name__ == "show"


def test_what_a_terminal_obeys_is_shown_in_tables_too(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path))
    assert main.main(["data", "status", "--root", "a\x1b[31mred\x07\u202e\udcffé"]) == 0
    out, _ = capsys.readouterr()
    assert "a\\x1b[31mred\\x07\\u202e\\udcffé" in out


def test_without_a_place_to_print_to_nothing_fails(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main.main(["linearizers"]) == 0 and main.main(["linearizers", "--nothing"]) == 2


OUTPUTS = {
    "linearize --out": "x",
    "audit --teacher t --out": "x",
    "mitigate --teacher t --mask m --out": "x",
    "diagnose --teacher t --mask m --out": "x.parquet",
    "data describe digits --write": "x.parquet",
    "data pack cifar10 --out": "x.npz",
    "data fetch cifar10 --root": "x",
    "study run fig06 --out": "x",
    "study run fig06 --out out --cache": "x",
    "study merge --out . --into": "x",
    "study table fig06 --out . --to": "x.csv",
    "notebook run 01_toy_boundary --out": "x",
}


@pytest.mark.parametrize("words", OUTPUTS)
@pytest.mark.parametrize("place", ["IN/file/", "/dev/null/", "~nouser/", "s3://bucket/", "IN/" + "n" * 300])
def test_every_output_is_tried_before_anything_is_read(
    words, place, tmp_path, monkeypatch, capsys, nothing_runs
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    path = place.replace("IN/", f"{tmp_path}/") + OUTPUTS[words]
    assert main.main([*words.split(), path]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("linfair: ") and err.count("\n") == 1 and path[:200] in err
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["LINFAIR_CACHE", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("words", ["linearize", "study run fig06 --out out"])
def test_the_cache_is_tried_too(name, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LINFAIR_CACHE", raising=False)
    for place in ("/dev/null", "~nouser/x"):
        monkeypatch.setenv(name, place)
        assert main.main(words.split()) == 2
        assert place in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_two_commands_never_write_to_one_folder_at_once(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with held(tmp_path / "both", ".linfair"):
        for words in ("linearize --out both", "audit --teacher t --out ./both/../both"):
            assert main.main(words.split()) == 2
            said = capsys.readouterr().err
            assert f"process {os.getpid()}" in said and "both" in said and "name another place" in said
    assert main.main(["audit", "--teacher", "t", "--out", "both"]) == 2
    assert "no network at t" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"cells": []}', b"\xff\xfe", b"[" * 100_000, None])
def test_a_notebook_that_is_none_is_named_and_leaves_the_others(content, tmp_path, capsys) -> None:
    folder = write(tmp_path / "nb", "pass")
    bad = folder / "bad.ipynb"
    bad.mkdir() if content is None else bad.write_bytes(content)
    assert main.main(["notebook", "list", "--notebooks", str(folder)]) == 2
    assert str(bad) in capsys.readouterr().err
    assert notebooks.find(NAME, folder).name == NAME


@pytest.mark.parametrize(
    "value", ["relu_budget=0.1_5", "n_seeds=1_0", "n_seeds=٣", "n_seeds=" + "9" * 100, "relu_budget=nan"]
)
def test_parameters_are_numbers_in_plain_digits(value, capsys, nothing_runs) -> None:
    assert main.main(["notebook", "run", NAME, "-p", value]) == 2
    name, _, given = value.partition("=")
    said = capsys.readouterr().err
    assert name in said and (given in said or "nan" in value)
