"""The report's figures in the house style, groups one below the other, and as SVG that takes the page's colours."""

import io
import re
from collections.abc import Mapping
from html import escape
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY, MARKERS, apart

WHY = {"gradient_norm": "gradient norm", "margin": "margin", "top_eigenvalue": "top Hessian eigenvalue"}
"""Quantities that are drawn for each group, in this order, where they were computed."""


def slopes(networks: Mapping[str, pd.DataFrame], worst: int) -> Figure:
    """Accuracy of every group from network to network, with the 95 % Wilson intervals of the group numbered `worst`."""
    of = {name: rows.set_index("group") for name, rows in networks.items()}
    ends = {name: 100 * rows[["accuracy", "low", "high"]].astype(float) for name, rows in of.items()}
    about = next(iter(of.values()))
    figure, ax = plt.subplots(figsize=(5.0, max(3.4, 1.2 + 0.19 * len(about))))
    at, values = range(len(ends)), pd.DataFrame({name: rows["accuracy"] for name, rows in ends.items()})
    for group in sorted(about.index, key=lambda one: one == worst):
        look = {"color": COLORS[role := about["role"][group]], "marker": MARKERS[role]}
        strong = {"linewidth": 2.4} if group == worst else {"linewidth": 1, "markersize": 4, "alpha": 0.75}
        ax.plot(at, values.loc[group], **look | strong)
    low, high = ([rows[end][worst] for rows in ends.values()] for end in ("low", "high"))
    ax.vlines(at, low, high, color=COLORS[about["role"][worst]], linewidth=1.2)
    least, most = max(0, min(values.min(axis=None), *low) - 2), min(100.5, max(values.max(axis=None), *high) + 2)
    last = values.iloc[:, -1].sort_values(kind="stable")
    line = 0.17 * (most - least) / (figure.get_figheight() - 0.5)  # of letters
    places = apart(last.tolist(), line, low=least + line / 2, high=most)
    for (group, value), y in zip(last.items(), places, strict=True):
        weight = "bold" if group == worst else "normal"
        ax.plot([at[-1], at[-1] + 0.12], [value, y], color=GREY, linewidth=0.6)
        ax.text(at[-1] + 0.15, y, str(about["group_name"][group])[:22], va="center", fontsize=9, fontweight=weight)
    ax.set_xticks(at, [fill(name, 16) for name in ends])
    ax.set(ylim=(least, most), ylabel="accuracy (%)")
    plt.close(figure)
    return figure


def why_dots(before: pd.DataFrame, after: pd.DataFrame) -> Figure:
    """What was computed of `WHY` for every group, a panel each, in the original (open) and the linearized network."""
    before, after = before.set_index("group"), after.set_index("group")
    columns = [column for column in WHY if before[column].notna().all() and after[column].notna().all()]
    order = before.sort_index().sort_values("n_train", ascending=False, kind="stable").index.tolist()  # largest first
    size = {"markersize": 6.5, "linestyle": ""}
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
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        ax.grid(visible=False, axis="y")
    marks = {"marker": "o", "color": GREY} | size
    handles = [plt.Line2D([], [], label="original", **hollow, **marks), plt.Line2D([], [], label="linearized", **marks)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
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
