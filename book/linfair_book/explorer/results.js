// Committed results: choose data, network, method and budget; both roles or every group, with intervals over seeds.

import { fixed, make, oncePerFrame, swatch, watchLook } from "./common.js";

const CHOICES = [
  { axis: "data", label: "Data set" },
  { axis: "network", label: "Network" },
  { axis: "method", label: "Method" },
  { axis: "arm", label: "Fine-tuning" },
  { axis: "budget", label: "ReLU budget" },
  { axis: "split", label: "Images" },
  { axis: "bars", label: "Bars" },
];

const COLUMNS = ["name", "role", "seeds", "n", "mean", "low", "high", "original", "drop", "dropLow", "dropHigh"];

/** The bars of a cell, each an object. */
const barsOf = (cell) => cell.rows.map((row) => Object.fromEntries(COLUMNS.map((name, i) => [name, row[i]])));

/** The tables' cells that agree with the choices made so far. */
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

const interval = (mean, low, high) =>
  low === null ? fixed(mean) : `${fixed(mean)} [${fixed(low)}, ${fixed(high)}]`;

function bars(rows, colors, width, label) {
  const line = 34;
  const names = Math.min(150, 0.34 * width);
  const right = 52;
  const scale = (value) => names + (Math.max(0, Math.min(100, value)) / 100) * (width - names - right);
  const foot = 34;
  const height = rows.length * line + foot;
  const svg = make("svg", { role: "img", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` });
  for (const tick of [0, 25, 50, 75, 100]) {
    svg.append(
      make("line", { x1: scale(tick), x2: scale(tick), y1: 0, y2: height - foot, class: "grid" }),
      make("text", { x: scale(tick), y: height - foot + 15, "text-anchor": "middle" }, `${tick}`),
    );
  }
  svg.append(make("text", { x: scale(50), y: height - 3, "text-anchor": "middle" }, "accuracy (%)"));
  rows.forEach((row, i) => {
    const middle = i * line + line / 2;
    const color = colors[row.role];
    svg.append(
      make("text", { x: names - 8, y: middle + 4, "text-anchor": "end" }, row.name),
      make("rect", { x: scale(0), y: middle - 9, width: scale(row.mean) - scale(0), height: 18, fill: color, opacity: 0.45 }),
      row.role === "majority"
        ? make("circle", { cx: scale(row.mean), cy: middle, r: 5, fill: color })
        : make("rect", { x: scale(row.mean) - 5, y: middle - 5, width: 10, height: 10, fill: color }),
      make("text", { x: width - right + 10, y: middle + 4 }, fixed(row.mean)),
    );
    if (row.low !== null) {
      const [a, b] = [scale(row.low), scale(row.high)];
      svg.append(
        make("path", { d: `M${a} ${middle - 5}v10M${a} ${middle}H${b}M${b} ${middle - 5}v10`, class: "whisker" }),
      );
    }
    if (row.original !== null) {
      const at = scale(row.original);
      svg.append(make("line", { x1: at, x2: at, y1: middle - 13, y2: middle + 13, class: "original" }));
    }
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
      const values = menus[axis].values;
      model.set("choice", settle(state.cells, { ...choice(), [axis]: values[menu.selectedIndex] }));
      model.save_changes();
      show();
    });
    menus[axis] = { menu, values: [] };
    controls.append(make("label", {}, make("span", { class: "name" }, label), menu));
  }

  const summary = make("p", { class: "summary", "aria-live": "polite" });
  const chart = make("div", { class: "chart" });
  const legend = make(
    "p",
    { class: "legend", "aria-hidden": "true" },
    make("span", {}, swatch("majority", state.colors.majority), " majority"),
    make("span", {}, swatch("minority", state.colors.minority), " minority"),
    make("span", { class: "line" }, make("i"), " 95 % interval over seeds"),
    make("span", { class: "line dashed" }, make("i"), " original network"),
  );
  const body = make("tbody");
  const heads = ["group", "seeds", "test images", "accuracy (%)", "original (%)", "drop (points)"];
  const table = make(
    "table",
    {},
    make("caption", {}, "Means with 95 % t intervals over seeds"),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    body,
  );
  const wide = make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table of the numbers" }, table);
  const note = make("p", { class: "others" }, "A drop is taken within each seed, from its own original network, then averaged.");
  const evidence = make("p", { class: "evidence" });
  el.classList.add("linfair-explorer");
  el.replaceChildren(controls, summary, chart, legend, wide, note, evidence);

  const cell = () => agreeing(state.cells, choice(), CHOICES.length)[0];
  const redraw = oncePerFrame(() => {
    if (!chart.clientWidth) return;
    const rows = barsOf(cell());
    const said = rows.map((row) => `${row.name} ${interval(row.mean, row.low, row.high)}`).join("; ");
    chart.replaceChildren(bars(rows, state.colors, chart.clientWidth, `Bars of accuracy in per cent: ${said}.`));
  });

  function show() {
    const at = choice();
    CHOICES.forEach(({ axis }, i) => {
      const values = [...new Set(agreeing(state.cells, at, i).map((one) => one[axis]))];
      const { menu } = menus[axis];
      menus[axis].values = values;
      menu.replaceChildren(...values.map((value) => make("option", {}, state.names[axis]?.[value] ?? `${value}`)));
      menu.selectedIndex = values.indexOf(at[axis]);
      menu.disabled = values.length < 2;
    });
    const rows = barsOf(cell());
    summary.textContent = rows
      .filter((row) => row.name === row.role)
      .concat(at.bars === "groups" ? [worst(rows)] : [])
      .map((row) => {
        const drop = row.drop === null ? "" : `, ${interval(row.drop, row.dropLow, row.dropHigh)} points below the original`;
        return `${row.name}: ${interval(row.mean, row.low, row.high)} %${drop}`;
      })
      .join("; ")
      .concat(".");
    body.replaceChildren(
      ...rows.map((row) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, swatch(row.role, state.colors[row.role]), ` ${row.name}`),
          make("td", {}, `${row.seeds}`),
          make("td", {}, row.n),
          make("td", {}, interval(row.mean, row.low, row.high)),
          make("td", {}, row.original === null ? "" : fixed(row.original)),
          make("td", {}, row.drop === null ? "" : interval(row.drop, row.dropLow, row.dropHigh)),
        ),
      ),
    );
    evidence.textContent = state.evidence[cell().evidence];
    redraw();
  }

  const worst = (rows) => {
    const row = rows.reduce((low, one) => (one.mean < low.mean ? one : low));
    return { ...row, name: `lowest of ${rows.length} bars, ${row.name}` };
  };

  model.on("change:choice", show);
  const stop = watchLook(el, redraw);
  show();
  return () => {
    stop();
    model.off("change:choice", show);
  };
}

export default { render };
