"""Membership inference: can whoever sees a network tell which images it was trained on?

An attack gives each point (x, y) a score, higher for a likelier member, from the logit-scaled confidence

    c(x) = log(p_y / (1 - p_y)),    p = softmax(h(x)),

of the *target* and of *shadow* networks that were trained alike on random halves of one pool, so that what is a member
of one is a non-member of another. Where a group's share differs between members and non-members, a pooled attack
recognises the group and not the member; and a naive attack on one group alone mixes its classes. So a group is compared
within its (class, group) cells. A low number says that these attacks fail, not that others do.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import expit
from torch import Tensor, nn

from linfair.data import GroupedData, Split
from linfair.metrics.accuracy import wilson
from linfair.names import unknown
from linfair.training import predict

ATTACKS = {
    "loss": "threshold on the loss, no shadows (Yeom et al., CSF 2018)",
    "lira_online": "likelihood ratio of a Gaussian in and one out, per point (Carlini et al., S&P 2022)",
    "lira_offline": "one-sided test against the Gaussian out, per point (Carlini et al., S&P 2022)",
    "rmia": "ratio against population points, from 1 or 2 shadows on (Zarifzadeh et al., ICML 2024)",
}
MANY = 32  #: From so many shadows in and out of every point on, LiRA gives each point variances of its own
FEW = 20  #: A cell with fewer members, or fewer non-members, is marked, and no finding
SIDES = {"members": True, "non-members": False}
RATES = (0.001, 0.01)  #: False positive rates at which the true positive rate is reported
LEVEL = 0.95  #: Of all intervals
BLOCK = 2_000_000  #: Scores that the bootstrap draws at once: bounds the memory
OFFLINE = 0.3  #: The `a` of RMIA, as its authors set it


def confidence(logits: Tensor, y: Tensor) -> Tensor:
    """Logit-scaled confidence log(p_y / (1 - p_y)) of each input, exact where p_y rounds to 0 or 1.

    With logits h (..., n, classes >= 2) and labels y (n,) or (..., n) it is h_y - log sum_{j != y} exp(h_j), float64 on
    the CPU, (..., n). The cross entropy is log(1 + exp(-c)). A ValueError refuses what does not fit or is not finite.

    >>> confidence(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]), torch.tensor([1, 0])).tolist()
    [0.0, 1000.0]
    """
    logits, y = logits.detach().cpu().double(), y.cpu()
    if logits.ndim < 2 or logits.shape[-1] < 2 or y.shape[-1:] != logits.shape[-2:-1]:
        found = f"{tuple(logits.shape)} and {tuple(y.shape)}"
        raise ValueError(f"logits (..., n, classes >= 2) need labels (n,) or (..., n), got shapes {found}")
    if not logits.isfinite().all():
        raise ValueError("logits are not finite: the network diverged; train it at a lower rate")
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < logits.shape[-1]:
        raise ValueError(f"labels must be 0 to {logits.shape[-1] - 1}, got {y.unique().tolist()}")
    own = y.expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.gather(-1, own).squeeze(-1) - logits.scatter(-1, own, -torch.inf).logsumexp(dim=-1)


def halves(n: int, count: int, *, size: int | None = None, seed: int = 0) -> NDArray[np.bool_]:
    """Which of n points each of `count` shadow networks is trained on, bool (count, n), drawn at random.

    Each has `size` points (None is n // 2), and each point is in as many networks as any other, or one less (Carlini et
    al.). Dealt in turn, then mixed by random trades between two networks, which change neither number (Strona et al.,
    Nature Communications 5, 2014). A ValueError refuses no network, and a size that leaves nothing, or nobody out.

    >>> halves(10, 4).sum(0).tolist(), halves(10, 4).sum(1).tolist()
    ([2, 2, 2, 2, 2, 2, 2, 2, 2, 2], [5, 5, 5, 5])
    """
    size = n // 2 if size is None else size
    if count < 1 or not 0 < size < n:
        raise ValueError(f"need a network at least, of 1 to {n - 1} of the {n} points, got {count} of {size}")
    generator, inside = np.random.default_rng(seed), np.zeros((count, n), bool)
    order = generator.permutation(n)
    for k, row in enumerate(inside):
        row[order[(k * size + np.arange(size)) % n]] = True
    for _ in range(10 * count * (count > 1)):
        one, two = generator.choice(count, 2, replace=False)
        apart = np.flatnonzero(inside[one] ^ inside[two])
        inside[one, apart] = generator.permutation(inside[one, apart])
        inside[two, apart] = ~inside[one, apart]
    return inside


def shadows(
    train: Callable[[list[GroupedData], list[int]], nn.Module],
    data: GroupedData,
    count: int,
    *,
    size: int | None = None,
    seed: int = 0,
    at_once: int = 64,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Train K = `count` shadows on random parts (`halves`) of a pool; each one's confidences and members, (K, n) both.

    `train` makes the trained `Ensemble`, or for one data set a network, of data sets with a `train` split only,
    normalised as the pool is, and of seeds 1000 (seed + 1) + k, at most `at_once` in a call, which bounds the memory.
    """
    pool, inside, found = data.splits["train"], halves(len(data.splits["train"]), count, size=size, seed=seed), []
    for start in range(0, count, at_once):
        parts = torch.from_numpy(inside[start : start + at_once]).to(pool.y.device)
        sets = [replace(data, splits={"train": Split(pool.x[p], pool.y[p], pool.a[p])}) for p in parts]
        model = train(sets, [(1000 * (seed + 1) + start + k) % 2**32 for k in range(len(sets))])
        logits = predict(model, data if len(sets) == 1 else [data] * len(sets), "train")
        found.append(confidence(logits.view(len(sets), *logits.shape[-2:]), pool.y).numpy())
    return np.concatenate(found), inside


def attack(
    kind: str,
    target: ArrayLike,
    shadows: ArrayLike | None = None,
    members: ArrayLike | None = None,
    *,
    variance: str = "auto",
) -> NDArray[np.float64]:
    """Membership score of each point, (n,), higher for a likelier member.

    With c the target's confidence of a point, mu_in, mu_out, s_in, s_out mean and standard deviation of the confidences
    of the shadows with and without it, and p = 1 / (1 + exp(-c)):

        loss           c, which orders points as the loss log(1 + exp(-c)) does (Yeom et al., CSF 2018),
        lira_online    log N(c; mu_in, s_in^2) - log N(c; mu_out, s_out^2) (Carlini et al., S&P 2022, Alg. 1),
        lira_offline   (c - mu_out) / s_out, monotone in their one-sided 1 - Pr[Z > c],
        rmia           share of population points z with p(x) / q(x) > p(z) / q(z), q = (p_in + p_out) / 2 the shadows'
                       mean (Zarifzadeh et al., ICML 2024, at gamma = 1); the population is the pool itself.

    The squares of `lira_online` are divided by 1 + 1 / (shadows behind the mean), which is ours and 1 for many: the
    others of K shadows hold a member of one of them once less than a non-member, and with 8 noise had an AUC of .48.
    Where RMIA has shadows on one side of a point only, the other is filled in by its authors' p_in = 0.3 p_out + 0.7;
    that it is also solved for p_out, at 0 or more, is ours.

    Args:
        kind: One of `ATTACKS`.
        target: The target's confidences, shape (n,).
        shadows: The shadows' confidences, shape (K, n), finite; `loss` needs none.
        members: Which points each shadow was trained on, bool, shape (K, n).
        variance: Of LiRA: `point`, each point its own; `global`, the pooled within-point variance, one in, one out; or
            `auto`, `point` where every point has `MANY` shadows in and out (one side for `lira_offline`).

    A ValueError names what is wrong, or that shadows are too few.

    >>> attack("lira_offline", [3.0], [[0.0], [2.0], [9.0]], [[False], [False], [True]]).round(3).tolist()  # s = sqrt 2
    [1.414]
    """
    if kind not in ATTACKS:
        raise ValueError(unknown("no attack", kind, ATTACKS))
    if variance not in ("auto", "point", "global"):
        raise ValueError(f"variance is auto, point or global, got {variance!r}")
    c = np.asarray(target, float)
    if c.ndim != 1 or not len(c) or not np.isfinite(c).all():
        raise ValueError(f"a target needs finite confidences of shape (n,), got shape {c.shape}")
    if kind == "loss":
        return c
    if shadows is None or members is None:
        raise ValueError(f"{kind} needs the confidences of shadow networks and which points each was trained on")
    seen, inside = np.asarray(shadows, float), np.asarray(members, bool)
    fits = seen.ndim == 2 and seen.shape == inside.shape and seen.shape[1] == len(c) and len(seen) > 0
    if not fits or not np.isfinite(seen).all():
        found = f"{seen.shape} and {inside.shape}"
        raise ValueError(f"shadows and members need finite values of shape (K >= 1, {len(c)}), got {found}")
    sides = {"lira_online": (inside, ~inside), "lira_offline": (~inside,)}
    if kind == "rmia":
        return _rmia(c, seen, inside)
    if lacking := int(sum((side.sum(0) == 0).sum() for side in sides[kind])):
        text = f"{kind} needs shadows {'with and ' * (kind == 'lira_online')}without each point, and {lacking} points "
        raise ValueError(f"{text}lack them among {len(seen)} shadows; train more, or attack by rmia")
    counts = [side.sum(0) for side in sides[kind]]
    own = variance == "point" or (variance == "auto" and min(map(np.min, counts)) >= MANY)
    scores = [_gauss(seen - c, side, own) for side in sides[kind]]  # relative to the target: equal values stay equal
    if kind == "lira_offline":
        ((away, spread),) = scores
        return -away / spread
    (near, s_in), (far, s_out) = scores
    q_in, q_out = ((away / s) ** 2 / (1 + 1 / n) for away, s, n in zip((near, far), (s_in, s_out), counts, strict=True))
    return (q_out - q_in) / 2 + np.log(s_out / s_in)


def _gauss(values: NDArray, side: NDArray, own: bool) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of the values (K, n) of one side, for each point (n,)."""
    count = side.sum(0)
    mean = np.where(side, values, 0).sum(0) / count
    squares = np.where(side, (values - mean) ** 2, 0).sum(0)
    if (freedom := count - 1).max() < 1 or (own and freedom.min() < 1):
        raise ValueError(f"LiRA needs two shadows on a side of a point for a variance, got {count.min()}; train more")
    pooled = np.full(len(mean), squares.sum() / freedom.sum())
    return mean, np.sqrt((squares / freedom if own else pooled) + 1e-30)


def _rmia(c: NDArray, seen: NDArray, inside: NDArray) -> NDArray:
    p, (count_in, count_out) = expit(seen), (inside.sum(0), (~inside).sum(0))
    p_in, p_out = ((p * side).sum(0) / np.maximum(side.sum(0), 1) for side in (inside, ~inside))
    p_in = np.where(count_in, p_in, OFFLINE * p_out + 1 - OFFLINE)
    p_out = np.where(count_out, p_out, np.maximum((p_in - 1 + OFFLINE) / OFFLINE, 0))
    ratio = np.log(expit(c) / np.maximum((p_in + p_out) / 2, np.finfo(float).tiny) + np.finfo(float).tiny).round(12)
    return np.searchsorted(np.sort(ratio), ratio, side="left") / len(ratio)  # rounding raises nobody


def leave_one_out(kind: str, shadows: ArrayLike, members: ArrayLike, **options: object) -> NDArray[np.float64]:
    """Scores (K, n) with each of K shadow networks as the target once and the others as its shadows."""
    seen, inside = np.asarray(shadows, float), np.asarray(members, bool)
    others = ~np.eye(len(seen), dtype=bool)
    return np.stack([attack(kind, seen[k], seen[others[k]], inside[others[k]], **options) for k in range(len(seen))])


def by_point(scores: ArrayLike, members: ArrayLike) -> NDArray[np.float64]:
    """How exposed each point is, from scores and memberships (targets, n): its mean score as a member less as none.

    The points where this is largest are those that Carlini et al. (arXiv 2206.10469) remove as outliers; nan where a
    point is on one side only.

    >>> by_point([[3.0, 1.0], [1.0, 1.0]], [[True, False], [False, True]]).tolist()
    [2.0, 0.0]
    """
    s, inside = np.asarray(scores, float), np.asarray(members, bool)
    means = [np.where(side, s, 0).sum(0) / np.where(side.any(0), side.sum(0), np.nan) for side in (inside, ~inside)]
    return means[0] - means[1]


def exposure(
    scores: ArrayLike,
    members: ArrayLike,
    groups: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    *,
    group_names: Sequence[str] | None = None,
    naive: bool = False,
    draws: int = 300,
) -> pd.DataFrame:
    """How well scores tell members from non-members: over all points, and for each group within its classes.

    A *stratum* is one target's points (row `all`), or one target's points of a (class, group) cell (`all, within cells`
    and the groups). With m members, n non-members and AUC A in each stratum, `auc` is the mean of A with weights m n /
    (m + n) (van Elteren, 1960). Its interval is DeLong's, with a point's contributions from all targets added before
    they are squared (Obuchowski, Biometrics 53, 1997); at 0 and 1 it is Wilson's with n the smaller number of points.

    `tpr_F` is the largest share of members above one threshold that at most a share F of non-members lies above. Its
    interval is the union of a bootstrap over points, the threshold drawn anew, and the exact binomial one of as many
    members as there are different points. Both cover other points of the same distribution: no other training.

    `scores` are (n,), or (targets, n), `members` the points that each target was trained on, bool, in the same shape,
    `groups` (None leaves them out) and `labels` int (n,). With `naive` each group's members are compared with its
    non-members of all classes and targets too, as `GROUP, naive`, which recognises class or target as well. `draws` are
    the bootstrap's. What does not fit or is not finite raises a ValueError.

    Returns:
        A row each with `who`; `auc`, `low`, `high`; `tpr_0.001` and `tpr_0.01` with `_low` and `_high`; `targets`,
        `members` and `non_members` of one target (mean), `smallest` (members or non-members, the fewer, in the smallest
        cell of a target, mean); `note`: what limits the row; `finding`: the interval lies above 0.5, no cell is small.

    >>> table = exposure([3.0, 1.0, 2.0, 0.0], [True, True, False, False])
    >>> float(table["auc"][0])  # of the 4 pairs 3 are in order
    0.75
    """
    s, inside = np.atleast_2d(np.asarray(scores, float)), np.atleast_2d(np.asarray(members, bool))
    n = s.shape[-1]
    kinds = [np.zeros(n, int) if one is None else np.asarray(one) for one in (labels, groups)]
    if s.shape != inside.shape or s.ndim != 2 or not np.isfinite(s).all() or any(one.shape != (n,) for one in kinds):
        found = ", ".join(str(one.shape) for one in (s, inside, *kinds))
        text = f"need finite scores and members (n,) or (targets, n), labels and groups (n,); got shapes {found}"
        raise ValueError(text)
    cells, everywhere = np.unique(np.stack(kinds), axis=1, return_inverse=True)[1].reshape(-1), np.ones(n, bool)
    rows = [("all", everywhere, np.zeros(n, int), True)]
    if labels is not None or groups is not None:
        rows.append(("all, within cells", everywhere, cells, True))
    for group in np.unique(kinds[1]) if groups is not None else ():
        name, part = str(group if group_names is None else group_names[group]), kinds[1] == group
        rows.append((name, part, cells, True))
        rows += [(f"{name}, naive", part, np.zeros(n, int), False)] * naive
    return pd.DataFrame({"who": who} | _row(s[:, p], inside[:, p], c[p], by, draws) for who, p, c, by in rows)


def _row(s: NDArray, inside: NDArray, cells: NDArray, by_target: bool, draws: int) -> dict:
    targets, n = s.shape
    point, which, score, member = np.tile(np.arange(n), targets), np.tile(cells, targets), s.ravel(), inside.ravel()
    strata = which + by_target * (cells.max() + 1) * np.repeat(np.arange(targets), n)
    strata = np.unique(strata, return_inverse=True)[1]
    auc, share, influence = _stratified(score, member, strata)
    counted = share[strata] > 0
    sides = {name: np.bincount(which[counted & (member == side)]) / targets for name, side in SIDES.items()}
    fewest = {name: float(per_cell[per_cell > 0].min()) if counted.any() else 0.0 for name, per_cell in sides.items()}
    smallest = min(fewest.values())
    found, notes = {"auc": auc, "low": np.nan, "high": np.nan}, []
    if counted.any():
        points = min(len(np.unique(point[counted & (member == side)])) for side in (True, False))
        spread = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((np.bincount(point, influence, n) ** 2).sum())
        ends = wilson(auc, points, level=LEVEL) if auc in (0, 1) else np.clip((auc - spread, auc + spread), 0, 1)
        found["low"], found["high"] = map(float, ends)
        notes += [f"n < {FEW} {name} in a cell" for name, least in fewest.items() if least < FEW][:1]
    else:
        notes.append("no cell has members and non-members")
    found |= _true_positives(score, member, strata, share, point, draws)
    others = int((counted & ~member).sum())
    notes += [f"rate {rate:g} is 0 of {others} non-members" for rate in RATES if 0 < others < 1 / rate]
    found |= {"targets": targets, "members": inside.sum() / targets, "non_members": (~inside).sum() / targets}
    finding = bool(found["low"] > 0.5) and smallest >= FEW
    return found | {"smallest": smallest, "note": "; ".join(notes), "finding": finding}


def _stratified(score: NDArray, member: NDArray, strata: NDArray) -> tuple[float, NDArray, NDArray]:
    """The mean AUC over strata, the share that each has in it, and what each score adds to it (DeLong)."""
    count = int(strata.max()) + 1
    m, n = (np.bincount(strata[member == side], minlength=count).astype(float) for side in (True, False))
    weight = m * n / (m + n)
    if not weight.any():
        return np.nan, weight, np.zeros(len(score))
    share, above, areas = weight / weight.sum(), np.zeros(len(score)), np.zeros(count)
    order = np.argsort(strata, kind="stable")
    for k, at in enumerate(np.split(order, np.cumsum(m + n).astype(int)[:-1])):
        ranks, sides = stats.rankdata(score[at]), (at[member[at]], at[~member[at]])
        for side, others in zip(sides, (n[k], m[k]), strict=True):  # how much of the other side each is above
            here = ranks[member[at] == member[side[:1]]] if len(side) else ranks[:0]
            above[side] = (here - stats.rankdata(score[side])) / max(others, 1)
        areas[k] = above[sides[0]].mean() if weight[k] else 0
    own = np.where(member, m[strata], n[strata])
    influence = np.where(member, above - areas[strata], 1 - above - areas[strata])
    return round(float(share @ areas), 12), share, influence * share[strata] / np.sqrt(np.maximum(own * (own - 1), 1))


def _true_positives(
    score: NDArray, member: NDArray, cell: NDArray, share: NDArray, point: NDArray, draws: int
) -> dict[str, float]:
    """The true positive rate at each of `RATES`, with its interval."""
    names = [f"tpr_{rate:g}{end}" for rate in RATES for end in ("", "_low", "_high")]
    if not share.any():
        return dict.fromkeys(names, np.nan)
    m, n = (np.bincount(cell[member == side], minlength=len(share)) for side in (True, False))
    order = np.argsort(-score, kind="stable")
    inside, whose, weight = member[order], point[order], (share[cell] / np.where(member, m[cell], n[cell]))[order]
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # of the scores with one value

    def rates(drawn: NDArray) -> NDArray:  # how often each point is drawn, (draws, points) -> (rates, draws)
        sums = (np.cumsum(drawn[:, whose] * weight * side, axis=1) for side in (inside, ~inside))
        true, false = (one[:, last] / np.maximum(one[:, -1:], np.finfo(float).tiny) for one in sums)
        return np.stack([np.where(false <= rate + 1e-12, true, 0).max(axis=1) for rate in RATES])

    points, step, generator = int(point.max()) + 1, max(1, BLOCK // len(score)), np.random.default_rng(0)
    values, even = rates(np.ones((1, points)))[:, 0], np.full(points, 1 / points)
    blocks = (generator.multinomial(points, even, min(step, draws - start)) for start in range(0, draws, step))
    ends = np.quantile(np.hstack([rates(one) for one in blocks]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    different, found = len(np.unique(whose[inside & (weight > 0)])), []
    for value, low, high in zip(values, *ends, strict=True):
        exact = stats.binomtest(round(value * different), different).proportion_ci(LEVEL, "exact")
        found += [float(value), float(min(low, exact.low, value)), float(max(high, exact.high, value))]
    return dict(zip(names, found, strict=True))
