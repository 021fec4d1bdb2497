"""axe-core on the explorers' own pages, and a guard for the test of every built page."""

from pathlib import Path

import pytest
from linfair_book import build, explorer
from playwright.sync_api import Page
from probe import complaints, open_page, resize

pytestmark = pytest.mark.browser

BAD = """<!doctype html><html lang="en"><title>x</title><main><input>
<p>good</p><p>good</p><p>good</p><p>good</p><p style="color: #ccc">faint</p>
<div style="background: #999"><p>good</p><div style="opacity: 0.5"><p>good</p></div></div></main></html>"""


def test_axe_finds_what_is_wrong(tab: Page, axe: str, tmp_path: Path) -> None:
    """Guards the other tests: an unlabelled control and faint text must not pass."""
    bad = tmp_path / "bad.html"
    bad.write_text(BAD)
    open_page(tab, bad)
    found = dict(line.split(": ")[:2] for line in complaints(tab, axe))
    assert found["label"].startswith("1 x") and found["color-contrast"].startswith("2 x") and len(found) == 2


def test_axe_finds_nothing_serious_on_the_explorers_own_pages(tab: Page, axe: str, tmp_path: Path) -> None:
    tables = explorer.result_tables(build.repository() / "book/results")
    for form in (explorer.show_boundary(live=False), explorer.show_results(tables, live=False)):
        path = tmp_path / f"{form.name}.html"
        path.write_text(form.page(form.name), encoding="utf-8")
        for scheme in ("light", "dark"):
            resize(tab, scheme, 390)
            open_page(tab, path)
            assert complaints(tab, axe) == []
