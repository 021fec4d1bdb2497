"""Figures of notebook 07: equally many ReLUs, chosen in different ways."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.names import called
from linfair.plots.style import GREY
from linfair_book.averages import paired
from linfair_book.figures import shared
from linfair_book.figures.shared import ROLES, budget_axis, dots_with_intervals, drawn, finished, panels
from linfair_book.selection import disparities, levels, names_in


def selection_accuracy(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Accuracy of both roles for every selection, a panel per budget, mean and 95 % t interval over seeds."""
    original = paired(table, arm="original", split=split, pooled="role").groupby("role")["value"].mean()
    means = drawn(levels(table, split=split))
    budgets = sorted(means["budget"].unique(), reverse=True)
    names = names_in(table)
    figure, axes = panels(len(budgets), min(3, len(budgets)), 0.35, 0.95 + 0.38 * len(names), sharex=True, sharey=True)
    y = np.arange(len(names))[::-1]
    for ax, budget in zip(axes.flat, budgets, strict=False):
        for role in ROLES[::-1]:
            rows = means[(means["budget"] == budget) & (means["quantity"] == f"{role} accuracy")]
            rows = rows.set_index("selection").loc[names]
            label = "original network" * (role == "majority")
            ax.axvline(original[role], color=GREY, linestyle=":", linewidth=1.4, label=label)
            dots_with_intervals(ax, rows, y, role)
        ax.set_title(f"{100 * budget:g} % ReLUs")
        ax.set_yticks(y, map(called, names))
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_xlim(0, 102)
        ax.set_xticks([0, 50, 100])
    figure.get_layout_engine().set(wspace=0.06)
    found = dict(zip(*axes[0, 0].get_legend_handles_labels()[::-1], strict=True))
    order = ["minority", "majority", "original network"]
    figure.legend([found[name] for name in order], order, loc="outside upper center", ncols=3)
    return finished(figure, across="accuracy (%)")


def selection_disparity(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Minority minus majority relative drop, less the 100 % control's: a panel per selection, the others in grey."""
    found = drawn(disparities(table, split=split))
    found = found[found["of"] == "plain minus control"]
    budgets, names = sorted(found["budget"].unique(), reverse=True), names_in(table)[::-1]
    figure, axes = panels(len(names), 3, 0.5, 1.6, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, names, strict=False):
        positions = budget_axis(ax, budgets)
        for other in names:
            rows = found[found["selection"] == other].set_index("budget").loc[budgets]
            if other == name:
                shared.line_with_interval(ax, positions, rows["mean"], rows["low"], rows["high"], role="all")
            else:
                ax.plot(positions, rows["mean"], color=GREY, linewidth=0.8, alpha=0.6)
        ax.set_title(called(name))
        ax.set_xlabel("")
    figure.supylabel("minority minus majority\nrelative drop (points)", color=GREY, fontsize=11)
    return finished(figure, across="ReLUs kept (%)")
