// Committed results: each group's accuracy of the original, the linearized and the repaired network, as a slope chart.

import { fixed, make, oncePerFrame, share, signed, swatch, watchLook } from "./common.js";

const CHOICES = [
  { axis: "data", label: "Data and network", text: (value) => value },
  { axis: "budget", label: "ReLU budget", text: (value) => share(value) },
  { axis: "arm", label: "Repair", text: (value) => value },
];
const FEW = 5; // seeds below which an interval says little

/** The cells that agree with the first choices. */
const agreeing = (cells, choice, upTo) =>
  cells.filter((cell) => CHOICES.slice(0, upTo).every(({ axis }) => cell[axis] === choice[axis]));

/** A choice for which there is a cell: what was asked for where possible, else the first there is. */
function settle(cells, asked) {
  const choice = {};
  CHOICES.forEach(({ axis }, i) => {
    const left = agreeing(cells, choice, i).map((cell) => cell[axis]);
    choice[axis] = left.includes(asked[axis]) ? asked[axis] : left[0];
  });
  return choice;
}

/** Name, role, seeds and the three points of a line, each with its ends if there are enough seeds. */
const read = ([name, role, seeds, original, linearized, repaired]) => ({
  name,
  role,
  seeds,
  points: [[original, null, null], linearized, repaired].filter(Boolean).map(([mean, low, high, ...drop]) => ({ mean, low, high, drop })),
});

/** Heights of labels, as close to where they belong as they can stand without touching. */
function apart(heights, gap) {
  const order = [...heights.keys()].sort((i, j) => heights[i] - heights[j]);
  const found = [...heights];
  order.forEach((one, i) => i && (found[one] = Math.max(found[one], found[order[i - 1]] + gap)));
  return found;
}

function slopes(lines, stages, colors, width, label) {
  const top = 34;
  const height = 320;
  const names = Math.min(170, 0.4 * width);
  const all = lines.flatMap(({ points }) => points.flatMap(({ mean, low, high }) => [mean, low ?? mean, high ?? mean]));
  const step = Math.max(...all) - Math.min(...all) > 25 ? 10 : 5;
  const low = Math.max(0, step * Math.floor(Math.min(...all) / step));
  const high = Math.min(100, step * Math.ceil(Math.max(...all) / step));
  const x = (stage) => 40 + (stage / (stages.length - 1)) * (width - 40 - names);
  const y = (value) => top + (1 - (value - low) / (high - low || 1)) * (height - top - 12);
  const svg = make("svg", { role: "img", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` });
  for (let tick = low; tick <= high; tick += step)
    svg.append(
      make("line", { x1: x(0), x2: x(stages.length - 1), y1: y(tick), y2: y(tick), class: "grid" }),
      make("text", { x: 30, y: y(tick) + 4, "text-anchor": "end" }, `${tick}`),
    );
  stages.forEach((stage, i) => svg.append(make("text", { x: x(i), y: 14, "text-anchor": "middle" }, stage)));
  const ends = apart(lines.map(({ points }) => y(points.at(-1).mean)), 15);
  lines.forEach(({ name, role, seeds, points }, k) => {
    const color = colors[role];
    const path = points.map(({ mean }, i) => `${i ? "L" : "M"}${x(i)} ${y(mean)}`).join("");
    svg.append(make("path", { d: path, fill: "none", stroke: color, "stroke-width": 2.4 }));
    points.forEach(({ mean, low: from, high: to }, i) => {
      const [cx, cy, r] = [x(i), y(mean), 5];
      if (from !== null && seeds >= FEW)
        svg.append(make("path", { d: `M${cx} ${y(Math.max(from, low))}V${y(Math.min(to, high))}`, class: "whisker" }));
      svg.append(
        role === "majority"
          ? make("circle", { cx, cy, r, fill: color })
          : make("rect", { x: cx - r, y: cy - r, width: 2 * r, height: 2 * r, fill: color }),
      );
    });
    const at = x(points.length - 1) + 10;
    svg.append(make("text", { x: at, y: ends[k] + 4 }, `${name} ${fixed(points.at(-1).mean)}`));
  });
  return svg;
}

function render({ model, el }) {
  const state = model.get("state");
  const choice = () => settle(state.cells, model.get("choice"));

  const menus = {};
  const controls = make("div", { class: "controls menus", role: "group", "aria-label": "What to show" });
  for (const { axis, label } of CHOICES) {
    const menu = make("select", { "data-axis": axis });
    menu.addEventListener("change", () => {
      model.set("choice", settle(state.cells, { ...choice(), [axis]: menus[axis].values[menu.selectedIndex] }));
      model.save_changes();
      show();
    });
    menus[axis] = { menu, values: [] };
    controls.append(make("label", axis === "data" ? { class: "whole" } : {}, make("span", { class: "name" }, label), menu));
  }

  const summary = make("p", { class: "summary", "aria-live": "polite" });
  const chart = make("div", { class: "chart" });
  const legend = make(
    "p",
    { class: "legend", "aria-hidden": "true" },
    ...["majority", "minority"].map((role) => make("span", {}, swatch(role, state.colors[role]), ` ${role}`)),
    make("span", { class: "line" }, make("i"), ` 95 % interval, from ${FEW} seeds on`),
  );
  const head = make("tr");
  const body = make("tbody");
  const table = make("table", {}, make("caption", {}, "Accuracy in per cent, and the change from the original in points"), make("thead", {}, head), body);
  const wide = make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table of the numbers" }, table);
  const folded = make("details", {}, make("summary", {}, "The numbers"), wide);
  const evidence = make("p", { class: "evidence" });
  el.classList.add("linfair-explorer");
  el.replaceChildren(controls, summary, chart, legend, folded, evidence);

  const cell = () => agreeing(state.cells, choice(), CHOICES.length)[0];
  const stages = () => ["original", "linearized", "repaired"].slice(0, cell().lines[0][5] ? 3 : 2);
  const redraw = oncePerFrame(() => {
    if (!chart.clientWidth) return;
    const lines = cell().lines.map(read);
    const said = lines.map(({ name, points }) => `${name} ${points.map(({ mean }) => fixed(mean)).join(", ")}`).join("; ");
    chart.replaceChildren(slopes(lines, stages(), state.colors, chart.clientWidth, `Accuracy in per cent, ${stages().join(", ")}: ${said}.`));
  });

  function show() {
    const at = choice();
    CHOICES.forEach(({ axis, text }, i) => {
      const values = [...new Set(agreeing(state.cells, at, i).map((one) => one[axis]))];
      const { menu } = menus[axis];
      menus[axis].values = values;
      menu.replaceChildren(...values.map((value) => make("option", {}, text(value))));
      menu.selectedIndex = values.indexOf(at[axis]);
      menu.disabled = values.length < 2;
    });
    const lines = cell().lines.map(read);
    const most = lines.reduce((one, other) => (other.points[1].drop[0] > one.points[1].drop[0] ? other : one));
    const who = most.name === most.role ? `The ${most.role}` : `Group ${most.name}`;
    summary.textContent = `${who} ${most.points[1].drop[0] > 0 ? "loses most" : "gains least"}: ${most.points.map(({ mean }) => `${fixed(mean)} %`).join(", then ")}.`;
    head.replaceChildren(...["group", "seeds", ...stages()].map((text) => make("th", { scope: "col" }, text)));
    const shown = ({ mean, drop }) => (drop[0] === undefined ? fixed(mean) : `${fixed(mean)} (${signed(-drop[0])}${drop[1] === null ? "" : `, ${signed(-drop[2])} to ${signed(-drop[1])}`})`);
    body.replaceChildren(
      ...lines.map(({ name, role, seeds, points }) =>
        make("tr", {}, make("th", { scope: "row" }, swatch(role, state.colors[role]), ` ${name}`), make("td", {}, `${seeds}`), ...points.map((point) => make("td", {}, shown(point)))),
      ),
    );
    evidence.textContent = `${cell().split} · ${state.evidence[cell().evidence]}`;
    redraw();
  }

  model.on("change:choice", show);
  const stop = watchLook(el, redraw);
  show();
  return () => {
    stop();
    model.off("change:choice", show);
  };
}

export default { render };
