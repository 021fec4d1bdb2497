"""README and how-to pages: every command of every block is run, or is named here with why it is not."""

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from linfair.cli import main
from linfair.inference import spu

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PAGES = (
    "README.md",
    "book/use-it.md",
    "book/install.md",
    "book/rerun.md",
    "book/run-a-study.md",
    "book/data/index.md",
    "book/publish-your-own.md",
)
"""The other how-to pages have tests of their own beside this one."""
NOT_RUN = {
    "make test": "this is part of it",
    ". .venv/bin/activate": "the test runs in an environment of its own",
    "python3.11 -m venv .venv": "`make env` does so, and test_project.py holds that both are the same",
    "pip install --require-hashes -r requirements-pip.txt": "likewise",
    "pip install --require-hashes -r requirements.txt": "likewise",
    "pip install --no-deps --no-build-isolation -e .": "likewise",
    "python -m linfair_book.build prepare": "likewise, of `make book`",
    "jupyter-book build . -W -n --keep-going": "likewise",
    "python -m linfair_book.build check": "likewise",
    'pytest -n 2 --dist loadfile -m "not slow"': "likewise, of `make test`",
    "linfair audit --model mymodel.py:build --weights w.safetensors --data digits --budgets 0.5,0.2,0.05 "
    "--out report/": "tests/audit/test_use_it.py runs it after the block that makes its files",
    "linfair data fetch cifar10": "needs a network; tests/data/test_sources.py downloads from a server of its own",
    "pip install ghp-import": "what it is for pushes to the reader's own fork",
    "ghp-import --no-jekyll --push --force _build/html": "likewise",
    "make book": "what builds the book is the other half of the whole check",
    "source .venv/bin/activate": "the test runs in an environment of its own",
    "LINFAIR_PROFILE=smoke pytest -n 2 --dist loadfile -q --nbval-lax notebooks": "the second half of `make test`",
    "linfair study run cpu --profile cpu --threads 2 --out results --known book/results": "days, with the paper's data;"
    " tests/study/test_cpu_profile.py refuses it without the hardware and reads its queue",
    "make mpc": "the whole check makes it before",
    "pip install 'linfair[cluster]'": "the environment has it",
}
NO_GPU, NO_DATA = "torch sees no GPU here", "utkface not found in"
REFUSED = {
    "linfair study run fig06 --profile fast --device cuda --jobs 4 --out results": NO_GPU,
    "linfair study run fig06 --profile thin --data utkface_race --network resnet18 --method snl --jobs 2 "
    "--out results": NO_DATA,
    "linfair data describe utkface_age": NO_DATA,
    "linfair data describe utkface_age --group race": NO_DATA,
    "linfair data pack cifar10 --out cifar10.npz": "cifar10 not found in",
}
"""Commands that need a GPU or the paper's data, and the words that say so where these are missing."""
ENGINE = "linfair cost --measure "
"""Needs the engine of `make mpc`, and says so where it is not there."""
ADDRESS = "--engine ray --address auto"
"""Needs a running cluster: its options are only read; tests/study/test_cluster.py runs one."""


SHORT = {
    "notebook run": ["--profile", "smoke"],
    "linearize": ["--profile", "smoke"],
    "linearize --data digits --network resnet18": ["--width", "2"],
    "mitigate": ["--profile", "smoke"],
    "reduce": ["--profile", "smoke"],
    "train": ["--profile", "smoke"],
    "expose": ["--profile", "smoke"],
    "cost --measure": ["--images", "1"],
}
"""What is added to commands that would take minutes."""
DONE: set[str] = set()
"""Commands that another page has already run in this folder."""


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"\s+#.*", "", line).split()) for line in lines if line.strip()]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    """As in a terminal, but for commands that start no worker: they run here, as importing would take longest."""
    environment = os.environ | {
        "LINFAIR_CACHE": str(folder / "cache"),
        "LINFAIR_DATA": str(folder / "no-data"),
        "LINFAIR_PROFILE": "smoke",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    if words[0] == "linfair" and words[1] not in {"notebook", "study"}:
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, environment), chdir(folder), redirect_stdout(out), redirect_stderr(err):
            status = main.main(words[1:])
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)


def has_engine() -> bool:
    try:
        return bool(spu.engine())
    except spu.EngineMissing:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the repository's notebooks and the images that the page on data sets makes."""
    place = tmp_path_factory.mktemp("user")
    (place / "notebooks").symlink_to(ROOT / "notebooks")
    (place / "no-data").mkdir()
    (place / "images.py").write_text(blocks("book/add-your-own-data.md", "python")[0])
    done = run([sys.executable, "images.py"], place)
    assert done.returncode == 0 and (place / "my-shapes/labels.csv").is_file(), done.stderr[-2000:]
    return place


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs_in_order_or_says_what_it_lacks(page: str, folder: Path) -> None:
    """Notebooks and networks in the smoke profile; whatever needs a GPU or the paper's data must say so."""
    for command in commands(page):
        if command in NOT_RUN or command in DONE or ADDRESS in command:
            continue
        DONE.add(command)
        words = shlex.split(command)
        for start, more in SHORT.items():
            words += more * command.startswith(f"linfair {start} ")
        done = run(words, folder)
        if command.startswith(ENGINE) and not has_engine():
            assert done.returncode == 2 and "make mpc" in done.stderr, done
        elif command in REFUSED:
            assert done.returncode != 0 and REFUSED[command] in done.stdout + done.stderr, done
        else:
            assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    files = {
        "README.md": ["linearized/mlp/snl-0.2.mask.safetensors", "linearized/resnet18/snl-0.2.mask.safetensors"],
        "book/use-it.md": ["linearized/mlp/snl-0.2-mitigated/report.parquet", "reduced/private/*.mask.*", "model.onnx"],
        "book/install.md": [],
        "book/rerun.md": ["_build/notebooks/02_accuracy_impact.ipynb", "out.ipynb"],
        "book/run-a-study.md": ["results/*.parquet"],
        "book/data/index.md": ["my-shapes.npz"],
        "book/publish-your-own.md": [],
    }
    for pattern in files[page]:
        assert list(folder.glob(pattern)), pattern


def test_commands_that_are_not_run_are_still_on_the_pages() -> None:
    found = {command for page in PAGES for command in commands(page)}
    assert sorted({*NOT_RUN, *REFUSED} - found) == []
    assert [command for command in found if ADDRESS in command]


def test_options_of_the_cluster_command_are_those_of_the_program() -> None:
    from linfair.cli.main import parse

    [command] = [one for one in commands("book/run-a-study.md") if ADDRESS in one]
    asked = parse(shlex.split(command)[1:])[1].arguments
    assert {name: asked[name] for name in ("engine", "address", "gpus", "out")} == {
        "engine": "ray",
        "address": "auto",
        "gpus": 0.25,
        "out": "s3://bucket/results",
    }


def test_the_python_block_of_the_study_page_runs_as_a_script(folder: Path) -> None:
    """As it stands, under the guard that its comment asks for."""
    [block] = blocks("book/run-a-study.md", "python")
    lines = block.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("jobs ="))
    body = "\n".join(
        ["", 'if __name__ == "__main__":', *(f"    {line}" for line in lines[first:]), "    print(len(table))"]
    )
    (folder / "script.py").write_text("\n".join(lines[:first]) + body)
    done = run([sys.executable, "script.py"], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0
