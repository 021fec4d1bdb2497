"""`book/rules.toml`: by what each claim is judged; its comments say what the words mean."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args, get_origin

from linfair.study.grids import asked_for

RULES = Path("book/rules.toml")
VIOLATIONS = ("accuracy_violation", "excess_violation")
QUANTITIES = ("accuracy", "gradient_norm", "margin", "top_eigenvalue", "relative_distance", "risk", "excess")
QUANTITIES += ("n_train", "seconds_finetune", *VIOLATIONS)
MEASURED = ("accuracy", "mean_bias", "auc", "tpr_1", "score")
LOW = 0.2  # the largest budget that counts as low


class RulesError(ValueError):
    """A rule that cannot be applied; the message names it, what it has and what is allowed."""


class _Words:
    """Refuses a word that the `Literal` of its field does not list."""

    def __post_init__(self) -> None:
        for one in fields(self):
            given, allowed = getattr(self, one.name), get_args(one.type)
            if get_origin(one.type) is Literal and given not in allowed:
                raise RulesError(f"{one.name} {given!r}; allowed: {', '.join(filter(None, allowed))}")


@dataclass(frozen=True)
class Value(_Words):
    """What is computed for each seed, budget and group."""

    quantity: Literal[QUANTITIES]
    arm: str
    against: str = ""
    other: str = ""
    scale: Literal["", "points", "relative", "ratio", "difference", "spread"] = ""
    beside: Literal["", "majority"] = ""
    rank: Literal["", *QUANTITIES, *(f"own {name}" for name in QUANTITIES)] = ""
    split: Literal["train", "test"] = "test"

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.scale) is bool(self.rank):
            raise RulesError(f"scale {self.scale!r} and rank {self.rank!r}: give exactly one of them")


@dataclass(frozen=True)
class Measure(_Words):
    """What is computed for each seed from tables with a number a line: sides by `measured.KEYS`, `where` for both."""

    tables: list[str]
    quantity: Literal[MEASURED]
    arm: Mapping[str, object]
    against: Mapping[str, object] = field(default_factory=dict)
    where: Mapping[str, object] = field(default_factory=dict)
    scale: Literal["points", "difference", "ratio"] = "difference"
    rank: Literal[""] = ""


@dataclass(frozen=True)
class Check(_Words):
    """A number and where it has to lie: of a value in rows (`value`), or noted by a notebook (`of`)."""

    name: str
    says: str
    value: Value | Measure | None = None
    of: str = ""
    groups: Literal["minorities", "majority", "smallest", "each", "all"] = "all"
    budgets: Literal["each", "low", "lowest", "original", "steps", "trend"] = "each"
    need: Literal["every", "most", "some"] = "every"
    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(side is not None for side in (self.above, self.below, self.within)) != 1:
            raise RulesError(f"check {self.name}: give exactly one of above, below and within")

    @property
    def side(self) -> int:
        """1 if the number has to lie above its threshold, -1 if below."""
        return 1 if self.above is not None else -1

    def threshold(self) -> str:
        """As the claims page writes it: `above 0`, `within 0 ± 1`."""
        if self.within is not None:
            return f"within {self.within[0]:g} ± {self.within[1]:g}" if self.within[1] else f"{self.within[0]:g}"
        return f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"


@dataclass(frozen=True)
class Rule:
    """By what one claim is judged: checks of rows, or of numbers that notebooks noted and that have one setting."""

    claim: str
    checks: tuple[Check, ...]
    rows: tuple[Mapping[str, list[str]], ...] = ()
    settings: tuple[str, ...] = ()
    setting: str = ""
    vital: frozenset[str] = frozenset()
    least: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Rules:
    """The whole file."""

    seen: tuple[str, ...]
    judging: Mapping[str, object]
    settings: tuple[Mapping[str, object], ...]
    full_width: Mapping[str, int]
    claims: Mapping[str, Rule]

    def numbers(self) -> set[str]:
        """Keys of the notebooks' numbers that rules judge."""
        return {check.of for rule in self.claims.values() for check in rule.checks if check.of}

    def tables(self) -> set[str]:
        """Names of the tables that measures take."""
        checks = (check for rule in self.claims.values() for check in rule.checks)
        return {name for check in checks if isinstance(check.value, Measure) for name in check.value.tables}

    def setting_of(self, row: Mapping[str, object]) -> str:
        """The closest setting that a set of rows belongs to by its names, empty if it belongs to none."""
        if row["profile"] not in self.judging["profiles"]:
            return ""
        full = int(row["width"]) in (0, self.full_width.get(str(row["network"])))
        for setting in self.settings:
            stands_in = setting.get("networks")
            data = row["data"] if setting.get("width") == "full" else asked_for(str(row["data"]))  # full: no part of it
            if (
                data in setting["data"]
                and (setting.get("width") != "full" or full)
                and row["profile"] in setting.get("profiles", self.judging["profiles"])
                and (stands_in is None or row["network"] in stands_in.get(row["method"], ()))
            ):
                return str(setting["name"])
        return ""

    def counts(self, rule: Rule, row: Mapping[str, object]) -> bool:
        """Whether a set of rows is among those of a rule; of a stand-in only the method must be the rule's."""
        setting = self.setting_of(row)
        stands_in = any("networks" in one and one["name"] == setting for one in self.settings)
        columns = ("method",) if stands_in else ("data", "network", "method")
        row = {**row, "data": asked_for(str(row["data"]))}
        return setting in rule.settings and any(all(row[c] in one[c] for c in columns) for one in rule.rows)


def load(path: str | Path) -> Rules:
    """Read the rules; a name that is not defined or a word that is not allowed is a `RulesError`."""
    found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    settings = {str(setting["name"]): str(setting["name"]) for setting in found["setting"]}
    values = {name: _made(Value, f"{path}, value {name}", given) for name, given in found["value"].items()}
    values |= {name: _made(Measure, f"{path}, measure {name}", given) for name, given in found["measure"].items()}

    def check(name: str, given: Mapping[str, object]) -> Check:
        given, place = dict(given), f"{path}, check {name}"
        if "value" in given:
            value = given["value"] = _named(place, "value", given["value"], values)
            given.setdefault("margin", found["margin"]["rank" if value.rank else value.scale])
        if "within" in given:
            given["within"] = tuple(given["within"])
        return _made(Check, place, {"name": name, **given})

    checks, claims = {name: check(name, given) for name, given in found["check"].items()}, {}
    for claim, given in found["claim"].items():
        place = f"{path}, {claim}"
        if "numbers" in given:
            numbers = tuple(check(f"{claim}-{i}", one) for i, one in enumerate(given["numbers"], 1))
            claims[claim] = Rule(claim, numbers, setting=_named(place, "setting", given["setting"], settings))
            continue
        own = {name: _named(place, "check", name, checks) for name in given["checks"]}
        claims[claim] = Rule(
            claim,
            tuple(own.values()),
            tuple(_named(place, "rows", given["rows"], found["rows"])),
            tuple(_named(place, "setting", name, settings) for name in given.get("settings", settings)),
            vital=frozenset(_named(place, "vital check", name, own).name for name in given.get("vital", ())),
            least=given.get("least"),
        )
    return Rules(tuple(found["seen"]), found["judging"], tuple(found["setting"]), found["full_width"], claims)


def _made(kind: type, place: str, given: Mapping[str, object]) -> object:
    try:
        return kind(**given)
    except (TypeError, RulesError) as error:
        raise RulesError(f"{place}: {error}") from error


def _named(place: str, what: str, name: str, known: Mapping[str, object]) -> object:
    if name not in known:
        raise RulesError(f"{place}: no {what} {name}; there are {', '.join(known)}")
    return known[name]
