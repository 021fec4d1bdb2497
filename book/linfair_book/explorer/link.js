// The whole state as the part of an address behind "#": letters, digits, - and _ alone, so that it is a valid selector.

import { BOUNDARIES } from "./toydata.js";

const HOW = ["hand", "random", "importance", "same"];
const MODES = ["tune", "repair"];
const START = "toy";

export const FIRST = {
  boundary: "wave", share: 10, seed: 0, painted: [], steps: 400, rounds: [], // the recipe
  keep: 16, mu: 10, unit: -1, overlay: true, story: -1, scene: 0, // what the page shows of it
};

const digits = (value, length = 0) => value.toString(36).padStart(length, "0");

/** A state as text. */
export function encode(state) {
  const flags = [state.keep, state.mu, state.unit + 1, +state.overlay, state.story + 1, state.scene].map((v) => digits(v));
  const fields = [START, state.boundary, digits(state.share), digits(state.seed), digits(state.steps), flags.join("-")];
  for (const { how, keep, draw, bits, mode, mu, steps } of state.rounds)
    fields.push(`r${[HOW.indexOf(how), keep, draw, bits, MODES.indexOf(mode), mu, steps].map((v) => digits(v)).join("-")}`);
  const points = state.painted.map(([x, y, group]) => digits(((x + 100) * 201 + y + 100) * 2 + group, 4));
  if (points.length) fields.push(`p${points.join("")}`);
  return fields.join("_");
}

const whole = (text, low, high) => {
  const value = /^[0-9a-z]{1,7}$/.test(text) ? parseInt(text, 36) : NaN;
  if (!(value >= low && value <= high)) throw new RangeError(`${text} is no number from ${low} to ${high}`);
  return value;
};

/** The state that a text says, or null where it says none that the page could show. */
export function decode(text) {
  try {
    const [begin, boundary, share, seed, steps, flags, ...rest] = text.split("_");
    if (begin !== START || !Object.hasOwn(BOUNDARIES, boundary)) return null;
    const [keep, mu, unit, overlay, story, scene] = flags.split("-");
    const state = {
      ...FIRST, boundary, share: whole(share, 1, 50), seed: whole(seed, 0, 9999), steps: whole(steps, 0, 5000),
      keep: whole(keep, 0, 32), mu: whole(mu, 0, 20), unit: whole(unit, 0, 32) - 1, overlay: whole(overlay, 0, 1) === 1,
      story: whole(story, 0, 3) - 1, scene: whole(scene, 0, 3), painted: [], rounds: [],
    };
    for (const field of rest) {
      if (field[0] === "r") {
        const [how, kept, draw, bits, mode, step, count] = field.slice(1).split("-");
        state.rounds.push({
          how: HOW[whole(how, 0, 3)], keep: whole(kept, 0, 32), draw: whole(draw, 0, 9999),
          bits: whole(bits, 0, 2 ** 32 - 1), mode: MODES[whole(mode, 0, 1)], mu: whole(step, 0, 20), steps: whole(count, 0, 5000),
        });
      } else if (field[0] === "p") {
        for (const code of field.slice(1).match(/.{1,4}/g)) {
          const value = whole(code, 0, 201 * 201 * 2 - 1);
          const place = value >> 1;
          state.painted.push([Math.floor(place / 201) - 100, (place % 201) - 100, value & 1]);
        }
      } else return null;
    }
    return state.rounds.length <= 20 && state.painted.length <= 300 ? state : null;
  } catch {
    return null;
  }
}
