"""From a check and its rows, or a noted number, to lines: for each group and budget a number over seeds, tested."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from linfair_book.averages import even, less, paired, violations
from linfair_book.judging import rows as tidy
from linfair_book.judging.rules import LOW, VIOLATIONS, Check, Value
from linfair_book.judging.statistics import Estimate, mean, signs, spreads
from linfair_book.predictors import partial_spearman

NEAR = 1.25  # two methods are compared where one keeps at most this many times the other's ReLUs
_NOTHING = pd.DataFrame(columns=["budget", "seed", "group_name", "value"])


@dataclass(frozen=True)
class Context:
    """Rows of one method with their original networks, rows of the other methods beside it, and how to judge them."""

    names: Mapping[str, object]
    rows: pd.DataFrame
    others: Mapping[str, pd.DataFrame]
    shared: float
    judging: Mapping[str, object]
    found: dict[tuple[Value, bool], pd.DataFrame] = field(default_factory=dict)  # values that several checks use


def contexts(rows: pd.DataFrame, judging: Mapping[str, object]) -> list[Context]:
    """A context for each set of rows."""
    sets, made = tidy.sets(rows), []
    for key, table in sets.items():
        beside = [other for other in sets if other[: len(tidy.SHARED)] == key[: len(tidy.SHARED)]]
        beside.sort(key=lambda other: len(str(other[-1])), reverse=True)  # of a method, the fewest options stay
        others = {str(other[tidy.SET.index("method")]): sets[other] for other in beside}
        made.append(Context(dict(zip(tidy.SET, key, strict=True)), table, others, tidy.shared(table), judging))
    return made


def arm_in(rows: pd.DataFrame, arm: str) -> str:
    """The arm that a rule's name means: itself, or else the one of that name that most seeds have.

    That is one with another mu, or, for an arm with `kd=0.0` alone, with further settings.
    """
    there = rows["arm"].unique()
    further = re.fullmatch(r"(\w+)\(kd=0\.0\)(| from .+)", arm)
    if arm in there or ("(" in arm and not further):
        return arm
    said = rf"{further[1]}\((.+, )?kd=0\.0(, .+)?\){re.escape(further[2])}" if further else rf"{arm}\(mu=[^,]*"
    alike = [name for name in sorted(there) if re.fullmatch(said, name)]
    seeds = rows.drop_duplicates(["arm", "seed"])["arm"].value_counts() if len(alike) > 1 else {}
    return max(alike, key=lambda name: seeds.get(name, 0), default=arm)


def evaluate(check: Check, context: Context) -> list[dict[str, object]]:
    """The lines of a check, one for each group and budget; none where the rows lack an arm or a column."""
    value, judging = check.value, context.judging
    arm, against = (arm_in(context.rows, name) for name in (value.arm, value.against))
    at = value, check.groups == "all"
    if at not in context.found:
        context.found[at] = _values(value, context, arm, against, everyone=at[1])
    found = _chosen(check.groups, context.found[at])
    seeds = found.groupby("budget")["seed"].nunique()
    kept = sorted(seeds[seeds >= judging["seeds_share"] * found["seed"].nunique()].index, reverse=True)
    named = {"arm": arm, "against": against or (f"{arm} of {value.other}" if value.other else "")}
    lines = []
    for budget, part in _budgets(check.budgets, found, kept):
        for group, one in part.groupby("group_name", sort=False):
            if value.rank:
                line = _signed(check, one["value"].to_numpy(), judging["min_seeds"])
            elif value.scale == "spread":
                line = _spread(check, one, judging["min_seeds"])
            else:
                line = tested(check, mean(one["value"], shared=context.shared), judging, value.scale == "ratio")
            lines.append(named | {"group": group, "budget": budget} | line)
    return lines


def noted(check: Check, row: pd.Series, judging: Mapping[str, object]) -> dict[str, object]:
    """The line of a number that a notebook noted; it is exact without an interval."""
    n, value, judging = int(row["n"]), row["value"], {**judging, "min_seeds": 1}
    if not math.isnan(row["low"]):
        error = (row["high"] - row["low"]) / 2 / stats.t.ppf((1 + judging["level"]) / 2, n - 1)
        shared = judging["shared"].get(str(row.name).partition("#")[0], 0.0)
        return tested(check, Estimate(n, value, error, error * math.sqrt(1 + n * shared), n - 1), judging)
    line = tested(check, Estimate(n, value, 0.0, 0.0, 1), judging)
    if check.within is not None and abs(value - check.within[0]) <= check.within[1]:
        line |= {"p": 0.0, "p_no": 1.0}
    return line | dict.fromkeys(("low", "high", "corrected_low", "corrected_high"), math.nan)


def _values(value: Value, context: Context, arm: str, against: str, *, everyone: bool) -> pd.DataFrame:
    """A value for each budget, seed and group."""
    rows, split = context.rows, value.split
    if split == "test" and not everyone and "test_balanced" in set(rows["split"]):
        split = "test_balanced"
    others = [context.others.get(value.other, rows[:0])] if value.other else []
    for table in (rows, *others):
        here = set(table.loc[table["split"] == split, "arm"])
        column = "excess" if value.quantity in VIOLATIONS else value.quantity
        if not {arm, against} - {""} <= here or column not in table:
            return _NOTHING
    if value.rank:
        return _ranks(value, rows, arm, against, split)
    if value.quantity in VIOLATIONS:
        every = violations(rows[rows["split"] == split])
        rows = every.assign(group_name="all groups", role="all groups", n_train=0, n=1)
    options = {
        "arm": arm,
        "against": against,
        "split": split,
        "pooled": "all" if everyone else "group" if context.names["data"] in context.judging["one_by_one"] else "role",
        "beside": value.beside,
        "scale": "points" if value.scale == "spread" else value.scale,
    }
    found = paired(rows, value.quantity, **options)
    for other in others:
        found = _beside_other(found, paired(other, value.quantity, **options), _kept(rows, arm), _kept(other, arm))
    return found


def _chosen(groups: str, found: pd.DataFrame) -> pd.DataFrame:
    if groups in ("each", "all") or found.empty:
        return found
    found = found[found["role"] == ("majority" if groups == "majority" else "minority")]
    if groups != "smallest" or found.empty:
        return found
    return found[found["group_name"] == found.groupby("group_name")["n_train"].mean().idxmin()]


def _kept(rows: pd.DataFrame, arm: str) -> pd.Series:
    return rows[rows["arm"] == arm].groupby(["seed", "budget"])["kept"].first().clip(lower=1)


def _beside_other(found: pd.DataFrame, theirs: pd.DataFrame, ours: pd.Series, others: pd.Series) -> pd.DataFrame:
    """Each value less that of the other method at the nearest count of ReLUs; both stay as `ours` and `theirs`."""
    counts = others.rename("theirs").rename_axis(["seed", "at"]).reset_index()
    pairs = ours.rename("ours").reset_index().merge(counts, on="seed")
    gaps = np.abs(np.log(pairs.pop("theirs") / pairs.pop("ours"))).sort_values(kind="stable")
    pairs = pairs.loc[gaps[gaps <= math.log(NEAR)].index].drop_duplicates(["seed", "budget"])
    theirs = theirs.rename(columns={"budget": "at", "value": "theirs"})[["seed", "at", "group_name", "theirs"]]
    both = found.merge(pairs, on=["seed", "budget"]).merge(theirs, on=["seed", "at", "group_name"])
    return both.assign(ours=both["value"], value=both["value"] - both["theirs"])


def _ranks(value: Value, rows: pd.DataFrame, arm: str, against: str, split: str) -> pd.DataFrame:
    """Spearman's correlation over the groups of each seed and budget."""
    column, own = value.rank.removeprefix("own "), value.rank.startswith("own ")
    at = split if column == "accuracy" else "train"
    known = rows[(rows["arm"] == (arm if own else "original")) & (rows["split"] == at)]
    if column not in known:
        return _NOTHING
    on = ["seed", "group_name", *(["budget"] if own else [])]
    outcome = paired(rows, value.quantity, arm=arm, against=against, scale="difference", split=split)
    known = known.dropna(subset=[column])[[*on, column]].reset_index(drop=True)
    known = known.assign(accuracy=even(known[column])) if column == "accuracy" else known
    both = outcome.drop(columns="n_train").merge(known, on=on, validate="many_to_one")
    lines = []
    for (budget, seed), part in both.groupby(["budget", "seed"], sort=False):
        rho = partial_spearman(part["value"], part[column]) if len(part) >= 3 else math.nan
        if not math.isnan(rho):
            lines.append((budget, seed, f"{len(part)} groups", round(rho, 9)))  # else rounding gives 0 a sign
    return pd.DataFrame(lines, columns=_NOTHING.columns)


def _budgets(budgets: str, found: pd.DataFrame, kept: list[float]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Budgets as a rule names them, largest first, with the values there or the differences between two."""
    if budgets in ("steps", "trend"):
        ends = kept if budgets == "steps" else [*kept[:1], *kept[1:][-1:]]
        for large, small in zip(ends, ends[1:], strict=False):
            first, last = found[found["budget"] == large], found[found["budget"] == small]
            yield f"{100 * small:g} % less {100 * large:g} %", less(last, first, ["seed", "group_name"])
        return
    wanted = {"low": [budget for budget in kept if budget <= LOW], "lowest": kept[-1:]}.get(budgets, kept)
    for budget in wanted:
        yield f"{100 * budget:g} %", found[found["budget"] == budget]


def _line(n: int, estimate: float, ends: Iterable[float], ps: Sequence[float], least: int, **rest: object) -> dict:
    """A line's numbers; with too few seeds nothing is tested and nothing speaks against a claim."""
    p, p_no = ps if n >= least else (math.nan, math.nan)
    line = {"n": n, "estimate": estimate, "count": "", "adverse": False, "p": p, "p_no": p_no} | rest
    line["adverse"] = bool(line["adverse"]) and n >= least
    return line | dict(zip(("low", "high", "corrected_low", "corrected_high"), ends, strict=True))


def tested(check: Check, estimate: Estimate, judging: Mapping[str, object], ratio: bool = False) -> dict[str, object]:
    """A mean over seeds with its intervals and the p values of both outcomes; ratios are no longer logarithms."""
    to, back = (math.log, math.exp) if ratio else (float, float)
    plain, corrected = (estimate.interval(judging["level"], corrected=which) for which in (False, True))
    nothing = to(1.0 if ratio else 0.0)
    if check.within is not None:
        middle, half = check.within
        low, high = to(middle - half), to(middle + half)
        ps = max(estimate.p(low, 1), estimate.p(high, -1)), min(1.0, estimate.p(low, -1), estimate.p(high, 1))
        adverse = plain[0] > middle or plain[1] < middle
    else:
        at = to(check.above if check.side == 1 else check.below)
        ps = estimate.p(at, check.side), estimate.p(at - check.side * to(check.margin), -check.side)
        adverse = plain[1] < nothing if check.side == 1 else plain[0] > nothing
    ends = map(back, (*plain, *corrected))
    return _line(estimate.n, back(estimate.value), ends, ps, judging["min_seeds"], adverse=adverse)


def _signed(check: Check, values: np.ndarray, least: int) -> dict[str, object]:
    """Rank correlations as counted signs: no interval of five ranks is drawn."""
    clear = values[values != 0]
    hits = int((check.side * clear > 0).sum())
    ps = signs(hits, len(clear)), signs(len(clear) - hits, len(clear))
    count = f"{hits} of {len(values)} seeds {'above' if check.side == 1 else 'below'} 0"
    return _line(len(values), float(values.mean()), [math.nan] * 4, ps, least, count=count)


def _spread(check: Check, values: pd.DataFrame, least: int) -> dict[str, object]:
    """Spread over seeds against that of another method; nothing is tested where the ratio is not defined."""
    ratio, low, high, p = spreads(values["ours"], values["theirs"])
    ps = (p, 1.0) if check.side * (ratio - 1) > 0 else (1.0, p)
    ps = (math.nan, math.nan) if math.isnan(ratio) else ps
    return _line(len(values), ratio, (low, high) * 2, ps, least)
