"""Agreement and setting of every claim, computed from rows, numbers of notebooks, and rules."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from linfair_book.judging import cells, measured
from linfair_book.judging import rows as tidy
from linfair_book.judging.rules import Check, Rule, Rules
from linfair_book.judging.statistics import holm

AGREEMENT = {
    "yes": "every check holds",
    "mixed": "something that the claim says holds, and something does not",
    "no": "what the claim says is contradicted, by more than the margin of the rule",
    "inconclusive": "what was measured neither shows it nor contradicts it",
    "not run": "there are no rows of it here",
}
"""What became of a claim, and what each word means."""

CELLS = [
    *("check", "says", "arm", "against", "group", "budget", "n", "estimate", "low", "high", "corrected_low"),
    *("corrected_high", "count", "p", "holm", "p_no", "holm_no", "threshold", "scale", "adverse", "outcome"),
]
"""Columns of the table of checks."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One set of rows (the columns `rows.SET`) under one rule; or the numbers of notebooks, which have no names."""

    names: Mapping[str, object]
    setting: str
    agreement: str
    seeds: int  # the largest number that a line rests on
    cells: pd.DataFrame  # the table of checks, columns `CELLS`
    source: Mapping[str, object]  # `rows.provenance`, or the evidence keys
    seen: bool  # whether the rows were there before the rules


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: both axes, the sets that decided, and those that stand beside them."""

    claim: str
    agreement: str
    setting: str
    deciding: tuple[Judged, ...] = ()
    beside: tuple[Judged, ...] = ()


def judge(rules: Rules, results: str | Path, evidence: pd.DataFrame) -> dict[str, Verdict]:
    """Every claim of the rules, from a folder of committed rows and from notebooks' numbers by key."""
    methods = {method for rule in rules.claims.values() for one in rule.rows for method in one["method"]}
    found = cells.contexts(tidy.read(results, methods), rules.judging)
    found += measured.contexts(results, rules.tables(), rules.judging)
    return {
        claim: judge_rows(rule, rules, found) if rule.rows else judge_numbers(rule, rules, evidence)
        for claim, rule in rules.claims.items()
    }


def judge_rows(rule: Rule, rules: Rules, contexts: Sequence[cells.Context | measured.Context]) -> Verdict:
    """A claim that rows judge."""
    counted = [
        one for one in contexts if rules.counts(rule, one.names) and "mitigation=" not in str(one.names["options"])
    ]
    judged = [found for one in counted if (found := _judge_set(rule, rules, one)) is not None]
    chosen = _closest(judged, rules)
    for setting in rules.settings:
        ready = [one for one in chosen if one.setting == setting["name"] and one.seeds >= setting["seeds"]]
        if ready:
            agreement = together([one.agreement for one in ready])
            for column, least in (rule.least or {}).items():
                if agreement == "yes" and len({one.names[column] for one in ready}) < least:
                    agreement = "inconclusive"
            beside = tuple(one for one in judged if one not in ready)
            return Verdict(rule.claim, agreement, str(setting["name"]), tuple(ready), beside)
    if judged:
        closest = next(s["name"] for s in rules.settings if any(one.setting == s["name"] for one in judged))
        return Verdict(rule.claim, "inconclusive", closest, beside=tuple(judged))
    return Verdict(rule.claim, "not run", "")


def judge_numbers(rule: Rule, rules: Rules, evidence: pd.DataFrame) -> Verdict:
    """A claim that notebooks' numbers judge; one that was not noted cannot be told."""
    known, nowhere = evidence.index, dict.fromkeys(("arm", "against", "group", "budget"), "")
    noted = {check: evidence.loc[check.of] for check in rule.checks if check.of in known}
    lines = [_shown(one, row["unit"]) | nowhere | cells.noted(one, row, rules.judging) for one, row in noted.items()]
    if not lines:
        return Verdict(rule.claim, "not run", "")
    keys = [check.of for check in noted]
    found = _corrected(lines, rules.judging["level"])
    one = Judged({}, rule.setting, agreement_of(rule, found), int(found["n"].max()), found, {"keys": keys}, seen=True)
    return Verdict(rule.claim, one.agreement, one.setting, (one,))


def outcome_of(check: Check, found: Sequence[str]) -> str:
    """Of a check, from the outcomes of its groups and budgets.

    >>> outcome_of(Check("a", "", above=0.0, need="most"), ["holds", "holds", "does not"])
    'holds'
    """
    holds, fails, n = found.count("holds"), found.count("does not"), len(found)
    enough, too_many = {
        "every": (holds == n, fails > 0),
        "most": (2 * holds > n, 2 * fails > n),
        "some": (holds > 0, fails == n),
    }[check.need]
    return "holds" if n and enough else "does not" if n and too_many else "cannot tell"


def agreement_of(rule: Rule, table: pd.DataFrame) -> str:
    """Of one set of rows, from its table of checks: see the words in `book/rules.toml`."""
    by = table.groupby("check")["outcome"].agg(list)
    found = {check.name: outcome_of(check, by.get(check.name, [])) for check in rule.checks}
    fails = {name for name, outcome in found.items() if outcome == "does not"}
    if set(found.values()) == {"holds"}:
        return "yes"
    if fails & rule.vital:
        return "no"
    if fails:
        return "mixed" if (table["outcome"] == "holds").any() else "no"
    return "inconclusive"


def together(agreements: Sequence[str]) -> str:
    """Of several sets of rows."""
    found = Counter(agreements)
    if found["mixed"] or (found["yes"] and found["no"]):
        return "mixed"
    return next((word for word in ("yes", "no") if 2 * found[word] > len(agreements)), "inconclusive")


def _closest(judged: Sequence[Judged], rules: Rules) -> list[Judged]:
    """Of the sets of one setting that share data, network and method: the one that may decide."""

    def rank(one: Judged) -> tuple[object, ...]:
        width = int(one.names["width"]) or rules.full_width.get(str(one.names["network"]), 0)
        options, first = str(one.names["options"]), str(rules.judging["first"].get(one.names["method"], ""))
        profile = list(rules.judging["profiles"]).index(one.names["profile"])
        return first not in options, -one.seeds, -width, profile, options

    best: dict[tuple[object, ...], Judged] = {}
    for one in sorted(judged, key=rank):
        best.setdefault((one.setting, *(one.names[column] for column in ("data", "network", "method"))), one)
    return [one for one in judged if one in best.values()]


def _judge_set(rule: Rule, rules: Rules, context: cells.Context | measured.Context) -> Judged | None:
    """One set under one rule; None if it has no line of any check."""
    lines, one_a_line = [], isinstance(context, measured.Context)
    for check in rule.checks:
        shown = _shown(check, "signs over seeds" if check.value.rank else check.value.scale)
        lines += [shown | line for line in (measured if one_a_line else cells).evaluate(check, context)]
    if not lines:
        return None
    found, names = _corrected(lines, rules.judging["level"]), context.names
    if one_a_line:
        source = measured.provenance(context, rule.checks)
    else:
        arms = {"original", *found["arm"], *found["against"]}
        source = tidy.provenance(context.rows[context.rows["arm"].isin(arms)])
    agreement, seeds = agreement_of(rule, found), int(found["n"].max())
    return Judged(names, rules.setting_of(names), agreement, seeds, found, source, names["profile"] in rules.seen)


def _shown(check: Check, scale: str) -> dict[str, object]:
    return {"check": check.name, "says": check.says, "threshold": check.threshold(), "scale": scale}


def _corrected(lines: Sequence[dict[str, object]], level: float) -> pd.DataFrame:
    """The table of checks: p values corrected by Holm over all lines, and each line's outcome."""
    table = pd.DataFrame(lines)
    table = table.assign(holm=holm(table["p"]), holm_no=holm(table["p_no"]))
    clear = [table["holm"] < 1 - level, table["holm_no"] < 1 - level]
    return table.assign(outcome=np.select(clear, ["holds", "does not"], "cannot tell"))[CELLS]
