"""Figures of notebooks 14 and 15: means against the share kept, a panel for each part and a line for each name."""

import pandas as pd
from matplotlib.figure import Figure

from linfair_book.figures.shared import budget_lines, finished, panels

ROLES = ("control", "other", "majority", "all", "minority")


def lines(means: pd.DataFrame, *, panel: str, line: str, ylabel: str, units: str = "weights") -> Figure:
    """Means over seeds of `over_seeds` with their intervals: a panel for each value of a column, a line for another."""
    parts, names = list(means[panel].unique()), list(means[line].unique())
    looks = dict(zip(names, ("majority", "minority") if len(names) == 2 else ROLES, strict=False))
    figure, axes = panels(len(parts), 1, 0.8, 2.3, sharex=True)
    for ax, part in zip(axes.flat, parts, strict=True):
        budget_lines(ax, means[means[panel] == part], line, looks, units=units, budgets=means["budget"])
        ax.set(title=part, ylabel=ylabel)
    for ax in axes.flat[:-1]:
        ax.set_xlabel("")
    return finished(figure, axes[0, 0])
