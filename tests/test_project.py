"""The project's own promises: set-up files that agree, a clean tree, a README whose every block works.

The oracle is always another file: what one says, the other must hold.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import yaml
from linfair_book import notebooks
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import linfair
from linfair.cli import main
from linfair.schedule import Schedule

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMED_BY_THE_CUSTOMER = (
    "torch",
    "torchvision",
    "jupyter-book",
    "papermill",
    "nbclient",
    "matplotlib",
    "ipywidgets",
    "pytest",
    "nbval",
)
LOCKS = ("requirements-pip.txt", "requirements.txt", "requirements-cuda.txt")
FOLDERS = {".ci", "book", "linfair", "notebooks", "tests"}
LARGEST_FILE = 2_000_000  # bytes
VARIABLE = re.compile(r"^LINFAIR_\w+=\w+ ")


def requirements(extra: str | None = None) -> dict[str, Requirement]:
    """What pip installs for `.[extra]`, by canonical name, linfair's own extras followed."""
    lines = list(PROJECT["dependencies"]) if extra is None else PROJECT["optional-dependencies"][extra]
    found = {}
    for requirement in map(Requirement, lines):
        if requirement.name == "linfair":
            for inner in requirement.extras:
                found |= requirements(inner)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found if extra is None else requirements() | found


def locked(*names: str) -> list[str]:
    """The lines of requirements*.txt that pip reads, an entry and its hashes on one."""
    text = "".join([(ROOT / name).read_text() for name in names or LOCKS]).replace("\\\n", "")
    return [line for line in text.splitlines() if not line.startswith("#")]


def pins(*names: str) -> dict[str, str]:
    found = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in locked(*names)]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def tracked() -> list[Path]:
    """The files that git holds, as far as they are still in the working tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of committed files")
    names = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(name) for name in names.stdout.split("\0") if name and (ROOT / name).is_file()]


def make(*arguments: str) -> subprocess.CompletedProcess:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # Variables given to an outer `make test` travel in the environment and would change what it does.
    variables = set(re.findall(r"^(\w+) \?= ", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {"PYTHON", "HASHES"}
    outer = variables | {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL"}
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def typed(page: str) -> list[list[str]]:
    """Every shell command of the page, split into words, comments and variables before it dropped."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(VARIABLE.sub("", line), comments=True) for line in lines]
    return [command for command in commands if command]


# --- what is installed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", NAMED_BY_THE_CUSTOMER)
def test_named_package_is_installed_by_both_make_targets_at_a_pin_within_its_range(package):
    assert package in requirements("all")
    assert requirements("all")[package].specifier.contains(pins()[package])


def test_every_requirement_is_pinned_within_its_range():
    pinned = pins()
    loose = {
        name: str(requirement)
        for name, requirement in requirements("all").items()
        if not (name in pinned and requirement.specifier.contains(pinned[name]))
    }
    assert loose == {}


def test_every_pin_has_hashes_and_no_line_names_a_registry():
    """A file with another SHA-256 is then refused, and only the indexes that the user chose are asked."""
    *pinned, include = sorted(locked(), key=lambda line: line.startswith("-"))
    assert include == "-c requirements-cuda.txt"
    engine = locked("requirements-mpc.txt")
    assert {"spu", "jax", "numpy", "onnx"} <= set(pins("requirements-mpc.txt"))
    hashed = re.compile(r"[\w.-]+==[\w.]+( ; [^;]+?)? +(--hash=sha256:[0-9a-f]{64} *)+")
    assert [line for line in pinned + engine if not hashed.fullmatch(line)] == []
    assert len(pinned) == len(pins()), "a package is pinned twice"


def test_pip_is_pinned_and_builds_with_a_pinned_setuptools():
    """What `--no-build-isolation` builds with is what is installed."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert [Requirement(line).name for line in build] == ["setuptools"]
    assert Requirement(build[0]).specifier.contains(pins()["setuptools"])
    assert "pip" in pins()


def test_what_only_cuda_builds_of_torch_need_is_a_constraint_and_not_a_requirement():
    """As a requirement it would be installed beside a CPU build too, some gigabytes of it."""
    cuda = re.compile("cuda-|nvidia-|triton$")
    assert {"triton", "nvidia-cudnn-cu13"} <= set(pins("requirements-cuda.txt"))
    assert [name for name in pins("requirements-cuda.txt") if not cuda.match(name)] == []
    assert [name for name in pins("requirements.txt") if cuda.match(name)] == []


def test_the_package_depends_on_what_it_imports_and_on_nothing_else():
    """Oracle: the import statements of linfair/. Ray, Opacus and ONNX are extras; torchvision is imported by name."""
    imported = set()
    for path in set((ROOT / "linfair").rglob("*.py")) - {ROOT / "linfair/inference/party.py"}:  # the engine's
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    extras = {"ray", "opacus", "onnx", "onnxscript", "onnxruntime"}
    outside = imported - sys.stdlib_module_names - {"linfair", "linfair_book"} - extras | {"torchvision"}
    distributions = metadata.packages_distributions()
    assert {canonicalize_name(distributions[name][0]) for name in outside} == set(requirements())


def test_pins_admit_every_python_that_the_project_admits():
    """Oracle: the installed packages' own metadata.

    Debian 12 ships Python 3.11.2; one pin that wants 3.11.5 and pip's resolver backtracks for hours.
    """
    oldest = re.fullmatch(r">=(3\.\d+)", PROJECT["requires-python"])[1] + ".0"
    refused = {}
    for name, version in pins().items():
        try:
            installed = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue  # pinned for an extra that is not installed here
        wanted = installed.get("Requires-Python")
        if wanted and installed["Version"] == version and not SpecifierSet(wanted).contains(oldest):
            refused[f"{name}=={version}"] = wanted
    assert refused == {}


def test_environment_yml_agrees_with_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert pip == f"pip={pins()['pip']}"
    name, version = python.split("=")
    assert name == "python"
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert through_pip["pip"] == ["-r requirements.txt"]


# --- make --------------------------------------------------------------------------------------------------


def test_make_alone_lists_every_target():
    listed = make()
    assert listed.returncode == 0, listed.stderr
    assert set(re.findall(r"make (\w+)", listed.stdout)) == targets() >= {"help", "book", "test", "lint", "clean"}


def test_make_names_the_way_out_when_no_python_is_new_enough(tmp_path):
    """A stand-in Python that reports itself as too old, next to a name that does not exist."""
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    failed = make("lint", f"VENV={tmp_path}/venv", f"PYTHON=no-such-python {old}")
    assert failed.returncode == 2
    assert "No Python 3.11 or newer" in failed.stderr
    assert "make lint PYTHON=/path/to/python3.11" in failed.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_runs_real_targets_and_the_browser_tests_without_skips():
    script = (ROOT / ".ci/run").read_text()
    called = re.findall(r"^step make (\w+)", script, re.MULTILINE)
    assert set(called) <= targets()
    assert called.index("book") < called.index("test")
    assert script.index("make book") < script.index("export LINFAIR_REQUIRE_BROWSER=1") < script.index("make test")
    assert os.access(ROOT / ".ci/run", os.X_OK)


# --- the tree ----------------------------------------------------------------------------------------------


def test_top_level_folders_are_the_agreed_ones():
    assert {path.parts[0] for path in tracked() if len(path.parts) > 1} <= FOLDERS


def test_no_committed_file_is_large():
    sizes = {str(path): (ROOT / path).stat().st_size for path in tracked()}
    assert {path: size for path, size in sizes.items() if size > LARGEST_FILE} == {}


def test_committed_notebooks_hold_no_outputs():
    notebooks = [path for path in tracked() if path.suffix == ".ipynb"]
    assert notebooks, "no notebook is committed"
    for path in notebooks:
        for number, cell in enumerate(json.loads((ROOT / path).read_text())["cells"]):
            where = f"{path}, cell {number}"
            assert not cell.get("outputs"), f"{where} holds outputs: strip them before committing"
            assert cell.get("execution_count") is None, f"{where} holds an execution count"


# --- version and citation ----------------------------------------------------------------------------------


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert {linfair.__version__, citation["version"], newest} == {PROJECT["version"]}


def test_preferred_citation_is_the_paper():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert paper["title"] == "Disparate Impact on Group Accuracy of Linearization for Private Inference"
    assert [author["family-names"] for author in paper["authors"]] == ["Das", "Romanelli", "Fioretto"]
    assert (paper["volume"], paper["start"], paper["end"], paper["year"]) == (235, 10168, 10184, 2024)


# --- README ------------------------------------------------------------------------------------------------


def test_readme_figure_is_committed_and_described():
    figures = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert figures
    for alt, path in figures:
        assert len(alt) > 40, f"{path} needs alt text that says what is seen"
        assert (ROOT / path).is_file(), f"{path} does not exist"


def test_readme_caption_quotes_the_committed_table():
    """Oracle: the rows that the figure is drawn from, averaged here by hand."""
    text = " ".join((ROOT / "README.md").read_text().split())
    said = re.search(
        r"at 20 % of the ReLUs the majority classes lose (\S+) points, the minority classes (\S+)\. ", text
    )
    over = re.search(r"over (\d+) seeds, each tested on (\d+) \+ (\d+) images", text)
    rows = pd.read_parquet(ROOT / "book/results/digits_mlp_snl.parquet")
    rows = rows[rows["split"] == "test_balanced"].assign(right=lambda table: table["accuracy"] * table["n"])
    for role, points, n in zip(("majority", "minority"), said.groups(), over.groups()[1:], strict=True):
        of_role = rows[rows["role"] == role]
        before, after = of_role[of_role["arm"] == "original"], of_role[of_role.eval("arm == 'plain' and budget == 0.2")]
        lost = 100 * (before["right"].sum() / before["n"].sum() - after["right"].sum() / after["n"].sum())
        assert points == f"{lost:.1f}"
        assert set(after.groupby("seed")["n"].sum()) == {int(n)}
    assert rows["seed"].nunique() == int(over[1])


def test_readme_links_lead_somewhere():
    links = re.findall(r"(?<!!)\[[^]]*\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_is_a_screen():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 80
    said = re.sub(r"^```.*?^```|\]\([^)]*\)", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(said.split()) < 500


@pytest.mark.parametrize(
    ("page", "programs"),
    [
        ("README.md", {"make", "linfair"}),
        ("book/use-it.md", {"make", "linfair"}),
        ("book/install.md", {"python", "pip", "pytest", "jupyter-book"}),
        ("book/rerun.md", {"make", "linfair", "papermill"}),
    ],
)
def test_commands_of_the_page_exist(page, programs):
    commands = typed(page)
    assert programs <= {words[0] for words in commands}
    for words in commands:
        check_command(words)


def check_command(words: list[str]) -> None:
    """Fail unless the command's target, sub-command, module, notebook and parameters exist."""
    program, *rest = words
    if program == "make":
        assert {word for word in rest if "=" not in word} <= targets(), words
    elif program == "linfair":
        asked = main.parse(rest)[1].arguments
        if rest[:2] == ["notebook", "run"]:
            notebook = notebooks.find(asked["name"])
            notebook.check(notebook.parse(asked.get("parameters", ())))
    elif program == "papermill":
        source = Path(rest[0])
        assert (ROOT / source).is_file(), words
        pairs = [rest[i + 1 : i + 3] for i, word in enumerate(rest) if word == "-p"]
        notebooks.find(source.stem).check({name: ast.literal_eval(value) for name, value in pairs})
    elif rest[:1] == ["-m"]:
        module = rest[1].replace(".", "/")
        assert rest[1] == "venv" or any((root / f"{module}.py").is_file() for root in (ROOT, ROOT / "book")), words
    else:
        assert program in {".", "source", "pip", "pytest", "jupyter-book"}, words


def test_steps_without_make_are_the_ones_make_takes(tmp_path):
    """Oracle: what `make --dry-run` prints, the environment's folder taken off (the page activates it)."""
    folder = f"{tmp_path}/venv/bin/"
    lines = make("--dry-run", "book", "test", f"VENV={tmp_path}/venv").stdout.splitlines()
    lines = [VARIABLE.sub("", line) for line in lines]
    recipe = [shlex.split(line.removeprefix(folder)) for line in lines if line.startswith(folder)]
    steps = [
        words[2:] if words[:3] in (["python", "-m", "pip"], ["python", "-m", "pytest"]) else words for words in recipe
    ]
    assert [step[0] for step in steps] == ["pip", "pip", "pip", "python", "jupyter-book", "python", "pytest", "pytest"]
    missing = [step for step in steps if step not in typed("book/install.md")]
    assert missing == []


def test_ten_lines_of_python_run(tmp_path, monkeypatch):
    """In short; the page's other block is run by `tests/audit/test_use_it.py`."""
    monkeypatch.chdir(tmp_path)
    block, _ = blocks("book/use-it.md", "python")
    block = block.replace('profile="small"', 'profile="smoke"')
    block = block.replace("fit(teacher, data)", "fit(teacher, data, schedule=Schedule(epochs=20))")
    exec(compile(block, "use-it.md", "exec"), {"__name__": "page", "Schedule": Schedule})
