"""Whatever comes in gets an answer: exit code, one line that names the value, nothing begun, nothing lost."""

from collections import Counter
from pathlib import Path

import pytest
from kinds import CASES
from kinds.case import Case
from kinds.commands import RIGHT, leaves
from kinds.running import problems


def test_every_command_has_words_that_are_right_and_every_input_a_name_of_its_own() -> None:
    assert {command for command, _ in leaves()} == set(RIGHT)
    assert [title for title, count in Counter(case.title for case in CASES).items() if count > 1] == []
    assert len(CASES) >= 600


@pytest.mark.parametrize("command", sorted(set(RIGHT) - {"data fetch", "networks"}))
def test_what_is_right_is_not_refused(command: str, world: Path, tmp_path: Path) -> None:
    """Otherwise the inputs below would be refused for another reason than their own."""
    case = Case("right", command, (*command.split(), *RIGHT[command]), ("",), codes=(0,))
    assert problems(case, world, tmp_path) == []


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_an_input(case: Case, world: Path, tmp_path: Path) -> None:
    assert problems(case, world, tmp_path) == []
