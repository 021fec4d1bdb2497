"""Every diagnostic of one linearized network against its original, group by group: what `linfair diagnose` says.

The quantities are those of the paper's Sections 4 and 5 (Das et al., ICML 2024): accuracy and its drop, risk and
excessive loss R(a), margin, churn, gradient norm and top Hessian eigenvalue of the group's risk, fairness violation and
parameter distance. `read_pair` takes the files that `linfair linearize` writes, `diagnose` any two networks.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import linfair
from linfair import gates
from linfair.audit.shown import drop_between, intervals
from linfair.checkpoints import CheckpointError, Header, load_network
from linfair.data import GroupedData, load_data
from linfair.device import device_name
from linfair.engine.store import weights_digest
from linfair.masks import Mask, apply_mask, masks_of
from linfair.metrics.distance import ParameterDistance, parameter_distance
from linfair.metrics.margin import closeness_of, normalised
from linfair.metrics.measure import Original, measure
from linfair.metrics.risk import Disparity, GroupMean, disparity

WORST = {"accuracy": "low", "drop": "high", "risk": "high", "excess": "high", "margin": "low", "churn": "high"}
"""Which end of a quantity is bad for a group; between groups the gap of each is reported."""


@dataclass(frozen=True)
class Pair:
    """An original network, what was linearized from it, and the data of both."""

    original: nn.Module  #: Without gates
    linearized: nn.Module  #: Gates binary and frozen
    data: GroupedData  #: The split that the original was trained on
    header: Header  #: How the original was built
    weights: Path | None = None  #: File of the linearized network's weights; None if they are the original's own
    beside: Path | None = None  #: A file of fine-tuned weights that lies beside the mask and was not asked for


@dataclass(frozen=True)
class Diagnosis:
    """What was measured on one split."""

    #: A row for each network (`arm`: `original`, `linearized`) and group, with the columns of
    #: `linfair.metrics.measure.measure` and `original` (its accuracy), `drop` and its ends (points; from both Wilson
    #: intervals), `relative_drop` (%), `margin_normalised` (by the largest group's), `closeness` and its ends (two
    #: labels only, else nan), provenance
    table: pd.DataFrame
    split: str  #: The split
    estimator: str  #: `exact` or `per_batch`
    #: Worst group and largest gap of the linearized network, for each quantity of `WORST`; that of `excess` is the
    #: fairness violation
    disparities: dict[str, Disparity]
    distance: ParameterDistance  #: How far the weights have moved

    @property
    def fairness_violation(self) -> Disparity:
        """The largest difference of excessive losses, max |R(a) - R(a')|."""
        return self.disparities["excess"]

    def as_json(self) -> dict[str, object]:
        """Everything as plain values; what was not computed is null."""
        worst = dict(zip(self.disparities, _plain(pd.DataFrame(list(self.disparities.values()))), strict=True))
        (distance,) = _plain(pd.DataFrame([self.distance]))
        found = {"split": self.split, "estimator": self.estimator, "groups": _plain(self.table)}
        return found | {"disparities": worst, "parameter_distance": distance}


def _plain(rows: pd.DataFrame) -> list[dict[str, object]]:
    return rows.astype(object).where(rows.notna(), None).to_dict("records")


def read_pair(
    teacher: str | Path,
    mask: str | Path,
    *,
    weights: str | Path | None = None,
    data: str | None = None,
    label: str | None = None,
    group: str | None = None,
    device: str = "cpu",
) -> Pair:
    """Read what `linfair linearize` wrote, and the data it was made on, and check that they belong together.

    Args:
        teacher: File of the original network.
        mask: File of the mask.
        weights: File of the linearized network's fine-tuned weights; None puts the mask on the teacher's own.
        data: Name of the data set; None is the teacher's, and another one is refused.
        label: The data set's option, treated alike.
        group: The data set's option, treated alike.
        device: `cpu` or `cuda`.

    Raises:
        ValueError: For a file that is missing, damaged, linearized where it should not be, or of another run.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use device='cpu'")
    original, header = load_network(teacher)
    if header.gated:
        raise CheckpointError(f"{teacher} holds a linearized network; give it as the weights, its original as teacher")
    trained = dict(header.data_options)
    found = {"data": header.data, "label": trained.get("label"), "group": trained.get("group")}
    for name, asked in {"data": data, "label": label, "group": group}.items():
        if asked not in (None, found[name]):
            has = f"{name} {found[name]!r}" if found[name] else f"the data's own {name}"
            raise ValueError(
                f"{name} {asked!r} was asked for, but {teacher} was trained with {has}: on another one its training "
                f"images may be tested; leave {name} out, or give the teacher trained on it"
            )
    linearized, units = gates.install(original, header.input_shape), Mask.load(mask)
    try:
        apply_mask(linearized, units)
    except gates.GateError as error:
        raise gates.GateError(f"{mask} does not fit {teacher}: {error}") from error
    beside = None
    if weights is None:
        near = Path(str(mask).replace(".mask.safetensors", ".weights.safetensors"))
        beside = near if near != Path(mask) and near.exists() else None
    else:
        weights, linearized = Path(weights), _with_weights(weights, header, units, mask)
    dataset = load_data(header.data, seed=header.seed, **trained)
    header.check_data(dataset, teacher)
    networks = original.to(device).eval(), linearized.to(device).eval()
    return Pair(*networks, dataset.to(device), header, weights, beside)


def _with_weights(path: str | Path, teacher: Header, mask: Mask, mask_path: str | Path) -> nn.Module:
    model, header = load_network(path)
    if not header.gated:
        raise CheckpointError(
            f"{path} holds a network without gates; the weights are METHOD-BUDGET.weights.safetensors"
        )
    other = [
        f"{name} {getattr(header, name)!r}, not {getattr(teacher, name)!r}"
        for name in ("network", "width", "data", "data_options", "seed")
        if getattr(header, name) != getattr(teacher, name)
    ]
    if other:
        raise CheckpointError(f"{path} was not made from this teacher: it has {'; '.join(other)}")
    (kept,) = masks_of(model)
    if any(not torch.equal(kept.units[site], unit) for site, unit in mask.units.items()):
        raise CheckpointError(
            f"{path} keeps {kept.kept} ReLUs, others than the {mask.kept} of {mask_path}: give the mask and the "
            "weights of one budget"
        )
    return model


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
    """Measure a linearized network and its original on every group of a split.

    Args:
        linearized: With gates.
        original: The network it was made from, without gates.
        data: Data set of both, on their device.
        split: One of `data.splits`.
        seed: Written into the rows.
        estimator: `exact` or `per_batch`, of gradient norms and eigenvalues.
        curvature: Compute the top Hessian eigenvalues: by far the most expensive part.
        batch_size: Inputs of one pass; defines `per_batch`, does not change `exact`.

    Raises:
        ValueError: For an unknown split or estimator, a group without inputs, networks that differ in more than gates,
            or outputs that are not finite.
    """
    if split not in data.splits:
        raise ValueError(f"{data.name} has no split {split!r}; there are {', '.join(data.splits)}")
    distance = parameter_distance(linearized, original)
    reference = Original(original, data)
    total, kept = gates.total_units(linearized), int(gates.kept_units(linearized)[0])
    options = {"original": reference, "split": split, "gradients": [split], "estimator": estimator}
    options |= {"curvature": [split] * curvature, "batch_size": batch_size}
    tables: list[pd.DataFrame] = []
    for arm, model, count in (("original", original, total), ("linearized", linearized, kept)):
        table = measure(model, data, [seed], count / total, count, [count], [0], **options).assign(arm=arm)
        before = tables[0] if tables else table
        drops = drop_between(before, table) if tables else dict.fromkeys(("drop", "drop_low", "drop_high"), 0.0)
        table = table.assign(original=before["accuracy"], **drops)
        table["relative_drop"] = table["drop"] / table["original"].where(table["original"] > 0)
        table["margin_normalised"] = normalised(table["margin"].tolist(), data.counts)
        near = closeness_of(model, data, split) if data.classes == 2 else []
        for column, field in {"closeness": "mean", "closeness_low": "low", "closeness_high": "high"}.items():
            table[column] = [getattr(row, field) for row in near] or math.nan
        tables.append(table)
    table = pd.concat(tables, ignore_index=True).drop(columns="mask_epochs")
    table = table.assign(
        data=data.name,
        estimator=estimator,
        teacher=weights_digest(original),
        device=device_name(str(data.splits[split].y.device)),
        torch=torch.__version__,
        linfair=linfair.__version__,
    )
    student, found = table[table["arm"] == "linearized"], {}
    for name, worst in WORST.items():
        ends = ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
        rows = student[["group", "n", name, *ends]].itertuples(index=False)
        found[name] = disparity([GroupMean(*row) for row in rows], worst=worst)
    return Diagnosis(table, split, estimator, found, distance)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """A diagnosis for a terminal: three tables, a line per group, then what differs between groups."""
    table, split = diagnosis.table, diagnosis.split
    original, student = (table[table["arm"] == arm].reset_index(drop=True) for arm in ("original", "linearized"))

    def change(name: str, digits: int) -> pd.Series:
        text = f"{{:.{digits}f}}".format
        return original[name].map(text) + " -> " + student[name].map(text)

    who = {"group": original["group_name"], "role": original["role"], "n": original["n"]}
    accuracy = {
        "n_train": original["n_train"],
        "original": intervals(original, "accuracy", scale=100),
        "linearized": intervals(student, "accuracy", scale=100),
        "drop": intervals(student, "drop"),
        "relative": student["relative_drop"].map("{:.1f} %".format),
        "churn": intervals(student, "churn", scale=100),
    }
    loss = {
        "risk": change("risk", 3),
        "R(a)": intervals(student, "excess", digits=3),
        "margin": change("margin", 3),
        "of largest group's": student["margin_normalised"].map("{:.2f}".format),
    }
    if student["closeness"].notna().any():
        loss["closeness"] = change("closeness", 4)
    slope = {}
    for name, rows, space in (("original", original, ""), ("linearized", student, " ")):
        slope[f"|g| {name}"] = rows["gradient_norm"].map("{:.4g}".format)
        slope["with alpha" + space] = rows["gradient_norm_alpha"].map("{:.4g}".format)
        if rows["top_eigenvalue"].notna().any():
            slope[f"top {name}"] = _eigenvalues(rows, "top_eigenvalue")
            slope["absolute" + space] = _eigenvalues(rows, "absolute_eigenvalue")
    first, second, third = (pd.DataFrame(who | columns).to_string(index=False) for columns in (accuracy, loss, slope))
    mark = " (* not converged)" if any("*" in cell for column in slope.values() for cell in column) else ""
    moved = diagnosis.distance
    lines = [
        f"Accuracy and churn in % (Wilson intervals), drop in points, on {split}",
        first,
        "\nRisk in nats and margin, original -> linearized; R(a) the excessive loss (paired t interval)",
        second,
        f"\nGradient norm and top Hessian eigenvalues of the group's risk on {split}, {diagnosis.estimator}{mark}",
        third,
        "\nBetween groups of the linearized network (95 % interval of the gap of these two groups)",
        *(_gap(name, one, original["group_name"]) for name, one in diagnosis.disparities.items()),
        f"  parameter distance {moved.distance:.4g}, {100 * moved.relative:.3g} % of the original's norm "
        f"({moved.n:,} weights)",
        "Intervals are over inputs, the networks held fixed: they say nothing about other seeds.",
    ]
    return "\n".join(lines)


def _eigenvalues(rows: pd.DataFrame, name: str) -> list[str]:
    pairs = zip(rows[name], rows[f"{name}_converged"], strict=True)
    return [f"{value:.4g}" + ("" if converged else "*") for value, converged in pairs]


def _gap(name: str, one: Disparity, names: pd.Series) -> str:
    scale, unit = {"accuracy": (100, " points"), "churn": (100, " points"), "drop": (1, " points")}.get(name, (1, ""))
    title = "fairness violation (gap of R(a))" if name == "excess" else f"{name}: gap"
    value, *ends = (f"{scale * end:.{1 if unit else 3}f}" for end in (one.gap, one.low, one.high))
    return (
        f"  {title} {value}{unit} [{', '.join(ends)}]; worst {names[one.worst]} (n = {one.n_worst}), "
        f"best {names[one.best]} (n = {one.n_best})"
    )
