"""The audit's report in Chromium: nothing outside, no overflow, readable in both settings, nothing serious for axe."""

from pathlib import Path

import pytest
from playwright.sync_api import Page
from probe import DESK, PHONE, resize, visit

from linfair.audit import Plan, audit, read_own, write_report
from linfair.audit.linearize import linearize_to
from linfair.study import ResultStore, grid

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a smoke run on digits, repairs and eigenvalues included."""
    folder = tmp_path_factory.mktemp("audit")
    store = ResultStore(folder / "store")
    (cell,) = grid("digits", "mlp", method="random", budgets=(0.2,), seeds=(3,), profile="smoke", width=16)
    linearize_to(folder, cell, with_control=False, store=store, progress=False)
    plan = Plan(method="random", budgets=(0.5, 0.2), arms=("balanced_sampling", "group_dro"), profile="smoke")
    found = audit(read_own(folder / "teacher.safetensors"), plan, store=store, progress=False)
    return write_report(found, folder / "report", command="linfair audit --teacher teacher.safetensors")


def test_it_fits_the_window_reads_well_and_asks_for_nothing(window: Page, page: Path, axe: str) -> None:
    for seen in visit(window, page, DESK, axe) + visit(window, page, PHONE, axe):
        assert seen.axe == [], seen
        assert seen.errors == [] and seen.outside == [], seen
        assert seen.facts["spilling"] == [] and seen.facts["scroll_width"] <= seen.facts["client_width"], seen
        assert seen.facts["faint"] == [], seen
        assert seen.facts["tables"] >= 6 and seen.facts["text"] > 4000


def test_figures_take_the_text_colour_of_the_setting(tab: Page, page: Path) -> None:
    """Oracle: the browser's computed style of the letters inside the figures, light on dark and dark on light."""
    colors = {}
    tab.goto(page.as_uri())
    for scheme in ("light", "dark"):
        resize(tab, scheme, 900)
        colors[scheme] = tab.evaluate(
            "() => [...new Set([...document.querySelectorAll('figure svg text')].map((n) => getComputedStyle(n).fill))]"
        )
    assert colors == {"light": ["rgb(87, 96, 106)"], "dark": ["rgb(168, 176, 184)"]}


CLIPPED = """() => [...document.querySelectorAll('main, .scroll, pre')].filter(
  (node) => node.scrollWidth > node.clientWidth + 1).map((node) => node.getAttribute('aria-label') || node.tagName)"""


def test_folded_tables_fit_a_phone_and_are_printed_on_a4(tab: Page, page: Path) -> None:
    """Oracle: the widths of what scrolls against their boxes; folded tables have a height on paper."""
    tab.goto(page.as_uri())
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 673, "height": 900})  # A4 within its margins
    try:
        assert tab.evaluate(CLIPPED) == []
        heights = "() => [...document.querySelectorAll('details table')].map((table) => table.offsetHeight)"
        assert min(tab.evaluate(heights)) > 20
    finally:
        tab.emulate_media(media="screen")
    for width in (390, 1440):
        resize(tab, "light", width)
        tab.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.evaluate(CLIPPED) == []
    assert "kd_over_c" not in (seen := tab.inner_text("main")) and "test_balanced" not in seen


def test_it_prints_on_light_paper(tab: Page, page: Path, tmp_path: Path) -> None:
    """In the dark setting too: the print style's page is white."""
    resize(tab, "dark", 900)
    tab.goto(page.as_uri())
    tab.emulate_media(media="print", color_scheme="dark")
    try:
        assert tab.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        tab.pdf(path=tmp_path / "report.pdf")
    finally:
        tab.emulate_media(media="screen")
    assert (tmp_path / "report.pdf").read_bytes()[:4] == b"%PDF"
