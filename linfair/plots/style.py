"""Figures: one house style, readable on light and dark pages, and one function for each kind of figure.

Figures have no background, so text and axes must stand out on white and on #121212, whose contrast is 18.7: no colour
can have more than sqrt(18.7) = 4.33 on both. `GREY` has 4.3, every data colour at least 3, the WCAG minimum for
graphics. Colours have fixed meanings, and differ in lightness and marker too.
"""

from collections.abc import Sequence
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

GREY = "#767676"
COLORS = {"majority": "#0072B2", "minority": "#D55E00", "control": GREY, "all": "#009E73", "other": "#CC79A7"}
"""Colour by role, from Okabe and Ito's colour-blind safe palette."""
MARKERS = {"majority": "o", "minority": "s", "control": "", "all": "^", "other": "D"}

STYLE = {
    "figure.figsize": (5.0, 3.4),  # inches; 5 in on a 390 pixel screen leave about 10 pixels to a 10 point letter
    "figure.dpi": 180,
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "grid.color", "text.color"), GREY),
    **dict.fromkeys(("xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 11),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 10),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **{"axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True, "grid.alpha": 0.35, "grid.linewidth": 0.6},
    **{"lines.linewidth": 2.0, "lines.markersize": 6},
}


def style() -> None:
    """Use the house style for every figure made from now on."""
    plt.rcParams.update(STYLE)


def evidence(
    *, seeds: int, n: str, device: str, seconds: float | None = None, torch: str = "", linfair: str = ""
) -> str:
    """The line that stands under every figure, what the result rests on; versions are the installed ones."""
    parts = [f"{seeds} seed{'s' * (seeds != 1)}", n, device]
    parts += [f"torch {torch or version('torch')}", f"linfair {linfair or version('linfair')}"]
    if seconds is not None:
        parts.append(f"{seconds:.{int(seconds < 1)}f} s")
    return " · ".join(parts)


def evidence_of(table: pd.DataFrame, *, split: str) -> str:
    """The evidence line of a study's table: seeds, distinct images, device, versions and seconds of a split's rows."""
    part = table[table["split"] == split]
    sizes = part.drop_duplicates(["seed", "group"]).groupby("seed")["n"].sum()
    arms = table.drop_duplicates([name for name in ("arm", "teacher", "method", "options") if name in table])
    about = {name: ", ".join(sorted(table[name].unique())) for name in ("device", "torch", "linfair")}
    images = {"train": "training", "val": "validation"}.get(split, "test")
    n = f"{' to '.join(map(str, sorted({sizes.min(), sizes.max()})))} distinct {images} images a seed"
    return evidence(seeds=part["seed"].nunique(), n=n, seconds=arms["seconds"].sum(), **about)


def apart(places: Sequence[float], room: float, low: float = -np.inf, high: float = np.inf) -> list[float]:
    """Where labels stand that must not touch: as close to their places as `room` and the two ends allow.

    >>> apart([10.0, 12.0, 60.0], 10), apart([10.0, 12.0, 60.0], 10, low=8)
    ([6.0, 16.0, 60.0], [8.0, 18.0, 60.0])
    """
    order, steps = np.argsort(places, kind="stable"), room * np.arange(len(places))
    stacked = isotonic_regression(np.take(places, order) - steps).x.clip(low, high - steps[-1]) + steps
    return stacked[np.argsort(order)].tolist()


PARTS = {"linear_seconds": ("linear layers, computing", GREY), "relu_seconds": ("ReLUs, computing", COLORS["majority"])}
PARTS |= {"transfer_seconds": ("sending", COLORS["other"]), "waiting_seconds": ("round trips", COLORS["all"])}
"""The parts of the online seconds: column of `linfair.cost.Cost` -> name and colour."""


def cost_parts(table: pd.DataFrame) -> Figure:
    """Where the seconds of one answer go, a bar per budget, as stacked parts, from the costs of one network."""
    if table["network"].nunique() != 1:
        raise ValueError(f"cost_parts draws one network, got {', '.join(table['network'].unique())}: select one")
    table = table.sort_values("budget")
    figure, ax = plt.subplots(figsize=(5.4, 3.2))
    start, y = 0 * table["online_seconds"].to_numpy(), range(len(table))
    for column, (label, color) in PARTS.items():
        bars = ax.barh(y, table[column], left=start, color=color, label=label)
        start = start + table[column].to_numpy()
    ax.bar_label(bars, [f"{total:#.3g}".rstrip(".") for total in start], padding=5)
    ax.set_yticks(list(y), [f"{100 * budget:g}" for budget in table["budget"]])
    ax.set(xlabel="seconds per answer", ylabel="ReLUs kept (%)", xlim=(0, 1.13 * start.max()))
    ax.grid(False)
    figure.legend(loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure
