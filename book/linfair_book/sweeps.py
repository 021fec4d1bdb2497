"""A figure's grid as notebook 08 shows it: compute what time allows, read what is there, say what is missing."""

from pathlib import Path

import pandas as pd

from linfair.engine.store import code_hash
from linfair.names import called
from linfair.paths import cache_folder
from linfair.study.jobs import StudyFailed
from linfair.study.plan import Figure, find, find_profile, panels_of, plan
from linfair.study.results import Status, collect, gather, status, values
from linfair.study.runner import run_jobs
from linfair.study.tables import over_seeds
from linfair_book.averages import mean_of_every
from linfair_book.build import repository
from linfair_book.tables import RESULTS


def results_folder(out: str) -> Path:
    """The folder of a sweep's results: the one that is named, else one of the present code in the user's cache."""
    return Path(out).expanduser() if out else cache_folder() / code_hash() / "sweeps"


def compute(figure: str, profile: str, out: str | Path, *, seeds: int, device: str = "cpu", **how: object) -> list[str]:
    """Compute what is missing of a figure (nothing in 0 minutes), as `run_jobs`; returns lines on what failed."""
    jobs = plan(find(figure), profile, seeds=seeds, device=device)
    if how.get("minutes") == 0:
        return []
    try:
        run_jobs(jobs, out, **how)
    except StudyFailed as failed:
        return str(failed).splitlines()
    return []


def read(figure: str, profile: str, out: str | Path, *, seeds: int) -> tuple[pd.DataFrame | None, Status]:
    """The rows of a figure, None if there are none, and its status, from its folder and the committed tables."""
    [found] = find(figure)
    rows = collect([str(folder) for folder in (out, repository() / RESULTS) if Path(folder).is_dir()])
    how_far = status(found, profile, rows, seeds=seeds)
    try:
        return gather(found, profile, rows, seeds=seeds), how_far
    except ValueError:
        return None, how_far


def how_complete(how_far: Status, seeds: int) -> str:
    """What a figure rests on, in one line; an incomplete one says how many of the seeds it has."""
    count, on = len(how_far.seeds), ", ".join(how_far.devices) or "nothing computed"
    done, missing, failed = how_far.done, how_far.missing, how_far.failed
    arms = f"seeds with every arm: {count} of {seeds}; arms: {done} there, {missing} missing, {failed} failed"
    said = f"complete: {count} seeds" if count == seeds else f"incomplete: {arms}"
    return f"{said}{',' if count == seeds else ';'} profile {how_far.profile}, {on}"


def seeds_of_panels(table: pd.DataFrame | None, figure: Figure, profile: str) -> dict[str, int]:
    """How many seeds of each panel have every arm, the panels in their order; `table` is that of `read`."""
    found = {}
    table = pd.DataFrame({"panel": [], "seed": [], "arm": []}) if table is None else table
    for panel in panels_of(figure, find_profile(profile)):
        part = table[table["panel"].isin([panel.title, panel.of_subset.title])]
        found[panel.title] = sum(set(panel.arms) <= set(arms) for _, arms in part.groupby("seed")["arm"])
    return found


def in_words(panel: str) -> str:
    """The title of a panel in a reader's words; what it stands in for is left out.

    >>> in_words("utkface_age, resnet18, snl (stand-in for resnet18 of full width)")
    'faces by age, ResNet18, SNL'
    """
    return ", ".join(map(called, panel.partition(" (stand-in")[0].split(", ")))


def begun(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of panels that have more than the originals they share with others; all rows if none has."""
    more = table.groupby("panel")["arm"].transform("nunique") > 1
    return table[more] if more.any() else table


def by_role(table: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    """For each panel, arm, budget and role: the mean over the role's groups in each seed, then over seeds."""
    by, rows = ["panel", "arm", "budget", "role"], begun(table[table["split"] == figure.split])
    parts = [values(part, figure.quantity) for _, part in rows.groupby("panel", sort=False)]
    each = mean_of_every(pd.concat(parts).groupby([*by, "seed"], sort=False)["value"])
    return over_seeds(each.dropna().reset_index(), "value", by)
