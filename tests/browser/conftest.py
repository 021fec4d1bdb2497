"""One Chromium and one window for all browser tests of a process, and the built site they look at."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from linfair_book import build, explorer
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright
from probe import lacking, resize

ROOT = Path(__file__).resolve().parents[2]
AXE = "axe-core@4.10.2"
AXE_SHA256 = "b511cd9dec01c76f4b2ad1723b66b6db37d4c2eb4ed199076e1829d9ee7b75e3"
PATIENCE = 120_000  # milliseconds: a busy machine may be slow
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
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def window(browser: Browser) -> Iterator[Page]:
    """The one window; nothing outside can be reached from it."""
    context = browser.new_context(offline=True)
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


@pytest.fixture
def tab(window: Page) -> Iterator[Page]:
    """The window as a phone's; the test fails on any error in the console."""
    errors = []

    def say(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    def cry(error: Error) -> None:
        errors.append(str(error))

    resize(window, "light", 390)
    window.on("console", say)
    window.on("pageerror", cry)
    yield window
    window.remove_listener("console", say)
    window.remove_listener("pageerror", cry)
    assert errors == []


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core as one script, from its npm package."""
    target = ROOT / build.BUILD / "axe" / "axe.min.js"
    if reason := build.npm_file(AXE, "axe.min.js", target, AXE_SHA256):
        lacking(f"no {AXE}: {reason}")
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built book, with a vendored MathJax."""
    folder = ROOT / build.HTML
    if not (folder / "index.html").is_file():
        lacking(f"no built book in {build.HTML}: run 'make book'")
    if not (folder / "_static" / build.MATHJAX_FILE).is_file():
        lacking("the book was built with MathJax from a CDN: install npm, then run 'make book'")
    return folder


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explorer as a page of its own."""
    path = tmp_path_factory.mktemp("explorer") / "boundary.html"
    path.write_text(explorer.show_boundary(live=False).page("Boundary"), encoding="utf-8")
    return path
