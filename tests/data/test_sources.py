"""Where data are looked for, what is read, and downloads from a server on this machine, whole and interrupted."""

import gzip
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from linfair.data import download, sources
from linfair.data.core import DataError
from linfair.data.official import CIFAR10, CIFAR100, MNIST, SVHN, Known
from linfair.data.packs import write_pack
from linfair.data.sources import Found, checksum_state, fetch, find, read

Writer = Callable[..., tuple[np.ndarray, np.ndarray]]


# Finding and reading


def test_a_given_folder_then_the_variable_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_mats: Writer
) -> None:
    for name in ("given", "variable", "cache/data"):
        write_mats(tmp_path / name)
    assert find("svhn") == Found(tmp_path / "cache" / "data", "mat")
    monkeypatch.setenv("LINFAIR_DATA", str(tmp_path / "variable"))
    assert find("svhn") == Found(tmp_path / "variable", "mat")
    assert find("svhn", tmp_path / "given") == Found(tmp_path / "given", "mat")
    (tmp_path / "other").mkdir()
    assert find("svhn", tmp_path / "other") is None


def test_every_kind_is_found_and_packs_come_before_files(
    tmp_path: Path, write_batches: Writer, write_mats: Writer, write_image: Callable
) -> None:
    write_batches(tmp_path)
    write_mats(tmp_path / "svhn")
    write_image(tmp_path / "UTKFace" / "26_1_3_20170116174525125.jpg.chip.jpg", 1)
    (tmp_path / "labels.csv").write_text("file,label\n")
    kinds = {name: find(name, tmp_path) for name in sources.SOURCES}
    assert kinds["cifar10"] == find("cifar10", tmp_path / CIFAR10.folder) == Found(tmp_path / CIFAR10.folder, "batches")
    assert kinds["svhn"] == Found(tmp_path / "svhn", "mat")
    assert kinds["utkface"] == Found(tmp_path / "UTKFace", "files")
    assert kinds["folder"] == Found(tmp_path, "folder")
    for name in ("svhn10k.npz", "svhn.npz"):
        (tmp_path / name).write_bytes(b"")
        assert find("svhn", tmp_path) == Found(tmp_path / name, "pack")
    assert find("svhn", tmp_path / "svhn10k.npz") == Found(tmp_path / "svhn10k.npz", "pack")


@pytest.mark.parametrize("name", [name for name in sources.SOURCES if name != "folder"])
def test_nothing_found_says_where_it_looked_and_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(name, tmp_path / "nothing")
    text = str(caught.value)
    assert f"{name} not found in {tmp_path / 'nothing'} (no such folder)" in text
    assert f"`linfair data fetch {name}`" in text
    assert "`linfair data status`" in text
    assert "\n" not in text


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(DataError, match="no source 'emnist'; .*mnist"):
        read("emnist")
    with pytest.raises(DataError, match="no labels.csv in .*a folder needs a table"):
        read("folder")


def test_a_pack_made_of_any_source_reads_as_the_source(
    tmp_path: Path,
    write_batches: Writer,
    write_hundred: Writer,
    write_mats: Writer,
    write_idx: Writer,
    write_celeba: Writer,
    write_image: Callable,
) -> None:
    for write in (write_batches, write_hundred, write_mats, write_idx, write_celeba):
        write(tmp_path / "in")
    for number, race in enumerate((0, 1, 1)):
        write_image(tmp_path / "in" / "UTKFace" / f"26_1_{race}_2017011617452512{number}.jpg", race)
    write_image(tmp_path / "in" / "UTKFace" / "39_1_20170116174525125.jpg", 5)
    (tmp_path / "in" / "labels.csv").write_text("file,label,group\n" + "".join(f"{i}.png,{i},g\n" for i in range(3)))
    for i in range(2):
        write_image(tmp_path / "in" / f"{i}.png", i)
    given = {"folder": {"columns": ("label", "group")}, "celeba": {"size": 20}}
    for name, options in {name: given.get(name, {}) for name in sources.SOURCES}.items():
        source = read(name, tmp_path / "in", **options)
        path = write_pack(source, tmp_path / "out" / f"{name}.npz")
        packed = read(name, path.parent, **options)
        np.testing.assert_array_equal(packed.images, source.images, strict=True)
        np.testing.assert_array_equal(packed.same, source.same, strict=True)
        for key, values in source.fields.items():
            np.testing.assert_array_equal(packed.fields[key], values, strict=True)
        assert (packed.official is None) == (source.official is None) == (name in ("utkface", "folder"))
        if source.official is not None:
            np.testing.assert_array_equal(packed.official, source.official, strict=True)
        assert (packed.names, packed.skipped, packed.origin) == (source.names, source.skipped, source.origin)
        assert checksum_state(find(name, path.parent)) == "checksum ok"
    with pytest.raises(DataError, match="no column labels; there are label, group .did you mean label"):
        read("folder", tmp_path / "out", columns=("labels",))
    for name, side in (("folder", 32), ("celeba", 20)):
        with pytest.raises(DataError, match=f"images of {side}x{side} pixels, size=64 was asked for"):
            read(name, tmp_path / "out", size=64)


def test_a_source_is_read_once_until_its_files_change(tmp_path: Path, write_mats: Writer) -> None:
    write_mats(tmp_path, seed=1)
    one = read("svhn", tmp_path)
    assert read("svhn", str(tmp_path)) is one
    (tmp_path / "train_32x32.mat").unlink()
    write_mats(tmp_path, seed=2)
    assert not np.array_equal(read("svhn", tmp_path).images, one.images)


@pytest.mark.parametrize("variable", ["1", "0", ""])
def test_strict_by_argument_or_variable(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable
) -> None:
    write_image(tmp_path / "a.png", 1)
    (tmp_path / "labels.csv").write_text("file,label\na.png,x\ngone.png,y\n")
    monkeypatch.setenv("LINFAIR_STRICT", variable)
    assert len(read("folder", tmp_path, strict=False).skipped) == 1
    with pytest.raises(DataError, match="gone.png: there is no such file"):
        read("folder", tmp_path, strict=True)
    if variable == "1":
        with pytest.raises(DataError, match="LINFAIR_STRICT"):
            read("folder", tmp_path)
    else:
        assert len(read("folder", tmp_path)) == 1


# Fetching


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, dict[str, int]]]:
    """A folder served over HTTP from this machine; `cut` names files that break off after some bytes."""
    folder, cut = tmp_path / "served", {}
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = folder / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: cut.get(file.name)])

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", cut
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def offered(
    served: tuple[Path, str, dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    write_batches: Writer,
    write_hundred: Writer,
    write_mats: Writer,
    write_idx: Writer,
) -> dict[str, np.ndarray]:
    """The addresses of the releases lead to small files in the true formats, with their checksums."""
    folder, address, _ = served
    images = {"cifar10": write_batches(folder)[0], "cifar100": write_hundred(folder)[0], "svhn": write_mats(folder)[0]}
    images["mnist"] = write_idx(folder / MNIST.folder)[0]
    archives = [(CIFAR10, "cifar-10-python.tar.gz"), (CIFAR100, "cifar-100-python.tar.gz")]
    for release, name in archives:
        with tarfile.open(folder / name, mode="w:gz") as tar:
            tar.add(folder / release.folder, release.folder)
    for name in MNIST.files:
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / MNIST.folder / name).read_bytes()))
    offers = [*((release, [name]) for release, name in archives), (SVHN, list(SVHN.files))]
    for release, served_files in (*offers, (MNIST, [f"{name}.gz" for name in MNIST.files])):
        own = {name: known(folder / release.folder / name) for name in release.files}
        offer(monkeypatch, release.name, {f"{address}/{name}": known(folder / name) for name in served_files}, own)
    return images


def known(path: Path) -> Known:
    content = path.read_bytes()
    return Known(len(content), hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())


def offer(monkeypatch: pytest.MonkeyPatch, name: str, urls: dict[str, Known], files: dict[str, Known]) -> None:
    """Let a source be downloaded from other addresses, with other checksums."""
    source = sources.SOURCES[name]
    release = replace(source.release, urls=urls, files=files)
    monkeypatch.setitem(sources.SOURCES, name, replace(source, release=release))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "svhn"])
def test_what_is_fetched_is_found_read_and_not_fetched_again(
    name: str, tmp_path: Path, offered: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data"
    found = fetch(name, target)
    assert found == find(name, target)
    assert checksum_state(found) == "checksum ok"
    np.testing.assert_array_equal(read(name, target).images, offered[name])
    names = {file.name for file in target.rglob("*") if file.is_file()}
    assert names == set(sources.SOURCES[name].release.files), "no archive and no temporary file is left"
    monkeypatch.setattr(download, "get", lambda *_, **__: pytest.fail("downloaded again"))
    assert fetch(name, target) == found


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10", "cifar-10-python.tar.gz"), ("svhn", "test_32x32.mat"), ("mnist", "t10k-images-idx3-ubyte.gz")],
)
def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(
    name: str,
    file: str,
    tmp_path: Path,
    offered: dict[str, np.ndarray],
    served: tuple,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut, target = served[2], tmp_path / "data"
    cut[file] = 30_000
    monkeypatch.setattr(download, "get", partial(download.get, retries=0))
    with pytest.raises(DataError, match=f"{name} could not be downloaded .*nothing was kept. Try again") as caught:
        fetch(name, target)
    assert "\n" not in str(caught.value)
    assert list(target.iterdir()) == []
    assert find(name, target) is None
    del cut[file]
    fetch(name, target)
    np.testing.assert_array_equal(read(name, target).images, offered[name])


def test_a_download_that_breaks_off_once_is_tried_again(
    tmp_path: Path, offered: dict[str, np.ndarray], served: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = served[2]
    cut["test_32x32.mat"] = 1_000
    monkeypatch.setattr("time.sleep", lambda _: cut.clear())
    fetch("svhn", tmp_path / "data")
    np.testing.assert_array_equal(read("svhn", tmp_path / "data").images, offered["svhn"])


def test_no_server_no_file_and_another_file_are_one_line(
    tmp_path: Path, offered: dict[str, np.ndarray], served: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = sources.SOURCES["svhn"].release
    monkeypatch.setattr(download, "get", partial(download.get, retries=0))
    (train, right), test = release.urls.items()
    for url, asked, reason in (
        (train + ".gone", right, "404"),
        ("http://127.0.0.1:9/x", right, "refused"),
        (train, replace(right, sha256="0" * 64), "does not match"),
    ):
        offer(monkeypatch, "svhn", {url: asked, test[0]: test[1]}, release.files)
        with pytest.raises(DataError, match=f"svhn could not be downloaded .*{reason}") as caught:
            fetch("svhn", tmp_path / "data")
        assert "\n" not in str(caught.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_key_press_in_the_middle_leaves_nothing(
    tmp_path: Path, offered: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while unpacking, with a batch already on the disk."""

    def stopped(archive: Path, *_: object) -> None:
        (archive.parent / "data_batch_1").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "unpack", stopped)
    with pytest.raises(KeyboardInterrupt):
        fetch("cifar10", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_fetching_mends_what_is_incomplete_or_changed(tmp_path: Path, offered: dict[str, np.ndarray]) -> None:
    target = tmp_path / "data"
    found = fetch("cifar10", target)
    (found.path / "data_batch_2").unlink()
    (found.path / "test_batch").write_bytes(b"changed")
    assert checksum_state(found) == "checksum differs: data_batch_2, test_batch"
    with pytest.raises(DataError, match="data_batch_2 missing"):
        read("cifar10", target)
    fetch("cifar10", target)
    np.testing.assert_array_equal(read("cifar10", target).images, offered["cifar10"])


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_an_archive_with_the_right_checksum_and_unreadable_content_is_not_kept(
    name: str, tmp_path: Path, offered: dict[str, np.ndarray], served: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = served[0]
    url = list(sources.SOURCES[name].release.urls)[-1]
    file = folder / url.rpartition("/")[2]
    if name == "cifar10":  # a tar without the batches
        with tarfile.open(file, mode="w:gz") as tar:
            tar.add(folder / "train_32x32.mat", "other/data_batch_1")
    else:
        file.write_bytes(b"no MATLAB file")
    urls = sources.SOURCES[name].release.urls | {url: known(file)}
    offer(monkeypatch, name, urls, sources.SOURCES[name].release.files)
    with pytest.raises(
        DataError, match="no MATLAB file" if name == "svhn" else "'other/data_batch_1', which is no file in"
    ):
        fetch(name, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_what_may_not_be_downloaded_is_explained_with_its_terms(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"non-commercial research only.*publishers' project page.*as UTKFace/ into"):
        fetch("utkface", tmp_path)
    with pytest.raises(DataError, match="non-commercial research only.*list_attr_celeba.txt.*side by side into"):
        fetch("celeba", tmp_path)
    with pytest.raises(DataError, match="'digits' cannot be fetched; cifar10, cifar100, mnist, svhn can"):
        fetch("digits", tmp_path)
