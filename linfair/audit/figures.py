"""The report's figures, drawn from the tables of an audit in the house style, and as SVG that takes the page's colours.

Groups stand one below the other, so that many of them and a narrow screen do no harm. Figures are closed for pyplot.
"""

import io
import re
from html import escape

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from linfair.mitigation import PLAIN
from linfair.plots.style import COLORS, GREY, MARKERS

WHY = {"gradient_norm": "gradient norm", "margin": "margin", "top_eigenvalue": "top Hessian eigenvalue"}
"""Quantities that are drawn for each group, in this order, where they were computed."""


def accuracy_bars(table: pd.DataFrame) -> Figure:
    """Accuracy of every group, the original on top and a bar per budget below it, with 95 % Wilson intervals."""
    shown = table[table["arm"].isin(("original", PLAIN))].set_index(["group", "budget"])
    budgets = sorted(shown.index.unique("budget"), reverse=True)
    order, step = _order(table), len(budgets) + 1.6
    figure, ax = plt.subplots(figsize=(5.0, 0.5 + 0.165 * step * len(order)))
    ticks = {}
    for number, group in enumerate(order):
        top, first = number * step, shown.loc[group, budgets[0]]
        title = f"{first.group_name} · {first.role}, {first.n_train:,} in training, {first.n:,} tested"
        ax.text(0, top + 0.3, title, fontweight="bold", va="center", fontsize=10)
        for place, budget in enumerate(budgets):
            row, at = shown.loc[group, budget], top + 1.25 + place
            _bar(ax, at, row, GREY if budget == 1 else COLORS[row.role], 0.82)
            ticks[at] = f"{100 * budget:g} %"
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8.5)
    ax.set_ylim(len(order) * step - 0.3, -0.6)
    ax.set(xlim=(0, 100), xlabel="accuracy (%)", ylabel="ReLUs kept")
    return _closed(figure)


def repair_bars(before: pd.DataFrame, after: pd.DataFrame, name: str) -> Figure:
    """Accuracy of every group with plain fine-tuning and with the chosen repair, with 95 % Wilson intervals."""
    order = _order(before)
    figure, ax = plt.subplots(figsize=(5.0, 1.0 + 0.5 * len(order)))
    for rows, shift, color, label in ((before, -0.19, GREY, PLAIN), (after, 0.19, COLORS["all"], name)):
        for number, group in enumerate(order):
            row = rows[rows["group"] == group].iloc[0]
            _bar(ax, number + shift, row, color, 0.36, label=None if number else label)
    _name_groups(ax, before, order)
    ax.set(xlim=(0, 100), xlabel="accuracy (%)")
    figure.legend(loc="outside upper center", ncols=2)
    return _closed(figure)


def why_dots(before: pd.DataFrame, after: pd.DataFrame) -> Figure:
    """Gradient norm, margin and top eigenvalue of every group, in the original (open) and the linearized network.

    A panel for each quantity that was computed, one below the other.
    """
    columns = [column for column in WHY if before[column].notna().all() and after[column].notna().all()]
    order, roles = _order(before), before.set_index("group")["role"]
    size = 5.0, len(columns) * (0.75 + 0.24 * len(order)) + 0.4
    figure, axes = plt.subplots(len(columns), 1, figsize=size, squeeze=False)
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5}
    for ax, column in zip(axes[:, 0], columns, strict=True):
        values = pd.DataFrame([rows.set_index("group")[column] for rows in (before, after)])
        for number, group in enumerate(order):
            ends, look = values[group].tolist(), {"marker": MARKERS[roles[group]], "color": COLORS[roles[group]]}
            look |= {"linestyle": "", "markersize": 6.5}
            ax.plot(ends, [number, number], color=GREY, linewidth=1)
            ax.plot(ends[:1], [number], **hollow, **look)
            ax.plot(ends[1:], [number], **look)
        least, most = values.min(axis=None), values.max(axis=None)
        ax.set_xscale("log" if least > 0 and most > 50 * least else "linear")
        ax.set_title(WHY[column], loc="left")
        _name_groups(ax, before, order)
    marks = {"linestyle": "", "marker": "o", "color": GREY, "markersize": 6.5}
    handles = [plt.Line2D([], [], label="original", **hollow, **marks), plt.Line2D([], [], label="linearized", **marks)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return _closed(figure)


def _order(rows: pd.DataFrame) -> list[int]:
    """The groups, largest first."""
    return rows.drop_duplicates("group").sort_values(["n_train", "group"], ascending=[False, True])["group"].tolist()


def _name_groups(ax: Axes, rows: pd.DataFrame, order: list[int]) -> None:
    names = rows.set_index("group")["group_name"]
    ax.set_yticks(range(len(order)), [names[group] for group in order], fontsize=9)
    ax.set_ylim(len(order) - 0.5, -0.5)


def _bar(ax: Axes, at: float, row: pd.Series, color: str, height: float, label: str | None = None) -> None:
    value, low, high = (100 * end for end in (row.accuracy, row.low, row.high))
    pale = {"facecolor": (*to_rgb(GREY), 0.35), "edgecolor": GREY} if color == GREY else {"color": color}
    ax.barh(at, value, height, label=label, linewidth=0.8, **pale)
    ax.plot([low, high], [at, at], color=GREY, linewidth=1.6, marker="|", markersize=4)


def _closed(figure: Figure) -> Figure:
    for ax in figure.axes:
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        ax.grid(visible=False, axis="y")
    plt.close(figure)
    return figure


def svg(figure: Figure, name: str, alt: str) -> str:
    """A figure as inline SVG: text stays text, grey takes the page's text colour, nothing names an address.

    `name` is put before every id, so that several figures fit on one page; `alt` is for those who do not see it.
    """
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", text[: (end := text.index(">"))]) + text[end:]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace(GREY, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
