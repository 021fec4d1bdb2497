"""The built pages as files: links lead somewhere, and nothing is loaded from outside."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from linfair import book

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> dict[Path, BeautifulSoup]:
    """Every built page, parsed."""
    folder = ROOT / book.HTML
    if not (folder / "index.html").is_file():
        reason = f"no built book in {book.HTML}: run 'make book'"
        if os.environ.get("LINFAIR_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{reason} (LINFAIR_REQUIRE_BROWSER=1)")
        pytest.skip(reason)
    files = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
    return {path.resolve(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in files}


def inside(site: dict[Path, BeautifulSoup]) -> list[tuple[Path, str, Path, str]]:
    """All links within the book: page, link, file it means, anchor."""
    links = []
    for page, soup in site.items():
        for element in soup.select("a[href], img[src], script[src], link[href]"):
            link = element.get("href") or element.get("src")
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            links.append((page, link, target, unquote(parts.fragment)))
    return links


def test_links_within_the_book_lead_to_files(site: dict[Path, BeautifulSoup]) -> None:
    links = inside(site)
    assert links
    assert [f"{page}: {link}" for page, link, target, _ in links if not target.is_file()] == []


def test_anchors_exist_on_the_page_they_name(site: dict[Path, BeautifulSoup]) -> None:
    anchors = {page: {element["id"] for element in soup.select("[id]")} for page, soup in site.items()}
    wrong = [
        f"{page}: {link}"
        for page, link, target, anchor in inside(site)
        if anchor and target in anchors and anchor not in anchors[target]
    ]
    assert wrong == []


def test_pages_load_nothing_from_outside(site: dict[Path, BeautifulSoup]) -> None:
    """MathJax excepted where the book was built without npm; the browser tests then do not run."""
    loaded = [
        element.get("src") or element.get("href")
        for soup in site.values()
        for element in soup.select("script[src], img[src], iframe[src], link[rel~=stylesheet], link[rel~=preload]")
    ]
    outside = {address for address in loaded if urlsplit(address).scheme or urlsplit(address).netloc}
    vendored = (ROOT / book.HTML / "_static" / book.MATHJAX_FILE).is_file()
    assert outside <= (set() if vendored else {book.MATHJAX_CDN})


def test_the_unused_live_code_script_is_gone(site: dict[Path, BeautifulSoup]) -> None:
    """Left in, it declares a constant twice on every page: an error in the console."""
    assert [page.name for page, soup in site.items() if "THEBE_JS_URL" in str(soup)] == []
