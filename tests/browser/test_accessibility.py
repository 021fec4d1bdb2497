"""Every built page against axe-core, light on a desk and dark on a phone: nothing serious, nothing critical."""

from pathlib import Path

import pytest
from linfair_book import build, explorer
from playwright.sync_api import Browser, Page
from probe import OUTSIDE, lacking, open_context

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
AXE = "axe-core@4.10.2"
RULES = """async () => {
  const found = await axe.run(document, { preload: false, resultTypes: ["violations"] });
  return found.violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.length} x ${nodes[0].target.join(" ")} ${nodes[0].html.slice(0, 120)}`);
}"""


@pytest.fixture(scope="module")
def axe() -> Path:
    """axe-core as one script, from its npm package."""
    target = ROOT / build.BUILD / "axe" / "axe.min.js"
    if reason := build.npm_file(AXE, "axe.min.js", target):
        lacking(f"no {AXE}: {reason}")
    return target


def complaints(page: Page, path: Path, axe: Path) -> list[str]:
    page.goto(path.as_uri())
    page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    page.add_script_tag(path=axe)
    return page.evaluate(RULES)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing_serious_on_any_page(
    browser: Browser, site: Path, axe: Path, scheme: str, width: int
) -> None:
    """On a phone without the pages generated from docstrings: they are long, and all made alike."""
    context = open_context(browser, scheme, width)
    page, lines = context.new_page(), []
    page.route(OUTSIDE, lambda route: route.abort())
    for name in build.pages(ROOT):
        if width > 390 or not name.startswith("book/reference/api/"):
            lines += [f"{name}: {line}" for line in complaints(page, site / f"{name}.html", axe)]
    context.close()
    if lines:
        pytest.fail(f"{scheme}, {width} px\n" + "\n".join(lines), pytrace=False)


def test_axe_finds_what_is_wrong(browser: Browser, axe: Path, tmp_path: Path) -> None:
    """Guards the test above: a page with an unlabelled control and faint text must not pass."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><html lang="en"><title>x</title><main><input><p style="color: #ccc">faint</p></main>'
    )
    page = browser.new_page()
    assert {line.split(":")[0] for line in complaints(page, bad, axe)} == {"label", "color-contrast"}
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_explorers_own_pages(
    browser: Browser, axe: Path, tmp_path: Path, scheme: str
) -> None:
    grid = explorer.train_grid(explorer.GRIDS["smoke"], seeds=[0, 1], steps=2, progress=False)
    tables = explorer.result_tables(ROOT / "book/results")
    forms = explorer.show_boundary(grid, live=False), explorer.show_results(tables, live=False)
    context = open_context(browser, scheme, 390)
    page = context.new_page()
    for form in forms:
        path = tmp_path / f"{form.name}.html"
        path.write_text(form.page(form.name), encoding="utf-8")
        assert complaints(page, path, axe) == []
    context.close()
