"""The committed rules."""

import pytest
from linfair_book.judging.rules import RULES, Rules, load
from made_rows import ROOT


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load(ROOT / RULES)
