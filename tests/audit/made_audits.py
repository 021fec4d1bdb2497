"""Audits with every outcome, put together from numbers: nothing is trained, and nothing is left to luck."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import nn

from linfair.audit import Audit, Plan, Subject
from linfair.audit.repair import Mitigated
from linfair.checkpoints import Header
from linfair.cost import private_inference_cost
from linfair.data import GroupedData, Split
from linfair.masks import Mask
from linfair.metrics import wilson
from linfair.mitigation.choose import choose, judged_groups

UNITS = 1000
TESTED = 100
"""Test images of each group; every label is as frequent as the other, so that a fixed answer is right on half."""

REPAIRS = {
    "chosen": {"plain": (70, 5), "a": (70, 15)},
    "within noise": {"plain": (70, 5), "a": (70, 6)},
    "as before": {"plain": (70, 0), "a": (80, 0)},
    "worse": {"plain": (70, 10), "a": (80, 9), "b": (70, 10)},
    "all lose too much": {"plain": (80, 10), "a": (20, 20), "b": (30, 20)},
    "only plain": {"plain": (70, 10)},
}
"""Right answers of each arm on 80 and 20 validation images, for each way that a choice can end."""


def data_of(groups: int) -> GroupedData:
    """Data with so many groups and two labels; group 0 has most training images."""

    def part(counts: Sequence[int]) -> Split:
        a = torch.arange(groups).repeat_interleave(torch.tensor(counts))
        return Split(torch.zeros(len(a), 1), torch.arange(len(a)) % 2, a)

    splits = {
        "train": part([300] + [60] * (groups - 1)),
        "val": part([80] + [20] * (groups - 1)),
        "test": part([TESTED] * groups),
    }
    names = tuple(f"g{number}" for number in range(groups))
    return GroupedData("made", splits, ("no", "yes"), names, provenance={"options": {"group": "light"}})


def rows(
    data: GroupedData,
    arm: str,
    budget: float,
    accuracies: Sequence[float],
    *,
    original: Sequence[float],
    kept: int | None = None,
    converged: Sequence[bool | None],
) -> list[dict[str, object]]:
    """The rows of one network; a group's drop has the MOVER interval, as `diagnose` has it."""
    found = []
    for group, accuracy in enumerate(accuracies):
        low, high = wilson(accuracy, TESTED)
        before, (one, two) = original[group], wilson(original[group], TESTED)
        drop = before - accuracy
        ends = drop - math.hypot(before - one, high - accuracy), drop + math.hypot(two - before, accuracy - low)
        searched = converged[group] is not None
        found.append(
            {"arm": arm, "budget": budget, "kept": round(budget * UNITS) if kept is None else kept}
            | {"group": group, "group_name": data.group_names[group], "role": data.roles[group]}
            | {"n_train": data.counts[group], "n": TESTED, "accuracy": accuracy, "low": low, "high": high}
            | {"drop": 100 * drop, "drop_low": 100 * ends[0], "drop_high": 100 * ends[1]}
            | {"gradient_norm": 1.0 + group, "margin": 0.9 / (1 + group), "excess": drop}
            | {"excess_low": math.nan, "excess_high": math.nan}  # as of a group with one image
            | {"top_eigenvalue": 2.0 + group if searched else math.nan, "top_eigenvalue_converged": converged[group]}
        )
    return found


def mitigated(data: GroupedData, ends: str, *, diverged: Mapping[str, str], significance: float) -> Mitigated:
    """The choice among the arms of `REPAIRS[ends]`; groups beyond the second are right with every arm."""
    judged = judged_groups(data)
    sizes = [int((data.splits["val"].a == group).sum()) for group in range(len(judged))]
    correct = {
        arm: torch.cat([torch.arange(n) < (right[group] if group < 2 else n) for group, n in enumerate(sizes)]).float()
        for arm, right in REPAIRS[ends].items()
    }
    groups = torch.arange(len(judged)).repeat_interleave(torch.tensor(sizes))
    choice = choose(correct, groups, [one.name for one in judged], significance=significance)
    return Mitigated(choice, tuple(judged), dict(diverged), nn.Identity(), pd.DataFrame({"arm": list(correct)}))


def made(
    *,
    original: Sequence[float] = (0.9, 0.9),
    plain: Mapping[float, Sequence[float]] | None = None,
    repaired: Sequence[float] | None = None,
    control: Sequence[float] | None = None,
    ends: str | None = "chosen",
    diverged: Mapping[str, str] | None = None,
    significance: float = 0.05,
    converged: Sequence[bool | None] | None = None,
    kept: int | None = None,
    warnings: tuple[str, ...] = (),
) -> Audit:
    """An audit with these test accuracies.

    Args:
        original: Of each group, with all ReLUs.
        plain: Of each group, at each budget.
        repaired: Of each group with the chosen repair, if one is chosen; 0.8 by default.
        control: Of each group with the control; None is no control.
        ends: A key of `REPAIRS`; None tries no repair.
        diverged: Arms that diverged, and what is said of each.
        significance: Of the choice.
        converged: Whether the eigenvalue search of each group did; None was not searched. All did by default.
        kept: ReLUs kept at every budget; the budget's own by default.
        warnings: Of the subject.
    """
    data, plain = data_of(len(original)), plain or {0.5: (0.85, 0.75), 0.05: (0.8, 0.5)}
    about = {"original": original, "converged": converged or [True] * len(original)}
    budgets = tuple(plain)
    plan = Plan(budgets=budgets, mitigate=ends is not None, control=control is not None, significance=significance)
    table = rows(data, "original", 1.0, original, kept=UNITS, **about)
    for budget, accuracies in plain.items():
        table += rows(data, "plain", budget, accuracies, kept=kept, **about)
    found = None if ends is None else mitigated(data, ends, diverged=diverged or {}, significance=significance)
    if found is not None and found.choice.chosen != "plain":
        table += rows(data, found.choice.chosen, plan.named, repaired or [0.8] * len(original), kept=kept, **about)
    for budget in budgets if control is not None else ():
        table += rows(data, "control", budget, control, kept=UNITS, **about)
    groups = pd.DataFrame(table).astype({"top_eigenvalue_converged": "boolean"})
    costs = []
    for budget in (1.0, *budgets):
        mask = Mask({site: torch.arange(UNITS // 2) < budget * UNITS / 2 for site in "12"}, "")
        one = private_inference_cost(mask, bandwidth=1e8, rtt=0.05, macs=1000)
        sums = {"compute_seconds": one.compute_seconds, "online_seconds": one.online_seconds}
        about = {
            "network": "mine.py:build",
            "units": UNITS,
            "kept_units": one.kept,
            "held": 2,
            "macs": 1000,
            "budget": budget,
            "sites": 2,
            "freed": "",
            "others": "",
            "dominant": "",
        }
        costs.append(about | vars(one) | sums)
    header = Header("mine.py:build", 0, (1,), 2, "folder:images", 0)
    subject = Subject(nn.Identity(), data, header, own=False, files={}, drawn=True, warnings=warnings)
    return Audit(groups, pd.DataFrame(costs), found, subject, plan, "test", {}, 1.0, 1.0, {})
