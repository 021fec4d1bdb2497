"""Spelling of what people read: pages, notebooks' text, README, docstrings and messages. Oracle: codespell's list."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = "vermillion,nd"  # the name of the colour in the palette of Okabe and Ito; how 2nd ends
PYTHON = [path for folder in ("linfair", "book/_ext") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [*sorted(path for path in (ROOT / "book").rglob("*.md")), ROOT / "book/claims.csv"]
ROOT_FILES = [
    ROOT / name for name in ("README.md", "CHANGELOG.md", "CITATION.cff", "_config.yml", "_toc.yml", "Makefile")
]


def misspelt(*paths: Path) -> list[str]:
    """Lines of codespell's report; a word in it is wrong, or belongs into `ALLOWED`."""
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", ALLOWED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in (0, 65), done.stderr  # 65: words were found
    return done.stdout.splitlines()


@pytest.mark.parametrize("paths", [PAGES, PYTHON, ROOT_FILES], ids=["pages", "docstrings", "root"])
def test_no_word_is_misspelt(paths: list[Path]) -> None:
    assert all(path.is_file() for path in paths)
    assert misspelt(*paths) == []


def test_no_word_of_a_notebook_is_misspelt(tmp_path: Path) -> None:
    texts = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        texts.append(tmp_path / f"{path.stem}.md")
        texts[-1].write_text("\n\n".join(cell.source for cell in nbformat.read(path, 4).cells), encoding="utf-8")
    assert texts
    assert misspelt(*texts) == []


def test_a_misspelt_word_is_found(tmp_path: Path) -> None:
    """Guards the tests above."""
    page = tmp_path / "page.md"
    page.write_text("Who " + "recieves" + " less accuracy, " + "seperately" + " by group.\n")
    assert len(misspelt(page)) == 2
