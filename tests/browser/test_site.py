"""The pages of the built book, opened from disk in a real browser; those of notebooks are in `test_notebook_pages`."""

from pathlib import Path

import pytest
from checks import PAGES, check_page
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("notebooks/")])
def test_a_page_is_sound_light_and_dark_on_a_desk_and_on_a_phone(window: Page, site: Path, axe: str, page: str) -> None:
    check_page(window, site, axe, page)


def test_the_pages_that_are_visited_are_those_that_were_built(site: Path) -> None:
    built = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    assert {page for page in built if not page.startswith("_") and page != "index"} == set(PAGES)


def test_index_leads_to_the_first_page(tab: Page, site: Path) -> None:
    tab.goto((site / "index.html").as_uri())
    tab.wait_for_url(f"**/{PAGES[0]}.html")


def test_search_works_from_disk(tab: Page, site: Path) -> None:
    tab.goto(f"{(site / 'search.html').as_uri()}?q=ReLU")
    expect(tab.locator("#search-results li a").first).to_be_visible()


@pytest.mark.parametrize("width", [1440, 390])
def test_the_first_page_names_paper_venue_and_finding_within_700_pixels(tab: Page, site: Path, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto((site / "book/index.html").as_uri())
    for words in ("Disparate Impact on Group Accuracy", "ICML 2024", "far more than the others", "Released code"):
        box = tab.locator("article").get_by_text(words).first.bounding_box()
        assert box["y"] + box["height"] <= 700, words
    assert len(tab.locator("article").inner_text().split()) < 1200


def test_the_slider_moves_the_budget_by_keyboard_and_the_data_can_be_changed(tab: Page, site: Path) -> None:
    """Oracle: the numbers that come with the page."""
    tab.goto((site / "book/index.html").as_uri())
    data = tab.evaluate("JSON.parse(document.querySelector('.front .data').textContent)")
    slider, row = tab.locator(".front input[type=range]"), tab.locator(".front tbody tr").first
    slider.focus()
    tab.keyboard.press("Home")
    first = data[0]["groups"][0]
    expect(row).to_contain_text(f"{first['accuracy'][0]:.1f}")
    expect(slider).to_have_attribute("aria-valuetext", "100 % of the ReLUs")
    tab.keyboard.press("ArrowRight")
    expect(row).to_contain_text(f"{first['accuracy'][1]:.1f}")
    tab.get_by_role("radio", name=data[2]["name"]).check()
    expect(row).to_contain_text(data[2]["groups"][0]["name"])
    expect(tab.locator(".front svg:visible")).to_have_count(1)


def test_the_first_page_has_its_picture_without_a_script(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((site / "book/index.html").as_uri())
    expect(page.locator(".front svg:visible")).to_have_count(1)
    expect(page.locator(".front tbody tr").last).to_be_visible()
    context.close()


def test_a_page_in_the_dark_scheme_is_printed_in_the_light_one(browser: Browser, site: Path) -> None:
    """Oracle: the two events that a browser sends around printing; dark headings of the theme's print style need it."""
    context = browser.new_context(color_scheme="dark", offline=True)
    tab = context.new_page()
    tab.goto((site / "book/index.html").as_uri())
    page = tab.locator("html")
    expect(page).to_have_attribute("data-theme", "dark")
    for event, scheme in (("beforeprint", "light"), ("afterprint", "dark")):
        tab.evaluate("name => void window.dispatchEvent(new Event(name))", event)
        expect(page).to_have_attribute("data-theme", scheme)
    context.close()
