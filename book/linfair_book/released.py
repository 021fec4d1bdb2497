"""Where the paper and the code released with it disagree: each disagreement a switch, and what it changes.

Two networks, or two measurements of one, differ in one switch alone, from the paper's version, or from this package's
where the paper is silent; `book/switches.toml` says what both are. Each is judged by its *headline*, within a seed.
"""

import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch

import linfair
from linfair.device import device_name
from linfair.engine.store import ResultStore
from linfair.names import called
from linfair.study.tables import over_seeds
from linfair.training import threads
from linfair_book import released_runs
from linfair_book.averages import sides
from linfair_book.build import repository
from linfair_book.released_lab import ACCURACY, Lab
from linfair_book.tables import committed, place, save

TABLE = "released_switches"
THIN_SEEDS = 5  # seeds of the switches that need a ResNet18


@dataclass(frozen=True)
class Switch:
    """One disagreement, as `book/switches.toml` describes its fields."""

    name: str
    title: str
    paper: str
    released: str
    headline: tuple[str, str]
    network: str = "mlp"
    reference: str = "paper"
    other: str = "released"
    charted: str = ACCURACY


@cache
def switches() -> dict[str, Switch]:
    """All switches by name, in the order of the page."""
    found = tomllib.loads((repository() / "book/switches.toml").read_text(encoding="utf-8"))
    return {name: Switch(name, **one | {"headline": tuple(one["headline"])}) for name, one in found.items()}


def facts(counts: pd.DataFrame, name: str) -> pd.DataFrame:
    """What follows from the counts of data alone, for `ages` and `test_size`; no rows for other switches."""
    rows = []
    if name == "ages":
        ages = counts[(counts["data"] == "utkface_age") & (counts["seed"] == 0)]
        groups = ages.groupby("group_name")["n"].sum()
        whole = int(ages["source"].iloc[0].split(", ", 1)[1].split()[0].replace(",", ""))
        five = np.append(groups, whole - groups.sum())
        for version, sizes in (("paper", groups.to_numpy()), ("released", five)):
            rows += [[version, "UTKFace images used", "", sizes.sum()], [version, "groups", "", len(sizes)]]
            rows.append([version, "share of the largest group", "%", 100 * sizes.max() / sizes.sum()])
    if name == "test_size":
        one = counts[(counts["data"] == "cifar10") & (counts["seed"] == 0) & (counts["group_name"] == "truck")]
        for version, split in (("balanced", "test_balanced"), ("released", "test")):
            n = one.loc[one["split"] == split, "n"].sum()
            rows.append([version, "standard error of a CIFAR-10 minority class at 50 %", "points", 50 / np.sqrt(n)])
    table = pd.DataFrame(rows, columns=["version", "quantity", "unit", "value"])
    return table.assign(who="all", seed=0, value=table["value"].astype(float))


def compute(
    names: Iterable[str] | None = None,
    *,
    seeds: Sequence[int] = range(10),
    thin_seeds: int = THIN_SEEDS,
    counts: pd.DataFrame | None = None,
    **how: object,
) -> pd.DataFrame:
    """Run some switches (by default all): a row per switch, version, quantity, who and seed, with provenance."""
    names = list(switches() if names is None else names)
    if unknown := sorted(set(names) - set(switches())):
        raise ValueError(f"no switches {unknown}; there are {', '.join(switches())}")
    how = {"store": ResultStore.default(), "device": "cpu"} | how
    labs = {"mlp": [Lab("mlp", tuple(seeds), **how)], "": []}
    labs["resnet18"] = [Lab("resnet18", (seed,), **how) for seed in tuple(seeds)[:thin_seeds]]
    about = {"device": device_name(how["device"]), "torch": torch.__version__, "linfair": linfair.__version__}
    tables = []
    for name in names:
        network, start = switches()[name].network, time.perf_counter()
        with threads(1):
            parts = [part for lab in labs[network] for part in getattr(released_runs, name)(lab)]
        parts += [facts(counts, name)] if counts is not None else []
        if parts:
            about |= {"network": network, "seconds": time.perf_counter() - start}
            tables.append(pd.concat(parts).assign(switch=name, **about))
    return pd.concat(tables, ignore_index=True)


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """What each switch changes within a seed: versions against the reference, a ratio where the unit is `times`."""
    logs = np.log(table["value"].where(table["value"] > 0))
    rows = table.assign(value=table["value"].mask(table["unit"] == "times", logs))
    first = rows["switch"].map({name: one.reference for name, one in switches().items()})
    by, keys = ["switch", "quantity", "unit", "who"], ["switch", "version", "quantity", "who", "unit"]
    reference = rows.loc[rows["version"] == first, [*by, "seed", "value"]].rename(columns={"value": "reference"})
    both = rows[rows["version"] != first].merge(reference, on=[*by, "seed"]).dropna(subset=["value", "reference"])
    found = both.groupby(keys, sort=False)[["reference", "value"]].mean().reset_index()
    changed = over_seeds(both.assign(change=both["value"] - both["reference"]), "change", keys)
    single = changed["low"].fillna(changed["mean"]), changed["high"].fillna(changed["mean"])
    found["side"] = sides(pd.DataFrame({"low": single[0], "high": single[1]}))["side"]
    found = found.merge(changed, on=keys)
    numbers, times = ["reference", "value", "mean", "low", "high"], found["unit"] == "times"
    found.loc[times, numbers] = np.exp(found.loc[times, numbers])
    order = table.drop_duplicates(by).reset_index()[by].reset_index(names="place")
    return found.merge(order, on=by).sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The row of `effects` by which each switch is judged, in the order of `switches`."""
    found = effects(table).set_index(["switch", "version", "quantity", "who"])
    keys = [(name, one.other, *one.headline) for name, one in switches().items()]
    return found.loc[[key for key in keys if key in found.index]].reset_index()


def charted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `effects` that the page's chart shows: of each switch the accuracies of both roles, by its title."""
    found = effects(table).set_index(["switch", "version", "quantity", "who"])
    keys = [(one.name, one.other, one.charted, who) for one in switches().values() for who in ("majority", "minority")]
    rows = found.loc[[key for key in keys if key in found.index]].reset_index()
    return rows.assign(title=rows["switch"].map({name: one.title for name, one in switches().items()}), panel="")


def amount(row: object) -> str:
    """A difference with its unit, from a row of `effects`."""
    if row.low == row.high == 0:
        return "0 in every seed"
    times, digits = row.unit == "times", _digits(row, row.mean)
    numbers = [f"{one:z,.{digits}f}" for one in (row.low, row.high) if one == one]
    mean = f"times {row.mean:,.{digits}f}" if times else f"{row.mean:+z,.{digits}f}"
    unit = {"%": " points", "": "", "times": ""}.get(row.unit, f" {row.unit}")
    return f"{mean} [{', '.join(numbers)}]{unit}" if numbers else mean + unit


def _digits(row: object, value: float) -> int:
    if row.unit == "times":
        return 2
    if row.unit:
        return 1
    return 0 if row.n_seeds == 1 else 3 if abs(value) < 1 else 1


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """For reading: each switch, what it is judged by, in which direction it changes that, and by how much."""
    lines = []
    for row in headlines(table).itertuples():
        what = row.quantity if row.who == "all" else f"{row.quantity}, {row.who}"
        lines.append([switches()[row.switch].title, what, row.side, amount(row)])
    return pd.DataFrame(lines, columns=["switch", "judged by", "goes", "by"])


def versions() -> pd.DataFrame:
    """For reading: what the paper says and what the released code does."""
    lines = [[one.title, one.paper, one.released] for one in switches().values()]
    return pd.DataFrame(lines, columns=["switch", "paper", "released code"])


def detail(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """For reading: everything measured of one switch, every version against the reference."""
    found, lines = effects(table[table["switch"] == name]), []
    for row in found.itertuples():
        quantity = f"{row.quantity} ({row.unit})" if row.unit not in ("", "times") else row.quantity
        values = [f"{value:,.{_digits(row, value)}f}" for value in (row.reference, row.value)]
        lines.append([quantity, row.who, row.version, *values, amount(row), row.side, row.n_seeds])
    names = ["quantity", "images", "version", switches()[name].reference, "value", "difference", "side", "seeds"]
    shown = pd.DataFrame(lines, columns=names)
    if found["version"].nunique() == 1:
        shown = shown.rename(columns={"value": found["version"].iloc[0]}).drop(columns="version")
    return shown


def evidence_line(table: pd.DataFrame) -> str:
    """What the table rests on, in one line."""
    trained = table[table["network"] != ""].groupby("network")["seed"].nunique()
    sizes = ", ".join(f"{count} seeds of the {called(name)}" for name, count in trained.items())
    seconds = table.drop_duplicates(["network", "seconds"])["seconds"].sum()
    device, torch_, own = (", ".join(sorted(table[name].unique())) for name in ("device", "torch", "linfair"))
    return f"{sizes} · {device} · torch {torch_} · linfair {own} · {seconds:.0f} s"


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, float]:
    """How many accuracies two tables share, and their largest difference in points."""
    both = one[one["unit"] == "%"].merge(other, on=["switch", "version", "quantity", "who", "seed"])
    return len(both), float((both["value_x"] - both["value_y"]).abs().max()) if len(both) else 0.0


if __name__ == "__main__":
    names = sys.argv[1:] or list(switches())
    old, fresh = committed(TABLE), compute(names, counts=committed("data_counts"))
    save(pd.concat([old[~old["switch"].isin(names)], fresh], ignore_index=True), place(TABLE))
