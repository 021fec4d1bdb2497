"""What the figures of pages share: roles, lines and dots with intervals, axes, and how a figure ends."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from linfair.plots.style import COLORS, GREY, MARKERS

ROLES = ("majority", "minority")
FEW = 5
"""Means over fewer seeds are drawn as points: their t intervals rest on a spread that is hardly known."""
Numbers = Sequence[float]


def finished(
    figure: Figure, ax: Axes | None = None, *, across: str = "", where: str = "upper", **look: object
) -> Figure:
    """The figure, closed, with the legend of one of its plots outside of all, and with words below them."""
    if across:
        figure.supxlabel(across, color=GREY, fontsize=11)
    if ax is not None:
        figure.legend(*ax.get_legend_handles_labels(), loc=f"outside {where} center", **{"ncols": 2} | look)
    plt.close(figure)
    return figure


def panels(
    count: int, columns: int, base: float, each: float, *, width: float = 5.4, **look: object
) -> tuple[Figure, np.ndarray]:
    """A figure with so many plots, some in a row; it is `base` inches high and `each` for a row."""
    size = width, base + each * -(-count // columns)
    figure, axes = plt.subplots(-(-count // columns), columns, figsize=size, squeeze=False, **look)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes


def plain_log(ax: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def ends(means: pd.DataFrame) -> np.ndarray:
    """Lengths of the error bars, down and up."""
    return np.stack([means["mean"] - means["low"], means["high"] - means["mean"]])


def dots_with_intervals(ax: Axes, rows: pd.DataFrame, y: Sequence[float], role: str, **look: object) -> None:
    """Draw means over seeds (`mean`, `low`, `high`) as dots with horizontal bars; `look` overrides the role's style."""
    usual = {"color": COLORS[role], "marker": MARKERS[role], "label": role}
    usual |= {"markersize": 5, "linestyle": "none", "elinewidth": 1.4, "capsize": 2}
    ax.errorbar(rows["mean"], y, xerr=ends(rows), **usual | look)


def only_words(text: str) -> Figure:
    """A figure without data: a line that says why, such as `no search converged`."""
    figure, ax = plt.subplots(figsize=(5.4, 1.0))
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    return finished(figure)


def line_with_interval(
    ax: Axes, x: Numbers, mean: Numbers, low: Numbers, high: Numbers, *, role: str, label: str | None = None
) -> None:
    """Draw a mean over seeds, its interval as a band and bars, in the role's colour and marker; a control is dashed."""
    mean, low, high = (np.asarray(values, dtype=float) for values in (mean, low, high))
    look = {"color": COLORS[role], "marker": MARKERS[role], "linestyle": "--" if role == "control" else "-"}
    ax.fill_between(x, low, high, color=COLORS[role], alpha=0.18, linewidth=0)
    ax.errorbar(x, mean, yerr=[mean - low, high - mean], elinewidth=1.2, capsize=2.5, label=label, **look)


def drawn(means: pd.DataFrame) -> pd.DataFrame:
    """The means as a figure draws them: without `low` and `high` where they rest on fewer than `FEW` seeds."""
    enough = means["n_seeds"] >= FEW
    return means.assign(low=means["low"].where(enough), high=means["high"].where(enough))


def budget_axis(ax: Axes, budgets: Sequence[float], units: str = "ReLUs") -> list[int]:
    """Label the x axis with budgets, evenly spaced, all units on the left; returns the positions."""
    positions = list(range(len(budgets)))
    ax.set_xticks(positions, [f"{100 * budget:g}" for budget in budgets])
    ax.set_xlabel(f"{units} kept (%)")
    return positions


def budget_lines(
    ax: Axes,
    means: pd.DataFrame,
    column: str,
    looks: Mapping[str, str],
    *,
    units: str = "ReLUs",
    budgets: Iterable[float] | None = None,
) -> None:
    """Means over seeds against the budget, in a role's look for each value of a column that is there."""
    budgets = sorted(set(means["budget"] if budgets is None else budgets), reverse=True)
    positions = budget_axis(ax, budgets, units)
    for name, role in looks.items():
        if (means[column] == name).any():
            rows = drawn(means[means[column] == name]).set_index("budget").reindex(budgets)
            line_with_interval(ax, positions, rows["mean"], rows["low"], rows["high"], role=role, label=name)
