"""Selection or count: arms that keep exactly equally many ReLUs and differ in which ones (notebook 07).

Every arm starts from the same trained networks, keeps `round(budget * units)` ReLUs and is fine-tuned alike. SNL also
trains the weights while it selects. To tell its selection from that training there is `snl mask`, SNL's mask put onto
the original weights and fine-tuned like a one-shot method: against `random` it differs in the selection alone, against
`snl` in the training alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from linfair.metrics import MeanInterval, mean_interval
from linfair.study.cell import Cell, grid, run
from linfair.study.store import ResultStore
from linfair.study.tables import disparity


@dataclass(frozen=True)
class Selection:
    """One way to choose which ReLUs stay.

    Attributes:
        name: What tables and figures call it.
        method: The linearizer.
        options: Its options that differ from the recipe's.
        control: The selection whose 100 % control it shares; the controls of all that train nothing before
            fine-tuning are one and the same.
        summary: What it is, in a few words.
    """

    name: str
    method: str
    options: tuple[tuple[str, object], ...] = ()
    control: str = "random"
    summary: str = ""


STEPWISE = ("check_every", 1), ("exact", True)
"""Options with which SNL meets a budget to the unit, like all other selections."""

SELECTIONS = (
    Selection("snl", "snl", STEPWISE, "snl", "learned with the weights, then fine-tuned"),
    Selection("snl mask", "snl", (*STEPWISE, ("rewind", True)), summary="SNL's mask on the original weights"),
    Selection("snip", "snip", summary="largest |dL/dalpha|"),
    Selection("negative_part", "negative_part", summary="largest mean of max(-x, 0)"),
    Selection("uniform", "uniform", summary="at random, the same share of every layer"),
    Selection("random", "random", summary="at random"),
)
"""All arms, SNL first, `random` last."""

NAMES = tuple(one.name for one in SELECTIONS)


QUANTITIES = ("minority accuracy", "majority accuracy", "disparity")
"""What selections are compared by: accuracies in per cent, and the minority's relative drop minus the majority's."""


def names_in(rows: pd.DataFrame) -> list[str]:
    """The selections of a table in the order of tables and figures: DeepReDuce first, `random` last."""
    present = set(rows.loc[rows["arm"] == "plain", "selection"])
    return [name for name in ("deepreduce", *NAMES) if name in present]


def selection_cells(
    selection: Selection,
    data: str,
    network: str,
    *,
    budgets: Sequence[float],
    seeds: Sequence[int],
    profile: str = "small",
    device: str = "cpu",
) -> list[Cell]:
    """The study cells of one selection; arguments as for `grid`."""
    return grid(
        data,
        network,
        method=selection.method,
        options=dict(selection.options),
        budgets=budgets,
        seeds=seeds,
        profile=profile,
        device=device,
    )


def run_selections(
    data: str,
    network: str,
    *,
    budgets: Sequence[float],
    seeds: Sequence[int],
    profile: str = "small",
    device: str = "cpu",
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The table of all `SELECTIONS`, each with its control, from the store where they are there.

    Args:
        data: Name of the data set.
        network: Name of the network.
        budgets: ReLU budgets below 1, descending.
        seeds: Seeds.
        profile: `smoke`, `small` or `paper`.
        device: `cpu` or `cuda`.
        store: Where; the user's cache by default.
        progress: Show progress bars.

    Returns:
        Rows as of `study.run` with a column `selection`; the rows of the original networks carry `original`, those of
        a shared control appear once for each selection that shares it.

    Raises:
        ValueError: If two selections keep different counts: then nothing could be said about the selection.
    """
    found: dict[str, pd.DataFrame] = {}
    for one in SELECTIONS:
        cells = selection_cells(one, data, network, budgets=budgets, seeds=seeds, profile=profile, device=device)
        arms = ["original", "plain"] + ["control"] * (one.control == one.name)
        found[one.name] = run(cells, arms=arms, store=store, progress=progress)
    parts = [found[NAMES[0]].query("arm == 'original'").assign(selection="original")]
    for one in SELECTIONS:
        parts.append(found[one.name].query("arm == 'plain'").assign(selection=one.name))
        parts.append(found[one.control].query("arm == 'control'").assign(selection=one.name))
    table = pd.concat(parts, ignore_index=True)
    unequal = table[(table["arm"] == "plain") & (table["kept"] != table["budget_units"])]
    if len(unequal):
        raise ValueError(f"{sorted(unequal['selection'].unique())} do not keep exactly the budget: nothing to compare")
    return table


def disparities(rows: pd.DataFrame, *, split: str, column: str = "relative_drop") -> pd.DataFrame:
    """Minority minus majority drop of each selection: as measured, its control's, and the difference.

    Args:
        rows: `drops(by_role(...))` of the table of `run_selections`.
        split: Which split.
        column: `relative_drop` (per cent) or `drop` (points).

    Returns:
        The tables of `linfair.study.tables.disparity`, with a column `selection`.
    """
    students = rows[rows["arm"] != "original"]
    return pd.concat(
        [
            disparity(students[students["selection"] == name], split=split, column=column).assign(selection=name)
            for name in names_in(rows)
        ],
        ignore_index=True,
    )


def per_seed(rows: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """What the arms are compared by, a line for each budget, selection and seed of the linearized networks.

    Columns: `majority accuracy` and `minority accuracy` (%), and `disparity`, the minority's relative accuracy drop
    minus the majority's (points of per cent).

    Args:
        rows: `drops(by_role(...))` of the table of `run_selections`.
        split: Which split.
    """
    part = rows[(rows["split"] == split) & (rows["arm"] == "plain")]
    wide = part.pivot(index=["budget", "selection", "seed"], columns="group_name", values=["accuracy", "relative_drop"])
    return pd.DataFrame(
        {
            "majority accuracy": 100 * wide["accuracy", "majority"],
            "minority accuracy": 100 * wide["accuracy", "minority"],
            "disparity": wide["relative_drop", "minority"] - wide["relative_drop", "majority"],
        }
    )


def levels(rows: pd.DataFrame, *, split: str) -> pd.DataFrame:
    """Means over seeds of what `per_seed` holds.

    Args:
        rows: `drops(by_role(...))` of the table of `run_selections`.
        split: Which split.

    Returns:
        A row per (quantity, selection, budget) with n_seeds, mean, low, high, in the order of `QUANTITIES`, `names_in`
        and descending budgets.
    """
    return _over_seeds(per_seed(rows, split=split), names_in(rows))


def paired(rows: pd.DataFrame, against: str, *, split: str) -> pd.DataFrame:
    """Each selection minus one of them, within a seed, then averaged over seeds.

    Args:
        rows: `drops(by_role(...))` of the table of `run_selections`.
        against: The selection to subtract.
        split: Which split.

    Returns:
        A row per (quantity, selection, budget) with n_seeds, mean, low, high; quantities as in `per_seed`.
    """
    values = per_seed(rows, split=split)
    names = [name for name in names_in(rows) if name != against]
    reference = values.xs(against, level="selection")
    differences = {name: values.xs(name, level="selection") - reference for name in names}
    return _over_seeds(pd.concat(differences, names=["selection"]), names)


def _over_seeds(values: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    lines = []
    for quantity in QUANTITIES:
        for name in names:
            column = values.xs(name, level="selection")[quantity]
            for budget in sorted(column.index.unique("budget"), reverse=True):
                got = mean_interval(column.xs(budget, level="budget").to_numpy())
                lines.append([quantity, name, budget, got.n, got.mean, got.low, got.high])
    return pd.DataFrame(lines, columns=["quantity", "selection", "budget", "n_seeds", "mean", "low", "high"])


def count_effect(rows: pd.DataFrame, *, split: str) -> MeanInterval:
    """Disparity at the smallest budget minus that at the largest, averaged over the selections within each seed."""
    values = per_seed(rows, split=split)["disparity"].groupby(["budget", "seed"]).mean().unstack("budget")
    return mean_interval((values[values.columns.min()] - values[values.columns.max()]).to_numpy())


def verdict(rows: pd.DataFrame, *, split: str) -> str:
    """What the paired differences say, in words: selection, count, SNL's extra training, and each arm against `random`.

    An effect counts as shown at a budget when its whole 95 % interval lies on one side of 0.

    Args:
        rows: `drops(by_role(...))` of the table of `run_selections`.
        split: Which split.

    Returns:
        Markdown: a headline and four points.
    """
    selected = paired(rows, "random", split=split)
    trained = paired(rows, "snl mask", split=split).query("selection == 'snl'")
    grown = count_effect(rows, split=split)
    budgets = sorted(selected["budget"].unique(), reverse=True)
    mask = selected[selected["selection"] == "snl mask"]
    causes = [
        "which ReLUs are kept" * bool(_shown(mask[mask["quantity"] == "disparity"])),
        "how many" * (grown.low > 0 or grown.high < 0),
    ]
    named = " and ".join(filter(None, causes))
    headline = f"The disparity depends on {named}" if named else "Neither selection nor count is shown to matter"
    gaps = selected[selected["quantity"] == "disparity"]
    against = "; ".join(f"{name}: {_where(gaps[gaps['selection'] == name], budgets)}" for name in NAMES[:-1])
    return "\n".join(
        [
            f"**{headline}** ({grown.n} seeds; differences within a seed, mean and 95 % t interval).",
            "",
            f"* **Selection.** SNL's mask instead of a random one, same count, weights and fine-tuning, changes "
            f"{_changes(mask)}.",
            f"* **Count.** From {100 * budgets[0]:g} % to {100 * budgets[-1]:g} % of the ReLUs the disparity changes "
            f"by {grown.mean:+.1f} [{grown.low:.1f}, {grown.high:.1f}] points, averaged over the selections.",
            f"* **SNL's training while it selects**, over its mask alone, changes {_changes(trained)}.",
            f"* **Disparity against random masks**: {against}.",
        ]
    )


def against_random(rows: pd.DataFrame, name: str, *, split: str) -> str:
    """One selection minus `random` in words: both groups' accuracies and the disparity at each budget.

    Args:
        rows: `drops(by_role(...))` of a table with a column `selection`.
        name: The selection.
        split: Which split.
    """
    part = paired(rows, "random", split=split)
    part = part[part["selection"] == name]
    return (
        f"`{name}` instead of random masks of the same count ({part['n_seeds'].min()} seeds) changes {_changes(part)}."
    )


def reached(table: pd.DataFrame, name: str) -> str:
    """What a selection kept of what it was asked for, in words: `50 % (4544 of 9088) for 40 %; ...`.

    Args:
        table: A table with a column `selection`.
        name: The selection.
    """
    total = int(table.loc[table["arm"] == "original", "kept"].max())
    part = table[(table["arm"] == "plain") & (table["selection"] == name)]
    texts = []
    for budget, rows in sorted(part.groupby("budget"), reverse=True):
        counts = sorted(int(count) for count in rows["kept"].unique())
        shares = " or ".join(f"{100 * count / total:.0f} %" for count in counts)
        texts.append(f"{shares} ({' or '.join(map(str, counts))} of {total}) for {100 * budget:g} %")
    return "; ".join(texts)


def _shown(part: pd.DataFrame) -> list[float]:
    return [row.budget for row in part.itertuples() if row.low > 0 or row.high < 0]


def _changes(part: pd.DataFrame) -> str:
    texts = []
    for quantity, what in (
        ("minority accuracy", "the minority's accuracy (points) by {}"),
        ("majority accuracy", "the majority's by {}"),
        ("disparity", "the disparity by {}"),
    ):
        lines = part[part["quantity"] == quantity].itertuples()
        texts.append(
            what.format(", ".join(f"{r.mean:+.1f} [{r.low:.1f}, {r.high:.1f}] at {100 * r.budget:g} %" for r in lines))
        )
    return "; ".join(texts)


def _where(part: pd.DataFrame, budgets: Sequence[float]) -> str:
    smaller = [row.budget for row in part.itertuples() if row.high < 0]
    larger = [row.budget for row in part.itertuples() if row.low > 0]
    open_ = [budget for budget in budgets if budget not in smaller + larger]
    sides = {"smaller": smaller, "larger": larger, "no difference shown": open_}
    return ", ".join(
        f"{side} at {', '.join(f'{100 * budget:g}' for budget in found)} %" for side, found in sides.items() if found
    )


DEEPREDUCE_TABLE = "book/results/digits_resnet18_deepreduce.parquet"


def beside_deepreduce(
    seeds: Sequence[int],
    *,
    budgets: Sequence[float] = (0.4, 0.2, 0.1),
    profile: str = "small",
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """DeepReDuce on a thin ResNet18, with `snl mask` and `random` at exactly the counts that it reached.

    The book reads `DEEPREDUCE_TABLE`, which holds these rows for seeds 0, 1, 2.

    DeepReDuce removes whole layers, so a budget means its nearest configuration, found for each seed anew; an MLP has
    two layers and no budget in between. The others are asked for DeepReDuce's counts, seed by seed.

    Args:
        seeds: Seeds, one network each.
        budgets: What DeepReDuce is asked for, descending.
        profile: `smoke`, `small` or `paper`.
        store: Where; the user's cache by default.
        progress: Show progress bars.

    Returns:
        Rows as of `run_selections` with `budget` the one asked for; `kept` says what was reached. A budget whose
        nearest configuration is that of a larger one appears with the same numbers.
    """
    parts = []
    for seed in seeds:
        (cell,) = grid("digits", "resnet18", method="deepreduce", budgets=budgets, seeds=[seed], profile=profile)
        table = run([cell], store=store, progress=progress)
        original = table[table["arm"] == "original"]
        total = int(original["kept"].iloc[0])
        reached = table[table["arm"] == "plain"].drop_duplicates("budget").set_index("budget")["kept"].to_dict()
        counts = sorted(set(reached.values()), reverse=True)
        parts += [
            original.assign(selection="original"),
            table[table["arm"] != "original"].assign(selection="deepreduce"),
        ]
        exact = [count / total for count in counts]
        tables = {}
        for one in SELECTIONS:
            if one.name in ("snl mask", "random"):
                cells = selection_cells(one, "digits", "resnet18", budgets=exact, seeds=[seed], profile=profile)
                arms = ["plain", "control"] if one.name == "random" else ["plain"]
                tables[one.name] = run(cells, arms=arms, store=store, progress=progress)
        control = tables["random"].query("arm == 'control'")
        for name, rows in tables.items():
            both = pd.concat([rows.query("arm == 'plain'"), control]).assign(selection=name)
            for asked, count in reached.items():
                parts.append(both[both["budget_units"] == count].assign(budget=asked))
    return pd.concat(parts, ignore_index=True)
