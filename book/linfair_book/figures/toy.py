"""Figures of the toy study: the paper's Fig. 2."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY, MARKERS, apart
from linfair_book.figures.shared import BOTH, ROLES, budget_lines, finished
from linfair_book.toy import ToyStudy


def toy_boundaries(study: ToyStudy, seed: int, budgets: Sequence[float], *, resolution: int = 240) -> Figure:
    """The networks of one seed at several budgets: training points, true boundary, learned boundary."""
    figure, axes = plt.subplots(1, len(budgets), figsize=(5.0, 3.3), sharex=True, sharey=True, squeeze=False)
    train = study.data[seed].splits["train"]
    edge = np.linspace(-1, 1, resolution)
    for ax, budget in zip(axes[0], budgets, strict=True):
        share = study.minority_probability(seed, budget, edge)
        colors = [COLORS[role] for role in ROLES]
        ax.contourf(edge, edge, share, levels=[0, 0.5, 1], colors=colors, alpha=0.16)
        for group, role in enumerate(ROLES):
            points = train.x[train.a == group].cpu()
            ax.scatter(*points.T, s=5, marker=MARKERS[role], color=COLORS[role], linewidths=0, alpha=0.75)
        ax.contour(edge, edge, share, levels=[0.5], colors=[GREY], linewidths=2.2)
        ax.plot(edge, study.boundary(edge), color=GREY, linestyle=":", linewidth=1.8)
        right = study.accuracy(seed, budget)
        ax.set_title(f"{100 * budget:g} % ReLUs\n" + "\n".join(f"{role} {100 * right[role]:.1f} %" for role in ROLES))
        ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        ax.grid(False)
    return finished(figure)


def toy_accuracy(summary: pd.DataFrame, *, names: tuple[str, str] = ROLES) -> Figure:
    """Accuracy of both groups against the ReLU budget (`toy.summarise`), mean and 95 % t interval over seeds."""
    figure, ax = plt.subplots()
    means = summary[summary["split"] == "test_balanced"].rename(columns={"accuracy": "mean", "seeds": "n_seeds"})
    budget_lines(ax, means, "group", BOTH)
    lines = means.sort_values("budget", ascending=False).groupby("group")["mean"]
    ax.axhline(lines.first()["minority"], color=COLORS["control"], linestyle="--", linewidth=1.2)
    ax.set_ylabel("accuracy (%)")
    ax.set_ylim(min(50, ax.get_ylim()[0]), 101)  # one scale for figures that are compared; 50 is guessing
    bottom, top = ax.get_ylim()
    heights = apart(lines.last()[list(ROLES)].tolist(), 0.08 * (top - bottom))
    for role, name, y in zip(ROLES, names, heights, strict=True):
        look = {"va": "center", "color": COLORS[role], "fontweight": "bold", "annotation_clip": False}
        ax.annotate(name, (means["budget"].nunique() - 1, y), xytext=(8, 0), textcoords="offset points", **look)
    return finished(figure)
