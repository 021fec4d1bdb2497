"""Groups with names of their own: faces keep their group in every seed, so each has a line, not only its role.

For a group a, a budget and a seed, with accuracies A in per cent of the original, linearized and control network,

    drop_a = A_original - A_linearized,    drop_a - drop_a of the control = A_control - A_linearized   (points).

What the control loses is training, what is left is linearization. Means over seeds, with 95 % t intervals of values
taken within a seed.

`python -m linfair_book.faces --out DIR` computes what notebook 12 shows (hours on a CPU; it stops and goes on like any
study) and writes the table that the book keeps.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from linfair.study import arms as known_arms
from linfair.study.cell import OtherTeacher
from linfair.study.plan import find, plan
from linfair.study.recipes import CURVATURE
from linfair.study.results import collect
from linfair.study.runner import run_jobs
from linfair.study.tables import SIDES, by_role, disparity, drops, one_teacher, over_seeds, overall, paired, sides, text
from linfair.study.work import StudyFailed
from linfair_book import mitigation, predictors, why
from linfair_book.claims import Page

FACES = "utkface_race_thin"
"""The committed rows of faces: UTKFace by race, a ResNet18 of width 8, SNL, profile `thin`."""

AGES = "utkface_age_thin"
"""The same faces by age, likewise."""

REPAIR = "lagrangian(mu=0.02)"
"""Algorithm 1 in five epochs. Multipliers grow by mu times the violation once an epoch: five with mu = 0.02 take them
where a hundred with the released 0.001 do."""

REPAIRS = {REPAIR: "Algorithm 1", "kd_over_c": "KD / C", "balanced_sampling": "balanced"}
"""The repairs of notebook 12, as figures write them; the book's rows have the first."""

ARMS = (*known_arms.ARMS, *REPAIRS)
"""The arms of notebook 12."""

KNOWN = tuple(one for one in predictors.PREDICTORS if one.name != "top eigenvalue")
"""What is known of every group in the original network. Of the eigenvalue few seeds have rows."""

ARM_NAMES = {"plain": "linearized", "control": "control", "minus control": "linearized minus control"}


def compute(
    data: str,
    out: str | Path,
    *,
    seeds: int,
    arms: Sequence[str] = ARMS,
    curvature: str | None = None,
    device: str = "cpu",
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Compute what is missing in a folder, ResNet18 with SNL in profile `thin`; then its rows.

    Args:
        data: Name of the data set, one of Fig. 6's.
        out: Folder of the results.
        seeds: How many, from 0.
        arms: Which arms, as `linfair.study.arms` writes them.
        curvature: Whose Hessian eigenvalues are computed, see `linfair.study.grids.Cell`; None is the profile's.
        device: `cpu` or `cuda`.
        workers: Processes.
        say: Prints one line.

    Raises:
        ValueError: If there is no such arm; nothing has been computed then.
        StudyFailed: If a cell failed, for example because its data are not here.
    """
    chosen = tuple(map(known_arms.canonical, arms))
    only = {"data": data, "network": "resnet18", "method": "snl"}
    jobs = [
        replace(job, cell=replace(job.cell, curvature=curvature or job.cell.curvature), arms=chosen)
        for job in plan(find("fig06"), "thin", seeds=seeds, device=device, only=only)
    ]
    run_jobs(jobs, out, workers=workers, say=say)
    return rows_in(out, data)


def rows_in(out: str | Path, data: str) -> pd.DataFrame:
    """The rows of one data set in a folder of results, in an order that does not depend on files.

    Args:
        out: Folder of the results.
        data: Name of the data set.

    Raises:
        ValueError: If there are none.
    """
    rows = collect([str(out)]).rows
    rows = rows[rows["data"] == data] if len(rows) else rows
    if rows.empty:
        raise ValueError(f"{out} has no rows of {data}; `python -m linfair_book.faces --out {out}` computes them")
    rows, others = one_teacher(rows)
    for line in others:
        warnings.warn(line, OtherTeacher, stacklevel=2)
    by = ["seed", "method", "arm", "budget", "split", "group"]
    return rows.sort_values(by, ascending=[True, True, True, False, True, True], ignore_index=True)


def committed(name: str = FACES) -> pd.DataFrame:
    """Rows of a study that come with the book.

    Args:
        name: Name of a file in `book/results`.

    Raises:
        FileNotFoundError: If the book has no such rows; says what it has.
    """
    folder = Path(__file__).parents[2] / "book" / "results"
    path = folder / f"{Path(name).stem}.parquet"
    if not path.is_file():
        there = ", ".join(sorted(one.stem for one in folder.glob("*.parquet")))
        raise FileNotFoundError(f"the book has no rows {name!r}; it has {there}")
    return pd.read_parquet(path)


def unrepaired(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the original, plain and control networks alone."""
    return table[table["arm"].isin(known_arms.ARMS)]


def repairs_in(table: pd.DataFrame) -> dict[str, str]:
    """Those of `REPAIRS` that a table has."""
    return {way: name for way, name in REPAIRS.items() if way in set(table["arm"])}


def sizes(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Training images and images of a split of each group, mean over seeds, the largest group first.

    Args:
        table: Rows of a study whose groups keep their names.
        split: Which split.

    Returns:
        A row for each group: `group_name`, `role`, `n_train`, `n`.

    Raises:
        ValueError: If a group changes its role from seed to seed, as digits do: those are compared by role.
    """
    part = table[(table["split"] == split) & (table["arm"] == "original")]
    roles = part.groupby("group_name")["role"].unique()
    if changing := sorted(name for name, found in roles.items() if len(found) > 1):
        raise ValueError(f"groups {', '.join(changing)} change their role from seed to seed: compare roles instead")
    found = part.groupby(["group_name", "role"], as_index=False)[["n_train", "n"]].mean()
    return found.sort_values("n_train", ascending=False, ignore_index=True)


def described(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """The groups for reading, the largest first: images, and how accurate the original network is on each.

    Args:
        table: Rows of a study whose groups keep their names.
        split: Which split is tested on.
    """
    groups = sizes(table, split=split)
    part = table[(table["arm"] == "original") & (table["split"] == split)]
    part = part.assign(accuracy=100 * part["accuracy"])
    means = text(over_seeds(part, "accuracy", ["group_name"])).set_index("group_name")["mean [95 % interval]"]
    return pd.DataFrame(
        {
            "group": groups["group_name"],
            "role": groups["role"],
            "training images": groups["n_train"].map("{:,.0f}".format),
            "test images": groups["n"].map("{:,.0f}".format),
            "original's accuracy (%)": groups["group_name"].map(means),
        }
    )


def group_drops(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Accuracy drop of each group in points: linearized, in the control, and one minus the other.

    Args:
        table: Rows with the arms `original`, `plain` and `control` of one method.
        split: Which split.

    Returns:
        A row for each (group, of, budget): `group_name`, `of` (a key of `ARM_NAMES`), `budget`, `n_seeds`, `mean`,
        `low`, `high`; the largest group first.
    """
    order = list(sizes(table, split=split)["group_name"])
    pairs = {"plain": ("plain", "original"), "control": ("control", "original"), "minus control": ("plain", "control")}
    changes = [paired(table, arm=arm, against=other, split=split).assign(of=of) for of, (arm, other) in pairs.items()]
    lost = pd.concat(changes).assign(drop=lambda rows: -rows["value"])
    return _in_order(over_seeds(lost, "drop", ["group_name", "of", "budget"]), order)


def group_changes(table: pd.DataFrame, ways: Sequence[str], *, split: str = "test") -> pd.DataFrame:
    """Change of each group's accuracy against plain fine-tuning at the same budget and seed, in points.

    Args:
        table: Rows with the arms `plain` and those compared with it.
        ways: Mitigations, as `linfair_book.mitigation` writes them.
        split: Which split.

    Returns:
        A row for each (way, group, budget): `way`, `group_name`, `budget`, `n_seeds`, `mean`, `low`, `high`.
    """
    order = list(sizes(table, split=split)["group_name"])
    found = mitigation.compared(table, split=split, pooled="group")
    return _in_order(found[found["way"].isin(ways)], order)


def _in_order(means: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    place = means["group_name"].map(list(groups).index)
    return (
        means.assign(place=place)
        .sort_values(["place", "budget"], ascending=[True, False], kind="stable", ignore_index=True)
        .drop(columns="place")
    )


def said(means: pd.DataFrame, *, more: str, less: str) -> str:
    """One sentence a budget: for which groups the whole interval is above 0, for which below, for which neither.

    Args:
        means: Rows with `group_name`, `budget`, `n_seeds`, `mean`, `low`, `high`, in points.
        more: What an interval above 0 means, for example `lose`.
        less: What one below 0 means.

    >>> row = {"group_name": "Others", "budget": 0.2, "n_seeds": 5, "mean": 4.0, "low": 2.0, "high": 6.0}
    >>> said(pd.DataFrame([row]), more="lose", less="gain")
    'At 20 % (5 seeds) lose: Others 4.0 [2.0, 6.0].'
    """
    sentences = []
    for budget, part in means.groupby("budget", sort=False):
        part = sides(part)
        words = []
        for kind, side in zip((more, less, SIDES[2]), SIDES, strict=True):
            chosen = part[part["side"] == side]
            listed = [f"{row.group_name} {row.mean:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in chosen.itertuples()]
            words += [f"{kind}: {', '.join(listed)}"] * bool(listed)
        seeds = f"{part['n_seeds'].min()} seeds"
        sentences.append(f"At {100 * budget:g} % ({seeds}) {'; '.join(words)}.")
    return " ".join(sentences)


def drops_verdict(table: pd.DataFrame, *, split: str = "test") -> str:
    """Who loses beyond the control, group by group.

    Args:
        table: Rows with the arms `original`, `plain` and `control` of one method.
        split: Which split.
    """
    drops = group_drops(table, split=split)
    beyond = said(drops[drops["of"] == "minus control"], more="lose", less="gain")
    return f"**Verdict.** Beyond what the control loses, in points. {beyond}"


def repairs_verdict(changes: pd.DataFrame) -> str:
    """Which groups each repair helps and which it costs.

    Args:
        changes: From `group_changes`, of `REPAIRS`.
    """
    ways = changes.groupby("way", sort=False)
    texts = [f"*{REPAIRS[way]}*: {said(part, more='gain', less='lose')}" for way, part in ways]
    return f"**Verdict**, in points. {' '.join(texts)}" if texts else "These rows have no mitigation."


def note_all(page: Page, table: pd.DataFrame, *, prefix: str = "faces") -> None:
    """Record the numbers of notebook 12 that claims rest on, each with its interval and n.

    Args:
        page: The notebook's.
        table: Its rows, every arm.
        prefix: First word of the names, one for each data set.
    """
    plain = unrepaired(table)
    pooled = drops(by_role(plain))
    gaps = disparity(pooled, split="test")
    gaps = gaps[gaps["of"] == "plain minus control"]
    page.note_means(f"{prefix} disparity minus control", gaps, unit="points", digits=1)
    beyond = group_drops(plain)
    for group, part in beyond[beyond["of"] == "minus control"].groupby("group_name", sort=False):
        page.note_means(f"{prefix} drop of {group} minus control", part, unit="points", digits=1)
    whole = drops(overall(plain))
    whole = whole[(whole["split"] == "test") & (whole["arm"] == "plain")]
    page.note_means(f"{prefix} overall drop", over_seeds(whole, "drop", ["budget"]), unit="points", digits=1)
    for name, column, split in (
        ("gradient norm", "gradient_norm", "train"),
        ("top eigenvalue", "top_eigenvalue", "train"),
        ("margin", "margin", "test"),
    ):
        if column != "top_eigenvalue" or why.has_eigenvalues(plain):
            found = why.role_ratios(plain, column, split=split)
            page.note_means(f"{prefix} {name} minority over majority", found, digits=2)
    for role, part in why.against_original(plain, "gradient_norm", split="train").groupby("role", sort=False):
        page.note_means(f"{prefix} gradient norm of the {role} against the original", part, digits=2)
    moved = plain[plain["arm"] == "plain"].drop_duplicates(["seed", "budget"])
    page.note_means(f"{prefix} relative distance", over_seeds(moved, "relative_distance", ["budget"]), digits=3)
    rows = predictors.group_rows(plain, split="test")
    for outcome, known in (("drop", KNOWN), ("accuracy", why.OWN)):
        found = predictors.correlations(rows, outcome=outcome, predictors=known)
        for name, part in found[found["statistic"] == "alone"].groupby("predictor", sort=False):
            page.note_means(f"{prefix} {outcome} and {name}", part, digits=2)
    for column, words, unit in (("relative", "relative change", "%"), ("points", "change", "points")):
        found = mitigation.compared(table, split="test", column=column)
        for (way, role), part in found.groupby(["way", "group_name"], sort=False):
            name, _, _ = way.partition("(")
            page.note_means(f"{prefix} {name} {role} {words}", part, unit=unit, digits=1)
    each = group_changes(table, ARMS)
    for (way, group), part in each.groupby(["way", "group_name"], sort=False):
        name, _, _ = way.partition("(")
        page.note_means(f"{prefix} {name} change of {group}", part, unit="points", digits=1)


def main(arguments: list[str] | None = None) -> None:
    """Compute rows of notebook 12 and write the book's table."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.faces", description=main.__doc__)
    parser.add_argument("--data", default="utkface_race", help="data set (default: utkface_race)")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--arms", nargs="+", default=ARMS, help=f"arms (default: {' '.join(ARMS)})")
    parser.add_argument("--curvature", choices=CURVATURE, help="whose Hessian eigenvalues (default: the original's)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the results; what is there stays")
    parser.add_argument("--to", type=Path, help="file to write (default: book/results/DATA_thin.parquet)")
    given = parser.parse_args(arguments)
    options = {"arms": given.arms, "curvature": given.curvature, "workers": given.jobs}
    try:
        table = compute(given.data, given.out, seeds=given.seeds, **options)
    except (ValueError, StudyFailed) as error:
        parser.exit(1, f"{error}\n")
    place = given.to or Path(f"book/results/{given.data}_thin.parquet")
    place.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(place, index=False, compression="zstd")
    print(place)


if __name__ == "__main__":
    main()
