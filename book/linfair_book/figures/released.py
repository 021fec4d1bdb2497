"""What the released code's switches do to the accuracy of majority and minority, in one chart."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import GREY
from linfair_book import released
from linfair_book.figures.shared import ROLES, dots_with_intervals, finished


def switch_chart(table: pd.DataFrame) -> Figure:
    """Accuracy under the released version minus that under the reference, a line per switch, majority and minority."""
    found = released.effects(table).set_index(["switch", "version", "quantity", "who"])
    charted = [one for one in released.switches().values() if one.charted]
    switches = [one for one in charted if (one.name, one.other, one.charted, "minority") in found.index]
    figure, ax = plt.subplots(figsize=(5.4, 1.3 + 0.36 * len(switches)))
    y = np.arange(len(switches))[::-1]
    for offset, role in zip((0.15, -0.15), ROLES, strict=True):
        rows = found.loc[[(one.name, one.other, one.charted, role) for one in switches]]
        dots_with_intervals(ax, rows, y + offset, role)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(y, [one.title for one in switches])
    ax.set_ylim(-0.6, len(switches) - 0.4)
    ax.grid(visible=True, axis="both")
    ax.set_xlabel("accuracy, released minus reference (points)")
    return finished(figure, ax)
