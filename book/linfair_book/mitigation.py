"""What mitigations change: every arm against *plain* fine-tuning at the same budget, within a seed (paper, Sec. 6).

The paper's Fig. 9 measures a group's change relative to the plain network, negative for a gain; points stand beside it,
positive for a gain, as a relative change inflates groups with a low accuracy:

    relative change = 100 (A_plain - A_mitigated) / A_plain  (%),    change = 100 (A_mitigated - A_plain)  (points).

A *way* is what is compared: a mitigation while fine-tuning (*after* the mask was selected: its arm, such as
`lagrangian(mu=0.005)`), in SNL's mask phase alone (`lagrangian, before`), or in both (`lagrangian, both`). A seed that
diverged has no accuracy: it is counted, left out of that way's means, and its plain partner with it.

`python -m linfair_book.mitigation` computes the table of notebook 05 (digits, MLP, ten seeds), with `--deepreduce` its
second one (thin ResNet18, five seeds).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from linfair.metrics.margin import normalised
from linfair.study.cell import grid, run
from linfair.study.store import ResultStore
from linfair.study.tables import by_role, check_teachers, finished, over_seeds

TABLE = Path("book/results/digits_mlp_mitigation.parquet")
DEEPREDUCE_TABLE = Path("book/results/digits_resnet18_mitigation.parquet")
DEEPREDUCE = {
    "network": "resnet18",
    "method": "deepreduce",
    "budgets": (0.4, 0.2, 0.1),
    "after": ("lagrangian", "kd_over_c", "balanced_sampling"),
    "selected": (),
}
"""What the second table holds: DeepReDuce on a thin ResNet18, which takes minutes a seed."""

BUDGETS = (0.4, 0.2, 0.02)
HEADLINE = 0.2
"""The headline: minority and majority at this budget, on the balanced test."""

MUS = (0.0005, 0.001, 0.005, 0.01)
"""Fig. 15's values of mu, and 0.001, the released default, which stands for Algorithm 1 elsewhere."""

BEYOND = 1.0
"""A mu far above the paper's, to see Algorithm 1 diverge."""

AFTER = (
    "lagrangian(mu=0.0005)",
    "lagrangian",
    "lagrangian(mu=0.005)",
    "lagrangian(mu=0.01)",
    "lagrangian(mu=1.0)",
    "lagrangian(mu=0.005, clip=5.0)",
    "lagrangian(one_sided=True)",
    "lagrangian(kd_over_classes=True)",
    "kd_over_c",
    "excess_drop",
    "group_dro",
    "balanced_sampling",
)
"""Ways of fine-tuning; `mu=1.0` and `kd_over_classes` were added after a first look at the others."""

SELECTED = ("lagrangian", "balanced_sampling")
"""Mitigations that are used in the mask phase too."""

COLUMNS = (
    *(
        "budget",
        "budget_units",
        "kept",
        "mask_epochs",
        "seed",
        "split",
        "group",
        "group_name",
        "role",
        "n_train",
        "n",
        "accuracy",
    ),
    *("margin", "gradient_norm", "diverged", "multiplier", "base_loss", "data", "network", "width", "method", "arm"),
    *("options", "profile", "teacher", "device", "torch", "linfair", "code", "seconds"),
)
"""Columns that the committed table keeps."""

SPLITS = ("train", "test", "test_balanced")

QUANTITIES = {
    "gradient_norm": "gradient norm",
    "accuracy": "accuracy",
    "margin": "margin",
    "relative_margin": "margin / that of the largest group",
}

MEASURES = {"points": "points", "relative": "%, negative is a gain"}
"""The two measures of a change, and their units."""

_BY = ["budget", "seed", "split", "group_name"]


def compute(
    *,
    seeds: Sequence[int] = range(10),
    budgets: Sequence[float] = BUDGETS,
    after: Sequence[str] = AFTER,
    selected: Sequence[str] = SELECTED,
    data: str = "digits",
    network: str = "mlp",
    method: str = "snl",
    profile: str = "small",
    device: str = "cpu",
    store: ResultStore | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The study's rows: originals, plain, control, every way of mitigating; what is stored is read, the rest computed.

    Args:
        seeds: Seeds.
        budgets: ReLU budgets, descending.
        after: Arms with a mitigation while fine-tuning.
        selected: Mitigations in SNL's mask phase, each with plain fine-tuning and with itself.
        data: Name of the data set.
        network: Name of the network.
        method: Name of the linearizer.
        profile: Profile of the recipes.
        device: Where to train.
        store: Where rows are kept; the user's cache by default.
        progress: Show progress bars.

    Returns:
        Rows of `linfair.study.run` on `SPLITS`, with `COLUMNS`.
    """
    shared = {"method": method, "budgets": budgets, "seeds": seeds}
    shared |= {"profile": profile, "device": device, "curvature": "none"}
    options = {"store": store, "progress": progress}
    tables = [run(grid(data, network, **shared), arms=("original", "plain", "control", *after), **options)]
    for name in selected:
        cells = grid(data, network, options={"mitigation": name}, **shared)
        tables.append(run(cells, arms=("plain", name), **options))
    table = pd.concat(tables, ignore_index=True)
    return table.loc[table["split"].isin(SPLITS), list(COLUMNS)].reset_index(drop=True)


def way_of(arm: str, options: str) -> str:
    """What is compared, from a row's `arm` and `options`.

    >>> way_of("lagrangian(mu=0.005)", ""), way_of("plain", "mitigation=lagrangian")
    ('lagrangian(mu=0.005)', 'lagrangian, before')
    >>> way_of("lagrangian", "mitigation=lagrangian")
    'lagrangian, both'
    """
    inside = dict(pair.split("=", 1) for pair in options.split(", ") if pair).get("mitigation")
    if inside is None:
        return arm
    return f"{inside}, before" if arm == "plain" else f"{arm}, both"


def label(way: str) -> str:
    """A way as figures write it.

    >>> label("lagrangian(mu=0.005, clip=5.0)"), label("lagrangian, before"), label("kd_over_c")
    ('Alg. 1, mu 0.005, clip 5', 'Alg. 1, before', 'KD / C')
    """
    if way == "lagrangian(kd_over_classes=True)":
        return "Alg. 1, mu 0.001, KD / C"
    name, _, rest = way.partition("(")
    name, _, when = name.partition(", ")
    words = []
    for option in rest.rstrip(")").split(", ") if rest else []:
        key, _, value = option.partition("=")
        words.append(key.replace("_", "-") if value == "True" else f"{key} {float(value):g}")
    known = {"lagrangian": "Alg. 1", "kd_over_c": "KD / C", "group_dro": "group DRO"}
    if name == "lagrangian" and not any(word.startswith("mu") for word in words) and not when:
        words = ["mu 0.001", *words]
    return ", ".join([known.get(name, name.replace("_", " ")), *words, *([when] if when else [])])


def with_ways(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column `way`."""
    pairs = table[["arm", "options"]].drop_duplicates()
    names = pairs.assign(way=[way_of(arm, options) for arm, options in pairs.itertuples(index=False)])
    return table.merge(names, on=["arm", "options"], how="left", validate="many_to_one")


def accuracies(table: pd.DataFrame, *, pooled: str = "role") -> pd.DataFrame:
    """Accuracy of each way, pooled by `role`, over all images (`all`), or per `group`; seeds that diverged left out.

    Returns:
        Columns way, budget, seed, split, group_name and accuracy (a share).
    """
    if pooled not in ("role", "all", "group"):
        raise ValueError(f"accuracies are pooled by role, all or group, got {pooled!r}")
    check_teachers(table)
    rows = with_ways(finished(table))
    if pooled == "all":
        rows = rows.assign(role="all")
    rows = rows if pooled == "group" else by_role(rows)
    return rows[["way", *_BY, "accuracy"]]


def changes(table: pd.DataFrame, *, pooled: str = "role", against: str = "plain") -> pd.DataFrame:
    """Every way's accuracy against that of another one at the same budget and seed.

    Args:
        table: From `compute`, or rows of `linfair.study.run`.
        pooled: `role`, `all` or `group`.
        against: The way to compare with.

    Returns:
        Columns way, budget, seed, split, group_name, accuracy, reference, points (positive = gain) and relative (per
        cent, negative = gain; nan where the reference is 0).

    Raises:
        ValueError: If the rows lack the way to compare with.
    """
    rows = accuracies(table, pooled=pooled)
    reference = rows[rows["way"] == against].drop(columns="way").rename(columns={"accuracy": "reference"})
    if reference.empty:
        raise ValueError(f"no rows of {against!r} to compare with; there are {sorted(rows['way'].unique())}")
    found = rows[~rows["way"].isin([against, "original"])].merge(reference, on=_BY, validate="many_to_one")
    points = 100 * (found["accuracy"] - found["reference"])
    return found.assign(points=points, relative=-points / found["reference"].where(found["reference"] > 0))


def compared(
    table: pd.DataFrame, *, split: str = "test_balanced", column: str = "points", pooled: str = "role"
) -> pd.DataFrame:
    """Mean change of every way against plain with its 95 % t interval, paired over seeds.

    Args:
        table: From `compute`.
        split: Which split.
        column: `points` or `relative`.
        pooled: `role` or `all`.

    Returns:
        Columns way, budget, group_name, n_seeds, mean, low, high.
    """
    found = changes(table, pooled=pooled)
    found = found[(found["split"] == split) & (found["way"] != "control")]
    found = found.dropna(subset=[column]).sort_values("budget", ascending=False, kind="stable")
    means = over_seeds(found, column, ["way", "budget", "group_name"])
    order = list(with_ways(table)["way"].unique())
    return means.sort_values("way", key=lambda ways: ways.map(order.index), kind="stable", ignore_index=True)


def lost_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """How many seeds of every way diverged: columns way, budget, diverged, n_seeds."""
    each = with_ways(table).drop_duplicates(["way", "budget", "seed"])
    counts = each.groupby(["way", "budget"], sort=False)["diverged"]
    return counts.agg(diverged="sum", n_seeds="size").reset_index().astype({"diverged": int})


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, float]:
    """How far two tables agree where they hold the same thing: rows in common, largest difference of accuracy (points).

    The difference is over the rows that have an accuracy in both tables, nan where there are none.
    """
    by = ["arm", "options", "budget", "seed", "split", "group", "data", "network", "profile"]
    both = one.merge(other, on=by, suffixes=("", "_other"), validate="one_to_one")
    gaps = 100 * (both["accuracy"] - both["accuracy_other"]).abs()
    return len(both), float(gaps.max())


def shares_of_groups(table: pd.DataFrame, *, split: str = "test_balanced") -> pd.DataFrame:
    """How many single groups gain, lose or stay, counted over seeds: *across all groups*, as the paper says of Fig. 9.

    Returns:
        Columns way, budget, role, n (groups times seeds), gain, same, lose.
    """
    found = changes(table, pooled="group")
    found = found[found["split"] == split]
    roles = table.drop_duplicates(["seed", "group_name"])[["seed", "group_name", "role"]]
    found = found.merge(roles, on=["seed", "group_name"], validate="many_to_one")
    lines = [
        [*names, len(part), int((part > 1e-9).sum()), int((part.abs() <= 1e-9).sum()), int((part < -1e-9).sum())]
        for names, part in found.groupby(["way", "budget", "role"], sort=False)["points"]
    ]
    return pd.DataFrame(lines, columns=["way", "budget", "role", "n", "gain", "same", "lose"])


def in_and_out(table: pd.DataFrame, *, budget: float = HEADLINE) -> pd.DataFrame:
    """Gain on the training split, on the balanced test, and what is lost between them, all within a seed.

    Returns:
        Columns way, group_name, of (`train`, `test_balanced`, `train minus test`), n_seeds, mean, low, high.
    """
    found = changes(table)
    found = found[(found["budget"] == budget) & (found["way"] != "control")]
    if found.empty:
        return pd.DataFrame(columns=["way", "group_name", "of", "n_seeds", "mean", "low", "high"])
    wide = found.pivot(index=["way", "group_name", "seed"], columns="split", values="points")
    kinds = {
        "train": wide["train"],
        "test_balanced": wide["test_balanced"],
        "train minus test": wide["train"] - wide["test_balanced"],
    }
    long = pd.concat([values.rename("points").reset_index().assign(of=of) for of, values in kinds.items()])
    return over_seeds(long, "points", ["way", "group_name", "of"])


def diagnosed(table: pd.DataFrame, column: str, *, split: str, ways: Sequence[str]) -> pd.DataFrame:
    """A quantity of each role's mean group, one number a seed; the original network counts as budget 1 of every way.

    Args:
        table: From `compute`.
        column: A key of `QUANTITIES`; `relative_margin` divides by the largest groups' of the same network (Fig. 14).
        split: Where it is measured; gradient norms are on `train` and `test`.
        ways: Which ways.

    Returns:
        Columns way, budget, seed, role, value.
    """
    if column not in QUANTITIES:
        raise ValueError(f"no quantity {column!r}; there are {', '.join(QUANTITIES)}")
    rows = with_ways(finished(table))
    rows = rows[(rows["split"] == split) & rows["way"].isin(["original", *ways])]
    if column == "relative_margin":
        rows = rows.copy()
        for _, index in rows.groupby(["way", "budget", "seed"]).groups.items():
            part = rows.loc[index]
            rows.loc[index, column] = normalised(part["margin"].tolist(), part["n_train"].tolist())
    means = rows.groupby(["way", "budget", "seed", "role"], as_index=False, sort=False)[column].mean()
    first = means[means["way"] == "original"]
    copies = [first.assign(way=way) for way in ways]
    return pd.concat([*copies, means[means["way"] != "original"]], ignore_index=True).rename(columns={column: "value"})


def ratios(table: pd.DataFrame, column: str, *, split: str, way: str = "lagrangian") -> pd.DataFrame:
    """A way's quantity over plain's at the same budget and seed: geometric means, 95 % t intervals of the logarithm.

    Returns:
        Columns role, budget, n_seeds, mean, low, high; 1 is no change. No rows where every seed of one diverged.
    """
    values = diagnosed(table, column, split=split, ways=["plain", way])
    wide = values[values["budget"] < 1].pivot(index=["role", "budget", "seed"], columns="way", values="value")
    wide = wide.reindex(columns=["plain", way])
    logs = np.log(wide[way] / wide["plain"]).dropna().rename("log").reset_index()
    found = over_seeds(logs, "log", ["role", "budget"])
    found[["mean", "low", "high"]] = np.exp(found[["mean", "low", "high"]])
    return found.sort_values(["role", "budget"], ascending=[True, False], ignore_index=True)


def main(arguments: list[str] | None = None) -> None:
    """Compute a table of notebook 05."""
    parser = argparse.ArgumentParser(prog="python -m linfair_book.mitigation", description=main.__doc__)
    parser.add_argument("--deepreduce", action="store_true", help="DeepReDuce on a thin ResNet18 instead")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 10, with --deepreduce 5)")
    parser.add_argument("--to", type=Path, help="file to write (default: the book's)")
    given = parser.parse_args(arguments)
    chosen, seeds, place = (DEEPREDUCE, 5, DEEPREDUCE_TABLE) if given.deepreduce else ({}, 10, TABLE)
    place = given.to or place
    place.parent.mkdir(parents=True, exist_ok=True)
    table = compute(seeds=range(seeds if given.seeds is None else given.seeds), **chosen)
    table.to_parquet(place, index=False, compression="zstd")
    print(place)


if __name__ == "__main__":
    main()
