"""Where the paper and the code released with it disagree: each disagreement a switch, and what it changes.

Two networks, or two measurements of one, differ in one switch and in nothing else: same data, start, batches. A switch
is compared with the paper's version, or where the paper is silent with this package's; everything else is as this
package has it, so a switch of the mitigation is thrown in Algorithm 1 with its gradient, not in the released mixture.

    difference = released version - reference,    within a seed, then a mean with a 95 % t interval;

quantities in `times` are compared by their ratio, geometric means over seeds. Each switch is judged by one quantity,
its *headline*.

`python -m linfair_book.released` computes the table of notebook 06.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import linfair
from linfair.device import device_name
from linfair.metrics import mean_interval
from linfair.study.store import ResultStore
from linfair.training import threads
from linfair_book import released_thin as thin
from linfair_book.released_runs import Lab
from linfair_book.released_switches import SWITCHES

TABLE = Path("book/results/released_switches.parquet")
COUNTS = Path("book/results/data_counts.parquet")
THIN_SEEDS = 5
"""Seeds of the switches that need a ResNet18."""


def facts(counts: pd.DataFrame, name: str) -> pd.DataFrame:
    """What follows from the data alone, for `ages` and `test_size`; no rows for other switches.

    Args:
        counts: `book/results/data_counts.parquet`.
        name: Name of the switch.
    """
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
    names: Iterable[str] = tuple(SWITCHES),
    *,
    seeds: Sequence[int] = range(10),
    thin_seeds: int = THIN_SEEDS,
    budget: float = 0.2,
    profile: str = "small",
    device: str = "cpu",
    counts: pd.DataFrame | None = None,
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Run switches.

    Args:
        names: Some of `SWITCHES`.
        seeds: Seeds of the MLP.
        thin_seeds: How many of them the ResNet18 takes.
        budget: Share of ReLUs kept.
        profile: Profile of the recipes.
        device: Where to train.
        counts: Counts of the paper's data sets, for what follows from them alone; None leaves that out.
        store: Where original networks and mask paths are kept; the user's cache by default.
        progress: Show progress bars.

    Returns:
        A row per (switch, version, quantity, who, seed): `value`, `unit`, and provenance.

    Raises:
        ValueError: For a name that is no switch.
    """
    names = list(names)
    if unknown := sorted(set(names) - set(SWITCHES)):
        raise ValueError(f"no switches {unknown}; there are {', '.join(SWITCHES)}")
    options = {"budget": budget, "profile": profile, "device": device, "store": store, "progress": progress}
    lab = Lab("mlp", tuple(seeds), **options)
    tables = []
    with threads(1):
        small = [name for name in names if getattr(SWITCHES[name].run, "__module__", "") == thin.__name__]
        start = time.perf_counter()
        if small:
            found = thin.per_seed(tuple(seeds)[:thin_seeds], [SWITCHES[name].run for name in small], **options)
            seconds = time.perf_counter() - start
            tables += [with_provenance(found[name], name, "resnet18", seconds, device) for name in small]
        for name in (name for name in names if name not in small):
            start, run = time.perf_counter(), SWITCHES[name].run
            parts = [run(lab)] if run is not None else []
            parts += [facts(counts, name)] if counts is not None else []
            seconds = time.perf_counter() - start
            if parts:
                tables.append(with_provenance(pd.concat(parts), name, "mlp" if run else "", seconds, device))
    return pd.concat(tables, ignore_index=True)


def with_provenance(rows: pd.DataFrame, name: str, network: str, seconds: float, device: str) -> pd.DataFrame:
    """Rows of one switch with what they rest on; those of the thin network share their `seconds`."""
    about = {"network": network, "device": device_name(device), "torch": torch.__version__}
    return rows.assign(switch=name, **about, linfair=linfair.__version__, seconds=seconds)


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """What each switch changes: every version against the reference, paired within a seed.

    Args:
        table: From `compute`.

    Returns:
        A row per (switch, version, quantity, who): `unit`, `reference` and `value` (the two means), n_seeds,
        mean, low, high of the difference, a ratio where the unit is `times`; low and high are nan for a count.
        `shown` says whether the interval leaves out no change; a count that differs is shown.
    """
    lines = []
    by = ["switch", "quantity", "unit", "who"]
    for (name, quantity, unit, who), part in table.groupby(by, sort=False):
        wide = part.pivot(index="seed", columns="version", values="value")
        reference = SWITCHES[name].reference
        if reference not in wide:
            continue
        for version in part["version"].unique():
            pair = wide[[reference, version]].dropna() if version != reference else wide[:0]
            if pair.empty:
                continue
            times = unit == "times"
            old, new = (np.log(pair[one]) if times else pair[one] for one in (reference, version))
            got = mean_interval((new - old).to_numpy())
            shown = got.low > 0 or got.high < 0 or (got.n == 1 and got.mean != 0)
            numbers = [old.mean(), new.mean(), got.mean, got.low, got.high]
            old_mean, new_mean, mean, low, high = np.exp(numbers) if times else numbers
            lines.append([name, version, quantity, who, unit, old_mean, new_mean, got.n, mean, low, high, shown])
    columns = ["switch", "version", "quantity", "who", "unit", "reference", "value"]
    return pd.DataFrame(lines, columns=[*columns, "n_seeds", "mean", "low", "high", "shown"])


def headlines(table: pd.DataFrame) -> pd.DataFrame:
    """The row of `effects` by which each switch is judged, in the order of `SWITCHES`."""
    found = effects(table).set_index(["switch", "version", "quantity", "who"])
    keys = [(name, one.other, *one.headline) for name, one in SWITCHES.items()]
    return found.loc[[key for key in keys if key in found.index]].reset_index()


def amount(row: object) -> str:
    """A difference in words, from a row of `effects`."""
    if row.unit == "times":
        return f"times {_range(row, 2)}"
    if row.low == row.high == 0:
        return "0 in every seed"
    unit = {"%": " points", "": ""}.get(row.unit, f" {row.unit}")
    return _range(row, _digits(row, row.mean), sign="+") + unit


def _range(row: object, digits: int, *, sign: str = "") -> str:
    interval = "" if np.isnan(row.low) else f" [{row.low:,.{digits}f}, {row.high:,.{digits}f}]"
    return f"{row.mean:{sign},.{digits}f}{interval}"


def _digits(row: object, value: float) -> int:
    if row.unit == "times":
        return 2
    if row.unit == "" and row.n_seeds == 1:
        return 0
    return 3 if row.unit == "" and abs(value) < 1 else 1


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """For reading: each switch, what it is judged by, whether it changes that, and by how much."""
    lines = []
    for row in headlines(table).itertuples():
        what = row.quantity if row.who == "all" else f"{row.quantity}, {row.who}"
        lines.append([SWITCHES[row.switch].title, what, "yes" if row.shown else "not shown", amount(row)])
    return pd.DataFrame(lines, columns=["switch", "judged by", "changes it?", "by"])


def versions() -> pd.DataFrame:
    """For reading: what the paper says and what the released code does."""
    lines = [[one.title, one.paper, one.released] for one in SWITCHES.values()]
    return pd.DataFrame(lines, columns=["switch", "paper", "released code"])


def detail(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """For reading: everything measured of one switch, every version against the reference."""
    found = effects(table[table["switch"] == name])
    reference = SWITCHES[name].reference
    lines = []
    for row in found.itertuples():
        quantity = f"{row.quantity} ({row.unit})" if row.unit not in ("", "times") else row.quantity
        values = [f"{value:,.{_digits(row, value)}f}" for value in (row.reference, row.value)]
        changed = f"{amount(row)}{'' if row.shown else ', not shown'}"
        lines.append([quantity, row.who, row.version, *values, changed, row.n_seeds])
    shown = pd.DataFrame(lines, columns=["quantity", "images", "version", reference, "value", "difference", "seeds"])
    if found["version"].nunique() == 1:
        shown = shown.rename(columns={"value": found["version"].iloc[0]}).drop(columns="version")
    if (seeds := set(found["n_seeds"])) != {1} and len(seeds) == 1:
        shown = shown.rename(columns={"difference": f"difference ({seeds.pop()} seeds)"})
    return shown if found["n_seeds"].nunique() > 1 else shown.drop(columns="seeds")


def evidence_line(table: pd.DataFrame) -> str:
    """What the table rests on, in one line."""
    part = table.drop_duplicates("switch")
    trained = table[table["network"] != ""].groupby("network")["seed"].nunique()
    sizes = ", ".join(f"{count} seeds of the {name}" for name, count in trained.items())
    seconds = part.drop_duplicates(["network", "seconds"])["seconds"].sum()
    known = [", ".join(sorted(part[name].unique())) for name in ("device", "torch", "linfair")]
    return f"{sizes} · {known[0]} · torch {known[1]} · linfair {known[2]} · {seconds:.0f} s"


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, float]:
    """How many accuracies two tables share, and their largest difference in points."""
    by = ["switch", "version", "quantity", "who", "seed"]
    both = one[one["unit"] == "%"].merge(other, on=by)
    return len(both), float((both["value_x"] - both["value_y"]).abs().max()) if len(both) else 0.0


def verdict(table: pd.DataFrame) -> str:
    """How many switches change what they are judged by, and for which none is shown."""
    found = headlines(table)
    rest = [SWITCHES[name].title for name in found.loc[~found["shown"].astype(bool), "switch"]]
    text = f"**{len(found) - len(rest)} of {len(found)} switches change what they are judged by.**"
    return f"{text} No change is shown for: {'; '.join(rest)}." if rest else text


def main(arguments: list[str] | None = None) -> None:
    """Compute the book's table of switches."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.released", description=main.__doc__)
    parser.add_argument("switches", nargs="*", help=f"some of {', '.join(SWITCHES)} (default: all)")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds of the MLP (default: 10)")
    parser.add_argument("--to", type=Path, default=TABLE, help=f"file to write, other switches stay (default: {TABLE})")
    given = parser.parse_args(arguments)
    names = given.switches or list(SWITCHES)
    table = compute(names, seeds=range(given.seeds), counts=pd.read_parquet(COUNTS))
    if given.to.is_file():
        old = pd.read_parquet(given.to)
        table = pd.concat([old[~old["switch"].isin(names)], table], ignore_index=True)
    given.to.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(given.to, index=False)
    print(given.to)


if __name__ == "__main__":
    main()
