"""Where the seconds of one private answer go."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY

PARTS = {
    "linear_seconds": ("linear layers", GREY),
    "relu_seconds": ("ReLUs, computing", COLORS["majority"]),
    "transfer_seconds": ("ReLUs, sending", COLORS["other"]),
    "waiting_seconds": ("round trips", COLORS["all"]),
}
"""The parts of the online seconds: column of `linfair.cost.Cost` -> name and colour."""


def cost_parts(table: pd.DataFrame) -> Figure:
    """Where the seconds of one answer go, a bar per budget, as stacked parts; the total at its end.

    `table` has the costs of one network; several are refused with a ValueError.
    """
    if table["network"].nunique() != 1:
        raise ValueError(f"cost_parts draws one network, got {', '.join(table['network'].unique())}: select one")
    table = table.sort_values("budget")
    figure, ax = plt.subplots(figsize=(5.4, 3.2))
    start, y = 0 * table["online_seconds"].to_numpy(), range(len(table))
    for column, (label, color) in PARTS.items():
        ax.barh(y, table[column], left=start, color=color, label=label)
        start = start + table[column].to_numpy()
    for position, total in zip(y, start, strict=True):
        ax.annotate(f"{total:.3g}", (total, position), xytext=(5, 0), textcoords="offset points", va="center")
    ax.set_yticks(list(y), [f"{100 * budget:g}" for budget in table["budget"]])
    ax.set(xlabel="seconds per answer", ylabel="ReLUs kept (%)", xlim=(0, 1.13 * start.max()))
    ax.grid(False)
    figure.legend(loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure
