"""Figures of groups that have names: a plot for each group, the largest first, its control beside it."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import GREY
from linfair_book.figures.shared import BOTH, budget_lines, dots, finished, in_order, only_words, panels


def drop_panels(means: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """Accuracy drop of each group against the budget, linearized and in the control (`faces.group_drops`, `sizes`)."""
    figure, axes = panels(len(groups), 3, 0.6, 2.1, sharey=True)
    means, found = means.replace({"of": {"control": "100 % control"}}), {}
    for place, (ax, group) in enumerate(zip(axes.flat, groups.itertuples(), strict=False)):
        own = means[means["group_name"] == group.group_name].replace({"of": {"plain": group.role}})
        budget_lines(ax, own, "of", {"100 % control": "control", group.role: group.role})
        found |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        ax.axhline(0, color=GREY, linewidth=0.8)
        if place + 3 < len(groups):
            ax.set_xlabel("")
        ax.set_title(f"{group.group_name}\n{group.n_train:,.0f} images", fontsize=10)
    figure.supylabel("accuracy drop (points)", color=GREY, fontsize=11)
    if axes.size > len(groups):
        axes.flat[len(groups)].legend(found.values(), found, loc="center")
    else:
        figure.legend(found.values(), found, loc="outside upper center", ncols=3)
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
    found = in_order(means, way=names, budget=budgets, group_name=groups["group_name"])
    found["role"] = found["group_name"].map(groups.set_index("group_name")["role"])
    found["panel"] = [f"{names[one.way]}\n{100 * one.budget:g} % {units}" for one in found.itertuples()]
    looks = {role: {"role": role, "label": None} for role in BOTH}
    look = {"columns": len(budgets), "across": across, "rule": 0.0}
    return dots(found, panel="panel", line="group_name", by="role", looks=looks, **look)
