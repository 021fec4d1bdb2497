"""A figure's grid as notebook 08 shows it: compute what time allows, read what is there, say what is missing.

Cells, arms and the order come from `linfair.study.plan`, results from any folders (`linfair.study.results`).
Figures are drawn by role, majority and minority by training images: the mean over a role's groups within a seed, then
over seeds. That is what the paper's panels of ten classes need too, where CIFAR-10's five minority classes tie.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from linfair.paths import cache_folder
from linfair.study.jobs import StudyFailed
from linfair.study.plan import Figure, find, find_profile, panels_of, plan
from linfair.study.recipes import recipe
from linfair.study.results import Status, collect, gather, status, values
from linfair.study.runner import run_jobs
from linfair.study.store import code_hash
from linfair.study.tables import over_seeds


def results_folder(out: str) -> Path:
    """The folder of a sweep's results: the one that is named, else one of the present code in the user's cache."""
    return Path(out).expanduser() if out else cache_folder() / code_hash() / "sweeps"


def compute(
    figure: str,
    profile: str,
    out: str | Path,
    *,
    seeds: int,
    device: str = "cpu",
    minutes: float | None = None,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Compute what is missing of a figure, as `linfair study run` does; a failure is returned, not raised.

    Args:
        figure: Its name, such as `fig06`.
        profile: `smoke`, `small`, `fast` or `paper`.
        out: Folder of the results.
        seeds: From 0.
        device: `cpu` or `cuda`.
        minutes: Start no stage that would not end within these; None is no limit, 0 computes nothing.
        progress: Show a progress bar.
        say: Prints one line.

    Returns:
        What failed, a line for each; empty if nothing did.

    Raises:
        DefinitionError: If there is no such figure or profile.
    """
    jobs = plan(find(figure), profile, seeds=seeds, device=device)
    if minutes == 0:
        return []
    try:
        run_jobs(jobs, out, minutes=minutes, progress=progress, say=say)
    except StudyFailed as failed:
        return str(failed).splitlines()
    return []


def read(figure: str, profile: str, out: str | Path, *, seeds: int) -> tuple[pd.DataFrame | None, Status]:
    """The rows of a figure and how far it is, from its folder and the book's committed results.

    Args:
        figure: Its name.
        profile: Its profile.
        out: Folder of the results.
        seeds: From 0.

    Returns:
        Rows as from `linfair.study.results.gather`, None if there are none, and the figure's status.
    """
    committed = Path(__file__).parent.parent.parent / "book" / "results"
    [found] = find(figure)
    rows = collect([str(place) for place in (out, committed) if Path(place).is_dir()])
    how_far = status(found, profile, rows, seeds=seeds)
    try:
        table = gather(found, profile, rows, seeds=seeds)
    except ValueError:
        return None, how_far
    return table, how_far


def how_complete(how_far: Status, seeds: int) -> str:
    """What a figure rests on, in one line; an incomplete one says how many seeds it has.

    Args:
        how_far: From `read`.
        seeds: How many were asked for.

    >>> done = Status("fig06", "smoke", 6, 0, 0, (0, 1), ("CPU (x86_64, 1 thread)",))
    >>> how_complete(done, 2)
    'complete: 2 seeds, profile smoke, CPU (x86_64, 1 thread)'
    >>> how_complete(Status("fig06", "fast", 5, 14, 1, (0,), ("H200",)), 10)
    'incomplete: 1 of 10 seeds has every arm of every panel; 5 arms are there, 14 missing, 1 failed; profile fast, H200'
    """
    count, on = len(how_far.seeds), ", ".join(how_far.devices) or "nothing computed"
    if count == seeds:
        return f"complete: {count} seeds, profile {how_far.profile}, {on}"
    verb = "has" if count == 1 else "have"
    return (
        f"incomplete: {count} of {seeds} seeds {verb} every arm of every panel; {how_far.done} arms are there, "
        f"{how_far.missing} missing, {how_far.failed} failed; profile {how_far.profile}, {on}"
    )


def seeds_of_panels(table: pd.DataFrame | None, figure: Figure, profile: str) -> dict[str, int]:
    """How many seeds of each panel have every arm, the panels in their order.

    Args:
        table: Rows of `read`, None if there are none.
        figure: The figure they belong to.
        profile: Its profile.
    """
    found = {}
    for panel in panels_of(figure, find_profile(profile)):
        part = (
            table[table["panel"].isin([panel.title, panel.of_subset.title])]
            if table is not None
            else pd.DataFrame({"seed": [], "arm": []})
        )
        found[panel.title] = sum(set(panel.arms) <= set(arms) for _, arms in part.groupby("seed")["arm"])
    return found


def panel_lines(counts: Mapping[str, int], seeds: int) -> list[str]:
    """What is there of each panel, a line each; panels without a whole seed are counted in the last one.

    >>> panel_lines({"a": 4, "b": 0, "c": 0}, 5)
    ['a: 4 of 5 seeds', '2 other panels: no seed has every arm yet']
    """
    lines = [f"{title}: {count} of {seeds} seeds" for title, count in counts.items() if count]
    empty = sum(not count for count in counts.values())
    panels = f"{empty} {'other ' * bool(lines)}panel{'s' * (empty > 1)}"
    return [*lines, f"{panels}: no seed has every arm yet"] if empty else lines


def stand_in(profile: str) -> str:
    """One sentence for profiles in which other data or thin networks stand in for the paper's; else empty."""
    chosen = find_profile(profile)
    if not chosen.data and recipe("resnet18", profile).width is not None:
        return f"**Stand-in.** Thin networks stand in for the paper's: {chosen.about}."
    if not chosen.data:
        return ""
    return f"**Stand-in.** {chosen.data.capitalize()} and small networks stand in for the paper's: {chosen.about}."


def begun(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of panels that have more than the originals they share with others; all rows if none has.

    Args:
        table: Rows of `read`.
    """
    more = table.groupby("panel")["arm"].transform("nunique") > 1
    return table[more] if more.any() else table


def by_role(table: pd.DataFrame, figure: Figure) -> pd.DataFrame:
    """What a figure shows, for each role: the mean over the role's groups in each seed, over seeds with 95 % interval.

    Args:
        table: Rows of `read`.
        figure: The figure they belong to.

    Returns:
        A row for each `panel`, `arm`, `budget` and `role`, with `n_seeds`, `mean`, `low`, `high`.
    """
    parts, rows = [], begun(table[table["split"] == figure.split])
    for title, part in rows.groupby("panel", sort=False):
        shown = values(part, figure.quantity).dropna(subset=["value"])
        one = shown.groupby(["arm", "budget", "role", "seed"], sort=False, as_index=False)["value"].mean()
        parts.append(over_seeds(one, "value", ["arm", "budget", "role"]).assign(panel=title))
    means = pd.concat(parts, ignore_index=True)
    return means[["panel", "arm", "budget", "role", "n_seeds", "mean", "low", "high"]]
