"""Agreement and setting of every claim, computed from rows, numbers of notebooks, and rules."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import stats

from linfair_book.judging import cells
from linfair_book.judging import rows as tidy
from linfair_book.judging.rules import Check, Rule, Rules
from linfair_book.judging.statistics import Estimate, holm

AGREEMENT = {
    "yes": "every check holds",
    "mixed": "something that the claim says holds, and something does not",
    "no": "what the claim says is contradicted, by more than the margin of the rule",
    "inconclusive": "what was measured neither shows it nor contradicts it",
    "not run": "there are no rows of it here",
}
"""What became of a claim, and what each word means."""

OUTCOMES = ("holds", "does not", "cannot tell")

CELLS = [
    *("check", "says", "arm", "against", "group", "budget", "n", "estimate", "low", "high", "corrected_low"),
    *("corrected_high", "count", "p", "holm", "p_no", "holm_no", "threshold", "scale", "adverse", "outcome"),
]
"""Columns of the table of checks."""


@dataclass(frozen=True)
class Judged:
    """One set of rows (or the numbers of notebooks) under one rule.

    Attributes:
        names: The columns `rows.SET`; empty for numbers of notebooks.
        setting: The setting it belongs to.
        agreement: One of `AGREEMENT`.
        seeds: The largest number of seeds that a line rests on.
        cells: The table of checks, columns `CELLS`.
        source: Where it comes from: `rows.provenance`, or the evidence keys.
        seen: Whether the rows were there before the rules.
    """

    names: Mapping[str, object]
    setting: str
    agreement: str
    seeds: int
    cells: pd.DataFrame
    source: Mapping[str, object]
    seen: bool


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: both axes, the sets that decided, and those that stand beside them."""

    claim: str
    agreement: str
    setting: str
    deciding: tuple[Judged, ...] = ()
    beside: tuple[Judged, ...] = ()


def outcomes(lines: Sequence[dict[str, object]], level: float) -> pd.DataFrame:
    """Add Holm's correction over all lines, and each line's outcome."""
    table = pd.DataFrame(lines)
    for name in ("p", "p_no"):
        table[name.replace("p", "holm", 1)] = holm(table[name].tolist())
    wanted, against = table["holm"] < 1 - level, table["holm_no"] < 1 - level
    table["outcome"] = [
        "holds" if one else "does not" if two else "cannot tell" for one, two in zip(wanted, against, strict=True)
    ]
    return table[CELLS]


def outcome_of(check: Check, found: Sequence[str]) -> str:
    """Of a check, from the outcomes of its groups and budgets.

    >>> outcome_of(Check("a", "", above=0.0, need="most"), ["holds", "holds", "does not"])
    'holds'
    """
    holds, fails = found.count("holds"), found.count("does not")
    if not found:
        return "cannot tell"
    if check.need == "every":
        return "holds" if holds == len(found) else "does not" if fails else "cannot tell"
    if check.need == "most":
        return "holds" if 2 * holds > len(found) else "does not" if 2 * fails > len(found) else "cannot tell"
    return "holds" if holds else "does not" if fails == len(found) else "cannot tell"


def agreement_of(rule: Rule, table: pd.DataFrame) -> str:
    """Of one set of rows, from its table of checks: see the words in `book/rules.toml`."""
    each = {check: table.loc[table["check"] == check.name, "outcome"].tolist() for check in rule.checks}
    found = {check.name: outcome_of(check, lines) for check, lines in each.items()}
    fails = {name for name, outcome in found.items() if outcome == "does not"}
    if all(outcome == "holds" for outcome in found.values()):
        return "yes"
    if fails & rule.vital:
        return "no"
    if fails:
        return "mixed" if (table["outcome"] == "holds").any() else "no"
    return "inconclusive"


def together(agreements: Sequence[str]) -> str:
    """Of several sets of rows.

    >>> together(["yes", "yes", "inconclusive"]), together(["yes", "inconclusive"]), together(["yes", "no"])
    ('yes', 'inconclusive', 'mixed')
    """
    found = Counter(agreements)
    if found["mixed"] or (found["yes"] and found["no"]):
        return "mixed"
    return next((word for word in ("yes", "no") if 2 * found[word] > len(agreements)), "inconclusive")


def judge_rows(
    rule: Rule,
    rules: Rules,
    sets: Mapping[tuple[object, ...], pd.DataFrame],
    known: dict[tuple[object, ...], list[dict[str, object]]] | None = None,
) -> Verdict:
    """A claim that rows judge."""
    known = {} if known is None else known
    judged = []
    for key, table in sets.items():
        names = dict(zip(tidy.SET, key, strict=True))
        if rules.counts(rule, names) and "mitigation=" not in str(names["options"]):
            judged += _judge_set(rule, rules, names, table, sets, known)
    chosen = [one for one in judged if one is _best(one, judged, rules)]
    for setting in rules.settings:
        ready = [one for one in chosen if one.setting == setting["name"] and one.seeds >= setting["seeds"]]
        if ready:
            return _verdict(rule, ready, judged)
    if judged:
        closest = next(s["name"] for s in rules.settings if any(one.setting == s["name"] for one in judged))
        return Verdict(rule.claim, "inconclusive", closest, beside=tuple(judged))
    return Verdict(rule.claim, "not run", "")


def _verdict(rule: Rule, deciding: list[Judged], judged: list[Judged]) -> Verdict:
    agreement = together([one.agreement for one in deciding])
    for column, least in (rule.least or {}).items():
        if agreement == "yes" and len({one.names[column] for one in deciding}) < least:
            agreement = "inconclusive"
    beside = tuple(one for one in judged if one not in deciding)
    return Verdict(rule.claim, agreement, deciding[0].setting, tuple(deciding), beside)


def _best(one: Judged, judged: list[Judged], rules: Rules) -> Judged:
    """Of the sets of one setting that share data, network and method with one: the one that decides."""
    columns = ("data", "network", "method")
    same = [o for o in judged if o.setting == one.setting and all(o.names[c] == one.names[c] for c in columns)]
    order = list(rules.judging["profiles"])
    first = str(rules.judging["first"].get(one.names["method"], ""))

    def rank(other: Judged) -> tuple[object, ...]:
        width = int(other.names["width"]) or rules.full_width.get(str(other.names["network"]), 0)
        options = str(other.names["options"])
        return first not in options, -other.seeds, -width, order.index(other.names["profile"]), options

    return min(same, key=rank)


def _judge_set(
    rule: Rule,
    rules: Rules,
    names: Mapping[str, object],
    table: pd.DataFrame,
    sets: Mapping[tuple[object, ...], pd.DataFrame],
    known: dict[tuple[object, ...], list[dict[str, object]]],
) -> list[Judged]:
    """One set under one rule; nothing if it has no line of any check. Lines that several claims use are `known`."""
    others: dict[str, pd.DataFrame] = {}
    for key, other in sorted(sets.items(), key=lambda pair: len(str(pair[0][-1])), reverse=True):
        if key[: len(tidy.SHARED)] == tuple(names[c] for c in tidy.SHARED):
            others[str(key[tidy.SET.index("method")])] = other
    judging = rules.judging
    context = cells.Context(
        rows=table,
        others=others,
        shared=tidy.shared(table),
        one_by_one=names["data"] in judging["one_by_one"],
        level=judging["level"],
        min_seeds=judging["min_seeds"],
        seeds_share=judging["seeds_share"],
    )
    lines = []
    for check in rule.checks:
        if (check.name, *names.values()) not in known:
            known[check.name, *names.values()] = cells.evaluate(check, context)
        scale = "signs over seeds" if check.value.rank else check.value.scale
        shown = {"check": check.name, "says": check.says, "threshold": check.threshold(), "scale": scale}
        lines += [shown | line for line in known[check.name, *names.values()]]
    if not lines:
        return []
    found = outcomes(lines, judging["level"])
    arms = {"original", *found["arm"], *found["against"]}
    source = tidy.provenance(table[table["arm"].isin(arms)])
    agreement, seeds = agreement_of(rule, found), int(found["n"].max())
    return [Judged(names, rules.setting_of(names), agreement, seeds, found, source, names["profile"] in rules.seen)]


def judge_numbers(rule: Rule, rules: Rules, evidence: pd.DataFrame) -> Verdict:
    """A claim that notebooks' numbers judge; one that was not noted cannot be told."""
    judging = rules.judging
    lines, keys = [], []
    for check in rule.checks:
        if check.of not in evidence.index:
            continue
        row = evidence.loc[check.of]
        keys.append(check.of)
        shown = {"check": check.name, "says": check.says, "threshold": check.threshold(), "scale": row["unit"]}
        shown |= {"arm": "", "against": "", "group": "", "budget": ""}
        lines.append(shown | _number(check, row, judging))
    if not lines:
        return Verdict(rule.claim, "not run", "")
    found = outcomes(lines, judging["level"])
    one = Judged({}, rule.setting, agreement_of(rule, found), int(found["n"].max()), found, {"keys": keys}, seen=True)
    return Verdict(rule.claim, one.agreement, one.setting, (one,))


def _number(check: Check, row: pd.Series, judging: Mapping[str, object]) -> dict[str, object]:
    """A noted number, exact without an interval."""
    page = str(row.name).partition("#")[0]
    n = int(row["n"])
    context = cells.Context(pd.DataFrame(), {}, 0.0, True, judging["level"], 1, 0.0)
    if math.isnan(row["low"]):
        exact = Estimate(n, row["value"], 0.0, 0.0, 1)
        found = cells.tested(check, exact, context)
        if check.within is not None and abs(row["value"] - check.within[0]) <= check.within[1]:
            found |= {"p": 0.0, "p_no": 1.0}
        return found | dict.fromkeys(("low", "high", "corrected_low", "corrected_high"), math.nan)
    error = (row["high"] - row["low"]) / 2 / stats.t.ppf((1 + judging["level"]) / 2, n - 1)
    shared = judging["shared"].get(page, 0.0)
    return cells.tested(check, Estimate(n, row["value"], error, error * math.sqrt(1 + n * shared), n - 1), context)


def judge(rules: Rules, results: str | Path, evidence: pd.DataFrame) -> dict[str, Verdict]:
    """Every claim of the rules.

    Args:
        rules: From `rules.load`.
        results: Folder of the committed rows.
        evidence: Notebooks' numbers by key.
    """
    methods = {method for rule in rules.claims.values() for one in rule.rows for method in one["method"]}
    sets = tidy.sets(tidy.read(results, methods))
    known: dict[tuple[object, ...], list[dict[str, object]]] = {}
    return {
        claim: judge_rows(rule, rules, sets, known) if rule.rows else judge_numbers(rule, rules, evidence)
        for claim, rule in rules.claims.items()
    }
