// Twenty seeds on one line for each group: how far its accuracy moved under what was done here; this network is ringed.

import { GROUPS, make, signed } from "./common.js";
import { button } from "./parts.js";

const SEEDS = 20;
const LANE = 46;
const LEFT = 74;

/** The middle of some numbers. */
const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

/** The strip with its buttons; `follow()` renews it after something was done, once it was asked for. */
export function makeSeeds(lab, colors, worker) {
  let changes = new Map(); // seed -> [majority's, minority's change in points]
  let wanted = false;
  const picture = make("div", { class: "strip" });
  const said = make("p", { class: "others" });
  const begin = button("Run 20 seeds", fill);
  const stop = button("Stop", () => {
    worker.stop();
    wanted = false;
    idle();
  });
  const name = make("span", { class: "name" }, "The same on other seeds:");
  const buttons = make("div", { class: "group", role: "group", "aria-label": "Other seeds" }, name, begin, stop);
  const element = make("div", { class: "seeds" }, buttons, picture, said);
  const idle = () => {
    stop.hidden = true;
    element.dataset.busy = false;
  };
  idle();

  function fill() {
    wanted = true;
    if (lab.playing) return;
    const { seed } = lab.view;
    changes = new Map([[seed, lab.numbers.change]]);
    draw();
    stop.hidden = false;
    element.dataset.busy = true;
    const others = Array.from({ length: SEEDS }, (_, one) => one).filter((one) => one !== seed);
    worker.ask({ task: "seeds", recipe: lab.recipe, seeds: others.slice(0, SEEDS - 1) }, (answer) => {
      if (answer.done) return idle();
      changes.set(answer.seed, answer.after.map((value, group) => 100 * (value - answer.before[group])));
      draw();
    });
  }

  function lane(svg, group, at) {
    const middle = group * LANE + LANE / 2;
    const role = GROUPS[group];
    svg.append(make("text", { x: 0, y: middle + 4 }, role));
    const taken = [];
    for (const [seed, values] of [...changes].toSorted((a, b) => a[1][group] - b[1][group])) {
      const x = at(values[group]);
      const free = [0, 1, -1, 2, -2].find((row) => !taken.some(([px, r]) => r === row && Math.abs(px - x) < 10)) ?? 0;
      taken.push([x, free]);
      const y = middle + 9 * free;
      const shape = group ? { x: x - 4, y: y - 4, width: 8, height: 8 } : { cx: x, cy: y, r: 4.5 };
      const text = make("title", {}, `seed ${seed}: ${signed(values[group])} points; click to see it`);
      const dot = make(group ? "rect" : "circle", { ...shape, fill: colors[role] }, text);
      dot.addEventListener("click", () => lab.again({ seed }));
      svg.append(dot);
      if (seed === lab.view.seed) svg.append(make("circle", { cx: x, cy: y, r: 8.5, class: "ring" }));
    }
    const x = at(median([...changes.values()].map((values) => values[group])));
    if (changes.size > 2) svg.append(make("path", { d: `M${x} ${middle - 22}v44`, class: "median" }));
  }

  function draw() {
    const width = picture.clientWidth;
    if (!changes.size || !width) return;
    const all = [...changes.values()].flat();
    const low = Math.min(-10, ...all.map((v) => 5 * Math.floor(v / 5)));
    const high = Math.max(5, ...all.map((v) => 5 * Math.ceil(v / 5)));
    const at = (value) => LEFT + ((value - low) / (high - low)) * (width - LEFT - 16);
    const height = 2 * LANE + 34;
    const minority = [...changes.values()].map((values) => values[1]);
    const worse = minority.filter((value) => value < -0.05).length;
    const text = `In ${worse} of ${changes.size} networks the minority loses; its median change is ${signed(median(minority))} points.`;
    const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text });
    const every = high - low > 60 ? 20 : high - low > 30 ? 10 : 5;
    for (let tick = Math.ceil(low / every) * every; tick <= high; tick += every)
      svg.append(
        make("line", { x1: at(tick), x2: at(tick), y1: 0, y2: 2 * LANE, class: tick ? "grid" : "zero" }),
        make("text", { x: at(tick), y: 2 * LANE + 14, "text-anchor": "middle" }, signed(tick).replace(".0", "")),
      );
    svg.append(make("text", { x: (LEFT + width) / 2, y: height - 3, "text-anchor": "middle" }, "change in points"));
    for (const group of [0, 1]) lane(svg, group, at);
    picture.replaceChildren(svg);
    said.textContent = `${text} The ring is the network above, the upright line the median.`;
  }
  return { element, draw, follow: () => wanted && fill(), close: () => worker.close() };
}
