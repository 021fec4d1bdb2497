"""Which cells a figure needs: one TOML file a figure of the paper that is a grid, in `linfair/study/figures`.

A figure has panels (data, network, method, budgets, arms); a profile says how many seeds, how they are trained and what
stands in for the paper's data where those are not used. `plan` turns figures and a profile into jobs, cells with the
arms they need, in the order of `queue.toml`; cells that figures share appear once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from linfair.data import DATASETS, EMBEDDED, input_shape
from linfair.linearizers import LINEARIZERS
from linfair.linearizers.configurations import fixed_list, stand_in_list
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import ALIASES
from linfair.models import NETWORKS
from linfair.names import unknown
from linfair.options import checked
from linfair.study.arms import canonical
from linfair.study.grids import Cell, data_words, method_options
from linfair.study.recipes import CURVATURE, PROFILES, recipe
from linfair.study.sourcefile import DefinitionError, Source

FIGURES = Path(__file__).parent / "figures"

QUANTITIES = {
    "accuracy": "accuracy (%)",
    "drop": "accuracy drop against the original network (points)",
    "relative_drop": "relative accuracy drop against the original network (%)",
    "relative_change": "accuracy lost relative to plain fine-tuning at the same budget (%; negative is a gain)",
    "gradient_norm": "gradient norm of the group's risk",
    "top_eigenvalue": "top Hessian eigenvalue of the group's risk",
    "margin": "margin",
    "distance": "distance of the parameters to the original's",
}
SPLITS = ("train", "val", "test", "test_balanced")


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: a grid over budgets, arms and seeds. What is not said is as in `linfair.study.grids.Cell`.

    Attributes:
        budgets: Empty for a fixed list among the options (`configurations`), whose budgets are the shares that it keeps
            of the network.
        seeds: The most seeds that are computed; 0 is the profile's.
        stands_for: What the paper has here, where something stands in for it; empty otherwise.
    """

    data: str
    network: str
    method: str
    budgets: tuple[float, ...]
    arms: tuple[str, ...]
    options: tuple[tuple[str, object], ...] = ()
    data_options: tuple[tuple[str, object], ...] = ()
    base_data_options: tuple[tuple[str, object], ...] = ()
    seeds: int = 0
    width: int | None = None
    curvature: str | None = None
    stands_for: str = ""

    @property
    def title(self) -> str:
        """The panel in words."""
        base = ((f"base {name}", value) for name, value in self.base_data_options)
        options = "".join(f", {name} {value}" for name, value in (*self.data_options, *base))
        chosen = "".join(
            f", {len(value)} {name}" if isinstance(value, tuple) else f", {name} {value}"
            for name, value in self.options
        )
        size = f" of width {self.width}" if self.width else ""
        text = f"{self.data}{options}, {self.network}{size}, {self.method}{chosen}"
        return f"{text} (stand-in for {self.stands_for})" if self.stands_for else text

    @property
    def data_text(self) -> str:
        """The data set in words, as in the rows' column `data`."""
        return data_words(self.data, self.data_options, self.base_data_options)

    @property
    def of_subset(self) -> "Panel":
        """The same panel of a part of the data set, which says so; for reading rows, not for computing them."""
        return replace(self, data=f"{self.data} subset")

    @property
    def fixed(self) -> tuple[tuple[str, int, int], ...]:
        """What its fixed list keeps of the full network: (configuration, kept units, all units); empty without one."""
        configurations = dict(self.options).get("configurations")
        shape = input_shape(self.data, **dict(self.data_options))
        return fixed_list(self.network, shape, None, configurations) if configurations else ()


@dataclass(frozen=True)
class Figure:
    """A grid figure: its `name` on the command line (`fig06`), the paper's, and the claims that it serves."""

    name: str
    figure: str
    title: str
    shows: str
    split: str
    quantity: str
    claims: tuple[str, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Profile:
    """How large a study is: see `profiles.toml`."""

    name: str
    about: str
    seeds: int
    data: str = ""
    networks: Mapping[str, str] = field(default_factory=dict)
    budgets: tuple[float, ...] = ()

    def panel(self, panel: Panel) -> Panel:
        """A panel under this profile: what stands in for it, if something does, and the budgets of a fixed list."""
        if panel.data in EMBEDDED:  # bundled data are everywhere: nothing stands in for them
            return _with_budgets(panel)
        if not self.data:
            thin = (panel.width or recipe(panel.network, self.name).width) not in (None, NETWORKS[panel.network][2])
            used = _with_budgets(replace(panel, stands_for=f"{panel.network} of full width" if thin else ""))
            kept = tuple(budget for budget in used.budgets if budget in self.budgets)
            return used if panel.seeds else replace(used, budgets=kept or used.budgets)
        network = self.networks.get(panel.network, panel.network)
        changed = {"data": self.data, "network": network, "data_options": (), "base_data_options": ()}
        changed |= {"width": None, "curvature": None}
        used = replace(panel, stands_for=f"{panel.data}, {panel.network}", **changed)
        if configurations := dict(panel.options).get("configurations"):
            listed = stand_in_list(network, input_shape(self.data), configurations)
            used = replace(used, options=tuple(sorted((dict(panel.options) | {"configurations": listed}).items())))
        return replace(used, budgets=self.budgets or panel.budgets) if panel.budgets else _with_budgets(used)


def _with_budgets(panel: Panel) -> Panel:
    """A panel with the budgets of its fixed list, where it has no budgets of its own."""
    if panel.budgets:
        return panel
    return replace(panel, budgets=tuple(count / total for _, count, total in panel.fixed))


def panels_of(figure: Figure, profile: Profile) -> list[Panel]:
    """The panels of a figure under a profile; those that one stand-in stands for are one panel."""
    found: dict[Panel, list[str]] = {}
    for panel in figure.panels:
        used = profile.panel(panel)
        found.setdefault(replace(used, stands_for=""), []).append(used.stands_for)
    return [replace(panel, stands_for="; ".join(dict.fromkeys(filter(None, names)))) for panel, names in found.items()]


@dataclass(frozen=True)
class Job:
    """A cell with the arms that are wanted of it, and its place: (seeds after the first ones, entry, first seed)."""

    cell: Cell
    arms: tuple[str, ...]
    figures: tuple[str, ...]
    order: tuple[bool, int, int]


_FIGURE = {"figure": str, "title": str, "shows": str, "split": SPLITS, "quantity": QUANTITIES}
_FIGURE |= {"claims": list[str], "panel": list[dict]}
_OPTIONAL = {"budgets": list[int | float], "options": dict, "data_options": dict, "base_data_options": dict}
_OPTIONAL |= {"seeds": int, "width": int, "curvature": CURVATURE}
_PROFILE = {"about": str, "seeds": int, "data": DATASETS, "networks": dict, "budgets": list[int | float]}


def read_figure(path: str | Path) -> Figure:
    """Read one figure's file.

    Raises:
        DefinitionError: With file and line, for a key or value that is not allowed.
    """
    source = Source(path)
    content = source.content
    source.check(content, _FIGURE, "", 0, needed=_FIGURE)
    names = {
        "data": [name for name in DATASETS if name != "folder"],
        "network": NETWORKS,
        "method": [*LINEARIZERS, *ALIASES],
    }
    needed = names | {"arms": list[str]}
    panels = []
    for index, values in enumerate(content["panel"]):
        at = "panel", index
        source.check(values, needed | _OPTIONAL, *at, needed=needed)
        arms = tuple(source.called(canonical, arm, *at, "arms") for arm in values["arms"])
        if "original" not in arms or len(set(arms)) < len(arms):
            raise source.error(f"arms must name `original`, and each arm once; got {list(arms)}", *at, "arms")
        panels.append(_panel(source, index, values, arms))
    plain = {name: content[name] for name in ("figure", "title", "shows", "split", "quantity")}
    return Figure(Path(path).stem, **plain, claims=tuple(content["claims"]), panels=tuple(panels))


def _panel(source: Source, index: int, values: Mapping[str, object], arms: tuple[str, ...]) -> Panel:
    """One panel whose names are known: its options frozen and checked, its budgets or those of its fixed list."""
    at, data, method = ("panel", index), values["data"], values["method"]
    name = f"panel {index + 1} ({data}, {values['network']}, {method}): "
    checks = {"options": lambda given: method_options(method, given)}
    checks |= dict.fromkeys(("data_options", "base_data_options"), lambda given: checked(given, DATASETS[data], data))
    chosen = {
        key: tuple(sorted(source.called(check, values.get(key, {}), *at, key, f"{name}{key}: ").items()))
        for key, check in checks.items()
    }
    sizes = {key: values[key] for key in ("seeds", "width", "curvature") if key in values}
    panel = Panel(data, values["network"], method, (), arms, **chosen, **sizes)
    fixed = source.called(lambda one: one.fixed, panel, *at, "options", f"{name}options: configurations: ")
    if "budgets" in values:
        return replace(panel, budgets=source.called(check_budgets, values["budgets"], *at, "budgets"))
    if not fixed:
        problem = "budgets is missing; only a fixed list, options = { configurations = [...] }, has budgets of its own"
        raise source.error(problem, *at)
    return panel


@dataclass(frozen=True)
class Queue:
    """In which order cells are computed: `first_seeds` of every entry first; what an entry leaves out matches all."""

    first_seeds: int
    profiles: tuple[str, ...]
    entries: tuple[Mapping[str, str], ...]

    def entry(self, figure: str, panel: Panel) -> int:
        """Number of the entry that names a panel: one that names its figure, else the first that matches it."""
        named = [number for number, entry in enumerate(self.entries) if entry.get("figure") == figure]
        matching = [
            number
            for number, entry in enumerate(self.entries)
            if "figure" not in entry and all(getattr(panel, name) == value for name, value in entry.items())
        ]
        return min(named or matching, default=len(self.entries))


def read_queue(path: str | Path, figures: Collection[str]) -> Queue:
    """The queue, whose entries may name these figures.

    Raises:
        DefinitionError: With file and line, for a key or value that is not allowed.
    """
    source = Source(path)
    content, kinds = source.content, {"first_seeds": int, "profiles": list[str], "entry": list[dict]}
    source.check(content, kinds, "", 0, needed=kinds)
    known = {"data": DATASETS, "network": NETWORKS, "method": LINEARIZERS, "figure": figures}
    for index, values in enumerate(content["entry"]):
        source.check(values, known, "entry", index, needed=())
    return Queue(content["first_seeds"], tuple(content["profiles"]), tuple(content["entry"]))


@cache
def figures() -> dict[str, Figure]:
    """All figures by name, in the paper's order, then what goes beyond it."""
    names = sorted(path for path in FIGURES.glob("*.toml") if path.stem not in ("profiles", "queue"))
    found = {path.stem: read_figure(path) for path in names}
    return dict(sorted(found.items(), key=lambda item: (not item[0].startswith("fig"), item[0])))


def read_profiles(path: str | Path = FIGURES / "profiles.toml") -> dict[str, Profile]:
    """The profiles by name.

    Raises:
        DefinitionError: With file and line, for a key or value that is not allowed.
    """
    source, found = Source(path), {}
    for name, values in source.content.items():
        if name not in PROFILES:
            raise source.error(f"no profile {name!r}; allowed are {', '.join(PROFILES)}", name, 0)
        source.check(values, _PROFILE, name, 0, needed=("about", "seeds"))
        for key, network in values.get("networks", {}).items():
            if not {key, network} <= set(NETWORKS):
                problem = f"networks has {key} = {network!r}; allowed are {', '.join(NETWORKS)}"
                raise source.error(problem, name, 0, "networks")
        budgets = source.called(check_budgets, values["budgets"], name, 0, "budgets") if "budgets" in values else ()
        found[name] = Profile(name, **(values | {"budgets": budgets}))
    return found


PROFILE_NAMES = tuple(read_profiles())
"""Profiles of studies, of `linfair.study.recipes.PROFILES`."""


def find(name: str) -> list[Figure]:
    """The figure of that name; `all` is every figure that serves a claim, a queue is not.

    Raises:
        DefinitionError: With the closest name.
    """
    known = figures()
    if name == "all":
        return [figure for figure in known.values() if figure.claims]
    if name not in known:
        raise DefinitionError(unknown("no figure", name, [*known, "all"]))
    return [known[name]]


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        DefinitionError: If there is none.
    """
    known = read_profiles()
    if name not in known:
        raise DefinitionError(unknown("no profile", name, known))
    return known[name]


def plan(
    which: Sequence[Figure],
    profile: str,
    *,
    seeds: int | None = None,
    device: str = "cpu",
    width: int | None = None,
    precision: str | None = None,
    only: Mapping[str, str] | None = None,
) -> list[Job]:
    """The jobs of figures under a profile, in the queue's order; an arm that several want is in the first job only.

    Args:
        which: Figures.
        profile: `smoke`, `small`, `fast` or `paper`.
        seeds: How many seeds, from 0; None is the profile's.
        device: `cpu` or `cuda`.
        width: Width of the networks; None is the panel's, or the recipe's.
        precision: Of every training, `float32` or `bf16`; None is the recipe's.
        only: Panels to take, by their `data`, `network` or `method`; None is all.

    Raises:
        DefinitionError: For a profile that is not there, no seed, or no panel that is left.
    """
    chosen, queue, only = find_profile(profile), read_queue(FIGURES / "queue.toml", figures()), dict(only or {})
    panels = {panel for figure in which for panel in figure.panels}
    for name, value in only.items():
        known = sorted({getattr(panel, name) for panel in panels})
        if value not in known:
            raise DefinitionError(f"no panel has {name} {value!r}; there are {', '.join(known)}")
    count = chosen.seeds if seeds is None else seeds
    if count < 1:
        raise DefinitionError(f"a study needs at least one seed, got {count}")
    wanted: dict[tuple[tuple[bool, int, int], Cell], dict[str, list[str]]] = {}
    for figure in which:
        for number, panel in enumerate(figure.panels):
            if any(getattr(panel, name) != value for name, value in only.items()):
                continue
            used = chosen.panel(panel)
            recipe(used.network, profile)  # refuses a profile without one
            entry = number if used.seeds else queue.entry(figure.name, panel)
            each = range(min(count, used.seeds or count))
            for some in [tuple(each)] if used.network == "mlp" else [(seed,) for seed in each]:
                how = {"profile": profile, "device": device, "width": width or used.width, "precision": precision}
                how |= {name: getattr(used, name) for name in ("options", "data_options", "base_data_options")}
                cell = Cell(used.data, used.network, used.method, used.budgets, some, curvature=used.curvature, **how)
                order = (not used.seeds and some[0] >= queue.first_seeds), entry, some[0]
                names = wanted.setdefault((order, cell), {"arms": [], "figures": []})
                names["arms"] += [arm for arm in used.arms if arm not in names["arms"]]
                names["figures"] += [figure.name] * (figure.name not in names["figures"])
    if not wanted:
        text = ", ".join(f"{name} {value}" for name, value in only.items())
        raise DefinitionError(f"no panel has {text} together; `linfair study list` shows them")
    jobs, seen = [], {}
    for order, cell in sorted(wanted, key=lambda item: item[0]):
        names = wanted[order, cell]
        new = tuple(arm for arm in names["arms"] if arm not in seen.setdefault(cell, set()))
        seen[cell].update(new)
        if new:
            jobs.append(Job(cell, new, tuple(names["figures"]), order))
    return jobs
