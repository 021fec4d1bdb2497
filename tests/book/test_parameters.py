"""Notebook parameters: every refusal says what was given, what is allowed, and the closest known name."""

import json
from pathlib import Path

import pytest
from linfair_book import notebooks, parameters
from linfair_book.parameters import Parameter, ParameterError

from linfair import data, models
from linfair.study import PROFILES

NOTEBOOKS = notebooks.listed()
TOY, IMPACT = NOTEBOOKS["01_toy_boundary"], NOTEBOOKS["02_accuracy_impact"]


def cell(notebook: parameters.Notebook) -> str:
    """The source of its parameters cell."""
    cells = json.loads(Path(notebook.path).read_text())["cells"]
    return next("".join(one["source"]) for one in cells if "parameters" in one["metadata"].get("tags", ()))


def namespace(notebook: parameters.Notebook, *more: str) -> dict[str, object]:
    """What `globals()` holds after the parameters cell and these."""
    return {p.name: p.default for p in notebook.parameters} | {"In": ["", "%matplotlib inline", cell(notebook), *more]}


def test_no_values_gives_every_default():
    for notebook in NOTEBOOKS.values():
        assert notebook.check({}) == {p.name: p.default for p in notebook.parameters}


def test_a_comment_says_what_is_allowed_and_the_largest_value_in_a_profile():
    source = """
a: int = 3  # Whole numbers (all). [2, 200], smoke: 2, small: 9
b: float = 0.5  # Ends out. (0, 1e6)
c: str = "x"  # One of these. {x, y z}
d: str = ""  # Any text.
"""
    assert parameters.read(source) == (
        Parameter("a", "int", 3, "Whole numbers (all).", 2, 200, limits={"smoke": 2, "small": 9}),
        Parameter("b", "float", 0.5, "Ends out.", 0, 1e6, open_ends=True),
        Parameter("c", "str", "x", "One of these.", choices=("x", "y z")),
        Parameter("d", "str", "", "Any text."),
    )


def test_every_parameter_of_every_notebook_is_described_and_only_folders_are_free():
    for notebook in NOTEBOOKS.values():
        assert notebook.minutes > 0 and notebook.title
        for p in notebook.parameters:
            assert p.description.endswith(".") and (p.allowed != "any" or p.name == "out"), (notebook.name, p)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"relu_budgt": 0.25}, ["'relu_budgt'", "'relu_budget'", "linfair notebook list"]),
        ({"zzz": 1}, ["'zzz'", "there are relu_budget, n_seeds"]),
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
        TOY.check(values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "budgets",
    [[1.0, 0.5], [0.5, 0.0], [0.2, 0.5], [0.5, 0.5], [], "0.5,x", [0.5, True], [0.5, "0.2"], 0.5, [0.5, float("nan")]],
)
def test_budgets_must_be_a_descending_list_strictly_inside_0_and_1(budgets):
    with pytest.raises(ParameterError, match="each above 0 and below 1, strictly descending"):
        IMPACT.check({"budgets": budgets})


@pytest.mark.parametrize("budgets", [[0.5, 0.2], (0.5, 0.2), "0.5,0.2", "[0.5, 0.2]"])
def test_budgets_may_be_a_list_or_text(budgets):
    assert IMPACT.check({"budgets": budgets})["budgets"] == [0.5, 0.2]


def test_an_int_is_accepted_for_a_float_and_becomes_one():
    value = TOY.check({"relu_budget": 1})["relu_budget"]
    assert value == 1.0 and isinstance(value, float)


def test_both_ends_of_a_closed_range_are_allowed():
    for value in (0, 1):
        assert TOY.check({"relu_budget": value})["relu_budget"] == value


def test_unknown_notebook_names_the_closest():
    with pytest.raises(ParameterError, match="did you mean '01_toy_boundary'"):
        notebooks.find("01_toy_boundry")


def test_smoke_limits_seeds_and_steps_whatever_was_asked_but_never_raises_them():
    settings = TOY.check({"profile": "smoke", "n_seeds": 50})
    assert (settings["n_seeds"], settings["steps"]) == (2, 20)
    assert TOY.check({"profile": "smoke", "steps": 5})["steps"] == 5
    assert TOY.check({"n_seeds": 50})["n_seeds"] == 50


def test_cuda_is_refused_where_torch_finds_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ParameterError, match="use device=cpu"):
        TOY.check({"device": "cuda"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert TOY.check({"device": "cuda"})["device"] == "cuda"


def test_a_default_that_breaks_its_own_rules_is_refused():
    with pytest.raises(ParameterError, match="2"):
        Parameter("p", "float", 2.0, "a share", low=0, high=1)
    with pytest.raises(ValueError, match="'bool'"):
        Parameter("p", "bool", True, "a switch")


def test_choices_agree_with_the_package():
    impact = IMPACT
    assert set(impact["data"].choices) <= set(data.DATASETS)
    assert set(impact["network"].choices) <= set(models.NETWORKS)
    assert set(impact["profile"].choices) <= set(PROFILES)


def test_a_notebooks_namespace_is_checked_by_name():
    space = namespace(TOY) | {"other": 1, "relu_budget": 0.25}
    assert parameters.from_namespace(TOY.name, space)["relu_budget"] == 0.25
    with pytest.raises(ParameterError, match="0 to 1"):
        parameters.from_namespace(TOY.name, space | {"relu_budget": 7})
    del space["seed"]
    with pytest.raises(ParameterError, match="seed not set: run the cell tagged 'parameters' first"):
        parameters.from_namespace(TOY.name, space)


def test_a_copy_without_its_file_is_checked_by_the_cell_that_was_run(monkeypatch, tmp_path):
    monkeypatch.setattr(parameters, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="n_seeds = 1 is not allowed. Allowed: 2 to 200"):
        parameters.from_namespace(TOY.name, namespace(TOY) | {"n_seeds": 1})
    with pytest.raises(ParameterError, match="run the cell tagged 'parameters' first"):
        parameters.from_namespace(TOY.name, namespace(TOY) | {"In": ["", "x = 1"]})


def test_a_misspelt_name_in_papermills_cell_is_refused():
    fine = namespace(TOY, "# Parameters\nrelu_budget = 0.25\nn_seeds = 5\n")
    assert parameters.from_namespace(TOY.name, fine)
    with pytest.raises(ParameterError, match="did you mean 'relu_budget'"):
        parameters.from_namespace(TOY.name, namespace(TOY, "# Parameters\nrelu_budgt = 0.25\n"))


def test_the_environment_may_ask_for_the_smoke_profile_everywhere(monkeypatch):
    space = namespace(TOY)
    assert parameters.from_namespace(TOY.name, space)["profile"] == "small"
    monkeypatch.setenv(parameters.PROFILE, "smoke")
    forced = parameters.from_namespace(TOY.name, space)
    assert forced["profile"] == "smoke" and forced["n_seeds"] == 2
    monkeypatch.setenv(parameters.PROFILE, "smok")
    with pytest.raises(ParameterError, match="Did you mean 'smoke'"):
        parameters.from_namespace(TOY.name, space)


def test_every_notebook_has_a_smoke_profile_that_cuts_its_seeds():
    """So that `LINFAIR_PROFILE=smoke` reaches all of them; the explorers' computes nothing."""
    for notebook in NOTEBOOKS.values():
        limits = [one.limits for one in notebook.parameters if one.name == "n_seeds"]
        assert "smoke" in notebook["profile"].choices
        assert limits == ([] if notebook.name == "10_explorer" else [{"smoke": 2}])
