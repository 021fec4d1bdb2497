"""Every diagnostic of one linearized network against its original, group by group: what `linfair diagnose` says.

The quantities are those of the paper's Sections 4 and 5 (Das et al., ICML 2024). `read_pair` takes the files that
`linfair linearize` writes, `diagnose` any two networks.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import linfair
from linfair import gates
from linfair.audit.network import load_teacher, read_user
from linfair.audit.shown import drop_between, gap_of, intervals, records
from linfair.checkpoints import CheckpointError, Header, load_network
from linfair.data import GroupedData
from linfair.device import device_name
from linfair.engine.store import weights_digest
from linfair.ledger import UNDESCRIBED, Guarantee, after, masked_by
from linfair.masks import REDUCED, WORDS, Mask, masks_of
from linfair.metrics import Disparity, ParameterDistance, closeness_of, parameter_distance
from linfair.metrics.margin import normalised
from linfair.metrics.measure import Original, measure
from linfair.metrics.risk import check_one
from linfair.weights import masked, plain, removed

WORST = {"accuracy": "low", "drop": "high", "risk": "high", "excess": "high", "margin": "low", "churn": "high"}
"""Which end of a quantity is bad for a group; between groups the gap of each is reported."""


@dataclass(frozen=True)
class Pair:
    """An original network, what was linearized from it, and the data of both."""

    original: nn.Module  #: Without gates
    linearized: nn.Module  #: Gates binary and frozen
    data: GroupedData  #: The split that the original was trained on
    header: Header  #: How the original was built
    beside: Path | None = None  #: A file of fine-tuned weights that lies beside the mask and was not asked for
    guarantee: Guarantee | None = None  #: What is left for `linearized` of the original's guarantee of privacy
    warnings: tuple[str, ...] = ()  #: What was found on validation images of a user's own network


@dataclass(frozen=True)
class Diagnosis:
    """What was measured on one split."""

    #: A row for each network (`arm`: `original`, `linearized` or `pruned`) and group: those of `measure`, `original`
    #: (its accuracy), `drop` (points) and its ends, `relative_drop` (%), `margin_normalised` (by the largest group's),
    #: `closeness` and its ends (two labels only, else nan), provenance
    table: pd.DataFrame
    split: str  #: The split
    estimator: str  #: `exact` or `per_batch`
    #: Worst group and largest gap of each quantity of `WORST`, linearized; that of `excess` is the fairness violation
    disparities: dict[str, Disparity]
    distance: ParameterDistance  #: How far the weights have moved

    def as_json(self) -> dict[str, object]:
        """Everything as plain values; what was not computed is null."""
        worst = dict(zip(self.disparities, records(pd.DataFrame(list(self.disparities.values()))), strict=True))
        found = {"split": self.split, "estimator": self.estimator, "groups": records(self.table)}
        return found | {"disparities": worst, "parameter_distance": records(pd.DataFrame([self.distance]))[0]}


def read_pair(
    teacher: str | Path, mask: str | Path, *, weights: str | Path | None = None, device: str = "cpu", **asked: object
) -> Pair:
    """Read what `linfair linearize` wrote and its data, and check that they belong together."""
    original, dataset, header = load_teacher(teacher, device, **asked)
    units = Mask.load(mask)
    linearized = _masked(original, header, units, mask, teacher)
    near = Path(str(mask).replace(".mask.safetensors", ".weights.safetensors"))
    beside = near if weights is None and near != Path(mask) and near.exists() else None
    left = masked_by(header.guarantee, units.step, same=units.teacher == weights_digest(original))
    if weights is not None:
        linearized, own = _with_weights(weights, header, units, mask)
        left = own or after(header.guarantee, UNDESCRIBED)
    return Pair(original, linearized.to(device).eval(), dataset, header, beside, left)


def read_reduced(
    *,
    teacher: str | Path | None = None,
    model: str | None = None,
    mask: str | Path | None = None,
    weights: str | Path | None = None,
    data: str | None = None,
    device: str = "cpu",
    **options: object,
) -> Pair:
    """One network, as a mask leaves it or, without one, as it is: of linfair's files, or a user's own.

    With `teacher` as `read_pair` reads it, with `model` as `read_user`, whose `options` these are. The weights of a
    user's own network are the original's, or those that `linfair audit` wrote beside the mask.
    """
    if model:
        units = Mask.load(mask) if mask else None
        one = read_user(model, weights, data, device=device, mask=units, **options)
        left = _masked(one.model, one.header, units, mask, model).to(device).eval() if units else one.model
        return Pair(one.model, left, one.data, one.header, warnings=one.warnings)
    if mask:
        return read_pair(teacher, mask, weights=weights, device=device, data=data, **options)
    if weights:
        raise CheckpointError(f"--weights {weights} are those of a linearized or pruned network: name its --mask too")
    original, dataset, header = load_teacher(teacher, device, data=data, **options)
    return Pair(original, original, dataset, header, guarantee=header.guarantee)


def _masked(original: nn.Module, header: Header, units: Mask, mask: str | Path, of: str | Path) -> nn.Module:
    try:
        return masked(original, header.input_shape, units)
    except gates.GateError as error:
        raise gates.GateError(f"{mask} does not fit {of}: {error}") from error


def _with_weights(
    path: str | Path, teacher: Header, mask: Mask, mask_path: str | Path
) -> tuple[nn.Module, Guarantee | None]:
    model, header = load_network(path)
    if header.reduced != REDUCED[mask.kind]:
        kind, wanted = header.reduced or "original", REDUCED[mask.kind]
        text = f"{path} holds the weights of the {kind} network, {mask_path} is of a {wanted} one; give "
        raise CheckpointError(f"{text}METHOD-BUDGET.weights.safetensors")
    both = {name: (getattr(header, name), getattr(teacher, name)) for name in vars(teacher)}
    names = ("network", "width", "data", "data_options", "seed", "norm", "standardised", "rule")
    other = [f"{name} {both[name][0]!r}, not {both[name][1]!r}" for name in names if both[name][0] != both[name][1]]
    if other:
        raise CheckpointError(f"{path} was not made from this teacher: it has {'; '.join(other)}")
    if mask.kind == "relu":
        same, count = (kept := masks_of(model)[0]).jaccard(mask) == 1, kept.kept
    else:
        before, model = model.state_dict(), masked(model, header.input_shape, mask)
        same, count = header.pruned == mask.kept, header.pruned
        same &= all(torch.equal(before[name], value) for name, value in plain(model).state_dict().items())
    if not same:
        found = f"{count} {WORDS[mask.kind]}, others than the {mask.kept} of {mask_path}"
        raise CheckpointError(f"{path} keeps {found}: give the mask and the weights of one budget")
    return model, header.guarantee


def provenance(original: nn.Module, data: GroupedData) -> dict[str, str]:
    """From what network, and on what, rows were computed."""
    device = device_name(str(next(iter(data.splits.values())).y.device))
    made = {"device": device, "torch": torch.__version__, "linfair": linfair.__version__}
    return {"teacher": weights_digest(original)} | made


def diagnose(
    linearized: nn.Module,
    original: nn.Module,
    data: GroupedData,
    split: str = "test",
    *,
    seed: int = 0,
    estimator: str = "exact",
    curvature: bool = True,
    batch_size: int = 512,
) -> Diagnosis:
    """Measure a linearized network and its original, on one device, on every group of a split.

    `estimator` (`exact` or `per_batch`, which `batch_size` defines) is that of gradient norms and eigenvalues; these
    are by far the most expensive part, which `curvature=False` leaves out. A group without inputs is refused.
    """
    check_one(original, data, split)
    distance = parameter_distance(linearized, original)
    reduction = removed(linearized, original)
    total, (kept,) = reduction.total(linearized), reduction.kept(linearized)
    options = {"original": Original(original, data), "split": split, "gradients": [split], "estimator": estimator}
    options |= {"curvature": [split] * curvature, "batch_size": batch_size}
    tables: list[pd.DataFrame] = []
    for arm, model, count in (("original", original, total), (REDUCED[reduction.kind], linearized, kept)):
        table = measure(model, data, [seed], count / total, count, [count], [0], **options).assign(arm=arm)
        before = tables[0] if tables else table
        drops = drop_between(before, table) if tables else dict.fromkeys(("drop", "drop_low", "drop_high"), 0.0)
        table = table.assign(original=before["accuracy"], **drops)
        table["relative_drop"] = table["drop"] / table["original"].where(table["original"] > 0)
        table["margin_normalised"] = normalised(table["margin"].tolist(), data.counts)
        near = closeness_of(model, data, split) if data.classes == 2 else []
        ends = [(row.mean, row.low, row.high) for row in near]
        table[["closeness", "closeness_low", "closeness_high"]] = ends or torch.nan
        tables.append(table)
    table = pd.concat(tables, ignore_index=True).drop(columns="mask_epochs")
    table = table.assign(data=data.name, estimator=estimator, **provenance(original, data))
    gaps = {name: gap_of(table[table["arm"] != "original"], name, worst) for name, worst in WORST.items()}
    return Diagnosis(table, split, estimator, gaps, distance)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """A diagnosis for a terminal: three tables, a line per group, then what differs between groups."""
    table, split, moved = diagnosis.table, diagnosis.split, diagnosis.distance
    first, last = table["arm"].unique()
    original, student = (table[table["arm"] == arm].reset_index(drop=True) for arm in (first, last))

    def each(rows: pd.DataFrame, name: str, form: str) -> pd.Series:
        return rows[name].map(f"{{:{form}}}".format)

    def change(name: str, form: str = ".3f") -> pd.Series:
        return each(original, name, form) + " -> " + each(student, name, form)

    both = (("original", original, ""), (last, student, " "))
    accuracy = {"n_train": original["n_train"]} | {arm: intervals(rows, "accuracy", scale=100) for arm, rows, _ in both}
    accuracy |= {"drop": intervals(student, "drop"), "relative": each(student, "relative_drop", "z.1f") + " %"}
    accuracy["churn"] = intervals(student, "churn", scale=100)
    loss = {"risk": change("risk"), "R(a)": intervals(student, "excess", digits=3), "margin": change("margin")}
    loss["of largest group's"] = each(student, "margin_normalised", ".2f")
    if student["closeness"].notna().any():
        loss["closeness"] = change("closeness", ".4f")
    slope = {}
    for name, rows, space in both:
        slope[f"|g| {name}"] = each(rows, "gradient_norm", ".4g")
        if last != REDUCED["weight"]:  # its gates are all open
            slope["with alpha" + space] = each(rows, "gradient_norm_alpha", ".4g")
        for title, column in ((f"top {name}", "top_eigenvalue"), ("absolute" + space, "absolute_eigenvalue")):
            if rows[column].notna().any():
                slope[title] = each(rows, column, ".4g") + rows[f"{column}_converged"].map({True: "", False: "*"})
    who = original[["group_name", "role", "n"]].rename(columns={"group_name": "group"})
    first, second, third = (who.assign(**columns).to_string(index=False) for columns in (accuracy, loss, slope))
    how = diagnosis.estimator + " (* not converged)" * any("*" in "".join(column) for column in slope.values())
    lines = [
        f"Accuracy and churn in % (Wilson intervals), drop in points, on {split}\n{first}",
        f"\nRisk in nats and margin, original -> {last}; R(a) the excessive loss (paired t interval)\n{second}",
        f"\nGradient norm and top Hessian eigenvalues of the group's risk on {split}, {how}\n{third}",
        f"\nBetween groups of the {last} network (95 % interval of the gap of these two groups)",
    ]
    names, scales = original["group_name"], {"accuracy": 100, "churn": 100, "drop": 1}
    for name, one in diagnosis.disparities.items():
        title = "fairness violation (gap of R(a))" if name == "excess" else f"{name}: gap"
        unit, digits = (" points", 1) if name in scales else ("", 3)
        value, *ends = (f"{scales.get(name, 1) * end:z.{digits}f}" for end in (one.gap, one.low, one.high))
        worst, best = f"{names[one.worst]} (n = {one.n_worst})", f"{names[one.best]} (n = {one.n_best})"
        lines.append(f"  {title} {value}{unit} [{', '.join(ends)}]; worst {worst}, best {best}")
    share = f"{100 * moved.relative:.3g} % of the original's norm ({moved.n:,} weights)"
    lines.append(f"  parameter distance {moved.distance:.4g}, {share}")
    lines.append("Intervals are over inputs, the networks held fixed: they say nothing about other seeds.")
    return "\n".join(lines)
