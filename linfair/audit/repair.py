"""Repair a masked network: fine-tune it under several mitigations, choose on validation data, report once on test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from torch import nn

from linfair.audit.diagnose import Pair, provenance
from linfair.audit.network import behaviour
from linfair.audit.shown import accuracies, change_of_worst, change_text, number, pooled
from linfair.engine import ResultStore, Stages
from linfair.ledger import Guarantee
from linfair.linearizers.record import record
from linfair.metrics import wilson
from linfair.metrics.measure import DIAGNOSTICS, Original, measure
from linfair.mitigation import PLAIN, Lagrangian, check_name
from linfair.mitigation.choose import FEW, NOISE, Choice, Judged, check_limits, choose, judged_groups
from linfair.models import threads_of
from linfair.names import call
from linfair.study.arms import canonical, mitigation_of
from linfair.study.recipes import recipe
from linfair.training import Schedule, correctness, threads
from linfair.weights import removed

DEFAULT_ARMS = (PLAIN, "lagrangian", "lagrangian(clip=5.0)", "kd_over_c", "excess_drop")
DEFAULT_ARMS += ("balanced_sampling", "group_dro")
"""What is tried unless told otherwise."""


@dataclass(frozen=True)
class Mitigated:
    """What `mitigate` found."""

    choice: Choice  #: The choice on validation data
    judged: tuple[Judged, ...]  #: The groups it was judged by
    diverged: dict[str, str]  #: Arms that were left out, and what was said of each
    model: nn.Module = field(repr=False)  #: The chosen network
    #: A row for each (arm, split, group) with the columns of `linfair.measure`, `arm`, `judged`, `allowed`, `chosen`,
    #: `diverged`, `p`, `seconds_finetune`, provenance; test splits of `plain` and the chosen arm only
    table: pd.DataFrame = field(repr=False)
    warnings: tuple[str, ...] = ()  #: What people should know before they believe it
    guarantee: Guarantee | None = None  #: What is left of a guarantee of privacy for the chosen network


def arm_list(arms: Sequence[str] = DEFAULT_ARMS, mu: Sequence[float] = ()) -> list[str]:
    """Arms as they are written, `plain` first, each once; `lagrangian` arms without a `mu` of their own at each."""
    found = [PLAIN]
    for arm in map(str.strip, arms):
        name, _, rest = arm.partition("(")
        check_name(name.strip())
        if mu and isinstance(mitigation_of(arm), Lagrangian) and "mu" not in call(arm)[1]:
            found += [canonical(f"{name}(mu={float(one)!r}, {rest or ')'}") for one in mu]
        else:
            found.append(canonical(arm))
    return list(dict.fromkeys(found))


def mitigate(
    pair: Pair,
    *,
    arms: Sequence[str] = DEFAULT_ARMS,
    mu: Sequence[float] = (),
    max_accuracy_loss: float = 1.0,
    significance: float = NOISE,
    min_images: int = FEW,
    profile: str = "small",
    schedule: Schedule | None = None,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> Mitigated:
    """Fine-tune a masked network under every arm, choose on validation data, report `plain` and the choice on test.

    All start from the same network, with one schedule (the profile's unless another is given) and seed; `mu` are steps
    at which `lagrangian` arms without their own are tried. An arm that diverges is left out, but for `plain`.
    """
    data, header = pair.data, pair.header
    arms, planned = arm_list(arms, mu), recipe(header.network, profile).finetune
    judged = judged_groups(data, min_images=min_images)
    check_limits(max_accuracy_loss, significance)
    stages = Stages(data, [header.seed], store, count=threads_of(header.network), progress=progress)
    reduction, students = removed(pair.linearized, pair.original), {}
    total, (kept,) = reduction.total(pair.linearized), reduction.kept(pair.linearized)
    masked = record("mask", kept / total, kept, [pair.linearized], [0], [], single=True, reduction=reduction)
    masked = replace(masked, guarantee=pair.guarantee)
    with threads(stages.threads):
        how = {"computes": behaviour(pair.original, data), "guarantee": header.guarantee}
        teacher = stages.given(pair.original, **how)
        for arm in arms:
            one = students[arm] = stages.student(teacher, masked, schedule or planned, mitigation_of(arm))
            announce(f"{one.name}: {arm} of {header.network} on {header.data}: {'read' if one.read else 'computed'}")
        models = {arm: one.record.model.eval() for arm, one in students.items() if not one.said}
        place = {group: number for number, one in enumerate(judged) for group in one.groups}
        groups = torch.tensor([place[group] for group in data.splits["val"].a.tolist()])
        correct = {arm: correctness(model, data, "val")[0].cpu() for arm, model in models.items()}
        names = [one.name for one in judged]
        choice = choose(correct, groups, names, max_accuracy_loss=max_accuracy_loss, significance=significance)
        tests, frames = [name for name in data.splits if name.startswith("test")], []
        original = Original(pair.original, data)
        for arm, one in students.items():
            counts = [header.seed], one.record.budget, one.record.budget_units, one.record.kept, [0]
            how = {"split": ["val", *(tests if arm in (PLAIN, choice.chosen) else [])], "gradients": ()}
            rows = measure(one.record.model, data, *counts, original=original, **how)
            rows = rows.assign(arm=arm, diverged=bool(one.said), seconds_finetune=one.seconds)
            allowed, p = (False, torch.nan) if one.said else (choice[arm].allowed, choice[arm].p)
            frames.append(rows.assign(allowed=allowed, p=p))
    table = pd.concat(frames, ignore_index=True).drop(columns="mask_epochs")
    table.loc[table["diverged"], ["accuracy", "low", "high", *DIAGNOSTICS, "distance", "relative_distance"]] = None
    about = {"data": header.data, "network": header.network} | provenance(pair.original, data)
    about["judged"] = table["group"].map(lambda group: names[place[group]])
    table = table.assign(chosen=table["arm"] == choice.chosen, **about, profile=profile)
    lost = {arm: one.said for arm, one in students.items() if one.said}
    warnings = tuple(_warning(one) for one in judged if len(one.groups) > 1 or one.n < FEW)
    left = students[choice.chosen].record.guarantee
    return Mitigated(choice, tuple(judged), lost, models[choice.chosen], table, warnings, left)


def _warning(one: Judged) -> str:
    low, high = (f"{100 * end:.0f}" for end in wilson(0.5, one.n))
    who = f"The groups of the {one.name} are judged together on" if len(one.groups) > 1 else f"Group {one.name} has"
    few = f"{who} {one.n} validation image{'s' * (one.n > 1)}"
    return f"{few}, where an accuracy of 50 % has an interval from {low} to {high} %: a group may still lose"


def arm_table(found: Mitigated | None) -> pd.DataFrame:
    """The arms on validation images, accuracy in %, loss and gain in points against plain; empty without repairs."""
    if found is None:
        return pd.DataFrame()
    arms = found.choice.candidates  # plain first
    overall, worst = (pd.DataFrame([getattr(one, name) for one in arms]) for name in ("overall", "worst"))
    loss, gain = overall["accuracy"][0] - overall["accuracy"], worst["accuracy"] - worst["accuracy"][0]
    columns = {"arm": [one.arm for one in arms], "overall": accuracies(overall), "loss": (100 * loss).map(number)}
    columns |= {"worst group": accuracies(worst), "which": [found.judged[group].name for group in worst["group"]]}
    columns |= {"n": worst["n"], "gain": (100 * gain).map("{:+z.1f}".format)}
    columns["p"] = ["" if pd.isna(one.p) else f"{one.p:.2g}" for one in arms]
    return pd.DataFrame(columns | {"": [found.choice.mark(one.arm) for one in arms]})


def compared(of: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy in % of every group, and of all together, under one or two arms, and the change in points."""
    parts = [pd.concat([rows, pd.DataFrame([pooled(rows)])], ignore_index=True) for rows in of.values()]
    first, last = parts[0], parts[-1]
    columns = {"group": first["group_name"].fillna("all"), "role": first["role"].fillna(""), "n": first["n"]}
    columns |= {arm: accuracies(rows) for arm, rows in zip(of, parts, strict=True)}
    if len(parts) > 1:
        columns["change"] = (100 * (last["accuracy"] - first["accuracy"])).map("{:+z.1f}".format)
    return pd.DataFrame(columns)


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
