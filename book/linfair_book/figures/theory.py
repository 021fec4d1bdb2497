"""Figures of the theory page: one for each statement, drawn from the tables and records of `linfair.theory`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from linfair.plots.style import COLORS, GREY, MARKERS
from linfair.theory.pieces import pieces
from linfair_book.figures.shared import budget_lines, dots, finished

LINES = [(COLORS["all"], "^"), (COLORS["other"], "D"), ("#9467BD", "P"), ("#B5651D", "v"), ("#56811F", "X")]
LINES += [("#2A8C9E", "*")]  # colour and marker of things that are no groups, in their order


def approximation_rates(table: pd.DataFrame) -> Figure:
    """Error against the number of segments by function (`rate_table`); dashed for equally spaced knots of the root."""
    figure, ax = plt.subplots(figsize=(5.0, 3.6))
    for (color, marker), (key, part) in zip(LINES, table.groupby("function", sort=False), strict=False):
        ax.loglog(part["n"], part["error"], color=color, marker=marker, markersize=4, label=f"${part['name'].iloc[0]}$")
        if key == "root":
            ax.loglog(part["n"], part["even"], color=color, linestyle="--", label=f"${part['name'].iloc[0]}$, even")
    n = np.sort(table["n"].unique())
    ax.loglog(n, 0.5 * table["error"].min() * (n.max() / n) ** 2.0, color=GREY, linestyle=":", label="$n^{-2}$")
    ax.set(xlabel="segments n", ylabel="largest error")
    ax.set_xticks(n, [str(count) for count in n])
    ax.minorticks_off()
    figure.legend(loc="outside right upper")
    return finished(figure)


def two_units(networks: Sequence[nn.Module], titles: Sequence[str], *, reach: float = 3.0) -> Figure:
    """Networks with one hidden layer of two units: what each unit adds, and their sum (Fig. 10)."""
    figure, axes = plt.subplots(1, len(networks), figsize=(5.4, 3.2), sharey=True, squeeze=False)
    x = np.linspace(-reach, reach, 601)
    for ax, network, title in zip(axes[0], networks, titles, strict=True):
        for unit, color in enumerate((COLORS["other"], "#9467BD")):
            out = network[2].weight[0].detach().clone()
            out[1 - unit] = 0
            alone = nn.Sequential(*network[:2], nn.Linear(2, 1, bias=False, dtype=out.dtype))
            alone[2].weight.data[0] = out
            ax.plot(x, pieces(alone)(x), color=color, linestyle="--", linewidth=1.5, label=f"unit {unit + 1}")
        whole = pieces(network)
        ax.plot(x, whole(x), color=COLORS["all"], label="sum")
        breaks = np.array([float(b) for b in whole.breaks])
        ax.plot(breaks, whole(breaks), color=COLORS["all"], linestyle="", marker="^")
        ax.set(title=f"{title}\n{whole.count} pieces", xlabel="x")
    return finished(figure, axes[0, 0], ncols=3)


def piece_counts(table: pd.DataFrame) -> Figure:
    """Pieces of random networks (`counts_of_random_networks`) against the share of ReLUs kept, by architecture."""
    names = table["widths"].unique()
    figure, axes = plt.subplots(1, len(names), figsize=(5.4, 3.4), sharey=True, sharex=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        by_share = table[table["widths"] == name].groupby("share")
        x = 100 * np.array(sorted(by_share.groups))
        counts = by_share["pieces"]
        ax.fill_between(x, counts.min(), counts.max(), color=COLORS["all"], alpha=0.25, linewidth=0)
        ax.semilogy(x, counts.mean(), color=COLORS["all"], marker="o", label="pieces")
        ax.semilogy(x, by_share["bound_kept"].mean(), color=COLORS["other"], marker="D", label="product of (1 + kept)")
        ax.semilogy(x, by_share["bound"].mean(), color=GREY, linestyle="--", label="printed bound")
        ax.set(title=f"layers {name}", xlabel="ReLUs kept (%)", xticks=(0, 50, 100))
    axes[0, 0].invert_xaxis()  # shared
    axes[0, 0].set_ylabel("linear pieces")
    return finished(figure, axes[0, 0], ncols=3)


def pieces_of_trained(table: pd.DataFrame) -> Figure:
    """Pieces on segments between inputs (`line_table`) against the share of ReLUs kept: mean, 10 to 90 % of them."""
    figure, ax = plt.subplots(figsize=(5.0, 3.0))
    by_budget = table.groupby("budget")["pieces"]
    x = 100 * np.array(sorted(by_budget.groups))
    low, high = by_budget.quantile(0.1), by_budget.quantile(0.9)
    ax.fill_between(x, low, high, color=COLORS["all"], alpha=0.25, linewidth=0)
    ax.plot(x, by_budget.mean(), color=COLORS["all"], marker="o")
    ax.set(xlabel="ReLUs kept (%)", ylabel="pieces on a segment", ylim=(0, None))
    ax.invert_xaxis()
    return finished(figure)


def excess_shares(shares: pd.DataFrame) -> Figure:
    """How often R(a) >= 0 against the ReLUs kept, by role, and how often no group gains (`loss_shares`)."""
    splits = shares["split"].unique()
    figure, axes = plt.subplots(1, len(splits), figsize=(5.4, 3.2), sharey=True, squeeze=False)
    looks = {"majority": "majority", "minority": "minority", "no group gains": "all"}
    percent = {name: 100 * shares[name] for name in ("mean", "low", "high")}
    shares = shares.assign(**percent, n_seeds=shares["n"])
    shares = shares.replace({"who": {"all": "no group gains"}})
    for ax, split in zip(axes[0], splits, strict=True):
        budget_lines(ax, shares[shares["split"] == split], "who", looks)
        ax.set(title=split, ylim=(-4, 104))
    axes[0, 0].set_ylabel("share with R(a) ≥ 0 (%)")
    return finished(figure, axes[0, 0], ncols=3)


def excess_bounds(table: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Right side of Theorem 4.4 (`bound_table`) against R(a) of groups that lose, by reading; 0 cannot be drawn."""
    losing = table[(table["excess"] > 0) & (table["bound"] > 0)]
    figure, ax = plt.subplots(figsize=(5.0, 4.0))
    for (color, marker), (key, name) in zip(LINES, names.items(), strict=False):
        part = losing.loc[losing["variant"] == key, ["excess", "bound"]]
        look = {"color": color, "markersize": 4, "alpha": 0.7, "markeredgewidth": 0}
        ax.loglog(*part.to_numpy().T, marker, label=name, **look)
    ends = [losing["excess"].min(), losing["excess"].max()]
    ax.plot(ends, ends, color=GREY, linestyle="--", label="equal")
    ax.set(xlabel="R(a), nats", ylabel="right side")
    return finished(figure, ax)


def remainder_orders(steps: pd.DataFrame) -> Figure:
    """Size of the remainder (`linfair_book.propositions.Step`) against the step, by group, beside orders 1 and 3."""
    figure, ax = plt.subplots(figsize=(5.0, 3.4))
    for _, part in steps.groupby("group"):
        ax.loglog(part["t"], part["remainder"].abs(), color=COLORS["all"], marker="o", markersize=3, linewidth=1)
    t = np.sort(steps["t"].unique())
    top = steps.loc[steps["t"] == t.max(), "remainder"].abs().median()
    for order, dashes in ((1, ":"), (3, "--")):
        ax.loglog(t, top * (t / t.max()) ** order, color=GREY, linestyle=dashes, label=f"order {order}")
    ax.set(xlabel="part t of the way", ylabel="|remainder|, nats")
    ax.legend()
    return finished(figure)


def hessian_violations(table: pd.DataFrame) -> Figure:
    """Share of networks that break each reading of Prop. 4.5 (`violations`), with Wilson intervals."""
    shares = {name: 100 * table[of] for name, of in (("mean", "share"), ("low", "low"), ("high", "high"))}
    look = {"across": "networks that break it (%)", "xlim": (-3, 103), "looks": {"all": {"role": "all", "label": None}}}
    return dots(table.assign(**shares, panel="", who="all"), panel="panel", line="reading", by="who", **look)


def gradient_ratios(table: pd.DataFrame) -> Figure:
    """Smaller over larger group's gradient norm by case (`stationarity_table`), measured and as App. A.1 has it."""
    names = [row.variant if np.isnan(row.setting) else f"{row.variant}, {row.setting:g}" for row in table.itertuples()]
    figure, ax = plt.subplots(figsize=(5.4, 0.3 * len(table) + 1.2))
    y = np.arange(len(table))[::-1]
    applies = table["applies"].to_numpy(dtype=bool)
    lowest = 0.1  # what is below stands here, as an arrow to the left
    for chosen, role, name in ((applies, "all", "assumptions hold"), (~applies, "other", "one does not hold")):
        ratio = table["ratio"].to_numpy()[chosen]
        inside = ratio >= lowest
        ax.plot(ratio[inside], y[chosen][inside], MARKERS[role], color=COLORS[role], label=name)
        ax.plot(np.full((~inside).sum(), lowest), y[chosen][~inside], "<", color=COLORS[role])
    ax.plot(table["predicted"], y, "|", color=GREY, markersize=13, markeredgewidth=2.5, label="predicted", zorder=1)
    ax.set_xscale("log")
    ax.set_yticks(y, names)
    ax.axvline(1, color=GREY, linestyle=":", linewidth=1)
    ax.set_xlabel("gradient norm, smaller group / larger group")
    ax.grid(axis="x")
    figure.legend(loc="outside upper center", ncols=3)
    return finished(figure)
