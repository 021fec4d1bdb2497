"""One Chromium for all browser tests, and the built site they look at."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from linfair_book import build
from playwright.sync_api import Browser, sync_playwright
from probe import lacking

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        lacking("no chromium on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built book, with a vendored MathJax."""
    folder = ROOT / build.HTML
    if not (folder / "index.html").is_file():
        lacking(f"no built book in {build.HTML}: run 'make book'")
    if not (folder / "_static" / build.MATHJAX_FILE).is_file():
        lacking("the book was built with MathJax from a CDN: install npm, then run 'make book'")
    return folder
