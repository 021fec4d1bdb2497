"""The figure of any grid: a row for each panel, in it a plot for each arm, majority and minority as two lines."""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import GREY
from linfair_book.figures.shared import BOTH, budget_lines, finished
from linfair_book.sweeps import in_words


def sweep_lines(means: pd.DataFrame, *, label: str, note: str = "") -> Figure:
    """Means of each role at each budget (`sweeps.by_role`), arm by arm; the original's are 100 % in every arm."""
    panels = list(dict.fromkeys(means["panel"]))
    linearized = means[means["arm"] != "original"].groupby("panel", sort=False)["arm"].unique()
    arms = {panel: list(linearized.get(panel, ["original"])) for panel in panels}
    columns = max(map(len, arms.values()))
    size = max(5.4, 2.2 * columns + 0.6), 2.5 * len(panels) + 1.1
    figure, axes = plt.subplots(len(panels), columns, figsize=size, sharey=True, squeeze=False)
    for panel, line in zip(panels, axes, strict=True):
        part = means[means["panel"] == panel]
        for arm, ax in zip(arms[panel], line, strict=False):
            rows = part[part["arm"].isin((arm, "original"))]
            budget_lines(ax, rows, "role", BOTH, budgets=part["budget"])
            seeds = rows["n_seeds"]
            count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
            ax.set_title(f"{arm}\n{count} seed{'s' * (count != '1')}", fontsize=10)
        for ax in line[len(arms[panel]) :]:
            ax.set_axis_off()
        line[0].set_ylabel(in_words(panel).replace(", ", "\n"), fontsize=10)
    width = int(13 * size[0])  # letters of 10 points
    above = [line for text in (label, note) for line in textwrap.wrap(text, width)]
    figure.suptitle("\n".join(above), fontsize=10, color=GREY)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return finished(figure)
