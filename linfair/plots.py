"""Figures: one house style, readable on light and dark pages, and one function for each kind of figure.

Figures have no background of their own, so text and axes must stand out on both of the book's pages, white and
#121212. The contrast of white to #121212 is 18.7, so no colour can have more than sqrt(18.7) = 4.33 on both at
once; `GREY` has 4.3, and every data colour at least 3, the WCAG minimum for graphics. Colours have fixed
meanings, and differ in lightness and marker too: majority blue with circles, minority vermillion with squares,
control grey and dashed.
"""

from collections.abc import Sequence
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from linfair.toy import ToyStudy

PAGES = {"light": "#ffffff", "dark": "#121212"}
GREY = "#797979"
COLORS = {"majority": "#0072B2", "minority": "#D55E00", "control": GREY, "all": "#009E73", "other": "#CC79A7"}
"""Colour by role, from Okabe and Ito's colour-blind safe palette."""
MARKERS = {"majority": "o", "minority": "s", "control": "", "all": "^", "other": "D"}

STYLE = {
    "figure.figsize": (5.0, 3.4),  # inches; 5 in on a 390 pixel screen leave about 10 pixels to a 10 point letter
    "figure.dpi": 180,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "savefig.transparent": True,
    "axes.facecolor": "none",
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "font.size": 11,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
}


def style() -> None:
    """Use the house style for every figure made from now on."""
    plt.rcParams.update(STYLE)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, (L1 + 0.05) / (L2 + 0.05) with L the relative luminance (WCAG 2.2).

    Args:
        one: A colour as `#rrggbb`.
        other: Another one.

    Returns:
        The ratio, from 1 (equal) to 21 (black on white).

    >>> round(contrast("#000000", "#ffffff"), 6)
    21.0
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def evidence(
    *,
    seeds: int,
    n: str,
    device: str,
    seconds: float | None = None,
    torch: str | None = None,
    linfair: str | None = None,
) -> str:
    """The line that stands under every figure: what the result rests on.

    Args:
        seeds: Number of seeds.
        n: What was counted, in words, for example `1000 test points a group`.
        device: Where it was computed.
        seconds: How long it took, or None where that is not known.
        torch: Version of torch that computed it; the installed one by default.
        linfair: Version of linfair, likewise.

    Returns:
        One line of text.

    >>> evidence(seeds=20, n="1000 test points a group", device="cpu", seconds=14.2, torch="2.13.0", linfair="0.1.0")
    '20 seeds · 1000 test points a group · cpu · torch 2.13.0 · linfair 0.1.0 · 14 s'
    """
    parts = [
        f"{seeds} seed{'s' * (seeds != 1)}",
        n,
        device,
        f"torch {torch or version('torch')}",
        f"linfair {linfair or version('linfair')}",
    ]
    if seconds is not None:
        parts.append(f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s")
    return " · ".join(parts)


def line_with_interval(
    ax: Axes,
    x: Sequence[float],
    mean: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    role: str,
    label: str | None = None,
) -> None:
    """Draw a mean over seeds with its interval as a band and bars, in the role's colour and marker.

    Args:
        ax: Where to draw.
        x: Positions.
        mean: Means at the positions.
        low: Lower ends of the intervals.
        high: Upper ends.
        role: A key of `COLORS`; a control is dashed.
        label: Name in the legend.
    """
    mean, low, high = (np.asarray(values, dtype=float) for values in (mean, low, high))
    color = COLORS[role]
    ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
    ax.errorbar(
        x,
        mean,
        yerr=np.stack([mean - low, high - mean]),
        color=color,
        marker=MARKERS[role],
        linestyle="--" if role == "control" else "-",
        elinewidth=1.2,
        capsize=2.5,
        label=label,
    )


def budget_axis(ax: Axes, budgets: Sequence[float]) -> list[int]:
    """Label the x axis with ReLU budgets, evenly spaced, all ReLUs on the left; returns the positions."""
    positions = list(range(len(budgets)))
    ax.set_xticks(positions, [f"{100 * budget:g}" for budget in budgets])
    ax.set_xlabel("ReLUs kept (%)")
    return positions


def toy_boundaries(study: ToyStudy, seed: int, budgets: Sequence[float], *, resolution: int = 240) -> Figure:
    """The networks of one seed at several budgets: training points, true boundary, learned boundary.

    The ground is coloured by what the network predicts; the titles give the accuracy of both groups on the
    balanced test.

    Args:
        study: A trained toy study.
        seed: One of its seeds.
        budgets: Some of its budgets, one panel each.
        resolution: Pixels of the prediction along each axis.

    Returns:
        The figure, closed for pyplot, so that a notebook shows it once.
    """
    roles = ("majority", "minority")
    figure, axes = plt.subplots(1, len(budgets), figsize=(5.0, 3.3), sharex=True, sharey=True, squeeze=False)
    train = study.data[seed].splits["train"]
    edge = np.linspace(-1, 1, resolution)
    for ax, budget in zip(axes[0], budgets, strict=True):
        share = study.minority_probability(seed, budget, edge)
        colors = [COLORS[role] for role in roles]
        ax.contourf(edge, edge, share, levels=[0, 0.5, 1], colors=colors, alpha=0.16)
        for group, role in enumerate(roles):
            points = train.x[train.a == group].cpu()
            ax.scatter(*points.T, s=5, marker=MARKERS[role], color=COLORS[role], linewidths=0, alpha=0.75)
        ax.contour(edge, edge, share, levels=[0.5], colors=[GREY], linewidths=2.2)
        ax.plot(edge, study.boundary(edge), color=GREY, linestyle=":", linewidth=1.8)
        right = study.accuracy(seed, budget)
        ax.set_title(f"{100 * budget:g} % ReLUs\n" + "\n".join(f"{role} {100 * right[role]:.1f} %" for role in roles))
        ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        ax.grid(False)
    plt.close(figure)
    return figure


def toy_accuracy(
    summary: pd.DataFrame,
    *,
    split: str = "test_balanced",
    names: tuple[str, str] = ("majority", "minority"),
) -> Figure:
    """Accuracy of majority and minority against the ReLU budget, mean and 95 % t interval over seeds.

    A dashed grey line marks where the minority stood with all ReLUs.

    Args:
        summary: The table of `linfair.toy.summarise`.
        split: Which test to draw.
        names: What to write at the lines of `majority` and `minority`.

    Returns:
        The figure, closed for pyplot, so that a notebook shows it once.
    """
    figure, ax = plt.subplots()
    chosen = summary[summary["split"] == split]
    budgets = sorted(chosen["budget"].unique(), reverse=True)
    positions = budget_axis(ax, budgets)
    ends = []
    for role in ("majority", "minority"):
        rows = chosen[chosen["group"] == role].set_index("budget").loc[budgets]
        line_with_interval(ax, positions, rows["accuracy"], rows["low"], rows["high"], role=role)
        ends.append(rows["accuracy"].iloc[-1])
        if role == "minority":
            ax.axhline(rows["accuracy"].iloc[0], color=COLORS["control"], linestyle="--", linewidth=1.2)
    ax.set_ylabel("accuracy (%)")
    ax.set_ylim(min(50, ax.get_ylim()[0]), 101)  # one scale for figures that are compared; 50 is guessing
    _label_ends(ax, positions[-1], ends, names)
    plt.close(figure)
    return figure


def _label_ends(ax: Axes, x: float, ends: Sequence[float], names: tuple[str, str]) -> None:
    """Write the groups' names at the right ends of their lines, apart from each other where the lines meet."""
    bottom, top = ax.get_ylim()
    apart = 0.08 * (top - bottom)
    push = max(0.0, apart - abs(ends[0] - ends[1])) / 2
    signs = (1, -1) if ends[0] >= ends[1] else (-1, 1)
    for role, name, end, sign in zip(("majority", "minority"), names, ends, signs, strict=True):
        ax.annotate(
            name,
            (x, end + sign * push),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=COLORS[role],
            fontweight="bold",
            annotation_clip=False,
        )
