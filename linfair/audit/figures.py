"""The report's figures in the house style, groups one below the other, and as SVG that takes the page's colours."""

import io
import re
from collections.abc import Mapping
from html import escape

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from linfair.mitigation import PLAIN
from linfair.plots.style import COLORS, GREY, MARKERS

WHY = {"gradient_norm": "gradient norm", "margin": "margin", "top_eigenvalue": "top Hessian eigenvalue"}
"""Quantities that are drawn for each group, in this order, where they were computed."""


def accuracy_bars(table: pd.DataFrame) -> Figure:
    """Accuracy of every group, the original on top and a bar per budget below it, with 95 % Wilson intervals."""
    shown = table[table["arm"].isin(("original", PLAIN))].sort_values("budget", ascending=False, kind="stable")
    networks = {f"{100 * budget:g} %": rows for budget, rows in shown.groupby("budget", sort=False)}
    return _bars(networks, "share kept")


def repair_bars(before: pd.DataFrame, after: pd.DataFrame) -> Figure:
    """Accuracy of every group with plain fine-tuning and with the chosen repair, with 95 % Wilson intervals."""
    return _bars({PLAIN: before, "repair": after}, "fine-tuning")


def _bars(networks: Mapping[str, pd.DataFrame], label: str) -> Figure:
    """A title per group and a bar per network below it, the first in grey."""
    networks = {name: rows.set_index("group") for name, rows in networks.items()}
    first, step = next(iter(networks.values())), len(networks) + 1.6
    order, ticks = _order(first), {}
    figure, ax = plt.subplots(figsize=(5.0, 0.5 + 0.165 * step * len(order)))
    for number, group in enumerate(order):
        about = first.loc[group]
        title = f"{about.group_name} · {about.role}, {about.n_train:,} in training, {about.n:,} tested"
        ax.text(0, number * step + 0.3, title, fontweight="bold", va="center", fontsize=10)
        for place, (name, rows) in enumerate(networks.items()):
            at, one = number * step + 1.25 + place, 100 * rows.loc[group, ["accuracy", "low", "high"]].astype(float)
            color = {"color": COLORS[about.role]} if place else {"facecolor": (*to_rgb(GREY), 0.35), "edgecolor": GREY}
            ax.barh(at, one.accuracy, 0.82, linewidth=0.8, **color)
            ax.plot([one.low, one.high], [at, at], color=GREY, linewidth=1.6, marker="|", markersize=4)
            ticks[at] = name
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8.5)
    ax.set_ylim(len(order) * step - 0.3, -0.6)
    ax.set(xlim=(0, 100), xlabel="accuracy (%)", ylabel=label)
    return _closed(figure)


def why_dots(before: pd.DataFrame, after: pd.DataFrame) -> Figure:
    """What was computed of `WHY` for every group, a panel each, in the original (open) and the linearized network."""
    before, after = before.set_index("group"), after.set_index("group")
    columns = [column for column in WHY if before[column].notna().all() and after[column].notna().all()]
    order, size = _order(before), {"markersize": 6.5, "linestyle": ""}
    height = len(columns) * (0.75 + 0.24 * len(order)) + 0.4
    figure, axes = plt.subplots(len(columns), 1, figsize=(5.0, height), squeeze=False)
    hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5}
    for ax, column in zip(axes[:, 0], columns, strict=True):
        values = pd.DataFrame([before[column], after[column]])
        for number, group in enumerate(order):
            ends, role = values[group].tolist(), before["role"][group]
            look = size | {"marker": MARKERS[role], "color": COLORS[role]}
            ax.plot(ends, [number, number], color=GREY, linewidth=1)
            ax.plot(ends[:1], [number], **hollow, **look)
            ax.plot(ends[1:], [number], **look)
        least, most = values.min(axis=None), values.max(axis=None)
        ax.set_xscale("log" if least > 0 and most > 50 * least else "linear")
        ax.set_title(WHY[column], loc="left")
        ax.set_yticks(range(len(order)), before["group_name"][order], fontsize=9)
        ax.set_ylim(len(order) - 0.5, -0.5)
    marks = {"marker": "o", "color": GREY} | size
    handles = [plt.Line2D([], [], label="original", **hollow, **marks), plt.Line2D([], [], label="linearized", **marks)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return _closed(figure)


def _order(rows: pd.DataFrame) -> list[int]:
    """The groups, largest first."""
    return rows.sort_index().sort_values("n_train", ascending=False, kind="stable").index.tolist()


def _closed(figure: Figure) -> Figure:
    for ax in figure.axes:
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        ax.grid(visible=False, axis="y")
    plt.close(figure)
    return figure


def svg(figure: Figure, name: str, alt: str) -> str:
    """A figure as inline SVG: text stays text, grey is the page's text colour; every id starts with `name`."""
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), io.StringIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", text[: (end := text.index(">"))]) + text[end:]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace(GREY, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
