"""Every diagnostic of one linearized network against its original, group by group: what `linfair diagnose` says.

The quantities are those of the paper's Sections 4 and 5 (Das et al., ICML 2024): accuracy and its drop, risk and
excessive loss R(a), margin, churn, gradient norm and top Hessian eigenvalue of the group's risk, fairness violation and
parameter distance. `read_pair` takes the files that `linfair linearize` writes, `diagnose` any two networks.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

import linfair
from linfair import gates
from linfair.checkpoints import CheckpointError, Header, load_network
from linfair.data import GroupedData, load_data
from linfair.device import device_name
from linfair.masks import Mask, apply_mask, masks_of
from linfair.metrics.distance import ParameterDistance, parameter_distance
from linfair.metrics.margin import closeness_of, normalised
from linfair.metrics.risk import Disparity, GroupMean, disparity
from linfair.study.measure import Original, measure
from linfair.study.store import weights_digest

WORST = {"accuracy": "low", "drop": "high", "risk": "high", "excess": "high", "margin": "low", "churn": "high"}
"""Which end of a quantity is bad for a group; between groups the gap of each is reported."""


@dataclass(frozen=True)
class Pair:
    """An original network, what was linearized from it, and the data of both.

    Attributes:
        original: Without gates.
        linearized: Gates binary and frozen.
        data: The split that the original was trained on.
        header: How the original was built.
        weights: File of the linearized network's weights; None if they are the original's own.
        beside: A file of fine-tuned weights that lies beside the mask and was not asked for.
        computes: Digest of what the original computes, `linfair.study.behaviour`, if it is known.
    """

    original: nn.Module
    linearized: nn.Module
    data: GroupedData
    header: Header
    weights: Path | None = None
    beside: Path | None = None
    computes: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What was measured on one split.

    Attributes:
        table: A row for each network (`arm`: `original`, `linearized`) and group, with the columns of
            `linfair.study.measure.measure` and `original` (its accuracy), `drop` and its ends (points; from both
            Wilson intervals), `relative_drop` (%), `margin_normalised` (by the largest group's), `closeness` and its
            ends (two labels only, else nan), provenance.
        split: The split.
        estimator: `exact` or `per_batch`.
        disparities: Worst group and largest gap of the linearized network, for each quantity of `WORST`; that of
            `excess` is the fairness violation.
        distance: How far the weights have moved.
    """

    table: pd.DataFrame
    split: str
    estimator: str
    disparities: dict[str, Disparity]
    distance: ParameterDistance

    @property
    def fairness_violation(self) -> Disparity:
        """The largest difference of excessive losses, max |R(a) - R(a')|."""
        return self.disparities["excess"]

    def as_json(self) -> dict[str, object]:
        """Everything as plain values; what was not computed is null."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        worst = {name: {k: _finite(v) for k, v in asdict(one).items()} for name, one in self.disparities.items()}
        distance = {name: _finite(value) for name, value in asdict(self.distance).items()}
        head = {"split": self.split, "estimator": self.estimator}
        return {**head, "groups": rows, "disparities": worst, "parameter_distance": distance}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


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
        data: Name of the data set, checked against the teacher's; None takes the teacher's.
        label: Likewise, the data set's option.
        group: Likewise.
        device: `cpu` or `cuda`.

    Raises:
        CheckpointError: For a file that is missing, no network, linearized where it should not be, or of another run.
        ValueError: For a mask of another network, another data set than the teacher's, or a device that is not there.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use device='cpu'")
    original, header = load_network(teacher)
    if header.gated:
        raise CheckpointError(f"{teacher} holds a linearized network; give it as the weights, its original as teacher")
    trained = dict(header.data_options)
    asked = {"data": data, "label": label, "group": group}
    for name, found in {"data": header.data, "label": trained.get("label"), "group": trained.get("group")}.items():
        if asked[name] not in (None, found):
            has = f"was trained with {name} {found!r}" if found else f"was trained with the data's own {name}"
            raise ValueError(
                f"{name} {asked[name]!r} was asked for, but {teacher} {has}: on another one its training images may be "
                f"tested; leave {name} out, or give the teacher trained on it"
            )
    linearized = gates.install(original, header.input_shape)
    units = Mask.load(mask)
    try:
        apply_mask(linearized, units)
    except gates.GateError as error:
        raise gates.GateError(f"{mask} does not fit {teacher}: {error}") from error
    beside = None
    if weights is None:
        near = Path(str(mask).replace(".mask.safetensors", ".weights.safetensors"))
        beside = near if near != Path(mask) and near.exists() else None
    else:
        linearized = _with_weights(weights, header, units, mask)
    dataset = load_data(header.data, seed=header.seed, **trained)
    header.check_data(dataset, teacher)
    found = None if weights is None else Path(weights)
    networks = original.to(device).eval(), linearized.to(device).eval()
    return Pair(*networks, dataset.to(device), header, found, beside)


def _with_weights(path: str | Path, teacher: Header, mask: Mask, mask_path: str | Path) -> nn.Module:
    model, header = load_network(path)
    if not header.gated:
        raise CheckpointError(
            f"{path} holds a network without gates; the weights are METHOD-BUDGET.weights.safetensors"
        )
    names = ("network", "width", "data", "data_options", "seed")
    other = [f"{name} {getattr(header, name)!r}, not {getattr(teacher, name)!r}" for name in names]
    other = [text for name, text in zip(names, other, strict=True) if getattr(header, name) != getattr(teacher, name)]
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
    part, n_groups = data.splits[split], len(data.group_names)
    tables = []
    for arm, model in (("original", original), ("linearized", linearized)):
        count = total if arm == "original" else kept
        table = measure(model, data, [seed], count / total, count, [count], [0], **options).assign(arm=arm)
        table = _with_drops(table, tables[0] if tables else table)
        table["relative_drop"] = table["drop"] / table["original"].where(table["original"] > 0)
        table["margin_normalised"] = normalised(table["margin"].tolist(), data.counts)
        near = [GroupMean(number, 0, *[math.nan] * 3) for number in range(n_groups)]
        if data.classes == 2:
            near = closeness_of(model, data, split)
        tables.append(table.assign(**_ends("closeness", near)))
    table = pd.concat(tables, ignore_index=True).drop(columns="mask_epochs")
    provenance = {
        "data": data.name,
        "estimator": estimator,
        "teacher": weights_digest(original),
        "device": device_name(str(part.y.device)),
        "torch": torch.__version__,
        "linfair": linfair.__version__,
    }
    table = table.assign(**provenance)
    found = {}
    for name, worst in WORST.items():
        ends = ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
        rows = table[table["arm"] == "linearized"][["group", "n", name, *ends]]
        found[name] = disparity([GroupMean(*row) for row in rows.itertuples(index=False)], worst=worst)
    return Diagnosis(table, split, estimator, found, distance)


def _with_drops(table: pd.DataFrame, original: pd.DataFrame) -> pd.DataFrame:
    """Drops in points and their ends, put together from the Wilson ends of both accuracies (MOVER).

    The networks see the same inputs, so their accuracies rise and fall together and the interval is rather too wide; a
    paired t interval would have no width where all of a handful of inputs change alike.
    """
    before, after = original["accuracy"], table["accuracy"]
    drop = before - after
    low = drop - np.hypot(before - original["low"], table["high"] - after)
    high = drop + np.hypot(original["high"] - before, after - table["low"])
    columns = {"drop": 100 * drop, "drop_low": 100 * low, "drop_high": 100 * high}
    if table is original:
        columns = dict.fromkeys(columns, 0.0)
    return table.assign(original=before, **columns)


def _ends(name: str, rows: list[GroupMean]) -> dict[str, list[float]]:
    fields = {name: "mean", f"{name}_low": "low", f"{name}_high": "high"}
    return {column: [getattr(row, field) for row in rows] for column, field in fields.items()}


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """A diagnosis for a terminal: three tables, a line per group, then what differs between groups."""
    table = diagnosis.table
    original, student = (table[table["arm"] == arm].reset_index(drop=True) for arm in ("original", "linearized"))
    who = {"group": original["group_name"], "role": original["role"], "n": original["n"]}
    accuracy = {
        **who,
        "n_train": original["n_train"],
        "original": _intervals(original, "accuracy", "low", "high", 100, 1),
        "linearized": _intervals(student, "accuracy", "low", "high", 100, 1),
        "drop": _intervals(student, "drop", "drop_low", "drop_high", 1, 1),
        "relative": student["relative_drop"].map("{:.1f} %".format),
        "churn": _intervals(student, "churn", "churn_low", "churn_high", 100, 1),
    }
    loss = {
        **who,
        "risk": original["risk"].map("{:.3f}".format) + " -> " + student["risk"].map("{:.3f}".format),
        "R(a)": _intervals(student, "excess", "excess_low", "excess_high", 1, 3),
        "margin": original["margin"].map("{:.3f}".format) + " -> " + student["margin"].map("{:.3f}".format),
        "of largest group's": student["margin_normalised"].map("{:.2f}".format),
    }
    if student["closeness"].notna().any():
        loss["closeness"] = original["closeness"].map("{:.4f}".format)
        loss["closeness"] += " -> " + student["closeness"].map("{:.4f}".format)
    slope = dict(who)
    for name, rows in (("original", original), ("linearized", student)):
        slope[f"|g| {name}"] = rows["gradient_norm"].map("{:.4g}".format)
        slope["with alpha" + " " * (name == "linearized")] = rows["gradient_norm_alpha"].map("{:.4g}".format)
        if rows["top_eigenvalue"].notna().any():
            slope[f"top {name}"] = _eigenvalues(rows, "top_eigenvalue")
            slope["absolute" + " " * (name == "linearized")] = _eigenvalues(rows, "absolute_eigenvalue")
    lines = [
        f"Accuracy and churn in % (Wilson intervals), drop in points, on {diagnosis.split}",
        pd.DataFrame(accuracy).to_string(index=False),
        "\nRisk in nats and margin, original -> linearized; R(a) the excessive loss (paired t interval)",
        pd.DataFrame(loss).to_string(index=False),
        f"\nGradient norm and top Hessian eigenvalues of the group's risk on {diagnosis.split}, {diagnosis.estimator}"
        + (" (* not converged)" if any("*" in text for column in slope.values() for text in map(str, column)) else ""),
        pd.DataFrame(slope).to_string(index=False),
        "\nBetween groups of the linearized network (95 % interval of the gap of these two groups)",
        *(_gap(name, one, original["group_name"]) for name, one in diagnosis.disparities.items()),
        f"  parameter distance {diagnosis.distance.distance:.4g}, {100 * diagnosis.distance.relative:.3g} % of the "
        f"original's norm ({diagnosis.distance.n:,} weights)",
        "Intervals are over inputs, the networks held fixed: they say nothing about other seeds.",
    ]
    return "\n".join(lines)


def _intervals(rows: pd.DataFrame, name: str, low: str, high: str, scale: float, digits: int) -> list[str]:
    found = (scale * rows[[name, low, high]]).itertuples(index=False)
    return [f"{mean:.{digits}f} [{start:.{digits}f}, {end:.{digits}f}]" for mean, start, end in found]


def _eigenvalues(rows: pd.DataFrame, name: str) -> list[str]:
    pairs = zip(rows[name], rows[f"{name}_converged"], strict=True)
    return [f"{value:.4g}" + ("" if converged else "*") for value, converged in pairs]


def _gap(name: str, one: Disparity, names: pd.Series) -> str:
    scale, unit = {"accuracy": (100, " points"), "churn": (100, " points"), "drop": (1, " points")}.get(name, (1, ""))
    title = "fairness violation (gap of R(a))" if name == "excess" else f"{name}: gap"
    digits = 1 if unit else 3
    values = [f"{scale * value:.{digits}f}" for value in (one.gap, one.low, one.high)]
    return (
        f"  {title} {values[0]}{unit} [{values[1]}, {values[2]}]; worst {names[one.worst]} (n = {one.n_worst}), "
        f"best {names[one.best]} (n = {one.n_best})"
    )
