"""The tables that report and notebook show: a line per group, arm, budget, check or audit, with intervals."""

import math
from collections.abc import Sequence

import pandas as pd

from linfair.audit import figures, repair
from linfair.audit.findings import against_control, gap_of, overall, row_of, rows_of
from linfair.audit.run import Audit
from linfair.audit.shown import accuracies, interval, intervals, number
from linfair.linearizers.record import share
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
    before, drops = rows_of(audit, "original", 1.0), {}
    for budget in audit.plan.budgets:
        drops[share(budget)] = rows_of(audit, PLAIN, budget)
    for budget in audit.plan.budgets if audit.plan.control else ():
        drops[f"{share(budget)} against control"] = against_control(audit, budget)
    columns = {name: intervals(rows, "drop", ends=0) for name, rows in drops.items()}
    return pd.DataFrame({"group": before["group_name"], "role": before["role"]} | columns)


def why_table(audit: Audit) -> pd.DataFrame:
    """Diagnostics of every group, original -> explained budget; R(a) with its 95 % interval."""
    before, after = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, audit.plan.named)
    columns = {"group": before["group_name"], "trained on": before["n_train"].map("{:,}".format)}
    sure = [rows["top_eigenvalue_converged"].fillna(False).astype(bool) for rows in (before, after)]
    for name, words in figures.WHY.items():
        if before[name].notna().all() and after[name].notna().all():
            columns[words] = before[name].map("{:.3g}".format) + " → " + after[name].map("{:.3g}".format)
            if name == "top_eigenvalue":
                columns[words] += (sure[0] & sure[1]).map({True: "", False: " (not converged)"})
    columns["excessive loss R(a)"] = intervals(after, "excess", digits=2)
    return pd.DataFrame(columns)


def arm_table(audit: Audit) -> pd.DataFrame:
    """The arms on validation images, accuracy in %; empty without repairs."""
    found = audit.mitigated
    return pd.DataFrame() if found is None else repair.arm_table(found.choice, [one.name for one in found.judged])


def repair_table(audit: Audit) -> pd.DataFrame:
    """Every group with plain fine-tuning and, if one was chosen, with the repair, on the test images, accuracy in %."""
    chosen = PLAIN if audit.mitigated is None else audit.mitigated.choice.chosen
    return repair.compared({arm: rows_of(audit, arm, audit.plan.named) for arm in (PLAIN, chosen)})


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
        lines.append(
            {
                "seed": str(audit.subject.header.seed),
                "pays most": f"{worst['group_name']} ({worst['role']})",
                "its drop": interval(worst["drop"], worst["drop_low"], worst["drop_high"]),
                "gap between groups": interval(gap.gap, gap.low, gap.high),
                "overall drop": number(overall(rows_of(audit, "original", 1.0)) - overall(rows)),
            }
        )
    return pd.DataFrame(lines)
