"""What the paper says of Figs. 3, 4, 8 and 14, checked on a study's rows: ratios within a seed, and words.

Every comparison is a ratio of two means over groups within one seed, averaged over seeds as a geometric mean; the
interval is a 95 % t interval of its logarithm. A claim is *shown* where the whole interval lies on its side of 1.
"""

import numpy as np
import pandas as pd

from linfair.metrics import mean_interval
from linfair.study.tables import SIDES, check_teachers, paired, sides
from linfair_book.predictors import Predictor, correlations

OWN = (
    Predictor("gradient norm", "own_gradient_norm", -1),
    Predictor("margin", "own_margin", 1),
)
"""What Fig. 8 sets accuracy against, both of the linearized network; signs are those of accuracy, not of its loss."""


def role_ratios(table: pd.DataFrame, column: str, *, split: str) -> pd.DataFrame:
    """A quantity of the mean minority group over that of the mean majority group, at every budget.

    Args:
        table: Rows of a study with the diagnostics' columns.
        column: A positive quantity.
        split: Where it is measured.

    Returns:
        A row per budget, the original network's 1 first: budget, n_seeds, mean, low, high. No row where no seed has
        the quantity, above 0, of both roles.
    """
    check_teachers(table)
    part = table[(table["split"] == split) & (table["arm"] != "control")].dropna(subset=[column])
    wide = part.astype({column: float}).pivot_table(index=["budget", "seed"], columns="role", values=column)
    wide = wide.reindex(columns=["minority", "majority"])
    wide = wide.where(wide > 0)
    return _geometric(np.log(wide["minority"] / wide["majority"]).reset_index(name="log"), ["budget"])


def against_original(table: pd.DataFrame, column: str, *, split: str) -> pd.DataFrame:
    """A quantity of each role's mean group in the linearized network over that in the original, at every budget.

    Args:
        table: Rows of a study with the diagnostics' columns.
        column: A positive quantity.
        split: Where it is measured.

    Returns:
        A row per (role, budget): n_seeds, mean, low, high.
    """
    check_teachers(table)
    ratios = paired(table, column, arm="plain", against="original", scale="ratio", split=split, pooled="role")
    return _geometric(ratios.rename(columns={"value": "log"}), ["role", "budget"])


def _geometric(ratios: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    lines = []
    for names, part in ratios.dropna(subset=["log"]).groupby(by, sort=False):
        got = mean_interval(part["log"].to_numpy())
        lines.append([*names, got.n, *np.exp([got.mean, got.low, got.high])])
    found = pd.DataFrame(lines, columns=[*by, "n_seeds", "mean", "low", "high"])
    return found.sort_values(by, ascending=[name != "budget" for name in by], ignore_index=True)


def _sides(found: pd.DataFrame, above: str, below: str) -> str:
    """At which budgets a ratio is shown to be above 1, below it, or neither."""
    shown = sides(found, at=1.0)
    words = []
    for word, side in zip((above, below, SIDES[2]), SIDES, strict=True):
        budgets = [f"{100 * budget:g}" for budget in shown.loc[shown["side"] == side, "budget"]]
        words += [f"{word} at {', '.join(budgets)} %"] * bool(budgets)
    return ", ".join(words)


def _span(found: pd.DataFrame) -> str:
    first, last = found.iloc[0], found.iloc[-1]
    return (
        f"{first['mean']:.2f} [{first['low']:.2f}, {first['high']:.2f}] at {100 * first['budget']:g} % and "
        f"{last['mean']:.2f} [{last['low']:.2f}, {last['high']:.2f}] at {100 * last['budget']:g} %"
    )


def gradient_verdict(table: pd.DataFrame, *, split: str = "train") -> str:
    """Fig. 3: are gradient norms higher for the minority, and do they fall as more ReLUs are kept?"""
    ratios = role_ratios(table, "gradient_norm", split=split)
    moved = against_original(table, "gradient_norm", split=split)
    roles = "; ".join(
        f"{role}: {_sides(part, 'larger', 'smaller')}" for role, part in moved.groupby("role", sort=False)
    )
    return (
        f"**Verdict** ({ratios['n_seeds'].min()} seeds, {split} split). *Higher for the minority*: "
        f"{_sides(ratios, 'yes', 'the other way round')}; minority over majority is {_span(ratios)}. "
        f"*Falling with the ReLUs kept*: against the same seed's original network the norm is {roles}."
    )


def has_eigenvalues(table: pd.DataFrame) -> bool:
    """Whether any row has a top Hessian eigenvalue: a study may leave them out."""
    return "top_eigenvalue" in table and bool(table["top_eigenvalue"].notna().any())


def eigenvalue_verdict(table: pd.DataFrame) -> str:
    """Fig. 4: is the minority's top Hessian eigenvalue consistently higher in the original network?"""
    part = table[(table["arm"] == "original") & (table["split"] == "train")]
    part = part[part["top_eigenvalue_converged"].eq(True)].astype({"top_eigenvalue": float})
    ratios = role_ratios(part, "top_eigenvalue", split="train")
    if ratios.empty:
        return "**Verdict**. In no seed did the search converge in a minority and in a majority group: nothing is said."
    [row] = ratios.itertuples()
    higher = [
        low > high
        for _, seed in part.groupby("seed")
        for low in seed.loc[seed["role"] == "minority", "top_eigenvalue"]
        for high in seed.loc[seed["role"] == "majority", "top_eigenvalue"]
    ]
    return (
        f"**Verdict** ({row.n_seeds} seeds). Minority over majority is {row.mean:.1f} [{row.low:.1f}, {row.high:.1f}]: "
        f"higher on average is {'shown' if row.low > 1 else 'not shown'}. *Consistently*: of all pairs of a minority "
        f"and a majority group of one network, {100 * np.mean(higher):.0f} % are in this order."
    )


def distance_verdict(table: pd.DataFrame) -> str:
    """Fig. 8, left: does the parameter distance grow as ReLUs go, and more than training alone makes it?"""
    part = table[table["arm"] != "original"].drop_duplicates(["arm", "budget", "seed"])
    wide = part.pivot(index="seed", columns=["arm", "budget"], values="relative_distance")
    plain = wide["plain"].sort_index(axis=1, ascending=False)
    ordered = (plain.diff(axis=1).iloc[:, 1:] > 0).all(axis=1)
    ends = plain.columns[[0, -1]]
    said = (
        f"**Verdict** ({len(plain)} seeds). The distance grows at every step down in {ordered.sum()} of {len(plain)} "
        f"seeds, from {plain[ends[0]].mean():.3f} at {100 * ends[0]:g} % to {plain[ends[1]].mean():.3f} at "
        f"{100 * ends[1]:g} % of the original's norm"
    )
    if "control" not in wide:
        return said + "."
    moved = [(wide["control"][end] / plain[end].where(plain[end] > 0)).dropna() for end in ends]
    if any(values.empty for values in moved):
        return said + "."
    share = [mean_interval(values.to_numpy()) for values in moved]
    texts = [f"{100 * got.mean:.0f} % [{100 * got.low:.0f}, {100 * got.high:.0f}]" for got in share]
    return f"{said}. Training alone, the control, moves as far as {texts[0]} and {texts[1]} of that."


def accuracy_verdict(rows: pd.DataFrame) -> str:
    """Fig. 8, middle and right: accuracy against gradient norm and margin at the lowest budget, over groups.

    Args:
        rows: From `linfair_book.predictors.group_rows`.
    """
    at = rows[rows["budget"] == rows["budget"].min()]
    found = correlations(at, outcome="accuracy", predictors=OWN).set_index(["statistic", "predictor"])
    texts = []
    for one in OWN:
        alone, given = (found.loc[(name, one.name)] for name in ("alone", "given group size"))
        if not alone["n_seeds"]:
            texts.append(f"with the {one.name} that no seed defines (one of the two is constant)")
            continue
        ends = one.sign * alone["low"], one.sign * alone["high"]
        within = f"; {given['mean']:+.2f} [{given['low']:.2f}, {given['high']:.2f}] among groups of equal size"
        texts.append(
            f"with the {one.name} {alone['mean']:+.2f} [{alone['low']:.2f}, {alone['high']:.2f}] "
            f"({'as claimed' if min(ends) > 0 else 'not shown'}{within if given['n_seeds'] else ''})"
        )
    seeds = rows["seed"].nunique()
    return (
        f"**Verdict** ({seeds} seeds, {100 * at['budget'].iloc[0]:g} % of the ReLUs). Accuracy has rank correlation "
        f"{'; '.join(texts)}."
    )


def margin_verdict(table: pd.DataFrame, *, split: str = "test_balanced") -> str:
    """Fig. 14 and Sec. 5.3: is the majority further from the boundary, and what does linearization change?"""
    ratios = role_ratios(table, "margin", split=split)
    moved = against_original(table, "margin", split=split)
    roles = "; ".join(f"{role}: {_sides(part, 'larger', 'smaller')}" for role, part in moved.groupby("role"))
    return (
        f"**Verdict** ({ratios['n_seeds'].min()} seeds). *Minority nearer the boundary*: "
        f"{_sides(ratios, 'the other way round', 'yes')}; minority over majority is {_span(ratios)}. "
        f"Against the original network the margin itself is {roles}."
    )
