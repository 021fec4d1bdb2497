"""The tables that report, commands and notebook show: a line per group, arm, budget, check or audit, with intervals."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from linfair.audit import figures
from linfair.audit.findings import against_control, gap_of, overall, row_of, rows_of
from linfair.audit.repair import Mitigated
from linfair.audit.run import Audit
from linfair.audit.shown import accuracies, change_of_worst, change_text, interval, intervals, number, pooled
from linfair.linearizers.record import share
from linfair.metrics import GroupAccuracy
from linfair.mitigation import PLAIN


def accuracy_table(audit: Audit) -> pd.DataFrame:
    """Accuracy in % of every group at every budget, with its 95 % Wilson interval."""
    before = rows_of(audit, "original", 1.0)
    columns = {"group": before["group_name"], "role": before["role"]}
    columns |= {"trained on": before["n_train"].map("{:,}".format), "tested": before["n"].map("{:,}".format)}
    columns["100 %"] = accuracies(before)
    return pd.DataFrame(columns | {share(b): accuracies(rows_of(audit, PLAIN, b)) for b in audit.plan.budgets})


def drop_table(audit: Audit) -> pd.DataFrame:
    """Drop in points of every group against the original and, if there is one, against the 100 % control."""
    before, budgets = rows_of(audit, "original", 1.0), audit.plan.budgets
    drops = {share(b): rows_of(audit, PLAIN, b) for b in budgets}
    drops |= {f"{share(b)} against control": against_control(audit, b) for b in budgets if audit.plan.control}
    columns = {name: intervals(rows, "drop", ends=0) for name, rows in drops.items()}
    return pd.DataFrame({"group": before["group_name"], "role": before["role"]} | columns)


def why_table(audit: Audit) -> pd.DataFrame:
    """Diagnostics of every group, original -> explained budget; R(a) with its 95 % interval."""
    before, after = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, audit.plan.named)
    columns = {"group": before["group_name"], "trained on": before["n_train"].map("{:,}".format)}
    for name, words in figures.WHY.items():
        if before[name].notna().all() and after[name].notna().all():
            columns[words] = before[name].map("{:.3g}".format) + " → " + after[name].map("{:.3g}".format)
            if name == "top_eigenvalue":
                sure = before["top_eigenvalue_converged"] & after["top_eigenvalue_converged"]
                columns[words] += sure.fillna(False).map({True: "", False: " (not converged)"})
    columns["excessive loss R(a)"] = intervals(after, "excess", digits=2)
    return pd.DataFrame(columns)


def arm_table(found: Mitigated | None) -> pd.DataFrame:
    """The arms on validation images, accuracy in %, loss and gain in points against plain; empty without repairs."""

    def percent(one: GroupAccuracy) -> str:
        return interval(100 * one.accuracy, 100 * one.low, 100 * one.high, ends=0)

    choice = found and found.choice
    return pd.DataFrame(
        {
            "arm": one.arm,
            "overall": percent(one.overall),
            "loss": number(100 * (choice[PLAIN].overall.accuracy - one.overall.accuracy)),
            "worst group": percent(one.worst),
            "which": found.judged[one.worst.group].name,
            "n": one.worst.n,
            "gain": f"{100 * (one.worst.accuracy - choice[PLAIN].worst.accuracy):+.1f}",
            "p": "" if math.isnan(one.p) else f"{one.p:.2g}",
            "": choice.mark(one.arm),
        }
        for one in (choice.candidates if found else ())
    )


def compared(of: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy in % of every group, and of all together, under one or two arms, and the change in points."""
    parts = [pd.concat([rows, pd.DataFrame([pooled(rows)])], ignore_index=True) for rows in of.values()]
    first, last = parts[0], parts[-1]
    columns = {"group": first["group_name"].fillna("all"), "role": first["role"].fillna(""), "n": first["n"]}
    columns |= {arm: accuracies(rows) for arm, rows in zip(of, parts, strict=True)}
    if len(parts) > 1:
        columns["change"] = (100 * (last["accuracy"] - first["accuracy"])).map("{:+.1f}".format)
    return pd.DataFrame(columns)


def repair_table(audit: Audit) -> pd.DataFrame:
    """Every group with plain fine-tuning and, if one was chosen, with the repair, on the test images, accuracy in %."""
    chosen = PLAIN if audit.mitigated is None else audit.mitigated.choice.chosen
    return compared({arm: rows_of(audit, arm, audit.plan.named) for arm in (PLAIN, chosen)})


def mitigated_text(found: Mitigated) -> str:
    """What `mitigate` found for a terminal: the arms on validation, the choice and its reason, both arms on test."""
    choice = found.choice
    parts = [
        f"Validation, n = {choice[PLAIN].overall.n}: accuracy in % with 95 % Wilson intervals; loss and gain in points "
        "against plain, p times the arms compared",
        arm_table(found).to_string(index=False),
        *(f"{arm}: left out, {words}" for arm, words in found.diverged.items()),
        *(f"warning: {text}" for text in found.warnings),
        f"\nChosen: {choice.chosen}\nReason: {choice.reason}",
    ]
    for split in [name for name in found.table["split"].unique() if name.startswith("test")]:
        rows = found.table[found.table["split"] == split].sort_values("group")
        of = {arm: rows[rows["arm"] == arm] for arm in dict.fromkeys([PLAIN, choice.chosen])}
        worst = ", ".join(f"{arm} {100 * part['accuracy'].min():.1f} %" for arm, part in of.items())
        worst += f"; {change_text(*change_of_worst(*of.values()))}" if len(of) > 1 else ""
        parts.append(f"\n{split}, looked at after the choice: accuracy in % with 95 % Wilson intervals")
        parts.append(f"{compared(of).to_string(index=False)}\nworst group: {worst}")
    return "\n".join(parts)


def cost_table(audit: Audit) -> pd.DataFrame:
    """Seconds and bytes of one private answer at every budget."""
    return pd.DataFrame(
        {
            "ReLUs": share(row.budget),
            "kept": f"{row.kept:,} ({100 * row.kept / row.units:.3g} %)",
            "layers with ReLUs": f"{row.layers} of {row.sites}",
            "seconds": f"{row.online_seconds:.3g}",
            "MB online": f"{row.online_bytes / 1e6:.3g}",
            "MB before": f"{row.offline_bytes / 1e6:.3g}",
        }
        for row in audit.cost.itertuples()
    )


def shown_checks(checks: pd.DataFrame) -> pd.DataFrame:
    """The checks of `linfair.audit.findings.check_table` as text."""
    values = [
        interval(row.value, row.low, row.high) if math.isnan(row.p) else f"{number(row.value)} (p = {row.p:.2g})"
        for row in checks.itertuples()
    ]
    columns = {"check": checks["name"], "ReLUs": checks["budget"].map(share), "outcome": checks["outcome"]}
    return pd.DataFrame(columns | {"points": values, "group": checks["group"]})


def across_seeds(audits: Sequence[Audit]) -> pd.DataFrame:
    """Several audits of networks trained alike from other seeds, at each one's explained budget: a line each.

    A group that pays most in one and not in the next is no finding about that group.
    """
    lines = []
    for audit in audits:
        rows = rows_of(audit, PLAIN, audit.plan.named)
        gap = gap_of(rows)
        worst = row_of(rows, gap.worst)
        line = {"seed": str(audit.subject.header.seed), "pays most": f"{worst['group_name']} ({worst['role']})"}
        line["its drop"] = interval(worst["drop"], worst["drop_low"], worst["drop_high"])
        line["gap between groups"] = interval(gap.gap, gap.low, gap.high)
        line["overall drop"] = number(overall(rows_of(audit, "original", 1.0)) - overall(rows))
        lines.append(line)
    return pd.DataFrame(lines)
