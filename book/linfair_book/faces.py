"""Groups with names of their own: faces keep their group in every seed, so each has a line, not only its role."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from linfair.study.arms import ARMS
from linfair.study.plan import find, plan
from linfair.study.results import collect, gather
from linfair.study.runner import run_jobs
from linfair.study.tables import one_teacher, over_seeds, text
from linfair_book import mitigation, predictors, tables
from linfair_book.averages import paired

AGES = "utkface_age"  # the second data set of the page
REPAIR = "lagrangian(mu=0.02)"
"""Algorithm 1 in five epochs. Multipliers grow by mu times the violation once an epoch: five with mu = 0.02 take them
where a hundred with the released 0.001 do."""

REPAIRS = {REPAIR: "Algorithm 1", "kd_over_c": "KD / C", "balanced_sampling": "balanced"}
"""The repairs of notebook 12, as figures write them; the book's rows have the first."""

WIDE = {
    "race": {"width 8": ("race_thin", 8), "width 16": ("race_cpu", 16), "full width": ("race_cpu", 64)},
    "age": {"width 8": ("age_thin", 8), "width 16": ("age_cpu", 16)},
}
"""ResNet18 by race and by age, as figures write it -> the table with its rows, and its width."""

ROLES = pd.DataFrame({"group_name": ["majority", "minority"], "role": ["majority", "minority"]})
"""The two roles as groups, for figures of classes that are pooled."""

KNOWN = tuple(one for one in predictors.PREDICTORS if one.name != "top eigenvalue")
"""What is known of every group in the original network. Of the eigenvalue few seeds have rows."""


def compute(data: str, out: str | Path, *, seeds: int, device: str = "cpu", **how: object) -> pd.DataFrame:
    """Compute what is missing of one data set of the figure `faces` in profile `thin`; then its rows."""
    run_jobs(plan(find("faces"), "thin", seeds=seeds, device=device, only={"data": data}), out, **how)
    [figure] = find("faces")
    rows = gather(figure, "thin", collect([str(out)]), seeds=seeds)
    return rows[rows["data"].str.startswith(data)].reset_index(drop=True)


def committed(data: str) -> pd.DataFrame:
    """The rows of one data set that come with the book."""
    return tables.committed(f"{data}_thin")


def by_width(by: str, seeds: int) -> dict[str, pd.DataFrame]:
    """The committed rows of each network of `WIDE`, by `race` or `age`, one original for each seed below a number."""
    found = {name: (tables.committed(f"utkface_{table}"), width) for name, (table, width) in WIDE[by].items()}
    found = {name: rows[(rows["width"] == width) & (rows["seed"] < seeds)] for name, (rows, width) in found.items()}
    return {name: one_teacher(rows)[0] for name, rows in found.items()}


def with_eigenvalues(seeds: int) -> pd.DataFrame:
    """The committed originals by race, of width 16 and seeds below a number, whose eigenvalues were computed."""
    rows = tables.committed("utkface_race_cpu")
    known = rows.loc[rows["top_eigenvalue"].notna() & (rows["width"] == 16), "teacher"]
    return rows[rows["teacher"].isin(known) & (rows["arm"] == "original") & (rows["seed"] < seeds)]


def beyond_control(networks: Mapping[str, pd.DataFrame], budgets: Sequence[float]) -> pd.DataFrame:
    """Drop of each group beyond the control's in points, by network (`way`), at some budgets."""
    found = []
    for name, rows in networks.items():
        lost = group_drops(rows)
        lost = lost[(lost["of"] == "minus control") & lost["budget"].isin(budgets)].drop(columns="of")
        found.append(lost.assign(way=name))
    return pd.concat(found, ignore_index=True)


def balanced(table: pd.DataFrame) -> str:
    """The split on which ten classes are compared: the balanced test images where there are some."""
    return "test_balanced" if "test_balanced" in set(table["split"]) else "test"


def of_roles(table: pd.DataFrame, *, arm: str = "control", against: str = "plain") -> pd.DataFrame:
    """What one arm has more than another, by role and budget in points: by default the drop beyond the control's."""
    means = over_seeds(
        paired(table, arm=arm, against=against, split=balanced(table), pooled="role"), "value", ["group_name", "budget"]
    )
    return means.sort_values("budget", ascending=False, kind="stable", ignore_index=True)


def unrepaired(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the original, plain and control networks alone."""
    return table[table["arm"].isin(ARMS)]


def repairs_in(table: pd.DataFrame) -> dict[str, str]:
    """Those of `REPAIRS` that a table has."""
    return {way: name for way, name in REPAIRS.items() if way in set(table["arm"])}


def sizes(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Training images (`n_train`) and images of a split (`n`) of each group, mean over seeds, the largest first."""
    part = table[(table["split"] == split) & (table["arm"] == "original")]
    roles = part.groupby("group_name")["role"].nunique()
    if changing := sorted(roles.index[roles > 1]):
        raise ValueError(f"groups {', '.join(changing)} change their role from seed to seed: compare roles instead")
    found = part.groupby(["group_name", "role"], as_index=False)[["n_train", "n"]].mean()
    return found.sort_values("n_train", ascending=False, ignore_index=True)


def described(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """The groups for reading, the largest first: images, and how accurate the original network is on each."""
    part = paired(table, arm="original", split=split)
    means = text(over_seeds(part, "value", ["group_name"])).set_index("group_name")["mean [95 % interval]"]
    groups = sizes(table, split=split)
    names = {"group_name": "group", "n_train": "training images", "n": f"{split} images"}
    shown = groups.assign(accuracy=groups["group_name"].map(means)).rename(columns=names)
    for name in ("training images", f"{split} images"):
        shown[name] = shown[name].map("{:,.0f}".format)
    return shown.rename(columns={"accuracy": "original's accuracy (%)"})


def group_drops(table: pd.DataFrame, *, split: str = "test") -> pd.DataFrame:
    """Accuracy drop of each group in points, the largest group first, `of` `plain`, `control` or `minus control`."""
    pairs = {"plain": ("plain", "original"), "control": ("control", "original"), "minus control": ("plain", "control")}
    changes = [paired(table, arm=arm, against=other, split=split).assign(of=of) for of, (arm, other) in pairs.items()]
    lost = pd.concat(changes).assign(drop=lambda rows: -rows["value"])
    return _in_order(over_seeds(lost, "drop", ["group_name", "of", "budget"]), table)


def group_changes(table: pd.DataFrame, ways: Sequence[str], *, split: str = "test") -> pd.DataFrame:
    """Change of each group's accuracy against plain fine-tuning at the same budget and seed, in points, by way."""
    return _in_order(mitigation.compared(table, split=split, pooled="group", ways=ways), table)


def _in_order(means: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The largest group first, its largest budget first."""
    order = list(sizes(table)["group_name"])
    found = means.sort_values("budget", ascending=False, kind="stable")
    return found.sort_values("group_name", key=lambda x: x.map(order.index), kind="stable", ignore_index=True)
