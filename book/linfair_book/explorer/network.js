// The network 2-16-16-1 and its training, in float64. No page is needed: a worker and the tests run this file alone.
//
// Weights are one array: W1 (16 x 2, by rows), b1, W2 (16 x 16, by rows), b2, w3, b3. The logit is above 0 where the
// network says "minority". A mask holds 1 for each of the 32 units that is a ReLU and 0 for one that is the identity.

export const WIDTH = 16;
export const UNITS = 2 * WIDTH;
const [B1, W2, B2, W3, B3] = [2, 3, 3 + WIDTH, 4 + WIDTH, 5 + WIDTH].map((rows) => rows * WIDTH);
export const SIZE = B3 + 1;
const TEMPERATURE = 4; // of distillation, as in linfair.training

/** Logits of points x (n pairs); `hidden`, if given, gets the 32 outputs of the units for each point. */
export function forward(theta, mask, x, hidden = null) {
  const n = x.length / 2;
  const logits = new Float64Array(n);
  const h = new Float64Array(UNITS);
  for (let i = 0; i < n; i++) {
    const [px, py] = [x[2 * i], x[2 * i + 1]];
    for (let j = 0; j < WIDTH; j++) {
      const z = theta[2 * j] * px + theta[2 * j + 1] * py + theta[B1 + j];
      h[j] = z > 0 || !mask[j] ? z : 0;
    }
    let logit = theta[B3];
    for (let j = 0; j < WIDTH; j++) {
      const row = W2 + j * WIDTH;
      let [even, odd] = [theta[B2 + j], 0]; // two sums, so that one does not wait for the other
      for (let k = 0; k < WIDTH; k += 2) {
        even += theta[row + k] * h[k];
        odd += theta[row + k + 1] * h[k + 1];
      }
      const z = even + odd;
      const out = z > 0 || !mask[WIDTH + j] ? z : 0;
      h[WIDTH + j] = out;
      logit += theta[W3 + j] * out;
    }
    logits[i] = logit;
    if (hidden) hidden.set(h, i * UNITS);
  }
  return logits;
}

/** What goes into one unit's ReLU at each point: its kink is where this is 0. */
export function preactivation(theta, mask, unit, x) {
  const hidden = new Float64Array((x.length / 2) * UNITS);
  const open = mask.slice();
  open[unit] = 0; // the identity shows what comes in
  forward(theta, open, x, hidden);
  return Float64Array.from({ length: x.length / 2 }, (_, i) => hidden[i * UNITS + unit]);
}

/** The gradient of sum_i g_i logit_i, where `hidden` is what `forward` wrote. */
function backward(theta, mask, x, hidden, g) {
  const gradient = new Float64Array(SIZE);
  const back = new Float64Array(WIDTH);
  for (let i = 0, at = 0; i < g.length; i++, at += UNITS) {
    const gi = g[i];
    back.fill(0);
    gradient[B3] += gi;
    for (let j = 0; j < WIDTH; j++) {
      const out = hidden[at + WIDTH + j];
      gradient[W3 + j] += gi * out;
      if (mask[WIDTH + j] && !(out > 0)) continue;
      const d = gi * theta[W3 + j];
      gradient[B2 + j] += d;
      const row = W2 + j * WIDTH;
      for (let k = 0; k < WIDTH; k++) {
        gradient[row + k] += d * hidden[at + k];
        back[k] += d * theta[row + k];
      }
    }
    for (let k = 0; k < WIDTH; k++) {
      if (mask[k] && !(hidden[at + k] > 0)) continue;
      gradient[2 * k] += back[k] * x[2 * i];
      gradient[2 * k + 1] += back[k] * x[2 * i + 1];
      gradient[B1 + k] += back[k];
    }
  }
  return gradient;
}

const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));

/** Each point's loss and its slope: CE, and with a teacher's logits KD (T = 4, times T squared) as L^KD of the paper. */
function losses(logits, groups, teacher) {
  const each = new Float64Array(logits.length);
  const slopes = new Float64Array(logits.length);
  for (let i = 0; i < logits.length; i++) {
    const z = logits[i];
    each[i] = softplus(z) - groups[i] * z;
    slopes[i] = sigmoid(z) - groups[i];
    if (!teacher) continue;
    const [t, s, T] = [teacher[i] / TEMPERATURE, z / TEMPERATURE, TEMPERATURE];
    const p = sigmoid(t);
    each[i] += T * T * (softplus(s) - p * s - softplus(t) + p * t);
    slopes[i] += T * (sigmoid(s) - p);
  }
  return { each, slopes };
}

/** A training that can be kept, sent and continued: Adam from step 0, no multiplier yet. */
export function start(theta) {
  return { theta: theta.slice(), m: new Float64Array(SIZE), v: new Float64Array(SIZE), t: 0, multipliers: [0, 0] };
}

/**
 * One full-batch step of Adam (torch's defaults), which changes `run`. With mu above 0 the loss has the penalty of
 * Algorithm 1, sum_a lambda_a |L_a - L|, and lambda_a grows by mu |L_a - L| after each step.
 */
export function step(run, mask, { x, groups }, { lr, teacher = null, mu = 0 }) {
  const n = groups.length;
  const hidden = new Float64Array(n * UNITS);
  const logits = forward(run.theta, mask, x, hidden);
  const { each, slopes } = losses(logits, groups, teacher);
  const sums = [0, 0];
  const counts = [0, 0];
  for (let i = 0; i < n; i++) {
    sums[groups[i]] += each[i];
    counts[groups[i]] += 1;
  }
  const mean = (sums[0] + sums[1]) / n;
  const weights = [1, 1]; // of each group's points in the gradient
  if (mu > 0) {
    const gaps = sums.map((sum, a) => (counts[a] ? sum / counts[a] - mean : 0));
    if (run.t > 0) run.multipliers = run.multipliers.map((value, a) => value + mu * Math.abs(gaps[a]));
    const signs = gaps.map((gap, a) => run.multipliers[a] * Math.sign(gap));
    for (const a of [0, 1]) weights[a] = 1 - signs[0] - signs[1] + (counts[a] ? (signs[a] * n) / counts[a] : 0);
  }
  for (let i = 0; i < n; i++) slopes[i] *= weights[groups[i]] / n;
  const gradient = backward(run.theta, mask, x, hidden, slopes);
  run.t += 1;
  const [first, second] = [1 - 0.9 ** run.t, 1 - 0.999 ** run.t];
  for (let k = 0; k < SIZE; k++) {
    run.m[k] += 0.1 * (gradient[k] - run.m[k]);
    run.v[k] = 0.999 * run.v[k] + 0.001 * gradient[k] * gradient[k];
    run.theta[k] -= ((lr / first) * run.m[k]) / (Math.sqrt(run.v[k] / second) + 1e-8);
  }
  return mean;
}

/** Each unit's bend, the mean of max(-z, 0) over points: how far its ReLU is from the identity (linfair: negative_part). */
export function bends(theta, mask, x) {
  const n = x.length / 2;
  const hidden = new Float64Array(n * UNITS);
  forward(theta, mask, x, hidden);
  const found = new Float64Array(UNITS);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < UNITS; j++) {
      if (!mask[j]) continue;
      if (j < WIDTH) {
        const z = theta[2 * j] * x[2 * i] + theta[2 * j + 1] * x[2 * i + 1] + theta[B1 + j];
        if (z < 0) found[j] -= z / n;
      } else if (!(hidden[i * UNITS + j] > 0)) {
        const row = W2 + (j - WIDTH) * WIDTH;
        let z = theta[B2 + j - WIDTH];
        for (let k = 0; k < WIDTH; k++) z += theta[row + k] * hidden[i * UNITS + k];
        if (z < 0) found[j] -= z / n;
      }
    }
  return found;
}

/** How much the loss feels each unit, |dL / d alpha| at alpha = 1 (linfair: snip). */
export function importance(theta, { x, groups }) {
  const n = groups.length;
  const all = new Uint8Array(UNITS).fill(1);
  const hidden = new Float64Array(n * UNITS);
  const { slopes } = losses(forward(theta, all, x, hidden), groups, null);
  const sums = new Float64Array(UNITS);
  for (let i = 0, at = 0; i < n; i++, at += UNITS) {
    const back = new Float64Array(WIDTH);
    for (let j = 0; j < WIDTH; j++) {
      const row = W2 + j * WIDTH;
      const d = (slopes[i] / n) * theta[W3 + j];
      if (hidden[at + WIDTH + j] > 0) for (let k = 0; k < WIDTH; k++) back[k] += d * theta[row + k];
      else {
        let z = theta[B2 + j];
        for (let k = 0; k < WIDTH; k++) z += theta[row + k] * hidden[at + k];
        sums[WIDTH + j] -= d * z;
      }
    }
    for (let k = 0; k < WIDTH; k++) {
      const z = theta[2 * k] * x[2 * i] + theta[2 * k + 1] * x[2 * i + 1] + theta[B1 + k];
      if (z < 0) sums[k] -= back[k] * z;
    }
  }
  return sums.map(Math.abs);
}

/** Share of each group's points that the network puts on the right side. */
export function accuracies(theta, mask, { x, groups }) {
  const right = [0, 0];
  const counts = [0, 0];
  forward(theta, mask, x).forEach((logit, i) => {
    counts[groups[i]] += 1;
    right[groups[i]] += logit > 0 === (groups[i] === 1);
  });
  return right.map((count, a) => count / counts[a]);
}
