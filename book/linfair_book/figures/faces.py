"""Figures of groups that have names: a plot for each group, the largest first, its control beside it."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY, MARKERS
from linfair_book.figures.shared import budget_lines, dots_with_intervals, drawn, finished, only_words, panels

LOOKS = {"majority": "majority", "minority": "minority", "control": "100 % control"}


def drop_panels(means: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """Accuracy drop of each group against the budget, linearized and in the control (`faces.group_drops`, `sizes`)."""
    figure, axes = panels(len(groups), 3, 0.6, 2.1, sharey=True)
    for place, (ax, group) in enumerate(zip(axes.flat, groups.itertuples(), strict=False)):
        own = means[means["group_name"] == group.group_name]
        budget_lines(ax, own, "of", {"control": "control", "plain": group.role})
        ax.axhline(0, color=GREY, linewidth=0.8)
        if place + 3 < len(groups):
            ax.set_xlabel("")
        ax.set_title(f"{group.group_name}\n{group.n_train:,.0f} images", fontsize=10)
    figure.supylabel("accuracy drop (points)", color=GREY, fontsize=11)
    handles = []
    for role, words in LOOKS.items():
        look = {"marker": MARKERS[role], "linestyle": "-" if MARKERS[role] else "--"}
        handles.append(plt.Line2D([], [], color=COLORS[role], label=words, **look))
    if axes.size > len(groups):
        axes.flat[len(groups)].legend(handles=handles, loc="center")
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return finished(figure)


def change_panels(
    means: pd.DataFrame,
    groups: pd.DataFrame,
    names: Mapping[str, str],
    across: str = "change against plain (points), positive: gain",
    *,
    units: str = "ReLUs",
) -> Figure:
    """Change of each group against plain (`faces.group_changes`, `sizes`), a row of plots a way, a plot a budget."""
    if means.empty or not names:
        return only_words("no repair is left to compare")
    budgets = sorted(means["budget"].unique(), reverse=True)
    size = 5.4, (0.34 * len(groups) + 0.5) * len(names) + 0.9
    figure, axes = plt.subplots(len(names), len(budgets), figsize=size, sharey=True, sharex=True, squeeze=False)
    y = np.arange(len(groups))[::-1]
    for line, way in zip(axes, names, strict=True):
        for ax, budget in zip(line, budgets, strict=True):
            rows = drawn(means[(means["way"] == way) & (means["budget"] == budget)]).set_index("group_name")
            for place, group in zip(y, groups.itertuples(), strict=True):
                dots_with_intervals(ax, rows.reindex([group.group_name]), [place], group.role, label=None)
            ax.axvline(0, color=GREY, linewidth=1)
            ax.set_yticks(y, groups["group_name"])
            ax.set_ylim(-0.5, len(groups) - 0.5)
            ax.grid(visible=True, axis="both")
        line[0].set_ylabel(names[way], fontsize=10)
    for ax, budget in zip(axes[0], budgets, strict=True):
        ax.set_title(f"{100 * budget:g} % {units}", fontsize=10)
    return finished(figure, across=across)
