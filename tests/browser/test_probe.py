"""The probe itself, against small pages whose defects are known: each must be found, and only there."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page
from probe import Visit, visit

pytestmark = pytest.mark.browser

GOOD = """<!doctype html><html data-theme="light"><body style="margin: 0"><main>
<p>Readable text.</p>
<div style="overflow-x: auto"><div style="width: 3000px; height: 9px">wide, but in its own box</div></div>
<img src="clear.png" alt="A clear figure">
</main></body></html>"""

BAD = """<!doctype html><html data-theme="dark"><body style="margin: 0; background: black"><main>
<p style="color: #333">Unreadable text.</p>
<div style="width: 3000px; height: 9px">too wide</div>
<img src="white.png" alt="">
<img src="missing.png" alt="missing">
<div class="math">\\(x\\)</div>
<script src="https://example.org/outside.js"></script>
<script>console.error("complaint"); undefined_function();</script>
</main></body></html>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(folder / "clear.png")
    Image.new("RGB", (40, 40), "white").save(folder / "white.png")
    (folder / "good.html").write_text(GOOD)
    (folder / "bad.html").write_text(BAD)
    return folder


def look(window: Page, path: Path, scheme: str) -> Visit:
    [seen] = visit(window, path, [(scheme, 1440)])
    return seen


def test_a_good_page_gives_no_complaint(window: Page, folder: Path) -> None:
    seen = look(window, folder / "good.html", "light")
    assert (seen.errors, seen.outside) == ([], [])
    assert seen.facts["scroll_width"] == seen.facts["client_width"] == 1440
    assert (seen.facts["spilling"], seen.facts["faint"]) == ([], [])
    assert seen.facts["images"] == [{"src": "clear.png", "alt": "A clear figure", "loaded": True}]
    assert seen.figures == [1.0]


def test_a_bad_page_is_found_out_in_every_respect(window: Page, folder: Path) -> None:
    seen = look(window, folder / "bad.html", "dark")
    assert "complaint" in seen.errors
    assert any("undefined_function" in error for error in seen.errors)
    assert any("missing.png" in error for error in seen.errors)
    assert seen.outside == ["https://example.org/outside.js"]
    assert seen.facts["scroll_width"] == 3000
    assert any("too wide" in text for text in seen.facts["spilling"])
    assert [(image["alt"], image["loaded"]) for image in seen.facts["images"]] == [
        ("", True),
        ("missing", False),
    ]
    assert (seen.facts["formulas"], seen.facts["typeset"]) == (1, 0)
    assert any("Unreadable" in text for text in seen.facts["faint"])
    assert max(seen.figures) == 1.0
