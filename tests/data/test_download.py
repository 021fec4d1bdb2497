"""Downloads from servers on this machine that stall, drip, lie, lead away or send too much: refused in bounded time.

Every server is a few lines of a socket. A call that does not end fails as hung; no other time is asserted.
"""

import gzip
import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from linfair.data import download, sources
from linfair.data.core import DataError
from linfair.data.official import CIFAR10, Known
from linfair.data.sources import fetch

CONTENT = bytes(range(256)) * 400
HUNG = 240.0
Answer = Callable[[socket.socket, bytes], None]


def known(content: bytes) -> Known:
    return Known(len(content), hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers may be as slow as a busy machine makes it."""
    for name, value in (("WAIT", 60.0), ("LEAST", 1000), ("PAUSE", 0.0)):
        monkeypatch.setattr(download, name, value)


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts a server that gives each connection and its request to the next of some functions, the last for good."""
    listening = []

    def start(*answers: Answer) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def run() -> None:
            left = list(answers)
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                answer = left.pop(0) if len(left) > 1 else left[0]
                threading.Thread(target=one, args=(connection, answer), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/file.bin"

    def one(connection: socket.socket, answer: Answer) -> None:
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            answer(connection, request)

    yield start
    for server in listening:
        server.close()


def sends(*pieces: bytes, pause: float = 0.0, then: float = 0.0) -> Answer:
    """Sends pieces with a pause after each, and waits before it hangs up."""

    def answer(connection: socket.socket, _: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        time.sleep(then)

    return answer


def forever(head: bytes, piece: bytes, pause: float = 0.0) -> Answer:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(pause)

    return answer


def head(status: str = "200 OK", length: int | None = len(CONTENT), *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *more, "Connection: close"]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def ranged(content: bytes, most: int | None = None) -> Answer:
    """Serves ranges, and hangs up after so many bytes."""

    def answer(connection: socket.socket, request: bytes) -> None:
        asked = request.partition(b"Range: bytes=")[2].partition(b"-")[0]
        start = int(asked or 0)
        if asked:
            told = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
            connection.sendall(head("206 Partial Content", len(content) - start, told))
        else:
            connection.sendall(head("200 OK", len(content), "Accept-Ranges: bytes"))
        connection.sendall(content[start:][:most])

    return answer


def take(url: str, folder: Path, retries: int = 0) -> bytes:
    """Download in a thread that is given up as hung."""
    outcome: dict[str, object] = {}

    def call() -> None:
        try:
            with download.workplace(folder) as work:
                outcome["content"] = download.get(url, work, known(CONTENT), retries).read_bytes()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HUNG)
    assert not thread.is_alive(), "hung"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["content"]


def leads(where: str) -> Answer:
    return sends(head("302 Found", 0, f"Location: {where}"))


BAD: dict[str, tuple[Answer, str]] = {
    "accepts and never answers": (sends(then=HUNG), "said nothing for 0.15 s"),
    "stalls in the head": (sends(b"HTTP/1.1 200 OK\r\nContent-", then=HUNG), "said nothing"),
    "drips its head": (forever(b"HTTP/1.1 200 OK\r\n", b"X", 0.02), "said nothing"),
    "has a head without an end": (forever(b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n"), "got more than 100 headers"),
    "says 100 without an end": (forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02), "said nothing"),
    "stalls in the middle": (sends(head(), CONTENT[:9000], then=HUNG), "said nothing"),
    "drips": (forever(head(), b"x", 0.02), "bytes in 0.15 s, which is too slow|said nothing"),
    "drips a chunk's length": (
        forever(head("200 OK", None, "Transfer-Encoding: chunked"), b"0", 0.02),
        "said nothing",
    ),
    "breaks off": (sends(head(), CONTENT[:5000]), "IncompleteRead|incomplete|5000 bytes read"),
    "ends early without a length": (sends(head(length=None), CONTENT[:5000]), "ended after 5,000 of 102,400 bytes"),
    "offers too little": (sends(head(length=50), CONTENT[:50]), "offers 50 bytes; there must be 102,400"),
    "offers too much": (forever(head(length=10**12), bytes(65536)), "offers 1000000000000 bytes"),
    "sends without an end": (forever(head(length=None), bytes(65536)), "more than the 102,400 bytes"),
    "sends chunks without an end": (
        forever(head("200 OK", None, "Transfer-Encoding: chunked"), b"10000\r\n" + bytes(65536) + b"\r\n"),
        "more than the 102,400 bytes",
    ),
    "sends other bytes": (sends(head(), CONTENT[::-1]), "does not match"),
    "sends a gzip bomb": (
        sends(head("200 OK", None, "Content-Encoding: gzip"), gzip.compress(bytes(10**7))),
        "packs the file .gzip.",
    ),
    "does not know it": (sends(head("404 Not Found", 0)), "404"),
    "fails": (forever(head("500 Oops", None), b"x" * 1000), "500"),
    "is busy": (sends(head("503 Busy", 0)), "503"),
    "answers with a range that nobody asked for": (sends(head("206 Partial Content"), CONTENT), "sends no range"),
    "has no content": (sends(head("204 No Content", 0)), "status 204"),
    "answers with rubbish": (sends(b"\x00\xff rubbish\r\n\r\n"), "BadStatusLine|rubbish"),
    "answers with a line without an end": (forever(b"", b"x" * 65536), "[Ll]ine"),
    "hangs up": (sends(), "Remote end closed|aborted|reset"),
    "leads round": (leads("/file.bin"), "more than 5 times"),
    "leads to a file": (leads("file:///etc/passwd"), "file:///etc/passwd.*only http and https"),
    "leads to ftp": (leads("ftp://127.0.0.1/x"), "only http and https"),
    "leads nowhere": (leads("http://[::1"), "Invalid|invalid"),
    "leads with a body without an end": (forever(head("302 Found", None, "Location: /x"), b"x" * 65536), "5 times"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_server_that_misbehaves_is_refused_and_nothing_is_kept(
    case: str, serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, message = BAD[case]
    if "said nothing" in message:
        monkeypatch.setattr(download, "WAIT", 0.15)
    with pytest.raises((DataError, ValueError), match=message) as caught:
        take(serve(answer), tmp_path / "work")
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    assert not (tmp_path / "work").exists()


def test_redirects_to_the_file_are_followed(serve: Callable[..., str], tmp_path: Path) -> None:
    url = serve(leads("/elsewhere"), leads(serve(ranged(CONTENT))))
    assert take(url, tmp_path / "work") == CONTENT


def test_a_download_goes_on_where_it_broke_off_in_the_same_call_and_in_the_next(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    asked = []

    def noted(answer: Answer) -> Answer:
        def both(connection: socket.socket, request: bytes) -> None:
            asked.append(request.partition(b"Range: ")[2].partition(b"\r")[0])
            answer(connection, request)

        return both

    url = serve(noted(ranged(CONTENT, 10_000)), noted(ranged(CONTENT, 20_000)), noted(ranged(CONTENT)))
    with pytest.raises(DataError):
        take(url, tmp_path / "work", retries=1)
    assert [(path.name, path.stat().st_size) for path in (tmp_path / "work").iterdir()] == [("file.bin.part", 30_000)]
    assert take(url, tmp_path / "work") == CONTENT
    assert asked == [b"", b"bytes=10000-", b"bytes=30000-"]


@pytest.mark.parametrize("there", [CONTENT[:30_000], bytes(30_000), bytes(len(CONTENT)), bytes(len(CONTENT) + 5), b""])
@pytest.mark.parametrize("range_known", [True, False])
def test_a_part_of_anything_ends_in_the_file(
    there: bytes, range_known: bool, serve: Callable[..., str], tmp_path: Path
) -> None:
    """The server may not know ranges, and the part may be of another file, or longer."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file.bin.part").write_bytes(there)
    url = serve(ranged(CONTENT) if range_known else sends(head(), CONTENT))
    assert take(url, tmp_path / "work", retries=1) == CONTENT


def test_of_a_killed_call_only_what_it_downloaded_stays(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("lock", "data_batch_1", "x.whole", "x.tar.gz.part"):
        (work / name).write_bytes(b"half")
    with download.workplace(work):
        pass
    assert [path.name for path in work.iterdir()] == ["x.tar.gz.part"]


def test_two_calls_at_once_are_told_apart(tmp_path: Path) -> None:
    with download.workplace(tmp_path / "work") as work:
        (work / "mine").write_bytes(b"half")
        with pytest.raises(DataError, match="another process downloads into .*wait"), download.workplace(work):
            pass
        assert (work / "mine").exists()


def test_a_full_disk_is_said_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**8}))
    monkeypatch.setattr(download, "get", lambda *_, **__: pytest.fail("asked"))
    for name, needed in (("cifar10", 357), ("svhn", 246)):
        with pytest.raises(DataError, match=f"{needed} MB are needed and 100 MB are free"):
            fetch(name, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


# Archives


def packed(*members: tuple[str, bytes | str], batch: bytes = b"batch") -> bytes:
    """A `.tar.gz` of one batch and of other members: content, or a link's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, what in ((f"{CIFAR10.folder}/data_batch_1", batch), *members):
            info = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.type, _, info.linkname = what.partition(":")
                info.type = info.type.encode()
                tar.addfile(info)
    return buffer.getvalue()


def sparse() -> bytes:
    """A member that says it has a terabyte, and holds a hole."""
    info = tarfile.TarInfo(f"{CIFAR10.folder}/test_batch")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % 2**33
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    return gzip.compress(bytes(block) + bytes(10240))


ARCHIVES = {
    "a name above": packed(("../outside", b"x")),
    "a name through above": packed((f"{CIFAR10.folder}/../../outside", b"x")),
    "an absolute name": packed(("/tmp/outside", b"x")),
    "a symlink": packed((f"{CIFAR10.folder}/test_batch", "2:/etc/passwd")),
    "a hard link": packed((f"{CIFAR10.folder}/test_batch", "1:../outside")),
    "a device": packed((f"{CIFAR10.folder}/test_batch", "3:")),
    "a pipe": packed((f"{CIFAR10.folder}/test_batch", "6:")),
    "a bomb": packed((f"{CIFAR10.folder}/test_batch", bytes(3 * 2**20))),
    "a sparse file": sparse(),
    "no batch": packed(),
    "another batch": packed((f"{CIFAR10.folder}/test_batch", b"other")),
    "cut short": packed((f"{CIFAR10.folder}/test_batch", b"test"))[:-30],
    "no archive": b"rubbish",
    "a gzip of rubbish": gzip.compress(b"rubbish" * 1000),
    "nothing": b"",
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_with_the_right_checksum_and_bad_members_is_refused(
    case: str, serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing appears outside the folder, nothing stays in it."""
    content, files = ARCHIVES[case], {"data_batch_1": known(b"batch"), "test_batch": known(b"test")}
    url = serve(sends(head(length=len(content)), content)).replace("file.bin", "cifar-10-python.tar.gz")
    source = sources.SOURCES["cifar10"]
    release = replace(source.release, urls={url: known(content)}, files=files)
    monkeypatch.setitem(sources.SOURCES, "cifar10", replace(source, release=release))
    with pytest.raises(DataError, match="cifar10 could not be downloaded.*nothing was kept. Try again") as caught:
        fetch("cifar10", tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()] == []
