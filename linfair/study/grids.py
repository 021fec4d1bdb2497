"""Cells: the units of a study. Everything that shares trained teachers is one cell; `grid` makes those of a panel."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from linfair.checkpoints import CheckpointError, load_network
from linfair.data import DATASETS, DataError, GroupedData, input_shape, load_data
from linfair.device import check_device
from linfair.linearizers.configurations import fixed_list
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import find
from linfair.models import INITS, NORMS
from linfair.names import checked
from linfair.rules import canonical
from linfair.study.arms import base_of
from linfair.study.recipes import CURVATURE, Recipe, in_every_stage, recipe


@dataclass(frozen=True)
class Cell:
    """One unit of a study: everything that shares trained teachers. Options are (name, value) pairs."""

    data: str  #: Name of the data set
    network: str
    method: str  #: Name of the linearizer
    budgets: tuple[float, ...]  #: ReLU budgets below 1, descending
    seeds: tuple[int, ...]  #: Several are trained as one ensemble
    profile: str = "small"  #: One of `linfair.study.recipes.PROFILES`
    device: str = "cpu"  #: `cpu` or `cuda`
    width: int | None = None  #: Width of the network; None is the recipe's
    teacher: str | None = None  #: File of a trained network to start from (one seed), instead of training one
    options: tuple[tuple[str, object], ...] = ()  #: Of the method, where they differ from the recipe's
    data_options: tuple[tuple[str, object], ...] = ()  #: Of the data set: `label`, `group`, ...
    curvature: str | None = None  #: Whose Hessian eigenvalues are computed, one of `CURVATURE`; None is the recipe's
    init: str | None = None  #: How the network starts, one of `linfair.models.INITS`; None is the recipe's
    base_data_options: tuple[tuple[str, object], ...] = ()  #: For the original network's training split alone
    precision: str | None = None  #: Of every training, `float32` or `bf16`; None is the recipe's
    base_mitigation: str = ""  #: Arm whose objective, without KD, trains the original network; empty is cross entropy
    base_rule: str = ""  #: Rule (`linfair.rules`) that trains it, on the recipe's `private` schedule; empty is `base`
    norm: str = "batch"  #: What the network normalises by, one of `linfair.models.NORMS`
    standardised: bool = False  #: Whether its convolutions standardise their weights

    @property
    def known_by(self) -> dict[str, object]:
        """What names of files of this cell are made of; those from before there were `_LATER` fields stay."""
        return {name: value for name, value in asdict(self).items() if value != _LATER.get(name, ...)}

    @property
    def based(self) -> str:
        """What is special about the original network, in words, as in the rows' column `base`; empty if nothing is."""
        said = self.base_mitigation, self.base_rule, "group norm" * (self.norm == "group")
        return ", ".join(filter(None, (*said, "standardised weights" * self.standardised)))

    def data_words(self, sets: Sequence[GroupedData] = ()) -> str:
        """The data set in words, as in the rows' column `data`; the sets tell whether it is a part: `svhn subset`."""
        chosen = pairs((*self.data_options, *((f"base {name}", value) for name, value in self.base_data_options)))
        subset = any(one.provenance.get("subset") for one in sets)
        return f"{self.data}{' subset' * subset}" + (f" ({chosen})" if chosen else "")


_LATER = {one.name: one.default for one in fields(Cell)[-4:]}


def asked_for(text: str) -> str:
    """The data set that is asked for, from the words for the part that was found."""
    return text.replace(" subset", "", 1)


def grid(
    data: str,
    network: str,
    *,
    method: str = "snl",
    budgets: Sequence[float] | None = None,
    seeds: Sequence[int],
    options: Mapping[str, object] | None = None,
    data_options: Mapping[str, object] | None = None,
    base_data_options: Mapping[str, object] | None = None,
    **how: object,
) -> list[Cell]:
    """The cells of one panel: the seeds of an MLP in one ensemble, larger networks one seed a cell.

    Everything is as in `Cell`, options as dictionaries: `{"exact": True}` for SNL, `{"label": "age"}` of a data set. No
    budgets are the shares that the option `configurations` keeps. What cannot be raises a ValueError.
    """
    sets = {"data_options": data_options or {}, "base_data_options": base_data_options or {}}
    if data in DATASETS:
        sets = {name: set_options(data, one) for name, one in sets.items()}
    named = {"options": method_options(method, options or {})} | sets
    check_device(how.get("device", "cpu"))
    for name, known in (("init", INITS), ("curvature", CURVATURE), ("norm", NORMS)):
        if (value := how.get(name)) not in (None, *known):
            raise ValueError(f"no {name}={value!r}; there are {', '.join(known)}")
    named = {name: tuple(sorted(one.items())) for name, one in named.items()}
    fair, rule = base_of(how.pop("base_mitigation", "")), rule_of(how.pop("base_rule", ""))
    given = {name: one for name, one in (("base_mitigation", fair), ("base_rule", rule)) if one}
    if given and (how.get("teacher") or len(given) > 1):
        asked = " and ".join(f"{name}={one!r}" for name, one in given.items())
        if how.get("teacher"):
            raise ValueError(f"the network of {how['teacher']} is trained already: {asked} cannot train it")
        raise ValueError(f"{asked} cannot train one network: leave one of them out")
    named |= {"base_mitigation": fair, "base_rule": rule}
    cell = Cell(data, network, find(method).name, (), (), **named, **how)
    if budgets is None:
        if not (kept := kept_by_list(cell, width_of(cell) or None)):
            raise ValueError(f"budgets are missing: {method} has a fixed list only with the option configurations")
        budgets = [count / total for _, count, total in kept]
    cell = replace(cell, budgets=check_budgets(budgets))
    return [replace(cell, seeds=one) for one in seed_lists(network, seeds)]


def set_options(data: str, given: Mapping[str, object]) -> dict[str, object]:
    """Options of a data set, frozen and checked; `scale` is one of every data set's, see `load_data`."""
    if (scale := given.get("scale", "own")) not in ("own", "fixed"):
        raise ValueError(f"{data}: scale = {scale!r} is not allowed; it is own or fixed")
    return checked(given, DATASETS[data], data, scale=str)


def rule_of(rule: str) -> str:
    """A rule as rows write it, with the options that differ from its own; empty where there is none."""
    return canonical(rule) if rule else ""


def seed_lists(network: str, seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """The seeds of each cell: those of an MLP are trained together."""
    return [tuple(seeds)] if network == "mlp" else [(seed,) for seed in seeds]


def method_options(method: str, given: Mapping[str, object]) -> dict[str, object]:
    """Options of a method, frozen and checked: names, types, and what the method itself asks of values."""
    kind = find(method).options
    found = checked(given, kind, method)
    replace(kind(), **found)  # the method's own checks
    return found


def kept_by_list(cell: Cell, width: int | None = None) -> tuple[tuple[str, int, int], ...]:
    """What a fixed list keeps of a network of that width: (configuration, kept units, all units); empty without one."""
    if not (configurations := dict(cell.options).get("configurations")):
        return ()
    return fixed_list(cell.network, input_shape(cell.data, **dict(cell.data_options)), width, configurations)


def listed(cell: Cell) -> list[tuple[str, int, int]]:
    """Of a cell with a fixed list what its budgets keep; else nothing."""
    kept, budgets = kept_by_list(cell, width_of(cell) or None), cell.budgets
    return [min(kept, key=lambda one: (abs(one[1] - round(b * one[2])), one[1])) for b in budgets] if kept else []


def width_of(cell: Cell) -> int:
    """The width that the rows of a cell name, 0 for the full one."""
    return cell.width or recipe(cell.network, cell.profile).width or 0


def built_as(cell: Cell, plan: Recipe) -> Recipe:
    """A recipe in a cell's precision, with the width and the start of its network or of its teacher's file."""
    plan = in_every_stage(plan, precision=cell.precision) if cell.precision else plan
    if not cell.teacher:
        return replace(plan, width=cell.width or plan.width, init=cell.init or plan.init)
    header = load_network(cell.teacher)[1]
    if header.reduced:
        text = f"{cell.teacher} holds a {header.reduced} network; a teacher has all its ReLUs and weights"
        raise CheckpointError(text)
    asked = vars(replace(cell, width=cell.width or header.width, init=cell.init or header.init))
    same = ("network", "data", "width", "data_options", "init", "norm", "standardised")
    found = {name: getattr(header, name) for name in same} | {"seeds": (header.seed,)}
    if other := [f"{name} {one}, not {asked[name]}" for name, one in found.items() if one != asked[name]]:
        raise CheckpointError(f"{cell.teacher} is the teacher of another cell: it has {'; '.join(other)}")
    return replace(plan, width=header.width or None, init=header.init)


def about(cell: Cell) -> dict[str, object]:
    """What the rows of a cell say of it, but for its arms; so does the file of a failure."""
    found = {name: getattr(cell, name) for name in ("network", "method", "profile", "seeds", "device")}
    more = {"data": cell.data_words(), "options": pairs(cell.options), "width": width_of(cell), "base": cell.based}
    return found | more


def pairs(options: tuple[tuple[str, object], ...]) -> str:
    """Options in words: `label=age, group=race`, lists as `configurations=1,4 / 1,2`."""
    each = ((name, " / ".join(map(str, value)) if isinstance(value, tuple) else value) for name, value in options)
    return ", ".join(f"{name}={value}" for name, value in each)


def load_sets(cell: Cell) -> tuple[list[GroupedData], list[GroupedData]]:
    """A cell's data on its device, one split for each seed: the students', and what the original is trained on.

    The code released with the paper trains SVHN's original network on all of its images and linearizes it on 90 % of
    the digits 0-4 and 30 % of 5-9. Both are splits of one seed: what validates or tests the students must train nobody.
    """

    def load(*options: tuple[str, object]) -> list[GroupedData]:
        return [load_data(cell.data, seed=seed, **dict(options)).to(cell.device) for seed in cell.seeds]

    sets = load(*cell.data_options)
    base = load(*cell.data_options, *cell.base_data_options) if cell.base_data_options else sets
    return [beside(one, other) for one, other in zip(sets, base, strict=True)] if base is not sets else sets, base


def beside(data: GroupedData, base: GroupedData) -> GroupedData:
    """The students' data set with the normalisation of the original network's, which no image may test or validate."""
    if (data.label_names, data.input_shape) != (base.label_names, base.input_shape):
        raise DataError(f"{data.name}: the original network's data have other labels, or another size of images")
    trained = {image.numpy().tobytes() for image in base.splits["train"].x.cpu()}
    for name, split in data.splits.items():
        if name != "train" and (leaked := sum(image.numpy().tobytes() in trained for image in split.x.cpu())):
            allowed = "base_data_options may change which training images are kept (svhn: fractions), not the split"
            text = f"trained on {leaked} of {len(split)} images of the students' {name} split; {allowed}"
            raise DataError(f"{data.name}: the original network would be {text}")
    return replace(data, mean=base.mean, std=base.std)
