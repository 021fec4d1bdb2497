"""Figures of notebook 07: equally many ReLUs, chosen in different ways."""

from itertools import product

import pandas as pd
from matplotlib.figure import Figure

from linfair.names import called
from linfair.plots.style import GREY
from linfair_book.averages import paired
from linfair_book.figures import shared
from linfair_book.figures.shared import ROLES, budget_axis, drawn, finished, panels
from linfair_book.selection import disparities, levels, names_in


def selection_accuracy(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Accuracy of both roles for every selection, a panel per budget, mean and 95 % t interval over seeds."""
    original = paired(table, arm="original", split=split, pooled="role").groupby("role")["value"].mean()
    means = levels(table, split=split)
    means = means.assign(role=means["quantity"].str.removesuffix(" accuracy"), line=means["selection"].map(called))
    means["panel"] = [f"{100 * budget:g} % ReLUs" for budget in means["budget"]]
    look = {"columns": 3, "across": "accuracy (%)", "xlim": (0, 102), "xticks": (0, 50, 100)}
    figure = shared.dots(means[means["role"].isin(ROLES)], panel="panel", line="line", by="role", **look)
    for ax, role in product(figure.axes, ROLES):
        label = "original network" * (role == "majority")
        ax.axvline(original[role], color=GREY, linestyle=":", linewidth=1.4, label=label)
    figure.legends.pop()
    return finished(figure, figure.axes[0], ncols=3)


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
