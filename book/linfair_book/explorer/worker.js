// What was done to the network, as a recipe that can be replayed on any seed; and the thread that replays it.
//
// A recipe: boundary, share, seed, painted (points [x, y, group] in hundredths), steps (of the first training, all 32
// units ReLUs), rounds: { how, keep, draw, bits, mode, mu, steps }, each a choice of units and the steps trained after it.

import { UNITS, accuracies, forward, importance, start, step } from "./network.js";
import { data, initial, keepLargest, randomScores } from "./toydata.js";

export const RATES = { fit: 0.03, tune: 0.01 };
export const ALL = new Uint8Array(UNITS).fill(1);

/** The slider's place 0 to 20 -> mu, from 0.001 to 0.1. */
export const muOf = (place) => 10 ** (place / 10 - 3);

export const maskOf = (bits) => Uint8Array.from({ length: UNITS }, (_, unit) => (bits >>> unit) & 1);
export const bitsOf = (mask) => mask.reduce((bits, kept, unit) => bits | (kept << unit), 0) >>> 0;

function chosen({ how, keep, draw, bits }, seed, state, train) {
  if (how === "same") return state.mask;
  if (how === "hand") return maskOf(bits);
  return keepLargest(how === "random" ? randomScores(seed, draw) : importance(state.run.theta, train), keep);
}

/** A network before its first step: phase 0 is the first training, phase k the k-th round; `base` is the end of phase 0. */
export const fresh = (seed) => ({ phase: 0, run: start(initial(seed)), mask: ALL, base: null });

/** Replay a recipe from a state that lies on its way; yields after each step, returns the state at the end. */
export function* replay(recipe, points, state = fresh(recipe.seed)) {
  for (;;) {
    const round = recipe.rounds[state.phase - 1];
    const options = { lr: round ? RATES.tune : RATES.fit, mu: round?.mode === "repair" ? muOf(round.mu) : 0 };
    const steps = (round ?? recipe).steps;
    if (round && state.run.t < steps) options.teacher = forward(state.base.theta, ALL, points.train.x);
    while (state.run.t < steps) {
      state.loss = step(state.run, state.mask, points.train, options);
      yield state;
    }
    if (state.phase >= recipe.rounds.length) return state;
    state.base ??= state.run;
    state.mask = chosen(recipe.rounds[state.phase], recipe.seed, state, points.train);
    state.run = start(state.run.theta);
    state.phase += 1;
  }
}

/** Answer messages: { id, task: "run", recipe, state }, { id, task: "seeds", recipe, seeds } or { id, task: "stop" }. */
export function serve(post) {
  let latest = 0;
  const bases = new Map(); // a seed's points and trained network, so that another choice of units is quick

  async function drive(id, steps, report = () => {}) {
    let began = performance.now();
    for (;;) {
      const { done, value } = steps.next();
      if (done) return value;
      if (performance.now() - began < 20) continue;
      report(value);
      await new Promise((go) => setTimeout(go)); // messages get their turn
      if (id !== latest) return null;
      began = performance.now();
    }
  }

  async function seeds(id, recipe, wanted) {
    const { boundary, share, painted, steps } = recipe;
    for (const seed of wanted) {
      const own = { ...recipe, seed };
      const key = JSON.stringify([boundary, share, painted, steps, seed]);
      if (!bases.has(key)) {
        const points = data(own);
        const end = await drive(id, replay({ ...own, rounds: [] }, points));
        if (!end) return;
        if (bases.size > 60) bases.clear();
        bases.set(key, { points, theta: end.run.theta, before: accuracies(end.run.theta, ALL, points.test) });
      }
      const { points, theta, before } = bases.get(key);
      const run = { ...start(theta), t: steps };
      const end = await drive(id, replay(own, points, { phase: 0, run, mask: ALL, base: null }));
      if (!end) return;
      post({ id, seed, before, after: accuracies(end.run.theta, end.mask, points.test) });
      await new Promise((go) => setTimeout(go));
      if (id !== latest) return;
    }
    post({ id, done: true });
  }

  return async ({ id, task, recipe, state, seeds: wanted }) => {
    latest = id;
    if (task === "seeds") await seeds(id, recipe, wanted);
    if (task !== "run") return;
    const steps = replay(recipe, data(recipe), state ?? undefined);
    const end = await drive(id, steps, (now) => post({ id, state: now }));
    if (end) post({ id, state: end, done: true });
  };
}
