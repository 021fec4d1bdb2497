"""Cells: the units of a study. Everything that shares trained teachers is one cell; `grid` makes those of a panel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from linfair import gates
from linfair.checkpoints import CheckpointError, load_network
from linfair.data import DATASETS, DataError, GroupedData, input_shape, load_data
from linfair.linearizers.configurations import Configuration, kept_counts, possible
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import find
from linfair.models import INITS, build
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
        data_options: Options of the data set that differ from its own, likewise: `label`, `group`, ...
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
        width: Width of the network; None is the recipe's.
        teacher: File of a trained network, for one seed.
        options: Options of the method that differ from the recipe's, for example `{"exact": True}` for SNL.
        data_options: Options of the data set, for example `{"label": "age", "group": "race"}`.
        curvature: Whose Hessian eigenvalues are computed, see `Cell`.
        init: How the network starts, see `Cell`.
        base_data_options: Options of the data set for the original network's training alone, see `Cell`.
        precision: Of every training, see `Cell`.

    Raises:
        ValueError: For an unknown method or option, a value that an option does not take, budgets that are not
            descending fractions, no budgets without a fixed list, or a device that is not there.
    """
    options = method_options(method, options or {})
    given = [data_options or {}, base_data_options or {}]
    data_options, base = [checked(one, DATASETS[data], data) if data in DATASETS else one for one in given]
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no GPU here; use device='cpu'")
    if init not in (None, *INITS):
        raise ValueError(f"no init={init!r}; there are {', '.join(INITS)}")
    if curvature not in (None, *CURVATURE):
        raise ValueError(f"no curvature={curvature!r}; there are {', '.join(CURVATURE)}")
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
    """Options of a method, frozen and checked: names, types, and what the method itself asks of values.

    Args:
        method: One of `LINEARIZERS`.
        given: Name and value, as Python or a TOML file has them.

    Raises:
        ValueError: With method, option, value and what is allowed.
    """
    kind = find(method).options
    found = checked(given, kind, method)
    replace(kind(), **found)  # the method's own checks
    return found


@cache
def fixed_list(
    network: str, shape: tuple[int, ...], width: int | None, configurations: tuple[str, ...]
) -> tuple[tuple[str, int, int], ...]:
    """What a fixed list of configurations keeps: (configuration, kept units, all units), most units first.

    Args:
        network: Name of the network.
        shape: Shape of one input.
        width: Width of the network; None is the full one.
        configurations: The list.

    Raises:
        ValueError: If the network cannot have one of them, or two keep equally many.

    >>> fixed_list("resnet18", (3, 32, 32), None, ("1,4", "2,3"))
    (('2,3', 294912, 491520), ('1,4', 196608, 491520))
    """
    gated = _gated(network, shape, width)
    total = gates.total_units(gated)
    try:
        counts = kept_counts(gated, configurations)
    except ValueError as error:
        raise ValueError(f"{network}: {error}") from None
    return tuple((str(one), count, total) for one, count in counts.items())


def listed(cell: Cell) -> list[tuple[str, int, int]]:
    """Of a cell with a fixed list what its budgets keep: (configuration, kept units, all units); else nothing."""
    configurations = dict(cell.options).get("configurations")
    if not configurations:
        return []
    width = cell.width or recipe(cell.network, cell.profile).width
    kept = fixed_list(cell.network, input_shape(cell.data, **dict(cell.data_options)), width, configurations)
    return [min(kept, key=lambda one: (abs(one[1] - round(budget * one[2])), one[1])) for budget in cell.budgets]


def stand_in_list(network: str, shape: tuple[int, ...], configurations: Sequence[str]) -> tuple[str, ...]:
    """Of a list made for another network those that a stand-in can have: with some units left, each count once.

    Raises:
        ValueError: If there are none.
    """
    gated = _gated(network, shape, None)
    found: dict[int, Configuration] = {}
    for one in possible(gated, [Configuration.parse(text) for text in configurations]):
        found.setdefault(one.count(gated), one)
    listed = tuple(str(one) for count, one in found.items() if 0 < count < gates.total_units(gated))
    if not listed:
        raise ValueError(
            f"{network} cannot stand in: it can have none of the configurations {' / '.join(configurations)}"
        )
    return listed


@cache
def _gated(network: str, shape: tuple[int, ...], width: int | None) -> torch.nn.Module:
    return gates.install(build(network, shape, 2, width=width), shape)


def width_of(cell: Cell) -> int:
    """The width that the rows of a cell name, 0 for the full one."""
    return cell.width or recipe(cell.network, cell.profile).width or 0


def built_as(cell: Cell, plan: Recipe) -> Recipe:
    """A recipe in a cell's precision, with the width and the start of its network: of its teacher's file, or asked for.

    Args:
        cell: A cell.
        plan: The recipe of its profile.

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

    Args:
        data: The students' data.
        base: The original network's, of the same seed.

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
