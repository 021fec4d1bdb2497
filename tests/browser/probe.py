"""Open one page in the browser and write down everything the tests ask about."""

import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

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
  const kept = (compute, known = new Map()) => (key) => known.get(key) ?? known.set(key, compute(key)).get(key);
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = kept((text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  });
  const over = (top, below) => below.map((value, i) => (i < 3 ? top[i] * top[3] + value * (1 - top[3]) : 1));
  const behind = kept((node) =>
    node ? over(rgba(getComputedStyle(node).backgroundColor), behind(node.parentElement)) : [1, 1, 1, 1]);
  const opacity = kept((node) => (node ? getComputedStyle(node).opacity * opacity(node.parentElement) : 1));
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
    const [r, g, b, a] = rgba(getComputedStyle(node).color);
    const ratio = contrast(over([r, g, b, a * opacity(node)], behind(node)), behind(node));
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


# What axe finds serious or critical. Its contrast rule takes nine tenths of its time: here it looks at three elements
# of each look (the same colours, sizes and opacities on the whole way up), and at every element that floats.
AXE = """async () => {
  const looks = new Map([[null, ""]]);
  const look = (node) => {
    if (!looks.has(node)) {
      const s = getComputedStyle(node);
      const own = [s.color, s.backgroundColor, s.backgroundImage, s.opacity, s.fontSize, s.fontWeight, s.textShadow];
      const floats = ["absolute", "fixed"].includes(s.position) ? looks.size : s.filter + s.mixBlendMode;
      const text = `${look(node.parentElement)} ${own} ${floats}`;
      looks.set(node, looks.get(text) ?? looks.set(text, looks.size).get(text));
    }
    return looks.get(node);
  };
  const seen = new Map();
  for (const node of document.body.querySelectorAll("*")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!(text || node.matches("input, select, textarea")) || !node.getClientRects().length) continue;
    const key = look(node) + getComputedStyle(node).visibility;
    seen.set(key, (seen.get(key) ?? 0) + 1);
    if (seen.get(key) <= 3) node.dataset.look = key;
  }
  axe.configure({ rules: [{ id: "color-contrast", selector: "[data-look]" }] });
  const found = await axe.run(document, { preload: false, resultTypes: ["violations"] });
  return found.violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.length} x ${nodes[0].target.join(" ")} ${nodes[0].html.slice(0, 120)}`);
}"""
DRAWN = "new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
SETTLED = """async () => {
  await new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
  for (const one of document.getAnimations()) if (one instanceof CSSTransition) one.finish();
}"""
DESK, PHONE = [("dark", 1440), ("light", 1440)], [("light", 390), ("dark", 390)]


@dataclass
class Visit:
    """What happened when a page was looked at in one colour scheme and width, and what was on it."""

    page: str
    scheme: str
    width: int
    errors: list[str] = field(default_factory=list)  # console errors, uncaught exceptions, failed requests
    outside: list[str] = field(default_factory=list)  # addresses the page tried to load
    facts: dict = field(default_factory=dict)  # what FACTS returns
    figures: list[float] = field(default_factory=list)  # brightness around each image, 0 black to 1 white
    axe: list[str] = field(default_factory=list)  # what axe-core complains about, where it was asked

    def __str__(self) -> str:
        return f"{self.page} ({self.scheme}, {self.width} px)"


def resize(tab: Page, scheme: str, width: int) -> None:
    """Set the colour scheme and the width, before a page is opened or while it is."""
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 900})


def visit(tab: Page, path: Path, settings: list[tuple[str, int]], axe: str = "") -> list[Visit]:
    """Open a page in the first setting, collect its facts there and in the others; axe-core looks at the last."""
    seen: list[Visit] = []
    heard = {
        "console": lambda message: seen[-1].errors.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: seen[-1].errors.append(str(error)),
        "requestfailed": lambda request: seen[-1].errors.append(f"not loaded: {request.url}"),
        "request": lambda request: seen[-1].outside.append(request.url) if OUTSIDE.match(request.url) else None,
    }
    for scheme, width in settings:
        seen.append(Visit(path.name, scheme, width))
        resize(tab, scheme, width)
        if len(seen) == 1:
            for event, call in heard.items():
                tab.on(event, call)
            open_page(tab, path)
        tab.evaluate(SETTLED)
        seen[-1].facts = tab.evaluate(FACTS)
        for image in tab.locator("article.bd-article img, main > img").all():
            if width > PHONE[0][1] and image.is_visible():  # a box hangs on the scheme, not on the width
                seen[-1].figures.append(surrounding_brightness(image.screenshot()))
    if axe:
        seen[-1].axe = complaints(tab, axe)
    for event, call in heard.items():
        tab.remove_listener(event, call)
    return seen


def open_page(tab: Page, path: Path) -> None:
    """Open a page from disk and wait until its formulas are typeset."""
    tab.goto(path.as_uri())
    tab.evaluate("async () => { await window.MathJax?.startup?.promise; }")


def complaints(tab: Page, axe: str) -> list[str]:
    """What axe-core (its script) finds serious or critical on the page that is open."""
    tab.evaluate(axe)
    return tab.evaluate(AXE)


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
