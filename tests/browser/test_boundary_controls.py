"""The controls of the boundary explorer: stories, units, painting, play, seeds; by keyboard, on a phone, in Jupyter."""

import base64
import re
from pathlib import Path

import pytest
from boundary import SHORT, address, open_at, press, settled, settled_with_link, shown
from linfair_book import explorer
from linfair_book.explorer import host
from playwright.sync_api import Page, expect
from probe import DESK, PHONE, resize, visit

pytestmark = pytest.mark.browser


PAUSE = """(play) => new Promise((done) => {
  const reached = document.querySelector(".reached");
  const watch = new MutationObserver(() => {
    const [at, of] = reached.textContent.match(/\\d+/g).map(Number);
    if (at === 6 && of !== 6) return;
    watch.disconnect();
    const playing = play.textContent === "Pause";
    if (playing) play.click();
    done(playing);
  });
  watch.observe(reached, { childList: true });
  play.click();
})"""
RUN_AND_STOP = """() => {
  const button = (name) => [...document.querySelectorAll("button")].find((one) => one.textContent === name);
  button("Run 20 seeds").click();
  button("Stop").click();
}"""


def painted(tab: Page) -> int:
    """Points painted by the reader, as the link says: four characters each."""
    field = next(part for part in address(tab).split("_") if part.startswith("p"))
    return len(field[1:]) // 4


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_story_is_told_by_keyboard_alone_and_says_what_the_numbers_say(tab: Page, file: Path, number: int) -> None:
    open_at(tab, file)
    tab.locator("body").press("Tab")
    for _ in range(number):
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    told, texts, minority, majority = tab.locator(".told"), [], [], []
    for scene in range(4):
        expect(told).to_contain_text(f"{scene + 1} of 4.")
        settled(tab)
        numbers = shown(tab)
        texts.append(told.inner_text())
        majority.append(float(numbers[0][:-2]))
        minority.append(float(numbers[3][:-2]))
        assert numbers[3] in texts[-1]
        assert tab.evaluate("document.activeElement.textContent") in ("Next", "Finish")
        tab.keyboard.press("Enter" if scene % 2 == 0 or scene == 3 else "ArrowRight")
    expect(tab.locator(".story")).to_be_hidden()
    assert tab.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert len(set(texts)) == 4
    if number == 0:
        assert min(minority[1], minority[2]) < minority[0] - 5 and minority[3] > minority[2] + 5
    elif number == 1:
        assert minority[0] < minority[1] < minority[2] and minority[3] < minority[0]
        assert abs(minority[2] - majority[2]) < 3
    else:
        assert minority[1] < minority[2] - 3 and majority[2] < majority[1] - 3
        assert minority[3] > minority[2] and majority[3] > majority[2] + 5


def test_units_are_reached_by_arrows_and_switched_by_space(tab: Page, file: Path) -> None:
    open_at(tab, file)
    tab.locator("[data-unit='0']").focus()
    before = tab.evaluate("document.querySelector('canvas').toDataURL()")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        tab.keyboard.press(key)
    unit = tab.locator("[data-unit='17']")
    expect(unit).to_be_focused()
    expect(tab.locator(".about")).to_contain_text("Unit 2 of layer 2")
    assert float(unit.evaluate("node => parseFloat(getComputedStyle(node).outlineWidth)")) >= 2
    tab.keyboard.press("Space")
    expect(unit).to_have_attribute("aria-pressed", "true")
    expect(unit).to_have_attribute("aria-label", "Unit 2 of layer 2, linear")
    assert tab.locator(".unit[tabindex='0']").count() == 1
    settled(tab)
    assert tab.evaluate("document.querySelector('canvas').toDataURL()") != before


def test_points_are_painted_by_mouse_and_by_keyboard_and_erased(tab: Page, file: Path) -> None:
    open_at(tab, file)
    press(tab, "minority")
    tab.locator("canvas").scroll_into_view_if_needed()
    box = tab.locator("canvas").bounding_box()
    tab.mouse.move(box["x"] + 40, box["y"] + box["height"] - 40)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 140, box["y"] + box["height"] - 40, steps=8)
    tab.mouse.up()
    drawn = painted(tab)
    assert drawn >= 3
    for brush, expected in (("minority", drawn + 1), ("erase", drawn)):
        press(tab, brush)
        tab.locator("canvas").focus()
        for key in ("ArrowUp", "ArrowUp", "Enter"):
            tab.keyboard.press(key)
        assert painted(tab) == expected


def test_play_pause_and_step_say_where_the_training_is(tab: Page, file: Path) -> None:
    """Pause is pressed in the page, once the first steps are shown: a training is over in a second."""
    open_at(tab, file)
    progress, play = tab.locator(".reached"), tab.locator("button:text-matches('^(Play|Pause)$')")
    tab.get_by_role("button", name="Step", exact=True).click()
    expect(progress).to_have_text("training, step 6 of 6")
    paused = play.evaluate(PAUSE)
    expect(play).to_have_text("Play")
    expect(progress).to_have_text(re.compile(r"training, step (\d+) of \1$"))
    reached = int(progress.inner_text().split()[-1])
    assert 6 < reached < 400 if paused else reached == 400
    press(tab, "Restart")
    expect(progress).to_have_text("training, step 0 of 0")


def test_the_strip_holds_twenty_seeds_and_this_network_is_one_of_them(tab: Page, file: Path) -> None:
    """Oracle: another page at a seed shows the change that this page's strip has for it."""
    open_at(tab, file)
    press(tab, "At random")
    press(tab, "Run 20 seeds")
    expect(tab.locator(".seeds")).to_have_attribute("data-busy", "false")
    dots = tab.locator(".strip rect title")
    assert dots.count() == 20 and tab.locator(".strip .ring").count() == 2
    said = {text.split(":")[0]: text.split(": ")[1].split(" points")[0] for text in dots.all_text_contents()}
    assert said["seed 0"] == shown(tab)[5]
    link = address(tab)
    open_at(tab, file, link.replace("_a_0_", "_a_3_"))
    assert said["seed 3"] == shown(tab)[5]
    open_at(tab, file, SHORT.replace("_5_", "_b4_"))
    press(tab, "At random")
    settled_with_link(tab)
    tab.evaluate(RUN_AND_STOP)
    expect(tab.locator(".seeds")).to_have_attribute("data-busy", "false")
    assert tab.locator(".strip rect").count() < 20


def test_without_workers_the_page_trains_itself_to_the_same_numbers(tab: Page, file: Path) -> None:
    open_at(tab, file)
    expected, alone = shown(tab), file.with_name("alone.html")
    alone.write_text(file.read_text(encoding="utf-8").replace("<body>", "<body><script>delete window.Worker</script>"))
    open_at(tab, alone)
    assert tab.evaluate("typeof Worker") == "undefined"
    assert shown(tab) == expected


def test_reduced_motion_shows_the_end_of_a_training_alone(tab: Page, file: Path) -> None:
    tab.emulate_media(reduced_motion="reduce")
    open_at(tab, file)
    texts = "window.texts = []; new MutationObserver(() => texts.push(document.querySelector('.reached').textContent))"
    tab.evaluate(f"{texts}.observe(document.querySelector('.reached'), {{ childList: true }})")
    tab.get_by_role("button", name="Play", exact=True).click()
    tab.wait_for_function("document.querySelector('.reached').textContent === 'training, step 400 of 400'")
    tab.emulate_media(reduced_motion="no-preference")
    assert tab.evaluate("texts") == ["training, step 400 of 400"]


def test_it_fits_is_readable_and_loads_nothing(window: Page, file: Path) -> None:
    for seen in visit(window, file, DESK) + visit(window, file, PHONE):
        assert (seen.errors, seen.outside) == ([], []), seen
        assert seen.facts["scroll_width"] == seen.facts["client_width"] == seen.width
        assert (seen.facts["spilling"], seen.facts["faint"]) == ([], []), seen


def test_controls_have_names_and_a_fingers_size_and_the_theme_draws_again(tab: Page, file: Path) -> None:
    open_at(tab, file)
    for control in tab.locator(".toy :is(select, button, input[type=range])").all():
        if control.is_visible():
            assert control.bounding_box()["height"] >= 38
            assert control.evaluate("(node) => (node.labels?.[0] ?? node).textContent + node.ariaLabel").strip()
    before = tab.evaluate("document.querySelector('canvas').toDataURL()")
    resize(tab, "dark", 390)
    tab.wait_for_function("(before) => document.querySelector('canvas').toDataURL() !== before", arg=before)


def test_the_module_keeps_anywidgets_contract(tab: Page) -> None:
    """A stand-in for Jupyter's model: links go to Python and come from it; leaving stops listening."""
    live = """async ([source, values]) => {
      const { default: module } = await import(source);
      const heard = {};
      window.model = { saved: 0, get: (name) => values[name], set: (name, value) => (values[name] = value),
        save_changes: () => (model.saved += 1), on: (event, callback) => (heard[event] = callback),
        off: (event) => delete heard[event] };
      window.leave = module.render({ model, el: document.body.appendChild(document.createElement("div")) });
      window.fromPython = (link) => { values.choice = { link }; heard["change:choice"](); };
      window.heard = heard;
    }"""
    source = "data:text/javascript;base64," + base64.b64encode(host.module("boundary").encode()).decode()
    tab.goto("about:blank")
    tab.evaluate(live, [source, vars(explorer.show_boundary(SHORT, live=False))])
    expect(tab.locator(".reached")).to_have_text("training, step 5 of 5")
    settled(tab)
    tab.evaluate("(link) => fromPython(link)", SHORT.replace("_5_", "_9_"))
    expect(tab.locator(".reached")).to_have_text("training, step 9 of 9")
    settled(tab)
    assert tab.evaluate("model.saved") == 0
    tab.locator("[data-unit='0']").click()
    tab.wait_for_function("model.saved === 1 && model.get('choice').link.includes('_r0-')")
    tab.evaluate("leave()")
    assert tab.evaluate("Object.keys(heard)") == []
