"""How the tests of the boundary explorer open it, press its buttons and read its numbers."""

from pathlib import Path

from playwright.sync_api import Page, expect
from probe import DRAWN

SHORT = "toy_wave_a_0_5_g-a-0-1-0-0"  # five steps of training


def settled(tab: Page) -> None:
    """What was asked for is computed, and drawn: that is done once a frame."""
    tab.evaluate(DRAWN)
    expect(tab.locator(".toy")).to_have_attribute("data-busy", "false")
    tab.evaluate(DRAWN)


def settled_with_link(tab: Page) -> None:
    """That, and what comes later is there too: the link, the words for the numbers, the other seeds' beginning."""
    settled(tab)
    expect(tab.locator(".toy")).to_have_attribute("data-pending", "false")


def open_at(tab: Page, path: Path, link: str = SHORT) -> None:
    """Another link alone would be no other page: go away first."""
    tab.goto("about:blank")
    tab.goto(f"{path.as_uri()}#{link}")
    settled(tab)


def shown(tab: Page) -> list[str]:
    """Both groups' accuracies now, with all ReLUs, and the change."""
    return [text.strip() for text in tab.locator(".now tbody td").all_inner_texts()]


def address(tab: Page) -> str:
    settled_with_link(tab)
    return tab.get_by_text("Link to this network").get_attribute("href").removeprefix("#")


def press(tab: Page, name: str) -> None:
    tab.get_by_role("button", name=name, exact=True).click()
    settled(tab)
