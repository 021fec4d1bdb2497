// The toy's decision boundary at every setting: runs the exported networks, draws them, counts both groups.

const ORDER = ["width", "share", "frequency", "seed", "budget"]; // as the networks are exported
const CELLS = 150; // side of the raster on which the boundary is found

const CONTROLS = [
  { axis: "budget", label: "ReLU budget", text: (v, c) => `${share(v)} (${kept(v, c.width)} of ${c.width} a layer)` },
  { axis: "share", label: "Share of the minority", text: (v) => `${share(v)} of the training points` },
  { axis: "frequency", label: "Wiggle of the boundary", text: (v) => `f = ${v}, ${2 * v} half waves` },
  { axis: "width", label: "Width", text: (v) => `${v} units a layer` },
  { axis: "seed", label: "Seed", text: (v) => `${v}` },
];

/** Units kept in a layer: Python's round, which takes halves to the even neighbour. */
function kept(budget, width) {
  const exact = budget * width;
  const low = Math.floor(exact);
  if (exact - low !== 0.5) return Math.round(exact);
  return low % 2 ? low + 1 : low;
}

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function floats(text) {
  const raw = bytes(text);
  const view = new DataView(raw.buffer);
  return Float32Array.from({ length: raw.length / 4 }, (_, i) => view.getFloat32(4 * i, true)); // little-endian anywhere
}

/** Logit of the minority minus logit of the majority, W3 g(W2 g(W1 x + b1) + b2) + b3 with g = ReLU where the mask is 1. */
function forward(weights, mask, width, x, y) {
  const h = forward.h?.length === width ? forward.h : (forward.h = new Float64Array(width));
  let at = 3 * width; // past W1 and b1
  for (let i = 0; i < width; i++) {
    const z = weights[2 * i] * x + weights[2 * i + 1] * y + weights[2 * width + i];
    h[i] = mask[i] && z < 0 ? 0 : z;
  }
  const w2 = at;
  const b2 = w2 + width * width;
  const w3 = b2 + width;
  let difference = weights[w3 + 2 * width + 1] - weights[w3 + 2 * width];
  for (let i = 0; i < width; i++) {
    let z = weights[b2 + i];
    const row = w2 + i * width;
    for (let j = 0; j < width; j++) z += weights[row + j] * h[j];
    if (mask[width + i] && z < 0) z = 0;
    difference += (weights[w3 + width + i] - weights[w3 + i]) * z;
  }
  return difference;
}

/** The networks and data sets of an exported state, cut out on demand. */
function open(state) {
  const weights = {};
  const masks = {};
  for (const width of state.axes.width) {
    weights[width] = floats(state.weights[width]);
    masks[width] = bytes(state.masks[width]);
  }
  const train = floats(state.train);
  const test = floats(state.test);
  const place = (axes, choice) =>
    axes.reduce((index, axis) => index * state.axes[axis].length + state.axes[axis].indexOf(choice[axis]), 0);
  const count = (width) => width * width + 6 * width + 2;
  return {
    network(choice) {
      const { width } = choice;
      const index = place(ORDER.slice(1), choice);
      const own = weights[width].subarray(index * count(width), (index + 1) * count(width));
      const mask = masks[width].subarray(2 * width * index, 2 * width * (index + 1));
      return (x, y) => forward(own, mask, width, x, y);
    },
    /** Points of one data set: interleaved coordinates and how many belong to the majority. */
    points(choice, split) {
      const index = place(["share", "frequency", "seed"], choice);
      const n = split === "train" ? state.points : 2 * state.testPerGroup;
      const xy = (split === "train" ? train : test).subarray(2 * n * index, 2 * n * (index + 1));
      return { xy, majority: split === "train" ? n - state.minority[index] : state.testPerGroup };
    },
  };
}

/** Test points on the right side, by group; the minority's side is where the difference of logits is above 0. */
function correct(network, { xy, majority }) {
  const right = { majority: 0, minority: 0 };
  for (let i = 0; i < xy.length / 2; i++) {
    const above = network(xy[2 * i], xy[2 * i + 1]) > 0;
    if (i < majority) right.majority += !above;
    else right.minority += above;
  }
  return right;
}

/** The network on a raster of the square, rows from the bottom up. */
function raster(network) {
  const values = new Float64Array((CELLS + 1) ** 2);
  for (let row = 0, k = 0; row <= CELLS; row++)
    for (let column = 0; column <= CELLS; column++, k++)
      values[k] = network(-1 + (2 * column) / CELLS, -1 + (2 * row) / CELLS);
  return values;
}

/** Marching squares: where the raster crosses 0, as segments [x1, y1, x2, y2] in units of cells. */
function crossings(values) {
  const side = CELLS + 1;
  const segments = [];
  for (let row = 0; row < CELLS; row++)
    for (let column = 0; column < CELLS; column++) {
      const k = row * side + column;
      const corners = [values[k], values[k + 1], values[k + side + 1], values[k + side]];
      const where = [[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]];
      const ends = [];
      for (let edge = 0; edge < 4; edge++) {
        const [a, b] = [corners[edge], corners[(edge + 1) % 4]];
        if (a > 0 === b > 0) continue;
        const t = a / (a - b);
        const [p, q] = [where[edge], where[(edge + 1) % 4]];
        ends.push(p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]));
      }
      for (let i = 0; i + 3 < ends.length; i += 4) segments.push(ends.slice(i, i + 4));
    }
  return segments;
}

/** What share of each side of the true boundary the network gives to the other group. */
function misplaced(values, curve) {
  const total = { majority: 0, minority: 0 };
  const wrong = { majority: 0, minority: 0 };
  for (let row = 0, k = 0; row <= CELLS; row++)
    for (let column = 0; column <= CELLS; column++, k++) {
      const above = -1 + (2 * row) / CELLS > curve(-1 + (2 * column) / CELLS);
      const group = above ? "minority" : "majority";
      total[group] += 1;
      wrong[group] += values[k] > 0 !== above;
    }
  return { majority: wrong.majority / total.majority, minority: wrong.minority / total.minority };
}

function draw(canvas, values, points, curve, colors) {
  const size = canvas.clientWidth;
  const dense = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(size * dense)) canvas.width = canvas.height = Math.round(size * dense);
  const pen = canvas.getContext("2d");
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  pen.clearRect(0, 0, size, size);
  const x = (value) => ((value + 1) / 2) * size;
  const y = (value) => ((1 - value) / 2) * size;
  const cell = size / CELLS;

  for (const [group, side] of [["majority", false], ["minority", true]]) {
    pen.fillStyle = colors[group];
    pen.globalAlpha = 0.16;
    pen.beginPath(); // one path a group: overlapping edges are painted once
    for (let row = 0; row <= CELLS; row++) {
      let from = -1;
      for (let column = 0; column <= CELLS + 1; column++) {
        const inside = column <= CELLS && values[row * (CELLS + 1) + column] > 0 === side;
        if (inside && from < 0) from = column;
        if (!inside && from >= 0) {
          pen.rect((from - 0.5) * cell, size - (row + 0.5) * cell, (column - from) * cell, cell);
          from = -1;
        }
      }
    }
    pen.fill();
  }

  pen.globalAlpha = 0.9;
  const radius = Math.max(1.7, size / 200);
  for (let i = 0; i < points.xy.length / 2; i++) {
    const [px, py] = [x(points.xy[2 * i]), y(points.xy[2 * i + 1])];
    pen.fillStyle = i < points.majority ? colors.majority : colors.minority;
    pen.beginPath();
    if (i < points.majority) pen.arc(px, py, radius, 0, 2 * Math.PI);
    else pen.rect(px - radius, py - radius, 2 * radius, 2 * radius);
    pen.fill();
  }

  const text = getComputedStyle(canvas).color;
  pen.globalAlpha = 1;
  pen.strokeStyle = text;
  pen.lineWidth = 2;
  pen.setLineDash([2, 5]);
  pen.beginPath();
  for (let i = 0; i <= 200; i++) pen.lineTo(x(-1 + i / 100), y(curve(-1 + i / 100)));
  pen.stroke();
  pen.setLineDash([]);
  pen.lineWidth = 2.5;
  pen.lineCap = "round";
  pen.beginPath();
  for (const [x1, y1, x2, y2] of crossings(values)) {
    pen.moveTo(x1 * cell, size - y1 * cell);
    pen.lineTo(x2 * cell, size - y2 * cell);
  }
  pen.stroke();
}

function render({ model, el }) {
  const state = model.get("state");
  const archive = open(state);
  const choice = () => ({ ...model.get("choice") });
  const percent = (count) => (100 * count) / state.testPerGroup;
  const measured = new Map();
  const accuracies = (at) => {
    const key = ORDER.map((axis) => at[axis]).join();
    if (!measured.has(key)) measured.set(key, correct(archive.network(at), archive.points(at, "test")));
    return measured.get(key);
  };

  const canvas = make("canvas", { role: "img", width: 0, height: 0 });
  const legend = make(
    "p",
    { class: "legend", "aria-hidden": "true" },
    make("span", {}, swatch("majority", state.colors.majority), " majority"),
    make("span", {}, swatch("minority", state.colors.minority), " minority"),
    make("span", { class: "line" }, make("i"), " learned boundary"),
    make("span", { class: "line dotted" }, make("i"), " true boundary"),
  );

  const sliders = {};
  const controls = make("div", { class: "controls", role: "group", "aria-label": "Settings" });
  for (const { axis, label } of CONTROLS) {
    const values = state.axes[axis];
    const slider = make("input", { type: "range", min: 0, max: values.length - 1, step: 1, "data-axis": axis });
    slider.disabled = values.length < 2;
    const shown = make("span", { class: "value", "aria-hidden": "true" }); // said by aria-valuetext
    controls.append(make("label", {}, make("span", { class: "name" }, label), shown, slider));
    slider.addEventListener("input", () => {
      model.set("choice", { ...choice(), [axis]: values[Number(slider.value)] });
      model.save_changes();
      show();
    });
    sliders[axis] = { slider, shown };
  }

  const summary = make("p", { class: "summary", "aria-live": "polite" });
  const cells = {};
  const rows = ["majority", "minority"].map((group) => {
    cells[group] = { now: make("td"), full: make("td"), change: make("td") };
    const name = make("th", { scope: "row" }, swatch(group, state.colors[group]), ` ${group}`);
    return make("tr", {}, name, cells[group].now, cells[group].full, cells[group].change);
  });
  const heading = { now: make("th", { scope: "col" }) };
  const table = make(
    "table",
    {},
    make("caption", {}, `Right on ${state.testPerGroup} test points a group, this network`),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("td"),
        heading.now,
        make("th", { scope: "col" }, "100 % ReLUs"),
        make("th", { scope: "col" }, "change (points)"),
      ),
    ),
    make("tbody", {}, ...rows),
  );
  const others = make("p", { class: "others" });
  const evidence = make("p", { class: "evidence" }, state.evidence);
  const picture = make("div", { class: "picture" }, canvas, legend);
  const numbers = make("div", { class: "numbers" }, summary, table, others);
  el.classList.add("linfair-explorer");
  el.replaceChildren(make("div", { class: "columns" }, picture, make("div", { class: "side" }, controls, numbers)), evidence);

  let drawn = null; // what the picture shows, kept for another size or colour scheme
  const redraw = oncePerFrame(() => {
    if (drawn && canvas.clientWidth) draw(canvas, drawn.values, drawn.points, drawn.curve, state.colors);
  });

  function show() {
    const at = choice();
    const all = { ...at, budget: 1 };
    for (const { axis, text } of CONTROLS) {
      const { slider, shown } = sliders[axis];
      const said = text(at[axis], at);
      slider.value = state.axes[axis].indexOf(at[axis]);
      slider.setAttribute("aria-valuetext", said);
      shown.textContent = said;
    }
    const [now, full] = [accuracies(at), accuracies(all)];
    heading.now.textContent = `${share(at.budget)} ReLUs`;
    const change = {};
    for (const group of ["majority", "minority"]) {
      change[group] = percent(now[group] - full[group]);
      cells[group].now.textContent = `${fixed(percent(now[group]))} %`;
      cells[group].full.textContent = `${fixed(percent(full[group]))} %`;
      cells[group].change.textContent = at.budget === 1 ? "" : signed(change[group]);
    }
    const side = (group) => {
      const moved = at.budget === 1 ? "" : ` (${signed(change[group])} points from 100 %)`;
      return `${group} ${now[group]} of ${state.testPerGroup} right, ${fixed(percent(now[group]))} %${moved}`;
    };
    summary.textContent = `${share(at.budget)} of the ReLUs: ${side("majority")}; ${side("minority")}.`;

    const moves = state.axes.seed.map((seed) => {
      const [one, other] = [accuracies({ ...at, seed }), accuracies({ ...all, seed })];
      return `${signed(percent(one.minority - other.minority))} (seed ${seed})`;
    });
    others.textContent =
      at.budget === 1
        ? "Move the first slider to take ReLUs away; everything is compared with this network."
        : `Change of the minority in every seed at this setting: ${moves.join(", ")}.`;

    const curve = (x) => state.amplitude * Math.sin(at.frequency * Math.PI * x);
    const values = raster(archive.network(at));
    const lost = misplaced(values, curve);
    canvas.setAttribute(
      "aria-label",
      `A square with ${share(1 - at.share)} blue majority points below a dotted wave and ${share(at.share)} orange ` +
        `minority points above it. The solid line is what the network with ${share(at.budget)} of its ReLUs learned: ` +
        `it gives ${share(Number(lost.minority.toFixed(3)))} of the minority's side to the majority and ` +
        `${share(Number(lost.majority.toFixed(3)))} of the majority's side to the minority.`,
    );
    drawn = { values, points: archive.points(at, "train"), curve };
    redraw();
  }

  const fromPython = () => show();
  model.on("change:choice", fromPython);
  const stop = watchLook(el, redraw);
  show();
  return () => {
    stop();
    model.off("change:choice", fromPython);
  };
}

export default { render };
