"""Notebook parameters: every refusal says what was given, what is allowed, and the closest known name."""

import pytest
from linfair_book import parameters
from linfair_book.parameters import NOTEBOOKS, Parameter, ParameterError

from linfair import data, models
from linfair.study import PROFILES

TOY, IMPACT = "01_toy_boundary", "02_accuracy_impact"


def test_no_values_gives_every_default():
    for name, notebook in NOTEBOOKS.items():
        assert parameters.check(name, {}) == {p.name: p.default for p in notebook.parameters}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"relu_budgt": 0.25}, ["'relu_budgt'", "'relu_budget'", "linfair notebook list"]),
        ({"zzz": 1}, ["'zzz'", "Known: relu_budget, n_seeds"]),
        ({"relu_budget": 7}, ["relu_budget = 7 ", "0 to 1"]),
        ({"relu_budget": -0.1}, ["-0.1", "0 to 1"]),
        ({"relu_budget": float("nan")}, ["nan", "0 to 1"]),
        ({"relu_budget": "half"}, ["'half'", "wrong type", "float"]),
        ({"relu_budget": True}, ["True", "wrong type"]),
        ({"n_seeds": True}, ["True", "wrong type", "int"]),
        ({"n_seeds": 2.5}, ["2.5", "wrong type", "int"]),
        ({"n_seeds": 1}, ["n_seeds = 1 ", "2 to 200"]),
        ({"profile": "smal"}, ["'smal'", "smoke | small", "Did you mean 'small'?"]),
        ({"profile": 3}, ["profile = 3 ", "wrong type"]),
    ],
)
def test_refusals_of_the_toy_quote_the_value_and_what_is_allowed(values, words):
    with pytest.raises(ParameterError) as caught:
        parameters.check(TOY, values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "budgets",
    [[1.0, 0.5], [0.5, 0.0], [0.2, 0.5], [0.5, 0.5], [], "0.5,x", [0.5, True], [0.5, "0.2"], 0.5, [0.5, float("nan")]],
)
def test_budgets_must_be_a_descending_list_strictly_inside_0_and_1(budgets):
    with pytest.raises(ParameterError, match="each above 0 and below 1, strictly descending"):
        parameters.check(IMPACT, {"budgets": budgets})


@pytest.mark.parametrize("budgets", [[0.5, 0.2], (0.5, 0.2), "0.5,0.2", "[0.5, 0.2]"])
def test_budgets_may_be_a_list_or_text(budgets):
    assert parameters.check(IMPACT, {"budgets": budgets})["budgets"] == [0.5, 0.2]


def test_an_int_is_accepted_for_a_float_and_becomes_one():
    value = parameters.check(TOY, {"relu_budget": 1})["relu_budget"]
    assert value == 1.0 and isinstance(value, float)


def test_both_ends_of_a_closed_range_are_allowed():
    for value in (0, 1):
        assert parameters.check(TOY, {"relu_budget": value})["relu_budget"] == value


def test_unknown_notebook_names_the_closest():
    with pytest.raises(ParameterError, match="Did you mean '01_toy_boundary'"):
        parameters.check("01_toy_boundry", {})


def test_smoke_limits_seeds_and_steps_whatever_was_asked_but_never_raises_them():
    settings = parameters.check(TOY, {"profile": "smoke", "n_seeds": 50})
    assert (settings["n_seeds"], settings["steps"]) == (2, 20)
    assert parameters.check(TOY, {"profile": "smoke", "steps": 5})["steps"] == 5
    assert parameters.check(TOY, {"n_seeds": 50})["n_seeds"] == 50


def test_cuda_is_refused_where_torch_finds_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ParameterError, match="use device=cpu"):
        parameters.check(TOY, {"device": "cuda"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert parameters.check(TOY, {"device": "cuda"})["device"] == "cuda"


def test_a_default_that_breaks_its_own_rules_is_refused():
    with pytest.raises(ParameterError, match="2"):
        Parameter("p", "float", 2.0, "a share", low=0, high=1)
    with pytest.raises(ValueError, match="'bool'"):
        Parameter("p", "bool", True, "a switch")


def test_choices_agree_with_the_package():
    impact = NOTEBOOKS[IMPACT]
    assert set(impact["data"].choices) <= set(data.DATASETS)
    assert set(impact["network"].choices) <= set(models.NETWORKS)
    assert set(impact["profile"].choices) == set(PROFILES)


def test_a_notebooks_namespace_is_checked_by_name():
    namespace = {p.name: p.default for p in NOTEBOOKS[TOY].parameters} | {"other": 1, "relu_budget": 0.25}
    assert parameters.from_namespace(TOY, namespace)["relu_budget"] == 0.25
    with pytest.raises(ParameterError, match="0 to 1"):
        parameters.from_namespace(TOY, namespace | {"relu_budget": 7})
    del namespace["seed"]
    with pytest.raises(ParameterError, match="seed not set"):
        parameters.from_namespace(TOY, namespace)


def test_a_misspelt_name_in_papermills_cell_is_refused():
    namespace = {p.name: p.default for p in NOTEBOOKS[TOY].parameters}
    fine = {"In": ["", "relu_budget: float = 0.5", "# Parameters\nrelu_budget = 0.25\nn_seeds = 5\n"]}
    assert parameters.from_namespace(TOY, namespace | fine)
    wrong = {"In": ["", "# Parameters\nrelu_budgt = 0.25\n"]}
    with pytest.raises(ParameterError, match="Did you mean 'relu_budget'"):
        parameters.from_namespace(TOY, namespace | wrong)


def test_the_environment_may_ask_for_the_smoke_profile_everywhere(monkeypatch):
    namespace = {p.name: p.default for p in NOTEBOOKS[TOY].parameters}
    assert parameters.from_namespace(TOY, namespace)["profile"] == "small"
    monkeypatch.setenv(parameters.PROFILE, "smoke")
    forced = parameters.from_namespace(TOY, namespace)
    assert forced["profile"] == "smoke" and forced["n_seeds"] == 2
    monkeypatch.setenv(parameters.PROFILE, "smok")
    with pytest.raises(ParameterError, match="Did you mean 'smoke'"):
        parameters.from_namespace(TOY, namespace)


def test_every_notebook_has_a_smoke_profile_that_cuts_its_seeds():
    """So that `LINFAIR_PROFILE=smoke` reaches all of them."""
    for notebook in NOTEBOOKS.values():
        assert "smoke" in notebook["profile"].choices and notebook.limits["smoke"]["n_seeds"] == 2
