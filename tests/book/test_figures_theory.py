"""Figures of the theory page: what is drawn against the tables it is drawn from."""

import numpy as np
import pandas as pd
import pytest
from contrast import PAGES, contrast
from linfair_book import piecewise, propositions
from linfair_book.figures import theory as draw

pytestmark = pytest.mark.usefixtures("house_style")


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_colours_stand_out_on_both_pages(page):
    for color, _ in draw.LINES:
        assert contrast(color.lower(), page) >= 3


def test_rates_are_the_table_and_the_root_has_a_second_line():
    table = propositions.rate_table([1, 2, 4], functions=["square", "root"])
    ax = draw.approximation_rates(table).axes[0]
    square, root, even, guide = ax.lines
    assert square.get_ydata().tolist() == pytest.approx([1 / 8, 1 / 32, 1 / 128])
    assert even.get_linestyle() == "--" and even.get_color() == root.get_color()
    assert np.diff(np.log2(guide.get_ydata())) == pytest.approx([-2, -2])


def test_two_units_add_up_and_the_titles_count_pieces():
    figure = draw.two_units([piecewise.fig_10(), piecewise.fig_10(linearized=True)], ["full", "less"])
    for ax, title, breaks in zip(figure.axes, ("full\n3 pieces", "less\n2 pieces"), ([-1, 1], [-1]), strict=True):
        one, two, whole, marks = (line.get_ydata() for line in ax.lines)
        assert one + two == pytest.approx(whole)
        assert ax.lines[3].get_xdata().tolist() == breaks and len(marks) == len(breaks)
        assert ax.get_title() == title


def test_piece_counts_are_means_over_seeds():
    table = piecewise.counts_of_random_networks([(3,), (2, 2)], shares=(1.0, 0.5), seeds=range(3))
    axes = draw.piece_counts(table).axes
    assert [ax.get_title() for ax in axes] == ["layers 3", "layers 2-2"]
    part = table[table["widths"] == "2-2"]
    counts, kept, printed = (line.get_ydata() for line in axes[1].lines)
    assert counts.tolist() == pytest.approx([part[part["share"] == s]["pieces"].mean() for s in (0.5, 1.0)])
    assert kept[-1] == 9 and printed.tolist() == [12, 12]
    low, high = axes[1].get_xlim()
    assert low > high  # all ReLUs on the left


def test_pieces_on_segments_are_means():
    table = pd.DataFrame({"budget": [1.0, 1.0, 0.1, 0.1], "pieces": [6, 10, 1, 2]})
    line = draw.pieces_of_trained(table).axes[0].lines[0]
    assert line.get_xdata().tolist() == [10, 100] and line.get_ydata().tolist() == [1.5, 8]


def test_excess_shares_are_per_cent_with_a_panel_a_split():
    rows = [
        {"split": split, "budget": b, "who": who, "mean": m, "low": m - 0.1, "high": m, "n": 3}
        for split in ("train", "test")
        for b in (0.8, 0.1)
        for who, m in (("majority", 0.5), ("minority", 0.6), ("all", 1.0))
    ]
    axes = draw.excess_shares(pd.DataFrame(rows)).axes
    assert [ax.get_title() for ax in axes] == ["train", "test"]
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["80", "10"]
    heights = [container[0].get_ydata().tolist() for container in axes[1].containers]
    assert heights == [[50, 50], [60, 60], [100, 100]]


def test_bounds_leave_out_who_gains_and_right_sides_of_zero():
    table = pd.DataFrame({"variant": ["a", "a", "b"], "excess": [0.1, -0.2, 0.3], "bound": [10.0, 20.0, 0.0]})
    first, second, equal = draw.excess_bounds(table, {"a": "one", "b": "two"}).axes[0].lines
    assert first.get_xydata().tolist() == [[0.1, 10.0]] and len(second.get_xdata()) == 0
    assert equal.get_xdata() == pytest.approx(equal.get_ydata())


def test_remainders_have_a_line_a_group_and_two_guides():
    steps = pd.DataFrame({"group": [0, 0, 1, 1], "t": [1.0, 0.1] * 2, "remainder": [-1.0, 0.001, 2.0, 0.2]})
    *groups, one, three = draw.remainder_orders(steps).axes[0].lines
    assert [line.get_ydata().tolist() for line in groups] == [[1.0, 0.001], [2.0, 0.2]]
    assert np.diff(np.log10(one.get_ydata())) == pytest.approx([1])
    assert np.diff(np.log10(three.get_ydata())) == pytest.approx([3])


def test_the_hessian_figure_is_the_table():
    broken = pd.DataFrame({"reading": ["x", "y"], "share": [1.0, 0.25], "low": [0.9, 0.2], "high": [1.0, 0.3]})
    ax = draw.hessian_violations(broken).axes[0]
    assert ax.lines[0].get_xdata().tolist() == [100, 25]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["x", "y"]


def test_gradient_ratios_stand_beside_their_predictions():
    table = pd.DataFrame(
        {
            "variant": ["plain", "decay", "mixture"],
            "setting": [float("nan"), 0.1, float("nan")],
            "applies": [True, False, False],
            "ratio": [4.0, 2.0, 1e-11],
            "predicted": [4.0, 4.0, 4.0],
        }
    )
    ax = draw.gradient_ratios(table).axes[0]
    holds, _, other, arrow, predicted = ax.lines[:5]
    assert holds.get_xydata().tolist() == [[4, 2]] and other.get_xydata().tolist() == [[2, 1]]
    assert arrow.get_marker() == "<" and arrow.get_xydata().tolist() == [[0.1, 0]]
    assert predicted.get_xdata().tolist() == [4, 4, 4]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["plain", "decay, 0.1", "mixture"]
