"""`book/rules.toml`: by what each claim is judged; its comments say what the words mean."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RULES = Path("book/rules.toml")

QUANTITIES = ("accuracy", "gradient_norm", "margin", "top_eigenvalue", "relative_distance")
SCALES = ("points", "relative", "ratio", "difference", "spread")
GROUPS = ("minorities", "majority", "smallest", "each", "all")
BUDGETS = ("each", "low", "lowest", "original", "steps", "trend")
NEEDS = ("every", "most", "some")
LOW = 0.2
"""The largest budget that counts as low."""


class RulesError(ValueError):
    """A rule that cannot be applied; the message names it, what it has and what is allowed."""


@dataclass(frozen=True)
class Value:
    """What is computed for each seed, budget and group."""

    quantity: str
    arm: str
    against: str = ""
    other: str = ""
    scale: str = ""
    beside: str = ""
    rank: str = ""
    split: str = "test"

    def __post_init__(self) -> None:
        column = self.rank.removeprefix("own ")
        _one_of("quantity", self.quantity, QUANTITIES)
        _one_of("scale", self.scale, SCALES if not self.rank else ("",))
        _one_of("rank", column, ("", *QUANTITIES))
        _one_of("split", self.split, ("train", "test"))
        _one_of("beside", self.beside, ("", "majority"))


@dataclass(frozen=True)
class Check:
    """A number and where it has to lie: of a value in rows (`value`), or noted by a notebook (`of`)."""

    name: str
    says: str
    value: Value | None = None
    of: str = ""
    groups: str = "all"
    budgets: str = "each"
    need: str = "every"
    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        _one_of("groups", self.groups, GROUPS)
        _one_of("budgets", self.budgets, BUDGETS)
        _one_of("need", self.need, NEEDS)
        if sum(side is not None for side in (self.above, self.below, self.within)) != 1:
            raise RulesError(f"check {self.name}: give exactly one of above, below and within")

    def threshold(self) -> str:
        """As the claims page writes it: `above 0`, `within 0 ± 1`."""
        if self.within is not None:
            return f"within {self.within[0]:g} ± {self.within[1]:g}" if self.within[1] else f"{self.within[0]:g}"
        return f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"


@dataclass(frozen=True)
class Rule:
    """By what one claim is judged.

    Attributes:
        claim: Its id.
        checks: Its checks.
        rows: Rows that count, alternatives of data, network and method; empty where notebooks' numbers are judged.
        settings: Who may decide, in order.
        setting: The setting of numbers that notebooks noted.
        vital: Names of checks whose failure alone is a no.
        least: Fewest different values of a column that a yes rests on.
    """

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

    def setting_of(self, row: Mapping[str, object]) -> str:
        """The closest setting that a set of rows belongs to, empty if it belongs to none.

        Args:
            row: Its `data`, `network`, `method`, `width` and `profile`.
        """
        if row["profile"] not in self.judging["profiles"]:
            return ""
        full = int(row["width"]) in (0, self.full_width.get(str(row["network"])))
        for setting in self.settings:
            stands_in = setting.get("networks")
            if (
                row["data"] in setting["data"]
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
        return setting in rule.settings and any(all(row[c] in one[c] for c in columns) for one in rule.rows)


def _one_of(what: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise RulesError(f"{what} {given!r}; allowed: {', '.join(filter(None, allowed))}")


def load(path: str | Path) -> Rules:
    """Read the rules.

    Raises:
        RulesError: For a name that is not defined, or a word that is not in the vocabulary.
    """
    with open(path, "rb") as file:
        found = tomllib.load(file)
    names = tuple(str(setting["name"]) for setting in found["setting"])
    values = {}
    for name, fields in found["value"].items():
        try:
            values[name] = Value(**fields)
        except (TypeError, RulesError) as error:
            raise RulesError(f"{path}, value {name}: {error}") from error
    checks = {name: _check(path, name, fields, values, found["margin"]) for name, fields in found["check"].items()}
    claims = {}
    for claim, fields in found["claim"].items():
        if "numbers" in fields:
            numbers = [_check(path, f"{claim}-{i}", one, values, {}) for i, one in enumerate(fields["numbers"], 1)]
            claims[claim] = Rule(claim, tuple(numbers), setting=fields["setting"])
            _named(path, claim, "setting", [fields["setting"]], names)
            continue
        _named(path, claim, "check", fields["checks"], checks)
        _named(path, claim, "rows", [fields["rows"]], found["rows"])
        _named(path, claim, "setting", fields.get("settings", names), names)
        _named(path, claim, "vital check", fields.get("vital", ()), fields["checks"])
        claims[claim] = Rule(
            claim,
            tuple(checks[name] for name in fields["checks"]),
            tuple(found["rows"][fields["rows"]]),
            tuple(fields.get("settings", names)),
            vital=frozenset(fields.get("vital", ())),
            least=fields.get("least"),
        )
    return Rules(tuple(found["seen"]), found["judging"], tuple(found["setting"]), found["full_width"], claims)


def _check(
    path: str | Path, name: str, fields: dict[str, object], values: Mapping[str, Value], margins: Mapping[str, float]
) -> Check:
    given = dict(fields)
    if "value" in given:
        _named(path, name, "value", [given["value"]], values)
        given["value"] = values[given["value"]]
        given.setdefault("margin", margins["rank" if given["value"].rank else given["value"].scale])
    if "within" in given:
        given["within"] = tuple(given["within"])
    try:
        return Check(name, **given)
    except (TypeError, RulesError) as error:
        raise RulesError(f"{path}, check {name}: {error}") from error


def _named(path: str | Path, user: str, what: str, given: object, known: object) -> None:
    if missing := [one for one in given if one not in known]:
        raise RulesError(f"{path}, {user}: no {what} {', '.join(missing)}; there are {', '.join(known)}")
