// The boundary explorer: a network that trains in the page, what it shows, and the controls.

import { GROUPS, fixed, make, oncePerFrame, signed, swatch, watchLook } from "./common.js";
import { makeGuide } from "./guide.js";
import { Lab } from "./lab.js";
import { FIRST, decode } from "./link.js";
import { UNITS, WIDTH } from "./network.js";
import { button, menu, segments, slider } from "./parts.js";
import { makePlane } from "./plane.js";
import { makeSeeds } from "./strip.js";
import { thread } from "./thread.js";
import { makeUnits } from "./units.js";
import { muOf } from "./worker.js";

const BRUSHES = [["off", "off"], ["0", "majority"], ["1", "minority"], ["-1", "erase"]];
const FORMS = { wave: "wave", circle: "circle", spiral: "spiral", convex: "convex curve" };
const HINT = "A bent line is a ReLU, a straight one is linear; the bar is the unit's bend. Point at a unit to see its kink; click to switch it.";
const percent = (value) => `${fixed(100 * value)} %`;

function render({ model, el }) {
  const { colors } = model.get("state");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const trainer = thread(WORKER);
  const timers = {};
  const drop = (name) => {
    clearTimeout(timers[name]);
    delete timers[name];
  };
  const later = (name, wait, work) => {
    drop(name);
    timers[name] = setTimeout(() => {
      delete timers[name];
      work();
      mark();
    }, wait);
    mark();
  };
  // Whether something is still to come: a training, the link, what is said of the numbers.
  const mark = () => (el.dataset.pending = lab.playing || !begun || Object.keys(timers).length > 0);
  let begun = false;
  let touched = false; // the address of the page changes once the reader has done something
  let hovered = -1;
  let brush = "off";
  let cursor = null;

  const status = make("p", { class: "status", role: "status" }, "The network trains in this page.");
  const say = (text) => {
    drop("said");
    status.textContent = text;
  };
  const lab = new Lab(decode(model.get("choice").link) ?? structuredClone(FIRST), trainer, {
    say,
    change() {
      mark();
      redraw();
    },
    done() {
      begun = true;
      if (lab.view.rounds.length) later("seeds", 300, () => seeds.follow());
      later("said", 300, announce);
      later("link", 300, save);
    },
  });

  function announce() {
    const { now, change } = lab.numbers;
    const shift = (group) => (lab.state.base ? `, ${signed(change[group])} points` : "");
    say(`${lab.kept} of ${UNITS} ReLUs: ${GROUPS.map((name, a) => `${name} ${percent(now[a])}${shift(a)}`).join("; ")}.`);
  }

  function save() {
    address.href = `#${lab.link}`;
    if (!touched || lab.link === model.get("choice").link) return;
    model.set("choice", { link: lab.link });
    model.save_changes();
  }

  const plane = makePlane(colors);
  const units = makeUnits({
    flip: (unit) => lab.flip(unit),
    look(unit) {
      hovered = unit;
      redraw();
    },
  });
  const seeds = makeSeeds(lab, colors, thread(WORKER));
  const guide = makeGuide(lab);

  plane.canvas.addEventListener("pointerdown", (event) => {
    if (brush === "off" || event.button) return;
    plane.canvas.setPointerCapture(event.pointerId);
    cursor = null;
    trainer.stop();
    lab.paint(plane.place(event), Number(brush));
  });
  plane.canvas.addEventListener("pointermove", (event) => {
    if (!plane.canvas.hasPointerCapture(event.pointerId)) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) lab.paint(plane.place(one), Number(brush));
  });
  plane.canvas.addEventListener("lostpointercapture", () => lab.again());
  plane.canvas.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [5, 0], ArrowLeft: [-5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5], Enter: [0, 0], " ": [0, 0] }[event.key];
    if (brush === "off" || !move) return;
    event.preventDefault();
    cursor = (cursor ?? [0, 0]).map((value, axis) => Math.max(-100, Math.min(100, value + move[axis])));
    if (!move[0] && !move[1]) {
      lab.paint(cursor, Number(brush));
      later("paint", 600, () => lab.again());
    }
    redraw();
  });

  const brushes = segments("Paint points", BRUSHES, (value) => {
    [brush, cursor] = [value, null];
    plane.canvas.classList.toggle("brush", brush !== "off");
    redraw();
  });
  const keep = slider({ name: "keep", label: "Linearize all but", max: UNITS, text: (v) => `${v} of ${UNITS} units` }, (v) => lab.keep(v));
  const mu = slider({ name: "mu", label: "Strength of the repair, μ", max: 20, text: (v) => `${Number(muOf(v).toPrecision(2))}` }, (v) => lab.strength(v));
  const share = slider({ name: "share", label: "Minority", min: 1, max: 50, text: (v) => `${v} % of 1,000 points` }, (v) => lab.again({ share: v }));
  const seed = slider({ name: "seed", label: "Seed", max: 19, text: (v) => `${v}` }, (v) => lab.again({ seed: v }));
  const form = menu("Boundary", FORMS, (value) => lab.again({ boundary: value }));
  const play = button("Play", () => lab.play());
  const progress = make("span", { class: "value reached" });
  const overlay = make("input", { type: "checkbox", "data-name": "overlay" });
  overlay.addEventListener("change", () => {
    lab.view.overlay = overlay.checked;
    lab.settle();
  });
  const about = make("p", { class: "others about" });
  const address = make("a", { href: "#" }, "Link to this network");

  const cells = GROUPS.map(() => [make("td", { class: "big" }), make("td"), make("td")]);
  const heads = ["now", "all ReLUs", "change"].map((text) => make("th", { scope: "col" }, text));
  const rows = GROUPS.map((name, a) => make("tr", {}, make("th", { scope: "row" }, swatch(name, colors[name]), ` ${name}`), ...cells[a]));
  const caption = make("caption", {}, "Right, of 1,000 test points in each group");
  const table = make("table", {}, caption, make("thead", {}, make("tr", {}, make("td"), ...heads)), make("tbody", {}, ...rows));

  const line = (kind, text) => make("span", { class: `line ${kind}` }, make("i"), ` ${text}`);
  const lines = [line("", "learned"), line("dashed", "with all ReLUs"), line("dotted", "true boundary"), line("kink", "kink of a unit")];
  const group = (label, ...children) => make("div", { class: "group", role: "group", "aria-label": label }, ...children);
  const block = (name, ...children) => make("div", { class: name }, ...children);
  el.classList.add("linfair-explorer", "toy");
  el.replaceChildren(
    guide.menu,
    guide.panel,
    block(
      "columns",
      block(
        "picture",
        block("plane", plane.canvas, make("p", { class: "legend", "aria-hidden": "true" }, ...lines)),
        block("paint", make("label", { class: "check" }, overlay, " Show the boundary with all ReLUs"), brushes.element),
        block("points controls", form.element, share.element, seed.element),
      ),
      block(
        "side",
        block("now", table, status),
        block("switches", units.element, about),
        block(
          "acts controls",
          keep.element,
          group("Remove", ...[["At random", "random"], ["By importance", "importance"]].map(([text, how]) => button(text, () => lab.choose(how))), button("All back", () => lab.allBack())),
          mu.element,
          group("Train what is left", button("Fine-tune", () => lab.tune("tune")), button("Repair", () => lab.tune("repair"))),
          group("Training", play, button("Step", () => lab.step()), button("Restart", () => lab.restart()), progress),
        ),
      ),
    ),
    seeds.element,
    make("p", { class: "others" }, address),
  );
  for (const event of ["pointerdown", "keydown"]) el.addEventListener(event, () => (touched = true), { capture: true });

  const pointed = () => (hovered >= 0 ? hovered : lab.view.unit);
  function show() {
    const { view, state, playing } = lab;
    const { now, before, change, bends } = lab.numbers;
    cells.forEach((row, a) => {
      const texts = [percent(now[a]), percent(before[a]), state.base ? signed(change[a]) : ""];
      row.forEach((cell, i) => cell.textContent !== texts[i] && (cell.textContent = texts[i]));
    });
    units.update(state.mask, bends);
    for (const [control, value] of [[keep, view.keep], [mu, view.mu], [share, view.share], [seed, view.seed], [form, view.boundary], [brushes, brush]])
      control.show(value);
    overlay.checked = view.overlay;
    play.textContent = playing ? "Pause" : "Play";
    const doing = !state.phase ? "training" : lab.current.mode === "repair" ? "repair" : "fine-tuning";
    progress.textContent = state.phase && !lab.current.steps ? "not trained since" : `${doing}, step ${state.run.t} of ${lab.current.steps}`;
    el.dataset.busy = playing || !begun;
    const unit = pointed();
    const kind = state.mask[unit] ? `a ReLU, bend ${bends[unit]?.toFixed(2)}` : "linear, no bend";
    about.textContent = unit < 0 ? HINT : `Unit ${(unit % WIDTH) + 1} of layer ${unit < WIDTH ? 1 : 2}: ${kind}. On the pink line its input is 0.`;
    const words = { majority: percent(now[0]), minority: percent(now[1]) };
    guide.update(playing || !begun, words);
    if (!playing)
      plane.canvas.setAttribute(
        "aria-label",
        `The plane: the network with ${lab.kept} of ${UNITS} ReLUs has ${words.majority} of the majority and ${words.minority} of the minority on the right side.`,
      );
  }

  const redraw = oncePerFrame(() => {
    if (lab.playing && calm.matches) {
      el.dataset.busy = true;
      return;
    }
    const { view, state, points } = lab;
    const before = view.overlay && state.base ? state.base.theta : null;
    plane.draw({ ...view, theta: state.run.theta, mask: state.mask, before, points: points.train, unit: pointed(), cursor });
    show(); // after the picture, which asks for sizes: the page is laid out once
  });

  const linked = () => {
    const { link } = model.get("choice");
    const given = link !== lab.link && decode(link);
    if (given) lab.enter(given);
  };
  model.on("change:choice", linked);
  const unwatch = watchLook(el, () => {
    redraw();
    seeds.draw();
  });
  const seen = new IntersectionObserver(([entry]) => {
    if (!entry.isIntersecting) return;
    seen.disconnect();
    if (!lab.playing) lab.run(null);
  });
  seen.observe(el);
  show();
  return () => {
    unwatch();
    seen.disconnect();
    trainer.close();
    seeds.close();
    Object.values(timers).forEach(clearTimeout);
    model.off("change:choice", linked);
  };
}

export default { render };
