"""The figure of notebook 17 alone: exposure over epochs."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY
from linfair_book.figures.shared import finished


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
