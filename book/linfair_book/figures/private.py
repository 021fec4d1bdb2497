"""Figures of notebooks 16 to 18: dots in panels that share their lines, and exposure over epochs."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY
from linfair_book.figures.shared import dots_with_intervals, drawn, finished, panels


def dots(
    means: pd.DataFrame,
    *,
    panel: str,
    line: str,
    by: str,
    roles: Mapping[str, str],
    across: str = "",
    xlim: tuple[float, float] | None = None,
    chance: float | None = None,
) -> Figure:
    """Means with intervals: a panel per value of a column, two in a row, a line per value of another, a look a role."""
    means = drawn(means) if "n_seeds" in means else means
    parts, names = list(means[panel].unique()), list(means[line].unique())
    together = means[means[by].isin(roles)].groupby([panel, line])[by].nunique().max() > 1
    beside, each = min(2, len(parts)), 0.5 + 0.29 * len(names)
    figure, axes = panels(len(parts), beside, 1.0, each, width=2.4 + 2.1 * beside, sharey=True)
    for ax, part in zip(axes.flat, parts, strict=False):
        for number, (role, label) in enumerate(roles.items()):
            rows = means[(means[panel] == part) & (means[by] == role)]
            shift = 0.24 * (number - (len(roles) - 1) / 2) * together
            dots_with_intervals(ax, rows, [names.index(name) + shift for name in rows[line]], role, label=label)
        if chance is not None:
            ax.axvline(chance, color=GREY, linestyle="--", linewidth=1)
        ax.set(title=part, xlim=xlim)
        ax.grid(visible=True, axis="x")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return finished(figure, axes[0, 0], across=across, ncols=len(roles))


def memorization(epochs: pd.DataFrame) -> Figure:
    """Test loss and area under the curve after every epoch; the epoch of the least test loss is dashed."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(5.4, 4.6), sharex=True)
    one = epochs[epochs["attack"] == "lira_online"]
    above.plot(one["epoch"], one["test_loss"], color=COLORS["all"])
    above.set(ylabel="loss on the test")
    below.fill_between(one["epoch"], one["low"], one["high"], color=COLORS["other"], alpha=0.18, linewidth=0)
    below.plot(one["epoch"], one["auc"], color=COLORS["other"])
    below.axhline(0.5, color=GREY, linewidth=1)
    below.set(ylabel="AUC, LiRA online", xlabel="epoch")
    for ax in (above, below):
        ax.axvline(one.loc[one["test_loss"].idxmin(), "epoch"], color=GREY, linestyle="--", linewidth=1)
    return finished(figure)
