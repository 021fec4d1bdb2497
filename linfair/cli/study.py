"""`linfair study`: the paper's figures as grids of cells, on a laptop, a GPU or a cluster."""

import re
import warnings
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

import pandas as pd
import torch
from cyclopts import App, Parameter

from linfair.cli import options
from linfair.cli.options import Device, Profile, ranged, says, several, tell
from linfair.data import DataError
from linfair.engine.store import ResultStore, Tables, code_hash
from linfair.paths import cache_folder, save_table
from linfair.study import plan, results
from linfair.study.cell import OtherTeacher, Worker
from linfair.study.cluster import run_on_ray
from linfair.study.compare import compare as compared
from linfair.study.grids import listed
from linfair.study.jobs import StudyFailed, kind, read_pace, words
from linfair.study.recipes import check_precision
from linfair.study.results import BOOK
from linfair.study.runner import run_jobs
from linfair.study.tables import text

app = App(name="study", help="Compute the paper's grids, on a laptop, a GPU or a cluster.")

Figure = Annotated[str, says("For example fig06; for run and show, all is every figure, in the queue's order.")]
Seeds = Annotated[int | None, ranged(int, 1, 1000, "Seeds 0 to N-1; by default the profile's.")]
Results = Annotated[tuple[str, ...], several("A results folder")]
File = Annotated[str | None, says("Write the rows there, .parquet or .csv, instead of showing their means.")]
GPUS = "GPUs of one cell with Ray, 0.25 for four on one GPU."
MINUTES = "Start no stage that would not end within these."
Into = Annotated[str, says("Folder that gets a file for each data set, network and profile.")]


@Parameter(name="*")
@dataclass(kw_only=True)
class Which:
    """Which cells of a figure, and how."""

    profile: Profile = "smoke"
    seeds: Seeds = None
    device: Device = "cpu"
    precision: Annotated[Literal["float32", "bf16"] | None, says("Of every training; by default the profile's.")] = None
    data: Annotated[str | None, says("Only panels with this data set.")] = None
    network: Annotated[str | None, says("Only panels with this network.")] = None
    method: Annotated[str | None, says("Only panels with this method.")] = None

    def jobs(self, figure: str) -> list[plan.Job]:
        """The cells."""
        only = {name: getattr(self, name) for name in ("data", "network", "method") if getattr(self, name)}
        how = {"seeds": self.seeds, "device": self.device, "precision": self.precision}
        return plan.plan(plan.find(figure), self.profile, only=only, **how)


def _size(jobs: list[plan.Job]) -> str:
    return f"{len(jobs)} cells, {sum(len(job.arms) for job in jobs)} arms"


def _one(name: str) -> plan.Figure:
    if name == "all":
        raise plan.DefinitionError("this is said of one figure: name it; `linfair study list` shows them")
    return plan.find(name)[0]


def _at(place: str, *, there: bool = True) -> str:
    """A folder or fsspec address of results, which is `there` already."""
    try:
        tables = Tables(place)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{place} is no place of results: {error}") from error
    if there and not tables.system.exists(tables.root):
        raise ValueError(f"there is no folder {place} with results; check its name")
    return place


@app.command(name="list")
def list_figures() -> None:
    """Show the figures that are grids, their panels, and how many cells and arms each profile has."""
    profiles = plan.read_profiles()
    for profile in profiles.values():
        print(f"{profile.name:7} {profile.about} ({profile.seeds} seeds)")
    for figure in plan.figures().values():
        sizes = "; ".join(f"{profile} {_size(plan.plan([figure], profile))}" for profile in profiles)
        print(f"\n{figure.name}  {figure.figure}: {figure.title}\n    {figure.shows}\n    {sizes}")
        print("\n".join(f"    {panel.title}: {', '.join(panel.arms)}" for panel in figure.panels))
    print("\nRun one with: linfair study run fig06 --profile smoke --out DIR")


@app.command
def show(figure: Figure, /, *, which: Which = Which(), out: Results = ()) -> None:
    """Show a figure's cells and arms, the names of their files, and what is known about their cost."""
    jobs, profile = which.jobs(figure), plan.find_profile(which.profile)
    for one in plan.find(figure):
        print(f"{one.name}  {one.figure}: {one.title}\n{one.shows}")
        print(f"shows {plan.QUANTITIES[one.quantity]} on {one.split}; serves the claims {', '.join(one.claims)}")
    if profile.data:
        print(f"profile {profile.name}: {profile.about}; a stand-in for the paper's data")
    print(f"{_size(jobs)}, in this order:")
    torch.set_num_threads(1)
    for job in jobs:
        budgets = ", ".join(f"{100 * budget:.4g} %" for budget in job.cell.budgets)
        print(f"{words(job.cell)}; budgets {budgets}; for {', '.join(job.figures)}")
        for configuration, kept, total in listed(job.cell):
            print(f"    culled {configuration:8} keeps {kept:>9,} of {total:,} units, {100 * kept / total:.4g} %")
        try:
            named = Worker(job.cell, ResultStore(cache_folder() / code_hash()), progress=False).name
            print("\n".join(f"    {named(arm)}  {arm}" for arm in job.arms))
        except DataError:
            print("\n".join(f"    (its data are not here)  {arm}" for arm in job.arms))
    print(_cost(jobs, out))


def _cost(jobs: list[plan.Job], out: list[str]) -> str:
    pace = {stage: seconds for place in out for stage, seconds in read_pace(Tables(place)).items()}
    seconds, unknown = 0.0, 0
    for job in jobs:
        at = [pace.get(kind(stage, job.cell)) for stage in ("base", "path", "finetune")]
        unknown += None in at
        if None not in at:
            tuned = sum(arm != "original" for arm in job.arms) * len(job.cell.budgets)
            seconds += at[0] + at[1] * (1 + ("control" in job.arms)) + at[2] * tuned
    if unknown:
        return f"Cost: not measured for {unknown} of {len(jobs)} cells (give --out with results of their kind)"
    long = f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{seconds:.0f} seconds"
    return f"Cost, from the results in {', '.join(out)}: {long} of one process, measuring left out"


@app.command
def status(
    figure: Annotated[str | None, says("Count this one panel by panel; by default all, a line each.")] = None,
    /,
    *,
    out: Results = (),
    profile: Profile | None = None,
    seeds: Seeds = None,
) -> None:
    """Show what is computed of every figure, or of each panel of one, in the folders given, the cache and the book."""
    every = figure in (None, "all")
    parts = [(one.name, one) for one in plan.figures().values()] if every else results.by_panel(_one(figure))
    places = [*out, *(str(place) for place in (cache_folder() / code_hash() / "results", BOOK) if place.is_dir())]
    found, lines = results.brief(results.collect(places)), []
    print("looked in " + ", ".join(f"{place} ({Tables(place).megabytes():.1f} MB)" for place in places))
    with warnings.catch_warnings(record=True, action="always", category=OtherTeacher) as caught:
        for (title, part), name in product(parts, [profile] if profile else plan.PROFILE_NAMES):
            one = results.status(part, name, found, seeds=seeds)
            if one.done or one.failed or profile:
                counts = {"done": one.done, "missing": one.missing, "failed": one.failed}
                counts |= {"complete seeds": len(one.seeds), "hours": round(one.hours, 1)}
                lines.append({"figure": title, "profile": name} | counts | {"device": ", ".join(one.devices)})
    if several := {str(one.message).partition(":")[0] for one in caught}:
        text = f"{len(several)} seeds have several original networks; those with the most arms count"
        warnings.warn(text, OtherTeacher, stacklevel=1)
    if lines:
        table = pd.DataFrame(lines)
        if not every:  # their names are long
            names = table.pop("figure")
            long = names.str.len().max()
            table["panel".ljust(long)] = names.str.ljust(long)
        print(re.sub(" +$", "", table.to_string(index=False), flags=re.MULTILINE))
    if absent := [title for title, _ in parts if title not in {line["figure"] for line in lines}]:
        print(f"nothing computed of {', '.join(absent)}")


@app.command
def run(
    figure: Figure,
    /,
    *,
    which: Which = Which(),
    out: Annotated[str, says("Where results go; what is there is not computed.")],
    known: Annotated[tuple[str, ...], several("Leave out cells and arms whose rows are in this folder")] = (),
    minutes: Annotated[float | None, ranged(float, 0, 1e6, MINUTES, above=True)] = None,
    jobs: Annotated[int, ranged(int, 1, 1024, "Processes.")] = 1,
    threads: Annotated[int, ranged(int, 1, 1024, "CPU threads of each process.")] = 1,
    cache: Annotated[str | None, says("Where checkpoints go; by default LINFAIR_CACHE, or ~/.cache.")] = None,
    keep_checkpoints: Annotated[bool, says("Keep those of mask paths that nothing missing needs.")] = False,
    engine: Annotated[Literal["local", "ray"], says("This machine, or a Ray cluster.")] = "local",
    address: Annotated[str | None, says("The Ray cluster's; by default Ray is started here.")] = None,
    gpus: Annotated[float | None, ranged(float, 0, 1024, GPUS)] = None,
    progress: Annotated[bool, Parameter(help="Show a progress bar.")] = True,
) -> None:
    """Compute what is missing of a figure."""
    if which.device == "cuda" and engine == "local" and not torch.cuda.is_available():
        raise plan.DefinitionError("--device cuda was asked for, but torch sees no GPU here; use --device cpu")
    if engine == "local" and (address or gpus is not None):
        raise plan.DefinitionError(f"--address {address} and --gpus {gpus} go with --engine ray; leave them out")
    check_precision(which.profile, which.precision, which.device)
    cells, remote = which.jobs(figure), engine == "ray" and "://" in out
    out = str(_at(out, there=False) if remote else options.output("--out", out, alone=False))
    cache = str(options.cache(cache)) if cache or engine == "local" else None
    print(f"{figure}, profile {which.profile}: {plan.find_profile(which.profile).about}")
    if known:
        every, cells = len(cells), results.missing(cells, results.collect(map(_at, known)))
        print(f"{every - len(cells)} of {every} cells are complete in {', '.join(known)}")
    print(f"{_size(cells)} -> {out}", flush=True)
    shared = {"minutes": minutes, "cache": cache, "progress": progress, "keep": keep_checkpoints, "threads": threads}
    shared["say"] = lambda line: print(line, flush=True)
    if engine == "ray":
        gpus = float(which.device == "cuda") if gpus is None else gpus
        run_on_ray(cells, out, address=address, gpus=gpus, **shared)
    else:
        run_jobs(cells, out, workers=jobs, **shared)


@app.command
def merge(*, out: Results, into: Into) -> None:
    """Put the results of folders into a few files of another."""
    into = _at(into, there=False) if "://" in into else options.output("--into", into)
    changed = results.merge(results.collect(map(_at, out)), into)
    print("\n".join(f"wrote {path}" for path in changed) or f"{into} holds these rows already")


@app.command
def table(figure: Figure, /, *, profile: Profile = "smoke", seeds: Seeds = None, out: Results, to: File = None) -> None:
    """Show a figure's numbers, or write its rows to a file."""
    one = _one(figure)
    to = options.output("--to", to, ".parquet", ".csv") if to else None
    rows = results.gather(one, profile, results.collect(map(_at, out)), seeds=seeds)
    if to:
        print(save_table(rows, to))
        return
    print(f"{one.figure}: {one.title}. {one.shows}\n{plan.QUANTITIES[one.quantity]} on {one.split}")
    for title, means in results.summary(rows, one).items():
        print(f"\n{title}\n{text(means, digits=2).to_string(index=False)}")
    lost = rows[rows["diverged"]] if "diverged" in rows else rows[:0]
    for (panel, arm, budget), part in lost.groupby(["panel", "arm", "budget"], sort=False):
        print(f"diverged, left out: {panel}, {arm} at {100 * budget:g} %, seeds {sorted(part['seed'].unique())}")
    codes = sorted(rows["code"].dropna().unique()) if "code" in rows else []
    if codes and codes != [code_hash()]:
        tell(f"computed by code {', '.join(codes)}; the present code is {code_hash()}")


@app.command
def compare(
    figure: Figure,
    /,
    *,
    profile: Profile = "smoke",
    other_profile: Annotated[Profile | None, says("The others', if it is not the same.")] = None,
    seeds: Seeds = None,
    out: Results,
    other: Annotated[tuple[str, ...], several("A folder to compare with; by default the book's")] = (),
) -> None:
    """Say whether two results of a figure are the same; exit with 1 unless they are the same or equivalent."""
    one = _one(figure)
    places = {"mine": (out, profile), "other": (other or [str(BOOK)], other_profile or profile)}
    rows = [(size, results.collect(map(_at, where))) for where, size in places.values()]
    tables = [results.gather(one, size, found, seeds=seeds) for size, found in rows]
    found = compared(*tables, names=("mine", "other"))
    for name, (where, size) in places.items():
        print(f"{name}: {', '.join(where)}, profile {size}")
    print(found.counts.to_string())
    shown = {"index": False, "float_format": lambda value: f"{value:.2g}", "na_rep": ""}
    if not found.columns.empty:
        print(found.columns.to_string(**shown))
        print(f"margin {found.equivalence.margin:g} points, {found.equivalence.status}; the farthest:")
        print(found.equivalence.farthest.to_string(**shown))
    if not found.same and not found.equivalence.shown:
        raise StudyFailed("not shown to be the same")
