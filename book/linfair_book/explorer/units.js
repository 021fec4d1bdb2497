// The 32 units as buttons in two layers: a bent line is a ReLU, a straight one the identity; the bar is the bend.

import { make } from "./common.js";
import { UNITS, WIDTH } from "./network.js";

const COLUMNS = 8;

/** A grid of switches. `flip(unit)` on a click, `look(unit)` when one is hovered or focused, -1 when none is. */
export function makeUnits({ flip, look }) {
  const cells = [];
  let home = 0; // the one unit that the tab key reaches; arrows reach the others
  let focused = -1;
  const layers = [0, 1].map((layer) => {
    const group = make("div", { class: "layer", role: "group", "aria-label": `Layer ${layer + 1}, units` });
    for (let k = 0; k < WIDTH; k++) {
      const unit = layer * WIDTH + k;
      const hinge = make("path", { d: "", class: "hinge" });
      const bar = make("rect", { x: 2, width: 3, y: 22, height: 0, class: "bend" });
      const glyph = make("svg", { viewBox: "0 0 28 24", "aria-hidden": "true" }, bar, hinge);
      const button = make("button", { type: "button", class: "unit", tabindex: unit ? -1 : 0, "data-unit": unit }, glyph);
      button.addEventListener("click", () => flip(unit));
      button.addEventListener("pointerenter", (event) => event.pointerType !== "touch" && look(unit));
      button.addEventListener("pointerleave", () => look(focused));
      button.addEventListener("focus", () => {
        focused = unit;
        cells[home].button.tabIndex = -1;
        home = unit;
        button.tabIndex = 0;
        look(unit);
      });
      button.addEventListener("blur", () => {
        focused = -1;
        look(-1);
      });
      cells.push({ button, hinge, bar, kept: null, height: -1 });
      group.append(button);
    }
    return make("div", {}, make("p", { class: "name" }, `Layer ${layer + 1}`), group);
  });
  const element = make("div", { class: "units" }, ...layers);
  element.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS, Home: -home, End: UNITS - 1 - home };
    const next = home + steps[event.key];
    if (!(next >= 0 && next < UNITS)) return;
    event.preventDefault();
    cells[next].button.focus();
  });

  /** Show a mask and the units' bends. */
  function update(mask, bends) {
    const most = Math.max(1e-9, ...bends);
    cells.forEach((cell, unit) => {
      const height = Math.round(20 * Math.sqrt(bends[unit] / most));
      if (cell.kept !== mask[unit]) {
        cell.kept = mask[unit];
        cell.hinge.setAttribute("d", mask[unit] ? "M8 16H17L26 4" : "M8 21L26 3");
        cell.button.classList.toggle("linear", !mask[unit]);
        cell.button.setAttribute("aria-pressed", `${!mask[unit]}`);
        const what = mask[unit] ? "ReLU" : "linear";
        cell.button.setAttribute("aria-label", `Unit ${(unit % WIDTH) + 1} of layer ${unit < WIDTH ? 1 : 2}, ${what}`);
      }
      if (cell.height !== height) {
        cell.height = height;
        cell.bar.setAttribute("height", height);
        cell.bar.setAttribute("y", 22 - height);
      }
    });
  }
  return { element, update };
}
