// What a private answer costs over a link of the reader's choice, beside the accuracy that it leaves.

import { fixed, make, oncePerFrame, share, swatch, watchLook } from "./common.js";

const NAMES = { all: "all test images", worst: "worst group" };
const SHAPES = { all: "majority", worst: "minority" };

/** 0.01234 -> "0.0123", 1234.5 -> "1,230". */
const three = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 9 });

/** What an answer takes with each share of the ReLUs: computing, sending and waiting. */
const priced = (study, at) =>
  study.rows.map((row) => {
    const [bytes, rounds, computing] = row.costs[at.protocol];
    return { ...row, bytes, rounds, seconds: computing + (8 * bytes) / (1e6 * at.bandwidth) + (rounds * at.rtt) / 1e3 };
  });

/** What happened to an accuracy against the original network's. */
function change({ drop, low, high }) {
  if (low > 0) return `loses ${fixed(drop)} points`;
  return high < 0 ? `gains ${fixed(-drop)} points` : "changes by no measurable amount";
}

function chart(rows, colors, width, label) {
  const [left, right, top, height, foot] = [46, 54, 18, 300, 44];
  const most = Math.max(...rows.map((row) => row.seconds));
  const step = 10 ** Math.floor(Math.log10(most)) * (most / 10 ** Math.floor(Math.log10(most)) > 4 ? 2 : 0.5);
  const x = (seconds) => left + (seconds / (1.04 * most)) * (width - left - right);
  const y = (value) => top + (1 - value / 100) * (height - top - foot);
  const svg = make("svg", { role: "img", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` });
  for (const tick of [0, 25, 50, 75, 100]) {
    svg.append(
      make("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick), class: "grid" }),
      make("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, `${tick}`),
    );
  }
  for (let tick = 0; tick <= 1.04 * most; tick += step) {
    svg.append(make("text", { x: x(tick), y: height - foot + 18, "text-anchor": "middle" }, three(tick)));
  }
  svg.append(
    make("text", { x: left, y: 11 }, "accuracy (%), by ReLUs kept"),
    make("text", { x: x(most / 2), y: height - 6, "text-anchor": "middle" }, "seconds for one private answer"),
  );
  for (const of of ["all", "worst"]) {
    const points = rows.map((row) => ({ ...row[of], kept: row.kept, x: x(row.seconds) }));
    const path = points.map((one, i) => `${i ? "L" : "M"}${one.x} ${y(one.mean)}`).join("");
    svg.append(make("path", { d: path, fill: "none", stroke: colors[of], "stroke-width": 2, "data-line": of }));
    for (const [i, one] of points.entries()) {
      const at = y(one.mean);
      if (one.from !== undefined) svg.append(make("path", { d: `M${one.x} ${y(one.from)}V${y(one.to)}`, class: "whisker" }));
      svg.append(
        of === "all"
          ? make("circle", { cx: one.x, cy: at, r: 5, fill: colors[of] })
          : make("rect", { x: one.x - 5, y: at - 5, width: 10, height: 10, fill: colors[of] }),
      );
      if (i === 0) svg.append(make("text", { x: one.x + 9, y: at + 4 }, share(one.kept)));
      if (i === points.length - 1) {
        svg.append(make("text", { x: one.x - 9, y: at + 4, "text-anchor": "end" }, share(one.kept)));
      }
    }
  }
  return svg;
}

function render({ model, el }) {
  const state = model.get("state");
  const at = { ...model.get("choice") };
  const choose = (axis, value) => {
    at[axis] = value;
    model.set("choice", { ...at });
    model.save_changes();
    show();
  };

  const look = "grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr))";
  const controls = make("div", { class: "controls menus", style: look, role: "group", "aria-label": "What is asked" });
  for (const [axis, label, names] of [
    ["study", "Network and data", Object.fromEntries(state.studies.map((one) => [one.name, one.name]))],
    ["protocol", "Protocol", state.protocols],
  ]) {
    const keys = Object.keys(names);
    const menu = make("select", { "data-axis": axis }, ...keys.map((key) => make("option", {}, names[key])));
    menu.selectedIndex = keys.indexOf(at[axis]);
    menu.addEventListener("change", () => choose(axis, keys[menu.selectedIndex]));
    controls.append(make("label", {}, make("span", { class: "name" }, label), menu));
  }
  const told = {};
  for (const [axis, label, unit] of [["bandwidth", "Bandwidth", "Mbit/s"], ["rtt", "Round trip", "ms"]]) {
    const values = state[axis];
    const said = (value) => `${three(value)} ${unit}`;
    const value = make("span", { class: "value" });
    const slider = make("input", { type: "range", "data-axis": axis, min: 0, max: values.length - 1 });
    slider.value = values.indexOf(at[axis]);
    slider.addEventListener("input", () => choose(axis, values[slider.value]));
    told[axis] = () => {
      value.textContent = said(at[axis]);
      slider.setAttribute("aria-valuetext", said(at[axis]));
    };
    controls.append(make("label", {}, make("span", { class: "name" }, label), value, slider));
  }

  const summary = make("p", { class: "summary", "aria-live": "polite" });
  const picture = make("div", { class: "chart" });
  const { colors } = state;
  const legend = make("p", { class: "legend", "aria-hidden": "true" });
  for (const of of ["all", "worst"]) legend.append(make("span", {}, swatch(SHAPES[of], colors[of]), ` ${NAMES[of]}`));
  const body = make("tbody");
  const heads = ["ReLUs kept", "MB sent", "rounds", "seconds", "worst group (%)", "it loses (points)", "95 % interval"];
  heads.push("seconds saved for each point lost");
  const head = make("thead", {}, make("tr", {}, ...heads.map((one) => make("th", { scope: "col" }, one))));
  const table = make("table", {}, make("caption", {}, "One private answer, and the worst group's accuracy"), head, body);
  const wide = make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table of the numbers" }, table);
  const evidence = make("p", { class: "evidence" });
  el.classList.add("linfair-explorer");
  el.replaceChildren(controls, summary, picture, legend, wide, evidence);

  const study = () => state.studies.find((one) => one.name === at.study);
  const redraw = oncePerFrame(() => {
    if (!picture.clientWidth) return;
    const rows = priced(study(), at);
    const said = rows.map((row) => `${share(row.kept)}: ${three(row.seconds)} s, all ${fixed(row.all.mean)} %, worst group ${fixed(row.worst.mean)} %`);
    picture.replaceChildren(chart(rows, colors, picture.clientWidth, `Accuracy against seconds. ${said.join("; ")}.`));
  });

  function show() {
    for (const tell of Object.values(told)) tell();
    const rows = priced(study(), at);
    const [whole, least] = [rows[0], rows[rows.length - 1]];
    summary.textContent =
      `With ${share(least.kept)} of the ReLUs an answer takes ${three(least.seconds)} s instead of ` +
      `${three(whole.seconds)} s; the worst group ${change(least.worst)}.`;
    const line = (row) => {
      const { mean, drop, low, high } = row.worst;
      const lost = row === whole ? ["", "", ""] : [fixed(drop), `${fixed(low)} to ${fixed(high)}`];
      if (row !== whole) lost.push(low > 0 ? three((whole.seconds - row.seconds) / drop) : "no measurable loss");
      return [three(row.bytes / 1e6), `${row.rounds}`, three(row.seconds), fixed(mean), ...lost];
    };
    const cells = (row) => line(row).map((text) => make("td", {}, text));
    body.replaceChildren(
      ...rows.map((row) => make("tr", {}, make("th", { scope: "row" }, share(row.kept)), ...cells(row))),
    );
    evidence.textContent = study().evidence;
    redraw();
  }

  show();
  return watchLook(el, redraw);
}

export default { render };
