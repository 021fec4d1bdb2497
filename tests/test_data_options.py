"""The options that choose labels and groups mean the same in every command, and `mitigate` has none of their names."""

import pytest

from linfair.cli import data, main

TYPED = ["--label", "kind", "--group", "a,b", "--merge", "x+y", "--merge", "u+v", "--min-images", "5"]
MEANT = {"label": "kind", "group": "a,b", "merge": "x+y;u+v", "min_images": 5, "conflicts": "last"}


@pytest.mark.parametrize("words", [["data", "describe", "folder:mine"], ["linearize"], ["audit"]])
def test_commands_that_read_data_take_the_same_choices(words: list[str]) -> None:
    options = main.build_parser().parse_args([*words, *TYPED, "--conflicts", "last"])
    assert data.chosen(options) == MEANT
    assert data.chosen(main.build_parser().parse_args(words)) == {}


@pytest.mark.parametrize("name", ["--judge-from", "--min-images"])
def test_mitigate_judges_groups_from_a_number_of_validation_images_on(name: str) -> None:
    options = main.build_parser().parse_args(["mitigate", "--teacher", "t", "--mask", "m", name, "7"])
    assert options.min_images == 7
