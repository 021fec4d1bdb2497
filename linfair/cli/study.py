"""What `linfair study list`, `show`, `status`, `run`, `merge`, `table` and `compare` print and do."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pandas as pd
import torch

from linfair.data import DataError
from linfair.paths import cache_folder, whole
from linfair.study.cell import Worker
from linfair.study.compare import compare
from linfair.study.grids import listed
from linfair.study.jobs import StudyFailed, kind, read_pace, words
from linfair.study.plan import (
    PROFILE_NAMES,
    QUANTITIES,
    DefinitionError,
    Job,
    figures,
    find,
    find_profile,
    plan,
    read_profiles,
)
from linfair.study.recipes import check_precision
from linfair.study.results import collect, gather, merge, missing, status, summary
from linfair.study.store import ResultStore, Tables, code_hash
from linfair.study.tables import text


def list_figures(options: Namespace) -> None:
    """Print every figure with its panels, and how many cells and arms each profile has."""
    for profile in read_profiles().values():
        print(f"{profile.name:7} {profile.about} ({profile.seeds} seeds)")
    for figure in figures().values():
        sizes = []
        for profile in read_profiles():
            jobs = plan([figure], profile)
            sizes.append(f"{profile} {len(jobs)} cells, {sum(len(job.arms) for job in jobs)} arms")
        print(f"\n{figure.name}  {figure.figure}: {figure.title}\n    {figure.shows}\n    {'; '.join(sizes)}")
        for panel in figure.panels:
            print(f"    {panel.title}: {', '.join(panel.arms)}")
    print("\nRun one with: linfair study run fig06 --profile smoke --out DIR")


def list_options(parser: ArgumentParser) -> None:
    """Add nothing."""


def show(options: Namespace) -> None:
    """Print a figure's cells, arms and names, and what is known about their cost."""
    jobs = _jobs(options)
    for figure in find(options.figure):
        print(f"{figure.name}  {figure.figure}: {figure.title}\n{figure.shows}")
        print(f"shows {QUANTITIES[figure.quantity]} on {figure.split}; serves the claims {', '.join(figure.claims)}")
    if find_profile(options.profile).data:
        print(f"profile {options.profile}: {find_profile(options.profile).about}; a stand-in for the paper's data")
    print(f"{len(jobs)} cells, {sum(len(job.arms) for job in jobs)} arms, in this order:")
    torch.set_num_threads(1)
    for job in jobs:
        budgets = ", ".join(f"{100 * budget:.4g} %" for budget in job.cell.budgets)
        print(f"{words(job.cell)}; budgets {budgets}; for {', '.join(job.figures)}")
        for configuration, kept, total in listed(job.cell):
            print(f"    culled {configuration:8} keeps {kept:>9,} of {total:,} units, {100 * kept / total:.4g} %")
        for arm, name in zip(job.arms, _names(job), strict=True):
            print(f"    {name}  {arm}")
    print(_cost(jobs, options.out))


def _names(job: Job) -> list[str]:
    try:
        worker = Worker(job.cell, ResultStore(cache_folder() / code_hash()), progress=False)
        return [worker.name(arm) for arm in job.arms]
    except DataError:
        return ["(its data are not here)"] * len(job.arms)


def _cost(jobs: list[Job], out: list[str]) -> str:
    pace = {}
    for place in out:
        pace |= read_pace(Tables(place))
    seconds, unknown = 0.0, 0
    for job in jobs:
        cell = job.cell
        at = [pace.get(kind(stage, cell)) for stage in _STAGES]
        unknown += None in at
        if None not in at:
            tuned = sum(arm != "original" for arm in job.arms) * len(cell.budgets)
            seconds += at[0] + at[1] * (1 + ("control" in job.arms)) + at[2] * tuned
    if unknown:
        return f"Cost: not measured for {unknown} of {len(jobs)} cells (give --out with results of their kind)"
    long = f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{seconds:.0f} seconds"
    return f"Cost, from the results in {', '.join(out)}: {long} of one process, measuring left out"


_STAGES = ("base", "path", "finetune")


def show_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair study show`."""
    _figure_options(parser)
    parser.add_argument("--out", metavar="DIR", action="append", default=[], help="results that tell the cost (repeat)")


def show_status(options: Namespace) -> None:
    """Print how far every figure is, from the folders given, the cache and the book's results."""
    places = [*options.out, *_own_places()]
    found = collect(places)
    print("looked in " + ", ".join(places))
    profiles = [options.profile] if options.profile else PROFILE_NAMES
    lines = []
    for figure in figures().values():
        for profile in profiles:
            one = status(figure, profile, found, seeds=options.seeds)
            if one.done or one.failed or options.profile:
                seeds = len(one.seeds)
                lines.append([figure.name, profile, one.done, one.missing, one.failed, seeds, ", ".join(one.devices)])
    names = ["figure", "profile", "done", "missing", "failed", "complete seeds", "device"]
    if lines:
        print(pd.DataFrame(lines, columns=names).to_string(index=False))
    absent = [name for name in figures() if name not in {line[0] for line in lines}]
    if absent:
        print(f"nothing computed of {', '.join(absent)}")


def _own_places() -> list[str]:
    book = Path(__file__).parents[2] / "book" / "results"
    cached = cache_folder() / code_hash() / "results"
    return [str(place) for place in (cached, book) if place.is_dir()]


def status_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair study status`."""
    parser.add_argument("--out", metavar="DIR", action="append", default=[], help="a results folder (repeat for more)")
    parser.add_argument("--profile", choices=PROFILE_NAMES, help="this one, also where nothing is computed")
    parser.add_argument("--seeds", type=int, metavar="N", help="count N seeds as all (default: the profile's)")


def run(options: Namespace) -> None:
    """Compute what is missing of a figure."""
    if options.device == "cuda" and options.engine == "local" and not torch.cuda.is_available():
        raise DefinitionError("--device cuda was asked for, but torch sees no GPU here; use --device cpu")
    check_precision(options.profile, options.precision, options.device)
    jobs = _jobs(options)
    print(f"{options.figure}, profile {options.profile}: {find_profile(options.profile).about}")
    if options.known:
        every, jobs = len(jobs), missing(jobs, collect(options.known))
        print(f"{every - len(jobs)} of {every} cells are complete in {', '.join(options.known)}")
    print(f"{len(jobs)} cells, {sum(len(job.arms) for job in jobs)} arms -> {options.out}", flush=True)
    shared = {"minutes": options.minutes, "cache": options.cache, "progress": options.progress, "say": _say}
    shared["keep"] = options.keep_checkpoints
    if options.engine == "ray":
        from linfair.study.cluster import run_on_ray

        gpus = (1.0 if options.device == "cuda" else 0.0) if options.gpus is None else options.gpus
        run_on_ray(jobs, options.out, address=options.address, gpus=gpus, threads=options.threads, **shared)
    else:
        from linfair.study.runner import run_jobs

        run_jobs(jobs, options.out, workers=options.jobs, threads=options.threads, **shared)


def _say(line: str) -> None:
    print(line, flush=True)


def run_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair study run`."""
    _figure_options(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="where results go; what is there is not computed")
    parser.add_argument("--known", metavar="DIR", action="append", help="leave out cells whose rows are there (repeat)")
    parser.add_argument("--minutes", type=float, help="start no stage that would not end within these")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of each process (default: 1)")
    parser.add_argument("--cache", metavar="DIR", help="where checkpoints go (default: LINFAIR_CACHE, or ~/.cache)")
    parser.add_argument("--keep-checkpoints", action="store_true", help="also of mask paths that nothing missing needs")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--address", help="the Ray cluster's (default: start Ray here)")
    parser.add_argument("--gpus", type=float, metavar="X", help="Ray: GPUs of one cell, 0.25 for four on one GPU")
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")


def merge_results(options: Namespace) -> None:
    """Put the results of folders into a few files of another."""
    changed = merge(collect(options.out), options.into)
    print("\n".join(f"wrote {path}" for path in changed) or f"{options.into} holds these rows already")


def merge_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair study merge`."""
    parser.add_argument("--out", metavar="DIR", action="append", required=True, help="a results folder (repeat)")
    parser.add_argument("--into", metavar="DIR", required=True, help="a file for each data set, network and profile")


def show_table(options: Namespace) -> None:
    """Print what a figure shows, or write its rows to a file."""
    [figure] = find(options.figure) if options.figure != "all" else [None]
    if figure is None:
        raise DefinitionError("a table is one figure's: name it; `linfair study list` shows them")
    table = gather(figure, options.profile, collect(options.out), seeds=options.seeds)
    if options.to:
        path = Path(options.to)
        if path.suffix not in (".parquet", ".csv"):
            raise DefinitionError(f"--to {options.to}: the name must end in .parquet or .csv")
        with whole(path) as part:
            if path.suffix == ".csv":
                table.to_csv(part, index=False)
            else:
                table.to_parquet(part, index=False)
        print(path)
        return
    print(f"{figure.figure}: {figure.title}. {figure.shows}\n{QUANTITIES[figure.quantity]} on {figure.split}")
    for title, means in summary(table, figure).items():
        print(f"\n{title}\n{text(means, digits=2).to_string(index=False)}")
    lost = table[table["diverged"]] if "diverged" in table else table[:0]
    for (panel, arm, budget), part in lost.groupby(["panel", "arm", "budget"], sort=False):
        print(f"diverged, left out: {panel}, {arm} at {100 * budget:g} %, seeds {sorted(part['seed'].unique())}")
    codes = sorted(table["code"].dropna().unique()) if "code" in table else []
    if codes and codes != [code_hash()]:
        print(f"computed by code {', '.join(codes)}; the present code is {code_hash()}", file=sys.stderr)


def table_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair study table`."""
    parser.add_argument("figure", metavar="FIGURE", help="for example fig06")
    parser.add_argument("--profile", default="smoke", choices=PROFILE_NAMES)
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: the profile's)")
    parser.add_argument("--out", metavar="DIR", action="append", required=True, help="a results folder (repeat)")
    parser.add_argument("--to", metavar="FILE", help="write the rows there, .parquet or .csv, instead of their means")


def compare_results(options: Namespace) -> None:
    """Compare one's own results of a figure with others; a failure unless they are the same or equivalent."""
    [figure] = find(options.figure) if options.figure != "all" else [None]
    if figure is None:
        raise DefinitionError("results are compared figure by figure: name one; `linfair study list` shows them")
    book = [place for place in _own_places() if place.endswith("book/results")]
    places = {"mine": options.out, "other": options.other or book}
    profiles = {"mine": options.profile, "other": options.other_profile or options.profile}
    tables = [gather(figure, profiles[name], collect(places[name]), seeds=options.seeds) for name in places]
    found = compare(*tables, names=("mine", "other"))
    for name, where in places.items():
        print(f"{name}: {', '.join(where)}, profile {profiles[name]}")
    print(found.verdict)
    if not found.columns.empty:
        print(found.columns.to_string(index=False, float_format=lambda value: f"{value:.2g}", na_rep=""))
    if not found.same and not found.equivalence.shown:
        raise StudyFailed("not shown to be the same")


def compare_options(parser: ArgumentParser) -> None:
    """Add the options of `linfair study compare`."""
    parser.add_argument("figure", metavar="FIGURE", help="for example fig06")
    parser.add_argument("--profile", default="smoke", choices=PROFILE_NAMES)
    parser.add_argument("--other-profile", choices=PROFILE_NAMES, help="the others', if it is not the same")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: the profile's)")
    parser.add_argument("--out", metavar="DIR", action="append", required=True, help="one's own results (repeat)")
    parser.add_argument("--other", metavar="DIR", action="append", help="what to compare with (default: the book's)")


def _figure_options(parser: ArgumentParser) -> None:
    parser.add_argument("figure", metavar="FIGURE", help="for example fig06; all is every figure, in the queue's order")
    parser.add_argument("--profile", default="smoke", choices=PROFILE_NAMES, help="how large (default: smoke)")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default: the profile's)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", choices=("float32", "bf16"), help="of every training (default: the profile's)")
    for name in _PANEL:
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only panels with this {name} (default: all)")


_PANEL = ("data", "network", "method")


def _jobs(options: Namespace) -> list[Job]:
    only = {name: getattr(options, name) for name in _PANEL if getattr(options, name)}
    how = {name: getattr(options, name) for name in ("seeds", "device", "precision")}
    return plan(find(options.figure), options.profile, only=only, **how)
