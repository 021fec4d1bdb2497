// The state of the page and what can be done to it; `view` is what a link says, `state` the network as it is now.

import { encode } from "./link.js";
import { UNITS, accuracies, bends, start } from "./network.js";
import { data } from "./toydata.js";
import { ALL, bitsOf, fresh, replay } from "./worker.js";

export const USUAL = { fit: 400, round: 200 }; // steps of a training
const MOST = { rounds: 20, painted: 300 };

export class Lab {
  /** `heard.change` is called whenever something may look different, `heard.done` after each act, `heard.say` refuses. */
  constructor(view, trainer, heard) {
    Object.assign(this, { view, trainer, heard, points: data(view), state: fresh(view.seed), playing: false, measured: null });
  }

  get recipe() {
    const { boundary, share, seed, painted, steps, rounds } = this.view;
    return { boundary, share, seed, painted, steps, rounds };
  }

  /** What holds the steps that are being taken: the first training, or a round. */
  get current() {
    return this.state.phase ? this.view.rounds[this.state.phase - 1] : this.view;
  }

  /** The network with all ReLUs, to which everything is compared. */
  get base() {
    return this.state.base ?? this.state.run;
  }

  get rewound() {
    return { phase: 0, run: this.base, mask: ALL, base: null };
  }

  get kept() {
    return this.state.mask.reduce((sum, one) => sum + one, 0);
  }

  /** Accuracies of [majority, minority] now and with all ReLUs, their change in points, and the units' bends. */
  get numbers() {
    if (!this.measured) {
      const { run, mask } = this.state;
      const now = accuracies(run.theta, mask, this.points.test);
      const before = this.state.base ? this.before : now;
      const change = now.map((value, group) => 100 * (value - before[group]));
      this.measured = { now, before, change, bends: bends(run.theta, mask, this.points.train.x) };
    }
    return this.measured;
  }

  /** Accuracies with all ReLUs, computed once for each such network and test. */
  get before() {
    const { theta } = this.base;
    const known = this.known?.theta.every((value, k) => value === theta[k]) && this.known.test === this.points.test;
    if (!known) this.known = { theta, test: this.points.test, found: accuracies(theta, ALL, this.points.test) };
    return this.known.found;
  }

  settle() {
    this.playing = false;
    this.measured = null;
    this.heard.done();
    this.heard.change();
  }

  /** Train in the thread until the recipe is done, from a state on its way or from the first step. */
  run(from) {
    this.playing = true;
    this.trainer.ask({ task: "run", recipe: this.recipe, state: from }, ({ state, done }) => {
      this.state = state;
      this.measured = null;
      if (done) this.settle();
      else this.heard.change();
    });
    this.heard.change();
  }

  /** Stop where the training is: the recipe says so then. */
  halt() {
    if (!this.playing) return;
    this.trainer.stop();
    this.playing = false;
    this.view.rounds.length = this.state.phase;
    this.current.steps = this.state.run.t;
  }

  /** Do at once what the recipe still asks for. */
  advance() {
    const steps = replay(this.recipe, this.points, this.state);
    let next = steps.next();
    while (!next.done) next = steps.next();
    this.state = next.value;
    this.settle();
  }

  full() {
    const full = this.view.rounds.length >= MOST.rounds;
    if (full) this.heard.say(`A network takes ${MOST.rounds} rounds at most. Take all ReLUs back to begin again.`);
    return full;
  }

  /** Another choice of units; one after which nothing was trained is replaced. */
  cut(choice) {
    this.halt();
    const { view, state } = this;
    if (view.rounds.at(-1)?.steps === 0) {
      view.rounds.pop();
      state.phase -= 1;
      state.run = state.phase ? { ...start(state.run.theta), t: this.current.steps } : state.base;
    }
    if (this.full()) return;
    view.rounds.push({ keep: view.keep, draw: 0, bits: 0, ...choice, mode: "tune", mu: view.mu, steps: 0 });
    this.advance();
  }

  flip(unit) {
    this.halt();
    const mask = this.state.mask.slice();
    mask[unit] = 1 - mask[unit];
    const keep = mask.reduce((sum, one) => sum + one, 0);
    Object.assign(this.view, { keep, unit });
    this.cut({ how: "hand", bits: bitsOf(mask) });
  }

  /** Keep `view.keep` units, chosen at random (another draw each time) or by importance. */
  choose(how) {
    const last = this.view.rounds.at(-1);
    const again = how === "random" && last?.how === "random" && last.keep === this.view.keep && !last.steps;
    this.cut({ how, draw: again ? last.draw + 1 : (last?.draw ?? 0) });
  }

  /** Keep another number of units, chosen as before. */
  keep(count) {
    const last = this.view.rounds.at(-1);
    this.view.keep = count;
    this.cut({ how: last?.how === "importance" ? "importance" : "random", draw: last?.draw ?? 0 });
  }

  /** Train what is left: "tune" as it is, "repair" with the penalty. */
  tune(mode) {
    this.halt();
    const { rounds, mu } = this.view;
    const wanted = { mode, mu, steps: USUAL.round };
    if (rounds.at(-1)?.steps === 0) Object.assign(rounds.at(-1), wanted);
    else if (this.full()) return;
    else rounds.push({ how: "same", keep: 0, draw: 0, bits: 0, ...wanted });
    this.run(this.state);
  }

  /** Another strength: a repair that was made is made again with it. */
  strength(mu) {
    this.view.mu = mu;
    const last = this.view.rounds.at(-1);
    if (last?.mode !== "repair") return this.settle();
    Object.assign(last, { mu, steps: last.steps || USUAL.round });
    this.run(this.rewound);
  }

  play() {
    if (this.playing) {
      this.halt();
      return this.settle();
    }
    const usual = this.state.phase ? USUAL.round : USUAL.fit;
    this.current.steps = this.state.run.t < usual ? usual : this.state.run.t + 100;
    this.run(this.state);
  }

  step() {
    this.halt();
    this.current.steps = this.state.run.t + 1;
    this.advance();
  }

  restart() {
    this.trainer.stop();
    Object.assign(this.view, { steps: 0, rounds: [] });
    this.state = fresh(this.view.seed);
    this.settle();
  }

  allBack() {
    this.halt();
    this.state = this.rewound;
    this.view.rounds = [];
    this.settle();
  }

  /** Other points: the same recipe from the first step. */
  again(change = {}) {
    Object.assign(this.view, change);
    this.points = data(this.view);
    if (this.view.steps || this.view.rounds.length) this.run(null);
    else this.restart();
  }

  /** Paint a point [x, y] of a group (0, 1), or erase those around it (-1); the network waits for `again`. */
  paint([x, y], group) {
    const { view } = this;
    const far = view.painted.filter((one) => Math.hypot(one[0] - x, one[1] - y) >= (group < 0 ? 10 : 4));
    if (group < 0) view.painted = far;
    else if (far.length < view.painted.length) return;
    else if (far.length >= MOST.painted) return this.heard.say(`${MOST.painted} painted points are the most. Erase some.`);
    else view.painted.push([x, y, group]);
    this.points = data(view);
    this.measured = null;
    this.heard.change();
  }

  /** Show another view; what lies on the way to it is not computed again. */
  enter(view) {
    const pointsOf = ({ boundary, share, seed, painted, steps }) => JSON.stringify([boundary, share, seed, painted, steps]);
    const same = !this.playing && pointsOf(view) === pointsOf(this.view) && this.base.t >= view.steps;
    const way = same && this.view.rounds.every((one, i) => JSON.stringify(one) === JSON.stringify(view.rounds[i]));
    this.view = structuredClone(view);
    this.points = data(this.view);
    this.run(way ? this.state : same ? this.rewound : null);
  }

  get link() {
    return encode(this.view);
  }
}
