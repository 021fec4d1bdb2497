"""The claims page in a browser: its filter needs no script, and every number opens to where it comes from."""

from pathlib import Path

import pytest
from linfair_book import claims
from linfair_book.judging.judge import AGREEMENT
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("width", [390, 1440])
def test_the_filter_shows_the_claims_of_one_verdict_without_a_script(browser: Browser, site: Path, width: int) -> None:
    """Oracle: what the rules say, counted."""
    verdicts = [verdict.agreement for verdict in claims.read(ROOT)[2].values()]
    context = browser.new_context(java_script_enabled=False, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto((site / "book/claims.html").as_uri())
    cards = page.locator("li.claim:visible")
    for verdict in AGREEMENT:
        page.check(f"#verdict-{verdict.replace(' ', '-')}")
        expect(cards).to_have_count(verdicts.count(verdict))
        for heading in page.locator("article h2:visible").all():
            assert heading.locator("xpath=..").locator("li.claim:visible").count(), heading.inner_text()
    page.check("#verdict-all")
    expect(cards).to_have_count(len(verdicts))
    context.close()


def test_the_filter_and_the_numbers_answer_to_the_keyboard(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "book/claims.html").as_uri())
    page.focus("#verdict-all")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#verdict-yes")).to_be_checked()
    page.check("#verdict-all")
    number = page.locator("#claim-fig-2-relu details").first
    number.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(number.locator("dl")).to_be_visible()
    number.locator("dl a").click()
    page.wait_for_url("**/notebooks/*.html#*")
    page.close()
