"""Figures of the accuracy impact: the paper's Figs. 1, 5 and 6 from result rows."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, MARKERS, budget_axis, drawn, line_with_interval
from linfair.study.tables import by_role, drops, over_seeds

ROLES = ("majority", "minority")


def role_accuracy_bars(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Accuracy of majority and minority at every budget as bars, mean and 95 % t interval over seeds (Fig. 1).

    A short dashed line across each bar is the 100 % control's accuracy at that budget.

    Args:
        table: Rows of a study.
        split: Which split.

    Returns:
        The figure.
    """
    part = by_role(table[table["split"] == split])
    means = drawn(over_seeds(part.assign(value=100 * part["accuracy"]), "value", ["arm", "budget", "group_name"]))
    budgets = sorted(means["budget"].unique(), reverse=True)
    figure, ax = plt.subplots(figsize=(5.4, 3.4))
    positions = np.array(budget_axis(ax, budgets))
    width = 0.38
    for offset, role in zip((-width / 2, width / 2), ROLES, strict=True):
        rows = means[means["group_name"] == role]
        shown = rows[rows["arm"] != "control"].set_index("budget").loc[budgets]
        error = np.stack([shown["mean"] - shown["low"], shown["high"] - shown["mean"]])
        ax.bar(
            positions + offset,
            shown["mean"],
            width,
            yerr=error,
            color=COLORS[role],
            error_kw={"ecolor": COLORS["control"], "elinewidth": 1.5, "capsize": 2.5},
            label=role,
        )
        control = rows[rows["arm"] == "control"].set_index("budget")
        for position, budget in zip(positions, budgets, strict=True):
            if budget in control.index:
                ends = position + offset - width / 2, position + offset + width / 2
                label = "100 % control" if role == "minority" and budget == budgets[-1] else None
                level = control.loc[budget, "mean"]
                ax.hlines(level, *ends, color=COLORS["control"], linestyles=(0, (2, 1)), linewidth=2, label=label)
    ax.set_ylabel("accuracy (%)")
    ax.set_ylim(0, 105)
    figure.legend(loc="outside upper center", ncols=3)
    plt.close(figure)
    return figure


def relative_drop_lines(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Relative accuracy drop of majority and minority against the budget, with each one's control (Fig. 6).

    The denominator is the original network's accuracy, as in the paper.

    Args:
        table: Rows of a study.
        split: Which split.

    Returns:
        The figure.
    """
    part = drops(by_role(table[table["split"] == split]))
    means = drawn(over_seeds(part, "relative_drop", ["arm", "budget", "group_name"]))
    budgets = sorted((b for b in means["budget"].unique() if b < 1), reverse=True)
    figure, ax = plt.subplots(figsize=(5.4, 3.4))
    positions = budget_axis(ax, budgets)
    for role in ROLES:
        rows = means[means["group_name"] == role]
        plain = rows[rows["arm"] == "plain"].set_index("budget").loc[budgets]
        line_with_interval(ax, positions, plain["mean"], plain["low"], plain["high"], role=role, label=role)
        control = rows[rows["arm"] == "control"].set_index("budget")
        if len(control):
            ax.plot(
                positions,
                control.loc[budgets, "mean"],
                color=COLORS["control"],
                marker=MARKERS[role],
                markersize=4,
                linestyle="--",
                linewidth=1.2,
                label=f"100 % control, {role}",
            )
    ax.axhline(0, color=COLORS["control"], linewidth=0.8)
    ax.set_ylabel("relative accuracy drop (%)")
    ax.legend(loc="upper left")
    plt.close(figure)
    return figure


def overall_accuracy(table: pd.DataFrame, *, splits: Sequence[str] = ("test", "test_balanced")) -> Figure:
    """Accuracy of all test images together against the budget, a panel per test set (Fig. 5).

    On the imbalanced test the majority hides what the balanced one shows.

    Args:
        table: Rows of a study.
        splits: Which tests.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(1, len(splits), figsize=(5.4, 3.0), sharey=True, squeeze=False)
    names = {"test": "imbalanced test", "test_balanced": "balanced test"}
    for ax, split in zip(axes[0], splits, strict=True):
        part = by_role(table[table["split"] == split].assign(role="all"))
        means = drawn(over_seeds(part.assign(value=100 * part["accuracy"]), "value", ["arm", "budget"]))
        budgets = sorted(means["budget"].unique(), reverse=True)
        positions = budget_axis(ax, budgets)
        shown = means[means["arm"] != "control"].set_index("budget").loc[budgets]
        line_with_interval(ax, positions, shown["mean"], shown["low"], shown["high"], role="all", label="linearized")
        control = means[means["arm"] == "control"].set_index("budget")
        if len(control):
            below = [p for p, b in zip(positions, budgets, strict=True) if b in control.index]
            rows = control.loc[[b for b in budgets if b in control.index]]
            line_with_interval(
                ax, below, rows["mean"], rows["low"], rows["high"], role="control", label="100 % control"
            )
        ax.set_title(names.get(split, split))
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, -1].legend(loc="lower left")
    plt.close(figure)
    return figure
