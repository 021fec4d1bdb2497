"""The page "Add your own data set": its blocks are run in order, and what it shows is what they print.

The commands of `book/use-it.md` then go on from its files.
"""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from linfair.cli import main

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "book/add-your-own-data.md"
BLOCKS = re.findall(r"^```(python|bash|text)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_pages_blocks_run_in_order_and_print_what_it_shows(tmp_path, monkeypatch, capsys):
    """Oracle for the printed table: the page itself. For the groups: every tenth image of 600 is dark."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    assert [kind for kind, _ in BLOCKS] == ["python", "bash", "text", "bash", "python", "bash"]
    printed = ""
    for kind, text in BLOCKS:
        if kind == "text":
            assert printed.rstrip() == text.rstrip()
        elif kind == "python":
            exec(compile(text, str(PAGE), "exec"), {"__name__": "page"})
        else:
            for line in text.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line)
                assert program == "linfair"
                assert main.main(words) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
    table = pd.read_parquet(next(tmp_path.glob("linearized/*/groups.parquet")))
    counted = table[(table["arm"] == "original")].groupby(["split", "group_name"])["n"].sum().unstack(0)
    assert set(table["data"]) == {"folder:my-shapes (group=light, label=shape)"}
    assert set(counted.index) == {"bright", "dark"} and (counted.loc["dark", "test"]) == 12
    assert (tmp_path / "my-shapes.npz.sha256").is_file()

    files = next(tmp_path.glob("linearized/*"))
    of = ["--teacher", "teacher", "--mask", "snl-0.1.mask", "--weights", "snl-0.1.weights"]
    of[1::2] = [str(files / f"{name}.safetensors") for name in of[1::2]]
    for command in (["diagnose"], ["mitigate", "--profile", "smoke"]):
        assert main.main([*command, *of]) == 0, capsys.readouterr().err
        assert {"bright", "dark"} <= set(capsys.readouterr().out.split())
    assert main.main(["export", *of]) == 0


@pytest.mark.parametrize("word", ["--label", "--group", "--strict"])
def test_the_page_speaks_of_options_that_exist(word, capsys):
    assert main.main(["data", "describe", "--help"]) == 0
    assert word in capsys.readouterr().out
