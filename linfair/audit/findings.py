"""What an audit found, as named checks: each holds, does not hold, or cannot be told, with the numbers behind it.

What a check means is written in `words.html`, by its name and outcome; the report, the command `linfair audit` and
notebook 11 take their sentences from there.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from linfair.audit.run import Audit
from linfair.audit.shown import change_of_worst, drop_between, pooled
from linfair.data.describe import notes
from linfair.linearizers.record import budget_units, kept_share, missed, share
from linfair.metrics import Disparity, GroupMean, disparity
from linfair.mitigation import PLAIN

FEW = 30
"""Groups with fewer test images are named in the caveats."""

WORKS = "the network beats one fixed answer"
HOLDS, DOES_NOT, CANNOT_TELL = "holds", "does not hold", "cannot tell"


@dataclass(frozen=True)
class Check:
    """One question about an audit and its answer."""

    name: str  #: What is asked, a key of `checks`
    budget: float  #: Of which network, the share of ReLUs kept
    #: Whether the whole interval lies above 0, below it, or neither; of a repair's gain on validation images whether it
    #: is more than noise
    outcome: str
    value: float  #: In points
    low: float = math.nan  #: Lower end of its 95 % interval; nan where a p-value stands in its place
    high: float = math.nan  #: Upper end
    group: str = ""  #: Name of the group it is about; empty for all of them
    p: float = math.nan  #: The p-value of a repair's gain on validation images, else nan


def rows_of(audit: Audit, arm: str, budget: float) -> pd.DataFrame:
    """The rows of one network on the test split, in order of groups.

    `arm` is `original` (at budget 1), `plain`, `control` or a repair; the budget is the share of ReLUs kept.
    """
    table = audit.groups
    return table[(table["arm"] == arm) & (table["budget"] == budget)].sort_values("group").reset_index(drop=True)


def row_of(rows: pd.DataFrame, group: int) -> pd.Series:
    """The row of one group, by its number."""
    return rows[rows["group"] == group].iloc[0]


def gap_of(rows: pd.DataFrame) -> Disparity:
    """The largest difference between the drops of two groups of one network, with its interval."""
    fields = rows[["group", "n", "drop", "drop_low", "drop_high"]]
    return disparity([GroupMean(*row) for row in fields.itertuples(index=False)], worst="high")


def against_control(audit: Audit, budget: float) -> pd.DataFrame:
    """The rows of a budget with `drop` and its ends taken against the 100 % control instead of the original."""
    plain = rows_of(audit, PLAIN, budget)
    return plain.assign(**drop_between(rows_of(audit, "control", budget), plain))


def overall(rows: pd.DataFrame) -> float:
    """Accuracy over all test images of one network, in per cent."""
    return 100 * pooled(rows)["accuracy"]


def _kept(audit: Audit, budget: float) -> tuple[int, int]:
    return tuple(int(rows_of(audit, *one)["kept"].iloc[0]) for one in ((PLAIN, budget), ("original", 1.0)))


def left(audit: Audit, budget: float) -> str:
    """A budget in words; where the network missed it, what is left of the ReLUs and the budget."""
    kept, total = _kept(audit, budget)
    off = missed(kept, budget_units(budget, total))
    return f"{100 * kept / total:.3g} % (budget {share(budget)})" if off else share(budget)


def besides(audit: Audit) -> str:
    """What a private answer computes beside ReLUs, which no number of the report holds."""
    others = audit.cost["others"].iloc[0]
    if not others:
        return "The network computes no nonlinearity but its ReLUs."
    return f"Nonlinearities that stay and are in no number here, for one image: {others}."


def checks(audit: Audit) -> list[Check]:
    """Every check of an audit: those of a budget for each of them, those of a repair at the repaired one."""
    return [*(one for budget in audit.plan.budgets for one in _of_budget(audit, budget)), *_of_repair(audit)]


def check_table(audit: Audit) -> pd.DataFrame:
    """The checks as a table: name, budget, outcome, value, low, high, group, p."""
    return pd.DataFrame(map(vars, checks(audit)))


def _check(name: str, budget: float, value: float, low: float, high: float, group: str = "") -> Check:
    outcome = HOLDS if low > 0 else DOES_NOT if high < 0 else CANNOT_TELL
    return Check(name, budget, outcome, value, low, high, group)


def _of_budget(audit: Audit, budget: float) -> Iterator[Check]:
    rows, labels = rows_of(audit, PLAIN, budget), audit.subject.data.splits[audit.split].y
    names, all_after = rows.set_index("group")["group_name"], pooled(rows)

    def drop(name: str, rows: pd.DataFrame, group: int) -> Check:
        return _check(name, budget, *row_of(rows, group)[["drop", "drop_low", "drop_high"]], names[group])

    guess = labels.bincount().max().item() / len(labels)
    works = _check(WORKS, budget, *(100 * (all_after[end] - guess) for end in ("accuracy", "low", "high")))
    yield works
    lost = drop_between(pooled(rows_of(audit, "original", 1.0)), all_after)
    yield _check("accuracy falls over all groups", budget, *lost.values())
    gap = gap_of(rows)
    yield drop("a group loses accuracy", rows, gap.worst)
    pair = f"{names[gap.worst]}, {names[gap.best]}"
    compared = _check("groups lose differently", budget, gap.gap, gap.low, gap.high, pair)
    # of a network that does not work, who loses most is no finding
    yield compared if works.outcome == HOLDS else replace(compared, outcome=CANNOT_TELL)
    if audit.plan.control:
        rest = against_control(audit, budget)
        yield drop("a group loses against the control", rest, gap_of(rest).worst)
        yield drop("training alone costs the group that pays most", rows_of(audit, "control", budget), gap.worst)


def _of_repair(audit: Audit) -> Iterator[Check]:
    found, budget = audit.mitigated, audit.plan.named
    if found is None or len(found.choice.candidates) == 1:
        return
    choice = found.choice
    said = HOLDS if choice.helped else DOES_NOT if choice.best == PLAIN else CANNOT_TELL
    yield Check("a repair gains on validation images", budget, said, choice.gain, p=choice[choice.best].p)
    if choice.chosen != PLAIN:
        change = change_of_worst(rows_of(audit, PLAIN, budget), rows_of(audit, choice.chosen, budget))
        yield _check("the repair gains on test images", budget, *change)


def facts(audit: Audit) -> dict[str, object]:
    """What the sentences of `words.html` are filled with."""
    plan, subject, found = audit.plan, audit.subject, audit.mitigated
    budget, data, known, part = plan.named, subject.data, subject.data.provenance, subject.data.splits[audit.split]
    before, rows = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, budget)
    gap, asked = gap_of(rows), {(one.name, one.budget): one for one in checks(audit)}
    repaired = None if found is None else rows_of(audit, found.choice.chosen, budget)
    own_scale = subject.own or "mean" in dict(subject.header.data_options) or not data.mean
    scale = " and ".join(", ".join(f"{value:.3f}" for value in values) for values in (data.mean, data.std))
    lowest, lifted = (None if one is None else one.loc[one["accuracy"].idxmin()] for one in (rows, repaired))
    return {"audit": audit, "plan": plan, "subject": subject, "data": data, "budget": budget} | {
        "check": lambda name, at=budget: asked[name, at],
        "left": lambda at=budget: left(audit, at),
        "network": lambda at: rows_of(audit, PLAIN, at),
        "kept": kept_share(*_kept(audit, budget), budget),
        "before": before,
        "rows": rows,
        "repaired": repaired,
        "first": row_of(before, gap.worst),
        "worst": row_of(rows, gap.worst),
        "best": row_of(rows, gap.best),
        "rest": row_of(against_control(audit, budget), gap.worst) if plan.control else None,
        "lowest": lowest,
        "lifted": lifted,
        "standing": _standing(before.set_index("group"), gap.worst),
        "besides": besides(audit),
        "labels_are_groups": bool((part.a == part.y).all()) and data.group_names == data.label_names,
        "broken": [at for at in plan.budgets if asked[WORKS, at].outcome != HOLDS],
        "scaled": "" if own_scale else scale,
        "few": FEW,
        "small": ", ".join(f"{row.group_name} ({row.n})" for row in before[before["n"] < FEW].itertuples()),
        "skipped": len(known.get("skipped") or []),
        "notes": list(notes(known | {"skipped": []}).values()),
    }


def _standing(before: pd.DataFrame, worst: int) -> tuple[list[str], int]:
    """Where the group that pays most stands in the original network in what the paper explains losses by.

    Such as `2nd smallest margin`; and the number of groups whose eigenvalue search did not converge.
    """
    measured, lost = {"gradient_norm": "largest gradient norm", "margin": "smallest margin"}, 0
    if before["top_eigenvalue"].notna().all():
        lost = int((~before["top_eigenvalue_converged"].fillna(False).astype(bool)).sum())
        measured |= {} if lost else {"top_eigenvalue": "largest top Hessian eigenvalue"}
    said = []
    for column, words in measured.items():
        place = int(before[column].rank(ascending=column == "margin", method="min")[worst])
        ending = "th" if place in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
        said.append(words if place == 1 else f"{place}{ending} {words}")
    return said, lost
