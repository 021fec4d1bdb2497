"""Run one input in this process, and say what is wrong with the answer."""

import contextlib
import faulthandler
import io
import os
import resource
import signal
import socket
import sys
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import papermill
import pytest
import torch

from kinds.case import WRONG_OR_USED, Case
from linfair.cli import study
from linfair.cli.main import main
from linfair.study import cluster, plan, runner

SECONDS = 240  # a hang takes longer, an answer on a busy machine does not
MEGABYTES = 1000  # that an input may take
BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Hung(BaseException):
    """No answer within the bound."""


class Began(BaseException):
    """Something long was begun for a request that is wrong."""


def _began(*_: object, **__: object) -> None:
    raise Began


def _alone(*_: object, **__: object) -> None:
    raise ConnectionRefusedError(111, "the tests have no network")


@contextlib.contextmanager
def guarded(case: Case, run: Path, store: Path) -> Iterator[None]:
    """A folder and a cache of its own, no network, nothing that trains, and a bound on the time."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.resetwarnings()  # as users have them: pytest makes errors of warnings
        for name in ("LINFAIR_DATA", "LINFAIR_STRICT", "LINFAIR_PROFILE", "XDG_CACHE_HOME"):
            patch.delenv(name, raising=False)
        for name, value in ({"LINFAIR_CACHE": str(store)} | case.env).items():
            patch.setenv(name, value)
        for place, name in (
            (torch.optim.Optimizer, "__init__"),
            (sys.modules["linfair.audit.diagnose"], "Original"),
            (runner, "_Process"),
            (cluster, "run_on_ray"),
            (papermill, "execute_notebook"),
        ):
            patch.setattr(place, name, _began)
        patch.setattr(socket, "getaddrinfo", _alone)
        patch.setattr(time, "sleep", lambda seconds: None)  # between tries of a download
        patch.setattr(study, "BOOK", run / "nowhere")  # the book's rows take seconds to read
        if case.definitions:
            patch.setattr(plan, "FIGURES", run.parent / "in/figures")
            patch.setattr(plan, "figures", cache(plan.figures.__wrapped__))
            patch.setattr(plan.read_profiles, "__defaults__", (run.parent / "in/figures/profiles.toml",))
        patch.chdir(run)
        limits = resource.getrlimit(resource.RLIMIT_AS)
        if sys.platform == "linux":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (4 * MEGABYTES << 20), limits[1]))
        signal.signal(signal.SIGALRM, _hung)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        faulthandler.dump_traceback_later(SECONDS + 40, exit=True, file=sys.__stderr__)  # for one that is not in Python
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, limits)
            faulthandler.cancel_dump_traceback_later()


def _hung(*_: object) -> None:
    raise Hung


def answer(case: Case, world: Path, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    place, run = folder / "in", folder / "run"
    words = [word.replace("WORLD", str(world)).replace("IN/", f"{place}/") for word in case.words]
    env = {name: value.replace("IN/", f"{place}/") for name, value in case.env.items()}
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    alone = guarded(replace(case, env=env), run, folder / "cache")
    with alone, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    for stream in (out, err):
        stream.flush()
    return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()


def problems(case: Case, world: Path, folder: Path) -> list[str]:
    """Everything that is wrong with the answer to an input; nothing is, where the list is empty."""
    place, run = folder / "in", folder / "run"
    place.mkdir(), run.mkdir()
    case.prepare(world, place)
    before, memory = _state(world) | _state(folder), _memory()
    try:
        code, out, err = answer(case, world, folder)
    except Began:
        return [] if 0 in case.codes else ["something long was begun"]
    except Hung:
        return [f"no answer within {SECONDS} s"]
    except SystemExit as error:
        return [f"traceback: SystemExit({error.code})"]
    except Exception as error:
        return [f"traceback: {traceback.format_exc(limit=-3)[-400:]}" + str(error)[:100]]
    said, found = err[max(err.rfind("\nlinfair: ") + 1, 0) :], []
    if code not in case.codes:
        found.append(f"exit code {code}, not {' or '.join(map(str, case.codes))}; said {(err or out)[-300:]!r}")
    if "Traceback" in out + err or "a fault of linfair itself" in err:
        found.append(f"traceback: {err[-300:]!r}")
    if code and not said.splitlines()[-1:][0].startswith("linfair: "):
        found.append(f"the last line does not begin with `linfair: `: {said[-400:]!r}")
    if code and len(said) > 1000:
        found.append(f"a message of {len(said):,} characters: {said[:120]!r}...")
    if (code or case.codes != WRONG_OR_USED) and not any(one in err for one in case.says):
        found.append(f"names none of {case.says}: {err[-400:]!r}")
    if raw := sorted(set(filter(_control, out + err))):
        found.append(f"raw control characters {raw}")
    if code and (new := sorted(str(one.relative_to(run)) for one in run.rglob("*"))):
        found.append(f"left behind {new[:4]}")
    after = _state(world) | _state(folder)
    lost = [path for path, known in before.items() if after.get(path) != known and Path(path).name not in err]
    if lost := [path for path in lost if not path.endswith(".lock")]:  # a claim is taken over
        found.append(f"changed without a word: {lost[:4]}")
    if (grown := _memory() - memory) > MEGABYTES:
        found.append(f"took {grown} MiB")
    return found


def _control(letter: str) -> bool:
    kind = unicodedata.category(letter)
    return (kind == "Cc" and letter not in "\n\t\r") or letter in BIDI or kind == "Cs"


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder; links are not followed."""
    found = {}
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            found |= _state(Path(entry.path))
        else:
            about = entry.stat(follow_symlinks=False)
            found[entry.path] = about.st_size, about.st_mtime_ns
    return found


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
