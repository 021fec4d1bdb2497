"""Frames a second of the boundary explorer while something is dragged, as requestAnimationFrame counts them.

`python tests/benchmarks/bench_frames.py [width]`: the slider of kept ReLUs, painted points, the pointer over
the units (kinks), and training, each for two seconds at 1440 pixels or the given width.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from linfair_book import explorer
from playwright.sync_api import CDPSession, Page, sync_playwright

COUNT = """() => {
  window.frames_ = [];
  const count = (now) => { frames_.push(now); window.counting = requestAnimationFrame(count); };
  window.counting = requestAnimationFrame(count);
}"""
STOP = """() => {
  cancelAnimationFrame(counting);
  const gaps = frames_.slice(1).map((now, i) => now - frames_[i]).sort((a, b) => a - b);
  const at = (share) => gaps[Math.min(gaps.length - 1, Math.floor(share * gaps.length))];
  return [1000 * gaps.length / (frames_.at(-1) - frames_[0]), at(0.5), at(0.95), gaps.length];
}"""
# Moves inside the page, one a frame: a driver's own messages would be what is measured.
DRAG = """(name) => new Promise((done) => {
  const began = performance.now();
  const slider = document.querySelector("[data-name=keep]");
  const canvas = document.querySelector("canvas");
  const units = [...document.querySelectorAll(".unit")];
  const event = (type, more) => new PointerEvent(type, { pointerId: 1, pointerType: "mouse", bubbles: true, ...more });
  const move = {
    slider(i) {
      slider.value = Math.abs(32 - (i % 64));
      slider.dispatchEvent(new Event("input"));
    },
    units: (i) => units[i % 32].dispatchEvent(event("pointerenter")),
    painting(i) {
      const box = canvas.getBoundingClientRect();
      const where = { clientX: box.x + 20 + (i % 50) * 5, clientY: box.y + 30 + 8 * Math.floor(i / 50) };
      canvas.dispatchEvent(event("pointermove", where));
    },
    training() {},
  }[name];
  if (name === "painting") canvas.hasPointerCapture = () => true;
  let i = 0;
  const next = () => {
    move(i++);
    performance.now() - began < 2000 ? requestAnimationFrame(next) : done();
  };
  next();
})"""


def processor(session: CDPSession) -> float:
    """Seconds of processor time that the page's thread has had: other programs on the machine do not count."""
    found = session.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in found if one["name"] == "TaskDuration")


def measure(page: Page, session: CDPSession, name: str) -> None:
    """Print the rate of one kind of dragging."""
    page.evaluate(COUNT)
    before = processor(session)
    page.evaluate(DRAG, name)
    rate, median, slow, frames = page.evaluate(STOP)
    own = 1000 * (processor(session) - before) / frames
    gaps = f"median gap {median:.1f} ms, 95 % of the gaps below {slow:.1f} ms"
    print(f"{name:9s} {rate:5.1f} frames a second, {gaps}, {own:.1f} ms of processor time a frame")


def main(width: int) -> None:
    """Open the explorer alone and drag."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "boundary.html"
        path.write_text(explorer.show_boundary(live=False).page("Boundary"), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 1000})
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(path.as_uri())
        page.wait_for_selector(".toy[data-busy=false]")
        measure(page, session, "slider")
        measure(page, session, "units")
        page.get_by_role("button", name="minority", exact=True).click()
        measure(page, session, "painting")
        page.get_by_role("button", name="off", exact=True).click()
        page.get_by_role("button", name="Restart").click()
        page.get_by_role("button", name="Play", exact=True).click()
        measure(page, session, "training")
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1440)
