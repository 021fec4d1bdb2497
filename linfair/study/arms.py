"""Arms: the ways through a cell that are compared within one teacher, and how each is written.

Beside `ARMS`, a mitigation is one under its name, with options that differ from its own: `lagrangian(mu=0.005)`.
`plain(kd=0)` and `control(kd=0)` are fine-tuned on cross entropy alone.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from linfair.linearizers.record import LinearizedModel
from linfair.metrics.measure import DIAGNOSTICS
from linfair.mitigation import MITIGATIONS, PLAIN, check_name
from linfair.names import call, checked, written

ARMS = ("original", PLAIN, "control")
"""The network before linearization, a method with plain fine-tuning, and its 100 % control."""


def mitigation_of(arm: str) -> object | None:
    """The options of the mitigation that an arm stands for; None for an arm without one."""
    if arm in ARMS:
        return None
    known, word = ", ".join(dict.fromkeys((*ARMS, *MITIGATIONS))), arm.partition("(")[0]
    if word.strip().lower() == "none":
        check_name(word)
    try:
        name, given = call(arm)
    except ValueError:
        hint = "write a name, or name(option=value), for example lagrangian(mu=0.005)"
        raise ValueError(f"{arm!r} is not an arm: {hint}; names are {known}") from None
    if name == "original" or (name in ARMS and not given):
        raise ValueError(f"arm {arm!r}: {name} has no options; write {name}")
    if name not in (*ARMS, *MITIGATIONS):
        raise ValueError(f"no arms {[arm]}; there are {known}")
    kind = MITIGATIONS[PLAIN if name in ARMS else name].options
    return kind(**checked(given, kind, f"arm {arm!r}: {name}"))


def canonical(arm: str) -> str:
    """The one way to write an arm: options in their own order, those at their default left out."""
    options = mitigation_of(arm)
    return arm if options is None else written(word(arm), options)


def word(arm: str) -> str:
    """An arm without its options."""
    return arm.partition("(")[0].strip()


def base_of(arm: str) -> str:
    """The mitigation, without distillation, that trains an original network, as written; empty for cross entropy."""
    if not arm:
        return ""
    if (options := mitigation_of(arm)) is None or options.name == PLAIN:
        raise ValueError(f"{arm!r} is no mitigation; leave it out for an original network trained on cross entropy")
    if getattr(options, "taught", False):
        text = "compares with the original network, so it cannot train that one; lagrangian(kd=0), for example, can"
        raise ValueError(f"{arm!r}: {options.name} {text}")
    return written(options.name, replace(options, kd=0.0))


def with_fate(rows: pd.DataFrame, one: LinearizedModel, seeds: Sequence[int]) -> pd.DataFrame:
    """Add `configuration`, `mask_steps`, `diverged`, `multiplier` and `multipliers` to one fine-tuned record's rows.

    Whatever was measured of a seed that diverged becomes nan. `multiplier` is the group's last Lagrange multiplier (or
    weight in group DRO); `multipliers`, in the rows of `train` alone, is the whole history as JSON, to four digits.
    """

    def by_seed(values: Sequence[object] | None, missing: object) -> pd.Series:
        return rows["seed"].map(dict(zip(seeds, values or [missing] * len(seeds), strict=True)))

    logged = [row.get("multipliers", row.get("weights")) for row in one.finetuning]
    history = {
        (seed, group): [float(f"{epoch[member][group]:.4g}") for epoch in logged]
        for member, seed in enumerate(seeds)
        for group in range(len(logged[-1][member]) if logged and logged[-1] else 0)
    }
    at = list(zip(rows["seed"], rows["group"], rows["split"], strict=True))
    rows = rows.assign(
        configuration=by_seed(one.configurations, ""),
        mask_steps=by_seed(one.steps, pd.NA).astype("Int64"),
        diverged=by_seed(one.diverged, None).notna(),
        multiplier=[history.get((seed, group), [float("nan")])[-1] for seed, group, _ in at],
        multipliers=[
            json.dumps(history[seed, group]) if split == "train" and (seed, group) in history else ""
            for seed, group, split in at
        ],
    )
    measured = ["accuracy", "low", "high", *DIAGNOSTICS, "distance", "relative_distance"]
    rows.loc[rows["diverged"], rows.columns.intersection(measured)] = None
    return rows
