// The square [-1, 1]^2 on a canvas: both groups' points, the true, the learned and the earlier boundary, a unit's kink.

import { make } from "./common.js";
import { forward, preactivation } from "./network.js";
import { BOUNDARIES } from "./toydata.js";

const CELLS = 80;
const raster = (cells) => {
  const x = new Float64Array(2 * (cells + 1) ** 2);
  for (let row = 0, k = 0; row <= cells; row++)
    for (let column = 0; column <= cells; column++) {
      x[k++] = -1 + (2 * column) / cells;
      x[k++] = -1 + (2 * row) / cells;
    }
  return x;
};
const GRID = raster(CELLS);
const COARSE = raster(48); // for kinks, which need all units of the layer

/** Marching squares: where values on a raster, rows from the bottom up, cross 0; a path in the unit square, y downwards. */
function contour(values) {
  const cells = Math.sqrt(values.length) - 1;
  const side = cells + 1;
  const joined = new Map(); // crossing -> those it is joined to; crossing 2 k lies right of raster point k, 2 k + 1 above it
  const join = (one, other) => joined.set(one, [...(joined.get(one) ?? []), other]);
  for (let row = 0; row < cells; row++)
    for (let column = 0; column < cells; column++) {
      const k = row * side + column;
      const above = values[k] > 0;
      if (above === values[k + 1] > 0 && above === values[k + side + 1] > 0 && above === values[k + side] > 0) continue;
      const corners = [above, values[k + 1] > 0, values[k + side + 1] > 0, values[k + side] > 0];
      const edges = [2 * k, 2 * (k + 1) + 1, 2 * (k + side), 2 * k + 1];
      const crossed = edges.filter((_, i) => corners[i] !== corners[(i + 1) % 4]);
      for (let i = 0; i < crossed.length; i += 2) {
        join(crossed[i], crossed[i + 1]);
        join(crossed[i + 1], crossed[i]);
      }
    }
  const path = new Path2D();
  const add = (method, crossing) => {
    const k = crossing >> 1;
    const other = crossing & 1 ? k + side : k + 1;
    const t = values[k] / (values[k] - values[other]);
    const [column, row] = [k % side, Math.floor(k / side)];
    path[method]((column + (crossing & 1 ? 0 : t)) / cells, 1 - (row + (crossing & 1 ? t : 0)) / cells);
  };
  const ends = [...joined.keys()].filter((one) => joined.get(one).length === 1);
  for (const begin of [...ends, ...joined.keys()]) {
    if (!joined.has(begin)) continue;
    add("moveTo", begin);
    for (let at = begin, next; joined.has(at); at = next) {
      const ways = joined.get(at);
      joined.delete(at);
      next = ways.find((one) => joined.has(one));
      if (next === undefined) {
        if (ways.includes(begin) && ways.length > 1) path.closePath();
        break;
      }
      add("lineTo", next);
    }
  }
  return path;
}

const truths = new Map();
const truth = (name) => {
  if (!truths.has(name)) {
    const side = CELLS + 1;
    const values = Float64Array.from({ length: side * side }, (_, k) => BOUNDARIES[name](GRID[2 * k], GRID[2 * k + 1]));
    truths.set(name, contour(values));
  }
  return truths.get(name);
};

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** The picture; `draw` shows a state, `place` says where on the square a pointer is, in hundredths. */
export function makePlane(colors) {
  const canvas = make("canvas", { role: "img", tabindex: 0, width: 0, height: 0 });
  const tint = new OffscreenCanvas(CELLS + 1, CELLS + 1);
  const pixels = new ImageData(CELLS + 1, CELLS + 1);
  const shades = [rgb(colors.majority), rgb(colors.minority)];
  let layer = { points: null };
  let earlier = { theta: null, path: null };

  function shade(values) {
    for (let row = 0, k = 0; row <= CELLS; row++)
      for (let column = 0; column <= CELLS; column++, k++) {
        const shade = shades[values[k] > 0 ? 1 : 0];
        const at = 4 * ((CELLS - row) * (CELLS + 1) + column);
        for (let i = 0; i < 3; i++) pixels.data[at + i] = shade[i];
        pixels.data[at + 3] = 46;
      }
    tint.getContext("2d").putImageData(pixels, 0, 0);
  }

  /** The points, drawn once for each set, size and colour scheme. */
  function dotted(size, dense, points, painted, ink) {
    const key = [size, dense, ink].join();
    if (layer.points !== points || layer.key !== key) {
      const sheet = new OffscreenCanvas(Math.round(size * dense), Math.round(size * dense));
      const pen = sheet.getContext("2d");
      pen.scale(dense, dense);
      dots(pen, size, points, painted, ink);
      layer = { points, key, sheet };
    }
    return layer.sheet;
  }

  function dots(pen, size, { x, groups }, painted, ink) {
    const radius = Math.max(1.6, size / 210);
    const added = groups.length - painted.length;
    for (const group of [0, 1]) {
      pen.fillStyle = colors[group ? "minority" : "majority"];
      pen.strokeStyle = ink;
      const paths = [new Path2D(), new Path2D()];
      for (let i = 0; i < groups.length; i++) {
        if (groups[i] !== group) continue;
        const r = i < added ? radius : 1.7 * radius;
        const [px, py] = [((x[2 * i] + 1) / 2) * size, ((1 - x[2 * i + 1]) / 2) * size];
        const path = paths[+(i >= added)];
        if (group) path.rect(px - r, py - r, 2 * r, 2 * r);
        else {
          path.moveTo(px + r, py);
          path.arc(px, py, r, 0, 2 * Math.PI);
        }
      }
      pen.globalAlpha = 0.9;
      pen.fill(paths[0]);
      pen.fill(paths[1]);
      pen.lineWidth = 1.2;
      pen.stroke(paths[1]);
    }
    pen.globalAlpha = 1;
  }

  /** Theta, mask, before (weights, or null), points, painted, boundary, unit (-1: no kink), cursor ([x, y] or null). */
  function draw({ theta, mask, before, points, painted, boundary, unit, cursor }) {
    const size = canvas.clientWidth;
    if (!size) return;
    const dense = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(size * dense)) canvas.width = canvas.height = Math.round(size * dense);
    const pen = canvas.getContext("2d");
    const ink = getComputedStyle(canvas).color;
    const line = (path, style, width, dash = []) => {
      pen.save();
      pen.scale(size, size);
      pen.strokeStyle = style;
      pen.lineWidth = width / size;
      pen.lineCap = "round";
      pen.setLineDash(dash.map((length) => length / size));
      pen.stroke(path);
      pen.restore();
    };
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, size, size);
    const values = forward(theta, mask, GRID);
    shade(values);
    const cell = size / CELLS;
    pen.drawImage(tint, -cell / 2, -cell / 2, size + cell, size + cell);
    pen.drawImage(dotted(size, dense, points, painted, ink), 0, 0, size, size);
    line(truth(boundary), ink, 2, [1, 5]);
    if (before) {
      if (earlier.theta !== before) earlier = { theta: before, path: contour(forward(before, mask.slice().fill(1), GRID)) };
      line(earlier.path, ink, 1.6, [7, 5]);
    }
    line(contour(values), ink, 2.8);
    if (unit >= 0) {
      const kink = contour(preactivation(theta, mask, unit, COARSE));
      line(kink, getComputedStyle(canvas).backgroundColor, 6);
      line(kink, colors.other, 3.2, mask[unit] ? [] : [2, 6]);
    }
    if (cursor) {
      const [cx, cy] = [((cursor[0] + 100) / 200) * size, ((100 - cursor[1]) / 200) * size];
      const cross = new Path2D(`M${cx - 9} ${cy}h18M${cx} ${cy - 9}v18`);
      pen.strokeStyle = ink;
      pen.lineWidth = 2;
      pen.stroke(cross);
    }
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const hundredths = (share) => Math.max(-100, Math.min(100, Math.round(200 * share - 100)));
    return [hundredths((event.clientX - box.left) / box.width), -hundredths((event.clientY - box.top) / box.height)];
  };
  return { canvas, draw, place };
}
