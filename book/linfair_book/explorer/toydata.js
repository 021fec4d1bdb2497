// The toy's points, initial weights and choices of units, all from a seed. The same recipe as linfair's data "toy" and
// linfair_book.toy, with random numbers of its own.

import { SIZE, UNITS, WIDTH } from "./network.js";

/** Above 0 on the minority's side of the true boundary. */
export const BOUNDARIES = {
  wave: (x, y) => y - 0.5 * Math.sin(2.5 * Math.PI * x),
  circle: (x, y) => 0.6 - Math.hypot(x, y),
  spiral: (x, y) => Math.sin(Math.atan2(y, x) - 1.5 * Math.PI * Math.hypot(x, y)),
  convex: (x, y) => y - 0.5 * (2 * x * x - 1),
};

/** Mulberry32: uniform numbers in [0, 1) from a seed and the name of what they are for. */
function uniform(seed, purpose) {
  let state = [...purpose].reduce((sum, letter) => Math.imul(sum ^ letter.charCodeAt(0), 16777619), 2166136261 + seed);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** So many points of each group, uniform on each side of the boundary. */
function points(boundary, counts, next) {
  const found = [[], []];
  while (found.some((part, a) => part.length < 2 * counts[a])) {
    const [x, y] = [2 * next() - 1, 2 * next() - 1];
    const group = BOUNDARIES[boundary](x, y) > 0 ? 1 : 0;
    if (found[group].length < 2 * counts[group]) found[group].push(x, y);
  }
  return { x: Float64Array.from(found.flat()), groups: Uint8Array.from(counts.flatMap((count, a) => Array(count).fill(a))) };
}

let drawn = { key: null, parts: null }; // the last points, so that painting does not draw them again

/**
 * 1,000 points to train on, of which `share` per cent are the minority's, and those painted ([x, y, group], in
 * hundredths); 1,000 a group to test on.
 */
export function data({ boundary, share, seed, painted }) {
  const key = `${boundary} ${share} ${seed}`;
  if (drawn.key !== key) {
    const train = points(boundary, [1000 - 10 * share, 10 * share], uniform(seed, "train"));
    drawn = { key, parts: { train, test: points(boundary, [1000, 1000], uniform(seed, "test")) } };
  }
  const { train, test } = drawn.parts;
  const x = Float64Array.from([...train.x, ...painted.flatMap((one) => [one[0] / 100, one[1] / 100])]);
  return { train: { x, groups: Uint8Array.from([...train.groups, ...painted.map((one) => one[2])]) }, test };
}

/** He's initial weights for the hidden layers, torch's for the last one and all biases. */
export function initial(seed) {
  const next = uniform(seed, "weights");
  const theta = new Float64Array(SIZE);
  const hidden = 5 * WIDTH + WIDTH * WIDTH - WIDTH; // where the last layer begins
  for (let k = 0; k < SIZE; k++) {
    const first = k < 3 * WIDTH;
    const bias = (first && k >= 2 * WIDTH) || k >= 3 * WIDTH + WIDTH * WIDTH;
    const reach = 1 / Math.sqrt(first ? 2 : WIDTH);
    theta[k] = (2 * next() - 1) * reach * (bias && k < hidden ? 1 : k < hidden ? Math.sqrt(6) : 1);
  }
  return theta;
}

/** The mask that keeps `keep` units: those with the largest scores. */
export function keepLargest(scores, keep) {
  const mask = new Uint8Array(UNITS);
  const order = [...scores.keys()].sort((i, j) => scores[j] - scores[i] || i - j);
  for (const unit of order.slice(0, keep)) mask[unit] = 1;
  return mask;
}

/** Scores that choose units at random; each `draw` is another choice. */
export function randomScores(seed, draw) {
  const next = uniform(seed, `units ${draw}`);
  return Float64Array.from({ length: UNITS }, next);
}
