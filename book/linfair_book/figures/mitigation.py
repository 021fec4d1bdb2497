"""Figures of mitigation: the paper's Figs. 9 and 12 to 15, gain in and out of sample, and what each way costs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY
from linfair.study.tables import over_seeds, units_of
from linfair_book import mitigation
from linfair_book.figures import shared
from linfair_book.figures.shared import ROLES, budget_lines, dots_with_intervals, drawn, finished, line_with_interval
from linfair_book.tables import geometric

STEPS = (*mitigation.MUS, mitigation.BEYOND)
_SMALL = {"ha": "center", "va": "top", "fontsize": 8}


def change_chart(table: pd.DataFrame, *, ways: Sequence[str]) -> Figure:
    """Change of both roles against plain in points, a line per way, a panel per budget; diverged seeds are told."""
    found, budgets = drawn(mitigation.compared(table, ways=ways)), _budgets(table)
    fate = mitigation.lost_seeds(table).groupby("way")[["diverged", "n_seeds"]].sum()
    names = []
    for way in ways:
        lost, runs = fate.loc[way] if way in fate.index else (0, 0)
        names.append(mitigation.label(way) + (f"\n({lost} of {runs} diverged)" if lost else ""))
    figure, axes, y = _lines(len(budgets), names)
    for ax, budget in zip(axes, budgets, strict=True):
        for offset, role in zip((0.14, -0.14), ROLES, strict=True):
            rows = found[(found["budget"] == budget) & (found["group_name"] == role)].set_index("way").reindex(ways)
            dots_with_intervals(ax, rows, y + offset, role, label=role)
        ax.set_title(f"{100 * budget:g} % ReLUs")
    return finished(figure, axes[0], across="change against plain (points)")


def gain_in_and_out(means: pd.DataFrame, *, ways: Sequence[str]) -> Figure:
    """Gain on the training images (open) and at test (filled) of `mitigation.in_and_out`, a panel per role."""
    found = drawn(means)
    figure, axes, y = _lines(2, [mitigation.label(way) for way in ways])
    for ax, role in zip(axes, ROLES, strict=True):
        kinds = (("train", 0.14, "none", "training images"), ("test_balanced", -0.14, COLORS[role], "balanced test"))
        for of, offset, face, words in kinds:
            rows = found[(found["of"] == of) & (found["group_name"] == role)].set_index("way").reindex(ways)
            dots_with_intervals(ax, rows, y + offset, role, markerfacecolor=face, label=words)
        ax.set_title(role)
    return finished(figure, axes[1], across="change against plain (points)")


def levels(table: pd.DataFrame, columns: Sequence[tuple[str, str]], *, ways: Sequence[str]) -> Figure:
    """Quantities of each role's mean group against the budget: a row each with a plot a way, or a plot each."""
    one = len(ways) == 1
    shape = (1, len(columns)) if one else (len(columns), len(ways))
    look = {"sharex": True, "sharey": False if one else "row", "squeeze": False}
    figure, axes = plt.subplots(*shape, figsize=(5.4, 0.9 + 2.2 * shape[0]), **look)
    for number, (column, split) in enumerate(columns):
        line = axes[0, number : number + 1] if one else axes[number]
        values = mitigation.diagnosed(table, column, split=split, ways=ways)
        log = column == "gradient_norm"
        values["value"] = np.log(values["value"]) if log else values["value"] * (100 if column == "accuracy" else 1)
        means = (geometric if log else over_seeds)(values, "value", ["way", "budget", "role"])
        look = {"units": units_of(table), "budgets": means["budget"]}
        for ax, way in zip(line, ways, strict=True):
            budget_lines(ax, means[means["way"] == way], "role", dict(zip(ROLES, ROLES, strict=True)), **look)
            if log:
                shared.plain_log(ax)
            ax.set_xlabel(ax.get_xlabel() if ax in axes[-1] else "")
            if number == 0 and not one:
                ax.set_title("without mitigation" if way == "plain" else f"with {mitigation.label(way)}")
        words = "accuracy (%)" if column == "accuracy" else column.replace("_", " ")
        line[0].set_ylabel(f"{words}\n({split.replace('_', ' ').replace('test balanced', 'balanced test')})")
    return finished(figure, axes[0, 0])


def step_lines(table: pd.DataFrame, *, mus: Sequence[float] = STEPS) -> Figure:
    """Change against plain for each mu of Algorithm 1, a panel per budget (Fig. 15); on top, seeds that diverged."""
    ways = [mitigation.of_mu(mu) for mu in mus]
    found, budgets = drawn(mitigation.compared(table, ways=ways)), _budgets(table)
    fate = mitigation.lost_seeds(table).set_index(["way", "budget"])
    figure, axes = plt.subplots(1, len(budgets), figsize=(5.4, 3.2), sharey=True, squeeze=False)
    positions = np.arange(1, len(mus) + 1)
    for ax, budget in zip(axes[0], budgets, strict=True):
        for role in ROLES:
            rows = found[(found["budget"] == budget) & (found["group_name"] == role)].set_index("way").reindex(ways)
            line = {key: np.concatenate([[0.0], rows[key]]) for key in ("mean", "low", "high")}
            line_with_interval(ax, np.arange(len(mus) + 1), **line, role=role, label=role)
        for position, way in zip(positions, ways, strict=True):
            lost, runs = fate.loc[(way, budget)] if (way, budget) in fate.index else (0, 0)
            if lost:
                ax.text(position, 0.98, f"{lost}/{runs}\nlost", transform=ax.get_xaxis_transform(), **_SMALL)
        ax.axhline(0, color=GREY, linewidth=1)
        ax.set_xticks([0, *positions], ["0", *(f"{mu:g}" for mu in mus)], rotation=60)
        ax.set_title(f"{100 * budget:g} % ReLUs")
    if (fate["diverged"] > 0).any():
        low, high = axes[0, 0].get_ylim()
        axes[0, 0].set_ylim(low, high + 0.18 * (high - low))
    axes[0, 0].set_ylabel("change against plain\n(points)")
    return finished(figure, axes[0, 0], across="mu")


def trade_chart(table: pd.DataFrame) -> Figure:
    """Change against plain by way, the fairest first: both roles, fairness violation, all images of the own test."""
    roles = drawn(mitigation.compared(table))
    roles = roles[roles["budget"] == mitigation.HEADLINE].rename(columns={"group_name": "of"})
    splits = ("test_balanced", "test")
    violation, whole = (drawn(mitigation.trade(table, against="plain", split=split)) for split in splits)
    violation, whole = violation[violation["of"] == "violation"], whole[whole["of"] == "accuracy"]
    ways = [way for way in violation.sort_values("mean")["way"] if way != "control"]
    figure, axes, y = _lines(3, [mitigation.label(way) for way in ways])
    for role, shift in zip(ROLES, (0.14, -0.14), strict=True):
        rows = roles[roles["of"] == role].set_index("way").reindex(ways)
        dots_with_intervals(axes[0], rows, y + shift, role)
    for ax, rows in zip(axes[1:], (violation, whole), strict=True):
        dots_with_intervals(ax, rows.set_index("way").reindex(ways), y, "all", label=None)
    for ax, title in zip(axes, ("both roles", "violation", "all images,\nimbalanced"), strict=True):
        ax.set_title(title, fontsize=10)
    return finished(figure, axes[0], across="change against plain (points)")


def _lines(panels: int, names: Sequence[str]) -> tuple[Figure, np.ndarray, np.ndarray]:
    """Panels side by side with a line per name and a line at 0: figure, axes, heights of the names."""
    figure, axes = plt.subplots(
        1, panels, figsize=(5.4, 1.3 + 0.34 * len(names)), sharey=True, sharex=True, squeeze=False
    )
    y = np.arange(len(names))[::-1]
    for ax in axes[0]:
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_yticks(y, names)
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.grid(visible=True, axis="both")
    return figure, axes[0], y


def _budgets(table: pd.DataFrame) -> list[float]:
    """The budgets of all rows, those of seeds that diverged too, the largest first."""
    return sorted(table.loc[table["arm"] != "original", "budget"].unique(), reverse=True)
