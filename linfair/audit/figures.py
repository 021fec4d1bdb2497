"""The report's figures, drawn from the tables of an audit in the house style, and as SVG that takes the page's colours.

Groups stand one below the other, so that many of them and a narrow screen do no harm.
"""

import io
import re

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from linfair.mitigation import PLAIN
from linfair.plots.style import COLORS, GREY, MARKERS

WHY = {
    "gradient_norm": "gradient norm",
    "margin": "margin",
    "top_eigenvalue": "top Hessian eigenvalue",
}
"""Quantities that are drawn for each group, in this order, where they were computed."""


def accuracy_bars(table: pd.DataFrame) -> Figure:
    """Accuracy of every group, the original on top and a bar per budget below it, with 95 % Wilson intervals.

    Args:
        table: Rows of `Audit.groups`; its arms `original` and `plain` are drawn.

    Returns:
        The figure, closed for pyplot.
    """
    shown = table[table["arm"].isin(("original", PLAIN))]
    budgets = sorted(shown["budget"].unique(), reverse=True)
    groups = shown.drop_duplicates("group").sort_values(["n_train", "group"], ascending=[False, True])
    step = len(budgets) + 1.6
    figure, ax = plt.subplots(figsize=(5.0, 0.5 + 0.165 * step * len(groups)))
    ticks, labels = [], []
    for number, group in enumerate(groups.itertuples()):
        top = number * step
        ax.text(0, top + 0.3, _named(group), fontweight="bold", va="center", fontsize=10)
        for place, budget in enumerate(budgets):
            (row,) = shown[(shown["group"] == group.group) & (shown["budget"] == budget)].itertuples()
            at = top + 1.25 + place
            color = GREY if budget == 1 else COLORS[row.role]
            _bar(ax, at, row, color, 0.82)
            ticks.append(at)
            labels.append(f"{100 * budget:g} %")
    ax.set_yticks(ticks, labels, fontsize=8.5)
    ax.set_ylim(len(groups) * step - 0.3, -0.6)
    ax.set(xlim=(0, 100), xlabel="accuracy (%)", ylabel="ReLUs kept")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    plt.close(figure)
    return figure


def repair_bars(before: pd.DataFrame, after: pd.DataFrame, name: str) -> Figure:
    """Accuracy of every group with plain fine-tuning and with the chosen repair, with 95 % Wilson intervals.

    Args:
        before: Rows of one network, from `Audit.groups`.
        after: Rows of the repaired one.
        name: The repair's name.

    Returns:
        The figure, closed for pyplot.
    """
    order = before.sort_values(["n_train", "group"], ascending=[False, True])["group"]
    figure, ax = plt.subplots(figsize=(5.0, 1.0 + 0.5 * len(order)))
    for number, group in enumerate(order):
        for rows, shift, color in ((before, -0.19, GREY), (after, 0.19, COLORS["all"])):
            (row,) = rows[rows["group"] == group].itertuples()
            _bar(ax, number + shift, row, color, 0.36, label=None if number else (PLAIN, name)[shift > 0])
    names = before.set_index("group")["group_name"]
    ax.set_yticks(range(len(order)), [names[group] for group in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set(xlim=(0, 100), xlabel="accuracy (%)")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure


def why_dots(before: pd.DataFrame, after: pd.DataFrame) -> Figure:
    """Gradient norm, margin and top eigenvalue of every group, in the original (open) and the linearized network.

    Args:
        before: Rows of the original, from `Audit.groups`.
        after: Rows of the linearized network.

    Returns:
        The figure, closed for pyplot; a panel for each quantity that was computed, one below the other.
    """
    columns = [column for column in WHY if before[column].notna().all() and after[column].notna().all()]
    order = before.sort_values(["n_train", "group"], ascending=[False, True])["group"].tolist()
    names, roles = (before.set_index("group")[column] for column in ("group_name", "role"))
    figure, axes = plt.subplots(
        len(columns), 1, figsize=(5.0, len(columns) * (0.75 + 0.24 * len(order)) + 0.4), squeeze=False
    )
    for ax, column in zip(axes[:, 0], columns, strict=True):
        values = [rows.set_index("group")[column] for rows in (before, after)]
        logarithmic = min(v.min() for v in values) > 0 and max(v.max() for v in values) > 50 * min(
            v.min() for v in values
        )
        for number, group in enumerate(order):
            role = roles[group]
            ends = [one[group] for one in values]
            ax.plot(ends, [number, number], color=GREY, linewidth=1)
            style = {"linestyle": "", "marker": MARKERS[role], "color": COLORS[role], "markersize": 6.5}
            ax.plot(ends[:1], [number], markerfacecolor="none", markeredgewidth=1.5, **style)
            ax.plot(ends[1:], [number], **style)
        ax.set_yticks(range(len(order)), [names[group] for group in order], fontsize=9)
        ax.set_ylim(len(order) - 0.5, -0.5)
        ax.set_xscale("log" if logarithmic else "linear")
        ax.set_title(WHY[column], loc="left")
        ax.grid(axis="x")
        ax.grid(visible=False, axis="y")
    marks = {"linestyle": "", "marker": "o", "color": GREY, "markersize": 6.5}
    handles = [
        plt.Line2D([], [], markerfacecolor="none", markeredgewidth=1.5, label="original", **marks),
        plt.Line2D([], [], label="linearized", **marks),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure


def _bar(ax: Axes, at: float, row: object, color: str, height: float, label: str | None = None) -> None:
    value, low, high = (100 * end for end in (row.accuracy, row.low, row.high))
    pale = {"facecolor": (*to_rgb(GREY), 0.35), "edgecolor": GREY} if color == GREY else {"color": color}
    ax.barh(at, value, height, label=label, linewidth=0.8, **pale)
    ax.plot([low, high], [at, at], color=GREY, linewidth=1.6, marker="|", markersize=4)


def _named(group: object) -> str:
    return f"{group.group_name} · {group.role}, {group.n_train:,} in training, {group.n:,} tested"


def svg(figure: Figure, name: str, alt: str) -> str:
    """A figure as inline SVG: text stays text, grey takes the page's text colour, nothing names an address.

    Args:
        figure: Drawn in the house style.
        name: Put before every id, so that several figures fit on one page.
        alt: What it shows, for those who do not see it.
    """
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", text[: (end := text.index(">"))]) + text[end:]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace(GREY, "currentColor")
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
