"""Options from text files: every kind of value that TOML has, against every kind of field that an option has."""

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from linfair.data import DATASETS
from linfair.linearizers import LINEARIZERS
from linfair.linearizers.finetuning import FINETUNE, under
from linfair.linearizers.record import kept_share
from linfair.linearizers.registry import find, of_kind
from linfair.mitigation import MITIGATIONS, resolve
from linfair.names import call, checked, number, some, unknown
from linfair.study.arms import mitigation_of
from linfair.training import Schedule


def takes(
    *,
    text: str = "",
    count: int = 0,
    rate: float = 0.0,
    flag: bool = False,
    place: str | Path | None = None,
    texts: tuple[str, ...] | None = None,
    counts: tuple[int, ...] | None = None,
    rates: Sequence[float] = (),
    schedule: Schedule | None = None,
    either: str | object | None = None,
) -> None:
    """A parameter for each kind of annotation that options have."""


VALUES = {
    "text": '"a"',
    "whole": "3",
    "float": "0.5",
    "nan": "nan",
    "true": "true",
    "date": "2024-01-01",
    "texts": '["a", "b"]',
    "wholes": "[1, 2]",
    "floats": "[1, 0.5]",
    "mixed": '["a", 1]',
    "nested": '[["a"], ["b"]]',
    "table": "{ a = 1 }",
    "tables": "[{ a = [1] }]",
    "nothing": "[]",
}
ALLOWED = {
    "text": {"text"},
    "count": {"whole"},
    "rate": {"whole", "float"},
    "flag": {"true"},
    "place": {"text"},
    "texts": {"texts", "nothing"},
    "counts": {"wholes", "nothing"},
    "rates": {"wholes", "floats", "nothing"},
    "schedule": set(),
    "either": {"text"},
}


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("value", VALUES)
def test_every_toml_value_is_frozen_or_refused_with_its_option_its_value_and_what_is_allowed(
    name: str, value: str
) -> None:
    given = tomllib.loads(f"{name} = {VALUES[value]}")
    if value in ALLOWED[name]:
        found = checked(given, takes, "method")
        hash(tuple(found.items()))
        expected = given[name]
        assert found[name] == (tuple(expected) if isinstance(expected, list) else expected)
        return
    with pytest.raises(ValueError) as caught:
        checked(given, takes, "method")
    message = str(caught.value)
    assert message.startswith(f"method: {name} = ") and repr(given[name]) in message
    assert f"{name} takes " in message.replace(repr(given[name]), "")


def test_a_whole_number_for_a_float_is_the_same_value_as_the_float() -> None:
    (one, two) = (
        checked(given, takes, "method") for given in ({"rate": 1, "rates": [1]}, {"rate": 1.0, "rates": (1.0,)})
    )
    assert repr(one) == repr(two) == "{'rate': 1.0, 'rates': (1.0,)}"


def test_what_only_python_can_make_is_taken_from_python() -> None:
    schedule = Schedule(epochs=1)
    assert checked({"schedule": schedule, "either": schedule}, takes, "m") == {"schedule": schedule, "either": schedule}


@pytest.mark.parametrize(
    "kind", [*LINEARIZERS.values(), *MITIGATIONS.values()], ids=lambda one: getattr(one, "name", "")
)
def test_every_option_of_every_method_and_mitigation_is_checked(kind: object) -> None:
    """A table is no option of any; an unknown name says which there are."""
    for name in [one.name for one in fields(kind.options)]:
        with pytest.raises(ValueError, match=f"{name} = .* is not allowed; {name} takes "):
            checked({name: {"a": [1]}}, kind.options, "it")
    with pytest.raises(ValueError, match="there is no option 'such'; "):
        checked({"such": 1}, kind.options, "it")


@pytest.mark.parametrize("data", DATASETS)
def test_every_option_of_every_data_set_is_checked_and_the_seed_is_none_of_them(data: str) -> None:
    with pytest.raises(ValueError, match="there is no option 'seed'"):
        checked({"seed": 1}, DATASETS[data], data)
    with pytest.raises(ValueError, match="there is no option 'such'"):
        checked({"such": 1}, DATASETS[data], data)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ("lagrangian(mu='high')", "mu = 'high' is not allowed; mu takes a finite number"),
        ("lagrangian(groups=3)", "groups = 3 is not allowed; groups takes a list of whole numbers"),
        ("lagrangian(groups=[0.5])", "groups takes a list of whole numbers"),
        ("lagrangian(one_sided=1)", "one_sided takes true or false"),
        ("group_dro(step={'a': 1})", "step takes a finite number"),
    ],
)
def test_values_of_an_arms_options_are_checked_in_the_same_way(arm: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        mitigation_of(arm)
    assert words in str(caught.value)


def test_what_is_typed_is_read_and_what_is_unknown_is_said_with_the_closest_name() -> None:
    """By hand; numbers in plain digits alone."""
    assert (some("abcdefg"), some(range(120), most=2)) == ("a, b, c, d, e, f, g", "0, 1, ... 118 more")
    known = ["digits", "toy"]
    assert unknown("there is no data set", "digts", known) == "there is no data set 'digts'; did you mean 'digits'?"
    assert unknown("no set", "x", known) == "no set 'x'; there are digits, toy"
    assert (number("5e-3"), number(" 20 ", int)) == (0.005, 20)
    assert call("lagrangian(mu=5e-3)") == ("lagrangian", {"mu": 0.005}) and call("plain") == ("plain", {})
    for twice in ("dp_sgd(epsilon=1, epsilon=8)", "dp_sgd(**{'epsilon': 1})"):  # which of them is the budget?
        with pytest.raises(ValueError, match="each option once"):
            call(twice)


def test_methods_are_found_by_name_old_name_kind_and_profile() -> None:
    assert (LINEARIZERS["snl"].settings("small", "mlp").lasso, LINEARIZERS["snl"].settings("paper").lasso) == (
        1e-3,
        1e-5,
    )
    assert find("magnitude").name == "negative_part" and resolve("lagrangian").mu == 0.001
    assert (of_kind("weight", "snip").name, of_kind("relu", "snip").name) == ("prune_snip", "snip")
    assert of_kind("weight", "snip(everything=True)").given == (("everything", True),)
    assert [under(FINETUNE, "small", name).optimizer for name in ("mlp", "resnet18")] == ["adamw", "sgd"]


def test_what_is_left_of_a_budget_is_said_and_whether_it_was_missed() -> None:
    assert kept_share(154, 3072, 0.05) == "5 % of the ReLUs left (154 of 3,072)"
    missed = "34.6 % of the ReLUs left (1,063 of 3,072; the budget of 50 % was missed)"
    assert kept_share(1063, 3072, 0.5) == missed
    fewer = "1.56 % of the ReLUs left (2 of 128; the budget of 2 % was missed)"  # which is 3
    assert kept_share(2, 128, 0.02) == fewer
