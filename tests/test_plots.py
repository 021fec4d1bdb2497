"""Figures: contrast on both pages by the WCAG formula, and what is drawn against the tables it is drawn from."""

import io
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from contrast import PAGES, contrast
from linfair_book import figures, toy
from linfair_book.figures.shared import FEW, drawn, line_with_interval
from matplotlib.colors import to_rgb
from PIL import Image

from linfair import plots
from linfair.plots.style import apart

pytestmark = pytest.mark.usefixtures("house_style")


@pytest.fixture(scope="module")
def study(one_thread):
    return toy.train(seeds=(0, 1), budgets=(1.0, 0.5, 0.0), steps=20, progress=False)


def test_contrast_known_values():
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # WCAG's lightest grey for text
    assert contrast("#336699", "#336699") == 1


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_colours_stand_out_on_both_pages(page):
    dark = page != PAGES["light"]  # there the book's style sheet draws images lighter
    sheet = (Path(__file__).resolve().parents[1] / "book/_static/book.css").read_text(encoding="utf-8")
    factor = float(re.search(r"brightness\(([\d.]+)\)", sheet)[1]) if dark else 1
    assert contrast([min(1, factor * part) for part in to_rgb(plots.GREY)], page) >= 4.5
    for color in plots.COLORS.values():
        assert contrast(color, page) >= 3


def test_text_and_axes_use_the_grey():
    keys = ["text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color"]
    assert {mpl.rcParams[key] for key in keys} == {plots.GREY}


def test_letters_are_at_least_nine_pixels_on_a_390_pixel_screen():
    width = mpl.rcParams["figure.figsize"][0]
    pixels_per_point = 350 / (72 * width)  # 390 less the page's margins
    for key in ("font.size", "xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize"):
        assert mpl.rcParams[key] * pixels_per_point >= 9


def test_figures_have_no_background(study):
    figure = figures.toy_boundaries(study, 0, [1.0, 0.5], resolution=20)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    alpha = np.asarray(Image.open(file).convert("RGBA"))[..., 3]
    assert alpha[0, 0] == alpha[-1, -1] == 0 and alpha.max() == 255


def test_a_returned_figure_is_closed_so_that_a_notebook_shows_it_once(study):
    figures.toy_boundaries(study, 0, [1.0], resolution=20)
    figures.toy_accuracy(toy.summarise(study.rows))
    assert plt.get_fignums() == []


def test_boundary_titles_hold_both_groups_accuracies(study):
    figure = figures.toy_boundaries(study, 1, [1.0, 0.5], resolution=20)
    for ax, budget in zip(figure.axes, (1.0, 0.5), strict=True):
        right = study.accuracy(1, budget)
        expected = f"{100 * budget:g} % ReLUs\n" + "\n".join(f"{g} {100 * right[g]:.1f} %" for g in toy.GROUPS)
        assert ax.get_title() == expected
        points = [len(collection.get_offsets()) for collection in ax.collections if hasattr(collection, "get_sizes")]
        assert {900, 100} <= set(points)


def test_accuracy_lines_and_bars_are_the_tables(study):
    summary = toy.summarise(study.rows).assign(seeds=FEW)
    ax = figures.toy_accuracy(summary).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["100", "50", "0"]
    for container, group in zip(ax.containers, toy.GROUPS, strict=True):
        rows = [toy.at(summary, budget, group) for budget in (1.0, 0.5, 0.0)]
        line, _, (bars,) = container
        assert np.allclose(line.get_ydata(), [row["accuracy"] for row in rows])
        assert np.allclose(np.array(bars.get_segments())[:, :, 1], [[row["low"], row["high"]] for row in rows])
        assert line.get_color() == plots.COLORS[group] and line.get_marker() == plots.MARKERS[group]
    dashed = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert dashed.get_ydata()[0] == toy.at(summary, 1.0, "minority")["accuracy"]


def test_labels_stand_at_the_line_ends_and_keep_apart_where_lines_meet(study):
    summary = toy.summarise(study.rows)
    ends = [toy.at(summary, 0.0, group)["accuracy"] for group in toy.GROUPS]
    texts = figures.toy_accuracy(summary).axes[0].texts
    assert [text.xy[1] for text in texts] == pytest.approx(ends)

    majority = summary[summary["group"] == "majority"]
    equal = pd.concat([majority, majority.assign(group="minority")])
    ax = figures.toy_accuracy(equal, names=("below", "above")).axes[0]
    below, above = ax.texts
    assert (below.get_text(), above.get_text()) == ("below", "above")
    low, high = ax.get_ylim()
    assert abs(above.xy[1] - below.xy[1]) == pytest.approx(0.08 * (high - low))


def test_a_control_is_dashed_grey():
    _, ax = plt.subplots()
    line_with_interval(ax, [0, 1], [1, 2], [0, 1], [2, 3], role="control")
    line = ax.containers[0][0]
    assert line.get_linestyle() == "--" and line.get_color() == plots.GREY


def test_evidence_takes_versions_from_the_installed_packages():
    import torch

    text = plots.evidence(seeds=1, n="5 images", device="cpu")
    assert text.startswith("1 seed · 5 images · cpu · torch " + torch.__version__.split("+")[0])
    assert "linfair" in text and not text.endswith(" s")
    versions = {"torch": "2.13.0", "linfair": "0.1.0"}
    text = plots.evidence(seeds=20, n="1000 test points a group", device="cpu", seconds=14.2, **versions)
    assert text == "20 seeds · 1000 test points a group · cpu · torch 2.13.0 · linfair 0.1.0 · 14 s"


@pytest.fixture(scope="module")
def selections():
    """Hand-made rows as of `run_selections`: two seeds, two budgets, three selections and their controls."""
    accuracy = {"original": (0.9, 0.6), "snl": (0.85, 0.5), "snl mask": (0.8, 0.4), "random": (0.7, 0.2)}
    arms = [("original", "original", 1.0)]
    arms += [(name, arm, b) for name in list(accuracy)[1:] for arm in ("plain", "control") for b in (0.4, 0.1)]
    rows = [
        {
            "data": "digits",
            "network": "mlp",
            "profile": "small",
            "teacher": "digest",
            "selection": name,
            "arm": arm,
            "budget": budget,
            "seed": seed,
            "split": "test_balanced",
            "group": number,
            "group_name": role,
            "role": role,
            "n_train": 10,
            "n": 100,
            "low": 0.0,
            "high": 1.0,
            "accuracy": accuracy["original" if arm == "control" else name][number]
            - (0.1 + 0.1 * seed) * (budget < 0.4),
        }
        for name, arm, budget in arms
        for seed in (0, 1)
        for number, role in enumerate(("majority", "minority"))
    ]
    return pd.DataFrame(rows)


def test_selection_points_are_the_means_in_order_with_a_panel_per_budget(selections):
    """By hand: 40 % as given; 10 % lower by 0.1 and 0.2, so by 15 points on average; the original as dotted lines."""
    axes = figures.selection_accuracy(selections).axes
    assert [ax.get_title() for ax in axes] == ["40 % ReLUs", "10 % ReLUs"]
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["SNL", "SNL's mask", "random"]
    for ax, less in zip(axes, (0, 15), strict=True):
        points = {container[0].get_color(): container[0] for container in ax.containers}
        for role, means in (("majority", (85, 80, 70)), ("minority", (50, 40, 20))):
            line = points[plots.COLORS[role]]
            assert np.allclose(line.get_xdata(), np.array(means) - less)
            assert list(map(round, line.get_ydata())) == [0, 1, 2] and line.get_marker() == plots.MARKERS[role]
        dotted = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
        assert sorted(dotted) == pytest.approx([60, 90])


def test_selection_disparity_lines_are_measured_minus_control(selections):
    """At 40 % the controls lose nothing: random's minority loses 2/3, its majority 2/9, so 44.4 points."""
    axes = {ax.get_title(): ax for ax in figures.selection_disparity(selections).axes}
    assert list(axes) == ["random", "SNL's mask", "SNL"] and all(len(ax.containers) == 1 for ax in axes.values())
    lines = {name: ax.containers[0][0].get_ydata() for name, ax in axes.items()}
    assert lines["random"][0] == pytest.approx(100 * (0.4 / 0.6 - 0.2 / 0.9))
    assert lines["SNL's mask"][0] == pytest.approx(100 * (0.2 / 0.6 - 0.1 / 0.9))
    drop = 100 * ((0.4 + 0.15) / 0.6 - (0.2 + 0.15) / 0.9) - 100 * (0.15 / 0.6 - 0.15 / 0.9)
    assert lines["random"][1] == pytest.approx(drop)


def test_evidence_counts_the_seconds_of_every_method_once(selections):
    """Two methods' plain arms of 2 and 3 seconds, a control of 5 that both share, an original of 7: 17 seconds."""
    seconds = {"original": 7, "snl": 2, "random": 3}
    method = selections["selection"].where(selections["arm"] != "control", "random")
    table = selections[selections["selection"].isin(seconds)].assign(
        method=method, options="", device="cpu", torch="2", linfair="0", seconds=lambda t: t["selection"].map(seconds)
    )
    table.loc[table["arm"] == "control", "seconds"] = 5
    assert plots.evidence_of(table, split="test_balanced").endswith("17 s")
    assert "distinct test images" in plots.evidence_of(table, split="test_balanced")
    training = table.replace({"split": {"test_balanced": "train"}})
    assert "distinct training images" in plots.evidence_of(training, split="train")


@pytest.mark.parametrize(("n_seeds", "bars"), [(4, 0), (5, 2)])
def test_few_seeds_are_points_without_a_bar(n_seeds: int, bars: int) -> None:
    """Intervals are drawn from five seeds on; the mean's point stays."""
    rows = pd.DataFrame({"n_seeds": n_seeds, "mean": [1.0, 2.0], "low": [0.0, 1.0], "high": [2.0, 3.0]})
    shown = drawn(rows)
    assert shown["low"].notna().sum() == shown["high"].notna().sum() == bars
    assert shown["mean"].tolist() == [1.0, 2.0]
    figure, ax = plt.subplots()
    line_with_interval(ax, [0, 1], shown["mean"], shown["low"], shown["high"], role="majority")
    assert len(ax.lines[0].get_xdata()) == 2
    plt.close(figure)


def test_labels_stand_apart_in_order_and_within_the_ends() -> None:
    """Oracle: neighbours are `room` apart, one alone stays where it is, and four that do not fit begin at an end."""
    places = [50.0, 49.0, 52.0, 200.0, 51.0]
    laid, order = apart(places, room=10), sorted(range(5), key=places.__getitem__)
    assert all(laid[b] - laid[a] >= 9.99 for a, b in zip(order, order[1:], strict=False)) and laid[3] == 200
    assert apart([6.0, 7.0, 8.0, 9.0], room=10, low=5) == [5, 15, 25, 35]
    assert apart([6.0, 7.0, 8.0, 9.0], room=10, high=10) == [-20, -10, 0, 10]
