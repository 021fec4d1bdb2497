"""Verdicts on the statements of the pruning paper (`linfair.theory.pruning`), each with a count of violations.

A statement's function returns a row per reading; `violated` counts left sides above the right one by more than
rounding, `looseness` and `looseness_90` are median and 90th percentile of right / |left|.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap
from torch.nn.utils import vector_to_parameters

from linfair import weights
from linfair.data import GroupedData
from linfair.metrics.gradients import ParameterRisk, flat, unflat
from linfair.theory.bound import excess_bounds
from linfair.theory.hessian import TOLERANCE
from linfair.theory.pruning import gradient_bound
from linfair_book.claims import Page
from linfair_book.propositions import descend, overlapping, random_networks, settle, violations

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)  #: Shares of the weights that are pruned
Net = tuple[str, int, nn.Module, GroupedData]  #: Activation, seed, trained network, its data


def pruned(model: nn.Module, share: float, *, seed: int | None = None) -> nn.Module:
    """A copy with switches and without a share of its weights, the smallest in absolute value or drawn by a seed."""
    network = weights.install(model)
    order = flat([weight for _, weight in weights.switches(network).values()]).abs().cpu()
    if seed is not None:
        order = torch.rand(len(order), generator=torch.Generator().manual_seed(seed))
    (mask,) = weights.masks_of(network)
    kept = torch.ones(len(order), dtype=torch.bool)
    kept[order.argsort(stable=True)[: round(share * len(order))]] = False
    return weights.apply_mask(network, replace(mask, units=unflat(kept, mask.units)))


@torch.no_grad()
def switched(model: nn.Module, original: nn.Module, x: Tensor) -> Tensor:
    """How many `nn.ReLU` inputs have another sign in a pruned network, for each input x, (n, ...) -> (n,)."""
    signs = [x.new_zeros(len(x), 0)]
    for network in map(weights.plain, (original, model)):
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_pre_hook(lambda _, inputs: signs.append((inputs[0] > 0).flatten(1)))
        network(x)
    before, after = torch.cat(signs, 1).view(len(x), 2, -1).unbind(1)
    return (before != after).sum(1)


def softmax_sides(count: int, inputs: int, *, classes: int = 3) -> dict[str, tuple[Tensor, Tensor]]:
    """H_x and the right side of Theorem 2 for more classes, for each input of random ReLU networks, in float64.

    With logits h, p = softmax(h) and J = grad h, H_x = J' (diag p - p p') J + sum_z (p_z - y_z) grad^2 h_z. The right
    side is sum_z |p_z - y_z| |grad^2 h_z|, with spectral norms, and `class by class` sum_z p_z (1 - p_z) |grad h_z|^2,
    which ignores what two classes share, or `trace` sum_z p_z (1 - p_z) |J|^2: proved.
    """
    logits, theta, x, y = random_networks(count, inputs, outputs=classes)

    def loss(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return -logits(vector, x).log_softmax(0).gather(0, y[None])[0]

    functions = logits, jacrev(logits), jacrev(jacrev(logits))
    h, slope, bend = (vmap(vmap(one, (None, 0)))(theta, x) for one in functions)
    hessian, p = vmap(vmap(jacrev(grad(loss)), (None, 0, 0)))(theta, x, y), h.softmax(2)
    spread, off = p * (1 - p), (p - F.one_hot(y, classes)).abs()
    error = (off * torch.linalg.matrix_norm(bend, 2)).sum(2)
    near = (spread * slope.square().sum(3)).sum(2), spread.sum(2) * torch.linalg.matrix_norm(slope, 2).square()
    return {name: (hessian, one + error) for name, one in zip(("class by class", "trace"), near, strict=True)}


def small_networks(seeds: Sequence[int] = range(10)) -> list[Net]:
    """Float64 networks 2-8-8-2, tanh and ReLU, after 200 steps of descent on groups of 60 and 20 overlapping points."""
    nets = []
    for bend, seed in [(bend, seed) for bend in (nn.Tanh, nn.ReLU) for seed in seeds]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(2, 8), bend(), nn.Linear(8, 8), bend(), nn.Linear(8, 2))
        data = overlapping((60, 20), seed=seed)
        nets.append((bend.__name__.replace("T", "t"), seed, descend(model, data, 200), data))
    return nets


def bound_table(nets: Sequence[Net]) -> pd.DataFrame:
    """Both sides of Theorem 1 by network, mask (magnitude at `SHARES` and 60 %, random at 50 %) and group."""
    names = "bend seed criterion share group excess bound gradient_norm eigenvalue distance switched gained"
    rows = []
    for bend, seed, original, data in nets:
        part = data.splits["train"]
        masks = {("magnitude", share): pruned(original, share) for share in sorted({*SHARES, 0.6})}
        masks["random", 0.5] = pruned(original, 0.5, seed=seed)
        for key, found in zip(masks, excess_bounds(list(masks.values()), original, data), strict=True):
            kinks = switched(masks[key], original, part.x)
            after, before = ((net(part.x).argmax(1) == part.y).double() for net in (masks[key], original))
            gained = after - before
            for row in found:
                values = [getattr(row, name) for name in names.split()[5:-2]]
                more = kinks[part.a == row.group].sum().item(), gained[part.a == row.group].mean().item()
                rows.append((bend, seed, *key, row.group, *values, *more))
    return pd.DataFrame(rows, columns=names.split())


def _count(claim: str, statement: str, reading: str, cells: int, violated: int, *looseness: float) -> dict[str, object]:
    known = {"claim": claim, "statement": statement, "reading": reading, "cells": cells, "violated": int(violated)}
    return known | {"holds": int(violated) == 0} | dict(zip(("looseness", "looseness_90"), looseness, strict=False))


def _sides(claim: str, statement: str, reading: str, left: Sequence[float], right: Sequence[float]) -> dict:
    """The row of a statement left <= right."""
    left, right = np.asarray(left, float), np.asarray(right, float)
    ratio = right[left != 0] / np.abs(left[left != 0])
    spread = np.percentile(ratio, (50, 90)) if len(ratio) else ()
    return _count(claim, statement, reading, len(left), (left - right > TOLERANCE * np.abs(left)).sum(), *spread)


def theorem_1(table: pd.DataFrame) -> pd.DataFrame:
    """Theorem 1 (Eq. 4 and 9) from a `bound_table`: the bound, its order of groups, its assumption; and R(a)."""
    cells = table[(table["criterion"] == "magnitude") & table["share"].isin(SHARES)]
    pairs = cells.pivot(index=["bend", "seed", "share"], columns="group", values=["excess", "bound"])
    differ = (pairs["excess", 0] > pairs["excess", 1]) != (pairs["bound", 0] > pairs["bound", 1])
    rows = []
    for bend, part in cells.groupby("bend", sort=False):
        rows.append(_sides("A-T1", "Theorem 1", f"without remainder, {bend}", part["excess"], part["bound"]))
        kinks = (part["switched"] > 0).sum()
        rows.append(_count("A-T1b", "Theorem 1", f"twice differentiable on the way, {bend}", len(part), kinks))
    rows.append(_count("A-T1", "after Theorem 1", "the larger bound has the larger R(a)", len(pairs), differ.sum()))
    same = (cells["excess"] * cells["gained"] > 0).sum()
    rows.append(_count("A-C05", "Eq. 2", "loss and accuracy move in opposite senses", len(cells), same))
    return pd.DataFrame(rows)


def corollary_1(table: pd.DataFrame) -> pd.DataFrame:
    """Corollary 1 (Eq. 5) from a `bound_table`, its counterexample across criteria, and the sentence after it."""
    sides = table.pivot(index=["bend", "seed", "group"], columns=["criterion", "share"], values=["excess", "bound"])
    nested = {name: sides[name, "magnitude"][list(SHARES)].to_numpy() for name in ("excess", "bound")}
    steps = {name: (values[:, :-1].ravel(), values[:, 1:].ravel()) for name, values in nested.items()}
    across, losses = (sides["bound", "random", 0.5], sides["bound", "magnitude", 0.6]), nested["excess"].ravel()
    rows = [("A-K1", "Corollary 1", "bound along nested magnitude masks", *steps["bound"])]
    rows += [("A-K1", "Corollary 1", "bound of random 50 % against magnitude 60 %", *across)]
    rows += [("A-C06", "after Corollary 1", "R(a) itself along nested magnitude masks", *steps["excess"])]
    rows += [("A-C06", "after Corollary 1", "R(a) >= 0, magnitude masks", 0 * losses, losses)]
    return pd.DataFrame([_sides(*row) for row in rows])


def proposition_1(seeds: Sequence[int] = range(6)) -> pd.DataFrame:
    """Proposition 1 in all pairs of groups: the closed form, and settled logistic regressions; `total` is |grad J|."""
    of = partial(_sides, "A-P1", "Proposition 1")
    norms = Fraction(7, 6), Fraction(11, 6), Fraction(1, 6)  # of (t - c)^2 / 2 with c 0, 3, 1 and 3, 2, 1 inputs
    rows = [of("three groups, closed form", *zip(*combinations(norms, 2), strict=True)) | {"total": 0.0}]
    for sizes, decay in [(sizes, decay) for sizes in ((60, 20), (60, 40, 30, 20)) for decay in (0.0, 0.01)]:
        pairs, totals = [], []
        for data in (overlapping(sizes, seed=seed) for seed in seeds):
            linear = nn.Linear(2, 2).double()
            vector_to_parameters(torch.zeros(6, dtype=torch.float64), linear.parameters())
            risk = ParameterRisk(settle(linear, data, decay=decay), data, "train", dtype=torch.float64)
            gradients = [risk.gradient(risk.positions(group, "exact")[0]) for group in range(len(sizes))]
            pairs += combinations([gradient.norm().item() for gradient in gradients], 2)
            totals.append(risk.gradient(torch.arange(sum(sizes))).norm().item())
        row = of(f"{len(sizes)} groups, weight decay {decay:g}", *zip(*pairs, strict=True))
        rows.append(row | {"total": max(totals)})
    return pd.DataFrame(rows)


def proposition_2(nets: Sequence[Net]) -> pd.DataFrame:
    """Proposition 2 by group, and the derivative f - y of its proof for 100 random logits of three classes."""
    cells, rows = pd.concat([gradient_bound(*net[2:]) for net in nets]), []
    for name in ("softmax", "softmax_frobenius", "logits", "logits_frobenius"):
        reading = f"f = {name.removesuffix('_frobenius')}, {'Frobenius' if '_' in name else 'spectral'} norm"
        rows.append(_sides("A-P2", "Proposition 2", reading, cells["norm"], cells[name]))
    h = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f, y = h.softmax(1), F.one_hot(torch.arange(100) % 3)
    losses = {"-sum y f by f, as printed": (f, lambda f, y: -(y * f).sum())}
    losses["-sum y log f by f"] = f, lambda f, y: -(y * f.log()).sum()
    losses["-sum y log f by the logits"] = h, lambda h, y: -(y * h.log_softmax(0)).sum()
    for reading, (at, loss) in losses.items():
        off = (vmap(grad(loss))(at, y) - (f - y)).norm(dim=1) > TOLERANCE
        rows.append(_count("A-P2b", "Proposition 2", f"f - y is the derivative of {reading}", len(h), off.sum()))
    return pd.DataFrame(rows)


def theorem_2(count: int = 48, *, inputs: int = 28) -> pd.DataFrame:
    """Theorem 2 (Eq. 6 and 10) by group and (Eq. 13) by single input; three classes are claimed without a proof."""
    rows = []
    for bend, name in (torch.tanh, "tanh"), (F.relu, "ReLU"):
        found = violations(count, inputs=inputs, bend=bend, steps=100)
        for row in found[found["reading"] != "printed sum"].itertuples():
            cells = (count, row.violations, row.looseness), (count * inputs, row.input_violations)
            for words, one in zip(("group", "input"), cells, strict=True):
                rows.append(_count("A-T2", "Theorem 2", f"{row.reading}, {name}, by {words}", *one))
    for reading, (hessian, side) in softmax_sides(count, inputs).items():
        cells = {"group": (hessian.mean(1), side.mean(1)), "input": (hessian.flatten(0, 1), side.flatten())}
        for words, (matrix, right) in cells.items():
            left = torch.linalg.eigvalsh(matrix)[:, -1]
            rows.append(_sides("A-T2b", "Theorem 2", f"{reading}, three classes, by {words}", left, right))
    return pd.DataFrame(rows)


def proposition_3() -> pd.DataFrame:
    """Proposition 3 in exact fractions; no sigmoid attains it: f (1 - f) = 1 / (2 + 2 cosh h) > 0, unrounded."""
    f, h = [Fraction(i, 1000) for i in range(1001)], np.linspace(-700, 700, 1401)
    rows = [("f (1 - f) <= 1/4", [one * (1 - one) for one in f], [Fraction(1, 4)] * len(f))]
    rows += [("f (1 - f) >= 0", [0] * len(f), [one * (1 - one) for one in f])]
    rows += [("f = sigmoid(h) attains the minimum", 1 / (2 + 2 * np.cosh(h)), 0 * h)]
    return pd.DataFrame([_sides("A-P3", "Proposition 3", *row) for row in rows])


def verdicts(seeds: Sequence[int] = range(10)) -> pd.DataFrame:
    """All statements with their readings, a row each (module docstring); a few seconds."""
    nets = small_networks(seeds)
    of_1, of_2 = bound_table(nets), proposition_2(nets)
    tables = theorem_1(of_1), corollary_1(of_1), proposition_1(), of_2, theorem_2(), proposition_3()
    return pd.concat(tables, ignore_index=True)


def note(page: Page, table: pd.DataFrame) -> None:
    """Note how many cells violate each reading, under the key `claim-reading` in small letters and hyphens."""
    for row in table.itertuples():
        key = re.sub(r"[^a-z0-9]+", "-", f"{row.claim} {row.reading}".lower()).strip("-")
        page.note(key, row.violated, n=row.cells, unit="violated", of="cells", digits=0)
