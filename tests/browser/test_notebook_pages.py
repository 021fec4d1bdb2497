"""The notebooks' pages of the built book, opened from disk in a real browser: half of the work, for another process."""

from pathlib import Path

import pytest
from checks import PAGES, check_page
from playwright.sync_api import Page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("notebooks/")])
def test_a_page_is_sound_light_and_dark_on_a_desk_and_on_a_phone(window: Page, site: Path, axe: str, page: str) -> None:
    check_page(window, site, axe, page)
