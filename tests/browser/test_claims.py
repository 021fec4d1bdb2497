"""The claims page in a browser: its filter needs no script, and every number opens to where it comes from."""

import re
from pathlib import Path

import pytest
from linfair_book.judging.judge import AGREEMENT
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser


def test_the_filter_shows_the_claims_of_one_verdict_without_a_script(browser: Browser, site: Path) -> None:
    """Oracle: the verdicts in the page's source, counted; that they are what the rules say is `test_claims_page`'s."""
    source = (site / "book/claims.html").read_text(encoding="utf-8")
    parts = [
        re.findall(r'<li[^>]*class="claim"[^>]*data-verdict="([^"]*)"', part) for part in re.split("<fieldset", source)
    ]
    ours, *others = [found for found in parts if found]
    more = sum(map(len, others))  # claims of the other papers, which have filters of their own
    assert len(others) == 2 and len(ours) > 50 and min(map(len, others)) > 10
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "book/claims.html").as_uri())
    for summary in page.locator(".part > summary").all():
        summary.click()
    cards, rows = page.locator("li.claim:visible"), page.locator(".matrix tbody tr:visible")
    total = rows.count()
    page.check("#linearization-figures-not-run")
    assert 0 < rows.count() < total and "not run" in rows.first.inner_text()
    page.check("#linearization-figures-all")
    expect(rows).to_have_count(total)
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        for verdict in AGREEMENT:
            page.check(f"#linearization-{verdict.replace(' ', '-')}")
            expect(cards).to_have_count(ours.count(verdict) + more)
            for heading in page.locator("article h3:visible").all():
                assert heading.locator("xpath=..").locator("li.claim:visible").count(), heading.inner_text()
        page.check("#linearization-all")
        expect(cards).to_have_count(len(ours) + more)
    context.close()


def test_the_filter_and_the_numbers_answer_to_the_keyboard(tab: Page, site: Path) -> None:
    tab.goto((site / "book/claims.html").as_uri())
    tab.focus("#linearization-all")
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#linearization-yes")).to_be_checked()
    tab.check("#linearization-all")
    tab.locator(".matrix a[href='#claim-fig-2-relu']").click()  # which unfolds the part that the card is in
    number = tab.locator("#claim-fig-2-relu details").first
    expect(number).to_be_visible()
    number.locator("summary").focus()
    tab.keyboard.press("Enter")
    expect(number.locator("dl")).to_be_visible()
    number.locator("dl a").click()
    tab.wait_for_url("**/notebooks/*.html")
