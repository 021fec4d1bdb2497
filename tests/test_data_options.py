"""The options that choose labels and groups mean the same in every command, and `mitigate` has none of their names."""

import pytest

from linfair.cli.main import parse

TYPED = ["--label", "kind", "--group", "a,b", "--merge", "x+y", "--merge", "u+v", "--min-images", "5"]
MEANT = {"label": "kind", "group": "a,b", "merge": "x+y;u+v", "min_images": 5, "conflicts": "last", "links": "anywhere"}


@pytest.mark.parametrize("words", ["data describe folder:mine", "linearize", "audit"])
def test_commands_that_read_data_take_the_same_choices(words: str) -> None:
    _, typed = parse([*words.split(), *TYPED, "--conflicts", "last", "--links", "anywhere"])
    named = {"audit": "network", "linearize": "trained"}
    choices = typed.arguments[named.get(words, "choices")]
    assert choices.given() == MEANT
    assert type(choices)().given() == {}


@pytest.mark.parametrize("name", ["--judge-from", "--min-images"])
def test_mitigate_judges_groups_from_a_number_of_validation_images_on(name: str) -> None:
    _, typed = parse(["mitigate", "--teacher", "t", "--mask", "m", name, "7"])
    assert typed.arguments["min_images"] == 7
