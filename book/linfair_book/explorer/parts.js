// Controls: each has an `element`, and `show(value)` to say what it stands at.

import { make } from "./common.js";

export function button(text, work) {
  const node = make("button", { type: "button" }, text);
  node.addEventListener("click", work);
  return node;
}

/** A slider of whole numbers; `text` says a value in words. */
export function slider({ name, label, min = 0, max, text }, work) {
  const input = make("input", { type: "range", min, max, step: 1, "data-name": name });
  const value = make("span", { class: "value", "aria-hidden": "true" }); // said by aria-valuetext
  input.addEventListener("input", () => work(Number(input.value)));
  const show = (now) => {
    if (Number(input.value) !== now) input.value = now;
    if (value.textContent === text(now)) return;
    value.textContent = text(now);
    input.setAttribute("aria-valuetext", text(now));
  };
  return { element: make("label", {}, make("span", { class: "name" }, label), value, input), show };
}

/** A menu from value -> its words. */
export function menu(label, options, work) {
  const select = make("select", { "data-name": label.toLowerCase() });
  select.append(...Object.entries(options).map(([value, text]) => make("option", { value }, text)));
  select.addEventListener("change", () => work(select.value));
  const show = (now) => {
    select.value = now;
  };
  return { element: make("label", {}, make("span", { class: "name" }, label), select), show };
}

/** One of a few, as buttons side by side. */
export function segments(label, options, work) {
  const parts = options.map(([value, text]) => [value, button(text, () => work(value))]);
  const show = (now) => parts.forEach(([value, node]) => node.setAttribute("aria-pressed", `${value === now}`));
  const name = make("span", { class: "name" }, `${label}:`);
  return { element: make("div", { class: "group", role: "group", "aria-label": label }, name, ...parts.map((one) => one[1])), show };
}
