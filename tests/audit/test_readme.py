"""The README's way to an audit, from its blocks alone."""

import re
import shlex
from pathlib import Path

import pytest

from linfair.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_blocks_end_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The Python block with fewer epochs, the command in the smoke profile with one budget and one repair."""
    part = (ROOT / "README.md").read_text().split("## Audit your own model\n")[1].split("\n## ")[0]
    ((kind, block), (shell, command)) = re.findall(r"^```(\w+)\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    assert (kind, shell) == ("python", "bash")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    exec(compile(block.replace("epochs=120", "epochs=20"), "README.md", "exec"), {"__name__": "readme"})
    program, *words = shlex.split(command.replace("0.5,0.2,0.05", "0.05"))
    words += ["--profile", "smoke", "--no-curvature", "--arms", "group_dro"]
    assert program == "linfair" and main.main(words) == 0
    said = capsys.readouterr().out
    assert re.match(r"(Yes|No|Cannot tell): ", said)
    assert re.search(r"^With \d+(\.\d+)? % of the ReLUs left \([\d,]+ of 1,760[;)]", said, re.MULTILINE)
    assert {"index.html", "groups.parquet", "cost.parquet", "arms.parquet"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }
