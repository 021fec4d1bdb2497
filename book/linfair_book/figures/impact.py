"""Figures of the accuracy impact: the paper's Figs. 1, 5 and 6 from the rows of a study."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from linfair.plots.style import COLORS, GREY, MARKERS
from linfair.study.tables import by_role, drops, over_seeds, overall, units_of
from linfair_book.averages import role_accuracy
from linfair_book.figures.shared import ROLES, budget_axis, budget_lines, drawn, ends, finished, line_with_interval


def role_accuracy_bars(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Accuracy of majority and minority at every budget as bars, mean and 95 % t interval over seeds (Fig. 1)."""
    means = drawn(role_accuracy(table, ["arm", "budget", "group_name"], split=split))
    budgets = sorted(means["budget"].unique(), reverse=True)
    figure, ax = plt.subplots(figsize=(5.4, 3.4))
    positions, width = np.array(budget_axis(ax, budgets, units_of(table))), 0.38
    bars = {"ecolor": COLORS["control"], "elinewidth": 1.5, "capsize": 2.5}
    dashes = {"color": COLORS["control"], "linestyles": (0, (2, 1)), "linewidth": 2}
    for offset, role in zip((-width / 2, width / 2), ROLES, strict=True):
        rows = means[means["group_name"] == role]
        shown = rows[rows["arm"] != "control"].set_index("budget").loc[budgets]
        at, look = positions + offset, {"color": COLORS[role], "error_kw": bars, "label": role}
        ax.bar(at, shown["mean"], width, yerr=ends(shown), **look)
        control = rows[rows["arm"] == "control"].set_index("budget")["mean"].reindex(budgets)
        label = "100 % control" if role == "minority" and control.notna().any() else None
        ax.hlines(control, at - width / 2, at + width / 2, label=label, **dashes)
    ax.set_ylabel("accuracy (%)")
    ax.set_ylim(0, 105)
    return finished(figure, ax, ncols=3)


def relative_drop_lines(table: pd.DataFrame, *, split: str = "test_balanced") -> Figure:
    """Relative accuracy drop of majority and minority against the budget, with each one's control (Fig. 6)."""
    part = drops(by_role(table[table["split"] == split]))
    means = drawn(over_seeds(part, "relative_drop", ["arm", "budget", "group_name"]))
    budgets = sorted((b for b in means["budget"].unique() if b < 1), reverse=True)
    figure, ax = plt.subplots(figsize=(5.4, 3.4))
    positions = budget_axis(ax, budgets, units_of(table))
    look = {"color": COLORS["control"], "markersize": 4, "linestyle": "--", "linewidth": 1.2}
    for role in ROLES:
        rows = means[means["group_name"] == role]
        plain = rows[rows["arm"] == "plain"].set_index("budget").loc[budgets]
        line_with_interval(ax, positions, plain["mean"], plain["low"], plain["high"], role=role, label=role)
        control = rows[rows["arm"] == "control"].set_index("budget")["mean"]
        if len(control):
            label = f"100 % control, {role}"
            ax.plot(positions, control.loc[budgets], marker=MARKERS[role], label=label, **look)
    ax.axhline(0, color=COLORS["control"], linewidth=0.8)
    ax.set_ylabel("relative accuracy drop (%)")
    ax.legend(loc="upper left")
    return finished(figure)


def overall_accuracy(table: pd.DataFrame) -> Figure:
    """Accuracy of all test images together against the budget, a panel per test set (Fig. 5)."""
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 3.0), sharey=True, squeeze=False)
    for ax, split, title in zip(axes[0], ("test", "test_balanced"), ("imbalanced", "balanced"), strict=True):
        part = overall(table[table["split"] == split])
        means = over_seeds(part.assign(value=100 * part["accuracy"]), "value", ["arm", "budget"])
        means["arm"] = means["arm"].map({"control": "100 % control"}).fillna("linearized")
        budget_lines(ax, means, "arm", {"linearized": "all", "100 % control": "control"}, units=units_of(table))
        ax.set_title(f"{title} test")
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, -1].legend(loc="lower left")
    return finished(figure)


def fine_tuning_curve(table: pd.DataFrame) -> Figure:
    """Validation accuracy of both roles after each epoch of fine-tuning, linearized and in the control, one seed."""
    rows = table[table["stage"].isin(["plain", "control"])]
    rows = rows.assign(right=100 * rows["accuracy"] * rows["n"])
    sums = rows.groupby(["stage", "role", "epoch"])[["right", "n"]].sum()
    figure, ax = plt.subplots(figsize=(5.4, 3.0))
    for (stage, role), part in (sums["right"] / sums["n"]).groupby(level=["stage", "role"]):
        label = f"{role}, {'100 % control' if stage == 'control' else 'linearized'}"
        style = {"color": COLORS[role], "linestyle": "--" if stage == "control" else "-", "label": label}
        ax.plot(part.index.get_level_values("epoch"), part, marker=MARKERS[role], markersize=3, linewidth=1.2, **style)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epochs of fine-tuning")
    ax.set_ylabel("validation accuracy (%)")
    return finished(figure, ax)


def above_floor(numbers: pd.DataFrame) -> Figure:
    """How many times its floor each measured step takes, from the rows of `linfair_book.speed`; logarithmic."""
    values = numbers.set_index("key")["value"]
    figure, ax = plt.subplots(figsize=(5.4, 4.2))
    for place, (label, key, role) in enumerate(
        (
            ("base training, MLPs", "stage/base", "all"),
            ("mask path, MLPs", "stage/path", "all"),
            ("control, MLPs", "stage/control", "all"),
            ("fine-tuning, MLPs", "stage/finetune", "all"),
            ("fine-tuning, float32", "ladder/teacher's logits kept", "other"),
            ("fine-tuning, bf16", "ladder/bf16", "other"),
            ("GPU step, width 16", "gpu/width 16", "control"),
            ("GPU step, full width", "gpu/full width", "control"),
        )
    ):
        times = values[f"{key}/seconds"] / values[f"{key}/floor"]
        ax.barh(label, times, color=COLORS[role])
        said = f"{times:.2g}" if times < 100 else f"{times:.0f}"
        ax.annotate(said, (times, place), (4, 0), textcoords="offset points", va="center", color=GREY)
    ax.set(xscale="log", xlim=(1, 400), xlabel="times the floor")
    ax.grid(visible=False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.invert_yaxis()
    return finished(figure)
