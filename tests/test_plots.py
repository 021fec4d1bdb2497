"""Figures: contrast on both pages by the WCAG formula, and what is drawn against the tables it is drawn from."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from linfair import plots, toy


@pytest.fixture(autouse=True)
def house_style():
    backend = mpl.get_backend()
    mpl.use("agg")
    with mpl.rc_context():
        plots.style()
        yield
    plt.close("all")
    mpl.use(backend)


@pytest.fixture(scope="module")
def study(one_thread):
    return toy.train(seeds=(0, 1), budgets=(1.0, 0.5, 0.0), steps=20, progress=False)


def test_contrast_known_values():
    assert plots.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # WCAG's lightest grey for text
    assert plots.contrast("#336699", "#336699") == 1


@pytest.mark.parametrize("page", plots.PAGES.values(), ids=plots.PAGES)
def test_colours_stand_out_on_both_pages(page):
    best = plots.contrast(*plots.PAGES.values()) ** 0.5  # no colour can do better on both at once
    assert best < 4.5
    assert plots.contrast(plots.GREY, page) > best - 0.1
    for color in plots.COLORS.values():
        assert plots.contrast(color, page) >= 3


def test_text_and_axes_use_the_grey():
    keys = ["text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color"]
    assert {mpl.rcParams[key] for key in keys} == {plots.GREY}


def test_letters_are_at_least_nine_pixels_on_a_390_pixel_screen():
    width = mpl.rcParams["figure.figsize"][0]
    pixels_per_point = 350 / (72 * width)  # 390 less the page's margins
    for key in ("font.size", "xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize"):
        assert mpl.rcParams[key] * pixels_per_point >= 9


def test_figures_have_no_background(study):
    figure = plots.toy_boundaries(study, 0, [1.0, 0.5], resolution=20)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    alpha = np.asarray(Image.open(file).convert("RGBA"))[..., 3]
    assert alpha[0, 0] == alpha[-1, -1] == 0 and alpha.max() == 255


def test_a_returned_figure_is_closed_so_that_a_notebook_shows_it_once(study):
    plots.toy_boundaries(study, 0, [1.0], resolution=20)
    plots.toy_accuracy(toy.summarise(study.rows))
    assert plt.get_fignums() == []


def test_boundary_titles_hold_both_groups_accuracies(study):
    figure = plots.toy_boundaries(study, 1, [1.0, 0.5], resolution=20)
    for ax, budget in zip(figure.axes, (1.0, 0.5), strict=True):
        right = study.accuracy(1, budget)
        expected = f"{100 * budget:g} % ReLUs\n" + "\n".join(f"{g} {100 * right[g]:.1f} %" for g in toy.GROUPS)
        assert ax.get_title() == expected
        points = [len(collection.get_offsets()) for collection in ax.collections if hasattr(collection, "get_sizes")]
        assert {900, 100} <= set(points)


def test_accuracy_lines_and_bars_are_the_tables(study):
    summary = toy.summarise(study.rows)
    ax = plots.toy_accuracy(summary).axes[0]
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
    texts = plots.toy_accuracy(summary).axes[0].texts
    assert [text.xy[1] for text in texts] == pytest.approx(ends)

    majority = summary[summary["group"] == "majority"]
    equal = pd.concat([majority, majority.assign(group="minority")])
    ax = plots.toy_accuracy(equal, names=("below", "above")).axes[0]
    below, above = ax.texts
    assert (below.get_text(), above.get_text()) == ("below", "above")
    low, high = ax.get_ylim()
    assert abs(above.xy[1] - below.xy[1]) == pytest.approx(0.08 * (high - low))


def test_a_control_is_dashed_grey():
    _, ax = plt.subplots()
    plots.line_with_interval(ax, [0, 1], [1, 2], [0, 1], [2, 3], role="control")
    line = ax.containers[0][0]
    assert line.get_linestyle() == "--" and line.get_color() == plots.GREY


def test_evidence_takes_versions_from_the_installed_packages():
    import torch

    text = plots.evidence(seeds=1, n="5 images", device="cpu")
    assert text.startswith("1 seed · 5 images · cpu · torch " + torch.__version__.split("+")[0])
    assert "linfair" in text and not text.endswith(" s")
