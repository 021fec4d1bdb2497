"""Rows and explorer of notebook 09: what one private answer costs, beside whom a cheaper one leaves behind."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import isnan

import pandas as pd

from linfair import plots
from linfair.cost import PRICES, operations, predicted
from linfair.models import build
from linfair.study.tables import drops, over_seeds, overall
from linfair_book.explorer.host import StaticExplorer
from linfair_book.figures.shared import drawn
from linfair_book.tables import committed

STUDIES = {
    "thin ResNet18, faces by age": ("utkface_age_thin", "snl", "test"),
    "thin ResNet18, faces by race": ("utkface_race_thin", "snl", "test"),
    "thin ResNet18, digits": ("digits_resnet18_deepreduce", "snl mask", "test_balanced"),
    "MLP, digits": ("digits_mlp_snl", "snl", "test_balanced"),
}
"""Name -> committed table, what chose its ReLUs, and the split."""
NAMES = {"semi2k": "SEMI2K", "cheetah": "Cheetah", "aby3": "ABY3", "delphi": "Delphi"}
PROTOCOLS = NAMES | {"aby3": "ABY3, three parties", "delphi": "Delphi, published"}
BANDWIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
ROUND_TRIPS = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 300)


@cache
def _calls(name: str, width: int, shape: tuple[int, ...], classes: int) -> tuple:
    return operations(build(name, shape, classes, width=width or None), shape)


def answers(
    name: str,
    shares: Iterable[float],
    protocol: str,
    *,
    width: int = 0,
    shape: tuple[int, ...] = (3, 32, 32),
    classes: int = 10,
    **link: float,
) -> pd.DataFrame:
    """One private answer of a network at shares of its ReLUs, as predicted; every layer keeps its share."""
    rows = []
    for share in shares:
        calls = [
            replace(one, scalars=share * one.scalars, comparisons=share * one.scalars) if one.kind == "ReLU" else one
            for one in _calls(name, width, shape, classes)
            if share or one.kind != "ReLU"
        ]
        found = predicted(calls, (), protocol, **link)
        relus = found.parts.get("ReLU", (0, 0, 0))
        seconds = {"relu_seconds": relus[2], "linear_seconds": found.compute_seconds - relus[2]}
        seconds |= {"transfer_seconds": found.transfer_seconds, "waiting_seconds": found.waiting_seconds}
        sent = {"online_bytes": found.bytes, "relu_bytes": relus[0], "rounds": found.rounds}
        about = {"network": name, "protocol": protocol, "budget": share, "online_seconds": found.seconds}
        rows.append(about | seconds | sent | {"compute_seconds": found.compute_seconds})
    return pd.DataFrame(rows)


def law(protocol: str, kind: str) -> str:
    """Bytes of one of 1,000 scalars (or comparisons) in a call, and the rounds of the call, in words."""
    if (found := PRICES[protocol].get(kind)) is None:
        return "not measured"
    amounts = {"scalars": 1.0, "comparisons": 1.0, "calls": 1e-3}
    sent = sum(price * amounts[of] for of, price in found["bytes"].items())
    return f"{sent:,.4g} B, {found['rounds']:.0f} rounds"


def cost_and_accuracy(
    table: pd.DataFrame, selection: str, split: str, protocols: Sequence[str] = tuple(PROTOCOLS), **link: float
) -> pd.DataFrame:
    """Accuracy of a study's networks, of all and of the worst group, beside what such a network costs an answer."""
    part = table[(table["split"] == split) & table["arm"].isin(["original", "plain"])]
    chosen = part["selection"] if "selection" in part else part["method"]
    part = part[(part["arm"] == "original") | (chosen == selection)].drop_duplicates(["budget", "seed", "group"])
    worst = part.loc[part.groupby(["budget", "seed"])["accuracy"].idxmin()].assign(group_name="worst")
    both, by = drops(pd.concat([overall(part), worst])).rename(columns={"group_name": "of"}), ["budget", "of"]
    both["value"] = 100 * both["accuracy"]
    lost = over_seeds(both, "drop", by).rename(columns={"mean": "drop", "low": "drop_low", "high": "drop_high"})
    means = over_seeds(both, "value", by).merge(lost.drop(columns="n_seeds"), on=by)
    units = part.loc[part["arm"] == "original", "kept"].max()
    means["share"] = means["budget"].map(part.groupby("budget")["kept"].mean() / units)
    first = part.iloc[0]
    about = {"width": int(first["width"]), "classes": part["group"].nunique()}
    about["shape"] = (1, 12, 12) if first["data"] == "digits" else (3, 32, 32)
    found = []
    for protocol in protocols:
        costs = answers(first["network"], means["share"], protocol, **about, **link)
        found.append(means.assign(**costs.drop(columns=["network", "budget"])))
    return pd.concat(found, ignore_index=True).sort_values("budget", ascending=False, kind="stable")


def price_of_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds and MB that keeping all ReLUs costs for each point that the worst group keeps, nan without a loss."""
    worst = rows[rows["of"] == "worst"]
    whole = worst[worst["budget"] == 1].set_index("protocol")
    found = worst[worst["budget"] < 1]
    lost = found["drop"].where(found["drop_low"] > 0)  # nothing is bought where nothing is lost
    saved = found["protocol"].map(whole["online_seconds"]) - found["online_seconds"]
    sent = (found["protocol"].map(whole["online_bytes"]) - found["online_bytes"]) / 1e6
    return found.assign(seconds_a_point=saved / lost, mb_a_point=sent / lost)


def explorer(settings: Mapping[str, object]) -> StaticExplorer:
    """Seconds against accuracy, over a link that the reader picks, on a page without a kernel."""
    studies = []
    for name, (source, selection, split) in STUDIES.items():
        table = committed(source)
        table = table[table["seed"].rank(method="dense") <= settings["n_seeds"]]
        points = {}
        for row in drawn(cost_and_accuracy(table, selection, split)).itertuples():
            point = points.setdefault(row.budget, {"kept": row.share, "costs": {}})
            point["costs"][row.protocol] = row.online_bytes, row.rounds, row.compute_seconds
            ends = {} if isnan(row.low) else {"from": row.low, "to": row.high}
            point[row.of] = {"mean": row.mean, "drop": row.drop, "low": row.drop_low, "high": row.drop_high} | ends
        studies.append({"name": name, "rows": list(points.values()), "evidence": plots.evidence_of(table, split=split)})
    choice = {"study": next(iter(STUDIES)), "protocol": settings["protocol"]}
    choice |= {"bandwidth": settings["bandwidth_mbit"], "rtt": settings["rtt_ms"]}
    links = {"bandwidth": sorted({*BANDWIDTHS, choice["bandwidth"]}), "rtt": sorted({*ROUND_TRIPS, choice["rtt"]})}
    colors = {"all": plots.COLORS["all"], "worst": plots.COLORS["minority"]}
    return StaticExplorer("cost", links | {"studies": studies, "protocols": PROTOCOLS, "colors": colors}, choice)
