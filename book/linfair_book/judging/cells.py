"""From a set of rows and a check to its numbers: for each group and budget the mean over seeds, tested."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from linfair.study.tables import paired
from linfair_book.judging.rules import LOW, Check, Value
from linfair_book.judging.statistics import Estimate, mean, signs, spreads

NEAR = 1.25
"""Two methods are compared where one keeps at most this many times the other's ReLUs."""


@dataclass(frozen=True)
class Context:
    """A set of rows and what judging it needs.

    Attributes:
        rows: Rows of one method with their original networks.
        others: Rows of other methods on the same data, network, width and profile.
        shared: n_test / n_train.
        one_by_one: Whether groups are judged by name.
        level: Of intervals and tests.
        min_seeds: Fewer tell nothing.
        seeds_share: Share of the seeds that a budget must have.
    """

    rows: pd.DataFrame
    others: dict[str, pd.DataFrame]
    shared: float
    one_by_one: bool
    level: float
    min_seeds: int
    seeds_share: float


def arm_in(rows: pd.DataFrame, arm: str) -> str:
    """The arm that a rule's name means: itself, or else the one of that name with another mu that most seeds have."""
    arms = rows.drop_duplicates(["arm", "seed"])["arm"].value_counts()
    if arm in arms or "(" in arm:
        return arm
    alike = [name for name in sorted(arms.index) if name.startswith(f"{arm}(mu=") and "," not in name]
    return max(alike, key=lambda name: arms[name], default=arm)


def evaluate(check: Check, context: Context) -> list[dict[str, object]]:
    """The lines of a check, one for each group and budget, without their outcome.

    Returns:
        For each: arm, against, group, budget, n, estimate, low, high, corrected_low, corrected_high, count, p, p_no,
        and `adverse`, whether the whole plain interval speaks against the claim.
        Empty where the rows lack an arm or a column.
    """
    lines = []
    for names, values in _numbers(check, context):
        if check.value.rank:
            got = _signed(check, values["value"].to_numpy(), context)
        elif check.value.scale == "spread":
            got = _spread(check, values, context)
        else:
            ratio = check.value.scale == "ratio"
            got = tested(check, mean(values["value"], shared=context.shared), context, ratio=ratio)
        lines.append(names | got)
    return lines


def _numbers(check: Check, context: Context) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Group and budget, and a value for each seed."""
    value = check.value
    arm, against = (arm_in(context.rows, name) for name in (value.arm, value.against))
    try:
        found = _values(check, context, arm, against)
    except KeyError:
        return
    seeds = found["seed"].nunique()
    share = found.groupby("budget")["seed"].nunique()
    kept = sorted(share[share >= context.seeds_share * seeds].index, reverse=True)
    found = found[found["budget"].isin(kept)]
    named = {"arm": arm, "against": against or (f"{arm} of {value.other}" if value.other else "")}
    for budget, part in _budgets(check.budgets, found, kept):
        for group, one in part.groupby("group_name", sort=False):
            yield named | {"group": group, "budget": budget}, one


def _values(check: Check, context: Context, arm: str, against: str) -> pd.DataFrame:
    """A value for each budget, seed and group of a check; KeyError where the rows have no such thing."""
    value, rows = check.value, context.rows
    split = value.split
    if split == "test" and check.groups != "all" and "test_balanced" in set(rows["split"]):
        split = "test_balanced"
    here = set(rows.loc[rows["split"] == split, "arm"])
    if not {arm, against} - {""} <= here or value.quantity not in rows:
        raise KeyError(arm)
    pooled = "all" if check.groups == "all" else "group" if context.one_by_one or value.rank else "role"
    if value.rank:
        return _ranks(value, rows, arm, against, split)
    options = {"split": split, "pooled": pooled, "beside": value.beside}
    scale = "points" if value.scale == "spread" else value.scale
    options |= {"arm": arm, "against": against, "scale": scale}
    found = paired(rows, value.quantity, **options)
    if value.other:
        other = context.others[value.other]
        if not {arm, against} - {""} <= set(other.loc[other["split"] == split, "arm"]):
            raise KeyError(value.other)
        found = _beside_other(found, paired(other, value.quantity, **options), _kept(rows, arm), _kept(other, arm))
    return found[_chosen(check.groups, found, rows, split)]


def _chosen(groups: str, found: pd.DataFrame, rows: pd.DataFrame, split: str) -> pd.Series:
    if groups in ("each", "all"):
        return pd.Series(True, index=found.index)
    if groups == "majority":
        return found["role"] == "majority"
    if groups == "minorities" or found["role"].equals(found["group_name"]):
        return found["role"] == "minority"
    sizes = rows[(rows["split"] == split) & (rows["role"] == "minority")].groupby("group_name")["n_train"].mean()
    return found["group_name"] == sizes.idxmin()


def _kept(rows: pd.DataFrame, arm: str) -> pd.Series:
    return rows[rows["arm"] == arm].groupby(["seed", "budget"])["kept"].first().clip(lower=1)


def _beside_other(found: pd.DataFrame, theirs: pd.DataFrame, ours: pd.Series, others: pd.Series) -> pd.DataFrame:
    """Each value less that of the other method at the nearest count of ReLUs; both stay as `ours` and `theirs`."""
    nearest = {}
    for (seed, budget), count in ours.items():
        if seed in others.index.get_level_values("seed"):
            gaps = np.abs(np.log(others[seed] / count))
            if gaps.min() <= math.log(NEAR):
                nearest[seed, budget] = gaps.idxmin()
    pairs = pd.DataFrame([[*key, other] for key, other in nearest.items()], columns=["seed", "budget", "at"])
    theirs = theirs.rename(columns={"budget": "at", "value": "theirs"})[["seed", "at", "group_name", "theirs"]]
    both = found.merge(pairs, on=["seed", "budget"]).merge(theirs, on=["seed", "at", "group_name"])
    if both.empty:
        raise KeyError("at")
    return both.assign(ours=both["value"], value=both["value"] - both["theirs"])


def _ranks(value: Value, rows: pd.DataFrame, arm: str, against: str, split: str) -> pd.DataFrame:
    """Spearman's correlation over the groups of each seed and budget."""
    outcome = paired(rows, value.quantity, arm=arm, against=against, scale="difference", split=split)
    column = value.rank.removeprefix("own ")
    of = arm if value.rank.startswith("own ") else "original"
    known = rows[(rows["arm"] == of) & (rows["split"] == "train")]
    if column not in known or known[column].isna().all():
        raise KeyError(column)
    on = ["seed", "group_name", *(["budget"] if of != "original" else [])]
    both = outcome.merge(known.dropna(subset=[column])[[*on, column]], on=on, validate="many_to_one")
    lines = []
    for (budget, seed), part in both.groupby(["budget", "seed"], sort=False):
        if len(part) >= 3 and part["value"].nunique() > 1 and part[column].nunique() > 1:
            rho = float(stats.spearmanr(part["value"], part[column].astype(float)).statistic)
            lines.append({"budget": budget, "seed": seed, "group_name": f"{len(part)} groups", "value": rho})
    if not lines:
        raise KeyError(column)
    return pd.DataFrame(lines)


def _budgets(budgets: str, found: pd.DataFrame, kept: list[float]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Budgets as a rule names them, largest first, with the values there or the differences between two."""
    wanted = kept
    if budgets in ("steps", "trend"):
        pairs = list(zip(kept, kept[1:], strict=False)) if budgets == "steps" else [(kept[0], kept[-1])]
        for large, small in pairs:
            if large == small:
                continue
            first, last = found[found["budget"] == large], found[found["budget"] == small]
            both = last.merge(
                first[["seed", "group_name", "value"]], on=["seed", "group_name"], suffixes=("", "_first")
            )
            yield f"{100 * small:g} % less {100 * large:g} %", both.assign(value=both["value"] - both["value_first"])
        return
    if budgets == "low":
        wanted = [budget for budget in kept if budget <= LOW]
    if budgets == "lowest":
        wanted = kept[-1:]
    for budget in wanted:
        yield f"{100 * budget:g} %", found[found["budget"] == budget]


def tested(check: Check, estimate: Estimate, context: Context, *, ratio: bool = False) -> dict[str, object]:
    """A mean over seeds with its intervals and the p values of both outcomes; ratios are no longer logarithms."""
    to = math.log if ratio else float
    back = math.exp if ratio else float
    if check.within is not None:
        low, high = (to(check.within[0] + side * check.within[1]) for side in (-1, 1))
        p = max(estimate.p(low, 1), estimate.p(high, -1))
        p_no = min(1.0, min(estimate.p(low, -1), estimate.p(high, 1)))
    else:
        side = 1 if check.above is not None else -1
        at = to(check.above if side == 1 else check.below)
        p = estimate.p(at, side)
        p_no = estimate.p(at - side * to(check.margin), -side)
    few = estimate.n < context.min_seeds
    plain = estimate.interval(context.level, corrected=False)
    corrected = estimate.interval(context.level)
    return {
        "n": estimate.n,
        "estimate": back(estimate.value),
        "low": back(plain[0]),
        "high": back(plain[1]),
        "corrected_low": back(corrected[0]),
        "corrected_high": back(corrected[1]),
        "count": "",
        "adverse": not few and _adverse(check, plain, to(1.0 if ratio else 0.0)),
        "p": math.nan if few else p,
        "p_no": math.nan if few else p_no,
    }


def _adverse(check: Check, interval: tuple[float, float], nothing: float) -> bool:
    """Whether a whole interval lies on the side that speaks against a claim, seen from no effect at all."""
    if check.within is not None:
        return interval[0] > check.within[0] or interval[1] < check.within[0]
    return interval[1] < nothing if check.above is not None else interval[0] > nothing


def _signed(check: Check, values: np.ndarray, context: Context) -> dict[str, object]:
    """Rank correlations as counted signs: no interval of five ranks is drawn."""
    clear = values[values != 0]
    side = 1 if check.above is not None else -1
    hits = int((side * clear > 0).sum())
    few = len(values) < context.min_seeds
    word = "above" if side == 1 else "below"
    return dict.fromkeys(("low", "high", "corrected_low", "corrected_high"), math.nan) | {
        "n": len(values),
        "estimate": float(values.mean()),
        "count": f"{hits} of {len(values)} seeds {word} 0",
        "adverse": False,
        "p": math.nan if few else signs(hits, len(clear)),
        "p_no": math.nan if few else signs(len(clear) - hits, len(clear)),
    }


def _spread(check: Check, values: pd.DataFrame, context: Context) -> dict[str, object]:
    ratio, low, high, p = spreads(values["ours"], values["theirs"])
    few = len(values) < context.min_seeds or math.isnan(ratio)
    side = 1 if check.above is not None else -1
    for_it = side * (ratio - 1) > 0
    return {
        "n": len(values),
        "estimate": ratio,
        "low": low,
        "high": high,
        "corrected_low": low,
        "corrected_high": high,
        "count": "",
        "adverse": False,
        "p": math.nan if few else p if for_it else 1.0,
        "p_no": math.nan if few else 1.0 if for_it else p,
    }
