"""Figures of notebook 09: what one private answer costs, beside whom a cheaper one leaves behind."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from linfair.cost import PRICES, operations, predicted
from linfair.models import build
from linfair.study.tables import drops, over_seeds, overall
from linfair_book.figures.shared import drawn, line_with_interval

_calls = cache(lambda name: operations(build(name, (3, 32, 32), 10), (3, 32, 32)))


def answers(
    name: str, shares: Sequence[float], protocol: str, *, bandwidth: float = 1e9, rtt: float = 0.0
) -> pd.DataFrame:
    """One private answer of a network at full width on a 3x32x32 image, at shares of its ReLUs, as predicted."""
    rows = []
    for share in shares:
        calls = [
            replace(one, scalars=share * one.scalars, comparisons=share * one.scalars) if one.kind == "ReLU" else one
            for one in _calls(name)
            if share or one.kind != "ReLU"
        ]
        found = predicted(calls, (), protocol, bandwidth=bandwidth, rtt=rtt)
        relus = found.parts.get("ReLU", (0, 0, 0))
        seconds = {"relu_seconds": relus[2], "linear_seconds": found.compute_seconds - relus[2]}
        seconds |= {"transfer_seconds": found.transfer_seconds, "waiting_seconds": found.waiting_seconds}
        sent = {"online_bytes": found.bytes, "relu_bytes": relus[0], "rounds": found.rounds}
        about = {"network": name, "protocol": protocol, "budget": share, "online_seconds": found.seconds}
        rows.append(about | seconds | sent)
    return pd.DataFrame(rows)


def law(protocol: str, kind: str) -> str:
    """Bytes of one of 1,000 scalars (or comparisons) in a call, and the rounds of the call, in words."""
    if (found := PRICES[protocol].get(kind)) is None:
        return "not measured"
    amounts = {"scalars": 1.0, "comparisons": 1.0, "calls": 1e-3}
    sent = sum(price * amounts[of] for of, price in found["bytes"].items())
    return f"{sent:,.4g} B, {found['rounds']:.0f} rounds"


def cost_and_accuracy(
    table: pd.DataFrame,
    *,
    protocol: str = "delphi",
    bandwidth: float = 1e9,
    rtt: float = 0.0,
    split: str = "test_balanced",
) -> pd.DataFrame:
    """Accuracy of a study's networks beside what ResNet18 would cost at the same share of ReLUs, over such a link."""
    part = table[(table["split"] == split) & table["arm"].isin(["original", "plain"])]
    part = part.assign(selection=part["selection"] if "selection" in part else part["method"])
    frames, by = [], ["selection", "budget", "of"]
    for selection in part.loc[part["arm"] == "plain", "selection"].unique():
        own = part[(part["arm"] == "original") | (part["selection"] == selection)].assign(selection=selection)
        own = own.drop_duplicates(["budget", "seed", "group"]).reset_index(drop=True)
        worst = own.loc[own.groupby(["budget", "seed"])["accuracy"].idxmin()].assign(group_name="worst")
        both = drops(pd.concat([overall(own), worst])).rename(columns={"group_name": "of"})
        both["value"] = 100 * both["accuracy"]
        lost = over_seeds(both, "drop", by).rename(columns={"mean": "drop", "low": "drop_low", "high": "drop_high"})
        means = over_seeds(both, "value", by).merge(lost.drop(columns="n_seeds"), on=by)
        units = own.loc[own["arm"] == "original", "kept"].max()
        frames.append(means.assign(share=means["budget"].map(own.groupby("budget")["kept"].mean() / units)))
    found = pd.concat(frames, ignore_index=True)
    costs = answers("resnet18", found["share"], protocol, bandwidth=bandwidth, rtt=rtt)
    return found.assign(**costs[["online_seconds", "online_bytes"]])


def price_of_points(rows: pd.DataFrame) -> pd.DataFrame:
    """What a point of worst-group accuracy costs more: seconds and MB, from each budget to the next larger one."""
    line = rows[rows["of"] == "worst"].sort_values("budget")
    step = line[["mean", "online_seconds", "online_bytes"]].diff().set_axis(["points", "seconds", "MB"], axis=1)
    step["MB"] /= 1e6
    pairs = [f"{100 * low:g} to {100 * high:g}" for low, high in pairwise(line["budget"])]
    found = step.iloc[1:].assign(kept=pairs)
    gained = found["points"].where(found["points"] > 0)  # nothing was bought where nothing was gained
    return found.assign(seconds_a_point=found["seconds"] / gained, mb_a_point=found["MB"] / gained)


def cost_against_accuracy(rows: pd.DataFrame, *, names: Sequence[str] | None = None) -> Figure:
    """Accuracy of all and of the worst group against seconds (below) and megabytes (above) of one private answer."""
    names = list(names or rows["selection"].unique())
    ends = rows.sort_values("online_seconds").iloc[[0, -1]]
    (s0, s1), (b0, b1) = ends["online_seconds"], ends["online_bytes"] / 1e6
    slope = (b1 - b0) / (s1 - s0)  # of bytes in seconds: both follow the count
    room = 0.1 * (s1 - s0)
    figure, axes = plt.subplots(1, len(names), figsize=(5.4, 3.7), sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        for of, label, role in (("all", "all test images", "all"), ("worst", "worst group", "minority")):
            line = drawn(rows[(rows["selection"] == name) & (rows["of"] == of)].sort_values("online_seconds"))
            x = line["online_seconds"]
            line_with_interval(ax, x, line["mean"], line["low"], line["high"], role=role, label=label)
            for row in line.itertuples() if of == "all" else ():
                text, place = f"{100 * row.share:.0f}" + " %" * (row.share == 1), (row.online_seconds, row.high)
                ax.annotate(text, place, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=9)
        ax.set_ylim(0, 109)
        ax.set_xlim(0 if s0 < s1 / 2 else s0 - room, s1 + room)
        ax.set_xlabel("seconds per answer" + " (← faster)" * (len(names) == 1))
        top = ax.secondary_xaxis("top", functions=(lambda s: b0 + (s - s0) * slope, lambda b: s0 + (b - b0) / slope))
        top.set_xlabel("MB per answer")
        top.spines["top"].set_visible(True)
        if len(names) > 1:
            ax.text(0.97, 0.03, name, transform=ax.transAxes, ha="right", fontweight="bold")
    axes[0, 0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    plt.close(figure)
    return figure
