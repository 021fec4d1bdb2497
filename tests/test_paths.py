"""Only regular files are read; for a pipe or a device nobody waits."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from linfair.paths import cache_folder, data_folders, unfit, writable


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


def test_places_where_nothing_can_be_written_are_refused_and_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    """Also as root, whom permissions do not stop: writing is tried."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nothing").symlink_to("nowhere/x")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo("pipe")
    before = sorted(tmp_path.iterdir())
    names = [
        "file",
        "file/x",
        "nothing",
        "nothing/x",
        "circle",
        "circle/x",
        "pipe",
        "/dev/null",
        "/dev/null/x",
        "/proc/x",
    ]
    names += ["", " ", "a\0b", "~nouser/x", "s3://a/b", "https://a/b", "n" * 300, "new/" + "n" * 300, "x/" * 3000]
    for name in names:
        for ends in ((),) if name in ("file", "nothing", "circle", "pipe", "/dev/null", "", " ") else ((), (".csv",)):
            path = name + "".join(ends)
            with pytest.raises(ValueError, match="--out") as caught, writable(path, "--out", ends):
                pytest.fail(f"{path} was taken")
            assert repr(path)[1:20].rstrip("'") in str(caught.value)
    for path in (".", "new/x.txt", "/dev/null"):
        with pytest.raises(ValueError, match="--out"), writable(path, "--out", (".csv",)):
            pytest.fail(f"{path} was taken")
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_was_made_goes_again_only_with_an_error_and_only_empty(tmp_path: Path) -> None:
    for error, file, left in ((None, None, True), (ValueError, None, False), (ValueError, "x", True)):
        folder = tmp_path / f"{error}{file}" / "b" / "c"
        with suppress(ValueError), writable(folder, "--out") as place:
            if file:
                (place / file).touch()
            if error:
                raise error
        assert folder.exists() == left == folder.parents[1].exists()


def test_the_users_home_is_known_and_nobodys_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("LINFAIR_CACHE", "~/c")
    assert cache_folder() == Path("/home/me/c") and data_folders("~/d") == [Path("/home/me/d")]
    monkeypatch.setenv("LINFAIR_CACHE", "~nouser/c")
    monkeypatch.setenv("LINFAIR_DATA", "~nouser/d")
    with pytest.raises(ValueError, match="LINFAIR_CACHE '~nouser/c'"):
        cache_folder()
    with pytest.raises(ValueError, match="LINFAIR_DATA '~nouser/d'"):
        data_folders()
