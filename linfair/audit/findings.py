"""What an audit says in words: the answer, what explains it and what does not.

Every number in a sentence is computed from the tables of the `Audit`; a difference whose interval holds 0 is called
what it is, no more than test noise.
"""

import numpy as np
import pandas as pd

from linfair.audit.repair import change_of_worst, change_text
from linfair.audit.run import Audit, Plan
from linfair.linearizers.record import budget_units, kept_share, missed, share
from linfair.metrics import Disparity, GroupMean, disparity, wilson
from linfair.mitigation import PLAIN
from linfair.mitigation.choose import NOISE, Choice


def rows_of(audit: Audit, arm: str, budget: float) -> pd.DataFrame:
    """The rows of one network on the test split, in order of groups.

    Args:
        audit: The findings.
        arm: `original`, `plain`, `control` or a repair.
        budget: Share of ReLUs kept; 1 for the original.
    """
    table = audit.groups
    return table[(table["arm"] == arm) & (table["budget"] == budget)].sort_values("group").reset_index(drop=True)


def row_of(rows: pd.DataFrame, group: int) -> pd.Series:
    """The row of one group, by its number."""
    return rows[rows["group"] == group].iloc[0]


def gap_of(rows: pd.DataFrame, quantity: str = "drop") -> Disparity:
    """The largest difference between groups of one network, with its interval; large values are bad.

    Args:
        rows: Of one network.
        quantity: A column with `_low` and `_high` beside it.
    """
    fields = rows[["group", "n", quantity, f"{quantity}_low", f"{quantity}_high"]]
    return disparity([GroupMean(*row) for row in fields.itertuples(index=False)], worst="high")


def against_control(audit: Audit, budget: float) -> pd.DataFrame:
    """The rows of a budget with `drop` and its ends taken against the 100 % control instead of the original.

    The ends are put together from both Wilson intervals (MOVER), as for the drop against the original.
    """
    plain, control = rows_of(audit, PLAIN, budget), rows_of(audit, "control", budget)
    drop = control["accuracy"] - plain["accuracy"]
    low = drop - np.hypot(control["accuracy"] - control["low"], plain["high"] - plain["accuracy"])
    high = drop + np.hypot(control["high"] - control["accuracy"], plain["accuracy"] - plain["low"])
    return plain.assign(drop=100 * drop, drop_low=100 * low, drop_high=100 * high)


def overall(rows: pd.DataFrame) -> float:
    """Accuracy over all test images of one network, in per cent."""
    return float(100 * (rows["accuracy"] * rows["n"]).sum() / rows["n"].sum())


def left(audit: Audit, budget: float) -> str:
    """A budget in words; where the network missed it, what is left of the ReLUs and the budget."""
    kept, total = (int(rows_of(audit, *one)["kept"].iloc[0]) for one in ((PLAIN, budget), ("original", 1.0)))
    if not missed(kept, budget_units(budget, total)):
        return share(budget)
    return f"{100 * kept / total:.3g} % (budget {share(budget)})"


def besides(audit: Audit) -> str:
    """What a private answer computes beside ReLUs, which no number of the report holds."""
    others = audit.cost["others"].iloc[0]
    if not others:
        return "The network computes no nonlinearity but its ReLUs."
    return f"Nonlinearities that stay and are in no number here, for one image: {others}."


def interval(value: float, low: float, high: float, digits: int = 1) -> str:
    """A value and its interval; a group of one image has none.

    >>> interval(20.571, 8.1, 33.04), interval(0.5, float("nan"), float("nan"))
    ('20.6 [8.1, 33.0]', '0.5 [no interval]')
    """
    if np.isnan(low) or np.isnan(high):
        return f"{number(value, digits)} [no interval]"
    return "{} [{}, {}]".format(*(number(one, digits) for one in (value, low, high)))


def number(value: float, digits: int = 1) -> str:
    """A number to so many digits, never -0.0.

    >>> number(-0.04), number(-0.06)
    ('0.0', '-0.1')
    """
    return f"{round(value, digits) + 0.0:.{digits}f}"


def failed(audit: Audit, arm: str, budget: float) -> bool:
    """Whether a network is no better than always giving one answer: what its groups lose is then no finding."""
    rows = rows_of(audit, arm, budget)
    part = audit.subject.data.splits[audit.split]
    guess = part.y.bincount().max().item() / len(part)
    n = int(rows["n"].sum())
    return wilson(min(overall(rows) / 100, 1.0), n)[0] <= guess


def answer(audit: Audit) -> tuple[str, str, str]:
    """The answer in three sentences: who pays most and how much, from which budget on, and what was done about it."""
    return _who(audit), _when(audit), _repair(audit)


def _who(audit: Audit) -> str:
    budget = audit.plan.named
    rows, before = rows_of(audit, PLAIN, budget), rows_of(audit, "original", 1.0)
    gap, kept, total = gap_of(rows), int(rows["kept"].iloc[0]), int(before["kept"].iloc[0])
    head = f"With {kept_share(kept, total, budget)}"
    if failed(audit, PLAIN, budget):
        return (
            f"{head}, the network no longer works: it is right on {overall(rows):.1f} % of the test images, not "
            "measurably more than one fixed answer would be, so who loses most there says nothing about groups."
        )
    worst, best = row_of(rows, gap.worst), row_of(rows, gap.best)
    fall = (
        f"its accuracy goes from {100 * row_of(before, gap.worst)['accuracy']:.1f} to {100 * worst['accuracy']:.1f} %, "
        f"a drop of {_drop(worst)} points on {worst['n']:,} test images"
    )
    who = f"group {worst['group_name']} ({worst['role']}, {worst['n_train']:,} training images)"
    if worst["drop_low"] <= 0:
        return f"{head}, no group measurably loses accuracy: the largest drop is that of {who}, {fall}{_beyond(audit)}."
    gap_text = f"the gap of {interval(gap.gap, gap.low, gap.high)} points is"
    if not gap.low > 0:
        return (
            f"{head}, accuracy falls, but no group measurably pays more than another: the largest drop is that of "
            f"{who}, {fall}, the smallest that of group {best['group_name']}, {_drop(best)}; {gap_text} within test "
            "noise."
        )
    return (
        f"{head}, {who} pays most: {fall}, against {_drop(best)} for group {best['group_name']}, which pays least; "
        f"{gap_text} more than test noise."
    )


def _drop(row: pd.Series) -> str:
    return interval(row["drop"], row["drop_low"], row["drop_high"])


def _beyond(audit: Audit) -> str:
    """The group that loses most against the control, where that is more than test noise: extra training hid it."""
    if not audit.plan.control:
        return ""
    rows = against_control(audit, audit.plan.named)
    worst = row_of(rows, gap_of(rows).worst)
    if worst["drop_low"] <= 0:
        return "; nor does any group against a network trained as long that kept all its ReLUs"
    return (
        f"; but a network trained as long that kept all its ReLUs is {_drop(worst)} points better in group "
        f"{worst['group_name']}"
    )


def _when(audit: Audit) -> str:
    sound = [budget for budget in audit.plan.budgets if not failed(audit, PLAIN, budget)]
    gaps = {budget: gap_of(rows_of(audit, PLAIN, budget)) for budget in sound}
    clear = [budget for budget, gap in gaps.items() if gap.low > 0]
    lost = {
        budget: overall(rows_of(audit, "original", 1.0)) - overall(rows_of(audit, PLAIN, budget)) for budget in gaps
    }
    said = "; ".join(
        f"{left(audit, budget)}: {number(abs(lost[budget]))} points {_way(lost[budget])} overall, "
        f"{gap.gap:.1f} between groups"
        for budget, gap in gaps.items()
    )
    if not gaps:
        return "The linearized network no longer works at any of the budgets."
    if clear:
        return f"Groups fare measurably differently from {left(audit, clear[0])} of the ReLUs downwards ({said})."
    return f"At no budget is a difference between groups larger than test noise ({said})."


def _way(lost: float) -> str:
    return "lost" if lost >= 0 else "gained"


def _repair(audit: Audit) -> str:
    found, budget = audit.mitigated, audit.plan.named
    if found is None:
        return "No repair was tried (--no-mitigate)."
    plain, choice = rows_of(audit, PLAIN, budget), found.choice
    low = plain.loc[plain["accuracy"].idxmin()]
    stays = (
        f"With plain fine-tuning the worst group at {left(audit, budget)} is at {_accuracy(low)} on the test images "
        f"(group {low['group_name']})."
    )
    if len(choice.candidates) == 1:
        lost = len(found.diverged)
        tried = f"Every repair that was tried diverged ({lost} of {lost})." if lost else "No repair was tried."
        return f"{tried} {stays}"
    if choice.chosen == PLAIN:
        return f"Nothing that was tried helped measurably: {_why_not(choice, audit.plan)}. {stays}"
    after = rows_of(audit, choice.chosen, budget)
    high = after.loc[after["accuracy"].idxmin()]
    p = f"p = {choice[choice.chosen].p:.2g}"
    head = (
        f"Fine-tuned with {choice.chosen} instead, chosen on validation images for a gain of more than noise ({p}), "
        if choice.helped
        else f"Nothing that was tried helped measurably: the gain of {choice.chosen} on validation images is within "
        f"noise ({p}), and it was taken because --significance is {audit.plan.significance:g}. With it "
    )
    return (
        f"{head}the worst group at {left(audit, budget)} goes from {_accuracy(low)} (group {low['group_name']}) to "
        f"{_accuracy(high)} (group {high['group_name']}) on the test images, "
        f"{change_text(*change_of_worst(plain, after))}; overall accuracy changes by "
        f"{overall(after) - overall(plain):+.1f} points."
    )


def _why_not(choice: Choice, plan: Plan) -> str:
    """Why plain fine-tuning stays, in half a sentence."""
    rivals = [one for one in choice.candidates if one.allowed and one.arm != PLAIN]
    if not rivals:
        return f"every repair loses more than {plan.max_accuracy_loss:g} points overall on validation images"
    if choice.best == PLAIN:
        return "no repair makes the worst group better on validation images"
    p = choice[choice.best].p
    noise = "within noise" if p > NOISE else "not clear enough"
    return (
        f"the largest gain of the worst group on validation images, {choice.gain:+.1f} points with {choice.best}, is "
        f"{noise} (p = {p:.2g} for the best of {len(rivals)})"
    )


def _accuracy(row: pd.Series) -> str:
    return f"{interval(100 * row['accuracy'], 100 * row['low'], 100 * row['high'])} %"


def drift(audit: Audit) -> str:
    """What the 100 % control says about the group that pays most."""
    if not audit.plan.control:
        return (
            "No control was trained (--no-control): how much of a drop is due to the extra training alone, and not to "
            "missing ReLUs, is not known."
        )
    budget = audit.plan.named
    worst = gap_of(rows_of(audit, PLAIN, budget)).worst
    row, rest = (row_of(rows, worst) for rows in (rows_of(audit, "control", budget), against_control(audit, budget)))
    change = interval(-row["drop"], -row["drop_high"], -row["drop_low"])
    return (
        f"The 100 % control keeps every ReLU and is trained exactly as long. At {left(audit, budget)}, in group "
        f"{row['group_name']}, it changes by {change} points, which comes from the training alone; the linearized "
        f"network is {_drop(rest)} points below it."
    )


def explanation(audit: Audit) -> list[str]:
    """Where the group that pays most stands in what the paper explains losses by."""
    budget = audit.plan.named
    before = rows_of(audit, "original", 1.0)
    worst = gap_of(rows_of(audit, PLAIN, budget)).worst
    name, groups = row_of(before, worst)["group_name"], len(before)
    measured = {"gradient_norm": ("gradient norm", False), "margin": ("margin", True)}
    searched = before["top_eigenvalue"].notna().all()
    converged = before["top_eigenvalue_converged"].fillna(False).astype(bool)
    if searched and converged.all():
        measured["top_eigenvalue"] = ("top Hessian eigenvalue", False)
    found = []
    for column, (words, low_is_bad) in measured.items():
        ranks = before.set_index("group")[column].rank(ascending=low_is_bad, method="min")
        place = int(ranks[worst])
        end = "smallest" if low_is_bad else "largest"
        found.append(f"{_ordinal(place)}{end} {words}")
    listed = ", ".join(found[:-1]) + " and " + found[-1]
    where = (
        f"In the original network, before any ReLU was removed, group {name}, whose drop is the largest, has the "
        f"{listed} of {groups} groups."
    )
    if searched and not converged.all():
        where += (
            f" The search for the top Hessian eigenvalue did not converge in {int((~converged).sum())} of {groups} "
            "groups of that network, so they are not put in its order."
        )
    return [
        where,
        "The gradient norm says how strongly a small change of the weights moves the group's loss, the top Hessian "
        "eigenvalue how strongly that loss curves, the margin how far the group's images lie from the decision "
        "boundary. The paper ties large values of the first two, and small margins, to larger losses of accuracy.",
        "They cannot say that one caused the other: groups with few training images tend to have all three, and a "
        "handful of groups from one network cannot tell these apart.",
    ]


def _ordinal(place: int) -> str:
    if place == 1:
        return ""
    return f"{place}{'th' if place in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(place % 10, 'th')} "
