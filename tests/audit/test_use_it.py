"""The way to an audit on the page "Use it on your own network", from its blocks alone."""

import re
import shlex
from pathlib import Path

import pytest

from linfair.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_blocks_end_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The Python block with fewer epochs, the command in the smoke profile with one budget and one repair."""
    page = (ROOT / "book/use-it.md").read_text()
    part = page.split("## How do I audit my own network?\n")[1].split("\n## ")[0]
    ((kind, block), (shell, command)) = re.findall(r"^```(\w+)\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    assert (kind, shell) == ("python", "bash")
    assert command in (ROOT / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    exec(compile(block.replace("epochs=120", "epochs=20"), "use-it.md", "exec"), {"__name__": "page"})
    program, *words = shlex.split(command.replace("\\\n", "").replace("0.5,0.2,0.05", "0.05"))
    words += ["--profile", "smoke", "--no-curvature", "--arms", "group_dro"]
    assert program == "linfair" and main.main(words) == 0
    said = capsys.readouterr().out
    assert re.match(r"(Yes|No|Cannot tell): ", said)
    assert re.search(r"^With \d+(\.\d+)? % of the ReLUs left \([\d,]+ of 1,760[;)]", said, re.MULTILINE)
    assert {"index.html", "groups.parquet", "cost.parquet", "arms.parquet"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }
