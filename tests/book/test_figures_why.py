"""Figures of why: what is drawn against means by hand and the tables it comes from."""

import io
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from linfair_book.figures import why
from linfair_book.predictors import PREDICTORS, STATISTICS
from matplotlib.collections import PathCollection

pytestmark = pytest.mark.usefixtures("house_style")


def rows(*, swap: bool = False) -> pd.DataFrame:
    """Two seeds, three groups of 90, 30 and 10 images; with `swap` the sizes rotate with the seed."""
    lines = []
    for seed in (0, 1):
        for arm, budget in (("original", 1.0), ("plain", 0.2), ("control", 0.2), ("plain", 0.1), ("control", 0.1)):
            for group in range(3):
                size = (90, 30, 10)[(group + seed * swap) % 3]
                lines.append(
                    {
                        "seed": seed,
                        "arm": arm,
                        "budget": budget,
                        "split": "train",
                        "group": group,
                        "group_name": f"group {group}",
                        "role": "majority" if size == 90 else "minority",
                        "n_train": size,
                        "accuracy": 0.5 + 0.1 * group,
                        "gradient_norm": (seed + 1) * (4.0 if size < 90 else 1.0) / budget,
                        "margin": 0.5 if size < 90 else 0.8,
                        "top_eigenvalue": float(10 * (1 + 3 * (seed == 1))) if arm == "original" else math.nan,
                        "top_eigenvalue_converged": True if arm == "original" else None,
                        "relative_distance": {"plain": 0.4, "control": 0.1}.get(arm, 0.0) + 0.02 * seed,
                    }
                )
    return pd.DataFrame(lines)


def drawn(ax: plt.Axes, number: int) -> list[float]:
    """The means of the errorbar drawn as that number."""
    return ax.containers[number][0].get_ydata().tolist()


def texts(figure: plt.Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def png(figure: plt.Figure) -> bytes:
    """The figure drawn in full: constrained layout warns, and warnings are errors, where things do not fit."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def test_eigenvalues_leave_out_what_did_not_converge() -> None:
    table = rows()
    figure = why.eigenvalue_bars(table)
    assert drawn(figure.axes[0], 0) == pytest.approx([20])  # sqrt(10 * 40)
    assert texts(figure) == ["90", "30", "10"], "the largest group first, its size on top"
    assert {"1 group of 90", "2 groups of 20"} == set(texts(why.eigenvalue_bars(rows(swap=True))))
    missing = (table["arm"] == "original") & (table["seed"] == 1) & (table["group"] == 0)
    table.loc[missing, "top_eigenvalue_converged"] = False
    figure = why.eigenvalue_bars(table)
    assert drawn(figure.axes[0], 0) == pytest.approx([10])
    points = [one for one in figure.axes[0].collections if isinstance(one, PathCollection)]
    assert sum(len(one.get_offsets()) for one in points) == 5


def test_fig_8_draws_both_arms_distances_and_a_point_per_group_and_seed_at_the_lowest_budget() -> None:
    table = rows()
    groups = table[table["arm"] == "plain"].rename(
        columns={"gradient_norm": "own_gradient_norm", "margin": "own_margin"}
    )
    figure = why.distance_and_accuracy(table, groups)
    distance, gradient, margin = figure.axes
    assert drawn(distance, 0) == pytest.approx([0.41, 0.41]) and drawn(distance, 1) == pytest.approx([0.11, 0.11])
    for ax, column in ((gradient, "own_gradient_norm"), (margin, "own_margin")):
        majority, minority = (points.get_offsets() for points in ax.collections)
        assert (len(majority), len(minority)) == (2, 4)
        at = groups[(groups["budget"] == 0.1) & (groups["role"] == "majority")]
        assert np.asarray(majority).tolist() == at.assign(y=100 * at["accuracy"])[[column, "y"]].to_numpy().tolist()
    assert png(figure)


def bias_rows() -> pd.DataFrame:
    lines = [
        [quantity, order, size, role, seed, 1 + (order == "shuffled") * 64 / size]
        for quantity in ("gradient norm", "top eigenvalue")
        for order in ("stored", "shuffled")
        for size in (16, 64)
        for role in ("majority", "minority")
        for seed in (0, 1)
    ]
    return pd.DataFrame(lines, columns=["quantity", "order", "batch_size", "role", "seed", "ratio"])


def test_bias_curves_fall_to_one_panel_by_quantity() -> None:
    figure = why.bias_curves(bias_rows())
    assert [ax.get_title() for ax in figure.axes] == ["gradient norm", "top eigenvalue"]
    for ax in figure.axes:
        labels = [one.get_label() for one in ax.containers]
        assert drawn(ax, labels.index("minority, shuffled")) == pytest.approx([5, 2])
        assert drawn(ax, labels.index("majority, stored")) == pytest.approx([1, 1])
    assert png(figure)


def test_the_correlation_chart_has_a_point_per_predictor_and_budget_towards_the_expected_side() -> None:
    lines = [
        ["drop", budget, one.name, statistic, 10, 5, one.sign * 0.5, one.sign * 0.5 - 0.1, one.sign * 0.5 + 0.1]
        for budget in (0.8, 0.6, 0.2, 0.1)
        for one in PREDICTORS
        for statistic in STATISTICS
    ]
    names = ["outcome", "budget", "predictor", "statistic", "n_groups", "n_seeds", "mean", "low", "high"]
    figure = why.correlation_chart(pd.DataFrame(lines, columns=names))
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["80 % kept", "60 % kept", "20 % kept", "10 % kept"]
    for ax in panels:
        alone, within = (one[0].get_xdata().tolist() for one in ax.containers)
        assert alone == within == [0.5] * len(PREDICTORS), "signs are turned to the side that the paper expects"
    assert png(figure)


def test_upsampling_lines_are_the_levels_not_the_differences() -> None:
    lines = [
        [quantity, what, budget, times, of, 5, value + times, value, value + 2 * times]
        for quantity, budget in (("gradient_norm", 1.0), ("drop", 0.2), ("drop", 0.02))
        for what in ("upsampled", "other minority", "majority")
        for times in (1, 5, 20)
        for of, value in (("level", 10.0), ("minus x1", -10.0))
    ]
    names = ["quantity", "what", "budget", "times", "of", "n_seeds", "mean", "low", "high"]
    figure = why.upsampling_lines(pd.DataFrame(lines, columns=names))
    assert [ax.get_title() for ax in figure.axes][1:] == [
        "accuracy drop at\n20 % (points)",
        "accuracy drop at\n2 % (points)",
    ]
    for ax in figure.axes:
        assert all(drawn(ax, number) == [11, 15, 30] for number in range(3))
    assert png(figure)


def test_where_no_search_converged_the_figure_says_so() -> None:
    table = rows().assign(top_eigenvalue_converged=False)
    assert texts(why.eigenvalue_bars(table)) == ["no search for an eigenvalue converged"]
    assert png(why.eigenvalue_bars(table))
