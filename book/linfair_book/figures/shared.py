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
BOTH = {role: role for role in ROLES}
"""The looks of both roles, by the names of their rows."""
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
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width, base + each * rows), squeeze=False, **look)
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


def lines(means: pd.DataFrame, *, panel: str, line: str, ylabel: str, units: str = "weights") -> Figure:
    """Means over seeds against the share kept: a panel for each value of a column, a line for each of another."""
    parts, names = list(means[panel].unique()), list(means[line].unique())
    others = ("control", "other", "majority", "all", "minority")
    looks = dict(zip(names, ROLES if len(names) == 2 else others, strict=False))
    figure, axes = panels(len(parts), 1, 0.8, 2.3, sharex=True)
    for ax, part in zip(axes.flat, parts, strict=True):
        budget_lines(ax, means[means[panel] == part], line, looks, units=units, budgets=means["budget"])
        ax.set(title=part, ylabel=ylabel)
    for ax in axes.flat[:-1]:
        ax.set_xlabel("")
    return finished(figure, axes[0, 0])


def in_order(means: pd.DataFrame, **levels: Iterable[object]) -> pd.DataFrame:
    """Means of all combinations of some columns' values, in this order, without numbers where there are none."""
    every = pd.MultiIndex.from_product(map(list, levels.values()), names=list(levels))
    return means.set_index(list(levels)).reindex(every).reset_index()


def dots(
    means: pd.DataFrame,
    *,
    panel: str,
    line: str,
    by: str,
    looks: Mapping[str, str | Mapping[str, object]] = BOTH,
    columns: int = 2,
    across: str = "",
    rule: float | None = None,
    **scale: object,
) -> Figure:
    """Means with intervals: a panel per value of a column, a line per value of another, a look per value of a third.

    A look is a role's label, or what `dots_with_intervals` takes; those of one line stand one above the other.
    """
    if means.empty:
        return only_words("nothing is left to compare")
    means = drawn(means) if "n_seeds" in means else means
    looks = {name: {"role": name, "label": look} if isinstance(look, str) else look for name, look in looks.items()}
    parts, names = list(means[panel].unique()), list(means[line].unique())
    columns, each = min(columns, len(parts)), 0.5 + 0.29 * len(names)
    width = 6.6 if max(map(len, names)) > 26 else 5.4  # room for long names
    figure, axes = panels(len(parts), columns, 1.0, each, width=width, sharey=True, sharex=rule == 0)
    for ax, part in zip(axes.flat, parts, strict=False):
        rows = means[means[panel] == part]
        here = [name for name in looks if (rows[by] == name).any()]
        together = rows[rows[by].isin(here)].groupby(line)[by].nunique().max() > 1
        for number, name in enumerate(here):
            own, shift = rows[rows[by] == name], 0.24 * (number - (len(here) - 1) / 2) * together
            dots_with_intervals(ax, own, [names.index(one) + shift for one in own[line]], **looks[name])
        if rule is not None:
            ax.axvline(rule, color=GREY, linestyle="--" if rule else "-", linewidth=1)
        ax.set(**scale)
        ax.set_title(part, fontsize=10)
        ax.grid(visible=True, axis="x")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return finished(figure, axes[0, 0], across=across)
