"""What has been computed of a figure, in whatever folders, known by its rows and not by a file's name."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, make_dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd

from linfair.engine.rows import NEEDED
from linfair.engine.store import Tables, say_damaged
from linfair.names import checked
from linfair.study.cell import OtherTeacher
from linfair.study.grids import about, asked_for, pairs, width_of
from linfair.study.plan import QUANTITIES, Figure, Job, Panel, find_profile, panels_of, plan
from linfair.study.tables import check_teachers, complete, drops, finished, one_teacher, over_seeds, overall

BOOK = Path(__file__).parents[2] / "book/results"  #: The book's tables; not all are a study's
KNOWN_BY = ["data", "network", "width", "method", "options", "arm", "profile", "base", "seed"]


@dataclass(frozen=True)
class Status:
    """How far one figure is under one profile; an arm of one seed counts as one."""

    profile: str
    done: int
    missing: int  #: Neither done nor failed
    failed: int
    seeds: tuple[int, ...]  #: Those of which every arm is there
    devices: tuple[str, ...]
    hours: float  #: What the arms that are done took


@dataclass(frozen=True)
class Found:
    """Every row of every result of some folders, and what failed, by the values of `KNOWN_BY`."""

    rows: pd.DataFrame
    failed: frozenset[tuple]


_SAID = {"data": str, "network": str, "method": str, "profile": str, "arms": tuple[str, ...], "seeds": tuple[int, ...]}
_Failure = make_dataclass(
    "_Failure", [*_SAID.items(), ("options", str, ""), ("width", int, 0), ("device", str, ""), ("base", str, "")]
)
"""What the first line of a `FAILED-*.txt` says, see `linfair.study.grids.about`."""


def collect(places: Sequence[str]) -> Found:
    """Read all result tables of some folders or fsspec addresses; files without results are named and passed over."""
    tables, failed = [], set()
    for here in map(Tables, places):
        for _, table in here.results(said=here.folder is None or here.folder.resolve() != BOOK):
            tables.append(complete(table).dropna(axis="columns", how="all"))
        for file, text in here.texts("FAILED-").items():
            try:
                if not isinstance(known := json.loads(text.partition("\n")[0]), dict):
                    raise ValueError("its first line is no JSON object")
                one = _Failure(**checked(dict.fromkeys(_SAID) | known, _Failure, "its first line"))
                failed |= {(*_name(vars(one), arm), seed) for arm in one.arms for seed in one.seeds}
            except (ValueError, RecursionError) as error:
                say_damaged(f"{here.place}/{file}", f"does not say what failed ({error})")
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=sorted({*KNOWN_BY, *NEEDED}))
    if "diverged" in rows:  # a table without the column holds none
        rows = rows.assign(diverged=rows["diverged"].eq(True))
    return Found(rows, frozenset(failed))


def brief(found: Found) -> Found:
    """What `status` asks of rows, a line for each network, so that many figures are counted quickly."""
    by, kept = [*KNOWN_BY, "teacher", "budget"], {"device", "diverged", "seconds", *QUANTITIES}
    rows = found.rows[found.rows.columns.intersection([*by, *kept])]
    return replace(found, rows=rows.groupby(by, as_index=False, sort=False).first())


def _name(cell: Mapping[str, object], arm: str) -> tuple:
    """The values of `KNOWN_BY` but for the seed, of what `linfair.study.grids.about` says of a cell."""
    method = ("original", "") if arm == "original" else (cell["method"], cell.get("options", ""))
    return cell["data"], cell["network"], cell.get("width", 0), *method, arm, cell["profile"], cell.get("base", "")


def wanted(jobs: Sequence[Job]) -> dict[tuple, frozenset[float]]:
    """What jobs compute, by the values of `KNOWN_BY` -> budgets; no budget for original networks."""
    found: dict[tuple, frozenset[float]] = {}
    for job in jobs:
        cell = about(job.cell)
        for arm, seed in product(job.arms, job.cell.seeds):
            name = *_name(cell, arm), seed
            found[name] = found.get(name, frozenset()).union(() if arm == "original" else job.cell.budgets)
    return found


def missing(jobs: Sequence[Job], found: Found) -> list[Job]:
    """The jobs of which not every arm is there with one original network for all, with the arms that are `known`."""
    rows = found.rows.assign(data=found.rows["data"].map(asked_for))
    curved = rows[rows["top_eigenvalue"].notna()] if "top_eigenvalue" in rows else rows[:0]
    have: list[dict[tuple, dict[str, frozenset[float]]]] = [{}, {}]
    for there, some in zip(have, (rows, curved), strict=True):
        for (*name, teacher), part in some.groupby([*KNOWN_BY, "teacher"], sort=False):
            there.setdefault(tuple(name), {})[teacher] = frozenset(part["budget"])

    left = []
    for job in jobs:
        there = have[job.cell.curvature in ("original", "all")]
        whole: dict[str, list[set[str]]] = {}  # the original networks of which each arm is whole, seed by seed
        for arm in job.arms:
            needs = wanted([replace(job, arms=(arm,))]).items()
            whole[arm] = [{one for one, has in there.get(name, {}).items() if needed <= has} for name, needed in needs]
        if not all(set.intersection(*of_seed) for of_seed in zip(*whole.values(), strict=True)):
            known = [(arm, one) for arm, each in whole.items() for one in sorted(set.intersection(*each))]
            left.append(replace(job, known=tuple(known)))
    return left


def merge(found: Found, folder: str | Path) -> list[Path]:
    """Add results to a folder's files for each data set, network, width and profile; returns those that changed."""
    changed, place = [], Tables(folder)
    once = [*KNOWN_BY, "teacher", "budget", "split", "group"]
    for (profile, data, network, width), rows in found.rows.groupby(["profile", "data", "network", "width"]):
        name = re.sub(r"\W+", "_", f"{profile} {data} {network} {width or 'full'}")
        there = place.read(name, own=True)
        there = there if there is None else complete(there)
        both = rows if there is None else pd.concat([there, rows.dropna(axis="columns", how="all")])
        both = _once(both, once).sort_values(once, kind="stable", ignore_index=True)
        if there is None or both.notna().sum().sum() > there.notna().sum().sum():
            changed.append(Path(place.write(name, both)))
    return changed


def _once(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """A row of each kind; an original network may have been measured again, for its eigenvalues, which stay."""
    if "top_eigenvalue" in rows:
        rows = rows.sort_values("top_eigenvalue", kind="stable", na_position="last")
    return rows.drop_duplicates(by)


def status(figure: Figure, profile: str, found: Found, *, seeds: int | None = None) -> Status:
    """How far a figure is: rows with the quantity that it shows, those of one original network for each seed."""
    needs = wanted(plan([figure], profile, seeds=seeds))
    rows = found.rows[found.rows["profile"] == profile]
    rows = rows.assign(data=rows["data"].map(asked_for))
    shown = "accuracy" if figure.quantity in ("drop", "relative_drop", "relative_change") else figure.quantity
    rows = rows[rows.get(shown, pd.Series(index=rows.index)).notna() | rows.get("diverged", False)]
    rows = pd.concat([rows[:0], *(part for _, part in _by_panel(figure, profile, rows, seeds))])
    have = dict(iter(rows.groupby(KNOWN_BY, sort=False)))
    done = {name for name, budgets in needs.items() if name in have and budgets <= set(have[name]["budget"])}
    failed = len((needs.keys() - done) & found.failed)
    complete = {name[-1] for name in needs} - {name[-1] for name in needs.keys() - done}
    used = {have[name]["device"].iloc[0] for name in done}
    timed = [have[name] for name in done if "seconds" in rows]  # an ensemble's networks have its digest and seconds
    took = {(*one[KNOWN_BY[:-1]].iloc[0], one["teacher"].iloc[0]): one["seconds"].max() for one in timed}
    left = len(needs) - len(done) - failed
    hours = sum(took.values()) / 3600
    return Status(profile, len(done), left, failed, tuple(sorted(complete)), tuple(sorted(used)), hours)


def by_panel(figure: Figure) -> list[tuple[str, Figure]]:
    """A figure as one of each of its panels, by title; of a panel for its eigenvalues these are what is shown."""
    found = []
    for panel in figure.panels:
        eigenvalues = panel.curvature in ("original", "all")
        quantity = "top_eigenvalue" if eigenvalues else figure.quantity
        arms = ", ".join(panel.arms) + " with eigenvalues" * eigenvalues
        found.append((f"{panel.title}: {arms}", replace(figure, panels=(panel,), quantity=quantity)))
    return found


def gather(figure: Figure, profile: str, found: Found, *, seeds: int | None = None) -> pd.DataFrame:
    """The rows of a figure, `figure` and `panel` in front, of one teacher a seed, in an order of their own."""
    parts, keys, up = [], ["rank", "seed", "budget", "split", "group"], [True, True, False, True, True]
    for panel, part in _by_panel(figure, profile, found.rows[found.rows["profile"] == profile], seeds):
        part = _once(part, ["method", "arm", "budget", "seed", "split", "group"])
        part = part.assign(rank=part["arm"].map(panel.arms.index))
        parts.append(part.sort_values(keys, ascending=up).drop(columns="rank").assign(panel=panel.title))
    if not parts:
        command = f"linfair study run {figure.name} --profile {profile} --out DIR"
        raise ValueError(f"nothing of {figure.name} in profile {profile} is there; compute it with `{command}`")
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "figure", figure.name)
    table.insert(1, "panel", table.pop("panel"))
    return table


def _by_panel(
    figure: Figure, profile: str, rows: pd.DataFrame, seeds: int | None
) -> Iterator[tuple[Panel, pd.DataFrame]]:
    """Each panel with its rows, those of one original network for each seed; panels without any are left out."""
    chosen = find_profile(profile)
    rows = rows[rows["seed"] < (chosen.seeds if seeds is None else seeds)]
    for panel in panels_of(figure, chosen):
        part = rows[rows["network"] == panel.network]
        if panel.data_words() not in set(part["data"]):  # the whole data set, or else a part of it; never both
            panel = panel.of_subset
        part = part[(part["data"] == panel.data_words()) & (part["width"] == width_of(panel))]
        part = part[part["base"] == panel.based]
        part = part[part["method"].isin(("original", panel.method)) & part["arm"].isin(panel.arms)]
        asked = part["budget"].isin(panel.budgets) & (part["options"] == pairs(panel.options))
        part, others = one_teacher(part[(part["arm"] == "original") | asked])
        for line in others:
            warnings.warn(line, OtherTeacher, stacklevel=3)
        if not part.empty:
            yield panel, part


def _with_originals(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds whose original network is there, of some at least; a warning names the others."""
    there = set(table.loc[table["arm"] == "original", "seed"])
    if there and (lost := set(table["seed"]) - there):
        text = f"seeds {sorted(lost)} are left out: their original network is missing"
        warnings.warn(text, OtherTeacher, stacklevel=3)
    return table[table["seed"].isin(there)] if there else table


def values(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Add the column `value` to one panel's rows: what a figure shows, one of `linfair.study.plan.QUANTITIES`."""
    rows = drops(_with_originals(table)) if quantity in ("drop", "relative_drop") else finished(table)
    if quantity != "relative_change":
        return rows.assign(value=rows[quantity] * (100 if quantity == "accuracy" else 1))
    check_teachers(table)
    rows, on = rows[rows["arm"] != "original"], ["seed", "split", "group_name", "budget"]
    plain = rows.loc[rows["arm"] == "plain", [*on, "accuracy"]].rename(columns={"accuracy": "without"})
    rows = rows[rows["arm"] != "plain"].merge(plain, on=on)
    return rows.assign(value=100 * (rows["without"] - rows["accuracy"]) / rows["without"].where(rows["without"] > 0))


def summary(table: pd.DataFrame, figure: Figure) -> dict[str, pd.DataFrame]:
    """What a figure shows, a table for each panel: mean over the seeds that have the number, with its 95 % interval."""
    found = {}
    for title, part in table.groupby("panel", sort=False):
        part = part[part["split"] == figure.split]
        part = pd.concat([part, overall(part)]) if figure.quantity == "accuracy" else part
        shown = values(part, figure.quantity).dropna(subset=["value"])
        means = over_seeds(shown, "value", ["arm", "budget", "group_name"])
        found[title] = means.sort_values(["arm", "budget"], ascending=[True, False], kind="stable", ignore_index=True)
    return found
