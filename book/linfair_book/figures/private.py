"""Figures of notebooks 16 to 18: rules with their guarantees, exposure over epochs, three prices in one picture."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY
from linfair_book.figures.shared import ROLES, dots_with_intervals, drawn, finished


def rules(means: pd.DataFrame, *, panel: str = "images", title: str = "minority: {} a class") -> Figure:
    """Accuracy of majority and minority, a line for each rule and its guarantee, a panel for each value of a column."""
    means, panels = drawn(means), list(means[panel].unique())
    names = list(dict.fromkeys(zip(means["trained"], means["guarantee"], strict=True)))
    size = (2.4 + 2.1 * len(panels), 1.1 + 0.34 * len(names))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, part in zip(axes.flat, panels, strict=True):
        rows = means[means[panel] == part].set_index(["trained", "guarantee"])
        for shift, role in zip((-0.12, 0.12), ROLES, strict=True):
            mine = rows[rows["group_name"] == role].reindex(names)
            dots_with_intervals(ax, mine, [place + shift for place in range(len(names))], role)
        ax.set(title=title.format(part), xlim=(-4, 104))
        ax.grid(visible=True, axis="x")
    axes[0, 0].set_yticks(range(len(names)), [f"{name}, {given}" for name, given in names])
    axes[0, 0].invert_yaxis()
    return finished(figure, axes[0, 0], across="accuracy (%)")


def exposed(table: pd.DataFrame) -> Figure:
    """Area under the curve of every attack on all, majority and minority, a panel for each rule; chance is dashed."""
    panels, attacks = list(table["trained"].unique()), list(table["attack"].unique())
    figure, axes = plt.subplots(1, len(panels), figsize=(1.6 + 2.4 * len(panels), 3.0), sharey=True, squeeze=False)
    for ax, part in zip(axes.flat, panels, strict=True):
        for shift, who in zip((-0.18, 0, 0.18), ("all", *ROLES), strict=True):
            rows = table[(table["trained"] == part) & (table["who"] == who)].set_index("attack").loc[attacks]
            places = [place + shift for place in range(len(attacks))]
            dots_with_intervals(ax, rows.assign(mean=rows["auc"]), places, who)
        ax.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
        ax.set(title=part, xlim=(0.45, 1.0))
        ax.grid(visible=True, axis="x")
    axes[0, 0].set_yticks(range(len(attacks)), [name.replace("_", " ") for name in attacks])
    axes[0, 0].invert_yaxis()
    return finished(figure, axes[0, 0], across="area under the curve", ncols=3)


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
