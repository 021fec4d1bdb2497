"""What every page of the built book must be, light and dark, on a phone and on a desk."""

from pathlib import Path

import pytest
from linfair_book import build
from playwright.sync_api import Page
from probe import DESK, PHONE, Visit, visit

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*build.pages(ROOT), "genindex", "search"]


def overflow(seen: Visit) -> object:
    facts = seen.facts
    if facts["scroll_width"] > facts["client_width"]:
        return f"page is {facts['scroll_width']} px wide; {facts['spilling'][:3]}"
    return facts["spilling"][:3]


def bad_images(seen: Visit) -> list[str]:
    """Without an alt text of its own an image gets its file's path: that is no description."""
    return [
        f"{image['src']} (alt: {image['alt']!r}, loaded: {image['loaded']})"
        for image in seen.facts["images"]
        if not image["loaded"] or not (image["alt"] or "").strip() or "_images/" in image["alt"]
    ]


def untypeset(seen: Visit) -> str:
    facts = seen.facts
    left = facts["formulas"] - facts["typeset"]
    return f"{left} formulas left as text, {facts['math_errors']} errors" if left or facts["math_errors"] else ""


def boxed(seen: Visit) -> list[float]:
    """Read off a screenshot of each image: a box counts, be it the style sheet's or the image's own."""
    return [b for b in seen.figures if (b > 0.3 if seen.scheme == "dark" else b < 0.7)]


CHECKS = {
    "errors in the console": lambda seen: seen.errors,
    "requests from outside": lambda seen: seen.outside,
    "not in the colour scheme": lambda seen: seen.facts["scheme"] != seen.scheme,
    "too wide": overflow,
    "images not loaded or not described": bad_images,
    "formulas not typeset": untypeset,
    "figures in a box of another colour": boxed,
    "contrast below 4.5 (WCAG 2 AA)": lambda seen: seen.facts["faint"][:5],
    "serious or critical for axe-core": lambda seen: seen.axe,
}
WITH_FIGURES = {"notebooks/01_toy_boundary", "notebooks/02_accuracy_impact"}
WITH_TABLES = {"notebooks/02_accuracy_impact", "notebooks/05_mitigation"}
WITH_FORMULAS = {"notebooks/03_theory"}
SAMPLED = {"book/reference/api/networks", "book/reference/api/metrics", "book/reference/api/study"}


def check_page(window: Page, site: Path, axe: str, page: str) -> None:
    """Open a page on a desk and on a phone, each time in one scheme, and switch to the other.

    Of the pages generated from docstrings, which are long and all made alike, axe-core looks at `SAMPLED` on a phone.
    """
    path, phone = site / f"{page}.html", not page.startswith("book/reference/api/") or page in SAMPLED
    visits = visit(window, path, DESK, axe) + visit(window, path, PHONE, axe if phone else "")
    wrong = [f"{name}: {seen}: {found}" for name, check in CHECKS.items() for seen in visits if (found := check(seen))]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)
    for seen in visits:
        assert seen.figures or seen.width < 600 or page not in WITH_FIGURES, "no figure: nothing was tested"
        assert seen.facts["tables"] or page not in WITH_TABLES, "no table: nothing was tested"
        assert seen.facts["formulas"] or page not in WITH_FORMULAS, "no formula: nothing was tested"
