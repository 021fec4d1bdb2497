"""Who of a network's training images is exposed to membership inference: what `linfair expose` says.

Shadow networks are trained as the attacked network was, on random parts of a pool: its own training images, and as many
others of their distribution. See `linfair.metrics.membership` for the attacks.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from torch import nn

from linfair.audit.shown import intervals, records
from linfair.checkpoints import Header
from linfair.data import GroupedData, Split
from linfair.engine import ResultStore, Stages
from linfair.metrics.membership import FEW, RATES, attack, confidence, exposure, halves, leave_one_out, shadows
from linfair.models import threads_of
from linfair.study.recipes import recipe
from linfair.training import predict

ALIKE = 8  #: From so many shadows on each of them is attacked too
SHARED = {"mlp": 64, "cnn": 64}  #: Shadows of a network that train as one ensemble; of others each alone
LIMIT = 2**28  #: Bytes of images of one such ensemble
NO_PROMISE = (
    "A low number says that this attack fails, not that others do: what is measured is never a guarantee of privacy."
)


@dataclass(frozen=True)
class Exposed:
    """What an attack found."""

    #: The rows of `exposure`, with `of`: `this network`, then `networks trained alike`, each shadow the target once
    table: pd.DataFrame
    points: pd.DataFrame  #: Every training image, the most exposed first: index, label, group, score
    attack: str
    shadows: int
    sizes: tuple[int, int]  #: Training images of the network, and of each shadow
    guarantee: str  #: What is guaranteed, in a line

    def as_json(self, most: int = 10) -> dict[str, object]:
        """Everything as plain values, of the points the first ones; what has no number is null."""
        found = {"exposure": records(self.table), "most_exposed": records(self.points.head(most))}
        about = {"attack": self.attack, "shadows": self.shadows, "trained_on": self.sizes[0]}
        return about | {"shadow_trained_on": self.sizes[1], "guarantee": self.guarantee, **found, "limits": NO_PROMISE}


def pool_of(data: GroupedData, *, seed: int = 0) -> tuple[GroupedData, np.ndarray]:
    """A data set whose `train` are the training images and at most as many others, and which of them were trained on.

    The others are validation and test images. Of data with a synthetic bias, whose test split has another distribution,
    as many of each (class, domain) cell are taken as keeps the training's shares. A ValueError refuses data without
    others, and upsampled data: a shadow that leaves an image out would be trained on its copies.
    """
    if "upsampled_from" in data.provenance:
        text = f"{data.name} has training images several times, so shadows that leave one out would be trained on its "
        raise ValueError(f"{text}copies and hide it: attack a network that was trained without upsampling")
    own, rest = data.splits["train"], [part for name, part in data.splits.items() if name in ("val", "test")]
    others = Split(*(torch.cat([getattr(one, part) for one in (own, *rest)])[len(own) :] for part in "xya"))
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    if data.aligned is not None:
        cells, there = ((one.y * len(data.group_names) + one.a).cpu() for one in (own, others))
        found = there.bincount(minlength=int(cells.max()) + 1).tolist()
        have = {cell: count for cell, count in enumerate(cells.bincount().tolist()) if count}
        share = min(Fraction(min(found[cell], count), count) for cell, count in have.items())  # floats lose images
        order = torch.cat([order[there[order] == cell][: int(count * share)] for cell, count in have.items()])
    if not len(order := order[: len(own)].to(own.y.device)):
        raise ValueError(f"{data.name} has no validation or test images like its training images to compare them with")
    pool = Split(*(torch.cat([getattr(own, part), getattr(others, part)[order]]) for part in "xya"))
    return replace(data, splits={"train": pool}), np.arange(len(pool)) < len(own)


def expose(
    model: nn.Module,
    data: GroupedData,
    header: Header,
    *,
    kind: str = "lira_online",
    count: int = 16,
    profile: str = "small",
    seed: int = 0,
    store: ResultStore | None = None,
    progress: bool = True,
    announce: Callable[[str], None] = lambda line: None,
) -> Exposed:
    """Attack a network of linfair by membership inference, over all its training images and by group within class.

    The network may have lost ReLUs or weights; its `count` shadows keep theirs, and are trained as the header says on
    other parts of the pool. The profile counts where the header has no schedule; another than its own makes a weaker
    attack.
    """
    (pool, members), trained = pool_of(data, seed=seed), len(data.splits["train"])
    part, n = pool.splits["train"], len(members)
    size = min(trained, 3 * n // 4)
    inside = None if kind == "loss" else halves(n, count, size=size, seed=seed)
    attack(kind, np.zeros(n), None if inside is None else np.zeros(inside.shape), inside)  # refuses too few
    seen = None
    if inside is not None:
        plan, how = recipe(header.network, profile), {"width": header.width or None, "init": header.init}
        schedule = header.schedule or (plan.private if header.rule else plan.base)
        how |= {"norm": header.norm, "standardised": header.standardised, "rule": header.rule or None}
        at_once = min(SHARED.get(header.network, 1), max(1, LIMIT // (part.x.nbytes + 1)))

        def train(sets: Sequence[GroupedData], seeds: Sequence[int]) -> nn.Module:
            said = f"{schedule.epochs:,} epochs, as {'the file' if header.schedule else f'profile {profile}'} has them"
            announce(f"shadows {seeds[0]} to {seeds[-1]}: {size:,} images each, {said}")
            stages = Stages(sets, seeds, store, count=threads_of(header.network), progress=progress)
            return stages.teacher(header.network, schedule, **how).model

        seen, inside = shadows(train, pool, count, size=size, seed=seed, at_once=at_once)
    scores = attack(kind, confidence(predict(model, pool, "train"), part.y).numpy(), seen, inside)
    tables = [_rows(scores, members, pool, data.roles).assign(of="this network")]
    if seen is not None and count >= ALIKE:
        alike = leave_one_out(kind, seen, inside)
        tables.append(_rows(alike, inside, pool, data.roles).assign(of="networks trained alike"))
    order = np.argsort(-scores[:trained], kind="stable")
    names = {"label": (part.y, pool.label_names), "group": (part.a, pool.group_names)}
    points = {"index": order} | {name: [called[i] for i in of[order].tolist()] for name, (of, called) in names.items()}
    guarantee = header.guarantee.text() if header.guarantee else "no privacy guarantee: trained without a private rule"
    points, own = pd.DataFrame(points | {"score": scores[order]}), (0, 0) if seen is None else (count, size)
    return Exposed(pd.concat(tables, ignore_index=True), points, kind, own[0], (trained, own[1]), guarantee)


def _rows(scores: np.ndarray, members: np.ndarray, pool: GroupedData, roles: Sequence[str]) -> pd.DataFrame:
    """The rows of `exposure`, those of the groups' roles among them."""
    part, groups = pool.splits["train"], len(pool.group_names)
    y, a = part.y.cpu().numpy(), part.a.cpu().numpy()
    table = exposure(scores, members, a, y, group_names=pool.group_names)
    if len(set(roles)) > 1 and groups > 2:
        side = np.array([int(role == "minority") for role in roles])[a]
        sides = exposure(scores, members, side, y * groups + a, group_names=("majority", "minority"))
        table = pd.concat([table[:2], sides[2:], table[2:]], ignore_index=True)
    return table


def shown(found: Exposed, of: str = "this network") -> pd.DataFrame:
    """The rows of one kind of target as text; `*` marks cells with too few images, `+` too few others for a rate."""
    rows = found.table[found.table["of"] == of].rename(columns={"low": "auc_low", "high": "auc_high"})
    few = rows["smallest"].lt(FEW).map({True: " *", False: ""})
    columns = {"who": rows["who"] + few, "AUC": intervals(rows, "auc", digits=3)}
    for rate in RATES:
        coarse = rows["note"].str.contains(f"rate {rate:g} ").map({True: " +", False: ""})
        found = pd.Series(intervals(rows, f"tpr_{rate:g}", scale=100), rows.index)
        columns[f"TPR at {100 * rate:g} %"] = found + coarse
    counts = {"members": "members", "others": "non_members"}
    return pd.DataFrame(columns | {name: rows[column].map("{:.0f}".format) for name, column in counts.items()})


MARKS = (
    "TPR: members found, in %, at a rate of false alarms. Groups are compared with non-members of their own classes. "
    "Intervals are over images, the networks held fixed. Rows with * have fewer than "
    f"{FEW} members or non-members in a cell and are no findings; + says that there are too few non-members for the "
    "rate, so that no false alarm at all is allowed."
)


def exposed_text(found: Exposed, *, most: int = 10) -> str:
    """What an attack found, for a terminal."""
    lines = [f"Membership inference by {found.attack}, {found.shadows} shadow networks; {found.guarantee}"]
    for of in found.table["of"].unique():
        lines += [f"\n{of[0].upper()}{of[1:]}", shown(found, of).to_string(index=False)]
    lines += ["", *textwrap.wrap(MARKS, 120)]
    if most:
        lines += [f"\nThe {most} most exposed training images", found.points.head(most).to_string(index=False)]
    if 0 < found.sizes[1] < found.sizes[0]:
        lines.append(f"The network saw {found.sizes[0]:,} images, each shadow {found.sizes[1]:,}: a weaker attack.")
    return "\n".join([*lines, "", NO_PROMISE])
