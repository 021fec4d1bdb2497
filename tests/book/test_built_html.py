"""The built pages as files: links lead somewhere, and nothing is loaded from outside."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from linfair_book import build

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> dict[Path, BeautifulSoup]:
    """Every built page, parsed."""
    folder = ROOT / build.HTML
    if not (folder / "index.html").is_file():
        reason = f"no built book in {build.HTML}: run 'make book'"
        if os.environ.get("LINFAIR_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{reason} (LINFAIR_REQUIRE_BROWSER=1)")
        pytest.skip(reason)
    files = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
    return {path.resolve(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in files}


def inside(site: dict[Path, BeautifulSoup]) -> list[tuple[Path, str, Path, str]]:
    """All links within the book: page, link, file it means, anchor."""
    links = []
    for page, soup in site.items():
        for element in soup.select("[href], [src], object[data]"):
            link = element.get("href") or element.get("src") or element.get("data")
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


def outside(address: str) -> bool:
    """Whether an address leaves the build. Links to follow may; what a page loads by itself may not."""
    parts = urlsplit(address.strip())
    return parts.scheme not in ("", "data") or bool(parts.netloc)


def loads(soup: BeautifulSoup) -> list[str]:
    """Every address that a browser fetches without a click: by attribute, or in a style sheet within the page."""
    found = [element["src"] for element in soup.select("[src]")]
    found += [element["data"] for element in soup.select("object[data]")]
    found += [element["poster"] for element in soup.select("[poster]")]
    found += [part.split()[0] for element in soup.select("[srcset]") for part in element["srcset"].split(",")]
    kinds = {"stylesheet", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "icon", "manifest"}
    found += [element["href"] for element in soup.select("link[href]") if kinds & set(element.get("rel", []))]
    found += [element.get("href") or element.get("xlink:href") or "" for element in soup.select("image, use")]
    styles = [element.text for element in soup.select("style")] + [e["style"] for e in soup.select("[style]")]
    found += [address for text in styles for address in in_style(text)]
    return found


def in_style(text: str) -> list[str]:
    """Addresses of fonts, images and other sheets in a style sheet."""
    return [a or b for a, b in re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", text)]


def test_pages_load_nothing_from_outside(site: dict[Path, BeautifulSoup]) -> None:
    """MathJax excepted where the book was built without npm; the browser tests then do not run."""
    found = {address for soup in site.values() for address in loads(soup) if outside(address)}
    vendored = (ROOT / build.HTML / "_static" / build.MATHJAX_FILE).is_file()
    assert found <= (set() if vendored else {build.MATHJAX_CDN})


def test_style_sheets_load_nothing_from_outside(site: dict[Path, BeautifulSoup]) -> None:
    sheets = list((ROOT / build.HTML).rglob("*.css"))
    assert sheets
    found = [f"{sheet.name}: {one}" for sheet in sheets for one in in_style(sheet.read_text("utf-8")) if outside(one)]
    assert found == []


def test_what_would_load_from_outside_is_seen() -> None:
    """Guards the two tests above, one address for each way in."""
    page = """<script src="https://a/1"></script><link rel="stylesheet" href="//a/2"><iframe src="http://a/3"></iframe>
        <img srcset="https://a/4 2x, here.png"><style>@import "https://a/5"; b { src: url('https://a/6') }</style>
        <p style="background: url(https://a/7)"></p><link rel="canonical" href="https://a/no"><a href="https://a/no">x</a>
        <img src="data:image/png;base64,AA"><img src="here.png">"""
    found = [address for address in loads(BeautifulSoup(page, "html.parser")) if outside(address)]
    assert sorted(address[-1] for address in found) == list("1234567")


def test_every_page_of_the_toc_was_written(site: dict[Path, BeautifulSoup]) -> None:
    """And no other: a page that left the table of contents must not stay behind."""
    expected = {(ROOT / build.HTML / f"{page}.html").resolve() for page in build.pages(ROOT)}
    assert expected <= set(site)
    made = {"index.html", "genindex.html", "search.html", "py-modindex.html", "prf-prf.html"}
    extra = {page for page in site if page not in expected and page.name not in made}
    assert {page for page in extra if "_modules" not in page.parts and "_downloads" not in page.parts} == set()


def test_the_unused_live_code_script_is_gone(site: dict[Path, BeautifulSoup]) -> None:
    """Left in, it declares a constant twice on every page: an error in the console."""
    assert [page.name for page, soup in site.items() if "THEBE_JS_URL" in str(soup)] == []


def test_every_notebook_shows_pictures_and_no_cell_shows_two(site: dict[Path, BeautifulSoup]) -> None:
    """An explorer is a picture too."""
    notebooks = {page: soup for page, soup in site.items() if page.parent.name == "notebooks"}
    assert len(notebooks) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for page, soup in notebooks.items():
        shown = [len(cell.select("img, [id^=linfair-]:not(script)")) for cell in soup.select("div.cell_output")]
        assert shown and max(shown) == 1, f"{page.name}: pictures of its cells {shown}"
