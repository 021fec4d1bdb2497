"""The explorer of committed results in a real browser, and both on the book's page."""

import base64
from pathlib import Path

import pandas as pd
import pytest
from linfair_book import explorer
from linfair_book.build import repository
from linfair_book.explorer import host
from linfair_book.figures import cost
from playwright.sync_api import Page, expect
from probe import DESK, DRAWN, PHONE, visit

pytestmark = pytest.mark.browser

COST, RESULTS = "cost.html", "results.html"
LINK = {"n_seeds": 10, "protocol": "semi2k", "bandwidth_mbit": 100.0, "rtt_ms": 50.0}
SLIDE = """(at) => {
  for (const [axis, index] of Object.entries(at)) {
    const slider = document.querySelector(`[data-axis=${axis}]`);
    slider.value = index;
    slider.dispatchEvent(new Event("input"));
  }
  return document.querySelector(".summary").textContent;
}"""
LIVE = """async ([source, values]) => {
  const { default: module } = await import(source);
  const heard = {};
  const model = {
    saved: 0,
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    save_changes: () => { model.saved += 1; },
    on: (event, callback) => { heard[event] = callback; },
    off: (event) => { delete heard[event]; },
  };
  const el = document.body.appendChild(document.createElement("div"));
  window.leave = module.render({ model, el });
  window.fromPython = (choice) => { values.choice = choice; heard["change:choice"](); };
  window.model = model;
  window.heard = heard;
}"""


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return explorer.result_tables(repository() / "book/results")


@pytest.fixture(scope="module")
def folder(tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explorers as pages of their own."""
    folder = tmp_path_factory.mktemp("explorers")
    (folder / RESULTS).write_text(explorer.show_results(tables, live=False).page("Results"), encoding="utf-8")
    (folder / COST).write_text(cost.explorer(LINK).page("Cost"), encoding="utf-8")
    return folder


def open_page(tab: Page, path: Path) -> None:
    tab.goto(path.as_uri())
    expect(tab.locator(".linfair-explorer")).to_be_visible()


@pytest.mark.parametrize("name", [RESULTS, COST])
def test_it_fits_is_readable_and_loads_nothing(window, folder, name) -> None:
    for seen in visit(window, folder / name, DESK) + visit(window, folder / name, PHONE):
        assert (seen.errors, seen.outside) == ([], []), seen
        assert seen.facts["scroll_width"] == seen.facts["client_width"] == seen.width
        assert (seen.facts["spilling"], seen.facts["faint"]) == ([], []), seen


@pytest.mark.parametrize("name", [RESULTS, COST])
def test_controls_have_names_and_a_fingers_size(tab, folder, name) -> None:
    open_page(tab, folder / name)
    controls = tab.locator(".controls :is(input, select)")
    assert controls.count() >= 3
    for control in controls.all():
        assert control.bounding_box()["height"] >= 40
        assert control.evaluate("node => node.labels[0].querySelector('.name').textContent.length") > 3


def test_seconds_are_those_of_the_link_that_the_reader_picks(tab, folder) -> None:
    """Oracle: computing + 8 bytes / bandwidth + rounds * round trip, by hand, from the committed rows' state."""
    state = cost.explorer(LINK).state
    open_page(tab, folder / COST)
    for study, protocol, bandwidth, rtt in ((0, "semi2k", 100, 50), (1, "aby3", 10_000, 300), (3, "delphi", 1, 0)):
        tab.locator("[data-axis=study]").select_option(index=study)
        tab.locator("[data-axis=protocol]").select_option(label=state["protocols"][protocol])
        for axis, value in (("bandwidth", bandwidth), ("rtt", rtt)):
            tab.evaluate(SLIDE, {axis: state[axis].index(value)})
        rows = state["studies"][study]["rows"]
        lines = [row.locator("td").all_inner_texts() for row in tab.locator("tbody tr").all()]
        for row, (sent, rounds, seconds, accuracy, *_) in zip(rows, lines, strict=True):
            count, messages, computing = row["costs"][protocol]
            expected = computing + 8 * count / (1e6 * bandwidth) + messages * rtt / 1e3
            assert float(seconds.replace(",", "")) == pytest.approx(expected, rel=0.006)
            assert float(sent.replace(",", "")) == pytest.approx(count / 1e6, rel=0.006)
            assert (int(rounds), accuracy) == (messages, f"{row['worst']['mean']:.1f}")


def test_the_keyboard_redraws_the_cost(tab, folder) -> None:
    open_page(tab, folder / COST)
    for axis in ("bandwidth", "rtt"):
        slider, seen = tab.locator(f"[data-axis={axis}]"), []
        for key in ("Home", "End"):
            slider.press(key)
            tab.evaluate(DRAWN)
            said = tab.locator(".summary").inner_text(), slider.get_attribute("aria-valuetext")
            seen.append((*said, tab.locator(".chart svg").get_attribute("aria-label")))
        assert all(one != other for one, other in zip(*seen, strict=True)), axis


def test_results_show_the_chosen_cell_and_offer_only_what_there_is(tab, folder, tables) -> None:
    """Oracle: the exported cells."""
    state = explorer.results_state(tables)
    open_page(tab, folder / RESULTS)
    menu = {axis: tab.locator(f"[data-axis={axis}]") for axis in ("data", "budget", "arm")}
    for data in dict.fromkeys(cell["data"] for cell in state["cells"]):
        menu["data"].select_option(data)
        for one in (menu["budget"], menu["arm"]):
            if one.is_enabled():
                one.select_option(index=0)
        own = [cell for cell in state["cells"] if cell["data"] == data]
        cell = own[0]
        assert menu["budget"].locator("option").count() == len({one["budget"] for one in own})
        arms = [one["arm"] for one in own if one["budget"] == cell["budget"]]
        assert menu["arm"].locator("option").all_inner_texts() == arms
        tab.evaluate(DRAWN)  # the chart is drawn once a frame
        label = tab.locator("svg[role=img]").get_attribute("aria-label")
        for name, _, _, original, *networks in cell["lines"]:
            means = [original, *(one[0] for one in networks if one)]
            numbers = label.split(f"{name} ")[1].split(";")[0].rstrip(".").split(", ")
            assert [float(one) for one in numbers[: len(means)]] == pytest.approx(means, abs=0.0501)
        assert tab.locator(".evidence").inner_text().endswith(state["evidence"][cell["evidence"]])


def test_the_module_keeps_anywidgets_contract(tab, tables) -> None:
    """A stand-in for Jupyter's model: choices go to Python and come from it; leaving stops listening."""
    form = explorer.show_results(tables, live=False)
    source = "data:text/javascript;base64," + base64.b64encode(host.module("results").encode()).decode()
    tab.goto("about:blank")
    tab.evaluate(LIVE, [source, vars(form)])
    start = tab.evaluate("model.get('choice').data")
    budgets = sorted({cell["budget"] for cell in form.state["cells"] if cell["data"] == start})
    said = tab.locator(".summary").inner_text()
    tab.evaluate("(budget) => fromPython({ ...model.get('choice'), budget })", budgets[0])
    tab.locator("[data-axis=budget]").select_option(index=0)
    assert tab.locator(".summary").inner_text() != said
    assert tab.evaluate("[model.saved, model.get('choice').budget]") == [1, max(budgets)]
    tab.evaluate("leave()")
    assert tab.evaluate("Object.keys(heard)") == []


def test_the_books_page_holds_both_in_their_static_form(tab, site: Path) -> None:
    open_path = site / "notebooks/10_explorer.html"
    tab.goto(open_path.as_uri())
    tab.locator("#linfair-boundary").scroll_into_view_if_needed()  # it trains once it is seen
    expect(tab.locator("#linfair-boundary [role=status]")).to_contain_text("32 of 32 ReLUs")
    expect(tab.locator("#linfair-results .summary")).to_contain_text("loses most")
    assert "widget-state+json" not in open_path.read_text(encoding="utf-8"), "a second copy of the state is on the page"
