"""Where Ray is missing, or no cluster answers, one line says so at once; nothing of Ray is started for it."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linfair.study import cluster
from linfair.study.plan import DefinitionError


@pytest.fixture
def mute() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield f"127.0.0.1:{one.getsockname()[1]}"


def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"127.0.0.1:{one.getsockname()[1]}"


NONE = ["nonsense", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "[::1", "http://x:1", "://"]


@pytest.mark.parametrize("address", NONE)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(DefinitionError, match="HOST:PORT") as caught:
        cluster._reach(address)
    assert repr(address) in str(caught.value)


def test_an_address_where_no_cluster_answers_is_refused(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.2)
    for address in (mute, f"ray://{mute}", closed()):
        with pytest.raises(DefinitionError, match=f"no Ray cluster is at '{address}'.*HOST:PORT"):
            cluster._reach(address)


def test_without_ray_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DefinitionError, match=r"pip install 'linfair\[cluster\]'"):
        cluster.run_on_ray([], tmp_path)
