"""What may be read as a file: regular files alone, and never a wait for one that is none."""

import os
import socket
from pathlib import Path

import pytest

from linfair.paths import unfit


def test_what_is_not_a_regular_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        said = {name: unfit(name) for name in ("file", "link", "pipe", "socket", ".", "/dev/zero", "gone", "file/x")}
    assert said["file"] is said["link"] is None
    kinds = {"pipe": "pipe", "socket": "socket", ".": "folder", "/dev/zero": "device"}
    assert {name: said[name] for name in kinds} == {name: f"is a {kind}, not a file" for name, kind in kinds.items()}
    assert said["gone"] == said["file/x"] == "does not exist"
    for path in ("circle", "n" * 300, "zero\0byte"):
        assert unfit(path).startswith("cannot be read (")
    assert unfit(tmp_path / "file", 3) is None
    assert "3 bytes" in unfit(tmp_path / "file", 2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "secret").chmod(0)
    assert unfit(tmp_path / "secret") == "cannot be read (Permission denied)"
