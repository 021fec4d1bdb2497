"""Every page of the built book, opened from disk in a real browser, light and dark, on a phone and a desk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from linfair_book import build
from playwright.sync_api import Browser, expect
from probe import Visit, open_context, visit

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
SCHEMES = ("light", "dark")
WIDTHS = (390, 1440)


@pytest.fixture(scope="module")
def visits(browser: Browser, site: Path) -> list[Visit]:
    """All pages, in every scheme and width; opened once for the whole module."""
    pages = sorted(
        path.relative_to(site).as_posix()
        for path in site.rglob("*.html")
        if not path.relative_to(site).parts[0].startswith("_") and path != site / "index.html"
    )
    seen = []
    for scheme in SCHEMES:
        for width in WIDTHS:
            context = open_context(browser, scheme, width)
            seen += [visit(context, page, (site / page).as_uri(), scheme, width) for page in pages]
            context.close()
    return seen


def expect_none(visits: list[Visit], find: Callable[[Visit], object]) -> None:
    """Fail with one line per visit for which `find` returns something."""
    if lines := [f"{seen}: {found}" for seen in visits if (found := find(seen))]:
        pytest.fail("\n".join(lines), pytrace=False)


def test_every_page_of_the_table_of_contents_was_visited(visits: list[Visit]) -> None:
    expected = {f"{page}.html" for page in build.pages(ROOT)}
    for scheme in SCHEMES:
        for width in WIDTHS:
            assert expected <= {seen.page for seen in visits if (seen.scheme, seen.width) == (scheme, width)}


def test_no_errors_in_the_console(visits: list[Visit]) -> None:
    expect_none(visits, lambda seen: seen.errors)


def test_nothing_is_requested_from_outside(visits: list[Visit]) -> None:
    expect_none(visits, lambda seen: seen.outside)


def test_pages_follow_the_colour_scheme(visits: list[Visit]) -> None:
    """Guards the dark-mode tests: without it they could all look at light pages."""
    expect_none(visits, lambda seen: seen.facts["scheme"] != seen.scheme)


def test_no_horizontal_overflow(visits: list[Visit]) -> None:
    def overflow(seen: Visit) -> object:
        facts = seen.facts
        if facts["scroll_width"] > facts["client_width"]:
            return f"page is {facts['scroll_width']} px wide; {facts['spilling'][:3]}"
        return facts["spilling"][:3]

    expect_none(visits, overflow)


def test_images_are_loaded_and_described(visits: list[Visit]) -> None:
    """Without an alt text of its own an image gets its file's path: that is no description."""

    def wrong(seen: Visit) -> list[str]:
        return [
            f"{image['src']} (alt: {image['alt']!r}, loaded: {image['loaded']})"
            for image in seen.facts["images"]
            if not image["loaded"] or not (image["alt"] or "").strip() or "_images/" in image["alt"]
        ]

    expect_none(visits, wrong)


def test_formulas_are_typeset(visits: list[Visit]) -> None:
    def untypeset(seen: Visit) -> str:
        facts = seen.facts
        left = facts["formulas"] - facts["typeset"]
        return f"{left} formulas left as text, {facts['math_errors']} errors" if left or facts["math_errors"] else ""

    expect_none(visits, untypeset)
    assert any(seen.facts["formulas"] for seen in visits), "no page holds a formula: nothing was tested"


def test_figures_take_the_colour_of_the_page(visits: list[Visit]) -> None:
    """Read off a screenshot of each image: a box counts, be it the style sheet's or the image's own."""

    def boxed(seen: Visit) -> list[float]:
        return [b for b in seen.figures if (b > 0.3 if seen.scheme == "dark" else b < 0.7)]

    expect_none(visits, boxed)
    for name in ("notebooks/01_toy_boundary.html", "notebooks/02_accuracy_impact.html"):
        assert all(seen.figures for seen in visits if seen.page == name), f"{name} shows no figure"


def test_text_and_tables_are_readable(visits: list[Visit]) -> None:
    """Contrast of at least 4.5 (WCAG 2 AA) against what is really behind the text."""
    expect_none(visits, lambda seen: seen.facts["faint"][:5])
    assert any(seen.facts["tables"] for seen in visits), "no page holds a table: nothing was tested"


def test_index_leads_to_the_first_page(browser: Browser, site: Path) -> None:
    tab = browser.new_page()
    tab.goto((site / "index.html").as_uri())
    tab.wait_for_url(f"**/{build.pages(ROOT)[0]}.html")
    tab.close()


def test_search_works_from_disk(browser: Browser, site: Path) -> None:
    errors = []
    tab = browser.new_page()
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"{(site / 'search.html').as_uri()}?q=ReLU")
    expect(tab.locator("#search-results li a").first).to_be_visible()
    assert not errors
    tab.close()
