// The network 2-16-16-1 and its training, in float64. No page is needed: a worker and the tests run this file alone.
//
// Weights are one array: W1 (16 x 2, by rows), b1, W2 (16 x 16, by rows), b2, w3, b3. The logit is above 0 where the
// network says "minority". A mask holds 1 for each of the 32 units that is a ReLU and 0 for one that is the identity.

export const WIDTH = 16;
export const UNITS = 2 * WIDTH;
const [B1, W2, B2, W3, B3] = [2, 3, 3 + WIDTH, 4 + WIDTH, 5 + WIDTH].map((rows) => rows * WIDTH);
export const SIZE = B3 + 1;
const TEMPERATURE = 4; // of distillation, as in linfair.training

const BLOCK = 256; // points at a time, so that a layer's outputs stay in the processor's cache

/** Logits of points x (n pairs); `hidden`, if given (32 n numbers, unit after unit), gets the outputs of the units. */
export function forward(theta, mask, x, hidden = null) {
  const n = x.length / 2;
  const logits = new Float64Array(n).fill(theta[B3]);
  const stride = hidden ? n : BLOCK;
  const out = hidden ?? new Float64Array(UNITS * BLOCK);
  for (let first = 0; first < n; first += BLOCK) {
    const count = Math.min(BLOCK, n - first);
    const here = hidden ? first : 0;
    for (let j = 0; j < WIDTH; j++) {
      const [wx, wy, bias, bent, at] = [theta[2 * j], theta[2 * j + 1], theta[B1 + j], mask[j], j * stride + here];
      for (let i = 0, point = 2 * first; i < count; i++, point += 2) {
        const z = wx * x[point] + wy * x[point + 1] + bias;
        out[at + i] = bent && !(z > 0) ? 0 : z;
      }
    }
    for (let j = 0; j < WIDTH; j++) {
      const at = (WIDTH + j) * stride + here;
      for (let i = 0; i < count; i++) out[at + i] = theta[B2 + j];
      for (let k = 0; k < WIDTH; k += 4) {
        const row = W2 + j * WIDTH + k;
        const [a, b, c, d] = [theta[row], theta[row + 1], theta[row + 2], theta[row + 3]];
        const [ha, hb, hc, hd] = [k, k + 1, k + 2, k + 3].map((unit) => unit * stride + here);
        for (let i = 0; i < count; i++)
          out[at + i] += a * out[ha + i] + b * out[hb + i] + (c * out[hc + i] + d * out[hd + i]);
      }
      const [weight, bent] = [theta[W3 + j], mask[WIDTH + j]];
      for (let i = 0; i < count; i++) {
        const z = out[at + i];
        const value = bent && !(z > 0) ? 0 : z;
        out[at + i] = value;
        logits[first + i] += weight * value;
      }
    }
  }
  return logits;
}

/** What goes into one unit's ReLU at each point: its kink is where this is 0. */
export function preactivation(theta, mask, unit, x) {
  const n = x.length / 2;
  const hidden = new Float64Array(n * UNITS);
  const open = mask.slice();
  open[unit] = 0; // the identity shows what comes in
  forward(theta, open, x, hidden);
  return hidden.subarray(unit * n, (unit + 1) * n);
}

/** The gradient of sum_i g_i logit_i, where `hidden` is what `forward` wrote; `enter(unit, d)` sees dL/dz of each unit. */
function backward(theta, mask, x, hidden, g, enter = () => {}) {
  const n = g.length;
  const gradient = new Float64Array(SIZE);
  const back = new Float64Array(n * WIDTH);
  const d = new Float64Array(n);
  const dot = (at, values = d) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += values[i] * hidden[at + i];
    return sum;
  };
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  gradient[B3] = total(g);
  for (let j = 0; j < WIDTH; j++) {
    const [at, bent, weight, row] = [(WIDTH + j) * n, mask[WIDTH + j], theta[W3 + j], W2 + j * WIDTH];
    gradient[W3 + j] = dot(at, g);
    for (let i = 0; i < n; i++) d[i] = weight * g[i];
    enter(WIDTH + j, d);
    for (let i = 0; i < n; i++) if (bent && !(hidden[at + i] > 0)) d[i] = 0;
    gradient[B2 + j] = total(d);
    for (let k = 0; k < WIDTH; k++) {
      const [w, to] = [theta[row + k], k * n];
      let sum = 0;
      for (let i = 0; i < n; i++) {
        sum += d[i] * hidden[to + i];
        back[to + i] += w * d[i];
      }
      gradient[row + k] = sum;
    }
  }
  for (let k = 0; k < WIDTH; k++) {
    const own = back.subarray(k * n, (k + 1) * n);
    enter(k, own);
    let [sx, sy, sum] = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      if (mask[k] && !(hidden[k * n + i] > 0)) continue;
      sx += own[i] * x[2 * i];
      sy += own[i] * x[2 * i + 1];
      sum += own[i];
    }
    gradient.set([sx, sy], 2 * k);
    gradient[B1 + k] = sum;
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

/** The units' inputs where a ReLU would change them, min(z, 0), unit after unit, and the outputs. */
function bent(theta, mask, x) {
  const n = x.length / 2;
  const hidden = new Float64Array(n * UNITS);
  forward(theta, mask, x, hidden);
  const below = new Float64Array(n * UNITS);
  for (let unit = 0; unit < UNITS; unit++) {
    const [first, at] = [unit < WIDTH, unit * n];
    const row = W2 + (unit - WIDTH) * WIDTH;
    for (let i = 0; i < n; i++) {
      let z = hidden[at + i];
      if (mask[unit] && z === 0) {
        if (first) z = theta[2 * unit] * x[2 * i] + theta[2 * unit + 1] * x[2 * i + 1] + theta[B1 + unit];
        else {
          z = theta[B2 + unit - WIDTH];
          for (let k = 0; k < WIDTH; k++) z += theta[row + k] * hidden[k * n + i];
        }
      }
      below[at + i] = Math.min(z, 0);
    }
  }
  return { below, hidden };
}

/** Each unit's bend, the mean of max(-z, 0) over points: how far its ReLU is from the identity (linfair: negative_part). */
export function bends(theta, mask, x) {
  const n = x.length / 2;
  const { below } = bent(theta, mask, x);
  const mean = (unit) => below.subarray(unit * n, (unit + 1) * n).reduce((sum, z) => sum - z / n, 0);
  return Float64Array.from(mask, (kept, unit) => (kept ? mean(unit) : 0));
}

/** How much the loss feels each unit, |dL / d alpha| at alpha = 1 (linfair: snip). */
export function importance(theta, { x, groups }) {
  const n = groups.length;
  const all = new Uint8Array(UNITS).fill(1);
  const { below, hidden } = bent(theta, all, x);
  const { slopes } = losses(forward(theta, all, x), groups, null);
  const felt = new Float64Array(UNITS);
  const feel = (unit, d) => {
    for (let i = 0; i < n; i++) felt[unit] += (d[i] * below[unit * n + i]) / n;
  };
  backward(theta, all, x, hidden, slopes, feel);
  return felt.map(Math.abs);
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
