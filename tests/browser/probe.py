"""Open one page in the browser and write down everything the tests ask about."""

import io
import os
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Route

OUTSIDE = re.compile(r"^(?!(file|data|blob|about):)")

FACTS = """() => {
  const root = document.documentElement;
  const content = document.querySelector("article.bd-article") || document.querySelector("main");
  const describe = (node) => {
    const text = (node.textContent || "").trim().slice(0, 40);
    return `<${node.tagName.toLowerCase()} class="${node.getAttribute("class") || ""}"> ${text}`;
  };
  const visible = (node) =>
    node.getClientRects().length > 0 && getComputedStyle(node).visibility === "visible";

  // sRGB, relative luminance and contrast as WCAG 2 defines them.
  const rgba = (text) => {
    const canvas = (rgba.canvas ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true }));
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const over = (top, below) => below.map((value, i) => (i < 3 ? top[i] * top[3] + value * (1 - top[3]) : 1));
  const background = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [1, 1, 1, 1]);
  };
  const luminance = (color) => {
    const linear = color.slice(0, 3).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };

  // Every element with text of its own, outside code and formulas.
  const faint = [];
  for (const node of content.querySelectorAll("*")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !visible(node) || node.closest("pre, svg, mjx-container, script, style, .headerlink")) continue;
    const color = rgba(getComputedStyle(node).color);
    for (let at = node; at; at = at.parentElement) color[3] *= getComputedStyle(at).opacity;
    const behind = background(node);
    const ratio = contrast(over(color, behind), behind);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(1)}: ${describe(node)}`);
  }

  // Sticks out of the window, and no box around it that fits scrolls or clips.
  const fits = (node) => node.getBoundingClientRect().right <= root.clientWidth + 1;
  const spilling = [];
  for (const node of content.querySelectorAll("*")) {
    if (!visible(node) || fits(node)) continue;
    let box = node.parentElement;
    while (box !== document.body && !(getComputedStyle(box).overflowX !== "visible" && fits(box)))
      box = box.parentElement;
    if (box === document.body) spilling.push(describe(node));
  }

  return {
    scheme: root.dataset.theme || null,
    scroll_width: root.scrollWidth,
    client_width: root.clientWidth,
    spilling: spilling,
    images: [...content.querySelectorAll("img")].map((image) => ({
      src: image.getAttribute("src"),
      alt: image.getAttribute("alt"),
      loaded: image.complete && image.naturalWidth > 0,
    })),
    formulas: content.querySelectorAll(".math").length,
    typeset: content.querySelectorAll(".math > mjx-container").length,
    math_errors: content.querySelectorAll("mjx-merror, [data-mjx-error]").length,
    faint: faint,
    tables: content.querySelectorAll("table").length,
    text: content.innerText.length,
  };
}"""


@dataclass
class Visit:
    """What happened when a page was opened, and what was on it."""

    page: str
    scheme: str
    width: int
    errors: list[str] = field(default_factory=list)  # console errors, uncaught exceptions, failed requests
    outside: list[str] = field(default_factory=list)  # addresses the page tried to load
    facts: dict = field(default_factory=dict)  # what FACTS returns
    figures: list[float] = field(default_factory=list)  # brightness around each image, 0 black to 1 white

    def __str__(self) -> str:
        return f"{self.page} ({self.scheme}, {self.width} px)"


def open_context(browser, scheme: str, width: int) -> BrowserContext:
    """A fresh browser profile with one colour scheme and window width."""
    return browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})


def visit(context: BrowserContext, page: str, url: str, scheme: str, width: int) -> Visit:
    """Open one page with everything outside blocked, wait for its formulas, collect the facts."""
    seen = Visit(page, scheme, width)

    def block(route: Route) -> None:
        seen.outside.append(route.request.url)
        route.abort()

    tab = context.new_page()
    tab.route(OUTSIDE, block)
    tab.on("console", lambda message: seen.errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: seen.errors.append(str(error)))
    tab.on("requestfailed", lambda request: seen.errors.append(f"not loaded: {request.url}"))
    tab.goto(url)
    tab.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    seen.facts = tab.evaluate(FACTS)
    for image in tab.locator("article.bd-article img, main > img").all():
        if image.is_visible():
            seen.figures.append(surrounding_brightness(image.screenshot()))
    tab.close()
    return seen


def surrounding_brightness(png: bytes) -> float:
    """Median brightness of an image's outermost pixels, where a figure shows only its background."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float) / 255
    edges = [pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()]
    return float(np.median(np.concatenate(edges)))


def lacking(reason: str) -> None:
    """Skip, or fail where the environment says that nothing may be lacking."""
    if os.environ.get("LINFAIR_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{reason} (LINFAIR_REQUIRE_BROWSER=1)")
    pytest.skip(reason)
