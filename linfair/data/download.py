"""Downloads of files whose bytes and SHA-256 are known, bounded in time, bytes and redirects, resumed where offered.

A server is not waited for longer than `WAIT` seconds at a time, and must send `LEAST` bytes in that time. No more is
written than the file has, and nothing is used that its SHA-256 does not confirm.
"""

import fcntl
import gzip
import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from linfair.data.core import DataError, digest, ensure, shown
from linfair.data.official import Known

WAIT, LEAST = 30.0, 2**18  #: Seconds in which a server must send as many bytes
RETRIES, PAUSE = 2, 1.0  #: How often a download that broke off is taken up again, after so many seconds
REDIRECTS = 5


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A folder for one call at a time; of what any call left in it only `*.part` stays, to go on with."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process downloads into {folder} now; wait until it ends") from None
        try:
            yield folder
        finally:
            for path in folder.iterdir():
                if path.suffix != ".part":
                    path.unlink()
            with suppress(OSError):  # parts are left
                folder.rmdir()


def get(url: str, folder: Path, known: Known, retries: int = RETRIES) -> Path:
    """Download a file into a workplace; if it breaks off, a `*.part` is left where the server can go on."""
    part = folder / f"{url.rpartition('/')[2]}.part"
    have = part.stat().st_size if part.exists() else 0
    try:
        path = part if have == known.bytes else _receive(url, part, have, known)
        if (found := digest(path)) == known.sha256:
            return path
        path.unlink()  # what was there may be of another file: once more, from the beginning
        ensure(have and retries, f"{url}: its SHA-256 is {found}, which does not match {known.sha256}")
    except (requests.RequestException, HTTPError, ConnectionError, TimeoutError) as error:
        ensure(retries, f"{url}: {shown(str(error), 300)}")
        time.sleep(PAUSE)
    except DataError:
        part.unlink(missing_ok=True)
        raise
    return get(url, folder, known, retries - 1)


def _receive(url: str, part: Path, have: int, known: Known) -> Path:
    """Write what the server sends into the part, or into another file where it cannot go on with one."""
    answer = _within(lambda: _answer(url, have))
    try:
        have, path = _checked(answer, url, part, have, known)
        bar = tqdm(desc=part.stem, total=known.bytes, initial=have, unit="B", unit_scale=True)
        with bar, path.open("ab" if have else "wb") as file:
            since, before = time.monotonic(), have
            while chunk := _within(lambda: answer.raw.read1(2**16, decode_content=False)):
                have += len(chunk)
                ensure(have <= known.bytes, f"{url}: the server sends more than the {known.bytes:,} bytes of the file")
                file.write(chunk)
                bar.update(len(chunk))
                if (now := time.monotonic()) - since > WAIT:
                    if have - before < LEAST:
                        raise TimeoutError(f"the server sent {have - before:,} bytes in {WAIT:g} s, which is too slow")
                    since, before = now, have
    finally:
        with suppress(OSError, RuntimeError, ValueError):  # it may have ended
            answer.raw.shutdown()  # a call that still reads would hold `close` up
        answer.close()
    if have < known.bytes:
        raise ConnectionError(f"the server ended after {have:,} of {known.bytes:,} bytes")
    return path


def _checked(answer: requests.Response, url: str, part: Path, have: int, known: Known) -> tuple[int, Path]:
    """What there is already of the file that is sent, and where it goes: the part, if the server can go on with it."""
    status, told = answer.status_code, answer.headers
    if status >= 400 and status != 416:  # 416: it has no such range
        answer.raise_for_status()
    goes_on = status == 206
    given, wanted = told.get("Content-Range", "no range"), f"bytes {have}-"
    have = have if goes_on else 0
    size, rest = told.get("Content-Length"), known.bytes - have
    for right, problem in (
        (status in (200, 206), f"answers with status {status}"),
        ("Content-Encoding" not in told, f"packs the file ({told.get('Content-Encoding')}), which nobody asked for"),
        (not goes_on or given.startswith(wanted), f"was asked for {wanted}, and sends {given}"),
        (size in (None, str(rest)), f"offers {size} bytes; there must be {rest:,}"),
    ):
        ensure(right, f"{url}: the server {shown(problem, 300)}")
    return have, part if goes_on or told.get("Accept-Ranges") == "bytes" else part.with_suffix(".whole")


def _answer(url: str, have: int) -> requests.Response:
    """What the server answers, a few redirects to http(s) later; of no body is anything read."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    session = requests.Session()
    for _ in range(REDIRECTS + 1):
        request = session.prepare_request(requests.Request("GET", url, headers=headers))
        settings = session.merge_environment_settings(request.url, {}, True, None, None)
        # `requests.get` would read the body of a redirect, however long it is
        answer = session.get_adapter(request.url).send(request, timeout=2 * WAIT, **settings)
        if not answer.is_redirect:
            return answer
        answer.close()
        url = urljoin(url, answer.headers["Location"])
        followed = urlsplit(url).scheme in ("http", "https")
        ensure(followed, f"the server redirects to {shown(url)!r}; only http and https are followed")
    raise DataError(f"the server redirects more than {REDIRECTS} times, at last to {shown(url)!r}")


def _within(call: Callable[[], Any]) -> Any:
    """What a call returns; if it takes longer than `WAIT`, a TimeoutError, and the call is left to itself."""
    future = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # for the thread that waits
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(WAIT)
    except TimeoutError:
        raise TimeoutError(f"the server said nothing for {WAIT:g} s") from None


def unpack(archive: Path, inner: str, files: Mapping[str, Known]) -> None:
    """Write the named files of a `.tar.gz`, in the folder `inner` there, or the one of a `.gz`, beside the archive."""
    alone = archive.stem in files
    files = {archive.stem: files[archive.stem]} if alone else files
    most = sum(known.bytes for known in files.values()) + 2**20
    with gzip.open(archive) as packed:
        content = packed.read(most + 1)
    ensure(len(content) <= most, f"{archive.name} unpacks to more than {most:,} bytes")
    with nullcontext() if alone else tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        for one in tar or ():
            parts, plain = PurePosixPath(one.name).parts, one.isdir() or (one.isreg() and not one.issparse())
            inside = plain and parts[:1] == (inner,) and ".." not in parts
            ensure(inside, f"{archive.name} holds {shown(one.name)!r}, which is no file in {inner}")
        for name, known in files.items():
            content = content if alone else tar.extractfile(f"{inner}/{name}").read()
            right = hashlib.sha256(content).hexdigest() == known.sha256
            ensure(right, f"{name} in {archive.name} does not match its SHA-256")
            (archive.parent / name).write_bytes(content)
