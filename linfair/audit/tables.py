"""The report's tables, as text: a line per group, arm, budget or audit, with intervals. The notebook shows the same."""

from collections.abc import Sequence

import pandas as pd

from linfair.audit import figures
from linfair.audit.findings import against_control, gap_of, interval, number, overall, row_of, rows_of, share
from linfair.audit.run import Audit
from linfair.mitigation import PLAIN


def accuracy_table(audit: Audit) -> pd.DataFrame:
    """Accuracy in % of every group at every budget, with its 95 % Wilson interval."""
    before = rows_of(audit, "original", 1.0)
    columns = {"group": before["group_name"], "role": before["role"]}
    columns |= {"trained on": before["n_train"].map("{:,}".format), "tested": before["n"].map("{:,}".format)}
    columns["100 %"] = _accuracies(before)
    columns |= {share(budget): _accuracies(rows_of(audit, PLAIN, budget)) for budget in audit.plan.budgets}
    return pd.DataFrame(columns)


def drop_table(audit: Audit) -> pd.DataFrame:
    """Drop in points of every group against the original and, if there is one, against the 100 % control."""
    before, budgets = rows_of(audit, "original", 1.0), audit.plan.budgets
    columns = {"group": before["group_name"], "role": before["role"]}
    columns |= {share(budget): _drops(rows_of(audit, PLAIN, budget)) for budget in budgets}
    if audit.plan.control:
        columns |= {f"{share(budget)} against control": _drops(against_control(audit, budget)) for budget in budgets}
    return pd.DataFrame(columns)


def why_table(audit: Audit) -> pd.DataFrame:
    """Diagnostics of every group, original -> explained budget; R(a) with its 95 % interval."""
    before, after = rows_of(audit, "original", 1.0), rows_of(audit, PLAIN, audit.plan.named)
    columns = {"group": before["group_name"], "trained on": before["n_train"].map("{:,}".format)}
    pairs = list(zip(before.to_dict("records"), after.to_dict("records"), strict=True))
    for name, words in figures.WHY.items():
        if before[name].notna().all() and after[name].notna().all():
            columns[words] = [_change(one, two, name) for one, two in pairs]
    columns["excessive loss R(a)"] = [interval(r.excess, r.excess_low, r.excess_high, 2) for r in after.itertuples()]
    return pd.DataFrame(columns)


def arm_table(audit: Audit) -> pd.DataFrame:
    """The arms on validation images, accuracy in %; empty without repairs."""
    found = audit.mitigated
    if found is None:
        return pd.DataFrame()
    names, plain = [one.name for one in found.judged], found.choice[PLAIN].overall.accuracy
    rows = []
    for one in found.choice.candidates:
        worst = one.worst
        rows.append(
            {
                "fine-tuned with": one.arm,
                "overall": f"{100 * one.overall.accuracy:.1f}",
                "loss": number(100 * (plain - one.overall.accuracy)),
                "worst group": interval(100 * worst.accuracy, 100 * worst.low, 100 * worst.high, 0),
                "which": names[worst.group],
                "": found.choice.mark(one.arm),
            }
        )
    return pd.DataFrame(rows)


def repair_table(audit: Audit) -> pd.DataFrame:
    """Every group with plain fine-tuning and, if one was chosen, with the repair, on the test images, accuracy in %."""
    before, found = rows_of(audit, PLAIN, audit.plan.named), audit.mitigated
    columns = {"group": before["group_name"], "role": before["role"], PLAIN: _accuracies(before)}
    if found is None or found.choice.chosen == PLAIN:
        return pd.DataFrame(columns)
    chosen = found.choice.chosen
    after = rows_of(audit, chosen, audit.plan.named)
    change = [f"{100 * (two - one):+.1f}" for one, two in zip(before["accuracy"], after["accuracy"], strict=True)]
    return pd.DataFrame(columns | {chosen: _accuracies(after), "change": change})


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


def across_seeds(audits: Sequence[Audit]) -> pd.DataFrame:
    """Several audits of networks trained alike from other seeds, at each one's explained budget: a line each.

    A group that pays most in one and not in the next is no finding about that group.

    Args:
        audits: One for each seed.
    """
    lines = []
    for audit in audits:
        rows = rows_of(audit, PLAIN, audit.plan.named)
        gap = gap_of(rows)
        worst = row_of(rows, gap.worst)
        lost = overall(rows_of(audit, "original", 1.0)) - overall(rows)
        lines.append(
            {
                "seed": str(audit.subject.header.seed),
                "pays most": f"{worst['group_name']} ({worst['role']})",
                "its drop": interval(worst["drop"], worst["drop_low"], worst["drop_high"]),
                "gap between groups": interval(gap.gap, gap.low, gap.high),
                "overall drop": number(lost),
            }
        )
    return pd.DataFrame(lines)


def _accuracies(rows: pd.DataFrame) -> list[str]:
    return [f"{100 * r.accuracy:.1f} [{100 * r.low:.0f}, {100 * r.high:.0f}]" for r in rows.itertuples()]


def _drops(rows: pd.DataFrame) -> list[str]:
    return [f"{number(r.drop)} [{number(r.drop_low, 0)}, {number(r.drop_high, 0)}]" for r in rows.itertuples()]


def _change(one: dict[str, object], two: dict[str, object], name: str) -> str:
    text = f"{one[name]:.3g} → {two[name]:.3g}"
    converged = [end["top_eigenvalue_converged"] for end in (one, two)]
    if name == "top_eigenvalue" and not all(pd.notna(end) and end for end in converged):
        text += " (not converged)"
    return text
