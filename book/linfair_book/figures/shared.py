"""What the figures of pages share: the two roles, how a figure ends, a logarithmic axis with plain numbers."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from linfair.plots.style import GREY

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
