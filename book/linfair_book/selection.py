"""Selection or count: arms that keep exactly equally many ReLUs and differ in which ones (notebook 07).

SNL also trains the weights while it selects; `snl mask` puts its mask onto the original weights: against `random` it
differs in the selection alone, against `snl` in the training alone.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from linfair.study.cell import ARMS, Cell, grid
from linfair.study.plan import Panel, find
from linfair.study.tables import by_role, drops, over_seeds
from linfair_book import tables
from linfair_book.averages import disparity, inside, less, paired

DEEPREDUCE_TABLE = "digits_resnet18_deepreduce"
NAMES = ("snl", "snl mask", "snip", "negative_part", "uniform", "random")  # all selections, SNL first, `random` last
QUANTITIES = ("minority accuracy", "majority accuracy", "disparity")
"""What selections are compared by: accuracies in per cent, and the minority's relative drop minus the majority's."""


def panels() -> dict[str, Panel]:
    """The panels of the figure `selection` by name."""
    [figure] = find("selection")
    return {"snl mask" if dict(one.options).get("rewind") else one.method: one for one in figure.panels}


def cells_of(name: str, data: str, network: str, **how: object) -> list[Cell]:
    """The study cells of one selection on any data, network, budgets and seeds; options as for `grid`."""
    panel = panels()[name]
    return grid(data, network, method=panel.method, options=dict(panel.options), **how)


def run_selections(data: str, network: str, **how: object) -> pd.DataFrame:
    """The table of all selections, each with its control, options as for `grid`; unequal counts are a ValueError."""
    how |= {"data": data, "network": network}
    parts = [tables.ran(one.arms, method=one.method, options=dict(one.options), **how) for one in panels().values()]
    table = with_selections(pd.concat(parts, ignore_index=True))
    unequal = table[(table["arm"] == "plain") & (table["kept"] != table["budget_units"])]
    if len(unequal):
        raise ValueError(f"{sorted(unequal['selection'].unique())} do not keep exactly the budget: nothing to compare")
    return table


def committed() -> pd.DataFrame:
    """The same on digits from the rows that come with the book, those of the study figure `selection`."""
    return with_selections(tables.committed("digits_mlp_selection"))


def with_selections(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `selection`; those without a control of their own share that of `random`."""
    names = table["method"].mask(table["options"].str.contains("rewind=True"), "snl mask")
    table = table.assign(selection=names.mask(table["arm"] == "original", "original"))
    table = table.drop_duplicates(["selection", "arm", "budget", "seed", "split", "group"])
    control = table[table["arm"] == "control"]
    without = set(table["selection"]) - {"original"} - set(control["selection"])
    copies = [control[control["selection"] == "random"].assign(selection=name) for name in sorted(without)]
    return pd.concat([table, *copies], ignore_index=True)


def names_in(table: pd.DataFrame) -> list[str]:
    """The selections of a table in the order of tables and figures: DeepReDuce first, `random` last."""
    present = set(table.loc[table["arm"] == "plain", "selection"])
    return [name for name in ("deepreduce", *NAMES) if name in present]


def disparities(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Minority minus majority relative drop of each selection: as measured, its control's, and the difference."""
    rows = drops(by_role(table[table["split"] == split]))
    own = {name: rows[rows["selection"] == name] for name in names_in(rows)}
    gaps = [disparity(part, split=split).assign(selection=name) for name, part in own.items()]
    return pd.concat(gaps, ignore_index=True)


def per_seed(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """What selections are compared by, in each seed: columns quantity, selection, budget, seed, value."""
    students = table[table["arm"].isin(["original", "plain"])]
    students = students.assign(arm=students["selection"])
    parts = []
    for name in names_in(table):
        how = {"arm": name, "split": split, "pooled": "role"}
        level = paired(students, **how)
        gap = paired(students, against="original", scale="relative", beside="majority", **how)
        gap = gap[gap["role"] == "minority"].assign(value=lambda rows: -rows["value"])
        level = level.assign(quantity=level["role"] + " accuracy")
        parts.append(pd.concat([level, gap.assign(quantity="disparity")]).assign(selection=name))
    return pd.concat(parts)[["quantity", "selection", "budget", "seed", "value"]]


def levels(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Means over seeds of what `per_seed` holds, in the order of `QUANTITIES`, `NAMES` and descending budgets."""
    found = _means(per_seed(table, split=split), names_in(table))
    return inside(found, 0, 100, lines=found["quantity"].str.endswith("accuracy"))


def differences(table: pd.DataFrame, against: str, *, split: str) -> pd.DataFrame:
    """Each selection minus one of them, within a seed, then averaged over seeds; rows as of `levels`."""
    found = per_seed(table, split=split)
    reference = found["selection"] == against
    return _means(less(found[~reference], found[reference], ["quantity", "budget", "seed"]), names_in(table))


def _means(values: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    means = over_seeds(values, "value", ["quantity", "selection", "budget"])
    place = means["quantity"].map(QUANTITIES.index), means["selection"].map(list(names).index), -means["budget"]
    return means.iloc[np.lexsort(place[::-1])].reset_index(drop=True)


def count_effect(table: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Disparity at the smallest budget minus that at the largest, averaged over the selections within each seed."""
    found = per_seed(table, split=split).query("quantity == 'disparity'")
    wide = found.groupby(["budget", "seed"])["value"].mean().unstack("budget")
    change = wide[wide.columns.min()] - wide[wide.columns.max()]
    return over_seeds(change.rename("value").reset_index().assign(quantity="disparity"), "value", ["quantity"])


def beside_deepreduce(seeds: Sequence[int], *, budgets: Sequence[float] = (0.4, 0.2, 0.1)) -> pd.DataFrame:
    """DeepReDuce on a thin ResNet18, with `snl mask` and `random` at exactly the counts that it reached."""
    parts = []
    for seed in seeds:
        shared = {"data": "digits", "network": "resnet18", "seeds": [seed]}
        parts.append(table := tables.ran(ARMS, method="deepreduce", budgets=budgets, **shared))
        total = table.loc[table["arm"] == "original", "kept"].iloc[0]
        reached = table[table["arm"] == "plain"].drop_duplicates("budget").set_index("budget")["kept"]
        shared["budgets"] = sorted(set(reached / total), reverse=True)
        chosen = [panels()[name] for name in ("snl mask", "random")]
        others = [tables.ran(one.arms[1:], method=one.method, options=dict(one.options), **shared) for one in chosen]
        others = pd.concat(others)
        parts += [others[others["budget_units"] == kept].assign(budget=asked) for asked, kept in reached.items()]
    return with_selections(pd.concat(parts, ignore_index=True))
