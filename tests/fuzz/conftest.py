"""A folder of valid files, made once."""

from pathlib import Path

import pytest
from kinds.world import make


@pytest.fixture(scope="session")
def world(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by every input; nothing may change it."""
    folder = tmp_path_factory.mktemp("world")
    make(folder)
    return folder
