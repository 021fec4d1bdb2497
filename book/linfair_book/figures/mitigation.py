"""Figures of mitigation: the paper's Figs. 9 and 12 to 15, gain in and out of sample, and accuracy against fairness."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from linfair.plots.style import COLORS, GREY, budget_axis, dots_with_intervals, drawn, line_with_interval
from linfair.study.tables import over_seeds
from linfair_book import mitigation
from linfair_book.trade import trade

ROLES = ("majority", "minority")
STEPS = (*mitigation.MUS, mitigation.BEYOND)


def change_chart(
    table: pd.DataFrame,
    *,
    ways: Sequence[str],
    budgets: Sequence[float] | None = None,
    column: str = "relative",
    split: str = "test_balanced",
) -> Figure:
    """Change of majority and minority against plain fine-tuning, a line per way, a panel per budget (Figs. 9, 12).

    Means with 95 % t intervals of differences within a seed. How many seeds diverged stands beside a way's name.

    Args:
        table: From `linfair_book.mitigation.compute`.
        ways: Which ways, from top to bottom.
        budgets: Which budgets; all by default.
        column: `relative`, Fig. 9's measure, negative for a gain; or `points`, positive for a gain.
        split: Which split.

    Returns:
        The figure.
    """
    found = drawn(mitigation.compared(table, split=split, column=column))
    budgets = sorted(budgets or _budgets(table), reverse=True)
    fate = mitigation.lost_seeds(table).groupby("way")[["diverged", "n_seeds"]].sum()
    names = []
    for way in ways:
        lost, runs = fate.loc[way] if way in fate.index else (0, 0)
        names.append(mitigation.label(way) + (f"\n({lost} of {runs} diverged)" if lost else ""))
    figure, axes = plt.subplots(
        1, len(budgets), figsize=(5.4, 1.3 + 0.34 * len(ways)), sharey=True, squeeze=False, sharex=False
    )
    y = np.arange(len(ways))[::-1]
    for ax, budget in zip(axes[0], budgets, strict=True):
        for offset, role in zip((0.14, -0.14), ROLES, strict=True):
            rows = found[(found["budget"] == budget) & (found["group_name"] == role)].set_index("way").reindex(ways)
            dots_with_intervals(ax, rows, y + offset, role, label=role)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_title(f"{100 * budget:g} % ReLUs")
        ax.set_yticks(y, names)
        ax.set_ylim(-0.6, len(ways) - 0.4)
        ax.grid(visible=True, axis="both")
    words = "relative change (%), negative: gain" if column == "relative" else "change (points), positive: gain"
    figure.supxlabel(words, color=GREY, fontsize=11)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure


def gain_in_and_out(table: pd.DataFrame, *, ways: Sequence[str], budget: float = mitigation.HEADLINE) -> Figure:
    """The minority's gain on its training images (open) and on the balanced test (filled), a line per way.

    Args:
        table: From `linfair_book.mitigation.compute`.
        ways: Which ways.
        budget: At which budget.

    Returns:
        The figure: a panel per role.
    """
    found = drawn(mitigation.in_and_out(table, budget=budget))
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 1.3 + 0.34 * len(ways)), sharey=True)
    y = np.arange(len(ways))[::-1]
    for ax, role in zip(axes, ROLES, strict=True):
        kinds = (("train", 0.14, "none", "training images"), ("test_balanced", -0.14, COLORS[role], "balanced test"))
        for of, offset, face, words in kinds:
            rows = found[(found["of"] == of) & (found["group_name"] == role)].set_index("way").reindex(ways)
            dots_with_intervals(ax, rows, y + offset, role, markerfacecolor=face, label=words)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_title(role)
        ax.set_yticks(y, [mitigation.label(way) for way in ways])
        ax.set_ylim(-0.6, len(ways) - 0.4)
        ax.grid(visible=True, axis="both")
    figure.supxlabel("change against plain (points)", color=GREY, fontsize=11)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure


def with_and_without(
    table: pd.DataFrame,
    columns: Sequence[tuple[str, str]],
    *,
    ways: tuple[str, str] = ("plain", "lagrangian"),
) -> Figure:
    """Quantities of the mean group of each role against the budget, without (left) and with a mitigation (right).

    Figs. 13 and 14. The first point is the original network, the same on both sides. Means over seeds with 95 % t
    intervals, those of gradient norms geometric.

    Args:
        table: From `linfair_book.mitigation.compute`.
        columns: A line of panels each: a key of `linfair_book.mitigation.QUANTITIES`, and the split it is measured on.
        ways: Left and right.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(
        len(columns), 2, figsize=(5.4, 0.8 + 2.2 * len(columns)), sharex=True, sharey="row", squeeze=False
    )
    for line, (column, split) in zip(axes, columns, strict=True):
        values = mitigation.diagnosed(table, column, split=split, ways=ways)
        log = column == "gradient_norm"
        if log:
            values["value"] = np.log(values["value"])
        if column == "accuracy":
            values["value"] *= 100
        means = drawn(over_seeds(values, "value", ["way", "budget", "role"]))
        if log:
            means[["mean", "low", "high"]] = np.exp(means[["mean", "low", "high"]])
        budgets = sorted(means["budget"].unique(), reverse=True)
        for ax, way in zip(line, ways, strict=True):
            positions = budget_axis(ax, budgets)
            for role in ROLES:
                rows = means[(means["way"] == way) & (means["role"] == role)].set_index("budget").reindex(budgets)
                line_with_interval(ax, positions, rows["mean"], rows["low"], rows["high"], role=role, label=role)
            if log:
                ax.set_yscale("log")
                ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                ax.yaxis.set_minor_formatter(NullFormatter())
            if ax not in axes[-1]:
                ax.set_xlabel("")
        words = "accuracy (%)" if column == "accuracy" else mitigation.QUANTITIES[column].replace(" / ", " /\n")
        where = {"test_balanced": "balanced test"}.get(split, split)
        line[0].set_ylabel(f"{words}\n({where})")
    for ax, way in zip(axes[0], ways, strict=True):
        ax.set_title("without mitigation" if way == "plain" else f"with {mitigation.label(way)}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure


def step_lines(table: pd.DataFrame, *, mus: Sequence[float] = STEPS, split: str = "test_balanced") -> Figure:
    """Change against plain for each mu of Algorithm 1, a panel per budget (Fig. 15), and how many seeds diverged.

    Args:
        table: From `linfair_book.mitigation.compute`.
        mus: Values of mu.
        split: Which split.

    Returns:
        The figure; 0 on the x axis is plain fine-tuning. Counts of diverged seeds stand on top where there are any.
    """
    ways = ["lagrangian" if mu == 0.001 else f"lagrangian(mu={mu!r})" for mu in mus]
    found = drawn(mitigation.compared(table, split=split))
    fate = mitigation.lost_seeds(table).set_index(["way", "budget"])
    budgets = sorted(_budgets(table), reverse=True)
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
    figure.supxlabel("mu", color=GREY, fontsize=11)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure


def _budgets(table: pd.DataFrame) -> list[float]:
    """The budgets of all rows, those of seeds that diverged too."""
    return [float(budget) for budget in table.loc[table["arm"] != "original", "budget"].unique()]


_SMALL = {"ha": "center", "va": "top", "fontsize": 8}


def pareto_picture(table: pd.DataFrame, *, budget: float = mitigation.HEADLINE, split: str = "test_balanced") -> Figure:
    """Accuracy against fairness violation of every way at one budget; up and to the left is better.

    The violation is the largest minus the smallest accuracy of a group; means over seeds, whose intervals
    `linfair_book.trade.trade` has. Triangles, joined by a line, are ways that no other one beats in both.

    Args:
        table: From `linfair_book.mitigation.compute`.
        budget: At which budget.
        split: Which split.

    Returns:
        The figure; numbers are those of the list beside it.
    """
    found = trade(table, budget=budget, split=split)
    found = found[found["way"] != "control"].sort_values("violation", ignore_index=True)
    figure, (ax, key) = plt.subplots(1, 2, figsize=(5.4, 4.2), width_ratios=[1.55, 1])
    key.set_axis_off()
    best = found[found["best"]]
    ax.plot(best["violation"], best["accuracy"], color=COLORS["all"], linewidth=1.2)
    for number, row in enumerate(found.itertuples()):
        kind = "all" if row.best else "control" if row.way in ("original", "plain") else "other"
        ax.plot(row.violation, row.accuracy, color=COLORS[kind], marker={"all": "^"}.get(kind, "o"), markersize=7)
        shift, side = ((5, 3), "left") if number % 2 else ((-5, 3), "right")
        ax.annotate(f"{number + 1}", (row.violation, row.accuracy), shift, **_NUMBER, ha=side)
        text = "original network" if row.way == "original" else mitigation.label(row.way)
        height = 1 - (number + 0.5) / max(len(found), 12)
        key.text(-0.12, height, f"{number + 1}", fontsize=8, ha="right", va="center", color=COLORS[kind])
        key.text(-0.06, height, text, fontsize=8, ha="left", va="center", color=COLORS[kind])
    ax.set_xlabel("fairness violation (points)")
    ax.set_ylabel(f"accuracy (%), {split.replace('_', ' ').replace('test balanced', 'balanced test')}")
    ax.grid(visible=True, axis="both")
    plt.close(figure)
    return figure


_NUMBER = {"textcoords": "offset points", "fontsize": 9}
