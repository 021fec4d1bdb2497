"""The pages on rerunning and on studies: every command of every block is run, or is named here with why it is not."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
NOT_RUN = {
    "make book": "what builds the book is the other half of the whole check",
    "source .venv/bin/activate": "the test runs in an environment of its own",
    "LINFAIR_PROFILE=smoke pytest -q --nbval-lax notebooks": "the second half of `make test`",
    "pip install 'linfair[cluster]'": "the environment has it",
}
NO_GPU, NO_DATA = "torch sees no GPU here", "utkface not found in"
REFUSED = {
    "linfair study run fig06 --profile fast --device cuda --jobs 4 --out results": NO_GPU,
    "linfair study run fig06 --profile thin --data utkface_race --network resnet18 --method snl --jobs 2 "
    "--out results": NO_DATA,
}
"""Commands that need a GPU or the paper's data, and the words that say so where these are missing."""
ADDRESS = "--engine ray --address auto"
"""Needs a running cluster: its options are only read; tests/study/test_cluster.py runs one."""


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / "book" / page).read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "bash")).splitlines()
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "LINFAIR_CACHE": str(folder / "cache"),
        "LINFAIR_DATA": str(folder / "no-data"),
        "LINFAIR_PROFILE": "smoke",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the repository's notebooks; commands of one page build on each other."""
    place = tmp_path_factory.mktemp("user")
    (place / "notebooks").symlink_to(ROOT / "notebooks")
    (place / "no-data").mkdir()
    return place


@pytest.mark.parametrize("page", ["rerun.md", "run-a-study.md"])
def test_every_command_of_the_page_runs_in_order_or_says_what_it_lacks(page: str, folder: Path) -> None:
    """Notebooks run in the smoke profile; whatever needs a GPU or the paper's data must say so and how to go on."""
    found = commands(page)
    assert len(found) >= 5
    ran = []
    for command in found:
        if command in NOT_RUN or ADDRESS in command:
            continue
        words = shlex.split(command)
        if words[:3] == ["linfair", "notebook", "run"]:
            words += ["--profile", "smoke"]
        done = run(words, folder)
        if command in REFUSED:
            assert done.returncode != 0 and REFUSED[command] in done.stdout + done.stderr, done
        else:
            assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
        ran.append(command)
    assert len(ran) >= 4
    if page == "rerun.md":
        assert len(list((folder / "_build" / "notebooks").glob("*.ipynb"))) == 2 and (folder / "out.ipynb").exists()
    else:
        assert list((folder / "results").glob("*.parquet"))


def test_commands_that_are_not_run_are_still_on_the_pages() -> None:
    found = {command for page in ("rerun.md", "run-a-study.md") for command in commands(page)}
    assert {*NOT_RUN, *REFUSED} <= found
    assert [command for command in found if ADDRESS in command]


def test_options_of_the_cluster_command_are_those_of_the_program() -> None:
    from linfair.cli import build_parser

    [command] = [one for one in commands("run-a-study.md") if ADDRESS in one]
    options = build_parser().parse_args(shlex.split(command)[1:])
    assert (options.engine, options.address, options.gpus, options.out) == ("ray", "auto", 0.25, "s3://bucket/results")


def test_the_python_block_of_the_study_page_runs_as_a_script(folder: Path) -> None:
    """As it stands, under the guard that its comment asks for."""
    [block] = blocks("run-a-study.md", "python")
    lines = block.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("jobs ="))
    body = "\n".join(
        ["", 'if __name__ == "__main__":', *(f"    {line}" for line in lines[first:]), "    print(len(table))"]
    )
    (folder / "script.py").write_text("\n".join(lines[:first]) + body)
    done = run([sys.executable, "script.py"], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0
