"""What the figures of pages share: the two roles, dots, how a figure ends, a logarithmic axis with plain numbers."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from linfair.plots.style import COLORS, GREY, MARKERS

ROLES = ("majority", "minority")


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


def plain_log(ax: Axes) -> None:
    """Make the y axis logarithmic, with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def dots_with_intervals(ax: Axes, rows: pd.DataFrame, y: Sequence[float], role: str, **look: object) -> None:
    """Draw means over seeds (`mean`, `low`, `high`) as dots with horizontal bars; `look` overrides the role's style."""
    usual = {"color": COLORS[role], "marker": MARKERS[role], "label": role}
    usual |= {"markersize": 5, "linestyle": "none", "elinewidth": 1.4, "capsize": 2}
    spans = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    ax.errorbar(rows["mean"], y, xerr=spans, **usual | look)


def only_words(text: str) -> Figure:
    """A figure without data: a line that says why, such as `no search converged`."""
    figure, ax = plt.subplots(figsize=(5.4, 1.0))
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", color=GREY)
    plt.close(figure)
    return figure
