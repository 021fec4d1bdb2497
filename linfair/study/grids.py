"""Cells: the units of a study. Everything that shares trained teachers is one cell; `grid` makes those of a panel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from linfair.checkpoints import CheckpointError, load_network
from linfair.data import DATASETS, DataError, GroupedData, input_shape, load_data
from linfair.linearizers.configurations import fixed_list
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import find
from linfair.models import INITS
from linfair.options import checked
from linfair.study.recipes import CURVATURE, Recipe, in_precision, recipe


@dataclass(frozen=True)
class Cell:
    """One unit of a study.

    Attributes:
        data: Name of the data set.
        network: Name of the network.
        method: Name of the linearizer.
        budgets: ReLU budgets below 1, descending.
        seeds: Several seeds are trained as one ensemble.
        profile: `smoke`, `small` or `paper`.
        device: `cpu` or `cuda`.
        width: Width of the network; None is the recipe's.
        teacher: File of a trained network to start from (one seed), instead of training one.
        options: Options of the method that differ from the recipe's, as (name, value) pairs.
        data_options: Options of the data set that differ from its own, as pairs too: `label`, `group`, ...
        base_data_options: Those that differ again for the original network's training: it sees another training split
            of the same images, never a validation or test image of the cell's.
        curvature: Whose Hessian eigenvalues are computed: `none`, `original` or `all`; None is the recipe's.
        precision: Of every training, `float32` or `bf16`; None is the recipe's.
        init: How the network starts, one of `linfair.models.INITS`; None is the recipe's.
    """

    data: str
    network: str
    method: str
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    profile: str = "small"
    device: str = "cpu"
    width: int | None = None
    teacher: str | None = None
    options: tuple[tuple[str, object], ...] = ()
    data_options: tuple[tuple[str, object], ...] = ()
    curvature: str | None = None
    init: str | None = None
    base_data_options: tuple[tuple[str, object], ...] = ()
    precision: str | None = None

    @property
    def data_text(self) -> str:
        """The data set in words, options included: what the rows' column `data` says of a whole data set."""
        return data_words(self.data, self.data_options, self.base_data_options)


def data_words(
    data: str, options: tuple[tuple[str, object], ...], base: tuple[tuple[str, object], ...], *, subset: bool = False
) -> str:
    """A data set in words, with its options, those of the original network's training, and whether it is a part only.

    >>> data_words("svhn", (), (), subset=True), data_words("utkface_age", (("group", "race"),), ())
    ('svhn subset', 'utkface_age (group=race)')
    """
    chosen = pairs((*options, *((f"base {name}", value) for name, value in base)))
    return f"{data}{' subset' * subset}" + (f" ({chosen})" if chosen else "")


def asked_for(text: str) -> str:
    """The data set that is asked for, from the words for the part that was found.

    >>> asked_for("svhn subset")
    'svhn'
    """
    return text.replace(" subset", "", 1)


def grid(
    data: str,
    network: str,
    *,
    method: str = "snl",
    budgets: Sequence[float] | None = None,
    seeds: Sequence[int],
    profile: str = "small",
    device: str = "cpu",
    width: int | None = None,
    teacher: str | None = None,
    options: dict[str, object] | None = None,
    data_options: dict[str, object] | None = None,
    curvature: str | None = None,
    init: str | None = None,
    base_data_options: dict[str, object] | None = None,
    precision: str | None = None,
) -> list[Cell]:
    """The cells of one panel: the seeds of an MLP in one ensemble, larger networks one seed a cell.

    Args:
        data: Name of the data set.
        network: Name of the network.
        method: Name of the linearizer.
        budgets: ReLU budgets below 1, descending. None is for a fixed list in `options`,
            `{"configurations": ("1", "2,3")}` of DeepReDuce: the shares that it keeps.
        seeds: Seeds.
        profile: One of `linfair.study.recipes.PROFILES`.
        device: `cpu` or `cuda`.
        width: Width of the network; None is the recipe's. This and what follows is as in `Cell`.
        teacher: File of a trained network.
        options: Of the method, for example `{"exact": True}` for SNL.
        data_options: Of the data set, for example `{"label": "age", "group": "race"}`.
        curvature: Whose Hessian eigenvalues are computed.
        init: How the network starts.
        base_data_options: Of the data set for the original network's training alone.
        precision: Of every training.

    Raises:
        ValueError: For an unknown method or option, a value that an option does not take, budgets that are not
            descending fractions, no budgets without a fixed list, or a device that is not there.
    """
    options = method_options(method, options or {})
    given = [data_options or {}, base_data_options or {}]
    data_options, base = [checked(one, DATASETS[data], data) if data in DATASETS else one for one in given]
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use device='cpu'")
    for name, value, known in (("init", init, INITS), ("curvature", curvature, CURVATURE)):
        if value not in (None, *known):
            raise ValueError(f"no {name}={value!r}; there are {', '.join(known)}")
    lists = [tuple(seeds)] if network == "mlp" else [(seed,) for seed in seeds]
    if budgets is None:
        if not options.get("configurations"):
            raise ValueError(f"budgets are missing: {method} has a fixed list only with the option configurations")
        thin = width or recipe(network, profile).width
        shape = input_shape(data, **data_options)
        budgets = [count / total for _, count, total in fixed_list(network, shape, thin, options["configurations"])]
    budgets = check_budgets(budgets)
    changed = tuple(sorted((options or {}).items()))
    chosen, base = (tuple(sorted(one.items())) for one in (data_options, base))
    named = {"width": width, "teacher": teacher, "options": changed, "data_options": chosen, "base_data_options": base}
    named |= {"curvature": curvature, "init": init, "precision": precision}
    return [Cell(data, network, find(method).name, budgets, one, profile, device, **named) for one in lists]


def method_options(method: str, given: Mapping[str, object]) -> dict[str, object]:
    """Options of a method, frozen and checked: names, types, and what the method itself asks of values."""
    kind = find(method).options
    found = checked(given, kind, method)
    replace(kind(), **found)  # the method's own checks
    return found


def listed(cell: Cell) -> list[tuple[str, int, int]]:
    """Of a cell with a fixed list what its budgets keep: (configuration, kept units, all units); else nothing."""
    configurations = dict(cell.options).get("configurations")
    if not configurations:
        return []
    width = cell.width or recipe(cell.network, cell.profile).width
    kept = fixed_list(cell.network, input_shape(cell.data, **dict(cell.data_options)), width, configurations)
    return [min(kept, key=lambda one: (abs(one[1] - round(budget * one[2])), one[1])) for budget in cell.budgets]


def width_of(cell: Cell) -> int:
    """The width that the rows of a cell name, 0 for the full one."""
    return cell.width or recipe(cell.network, cell.profile).width or 0


def built_as(cell: Cell, plan: Recipe) -> Recipe:
    """A recipe in a cell's precision, with the width and the start of its network: of its teacher's file, or asked for.

    Raises:
        CheckpointError: If the file belongs to another cell. Another seed has another split: that teacher would be
            tested on what it was trained on.
    """
    plan = in_precision(plan, cell.precision)
    if not cell.teacher:
        return replace(plan, width=cell.width or plan.width, init=cell.init or plan.init)
    header = load_network(cell.teacher)[1]
    if header.gated:
        raise CheckpointError(f"{cell.teacher} holds a linearized network; a teacher has no gates yet")
    asked = {"network": cell.network, "data": cell.data, "seeds": cell.seeds, "width": cell.width or header.width}
    found = {"network": header.network, "data": header.data, "seeds": (header.seed,), "width": header.width}
    asked |= {"data options": cell.data_options, "init": cell.init or header.init}
    found |= {"data options": header.data_options, "init": header.init}
    other = [f"{name} {found[name]}, not {asked[name]}" for name in asked if asked[name] != found[name]]
    if other:
        raise CheckpointError(f"{cell.teacher} is the teacher of another cell: it has {'; '.join(other)}")
    return replace(plan, width=header.width or None, init=header.init)


def pairs(options: tuple[tuple[str, object], ...]) -> str:
    """Options in words: `label=age, group=race`, lists as `configurations=1,4 / 1,2`."""

    def words(value: object) -> object:
        return " / ".join(map(str, value)) if isinstance(value, tuple) else value

    return ", ".join(f"{name}={words(value)}" for name, value in options)


def load_sets(cell: Cell) -> tuple[list[GroupedData], list[GroupedData]]:
    """A cell's data on its device, one split for each seed: the students', and what the original is trained on.

    The code released with the paper trains SVHN's original network on all of its images and linearizes it on 90 % of
    the digits 0-4 and 30 % of 5-9. Both are splits of one seed: what validates or tests the students must train nobody.
    """
    options = dict(cell.data_options)
    sets = [load_data(cell.data, seed=seed, **options).to(cell.device) for seed in cell.seeds]
    if not cell.base_data_options:
        return sets, sets
    options |= dict(cell.base_data_options)
    base = [load_data(cell.data, seed=seed, **options).to(cell.device) for seed in cell.seeds]
    return [beside(one, other) for one, other in zip(sets, base, strict=True)], base


def beside(data: GroupedData, base: GroupedData) -> GroupedData:
    """A data set as the students see it whose original network was trained on another: with that one's normalisation.

    Raises:
        DataError: If an image of the students' validation or test splits is among the original's training images, or
            labels differ.
    """
    if (data.label_names, data.input_shape) != (base.label_names, base.input_shape):
        raise DataError(f"{data.name}: the original network's data have other labels, or another size of images")
    trained = {image.numpy().tobytes() for image in base.splits["train"].x.cpu()}
    for split in [name for name in data.splits if name != "train"]:
        leaked = sum(image.numpy().tobytes() in trained for image in data.splits[split].x.cpu())
        if leaked:
            raise DataError(
                f"{data.name}: the original network would be trained on {leaked} of {len(data.splits[split])} images "
                f"of the students' {split} split; base_data_options may change which training images are kept "
                "(svhn: fractions), not the split"
            )
    return replace(data, mean=base.mean, std=base.std)


def found_words(cell: Cell, sets: Sequence[GroupedData]) -> str:
    """A cell's data in words, saying whether only a part of the data set is here: `svhn subset`."""
    subset = any(one.provenance.get("subset") for one in sets)
    return data_words(cell.data, cell.data_options, cell.base_data_options, subset=subset)
