"""Repair a masked network: fine-tune it under several mitigations, choose on validation data, report once on test.

The rule of the choice is `linfair.mitigation.choose`'s. Every arm starts from the same masked network and sees the same
schedule and seed; test images are looked at after the choice, for `plain` and the chosen arm.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import nn

import linfair
from linfair import gates
from linfair.audit.behaviour import behaviour
from linfair.audit.diagnose import Pair
from linfair.audit.shown import accuracies, drop_between, interval, number, pooled
from linfair.data import GroupedData
from linfair.device import device_name
from linfair.engine.stages import Stages, Student
from linfair.engine.store import ResultStore, weights_digest
from linfair.linearizers import LinearizedModel
from linfair.linearizers.record import record
from linfair.metrics import GroupAccuracy
from linfair.metrics.measure import DIAGNOSTICS, Original, measure
from linfair.mitigation import PLAIN, Lagrangian, check_name
from linfair.mitigation.choose import FEW, NOISE, Choice, Judged, check_limits, choose, judged_groups
from linfair.study.arms import canonical, mitigation_of
from linfair.study.recipes import recipe
from linfair.training import Schedule, correctness, threads

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
    #: `diverged`, `p`, `seconds_finetune` and provenance. Validation rows of every arm; test rows of `plain` and the
    #: chosen arm only.
    table: pd.DataFrame = field(repr=False)
    warnings: tuple[str, ...] = ()  #: What people should know before they believe it


def arm_list(arms: Sequence[str] = DEFAULT_ARMS, mu: Sequence[float] = ()) -> list[str]:
    """Arms as they are written, `plain` first, each once; `lagrangian` arms without a `mu` of their own at every `mu`.

    Raises:
        ValueError: For an unknown arm or option.

    >>> arm_list(["group_dro", "lagrangian(clip=5.0)"], mu=[0.005, 0.01])
    ['plain', 'group_dro', 'lagrangian(mu=0.005, clip=5.0)', 'lagrangian(mu=0.01, clip=5.0)']
    """
    found = [PLAIN]
    for arm in arms:
        name, bracket, rest = arm.strip().partition("(")
        if name.strip() == PLAIN and not bracket:
            continue
        check_name(name.strip())
        options = mitigation_of(arm.strip())
        if isinstance(options, Lagrangian) and mu and "mu" not in rest.replace("=", " ").split():
            found += [canonical(f"{name}(mu={float(one)!r}, {rest or ')'}") for one in mu]
        else:
            found.append(canonical(arm.strip()))
    return list(dict.fromkeys(found))


def check_groups(data: GroupedData) -> None:
    """Refuse data with a split on which a group cannot be measured, before anything is trained."""
    for name, part in data.splits.items():
        there = set(part.a.unique().tolist())
        empty = [group for number, group in enumerate(data.group_names) if number not in there]
        if empty:
            raise ValueError(
                f"groups {empty} of {data.name} have no image in the split {name}, so nothing can be said of them "
                "there: merge them with others, leave them out, or split the data otherwise"
            )


def masked_record(pair: Pair) -> LinearizedModel:
    """A pair's linearized network as the record that `linfair.linearizers.finetune` takes."""
    total, kept = gates.total_units(pair.linearized), int(gates.kept_units(pair.linearized)[0])
    return record("mask", kept / total, kept, [pair.linearized], [0], [], single=True)


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

    Interrupted, finished arms stay in the store and the same call goes on with the others.

    Args:
        pair: From `linfair.audit.read_pair`: original, masked network, data.
        arms: `plain` (always compared) and mitigations, `lagrangian(mu=0.005)`.
        mu: Steps at which `lagrangian` arms without their own are tried.
        max_accuracy_loss: See `linfair.mitigation.choose`.
        significance: See there.
        min_images: Groups with fewer validation images are judged together; 1 judges each alone.
        profile: Whose fine-tuning schedule, `linfair.study.recipe`.
        schedule: Another one in its place.
        store: Where finished arms are kept; the user's cache by default.
        progress: Show progress bars.
        announce: Told each arm's name and whether it was read or trained.

    Raises:
        ValueError: For an unknown arm or profile, limits outside their range, or a group without images in a split.
        TrainingDiverged: If plain fine-tuning does; an arm that does is left out.
    """
    data, header = pair.data, pair.header
    arms, planned = arm_list(arms, mu), recipe(header.network, profile).finetune
    check_groups(data)
    judged = judged_groups(data, min_images=min_images)
    check_limits(max_accuracy_loss, significance)
    count = 1 if header.network == "mlp" else None
    stages = Stages(data, [header.seed], store, count=count, progress=progress)
    with threads(stages.threads):
        teacher = stages.given(pair.original, computes=behaviour(pair.original, data))
        students, masked = {}, masked_record(pair)
        for arm in arms:
            one = students[arm] = stages.student(teacher, masked, schedule or planned, mitigation_of(arm))
            how = "read" if one.read else "computed"
            announce(f"{one.name}: {arm} of {header.network} on {header.data}: {how}")
        models = {arm: one.record.model.eval() for arm, one in students.items() if not one.said}
        belongs = torch.empty(len(data.group_names), dtype=torch.int64)
        for number, group in enumerate(judged):
            belongs[list(group.groups)] = number
        groups = belongs[data.splits["val"].a.cpu()]
        correct = {arm: correctness(model, data, "val")[0].cpu() for arm, model in models.items()}
        names = [group.name for group in judged]
        choice = choose(correct, groups, names, max_accuracy_loss=max_accuracy_loss, significance=significance)
        table = _table(pair, students, choice)
    table = table.assign(judged=table["group"].map(lambda group: names[belongs[group]]), profile=profile)
    lost = {arm: one.said for arm, one in students.items() if one.said}
    return Mitigated(choice, tuple(judged), lost, models[choice.chosen], table, tuple(_warnings(judged, min_images)))


def _table(pair: Pair, students: Mapping[str, Student], choice: Choice) -> pd.DataFrame:
    data, header, original = pair.data, pair.header, Original(pair.original, pair.data)
    tests = [name for name in data.splits if name.startswith("test")]
    frames = []
    for arm, student in students.items():
        one = student.record
        counts = [header.seed], one.budget, one.budget_units, one.kept, [0]
        split = ["val", *(tests if arm in (PLAIN, choice.chosen) else [])]
        rows = measure(one.model, data, *counts, original=original, split=split, gradients=())
        rows = rows.assign(arm=arm, diverged=bool(student.said), seconds_finetune=student.seconds)
        found = None if student.said else choice[arm]
        frames.append(rows.assign(allowed=found is not None and found.allowed, p=found.p if found else math.nan))
    table = pd.concat(frames, ignore_index=True).drop(columns="mask_epochs")
    if table["diverged"].any():
        measured = ["accuracy", "low", "high", *DIAGNOSTICS, "distance", "relative_distance"]
        table.loc[table["diverged"], measured] = None
    return table.assign(
        chosen=table["arm"] == choice.chosen,
        data=header.data,
        network=header.network,
        teacher=weights_digest(pair.original),
        device=device_name(str(data.splits["val"].y.device)),
        torch=torch.__version__,
        linfair=linfair.__version__,
    )


def _warnings(judged: Sequence[Judged], min_images: int) -> list[str]:
    found = []
    for one in judged:
        low, high = (100 * end for end in one.width)
        width = f"an accuracy of 50 % has an interval from {low:.0f} to {high:.0f} %"
        if len(one.groups) > 1:
            found.append(
                f"{one.name} have fewer than {min_images} validation images each and are judged together on {one.n}, "
                f"where {width}; one of them may still lose"
            )
        elif one.n < FEW:
            images = f"{one.n} validation image{'s' * (one.n > 1)}"
            found.append(f"{one.name} has {images}, where {width}: what is chosen on it is a guess")
    return found


def arm_table(choice: Choice, names: Sequence[str]) -> pd.DataFrame:
    """The arms on validation images, accuracy in %, loss and gain in points against plain; `names` are the judged."""
    plain = choice[PLAIN]
    return pd.DataFrame(
        {
            "arm": one.arm,
            "overall": _percent(one.overall),
            "loss": number(100 * (plain.overall.accuracy - one.overall.accuracy)),
            "worst group": _percent(one.worst),
            "which": names[one.worst.group],
            "n": one.worst.n,
            "gain": f"{100 * (one.worst.accuracy - plain.worst.accuracy):+.1f}",
            "p": "" if math.isnan(one.p) else f"{one.p:.2g}",
            "": choice.mark(one.arm),
        }
        for one in choice.candidates
    )


def _percent(one: GroupAccuracy) -> str:
    return interval(100 * one.accuracy, 100 * one.low, 100 * one.high, ends=0)


def mitigated_text(found: Mitigated) -> str:
    """What `mitigate` found for a terminal: the arms on validation, the choice and its reason, both arms on test."""
    choice = found.choice
    parts = [
        f"Validation, n = {choice[PLAIN].overall.n}: accuracy in % with 95 % Wilson intervals; loss and gain in points "
        "against plain, p times the arms compared",
        arm_table(choice, [one.name for one in found.judged]).to_string(index=False),
        *(f"{arm}: left out, {words}" for arm, words in found.diverged.items()),
        *(f"warning: {text}" for text in found.warnings),
        f"\nChosen: {choice.chosen}\nReason: {choice.reason}",
    ]
    for split in [name for name in found.table["split"].unique() if name.startswith("test")]:
        rows = found.table[found.table["split"] == split].sort_values("group")
        of = {arm: rows[rows["arm"] == arm] for arm in dict.fromkeys([PLAIN, choice.chosen])}
        worst = ", ".join(f"{arm} {100 * part['accuracy'].min():.1f} %" for arm, part in of.items())
        if len(of) > 1:
            worst += f"; {change_text(*change_of_worst(*of.values()))}"
        parts += [
            f"\n{split}, looked at after the choice: accuracy in % with 95 % Wilson intervals",
            compared(of).to_string(index=False),
            f"worst group: {worst}",
        ]
    return "\n".join(parts)


def compared(of: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy in % of every group, and of all together, under one or two arms, and the change in points."""
    parts = [
        pd.concat([rows, pd.DataFrame([{"group_name": "all", "role": "", **pooled(rows)}])], ignore_index=True)
        for rows in of.values()
    ]
    first, last = parts[0], parts[-1]
    columns = {"group": first["group_name"], "role": first["role"], "n": first["n"]}
    columns |= {arm: accuracies(rows) for arm, rows in zip(of, parts, strict=True)}
    if len(parts) > 1:
        columns["change"] = (100 * (last["accuracy"] - first["accuracy"])).map("{:+.1f}".format)
    return pd.DataFrame(columns)


def change_of_worst(before: pd.DataFrame, after: pd.DataFrame) -> tuple[float, float, float]:
    """Points by which the accuracy of the worst group changes from one network to another, with its 95 % interval.

    The two worst groups may be different ones, see `linfair.audit.shown.drop_between`.

    >>> one, two = ([{"accuracy": a, "low": a - 0.3, "high": a + 0.4}] for a in (0.4, 0.5))
    >>> [round(float(value), 6) for value in change_of_worst(pd.DataFrame(one), pd.DataFrame(two))]
    [10.0, -40.0, 60.0]
    """
    drop = drop_between(*(rows.loc[rows["accuracy"].idxmin()] for rows in (before, after)))
    return -drop["drop"], -drop["drop_high"], -drop["drop_low"]


def change_text(change: float, low: float, high: float) -> str:
    """A change in points and whether it is more than test noise.

    >>> change_text(5.0, -1.0, 11.0), change_text(-5.0, -9.0, -1.0)
    ('+5.0 points [-1.0, +11.0], within test noise', '-5.0 points [-9.0, -1.0], a loss')
    """
    found = "a gain" if low > 0 else "a loss" if high < 0 else "within test noise"
    return f"{change:+.1f} points [{low:+.1f}, {high:+.1f}], {found}"
