"""Which cells a figure needs: one TOML file a figure of the paper that is a grid, in `linfair/study/figures`.

`plan` turns figures and a profile into jobs, cells with the arms they need, in the order of `queue.toml`; cells that
figures share appear once.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import get_args, get_origin

from linfair.data import DATASETS, EMBEDDED, input_shape
from linfair.linearizers.configurations import stand_in_list
from linfair.linearizers.record import check_budgets
from linfair.linearizers.registry import ALIASES, methods
from linfair.models import NETWORKS, NORMS
from linfair.names import closest, unknown
from linfair.paths import unfit
from linfair.study.arms import base_of, canonical
from linfair.study.grids import Cell, kept_by_list, method_options, rule_of, seed_lists, set_options, width_of
from linfair.study.recipes import CURVATURE, PROFILES

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


class DefinitionError(ValueError):
    """A definition that does not hold together; the message names file, line and what is allowed."""


class Source:
    """One TOML file of definitions and the lines its keys stand on, for errors."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        if problem := unfit(path, 10**6):
            raise DefinitionError(f"{path} {problem}")
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            self.content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"{path}: no valid TOML: {error}") from None
        self.lines: dict[tuple[str, int, str], int] = {}
        table, counts = "", Counter()
        for number, line in enumerate(text.splitlines(), start=1):
            found = re.match(r"\s*(?:\[\[?\s*([\w.-]+)\s*\]|([\w-]+)\s*=)", line)
            if found and found[1]:
                table, counts[found[1]] = found[1], counts[found[1]] + 1
            if found:
                self.lines.setdefault((table, max(counts[table] - 1, 0), found[2] or ""), number)

    def error(self, problem: str, table: str, index: int, key: str = "") -> DefinitionError:
        """The error that names the line of a key, or of its table if the key is missing."""
        line = self.lines.get((table, index, key)) or self.lines.get((table, index, ""), 1)
        return DefinitionError(f"{self.path}, line {line}: {_brief(problem, 1000)}")

    def check(self, values: Mapping[str, object], kinds: Mapping[str, object], *at: str | int, needed: Collection[str]):
        """Refuse unknown keys, missing ones, and values that are not of the key's type, or not among its names."""
        if not isinstance(values, dict):
            text = f"{at[0]} must be a table, with {', '.join(kinds)}; got {_brief(repr(values))}"
            raise self.error(text, "", 0, at[0])
        for key, value in values.items():
            if key not in kinds:
                raise self.error(unknown("unknown key", _brief(key), kinds), *at, key)
            kind, got = kinds[key], _brief(repr(value))
            if isinstance(kind, Collection) and not isinstance(kind, type) and get_origin(kind) is None:
                if not isinstance(value, str) or value not in kind:
                    near = closest(got.strip("'"), kind)
                    hint = f"did you mean {near!r}? " if near else ""
                    raise self.error(f"{key} = {got} is not known; {hint}allowed are {', '.join(kind)}", *at, key)
                continue
            outer, inner = get_origin(kind) or kind, (*get_args(kind), object)[0]
            if not isinstance(value, outer) or isinstance(value, bool) > (outer is bool):
                raise self.error(f"{key} must be a {outer.__name__}, got {got}", *at, key)
            if outer is list and not all(isinstance(one, inner) and not isinstance(one, bool) for one in value):
                words = {str: "text", dict: "tables"}.get(inner, "numbers")
                raise self.error(f"{key} must hold {words}, got {got}", *at, key)
            if outer is list and not (inner is dict) <= len(value) <= 1000:
                raise self.error(f"{key} must hold 1 to 1,000 entries, got {len(value):,}", *at, key)
            if outer is int and not 1 <= value <= 10_000:
                raise self.error(f"{key} must be at {'least 1' if value < 1 else 'most 10,000'}, got {got}", *at, key)
        if missing := [key for key in needed if key not in values]:
            raise self.error(f"{missing[0]} is missing", *at)

    def called(self, function: Callable, value: object, table: str, index: int, key: str, prefix: str = "") -> object:
        """What a function makes of a value, its ValueError with file and line."""
        try:
            return function(value)
        except (ValueError, TypeError) as error:
            raise self.error(f"{prefix}{error}", table, index, key) from None
        except OverflowError:
            raise self.error(f"{prefix}{key} holds a number that is too large", table, index, key) from None


def _brief(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]} ... ({len(text):,} characters)"


@dataclass(frozen=True)
class Panel(Cell):
    """One panel of a figure: a cell whose seeds are open, and the budgets of a fixed list of configurations, too."""

    arms: tuple[str, ...] = ()
    most: int = 0  #: The most seeds that are computed; 0 is the profile's
    stands_for: str = ""  #: What the paper has here, where something stands in for it

    @property
    def title(self) -> str:
        """The panel in words."""
        words = [f"{name} {value}" for name, value in self.data_options]
        words += [f"base {name} {value}" for name, value in self.base_data_options]
        words += [f"base {self.based}"] if self.based else []
        words += [self.network + f" of width {self.width}" * bool(self.width), self.method]
        words += [f"{len(one)} {name}" if isinstance(one, tuple) else f"{name} {one}" for name, one in self.options]
        text = ", ".join([self.data, *words])
        return f"{text} (stand-in for {self.stands_for})" if self.stands_for else text

    @property
    def of_subset(self) -> "Panel":
        """The same panel of a part of the data set, which says so; for reading rows, not for computing them."""
        return replace(self, data=f"{self.data} subset")


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
        panel = replace(panel, profile=self.name)
        if stands_in := bool(self.data and panel.data not in EMBEDDED):  # bundled data are everywhere
            network = self.networks.get(panel.network, panel.network)
            kept = tuple(one for one in panel.data_options if one[0] == "scale")  # which every data set has
            changed = {"data": self.data, "network": network, "data_options": kept, "base_data_options": ()}
            changed |= {"width": None, "curvature": None, "budgets": panel.budgets and (self.budgets or panel.budgets)}
            if configurations := dict(panel.options).get("configurations"):
                listed = stand_in_list(network, input_shape(self.data), configurations)
                changed["options"] = tuple(sorted((dict(panel.options) | {"configurations": listed}).items()))
            panel = replace(panel, stands_for=f"{panel.data}, {panel.network}", **changed)
        if not panel.budgets:
            panel = replace(panel, budgets=tuple(count / total for _, count, total in kept_by_list(panel)))
        if stands_in or panel.data in EMBEDDED:
            return panel
        thin = width_of(panel) not in (0, NETWORKS[panel.network][2])
        kept = () if panel.most else tuple(budget for budget in panel.budgets if budget in self.budgets)
        return replace(panel, stands_for=f"{panel.network} of full width" * thin, budgets=kept or panel.budgets)


def panels_of(figure: Figure, profile: Profile) -> list[Panel]:
    """The panels of a figure under a profile; those that one stand-in stands for are one panel."""
    found: dict[Panel, list[str]] = {}
    for panel in figure.panels:
        used = profile.panel(panel)
        found.setdefault(replace(used, stands_for=""), []).append(used.stands_for)
    return [replace(panel, stands_for="; ".join(dict.fromkeys(filter(None, names)))) for panel, names in found.items()]


@dataclass(frozen=True)
class Job:
    """A cell with the arms that are wanted of it, and the figures that want them."""

    cell: Cell
    arms: tuple[str, ...]
    figures: tuple[str, ...] = ()
    known: tuple[tuple[str, str], ...] = ()  #: Arms whose rows are elsewhere, each with their original network's digest


_FIGURE = {"figure": str, "title": str, "shows": str, "split": SPLITS, "quantity": QUANTITIES}
_FIGURE |= {"claims": list[str], "panel": list[dict]}
_OPTIONAL = {"budgets": list[int | float], "options": dict, "data_options": dict, "base_data_options": dict}
_OPTIONAL |= {"seeds": int, "width": int, "curvature": CURVATURE, "base_mitigation": str}
_OPTIONAL |= {"base_rule": str, "norm": NORMS, "standardised": bool}
_PROFILE = {"about": str, "seeds": int, "data": DATASETS, "networks": dict, "budgets": list[int | float]}
_QUEUE = {"first_seeds": int, "profiles": list[str], "entry": list[dict]}


def read_figure(path: str | Path) -> Figure:
    """Read one figure's file; a `DefinitionError` names file and line of a key or value that is not allowed."""
    source = Source(path)
    source.check(source.content, _FIGURE, "", 0, needed=_FIGURE)
    panels = tuple(_panel(source, index, values) for index, values in enumerate(source.content["panel"]))
    found = {name: source.content[name] for name in _FIGURE if name not in ("claims", "panel")}
    return Figure(Path(path).stem, **found, claims=tuple(source.content["claims"]), panels=panels)


def _panel(source: Source, index: int, values: Mapping[str, object]) -> Panel:
    at, names = ("panel", index), {"data": [name for name in DATASETS if name != "folder"], "network": NETWORKS}
    names |= {"method": [*methods(), *ALIASES], "arms": list[str]}
    source.check(values, names | _OPTIONAL, *at, needed=names)
    arms = tuple(source.called(canonical, arm, *at, "arms") for arm in values["arms"])
    if "original" not in arms or len(set(arms)) < len(arms):
        raise source.error(f"arms must name `original`, and each arm once; got {list(arms)}", *at, "arms")
    data, network, method = (values[name] for name in ("data", "network", "method"))
    name = f"panel {index + 1} ({data}, {network}, {method}): "
    checks = {"options": lambda given: method_options(method, given)}
    checks |= dict.fromkeys(("data_options", "base_data_options"), lambda given: set_options(data, given))
    chosen = {
        key: tuple(sorted(source.called(check, values.get(key, {}), *at, key, f"{name}{key}: ").items()))
        for key, check in checks.items()
    }
    chosen |= {key: values[key] for key in ("width", "curvature", "norm", "standardised") if key in values}
    for key, check in (("base_mitigation", base_of), ("base_rule", rule_of)):
        chosen[key] = source.called(check, values.get(key, ""), *at, key, f"{name}{key}: ")
    panel = Panel(data, network, method, (), (), arms=arms, most=values.get("seeds", 0), **chosen)
    fixed = source.called(kept_by_list, panel, *at, "options", f"{name}options: configurations: ")
    if "budgets" in values:
        return replace(panel, budgets=source.called(check_budgets, values["budgets"], *at, "budgets"))
    if not fixed:
        text = "budgets is missing; only a fixed list, options = { configurations = [...] }, has budgets of its own"
        raise source.error(text, *at)
    return panel


def read_queue(path: str | Path, figures: Collection[str]) -> Mapping[str, object]:
    """In which order cells are computed: `first_seeds` of every `entry` first. Entries may name these figures."""
    source = Source(path)
    source.check(source.content, _QUEUE, "", 0, needed=_QUEUE)
    known = {"data": DATASETS, "network": NETWORKS, "method": methods(), "figure": figures}
    for index, values in enumerate(source.content["entry"]):
        source.check(values, known, "entry", index, needed=())
    return source.content


def _place(entries: Sequence[Mapping[str, str]], figure: str, panel: Panel) -> int:
    """Number of the entry that names a panel: one that names its figure, else the first that matches it."""
    about = {name: getattr(panel, name) for name in ("data", "network", "method")}
    named = [number for number, entry in enumerate(entries) if entry.get("figure") == figure]
    matching = (number for number, entry in enumerate(entries) if entry.items() <= about.items())
    return named[0] if named else next(matching, len(entries))


@cache
def figures() -> dict[str, Figure]:
    """All figures by name, in the paper's order, then what goes beyond it."""
    names = {path.stem for path in FIGURES.glob("*.toml")} - {"profiles", "queue"}
    names = sorted(names, key=lambda name: (not name.startswith("fig"), name))
    return {name: read_figure(FIGURES / f"{name}.toml") for name in names}


def read_profiles(path: str | Path = FIGURES / "profiles.toml") -> dict[str, Profile]:
    """The profiles by name; errors as in `read_figure`."""
    source, found = Source(path), {}
    for name, values in source.content.items():
        if name not in PROFILES:
            raise source.error(f"no profile {name!r}; allowed are {', '.join(PROFILES)}", name, 0)
        source.check(values, _PROFILE, name, 0, needed=("about", "seeds"))
        for key, network in values.get("networks", {}).items():
            if key not in NETWORKS or network not in list(NETWORKS):
                text = f"networks has {_brief(f'{key} = {network!r}')}; allowed are {', '.join(NETWORKS)}"
                raise source.error(text, name, 0, "networks")
        budgets = source.called(check_budgets, values["budgets"], name, 0, "budgets") if "budgets" in values else ()
        found[name] = Profile(name, **(values | {"budgets": budgets}))
    return found


PROFILE_NAMES = tuple(read_profiles())  #: Profiles of studies, of `linfair.study.recipes.PROFILES`


def find(name: str) -> list[Figure]:
    """The figure of that name; `all` is every figure that serves a claim, a queue is not."""
    if name == "all":
        return [figure for figure in figures().values() if figure.claims]
    if name not in figures():
        raise DefinitionError(unknown("no figure", name, [*figures(), "all"]))
    return [figures()[name]]


def find_profile(name: str) -> Profile:
    """The profile of that name."""
    if name not in (known := read_profiles()):
        raise DefinitionError(unknown("no profile", name, known))
    return known[name]


def plan(
    which: Sequence[Figure],
    profile: str,
    *,
    seeds: int | None = None,
    device: str = "cpu",
    precision: str | None = None,
    only: Mapping[str, str] | None = None,
) -> list[Job]:
    """The jobs of figures under a profile for so many seeds, in the queue's order; an arm is in the first job only."""
    chosen, queue, only = find_profile(profile), read_queue(FIGURES / "queue.toml", figures()), dict(only or {})
    for name, value in only.items():
        known = sorted({getattr(panel, name) for figure in which for panel in figure.panels})
        if value not in known:
            raise DefinitionError(f"no panel has {name} {value!r}; there are {', '.join(known)}")
    count = chosen.seeds if seeds is None else seeds
    if not 1 <= count <= 10_000:
        raise DefinitionError(f"a study needs at {'least one seed' if count < 1 else 'most 10,000 seeds'}, got {count}")
    wanted: dict[tuple[tuple[bool, int, int], Cell], list[tuple[str, tuple[str, ...]]]] = {}
    for figure, (number, panel) in [(one, place) for one in which for place in enumerate(one.panels)]:
        if any(getattr(panel, name) != value for name, value in only.items()):
            continue
        used = chosen.panel(panel)
        entry = number if used.most else _place(queue["entry"], figure.name, panel)
        template = {one.name: getattr(used, one.name) for one in fields(Cell)}
        template |= {"device": device, "precision": precision}
        for some in seed_lists(used.network, range(min(count, used.most or count))):
            order = (not used.most and some[0] >= queue["first_seeds"]), entry, some[0]
            wanted.setdefault((order, Cell(**template | {"seeds": some})), []).append((figure.name, used.arms))
    if not wanted:
        text = ", ".join(f"{name} {value}" for name, value in only.items())
        raise DefinitionError(f"no panel has {text} together; `linfair study list` shows them")
    jobs, seen = [], {}
    for (_, cell), asked in sorted(wanted.items(), key=lambda item: item[0][0]):
        done = seen.setdefault(cell, set())
        new = tuple(dict.fromkeys(arm for _, arms in asked for arm in arms if arm not in done))
        done.update(new)
        if new:
            jobs.append(Job(cell, new, tuple(dict.fromkeys(name for name, _ in asked))))
    return jobs
