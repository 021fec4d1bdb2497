"""Arms: the ways through a cell that are compared within one teacher, and how each is written.

`original` is the network before linearization, `plain` a method with plain fine-tuning, `control` its 100 % control;
every mitigation is an arm under its name, with options that differ from its own in brackets: `lagrangian(mu=0.005)`.
"""

import ast
import json
import math
from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from linfair.linearizers.record import LinearizedModel
from linfair.metrics.measure import DIAGNOSTICS
from linfair.mitigation import MITIGATIONS, PLAIN, check_name, resolve
from linfair.options import checked

ARMS = ("original", PLAIN, "control")
"""Arms without a mitigation; those with one are `linfair.mitigation.MITIGATIONS`."""


def mitigation_of(arm: str) -> object | None:
    """The options of the mitigation that an arm stands for; None for an arm without one.

    Raises:
        ValueError: If there is no such arm, or the mitigation has no such option.

    >>> mitigation_of("plain"), mitigation_of("lagrangian(mu=0.005)").mu
    (None, 0.005)
    """
    if arm in ARMS:
        return None
    known = ", ".join([*ARMS, *(name for name in MITIGATIONS if name != PLAIN)])
    if arm.partition("(")[0].strip().lower() == "none":
        check_name(arm.partition("(")[0])
    try:
        tree = ast.parse(arm, mode="eval").body
        called = isinstance(tree, ast.Call)
        name = (tree.func if called else tree).id
        if called and tree.args:
            raise ValueError
        given = {one.arg: ast.literal_eval(one.value) for one in (tree.keywords if called else [])}
    except (SyntaxError, ValueError, AttributeError):
        raise ValueError(
            f"{arm!r} is not an arm: write a name, or name(option=value), for example lagrangian(mu=0.005); "
            f"names are {known}"
        ) from None
    if name in ARMS:
        raise ValueError(f"arm {arm!r}: {name} has no options; write {name}")
    if name not in MITIGATIONS:
        raise ValueError(f"no arms {[arm]}; there are {known}")
    kind = MITIGATIONS[name].options
    options = [field.name for field in fields(kind)]
    unknown = sorted(set(given) - set(options))
    if unknown:
        allowed = f"it has {', '.join(options)}" if options else "it takes no options"
        raise ValueError(f"arm {arm!r}: {name} has no options {unknown}; {allowed}")
    return kind(**checked(given, kind, f"arm {arm!r}: {name}"))


def canonical(arm: str) -> str:
    """The one way to write an arm: options in their own order, those at their default left out.

    >>> canonical("lagrangian( mu = 5e-3 )"), canonical("lagrangian(mu=0.001)"), canonical("plain")
    ('lagrangian(mu=0.005)', 'lagrangian', 'plain')
    """
    options = mitigation_of(arm)
    if options is None:
        return arm
    own = resolve(options.name)
    changed = [
        f"{one.name}={getattr(options, one.name)!r}"
        for one in fields(options)
        if getattr(options, one.name) != getattr(own, one.name)
    ]
    return f"{options.name}({', '.join(changed)})" if changed else options.name


def with_fate(rows: pd.DataFrame, one: LinearizedModel, seeds: Sequence[int]) -> pd.DataFrame:
    """Add `configuration`, `mask_steps`, `diverged`, `multiplier` and `multipliers` to one fine-tuned record's rows.

    `configuration` says which layers a method that removes whole layers has culled, and is empty for others. Whatever
    was measured of a seed that diverged becomes nan: it is a result, but no accuracy. `multiplier` is the
    group's last Lagrange multiplier (the last weight in group DRO), nan for arms without; `multipliers`, in the rows of
    `train` alone, is the whole history as JSON, a number for each epoch to four digits.
    """
    lost = {seed for seed, when in zip(seeds, one.diverged or [None] * len(seeds), strict=True) if when is not None}
    logged = [row.get("multipliers", row.get("weights")) for row in one.finetuning]
    history = {
        (seed, group): [float(f"{epoch[member][group]:.4g}") for epoch in logged]
        for member, seed in enumerate(seeds)
        for group in range(len(logged[-1][member]) if logged and logged[-1] else 0)
    }
    at = list(zip(rows["seed"], rows["group"], rows["split"], strict=True))
    steps = dict(zip(seeds, one.steps or [pd.NA] * len(seeds), strict=True))
    named = dict(zip(seeds, one.configurations or [""] * len(seeds), strict=True))
    rows = rows.assign(
        configuration=rows["seed"].map(named),
        mask_steps=rows["seed"].map(steps).astype("Int64"),
        diverged=rows["seed"].isin(lost),
        multiplier=[history.get((seed, group), [math.nan])[-1] for seed, group, _ in at],
        multipliers=[
            json.dumps(history[seed, group]) if split == "train" and (seed, group) in history else ""
            for seed, group, split in at
        ],
    )
    measured = ["accuracy", "low", "high", *DIAGNOSTICS, "distance", "relative_distance"]
    rows.loc[rows["diverged"], [name for name in measured if name in rows.columns]] = None
    return rows
