// The panel of a guided story: next, back and leave by button, or by the arrows and Escape.

import { make } from "./common.js";
import { FIRST } from "./link.js";
import { button } from "./parts.js";
import { STORIES } from "./story.js";

/** `menu` opens a story, `panel` tells it; `update(playing, numbers in words)` shows where the view stands. */
export function makeGuide(lab) {
  const told = make("p", { class: "told", "aria-live": "polite" });
  const back = button("Back", () => go(lab.view.scene - 1));
  const next = button("Next", () => go(lab.view.scene + 1));
  const titles = STORIES.map(({ title }, i) => button(title, () => open(i, 0)));
  const buttons = make("div", { class: "group", role: "group", "aria-label": "Story" }, back, next, button("Leave", leave));
  const panel = make("section", { class: "story", "aria-label": "Guided story" }, told, buttons);
  const name = make("span", { class: "name" }, "Guided:");
  const menu = make("div", { class: "group", role: "group", "aria-label": "Guided stories" }, name, ...titles);
  panel.hidden = true;

  function open(story, scene) {
    lab.enter({ ...FIRST, ...STORIES[story].scenes[scene].state, story, scene });
    update(true);
    if (!panel.contains(document.activeElement) || document.activeElement.disabled) next.focus();
  }
  const go = (scene) => (scene > 3 ? leave() : open(lab.view.story, Math.max(0, scene)));
  function leave() {
    const { story } = lab.view;
    lab.view.story = -1;
    titles[Math.max(0, story)].focus();
    lab.settle();
  }
  panel.addEventListener("keydown", (event) => {
    const { scene } = lab.view;
    const work = { ArrowRight: () => go(Math.min(3, scene + 1)), ArrowLeft: () => go(scene - 1), Escape: leave }[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  });

  function update(playing, words) {
    const { story, scene } = lab.view;
    panel.hidden = story < 0;
    panel.dataset.busy = playing;
    titles.forEach((one, i) => one.setAttribute("aria-pressed", `${i === story}`));
    back.disabled = scene === 0;
    next.textContent = scene === 3 ? "Finish" : "Next";
    const text = playing || story < 0 ? null : `${scene + 1} of 4. ${STORIES[story].scenes[scene].text(words)}`;
    if (text && told.textContent !== text) told.textContent = text;
  }
  return { menu, panel, update };
}
