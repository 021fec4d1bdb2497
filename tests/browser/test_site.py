"""The pages of the built book, opened from disk in a real browser; those of notebooks are in `test_notebook_pages`."""

from pathlib import Path

import pytest
from checks import PAGES, check_page
from playwright.sync_api import Page, expect

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
