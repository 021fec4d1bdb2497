"""Figures of why some groups lose more (the paper's 3, 4, 8, 14): single groups, or a role's mean group."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linfair.plots.style import COLORS, GREY, MARKERS
from linfair.study.tables import over_seeds, units_of
from linfair_book.estimator_bias import inflation
from linfair_book.figures import shared
from linfair_book.figures.shared import ROLES, budget_lines, drawn, ends, finished, plain_log
from linfair_book.predictors import PREDICTORS, converged
from linfair_book.tables import geometric


def _columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `column` (what stands on the x axis) and `size` (what stands on top), the largest group first."""
    first = rows.drop_duplicates(["seed", "group"])
    if (first.groupby("group")["role"].nunique() == 1).all():
        size = first.groupby("group_name", sort=False)["n_train"].mean()
        text = {name: f"{count:,.0f}" for name, count in size.items()}
        rows = rows.assign(column=rows["group_name"])
    else:
        size = first.groupby("role")["n_train"].mean()
        count = first.groupby(["role", "seed"]).size().groupby("role").mean()
        text = {role: f"{n:.0f} group{'s' * bool(n > 1)} of {size[role]:,.0f}" for role, n in count.items()}
        rows = rows.assign(column=rows["role"])
    rows = rows.assign(size=rows["column"].map(text), rank=rows["column"].map(size))
    return rows.sort_values("rank", ascending=False, kind="stable")


def eigenvalue_bars(table: pd.DataFrame) -> Figure:
    """Top Hessian eigenvalue of each group's training risk in the original network, group sizes on top (Fig. 4)."""
    rows = table[(table["arm"] == "original") & (table["split"] == "train")]
    rows = rows.assign(top_eigenvalue=converged(rows)).query("top_eigenvalue > 0")
    if rows.empty:
        return shared.only_words("no search for an eigenvalue converged")
    rows = _columns(rows)
    each = rows.groupby(["column", "seed"], sort=False, as_index=False)["top_eigenvalue"].mean()
    means = drawn(geometric(each.assign(top_eigenvalue=np.log(each["top_eigenvalue"])), "top_eigenvalue", ["column"]))
    figure, ax = plt.subplots(figsize=(5.4, 3.2))
    for number, (name, part) in enumerate(rows.groupby("column", sort=False)):
        shift = np.random.default_rng(0).uniform(-0.25, 0.25, len(part))
        role, one = part["role"].iloc[0], means[means["column"] == name]
        ax.scatter(number + shift, part["top_eigenvalue"], s=14, color=COLORS[role], alpha=0.7, linewidths=0)
        look = {"color": GREY, "marker": MARKERS[role], "elinewidth": 1.6, "capsize": 2.5}
        ax.errorbar([number], one["mean"], yerr=ends(one), **look)
        ax.text(number, 1.01, part["size"].iloc[0], transform=ax.get_xaxis_transform(), ha="center", fontsize=10)
    ax.set_xticks(range(len(means)), means["column"])
    plain_log(ax)
    ax.set_ylabel("top Hessian eigenvalue (train)")
    ax.set_title("training images", loc="left", fontsize=10, pad=18)
    return finished(figure)


def distance_and_accuracy(table: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """The three panels of Fig. 8: parameter distance against the budget; accuracy against gradient norm and margin."""
    figure, axes = plt.subplot_mosaic(
        [["distance", "distance"], ["gradient", "margin"]], figsize=(5.4, 5.6), height_ratios=[1, 1.2]
    )
    ax = axes["distance"]
    part = table[table["arm"] != "original"].drop_duplicates(["arm", "budget", "seed"])
    means = over_seeds(part.replace({"arm": {"control": "100 % control"}}), "relative_distance", ["arm", "budget"])
    budget_lines(ax, means, "arm", {"plain": "all", "100 % control": "control"}, units=units_of(table))
    ax.set_ylabel("distance /\noriginal's norm")
    ax.legend(loc="upper left")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
    lowest = rows[rows["budget"] == rows["budget"].min()]
    for name, column, label in (("gradient", "own_gradient_norm", "gradient norm"), ("margin", "own_margin", "margin")):
        ax = axes[name]
        for role in ROLES:
            one = lowest[lowest["role"] == role]
            look = {"color": COLORS[role], "marker": MARKERS[role], "alpha": 0.75, "linewidths": 0, "label": role}
            ax.scatter(one[column], 100 * one["accuracy"], s=18, **look)
        ax.set(xlabel=label, ylim=(-4, 104))
        ax.set_title(f"{100 * lowest['budget'].iloc[0]:g} % of the {units_of(table)}", fontsize=10)
    axes["gradient"].set_ylabel("accuracy (%)")
    axes["margin"].tick_params(labelleft=False)
    return finished(figure, axes["gradient"], where="lower")


def bias_curves(table: pd.DataFrame) -> Figure:
    """How many times too large the released estimators are, against the batch size, a panel per quantity."""
    found = inflation(table)
    quantities, sizes = list(found["quantity"].unique()), sorted(found["batch_size"].unique())
    figure, axes = plt.subplots(1, len(quantities), figsize=(5.4, 3.4), squeeze=False, sharey=True)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        part = found[found["quantity"] == quantity]
        for role in ROLES:
            for order, line in (("shuffled", "-"), ("stored", ":")):
                rows = part[(part["role"] == role) & (part["order"] == order)].set_index("batch_size").loc[sizes]
                look = {"color": COLORS[role], "marker": MARKERS[role], "linestyle": line, "markersize": 5}
                look |= {"elinewidth": 1.2, "capsize": 2, "label": f"{role}, {order}"}
                ax.errorbar(range(len(sizes)), rows["mean"], yerr=ends(rows), **look)
        ax.axhline(1, color=GREY, linewidth=1)
        ax.set_xticks(range(len(sizes)), [f"{size}" for size in sizes])
        ax.set(xlabel="batch size", title=quantity)
    plain_log(axes[0, 0])
    axes[0, 0].set(ylabel="estimate / exact value", yticks=[1, 2, 5, 10])
    return finished(figure, axes[0, 0])


def correlation_chart(found: pd.DataFrame) -> Figure:
    """Rank correlations of a loss with each predictor, towards the side that the paper expects, a panel per budget."""
    signs = {one.name: one.sign for one in PREDICTORS}
    looks = {"alone": {"role": "all", "label": "all groups"}}
    looks["given group size"] = {"role": "all", "label": "among groups of one size", "markerfacecolor": "none"}
    rows = found[found["statistic"].isin(looks) & found["mean"].notna()]
    rows = rows.assign(sign=rows["predictor"].map(signs), place=rows["predictor"].map(list(signs).index))
    rows = rows.sort_values(["budget", "place"], ascending=[False, True], kind="stable")
    ends = rows[["low", "high"]].mul(rows["sign"], axis=0)
    rows = rows.assign(mean=rows["mean"] * rows["sign"], low=ends.min(axis=1), high=ends.max(axis=1))
    rows["line"] = [f"{'large' if one.sign > 0 else 'small'} {one.predictor}" for one in rows.itertuples()]
    rows["panel"] = [f"{100 * budget:g} % kept" for budget in rows["budget"]]
    look = {
        "across": "rank correlation with the accuracy drop",
        "rule": 0.0,
        "xlim": (-1, 1),
        "xticks": (-0.5, 0.0, 0.5),
    }
    return shared.dots(rows, panel="panel", line="line", by="statistic", looks=looks, columns=3, **look)


def upsampling_lines(found: pd.DataFrame) -> Figure:
    """What happens to a minority group whose training images are repeated, beside the groups that are not."""
    levels, times = found[found["of"] == "level"], sorted(found["times"].unique())
    budgets = sorted(levels.loc[levels["quantity"] == "drop", "budget"].unique(), reverse=True)
    panels = [("gradient_norm", 1.0, "gradient norm,\noriginal network")]
    panels += [("drop", budget, f"accuracy drop at\n{100 * budget:g} % (points)") for budget in budgets]
    figure, axes = plt.subplots(1, len(panels), figsize=(5.4, 3.2), squeeze=False)
    kinds = {"upsampled": ("minority", "-", "repeated group"), "other minority": ("minority", ":", "other minority")}
    for ax, (quantity, budget, title) in zip(axes[0], panels, strict=True):
        part = levels[(levels["quantity"] == quantity) & (levels["budget"] == budget)]
        for what, (role, line, words) in (kinds | {"majority": ("majority", "-", "majority")}).items():
            rows = drawn(part[part["what"] == what]).set_index("times").loc[times]
            look = {"color": COLORS[role], "marker": MARKERS[role], "linestyle": line, "label": words}
            ax.errorbar(range(len(times)), rows["mean"], yerr=ends(rows), elinewidth=1.2, capsize=2.5, **look)
        ax.set_xticks(range(len(times)), [f"x{count}" for count in times], fontsize=9)
        ax.set_title(title, fontsize=10)
        ax.axhline(0, color=GREY, linewidth=0.8)
    for ax in axes[0, 2:]:
        ax.sharey(axes[0, 1])
        ax.tick_params(labelleft=False)
    return finished(figure, axes[0, 0], ncols=3, across="how often each training image of the group counts")
