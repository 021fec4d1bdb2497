"""What an audit found: named checks (`words.html` says what each outcome means), and the tables that are shown."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from linfair.audit.figures import WHY
from linfair.audit.repair import arm_table, compared
from linfair.audit.run import Audit
from linfair.audit.shown import accuracies, change_of_worst, drop_between, gap_of, interval, intervals, number, pooled
from linfair.data.describe import notes
from linfair.linearizers.record import budget_units, kept_share, missed, share
from linfair.masks import REDUCED, WORDS
from linfair.mitigation import PLAIN
from linfair.names import called, some

FEW = 30  #: Groups with fewer test images are named in the caveats

WITHIN, REPAIRED = "every group stays within the tolerance", "with the repair every group stays within the tolerance"
WORKS = "the network beats one fixed answer"
HOLDS, DOES_NOT, CANNOT_TELL = "holds", "does not hold", "cannot tell"


class Check(NamedTuple):
    """One question about an audit and its answer."""

    name: str  #: What is asked
    budget: float  #: Of which network, the share of units kept
    outcome: str  #: Whether the whole interval lies above 0, below it, or neither; of a p-value, whether it is noise
    value: float  #: In points
    low: float = math.nan  #: Lower end of its 95 % interval; nan where a p-value stands in its place
    high: float = math.nan  #: Upper end
    group: str = ""  #: Name of the group it is about; empty for all of them
    p: float = math.nan  #: The p-value of a repair's gain on validation images, else nan


def rows_of(audit: Audit, arm: str, budget: float) -> pd.DataFrame:
    """The rows of one network on the test split, by group; `original` has budget 1, other arms the share kept."""
    table = audit.groups
    return table[(table["arm"] == arm) & (table["budget"] == budget)].sort_values("group").reset_index(drop=True)


def networks(audit: Audit) -> dict[str, pd.DataFrame]:
    """The rows of the original network, `100 %`, and of each budget."""
    found = {share(at): rows_of(audit, PLAIN, at) for at in audit.plan.budgets}
    return {share(1.0): rows_of(audit, "original", 1.0)} | found


def row_of(rows: pd.DataFrame, group: int) -> pd.Series:
    """The row of one group, by its number."""
    return rows[rows["group"] == group].iloc[0]


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
    """A budget in words; where the network missed it, what is left and the budget."""
    kept, total = _kept(audit, budget)
    off = missed(kept, budget_units(budget, total))
    return f"{100 * kept / total:.3g} % (budget {share(budget)})" if off else share(budget)


def checks(audit: Audit) -> list[Check]:
    """Every check of an audit: those of a budget for each of them, those of a repair at the repaired one."""
    listed = [one for budget in audit.plan.budgets for one in _of_budget(audit, budget)]
    found, budget = audit.mitigated, audit.plan.named
    if found is None or len(found.choice.candidates) == 1:
        return listed
    choice = found.choice
    said = HOLDS if choice.helped else DOES_NOT if choice.best == PLAIN else CANNOT_TELL
    gain = Check("a repair gains on validation images", budget, said, choice.gain, p=choice[choice.best].p)
    if choice.chosen == PLAIN:
        return [*listed, gain]
    change = change_of_worst(rows_of(audit, PLAIN, budget), rows_of(audit, choice.chosen, budget))
    tested = _check("the repair gains on test images", budget, *change)
    return [*listed, gain, tested, _within(audit, choice.chosen, budget)._replace(name=REPAIRED)]


def _within(audit: Audit, arm: str, budget: float) -> Check:
    """Points to the tolerance, of the group that is certainly beyond it, or else of the one that may be furthest."""
    rows, tolerance = rows_of(audit, arm, budget), audit.plan.tolerance
    left = tolerance - pd.DataFrame({"value": rows["drop"], "low": rows["drop_high"], "high": rows["drop_low"]})
    at = left["high" if (left["high"] < 0).any() else "low"].idxmin()
    return _check(WITHIN, budget, *left.loc[at], rows["group_name"][at])


def headline(audit: Audit) -> Check:
    """The traffic light: the lowest budget within the tolerance, or the largest that cannot be told, or that is not."""
    found = [one for one in checks(audit) if one.name == WITHIN]
    held = [one for one in found if one.outcome == HOLDS]
    return held[-1] if held else min(found, key=lambda one: one.outcome == DOES_NOT)


def check_table(audit: Audit) -> pd.DataFrame:
    """The checks as a table: name, budget, outcome, value, low, high, group, p."""
    return pd.DataFrame(checks(audit))


def _check(name: str, budget: float, value: float, low: float, high: float, group: str = "") -> Check:
    outcome = HOLDS if low > 0 else DOES_NOT if high < 0 else CANNOT_TELL
    return Check(name, budget, outcome, value, low, high, group)


def _of_budget(audit: Audit, budget: float) -> Iterator[Check]:
    rows, labels = rows_of(audit, PLAIN, budget), audit.subject.data.splits[audit.split].y
    names, all_after = rows.set_index("group")["group_name"], pooled(rows)

    def drop(name: str, rows: pd.DataFrame) -> Check:
        sure = rows[rows["drop_low"] > 0]  # of what certainly loses, or else of all, the group that loses most
        one = rows.loc[(sure if len(sure) else rows)["drop"].idxmax()]
        return _check(name, budget, *one[["drop", "drop_low", "drop_high"]], one["group_name"])

    guess = labels.bincount().max().item() / len(labels)
    works = _check(WORKS, budget, *(100 * (all_after[end] - guess) for end in ("accuracy", "low", "high")))
    yield works
    within = _within(audit, PLAIN, budget)
    yield within._replace(outcome=CANNOT_TELL) if works.outcome != HOLDS == within.outcome else within
    lost = drop_between(pooled(rows_of(audit, "original", 1.0)), all_after)
    yield _check("accuracy falls over all groups", budget, *lost.values())
    gap = gap_of(rows)
    yield drop("a group loses accuracy", rows)
    pair = f"{names[gap.worst]}, {names[gap.best]}"
    differ = _check("groups lose differently", budget, gap.gap, gap.low, gap.high, pair)
    yield differ if works.outcome == HOLDS else differ._replace(outcome=CANNOT_TELL)  # it is no finding
    if audit.plan.control:
        yield drop("a group loses against the control", against_control(audit, budget))
        alone = rows_of(audit, "control", budget)
        yield drop("training alone costs the group that pays most", alone[alone["group"] == gap.worst])


def facts(audit: Audit) -> dict[str, object]:
    """What the sentences of `words.html` are filled with."""
    plan, subject, found, units = audit.plan, audit.subject, audit.mitigated, WORDS[audit.plan.reduction.kind]
    budget, data, known, part = plan.named, subject.data, subject.data.provenance, subject.data.splits[audit.split]
    before, rows = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, budget)
    gap, asked = gap_of(rows), {(one.name, one.budget): one for one in checks(audit)}
    repaired = None if found is None else rows_of(audit, found.choice.chosen, budget)
    own_scale = subject.own or "mean" in dict(subject.header.data_options) or not data.mean
    scale = " and ".join(", ".join(f"{value:.3f}" for value in values) for values in (data.mean, data.std))
    lowest, lifted = (None if one is None else one.loc[one["accuracy"].idxmin()] for one in (rows, repaired))
    return {"audit": audit, "plan": plan, "subject": subject, "data": data, "budget": budget, "few": FEW} | {
        "check": lambda name, at=budget: asked[name, at],
        "left": lambda at=budget: left(audit, at),
        **{"light": headline(audit), "repaired_within": REPAIRED},
        "within": [one for one in asked.values() if one.name == WITHIN],
        "networks": networks(audit),
        "network": lambda at: rows_of(audit, PLAIN, at),
        "kept": kept_share(*_kept(audit, budget), budget, units),
        **{"units": units, "unit": units[:-1], "reduced": REDUCED[plan.reduction.kind]},
        **{"before": before, "rows": rows, "repaired": repaired, "lowest": lowest, "lifted": lifted},
        **{"worst": row_of(rows, gap.worst), "best": row_of(rows, gap.best)},
        "rest": row_of(against_control(audit, budget), gap.worst) if plan.control else None,
        "standing": _standing(before.set_index("group"), gap.worst),
        "labels_are_groups": bool((part.a == part.y).all()) and data.group_names == data.label_names,
        "broken": [at for at in plan.budgets if asked[WORKS, at].outcome != HOLDS],
        "scaled": "" if own_scale else scale,
        "small": some(f"{row.group_name} ({row.n})" for row in before[before["n"] < FEW].itertuples()),
        "notes": list(notes(known | {"skipped": []}).values()),
    }


def _standing(before: pd.DataFrame, worst: int) -> tuple[list[str], int]:
    """Where a group stands in the original network, `2nd smallest margin`; and how many searches did not converge."""
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


def group_table(audit: Audit) -> pd.DataFrame:
    """Who the groups are: role, images trained on and tested."""
    rows = rows_of(audit, "original", 1.0)
    counts = {words: rows[name].map("{:,}".format) for words, name in (("trained on", "n_train"), ("tested", "n"))}
    return pd.DataFrame({"group": rows["group_name"], "role": rows["role"]} | counts)


def accuracy_table(audit: Audit) -> pd.DataFrame:
    """Accuracy in % of every group at every budget, with its 95 % Wilson interval."""
    columns = {name: accuracies(rows) for name, rows in networks(audit).items()}
    return pd.DataFrame({"group": rows_of(audit, "original", 1.0)["group_name"]} | columns)


def drop_table(audit: Audit, arm: str = "original") -> pd.DataFrame:
    """Drop in points of every group against the original or the 100 % control."""
    rows = {at: rows_of(audit, PLAIN, at) for at in audit.plan.budgets}
    rows = {at: against_control(audit, at) for at in rows} if arm == "control" else rows
    columns = {share(at): intervals(one, "drop", ends=0) for at, one in rows.items()}
    return pd.DataFrame({"group": rows_of(audit, "original", 1.0)["group_name"]} | columns)


def why_table(audit: Audit) -> pd.DataFrame:
    """Diagnostics of every group, original -> explained budget; R(a) with its 95 % interval."""
    before, after = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, audit.plan.named)
    columns = {"group": before["group_name"], "trained on": before["n_train"].map("{:,}".format)}
    for name, words in WHY.items():
        if before[name].notna().all() and after[name].notna().all():
            columns[words] = before[name].map("{:.3g}".format) + " → " + after[name].map("{:.3g}".format)
            if name == "top_eigenvalue":
                sure = before["top_eigenvalue_converged"] & after["top_eigenvalue_converged"]
                columns[words] += sure.fillna(False).map({True: "", False: " (not converged)"})
    columns["excessive loss R(a)"] = intervals(after, "excess", digits=2)
    return pd.DataFrame(columns)


def repair_table(audit: Audit) -> pd.DataFrame:
    """Every group with plain fine-tuning and, if one was chosen, with the repair, on the test images, accuracy in %."""
    chosen = PLAIN if audit.mitigated is None else audit.mitigated.choice.chosen
    return compared({called(arm): rows_of(audit, arm, audit.plan.named) for arm in (PLAIN, chosen)})


def tried_table(audit: Audit) -> pd.DataFrame:
    """The repairs on validation images, by their readers' names; empty without repairs."""
    table = arm_table(audit.mitigated)
    return table if table.empty else table.assign(arm=table["arm"].map(called))


def cost_table(audit: Audit) -> pd.DataFrame:
    """Seconds and bytes of one private answer at every budget; what pruning keeps, which takes no ReLU away."""
    units, lines = WORDS[audit.plan.reduction.kind], []
    for row in audit.cost.itertuples():
        kept, held = f"{row.kept_units:,} ({100 * row.kept_units / row.units:.3g} %)", f"{row.held} of {row.sites}"
        costs = (row.online_seconds, row.online_bytes / 1e6, row.offline_bytes / 1e6)
        lines.append([share(row.budget), kept, held, *map("{:.3g}".format, costs)])
    return pd.DataFrame(lines, columns=[units, "kept", f"layers with {units}", "seconds", "MB online", "MB before"])


def shown_checks(checks: pd.DataFrame) -> pd.DataFrame:
    """The checks of `check_table` as text."""
    values = [
        interval(row.value, row.low, row.high) if math.isnan(row.p) else f"{number(row.value)} (p = {row.p:.2g})"
        for row in checks.itertuples()
    ]
    columns = {"check": checks["name"], "kept": checks["budget"].map(share), "outcome": checks["outcome"]}
    return pd.DataFrame(columns | {"points": values, "group": checks["group"]})
