// Shared by both explorers.

export const GROUPS = ["majority", "minority"];
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text children are set as text, never parsed. */
export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "rect", "line", "path", "circle", "text", "g", "title"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** 0.25 -> "25 %"; 2.5 % stays 2.5 %. */
export const share = (value) => `${Number((100 * value).toPrecision(3))} %`;

/** One decimal, in per cent or points. */
export const fixed = (value) => (Math.abs(value) < 0.05 ? 0 : value).toFixed(1).replace("-", "−");

/** The same with its sign; what rounds to nothing has none. */
export const signed = (value) => (value >= 0.05 ? "+" : "") + fixed(value);

/** A marker as in the book's figures: majority circle, minority square. */
export function swatch(role, color) {
  const shape =
    role === "majority"
      ? make("circle", { cx: 6, cy: 6, r: 5, fill: color })
      : make("rect", { x: 1, y: 1, width: 10, height: 10, fill: color });
  return make("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true", class: "swatch" }, shape);
}

/** Call back when the element's width or the colour scheme changes; returns what undoes it. */
export function watchLook(element, callback) {
  const sizes = new ResizeObserver(callback);
  sizes.observe(element);
  const theme = new MutationObserver(callback);
  const filter = { attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "class"] };
  theme.observe(document.documentElement, filter);
  theme.observe(document.body, filter);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", callback);
  return () => {
    sizes.disconnect();
    theme.disconnect();
    scheme.removeEventListener("change", callback);
  };
}

/** Run a function once before the next frame, however often it is asked for. */
export function oncePerFrame(work) {
  let waiting = 0;
  return () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      work();
    });
  };
}
