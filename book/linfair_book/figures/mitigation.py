"""Figures of mitigation: the paper's Figs. 9 and 12 to 15, gain in and out of sample, and what each way costs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import GREY
from linfair.study.tables import over_seeds, units_of
from linfair_book import mitigation
from linfair_book.figures import shared
from linfair_book.figures.shared import BOTH, ROLES, budget_lines, dots, drawn, finished, in_order, line_with_interval
from linfair_book.tables import geometric

STEPS = (*mitigation.MUS, mitigation.BEYOND)
LOOK = {"line": "line", "across": "change against plain (points)", "rule": 0.0}
_SMALL = {"ha": "center", "va": "top", "fontsize": 8}


def change_chart(table: pd.DataFrame, *, ways: Sequence[str]) -> Figure:
    """Change of both roles against plain in points, a line per way, a panel per budget; diverged seeds are told."""
    fate = mitigation.lost_seeds(table).groupby("way")[["diverged", "n_seeds"]].sum().reindex(ways, fill_value=0)
    names = {}
    for way, lost, runs in fate.itertuples():
        names[way] = mitigation.label(way) + (f"\n({lost} of {runs} diverged)" if lost else "")
    found = in_order(mitigation.compared(table, ways=ways), way=names, budget=_budgets(table), group_name=ROLES)
    found["line"] = found["way"].map(names)
    found["panel"] = [f"{100 * budget:g} % ReLUs" for budget in found["budget"]]
    return dots(found, panel="panel", by="group_name", columns=3, **LOOK)


def gain_in_and_out(means: pd.DataFrame, *, ways: Sequence[str]) -> Figure:
    """Gain on the training images (open) and at test (filled) of `mitigation.in_and_out`, a panel per role."""
    looks = {}
    for role in ROLES:
        looks[f"{role}, train"] = {"role": role, "label": "training images", "markerfacecolor": "none"}
        looks[f"{role}, test_balanced"] = {"role": role, "label": "balanced test"}
    found = in_order(means, way=ways, group_name=ROLES, of=("train", "test_balanced"))
    found["line"] = found["way"].map(mitigation.label)
    found["look"] = found["group_name"] + ", " + found["of"]
    return dots(found, panel="group_name", by="look", looks=looks, **LOOK)


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
            budget_lines(ax, means[means["way"] == way], "role", BOTH, **look)
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
    panels = {"violation": ("violation", "test_balanced"), "all images,\nimbalanced": ("accuracy", "test")}
    whole = {}
    for title, (of, split) in panels.items():
        rows = mitigation.trade(table, against="plain", split=split)
        whole[title] = rows[(rows["of"] == of) & (rows["way"] != "control")].assign(group_name="all", panel=title)
    ways = whole["violation"].sort_values("mean")["way"]
    roles = mitigation.compared(table).query("budget == @mitigation.HEADLINE")
    found = pd.concat([roles.assign(panel="both roles"), *whole.values()])
    found = in_order(found, panel=["both roles", *panels], way=ways, group_name=[*ROLES, "all"]).dropna(subset=["mean"])
    found["line"] = found["way"].map(mitigation.label)
    looks = BOTH | {"all": {"role": "all", "label": None}}
    return dots(found, panel="panel", by="group_name", looks=looks, columns=3, **LOOK)


def _budgets(table: pd.DataFrame) -> list[float]:
    """The budgets of all rows, those of seeds that diverged too, the largest first."""
    return sorted(table.loc[table["arm"] != "original", "budget"].unique(), reverse=True)
